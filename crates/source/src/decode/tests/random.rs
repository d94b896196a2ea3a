//! Random lines, ordinary and broken in every way: the decoder's two paths against each other and against the
//! independent parser.

use super::reader::{Reading, read_csv, read_json};
use super::{readings, readings_the_long_way};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// A valid or invalid value for a field, as JSON.
fn json_value() -> impl Strategy<Value = String> {
    let strange = select(vec![
        "null",
        "true",
        "false",
        "0",
        "-0",
        "01",
        "1.0",
        "1e3",
        "-",
        "-1",
        "1.",
        "1e",
        "1e+",
        "NaN",
        "Infinity",
        "+1",
        "",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775808",
        "-9223372036854775809",
        "1e999999",
        "00",
        "\"\"",
        "\"a\\u0062c\"",
        "\"\\ud83d\\ude00\"",
        "\"\\ud83d\"",
        "\"\\ude00\"",
        "\"\\ud83d\\u0041\"",
        "\"\\ud83d\\ud83d\\ude00\"",
        "\"\\u12G4\"",
        "\"\\u12\"",
        "\"\\x\"",
        "\"a\tb\"",
        "\"a\\tb\"",
        "\"\u{e9}\u{1f600}\"",
        "[]",
        "{}",
        "[1,2]",
        "[1,]",
        "[,]",
        "{\"a\":1}",
        "{\"a\"}",
        "{\"a\":1,}",
        "[[[[]]]]",
        "[{\"a\":[{}]}]",
        "[}",
        "{]",
        "[\"\\ud800\"]",
        "{\"\\ud800\":1}",
        "\"\u{7f}\"",
        "\"\\u0000\"",
        "nul",
        "nulll",
        "tru",
        "\"open",
        "\\",
        "12345678901234567890123456789012345",
        "0000000000000000000000000000000000001",
        "1 2",
        "\"a\" \"b\"",
    ]);
    let timestamp = select(vec![
        "1767225600000",
        "946684799999",
        "946684800000",
        "4102444799999",
        "4102444800000",
        "\"2026-01-01T00:00:00Z\"",
        "\"2026-01-01t00:00:00.1239+01:00\"",
        "\"2026-02-29T00:00:00Z\"",
        "\"2026-01-01T00:00:60Z\"",
        "\"2026-01-01T00:00:00\"",
        "\"1999-12-31T23:59:59.999Z\"",
        "\"1999-12-31T23:30:00-01:00\"",
        "\"2099-12-31T23:59:59.9999Z\"",
        "\"1767225600000\"",
        "1767225600.506",
        "1767225600000.9999",
        "\"1767225600000.9\"",
        "\"1767225600000.\"",
        "\"01767225600000\"",
        "946684799999.99",
        "1767225600000.5.5",
        "1767225600000 .5",
        "1767225600000.5e1",
        "0.5",
        "-1.5",
        "-0.5",
    ]);
    let ad = select(vec!["42", "\"42\"", "\"042\"", "\"+42\"", "\"-42\"", "\"4 2\"", "\"0\""]);
    let ip = select(vec![
        "\"1.2.3.4\"",
        "\"::ffff:1.2.3.4\"",
        "\"2001:db8::1\"",
        "\"1.2.3.4/8\"",
        "\"fe80::1%1\"",
        "\"1.2.3\"",
        "\"01.2.3.4\"",
        "\"1.2.3.256\"",
        "\"1\\u002e2.3.4\"",
    ]);
    let country = select(vec!["\"us\"", "\"DE\"", "\"UK\"", "\"\"", "\"xk\"", "\"zz\"", "\"U\\u0053\"", "\"USA\""]);
    let nulls = select(vec!["\"-\"", "\"\\\\N\"", "\"NULL\"", "\"Null\"", "\"\\u002d\"", "\"--\""]);
    let user = prop_oneof![
        "[a-z0-9]{1,20}".prop_map(|text| format!("\"{text}\"")),
        (120_usize..136).prop_map(|len| format!("\"{}\"", "u".repeat(len))),
        (60_usize..70).prop_map(|len| format!("\"{}\"", "\u{e9}".repeat(len))),
    ];
    prop_oneof![
        2 => strange.prop_map(str::to_owned),
        1 => timestamp.prop_map(str::to_owned),
        1 => ad.prop_map(str::to_owned),
        1 => ip.prop_map(str::to_owned),
        1 => country.prop_map(str::to_owned),
        1 => nulls.prop_map(str::to_owned),
        1 => user,
    ]
}

fn space() -> impl Strategy<Value = &'static str> {
    prop_oneof![12 => Just(""), 2 => Just(" "), 1 => Just("  \t"), 1 => Just("\r")]
}

fn key() -> impl Strategy<Value = &'static str> {
    select(vec![
        "click_timestamp",
        "ad_id",
        "user_id",
        "ip",
        "country",
        "click_id",
        "extra",
        "",
        "ad\\u005fid",
        "i\\u0070",
        "\\ud800",
        "ad_idx",
        "AD_ID",
        "i\\p",
        "\\\"",
        "user_agent\u{e9}",
    ])
}

