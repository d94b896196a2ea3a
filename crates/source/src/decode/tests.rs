//! Decoding: a table of cases for each rule, then random lines against an independent parser ([`random`]).

mod again;
mod batch_reading;
mod random;
mod reader;
mod values;

use super::*;
use adtally_model::InputId;
use batch_reading::in_order;
use reader::Reading;

/// Short, so that random lines sometimes exceed it.
const TEST_LINE_BYTES_MAX: usize = 1024;

fn settings() -> DecodeSettings {
    DecodeSettings { line_bytes_max: TEST_LINE_BYTES_MAX, ..DecodeSettings::default() }
}

fn decoder(settings: DecodeSettings) -> Decoder {
    Decoder::new(settings, IdentityKey::new([1; 16])).expect("settings")
}

fn decode_at(decoder: &Decoder, name: &str, text: &[u8], from: u64) -> DecodedBatch {
    let format = format::find(name, text, true, None, decoder.settings()).expect("a format");
    let text = text[from as usize..].to_vec();
    let to = from + text.len() as u64;
    decoder.decode(Block { input: InputId(1), from, to, text, nul_bytes: 0, format, overlong: false })
}

fn readings(name: &str, text: &[u8]) -> Vec<Reading> {
    let decoder = decoder(DecodeSettings { format: of(name), ..settings() });
    in_order(&decode_at(&decoder, name, text, 0))
}

fn readings_the_long_way(name: &str, text: &[u8]) -> Vec<Reading> {
    let mut decoder = decoder(DecodeSettings { format: of(name), ..settings() });
    decoder.short_way = false;
    in_order(&decode_at(&decoder, name, text, 0))
}

fn of(name: &str) -> FormatChoice {
    if name.ends_with(".csv") { FormatChoice::Csv } else { FormatChoice::Ndjson }
}

/// A valid click with a value replaced by some text.
fn click_with(field: &str, value: &str) -> String {
    let mut line = String::from("{");
    for (name, good) in [
        ("click_timestamp", "1767225600123"),
        ("ad_id", "42"),
        ("user_id", "\"u1\""),
        ("ip", "\"1.2.3.4\""),
        ("country", "\"US\""),
    ] {
        let value = if name == field { value } else { good };
        line += &format!("\"{name}\":{value},");
    }
    if field == "click_id" {
        line += &format!("\"click_id\":{value},");
    }
    line.pop();
    line + "}"
}

/// `click` or the verdict and its reason.
fn verdict_of(decoder: &Decoder, line: &[u8]) -> String {
    let batch = decode_at(decoder, "a", line, 0);
    match (batch.clicks.len(), &batch.rejected[..]) {
        (1, []) => "click".into(),
        (0, [rejected]) => format!("{} {}", rejected.verdict, rejected.reason),
        other => panic!("{other:?}"),
    }
}

/// Both paths must give this verdict, and the independent parser must agree with it.
fn check(line: impl AsRef<[u8]>, expected: &str) {
    let line = line.as_ref();
    let mut decoder = decoder(DecodeSettings::default());
    let shown = String::from_utf8_lossy(&line[..line.len().min(200)]);
    assert_eq!(verdict_of(&decoder, line), expected, "{shown}");
    decoder.short_way = false;
    assert_eq!(verdict_of(&decoder, line), expected, "{shown}");
    let plain = match &reader::read_json(line, LINE_BYTES_MAX)[..] {
        [Reading::Click(_)] => "click",
        [Reading::Invalid] => "invalid",
        [Reading::Malformed] => "malformed",
        other => panic!("{other:?}"),
    };
    assert_eq!(plain, expected.split(' ').next().unwrap_or_default(), "{shown}");
}

