//! Times in each unit, and null markers.

use super::*;

#[test]
fn times_are_exact_in_each_unit() {
    let in_unit = |unit| decoder(DecodeSettings { timestamp_unit: unit, ..settings() });
    let time = |unit, value: &str| {
        let decoder = in_unit(unit);
        let batch = decode_at(&decoder, "a", click_with("click_timestamp", value).as_bytes(), 0);
        // A CSV column is the same text without quotes.
        let (header, rest) = ("click_timestamp,ad_id,user_id,ip\n", ",42,u1,1.2.3.4\n");
        let csv = decode_at(&decoder, "a", format!("{header}{}{rest}", value.trim_matches('"')).as_bytes(), 0);
        assert_eq!(csv.clicks.event_time_ms, batch.clicks.event_time_ms, "{value}");
        batch.clicks.event_time_ms.first().copied()
    };
    use TimestampUnit::{Microseconds, Milliseconds, Nanoseconds, Seconds};
    for (unit, value, expected) in [
        (Seconds, "1767225600", Some(1_767_225_600_000)),
        (Seconds, "1767225600.506", Some(1_767_225_600_506)),
        (Seconds, "1767225600.5", Some(1_767_225_600_500)),
        (Seconds, "1767225600.05", Some(1_767_225_600_050)),
        (Seconds, "1767225600.9999999999", Some(1_767_225_600_999)),
        (Seconds, "\"1767225600.506\"", Some(1_767_225_600_506)),
        // A float could not distinguish these two.
        (Seconds, "1767225600.28999999999999999999", Some(1_767_225_600_289)),
        (Seconds, "1767225600.29", Some(1_767_225_600_290)),
        (Seconds, "946684799.999", None),
        (Seconds, "4102444799.999999", Some(4_102_444_799_999)),
        (Seconds, "1767225600123", None),
        (Seconds, "9223372036854775807", None),
        (Milliseconds, "\"1767225600506.7\"", Some(1_767_225_600_506)),
        (Microseconds, "1767225600123999", Some(1_767_225_600_123)),
        (Microseconds, "1767225600123999.9", Some(1_767_225_600_123)),
        (Microseconds, "\"2026-01-01T00:00:00.123999Z\"", Some(1_767_225_600_123)),
        (Nanoseconds, "1767225600123999999", Some(1_767_225_600_123)),
        (Nanoseconds, "\"1767225600123999999\"", Some(1_767_225_600_123)),
        (Nanoseconds, "946684799999999999", None),
        (Nanoseconds, "946684800000000000", Some(946_684_800_000)),
        (Nanoseconds, "1767225600123", None),
    ] {
        assert_eq!(time(unit, value), expected, "{value} {unit:?}");
    }
    for (unit, value, expected) in [
        (
            Seconds,
            "1767225600000",
            "1767225600000 in s is not within the years 0 to 9999; it would be 2026-01-01 in ms",
        ),
        (Microseconds, "1767225600000", "1767225600000 is 1970-01-21 in us; it would be 2026-01-01 in ms"),
        (Milliseconds, "1767225600.506", "1767225600.506 is 1970-01-21 in ms; it would be 2026-01-01 in s"),
        (
            Milliseconds,
            "1767225600000000",
            "1767225600000000 in ms is not within the years 0 to 9999; it would be \
                                            2026-01-01 in us",
        ),
        (
            Milliseconds,
            "1767225600000000000",
            "1767225600000000000 in ms is not within the years 0 to 9999; it would be \
                                               2026-01-01 in ns",
        ),
    ] {
        let verdict = verdict_of(&in_unit(unit), click_with("click_timestamp", value).as_bytes());
        assert_eq!(verdict, format!("invalid click_timestamp: {expected}: set input.timestamp_unit"));
    }
}