/// A line: a valid click with shuffled members, some of them replaced, repeated or added, and random spaces.
fn json_line() -> impl Strategy<Value = String> {
    let good = Just(vec![
        ("click_timestamp", "1767225600123".to_owned()),
        ("ad_id", "42".to_owned()),
        ("user_id", "\"u-1\"".to_owned()),
        ("ip", "\"1.2.3.4\"".to_owned()),
        ("country", "\"US\"".to_owned()),
        ("click_id", "\"c1\"".to_owned()),
    ]);
    let changes = vec((any::<Index>(), json_value()), 0..3);
    let more = vec((key(), json_value()), 0..3);
    let layout = (vec(space(), 40), select(vec!["", "", "", "", "x", "}", " ", "{}", ","]));
    (good, changes, more, layout, any::<bool>()).prop_flat_map(|(mut members, changes, more, layout, shuffle)| {
        for (at, value) in changes {
            let at = at.index(members.len());
            members[at].1 = value;
        }
        members.extend(more);
        let members = if shuffle { Just(members).prop_shuffle().boxed() } else { Just(members).boxed() };
        (members, Just(layout)).prop_map(|(members, (spaces, tail))| {
            let mut spaces = spaces.into_iter().cycle();
            let mut space = || spaces.next().unwrap_or("");
            let mut line = format!("{}{{{}", space(), space());
            for (at, (key, value)) in members.iter().enumerate() {
                let comma = if at == 0 { "" } else { "," };
                line += &format!("{comma}{}\"{key}\"{}:{}{value}{}", space(), space(), space(), space());
            }
            line + "}" + tail
        })
    })
}

/// Overwrites the text at random places with random bytes, so that it breaks anywhere.
fn with_damage(text: impl Strategy<Value = Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let bytes = select(b"\"\\{}[]:,\n\r\t \0\x7f\x80\xc3\xa9\xff019-+.eEunt".to_vec());
    let damage = prop_oneof![3 => Just(Vec::new()), 2 => vec((any::<Index>(), bytes, 0..3_u8), 1..4)];
    (text, damage).prop_map(|(mut text, damage)| {
        for (at, byte, how) in damage {
            let at = at.index(text.len().max(1)).min(text.len());
            match how {
                0 if at < text.len() => text[at] = byte,
                1 if at < text.len() => drop(text.remove(at)),
                _ => text.insert(at, byte),
            }
        }
        text
    })
}

fn json_text() -> impl Strategy<Value = Vec<u8>> {
    let ending = select(vec!["\n", "\n", "\r\n", "\n\n", "\r\r\n"]);
    with_damage(vec((json_line(), ending), 1..6).prop_map(|lines| {
        lines.into_iter().flat_map(|(line, ending)| [line.into_bytes(), ending.as_bytes().to_vec()].concat()).collect()
    }))
}

fn csv_value() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => select(vec![
            "1767225600123", "2026-01-01T00:00:00Z", "42", "u1", "1.2.3.4", "::1", "us", "", "-1", "007", "1e3",
            "9223372036854775808", "\u{e9}", "-", "null", "1767225600000.5", "1767225600000.", "\\N",
        ]).prop_map(str::to_owned),
        1 => select(vec![
            "\"42\"", "\"a,b\"", "\"a\"\"b\"", "\"\"", "\"\"\"\"", "\"open", "a\"b", "\"a\"b", "\"1.2.3.4\"", " 42",
            "\"2026-01-01 00:00:00Z\"", "a\0b",
        ]).prop_map(str::to_owned),
    ]
}

fn csv_text() -> impl Strategy<Value = Vec<u8>> {
    let good =
        vec!["1767225600123", "42", "u1", "1.2.3.4", "us", "c1"].into_iter().map(str::to_owned).collect::<Vec<_>>();
    let line = vec((any::<Index>(), csv_value()), 0..3).prop_map(move |changes| {
        let mut columns = good.clone();
        for (at, value) in changes {
            let at = at.index(columns.len());
            columns[at] = value;
        }
        columns.join(",")
    });
    let header = "click_timestamp,ad_id,user_id,ip,country,click_id";
    let line = prop_oneof![9 => line, 1 => Just(header.to_owned())];
    let body = with_damage(vec(line, 1..6).prop_map(|lines| lines.join("\n").into_bytes()));
    body.prop_map(move |body| [header.as_bytes(), b"\n", &body].concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn fault_25_json_is_read_as_the_plain_reading_does(text in json_text()) {
        let expected = read_json(&text, super::TEST_LINE_BYTES_MAX);
        prop_assert_eq!(&readings("a", &text), &expected, "{}", String::from_utf8_lossy(&text));
        prop_assert_eq!(&readings_the_long_way("a", &text), &expected);
    }

    #[test]
    fn csv_is_read_as_the_plain_reading_does(text in csv_text()) {
        let expected = read_csv(&text, super::TEST_LINE_BYTES_MAX);
        prop_assert_eq!(&readings("a.csv", &text), &expected, "{}", String::from_utf8_lossy(&text));
    }
}

#[test]
fn the_random_lines_are_of_all_kinds() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let (mut clicks, mut invalid, mut malformed) = (0, 0, 0);
    for _ in 0..300 {
        let text = json_text().new_tree(&mut runner).expect("a text").current();
        for reading in readings("a", &text) {
            match reading {
                Reading::Click(_) => clicks += 1,
                Reading::Invalid => invalid += 1,
                Reading::Malformed => malformed += 1,
            }
        }
    }
    assert!(clicks > 50 && invalid > 50 && malformed > 50, "{clicks} {invalid} {malformed}");
}