#[test]
fn click_timestamp() {
    const RANGE: &str = "invalid click_timestamp: before 2000 or after 2099";
    const NEITHER: &str = "invalid click_timestamp: neither a plain number nor RFC 3339 with an offset";
    const SECONDS: &str = "invalid click_timestamp: 1767225600 is 1970-01-21 in ms; it would be 2026-01-01 in s: set \
                           input.timestamp_unit";
    for (value, expected) in [
        ("946684800000", "click"),
        ("946684799999", "invalid click_timestamp: 946684799999 is 1999-12-31 in ms: before 2000 or after 2099"),
        ("4102444799999", "click"),
        ("4102444799999.99", "click"),
        ("4102444800000", "invalid click_timestamp: 4102444800000 is 2100-01-01 in ms: before 2000 or after 2099"),
        ("-1", "invalid click_timestamp: -1 is 1969-12-31 in ms: before 2000 or after 2099"),
        ("-1.5", "invalid click_timestamp: -1.5 is 1969-12-31 in ms: before 2000 or after 2099"),
        ("0", "invalid click_timestamp: 0 is 1970-01-01 in ms: before 2000 or after 2099"),
        ("1767225600", SECONDS),
        ("\"1767225600\"", SECONDS),
        (
            "99999999999999999999999",
            "invalid click_timestamp: 99999999999999999999999 in ms is not within the years 0 to \
                                     9999: before 2000 or after 2099",
        ),
        (
            "123456789012345678901234567890",
            "invalid click_timestamp: a number of 30 digits is not a time from 2000 to 2099 \
                                            in any unit",
        ),
        ("\"2026-01-01T00:00:00.123456Z\"", "click"),
        ("\"1999-12-31T23:59:59.999Z\"", RANGE),
        ("\"2026-01-01T00:00:60Z\"", NEITHER),
        ("\"2026-01-01T00:00:00\"", NEITHER),
        ("\"1767225600123\"", "click"),
        ("\"1767225600123.4\"", "click"),
        ("1767225600123.0", "click"),
        ("1767225600123.", "malformed json: expected a digit at byte 34"),
        ("\"1767225600123.\"", NEITHER),
        ("\".5\"", NEITHER),
        ("\"01767225600123\"", NEITHER),
        ("\"+1767225600123\"", NEITHER),
        ("\" 1767225600123\"", NEITHER),
        ("\"1767225600123 \"", NEITHER),
        ("\"1.5.5\"", NEITHER),
        ("\"\"", NEITHER),
        ("1.767225600123e12", NEITHER),
        ("1767225600123.5e0", NEITHER),
        ("-0.5", NEITHER),
        ("null", "invalid click_timestamp: missing"),
        ("[]", NEITHER),
    ] {
        check(click_with("click_timestamp", value), expected);
    }
}

#[test]
fn ad_id() {
    const NEITHER: &str = "invalid ad_id: neither an integer nor decimal digits";
    const RANGE: &str = "invalid ad_id: not from 0 to 9223372036854775807";
    for (value, expected) in [
        ("0", "click"),
        ("\"0\"", "click"),
        ("9223372036854775807", "click"),
        ("\"9223372036854775807\"", "click"),
        ("9223372036854775808", RANGE),
        ("\"18446744073709551616\"", RANGE),
        ("-1", RANGE),
        ("\"-1\"", NEITHER),
        ("\"+1\"", NEITHER),
        ("\"01\"", NEITHER),
        ("\"\"", NEITHER),
        ("1.0", NEITHER),
        ("1e3", NEITHER),
        ("-0", NEITHER),
        ("true", NEITHER),
        ("null", "invalid ad_id: missing"),
        ("01", "malformed json: expected a comma or the object's end at byte 43"),
    ] {
        check(click_with("ad_id", value), expected);
    }
}

#[test]
fn user_id() {
    const RANGE: &str = "invalid user_id: an integer not from -2^63 to 2^64-1";
    let quoted = |text: &str, times| format!("\"{}\"", text.repeat(times));
    for (value, expected) in [
        (quoted("u", 128), "click"),
        (quoted("u", 129), "invalid user_id: longer than 128 bytes"),
        (quoted("\u{e9}", 64), "click"),
        (quoted("\u{e9}", 65), "invalid user_id: longer than 128 bytes"),
        (quoted("\\u00e9", 64), "click"),
        (quoted("", 0), "invalid user_id: empty"),
        ("-9223372036854775808".into(), "click"),
        ("-9223372036854775809".into(), RANGE),
        ("18446744073709551615".into(), "click"),
        ("18446744073709551616".into(), RANGE),
        ("-0".into(), "invalid user_id: neither text nor an integer"),
        ("{}".into(), "invalid user_id: neither text nor an integer"),
        ("null".into(), "invalid user_id: missing"),
        ("\"\\u0000\"".into(), "click"),
    ] {
        check(click_with("user_id", &value), expected);
    }
    let decoder = decoder(settings());
    let user = |value| decode_at(&decoder, "a", click_with("user_id", value).as_bytes(), 0);
    assert_eq!(user("77").clicks.identity, user("\"77\"").clicks.identity);
    assert_eq!(user("\"\\u0037\\u0037\"").clicks.identity, user("77").clicks.identity);
}