#[test]
fn null_markers_make_optional_fields_absent_and_no_others() {
    let read = |null_values: &[&str], field: &str, value: &str, expected: (&str, &str)| {
        let null_values = null_values.iter().map(|&text| text.to_owned()).collect();
        let mut decoder = decoder(DecodeSettings { null_values, ..settings() });
        for short_way in [true, false] {
            decoder.short_way = short_way;
            let batch = decode_at(&decoder, "a", click_with(field, value).as_bytes(), 0);
            let row = (!batch.clicks.is_empty()).then(|| batch.clicks.get(0));
            let found = row.map(|click| (std::str::from_utf8(click.click_id).expect("text"), click.country.as_str()));
            assert_eq!(found, Some(expected), "{field} {value}");
        }
    };
    for value in NULL_VALUES {
        let value = serde_json::to_string(value).expect("text");
        read(&NULL_VALUES, "click_id", &value, ("", "US"));
        read(&NULL_VALUES, "country", &value, ("", "ZZ"));
        // Each is opaque text if it is not a marker, without exception.
        let kept = value.trim_matches('"').replace("\\\\", "\\");
        read(&[], "click_id", &value, (&kept, "US"));
    }
    read(&NULL_VALUES, "click_id", "\"Null\"", ("Null", "US"));
    read(
        &NULL_VALUES,
        "click_id",
        "\"00000000-0000-0000-0000-000000000001\"",
        ("00000000-0000-0000-0000-000000000001", "US"),
    );
    read(&["0", "NA"], "click_id", "0", ("", "US"));
    read(&["0", "NA"], "country", "\"NA\"", ("", "ZZ"));
    read(&["0", "NA"], "country", "\"na\"", ("", "NA"));
    // Longer than a click id may be, but still absent.
    let long = "x".repeat(100);
    read(&[&long], "click_id", &format!("\"{long}\""), ("", "US"));
    // In a required field, a marker is treated like any other text.
    check(click_with("ip", "\"-\""), "invalid ip: not an IPv4 or IPv6 address");
    check(click_with("ad_id", "\"null\""), "invalid ad_id: neither an integer nor decimal digits");
    check(click_with("user_id", "\"-\""), "click");
    let csv = "click_timestamp,ad_id,user_id,ip,country,click_id\n1767225600123,42,u1,1.2.3.4,-,\\N\n";
    let batch = decode_at(&decoder(settings()), "a", csv.as_bytes(), 0);
    assert_eq!((batch.clicks.get(0).click_id, batch.clicks.get(0).country.as_str()), (&b""[..], "ZZ"));
}

#[test]
fn what_stands_in_place_of_all_countries_is_told() {
    let check = |countries: &[&str], expected: Option<&str>| {
        let lines: Vec<String> = countries.iter().map(|value| click_with("country", value)).collect();
        let batch = decode_at(&decoder(settings()), "a", lines.join("\n").as_bytes(), 0);
        assert_eq!((batch.clicks.len(), batch.clicks.unknown_country.as_deref()), (countries.len(), expected));
    };
    check(&["\"Germany\"", "\"USA\""], Some("Germany"));
    check(&["\"Germany\"", "\"DE\""], None);
    check(&["null", "\"-\"", "\"\"", "\"\\u0055K\""], Some("UK"));
    check(&["276"], Some("no text"));
    check(&["null", "\"zz\"", "\"\\\\N\""], None);
    check(&[], None);
    let csv = "click_timestamp,ad_id,user_id,ip,country\n1767225600123,42,u1,1.2.3.4,\"a \"\"b\"\"\"\n";
    let batch = decode_at(&decoder(settings()), "a", csv.as_bytes(), 0);
    assert_eq!(batch.clicks.unknown_country.as_deref(), Some("a \"b\""));
    let none = "click_timestamp,ad_id,user_id,ip\n1767225600123,42,u1,1.2.3.4\n";
    assert_eq!(decode_at(&decoder(settings()), "a", none.as_bytes(), 0).clicks.unknown_country, None);
}
