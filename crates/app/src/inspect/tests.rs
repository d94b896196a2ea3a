//! Realistic logs, the guesses about them, and the messages.

use super::*;
use crate::config::{Config, RawConfig, Sources};
use adtally_model::{ClickColumns, ClickRef, Country, DecodedBatch, Identity, InputId, Rejected, Verdict};
use adtally_source::{FormatChoice, TimestampUnit};

/// Guesses and compares the names of the six fields in their order.
fn check(text: &str, expected: [Option<&str>; 6]) -> Guess {
    let guess = guess(text.as_bytes());
    let names: Vec<_> = guess.fields.iter().map(|field| field.name.as_deref()).collect();
    assert_eq!(names, expected, "{text}");
    // Every guess is a valid configuration, by flags and as text.
    let by_flags = RawConfig::merge(&Sources { flags: &guess.settings(), ..Sources::default() });
    Config::validate(&by_flags.expect("known settings")).expect("valid settings");
    let toml = guess.to_toml("a \"b\".log");
    let by_file = RawConfig::merge(&Sources { file: Some(("guess.toml", &toml)), ..Sources::default() });
    let config = Config::validate(&by_file.expect(&toml)).expect(&toml);
    assert_eq!(config.run.source.paths, ["a \"b\".log"]);
    assert_eq!(config.run.source.tail.decode.format, guess.format);
    guess
}

#[test]
fn names_of_our_own_are_recognised() {
    let line = r#"{"click_timestamp":1767225600506,"ad_id":652470,"user_id":"u1","ip":"192.0.2.1","country":"MX"}"#;
    let guess =
        check(line, [Some("click_timestamp"), Some("ad_id"), Some("user_id"), Some("ip"), Some("country"), None]);
    assert_eq!((guess.format, guess.timestamp_unit), (FormatChoice::Ndjson, TimestampUnit::Milliseconds));
    assert_eq!(guess.notes, [""; 0]);
    assert_eq!(guess.fields[1].sample.as_deref(), Some("652470"));
}

#[test]
fn names_of_others_are_recognised() {
    let line =
        r#"{"ts":1767225600,"adId":"7","uid":12,"remote_addr":"2001:db8::1","geo":"de","id":"c1","note":{"a":1}}"#;
    let guess = check(line, [Some("ts"), Some("adId"), Some("uid"), Some("remote_addr"), Some("geo"), Some("id")]);
    assert_eq!(guess.timestamp_unit, TimestampUnit::Seconds);
    assert!(guess.notes[0].contains("inside other objects"), "{:?}", guess.notes);

    let line = r#"{"@timestamp":"2026-01-01T00:00:00Z","ad":1,"user":"x","client_ip":"192.0.2.1","host":"web-1","Country-Code":"US"}"#;
    check(line, [Some("@timestamp"), Some("ad"), Some("user"), Some("client_ip"), Some("Country-Code"), None]);

    let line = r#"{"event_time":1767225600000000,"ad.id":1,"user.id":"x","x":"192.0.2.1","y":"FR"}"#;
    let guess = check(line, [Some("event_time"), Some("ad.id"), Some("user.id"), Some("x"), Some("y"), None]);
    assert_eq!(guess.timestamp_unit, TimestampUnit::Microseconds);
}