#[test]
fn ip_country_and_click_id() {
    for (field, value, expected) in [
        ("ip", "\"::1\"", "click"),
        ("ip", "\"1.2.3.4/32\"", "invalid ip: not an IPv4 or IPv6 address"),
        ("ip", "\"fe80::1%eth0\"", "invalid ip: not an IPv4 or IPv6 address"),
        ("ip", "\"\"", "invalid ip: not an IPv4 or IPv6 address"),
        ("ip", "16909060", "invalid ip: not text"),
        ("ip", "null", "invalid ip: missing"),
        ("country", "7", "click"),
        ("country", "[\"US\"]", "click"),
        ("country", "\"\\ud800\"", "malformed country: a lone surrogate"),
        ("country", "[\"\\ud800\"]", "malformed country: a lone surrogate"),
        ("country", "{\"\\udc00\":1}", "malformed country: a lone surrogate"),
        ("click_id", "\"\"", "click"),
        ("click_id", "null", "click"),
        ("click_id", "7", "invalid click_id: not text"),
        ("click_id", "false", "invalid click_id: not text"),
    ] {
        check(click_with(field, value), expected);
    }
    check(click_with("click_id", &format!("\"{}\"", "c".repeat(64))), "click");
    check(click_with("click_id", &format!("\"{}\"", "c".repeat(65))), "invalid click_id: longer than 64 bytes");
    for (value, expected) in
        [("\"de\"", "DE"), ("\"UK\"", "ZZ"), ("null", "ZZ"), ("\"\"", "ZZ"), ("5", "ZZ"), ("\"d\\u0045\"", "DE")]
    {
        let readings = readings("a", click_with("country", value).as_bytes());
        assert!(matches!(&readings[..], [Reading::Click(click)] if click.country == expected), "{value}");
    }
}

