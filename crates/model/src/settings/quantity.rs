//! Spans and sizes as people write them: `250ms`, `5s`, `64KiB`.

/// Units of spans in milliseconds, in ascending order.
const SPAN_UNITS: [(&str, i64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// Units of sizes in bytes, in ascending order.
const SIZE_UNITS: [(&str, i64); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

/// Reads a span such as `250ms`, `5s`, `10m`, `2h` or `30d`, in milliseconds.
///
/// ```
/// # use adtally_model::settings::parse_span_ms;
/// assert_eq!(parse_span_ms("5s"), Some(5_000));
/// assert_eq!(parse_span_ms("5"), None, "a span needs its unit");
/// ```
pub fn parse_span_ms(text: &str) -> Option<i64> {
    parse(text, &SPAN_UNITS)
}

/// Formats milliseconds as the shortest span that [`parse_span_ms`] can read.
pub fn format_span_ms(ms: i64) -> String {
    format(ms, &SPAN_UNITS)
}

/// Reads a size such as `512B`, `64KiB`, `1MiB` or `1GiB`, in bytes.
pub fn parse_size(text: &str) -> Option<i64> {
    parse(text, &SIZE_UNITS)
}

/// Formats bytes as the shortest size that [`parse_size`] can read.
pub fn format_size(bytes: i64) -> String {
    format(bytes, &SIZE_UNITS)
}

fn parse(text: &str, units: &[(&str, i64)]) -> Option<i64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    number.parse::<i64>().ok()?.checked_mul(*factor)
}

fn format(amount: i64, units: &[(&str, i64)]) -> String {
    let fitting = units.iter().rev().find(|(_, factor)| amount != 0 && amount % factor == 0);
    let (name, factor) = fitting.unwrap_or(&units[0]);
    format!("{}{name}", amount / factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_are_read_strictly_and_written_back() {
        let span = |text: &str, expected: Option<i64>| assert_eq!(parse_span_ms(text), expected, "{text}");
        span("0ms", Some(0));
        span("250ms", Some(250));
        span("90s", Some(90_000));
        span("10 m", Some(600_000));
        span("30d", Some(2_592_000_000));
        for text in
            ["", "5", "s", "-5s", "5 S", "5sec", "1h30m", "1.5s", "9223372036854775807d", "99999999999999999999s"]
        {
            span(text, None);
        }
        let size = |text: &str, expected: Option<i64>| assert_eq!(parse_size(text), expected, "{text}");
        size("64KiB", Some(65_536));
        size("512B", Some(512));
        size("2GiB", Some(1 << 31));
        for text in ["64", "64K", "64kb", "64KB", "1TiB"] {
            size(text, None);
        }
        for ms in [0, 1, 250, 1_000, 90_000, 60_000, 3_600_000, 86_400_000, 86_400_001] {
            assert_eq!(parse_span_ms(&format_span_ms(ms)), Some(ms));
        }
        assert_eq!(format_span_ms(60_000), "1m");
        assert_eq!(format_size(65_536), "64KiB");
    }
}