#[test]
fn times_are_recognised_in_each_unit_with_decimals_and_in_quotes() {
    for (time, unit) in [
        ("1767225600", TimestampUnit::Seconds),
        ("1767225600.506", TimestampUnit::Seconds),
        ("\"1767225600.506\"", TimestampUnit::Seconds),
        ("\"1767225600506\"", TimestampUnit::Milliseconds),
        ("1767225600506000", TimestampUnit::Microseconds),
        ("1767225600506000000", TimestampUnit::Nanoseconds),
    ] {
        let line = format!(r#"{{"when":{time},"ad":1,"user":"u","ip":"192.0.2.1"}}"#);
        let guess = check(&line, [Some("when"), Some("ad"), Some("user"), Some("ip"), None, None]);
        assert_eq!(guess.timestamp_unit, unit, "{time}");
    }
}

#[test]
fn generated_logs_are_recognised_whatever_is_broken_in_them() {
    use adtally_generate::{Format, GenerateArgs, Generator};
    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        args: GenerateArgs,
    }
    for format in [Format::Ndjson, Format::Csv] {
        let words = ["x", "--clicks", "1000", "--malformed", "10%", "--invalid", "10%", "--click-ids", "0.5"];
        let command: Command = clap::Parser::try_parse_from(words).expect("valid");
        let args = GenerateArgs { format, ..command.args };
        let mut generator = Generator::new(args.settings()).expect("valid");
        let mut text = Vec::new();
        while generator.next_line(&mut text) {}
        let guess = guess(&text);
        assert!(guess.fields.iter().all(|field| field.name.as_deref() == Some(field.field)), "{guess:?}");
        assert_eq!(guess.format == FormatChoice::Csv, format == Format::Csv);
        assert_eq!(guess.timestamp_unit, TimestampUnit::Milliseconds);
    }
}

#[test]
fn names_that_cannot_be_configured_are_passed_over() {
    let text = format!(",{}\n192.0.2.1,1767225600\n", "x".repeat(200));
    check(&text, [None; 6]);
}

#[test]
fn an_id_that_repeats_is_no_click_id() {
    let line =
        |id: &str| format!("{{\"time\":1767225600000,\"ad\":1,\"user\":\"u\",\"ip\":\"192.0.2.1\",\"id\":\"{id}\"}}\n");
    let repeating = line("same").repeat(20);
    check(&repeating, [Some("time"), Some("ad"), Some("user"), Some("ip"), None, None]);
    // A placeholder is not an id.
    let unique: String = (0..20).map(|id| line(&format!("c{id}")) + &line("-")).collect();
    check(&unique, [Some("time"), Some("ad"), Some("user"), Some("ip"), None, Some("id")]);
}

#[test]
fn columns_are_recognised_with_each_delimiter() {
    for (delimiter, written) in [(',', ","), (';', ";"), ('\t', "\\t"), ('|', "|")] {
        let text = "\u{feff}time,ad,user,\"ip\",country\r\n1767225600,1,\"a \"\"b\"\"\",192.0.2.1,US\r\n1767225601,2,c,192.0.2.2,\r\n";
        let text = text.replace(',', &delimiter.to_string());
        let guess = check(&text, [Some("time"), Some("ad"), Some("user"), Some("ip"), Some("country"), None]);
        assert_eq!((guess.format, char::from(guess.csv_delimiter)), (FormatChoice::Csv, delimiter));
        assert_eq!(guess.fields[2].sample.as_deref(), Some("a \"b\""));
        assert!(guess.to_toml("x").contains(&format!("csv_delimiter = \"{written}\"")), "{}", guess.to_toml("x"));
    }
}

#[test]
fn what_cannot_be_read_is_told() {
    let none = [None; 6];
    let told = |text: &str, fields, note: &str| {
        let guess = check(text, fields);
        assert!(guess.notes.iter().any(|told| told.contains(note)), "{text}: {:?}", guess.notes);
    };
    told("", none, "the file is empty");
    told("hello\nworld\n", none, "neither JSON objects nor CSV");
    told(
        "1767225600,1,u1,192.0.2.1\n1767225601,2,u2,192.0.2.2\n",
        [Some("1767225600"), None, None, Some("192.0.2.1"), None, None],
        "the first line looks like values",
    );
    told("{\"a\":1}", none, "no field looks like click_timestamp, which every click needs");
    // A name that belongs to another field is not used for both.
    told(r#"{"ip":5,"country":"192.0.2.1"}"#, [None, None, None, Some("ip"), Some("country"), None], "user_id");
}

#[test]
fn a_sample_holds_whole_lines_and_not_too_many() {
    let sample = |text: &[u8]| read_sample(&mut &text[..]).expect("memory");
    assert_eq!(sample(b"a\nb"), b"a\nb");
    assert_eq!(sample(b""), b"");
    let many = b"line\n".repeat(100_000);
    assert_eq!(sample(&many), b"line\n".repeat(SAMPLE_LINES));
    let long = vec![b'x'; SAMPLE_BYTES_MAX * 2];
    assert!(sample(&long).len() <= SAMPLE_BYTES_MAX + READ_BYTES);
    let mut cut = b"whole\n".to_vec();
    cut.extend_from_slice(&long);
    assert_eq!(sample(&cut), b"whole\n");
}

#[test]
fn what_comes_before_an_error_is_shown() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }
    assert_eq!(read_sample(&mut (&b"a\nb"[..]).chain(Broken)).expect("a line"), b"a\n");
    assert!(read_sample(&mut (&b"a"[..]).chain(Broken)).is_err());
}