#[test]
fn objects_keys_and_unknown_fields() {
    let good = click_with("", "");
    let with = |member: &str| good.replacen('{', &format!("{{{member},"), 1);
    let ending = |member: &str| format!("{},{member}}}", &good[..good.len() - 1]);
    check(&good, "click");
    check("{}", "invalid click_timestamp: missing");
    check("[]", "malformed json: not an object at byte 1");
    check("17", "malformed json: not an object at byte 1");
    check("   ", "malformed json: not an object at byte 4");
    check("a\0\0\0", "malformed json: not an object at byte 1");
    check(format!("{good} x"), &format!("malformed json: text after the object at byte {}", good.len() + 2));
    check(format!("{good}{good}"), &format!("malformed json: text after the object at byte {}", good.len() + 1));
    check(format!(" \t{good}\t \r\r"), "click");
    check(with(r#""x":"\ud800""#), "click");
    check(with(r#""\ud800":1"#), "click");
    check(with(r#""x":{"a":[1,{"b":"\udfff"}]}"#), "click");
    check(with(r#""x":1e99999"#), "click");
    check(with(r#""x":-123456789012345678901234567890.5E-7"#), "click");
    check(with(r#""x":NaN"#), "malformed json: expected a value at byte 6");
    check(with(r#""x":"\u12x4""#), "malformed json: a broken \\u escape at byte 7");
    check(with(r#""x":"\u"""#), "malformed json: a broken \\u escape at byte 7");
    check(with("\"x\":\"\x01\""), "malformed json: a control character in a string at byte 7");
    check(with("\"x\":[1}"), "malformed json: expected a comma or a closing bracket at byte 8");
    check(ending(r#""ad_id":"x""#), "invalid ad_id: neither an integer nor decimal digits");
    check(with(r#""ad_id":"x","ad_id":"\ud800""#), "click");
    check(ending(r#""ad\u005fid":-1"#), "invalid ad_id: not from 0 to 9223372036854775807");
    check(ending(r#""AD_ID":-1"#), "click");
    for depth in [1, 63, 200, 30_000] {
        let nested = format!("\"x\":{}{}", "[".repeat(depth), "]".repeat(depth));
        check(with(&nested), "click");
        let nested = format!("\"x\":{}0{}", "{\"a\":".repeat(depth / 4), "}".repeat(depth / 4));
        check(with(&nested), "click");
    }
    check(with(&format!("\"x\":{}", "[".repeat(60_000))), "malformed json: expected a value at byte 60006");
}

#[test]
fn encoding_and_length() {
    let good = click_with("", "");
    let mut bad = click_with("user_id", "\"u?\"").into_bytes();
    let at = bad.iter().position(|&byte| byte == b'?').expect("a mark");
    bad[at] = 0xff;
    check(&bad, &format!("malformed utf-8: not valid at byte {}", at + 1));
    let padding = LINE_BYTES_MAX - good.len();
    let long = |more| format!("{{{}{}", " ".repeat(padding + more), &good[1..]);
    check(long(0), "click");
    check(long(1), "malformed line: longer than 65536 bytes");
    check(format!("{}\r\n", long(0)), "click");
    // A bad line does not affect its neighbours.
    let text = [good.as_bytes(), b"\n", &bad, b"\r\n", good.as_bytes()].concat();
    let readings = readings("a", &text);
    assert!(matches!(&readings[..], [Reading::Click(_), Reading::Malformed, Reading::Click(_)]));
    let huge = vec![b'x'; 10_000];
    let batch = decode_at(&decoder(settings()), "a", &huge, 0);
    assert_eq!(batch.rejected[0].payload.len(), PAYLOAD_BYTES_MAX);
}

#[test]
fn lines_and_their_places() {
    let good = click_with("", "");
    let text = format!("\u{feff}{good}\n\r\n\n{good}\r\n{{}}\n{good}");
    let decoder = decoder(settings());
    let batch = decode_at(&decoder, "a", text.as_bytes(), 0);
    assert_eq!(batch.clicks.len(), 3);
    assert_eq!(batch.lines(), 4);
    for row in 0..3 {
        assert_eq!(batch.line(batch.clicks.line_start[row]), good.as_bytes());
    }
    assert_eq!(batch.line(batch.rejected[0].line_start), b"{}");
    // A byte order mark after offset 0 belongs to its line.
    let text = format!("{good}\n\u{feff}{good}\n");
    assert!(matches!(&readings("a", text.as_bytes())[..], [Reading::Click(_), Reading::Malformed]));
    let from = good.len() as u64 + 1;
    let batch = decode_at(&decoder, "a", text.as_bytes(), from);
    assert_eq!((batch.from, batch.lines(), batch.rejected.len()), (from, 1, 1));
    let block = Block {
        input: InputId(1),
        from: 5,
        to: 1 << 30,
        text: vec![b'x'; 4096],
        nul_bytes: 0,
        format: Format::Ndjson,
        overlong: true,
    };
    let batch = decoder.decode(block);
    assert_eq!((batch.from, batch.to, batch.lines()), (5, 1 << 30, 1));
    assert_eq!(batch.rejected[0].reason, "line: longer than 1024 bytes");
}

#[test]
fn own_names_and_units() {
    let fields = FieldNames {
        click_timestamp: "ts".into(),
        ad_id: "ad".into(),
        ip: "client\"ip".into(),
        ..FieldNames::default()
    };
    let settings = DecodeSettings { timestamp_unit: TimestampUnit::Seconds, fields, ..settings() };
    let decoder = decoder(settings);
    let line = br#"{"ts":1767225600,"ad":7,"user_id":"u","client\"ip":"::1","ad_id":-1}"#;
    assert_eq!(verdict_of(&decoder, line), "click");
    let fields = FieldNames { ad_id: "ip".into(), ..FieldNames::default() };
    let refused = Decoder::new(DecodeSettings { fields, ..DecodeSettings::default() }, IdentityKey::new([7; 16]));
    let reason =
        "input.fields.ip must differ from input.fields.ad_id: one field of the log cannot be two fields of a click";
    assert_eq!(refused.expect_err("two fields of one name").to_string(), reason);
}

#[test]
fn names_that_json_must_escape() {
    let fields = FieldNames { user_id: "u\"r".into(), click_id: "a\\b".into(), ..FieldNames::default() };
    let decoder = decoder(DecodeSettings { fields, ..settings() });
    let good = r#"{"click_timestamp":1767225600123,"ad_id":1,"u\"r":"u","ip":"::1","a\\b":"c"}"#;
    let broken = r#"{"click_timestamp":1767225600123,"ad_id":1,"u"r":"u","ip":"::1"}"#;
    let text = format!("{good}\n{broken}\n{good}\n");
    let batch = decode_at(&decoder, "a", text.as_bytes(), 0);
    assert_eq!((batch.clicks.len(), batch.clicks.get(1).click_id), (2, &b"c"[..]));
    assert_eq!(batch.rejected[0].verdict, Verdict::Malformed);
}

#[test]
fn csv() {
    let header = "click_timestamp,ad_id,user_id,ip,country,click_id\n";
    let check = |line: &str, expected: &str| {
        let text = format!("{header}{line}\n");
        let batch = decode_at(&decoder(settings()), "a", text.as_bytes(), 0);
        let found = match (batch.clicks.len(), &batch.rejected[..]) {
            (1, []) => "click".into(),
            (0, [rejected]) => format!("{} {}", rejected.verdict, rejected.reason),
            other => panic!("{other:?}"),
        };
        assert_eq!(found, expected, "{line}");
    };
    check("1767225600123,42,u1,1.2.3.4,US,c1", "click");
    check("1767225600123,42,u1,1.2.3.4,,", "click");
    check("1767225600123,42,u1,1.2.3.4,,\r", "click");
    check("2026-01-01T00:00:00Z,\"42\",\"u,\"\"1\",::1,us,\"\"", "click");
    check("1767225600123,42,u1,1.2.3.4,US", "malformed csv: 5 columns, the header has 6");
    check("1767225600123,42,u1,1.2.3.4,US,,", "malformed csv: more columns than the 6 of the header");
    check("1767225600123,42,u\"1,1.2.3.4,US,", "malformed csv: a quote within a column that does not begin with one");
    check("1767225600123,42,\"u1,1.2.3.4,US,", "malformed csv: a quoted column does not end in its line");
    check("1767225600123,42,\"u\"1,1.2.3.4,US,", "malformed csv: text after the quotes of a column");
    check("1767225600123,042,u1,1.2.3.4,US,", "invalid ad_id: neither an integer nor decimal digits");
    check("1767225600123,-1,u1,1.2.3.4,US,", "invalid ad_id: neither an integer nor decimal digits");
    check("1767225600123,42,,1.2.3.4,US,", "invalid user_id: missing");
    check(
        "01767225600123,42,u1,1.2.3.4,US,",
        "invalid click_timestamp: neither a plain number nor RFC 3339 with an offset",
    );
    check(" ", "malformed csv: 1 columns, the header has 6");
}

#[test]
fn csv_headers() {
    let line = "42;1767225600123;x;u1;1.2.3.4";
    let semicolons = DecodeSettings { csv_delimiter: CsvDelimiter::Semicolon, ..settings() };
    let semicolons = decoder(semicolons);
    let text = format!("\u{feff}\r\n\"ad_id\";click_timestamp;note;user_id;ip\r\n{line}\n\n{line}\n");
    let batch = decode_at(&semicolons, "clicks", text.as_bytes(), 0);
    assert_eq!((batch.clicks.len(), batch.lines()), (2, 2));
    let from = text.find(line).expect("the line") as u64;
    assert_eq!(decode_at(&semicolons, "clicks", text.as_bytes(), from).clicks.len(), 2);
    // A header without a required field makes every line invalid; a broken one makes all lines malformed, also itself.
    let text = "click_timestamp,ad_id\n1767225600123,42\n";
    assert_eq!(readings("a.csv", text.as_bytes()), [Reading::Invalid]);
    let batch = decode_at(&decoder(settings()), "a.csv", b"ad_id,\"x\n1,2\n3,4\n", 0);
    assert_eq!(batch.lines(), 3);
    assert_eq!(batch.rejected[0].reason, "csv: the header is broken: a quoted column does not end in its line");
    let long = format!("{},b\n1,2\n", "a".repeat(2_000));
    let batch = decode_at(&decoder(settings()), "a.csv", long.as_bytes(), 0);
    assert_eq!(batch.lines(), 2);
    // A line with only a carriage return is not empty: it is the header, and names nothing.
    let text = b"\r\r\nad_id,ip\n1,2\n";
    assert_eq!(readings("a.csv", text), vec![Reading::Malformed; 3]);
    assert_eq!(reader::read_csv(text, TEST_LINE_BYTES_MAX), vec![Reading::Malformed; 3]);
    // Without a header no line is skipped silently.
    let text = "1767225600123,42,u1,1.2.3.4\n1767225600124,42,u1,1.2.3.4\n";
    let batch = decode_at(&decoder(settings()), "a.csv", text.as_bytes(), 0);
    assert_eq!((batch.clicks.len(), batch.rejected.len()), (0, 2));
    assert_eq!(batch.rejected[0].reason, "csv: the first line is not a header: it names none of the fields");
    // Joined files repeat the header.
    let text = "click_timestamp,ad_id,user_id,ip\r\n1767225600123,42,u1,1.2.3.4\n".repeat(2);
    let batch = decode_at(&decoder(settings()), "a", text.as_bytes(), 0);
    assert_eq!((batch.clicks.len(), batch.rejected.len()), (2, 0));
    assert_eq!(reader::read_csv(text.as_bytes(), TEST_LINE_BYTES_MAX).len(), 2);
    // Half a header, cut off by the limit of the search, is not a header.
    let text = format!("{}ad_id,ip,click_id\n1,1.2.3.4,c\n", "\n".repeat(TEST_LINE_BYTES_MAX - 9));
    let prefix = &text.as_bytes()[..format::prefix_bytes(&settings())];
    assert!(prefix.ends_with(b"ad_id,ip,click"), "{}", prefix.escape_ascii());
    let csv = DecodeSettings { format: FormatChoice::Csv, ..settings() };
    let Some(Format::Csv(header)) = format::find("a", prefix, false, None, &csv) else { panic!("no CSV") };
    assert_eq!(header.broken.as_deref(), Some("csv: the header does not end within 1024 bytes"));
    assert_eq!(header.end, 0);
}

#[test]
fn formats_are_found() {
    let found = |name: &str, prefix: &str, last| match format::find(name, prefix.as_bytes(), last, None, &settings()) {
        None => "wait",
        Some(Format::Ndjson) => "ndjson",
        Some(Format::Csv(_)) => "csv",
    };
    assert_eq!(found("a", "", false), "wait");
    assert_eq!(found("a", "\u{feff}", false), "wait");
    assert_eq!(found("a.csv", "{", false), "ndjson");
    assert_eq!(found("a", "\n\u{20}", false), "wait");
    assert_eq!(found("a", "ad_id,ip", false), "wait");
    assert_eq!(found("a", "ad_id,ip", true), "csv");
    assert_eq!(found("a", "ad_id,ip\n", false), "csv");
    assert_eq!(found("a.log", "garbage\n", false), "ndjson");
    assert_eq!(found("b/a.CSV.1.gz", "garbage\n", false), "csv");
    assert_eq!(found("b.csv/a.log", "garbage\n", false), "ndjson");
    assert_eq!(found("a.log", &"x".repeat(5_000), false), "ndjson");
}

#[test]
fn a_header_names_two_fields_or_more() {
    let settings = settings();
    for (line, expected) in [
        ("click_timestamp,ad_id,user_id,ip,country", true),
        ("x,\"ad_id\",y,ip", true),
        ("ip,user_id", true),
        ("ad_id", false),
        ("ad_id,x", false),
        ("1767225600000,7,u1,198.51.100.7,DE", false),
        ("ad_id;ip", false),
        ("ad_id,ip,\"x", false),
        ("", false),
    ] {
        assert_eq!(csv::is_header(line.as_bytes(), &settings), expected, "{line}");
    }
    assert!(!csv::is_header(b"ad_id,ip,\xff", &settings));
    let semicolon = DecodeSettings { csv_delimiter: CsvDelimiter::Semicolon, ..settings };
    assert!(csv::is_header(b"ad_id;ip", &semicolon));
}

#[test]
fn a_row_is_whole_when_it_has_all_columns() {
    let settings = settings();
    let header = CsvHeader::parse(b"click_timestamp,ad_id,country", 0, &settings);
    let long = format!("1,2,{}", "x".repeat(TEST_LINE_BYTES_MAX));
    for (text, expected) in [
        ("1767225600000,7,DE", true),
        ("1767225600000,7,DE\r\n", true),
        ("1767225600000,7,", true),
        ("1,2,\"a,b\"", true),
        ("1,2,\"a \"\"b\"\"\"", true),
        ("1,2", false),
        ("1,2,3,4", false),
        ("1,2,\"a", false),
        ("1,2,\"a\"b", false),
        ("1,2,3\n4,5,6", false),
        ("\r\n", false),
        ("", false),
        (&*long, false),
    ] {
        assert_eq!(csv::is_whole_row(text.as_bytes(), &header, &settings), expected, "{text:?}");
    }
    assert!(!csv::is_whole_row(b"1,2,\xff", &header, &settings));
    assert!(!csv::is_whole_row(b"1,2,3", &CsvHeader::broken("csv: none".into()), &settings));
}