#[test]
fn the_verdicts_add_up_and_are_shown_with_their_places() {
    let text = "{\"a\":1}\n\nnonsense \u{1b}[31m\n{\"a\":2}\n{\"a\":3}\n{\"a\":4}\nmore\n".as_bytes().to_vec();
    let start = |line: usize| {
        (0..text.len()).filter(|&at| at == 0 || text[at - 1] == b'\n').nth(line - 1).expect("line") as u32
    };
    let mut clicks = ClickColumns::default();
    for (line, event_time_ms, identity) in [(1, 1_000, 1_u128 << 20), (4, 2_000, 1 << 20 | 5), (5, 99_000, 1 << 30)] {
        let click =
            ClickRef { event_time_ms, ad_id: 1, country: Country::UNKNOWN, ip: 1, user_id: b"u", click_id: b"" };
        clicks.push(&click, start(line), Identity(identity));
    }
    let reject = |line, verdict, reason| Rejected {
        line_start: start(line),
        verdict,
        reason,
        payload: Vec::new(),
        header: None,
    };
    let rejected = vec![
        reject(3, Verdict::Malformed, "json: expected an object".into()),
        reject(6, Verdict::Invalid, "ip: missing".into()),
        reject(7, Verdict::Malformed, "json: expected an object".into()),
    ];
    let batch = DecodedBatch {
        input: InputId(1),
        from: 0,
        to: text.len() as u64,
        clicks,
        rejected,
        nul_bytes: 0,
        text: text.clone(),
    };
    let inspection = Inspection::new("a.log", &guess(&text), &batch, 10_000, 60_000);
    let Inspection { lines, clicks, duplicate, future, malformed, invalid, .. } = inspection;
    assert_eq!((lines, clicks, duplicate, future, malformed, invalid), (6, 1, 1, 1, 2, 1));
    assert_eq!(
        (inspection.from.as_deref(), inspection.to.as_deref()),
        (Some("1970-01-01T00:00:01Z"), Some("1970-01-01T00:01:39Z"))
    );
    let shown = inspection.to_string();
    for expected in [
        "6 lines = 1 clicks + 1 duplicate + 1 future + 2 malformed + 1 invalid",
        "a.log:3: malformed: json: expected an object (2 lines)\n    nonsense \u{fffd}[31m\n",
        "a.log:5: future: its time is ahead of the clock\n",
        "a.log:6: invalid: ip: missing\n    {\"a\":4}\n",
        "note: no field looks like ip",
    ] {
        assert!(shown.contains(expected), "{shown} lacks {expected}");
    }
    // The configuration is printed alone on stdout, so that it can be redirected into a file.
    let fields = "[input.fields]\nclick_timestamp = \"click_timestamp\" # not found";
    assert!(inspection.configuration.contains(fields), "{}", inspection.configuration);
    assert!(!shown.contains(fields), "{shown}");
    let json = serde_json::to_value(&inspection).expect("plain values");
    assert_eq!(json["reasons"][0]["first_line"], 3);
}
