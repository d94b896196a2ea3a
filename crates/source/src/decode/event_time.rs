//! `click_timestamp`: a number in the configured unit, bare or in quotes, or RFC 3339 text with an offset.
//!
//! All arithmetic is on integers; fractions of a millisecond are cut off.

use super::settings::TimestampUnit;
use super::value::{Value, is_integer, unsigned};
use adtally_model::time::{EVENT_TIME_END_MS, EVENT_TIME_MIN_MS, date_and_hour, parse_rfc3339};
use std::borrow::Cow;
use strum::IntoEnumIterator;

const NEITHER: &str = "click_timestamp: neither a plain number nor RFC 3339 with an offset";
const RANGE: &str = "click_timestamp: before 2000 or after 2099";

/// Maximum bytes of a number shown in a message: more than any time has, since a line may be one long number.
const SHOWN_BYTES_MAX: usize = 40;

/// Maximum digits of a number for which a message suggests another unit; nanoseconds have 19.
const DIGITS_MAX: usize = 25;

/// Milliseconds from 0000-01-01 up to 10000-01-01: dates of these times have a year of four digits.
const DATED_MS: std::ops::Range<i128> = -62_167_219_200_000..253_402_300_800_000;

/// Milliseconds since the Unix epoch.
#[inline]
pub(super) fn event_time(value: Value<'_>, unit: TimestampUnit) -> Result<i64, Cow<'static, str>> {
    match value {
        Value::Integer(digits) => whole(digits, unit).filter(is_accepted).ok_or_else(|| implausible(digits, b"", unit)),
        Value::Decimal(text) => number(text, unit),
        // Only a date has a hyphen here: a number can have one only as its first byte.
        Value::Text(text) if text.get(4) == Some(&b'-') => {
            let ms = parse_rfc3339(text).ok_or(Cow::Borrowed(NEITHER))?;
            if is_accepted(&ms) { Ok(ms) } else { Err(Cow::Borrowed(RANGE)) }
        }
        // An integer in quotes, as in CSV columns; this skips the search for a decimal point.
        Value::Text(text) if text.first() != Some(&b'0') => match whole(text, unit).filter(is_accepted) {
            Some(ms) => Ok(ms),
            None => number(text, unit),
        },
        Value::Text(text) => number(text, unit),
        Value::Absent => Err(Cow::Borrowed("click_timestamp: missing")),
        Value::Other => Err(Cow::Borrowed(NEITHER)),
    }
}

fn is_accepted(ms: &i64) -> bool {
    (EVENT_TIME_MIN_MS..EVENT_TIME_END_MS).contains(ms)
}

/// Milliseconds from an integer or a decimal number.
fn number(text: &[u8], unit: TimestampUnit) -> Result<i64, Cow<'static, str>> {
    let (integer, decimals) = parts(text).ok_or(Cow::Borrowed(NEITHER))?;
    let ms = match unit {
        // In other units, decimals are fractions of a millisecond.
        TimestampUnit::Seconds => whole(integer, unit).and_then(|ms| ms.checked_add(thousandths(decimals))),
        _ => whole(integer, unit),
    };
    ms.filter(is_accepted).ok_or_else(|| implausible(integer, decimals, unit))
}

/// Milliseconds from an integer in a unit; `None` if it is negative or too large.
#[inline]
fn whole(digits: &[u8], unit: TimestampUnit) -> Option<i64> {
    let count = i64::try_from(unsigned(digits)?).ok()?;
    match unit {
        TimestampUnit::Seconds => count.checked_mul(1_000),
        TimestampUnit::Milliseconds => Some(count),
        TimestampUnit::Microseconds => Some(count / 1_000),
        TimestampUnit::Nanoseconds => Some(count / 1_000_000),
    }
}

/// Splits a number (`0|-?[1-9][0-9]*`, then optionally `\.[0-9]+`) into its integer and its decimals.
fn parts(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let point = text.iter().position(|&byte| byte == b'.').unwrap_or(text.len());
    let (integer, rest) = text.split_at(point);
    let decimals = match rest {
        [] => rest,
        [_, decimals @ ..] if !decimals.is_empty() && decimals.iter().all(u8::is_ascii_digit) => decimals,
        _ => return None,
    };
    is_integer(integer).then_some((integer, decimals))
}

/// Whether a text is a decimal number: an integer, a decimal point and digits.
pub(super) fn is_decimal(text: &[u8]) -> bool {
    parts(text).is_some_and(|(_, decimals)| !decimals.is_empty())
}

/// The first three decimals.
fn thousandths(decimals: &[u8]) -> i64 {
    (0..3).fold(0, |sum, place| sum * 10 + decimals.get(place).map_or(0, |digit| i64::from(digit - b'0')))
}

/// Explains why a number is not an accepted time, and in which unit it would be one.
#[cold]
fn implausible(integer: &[u8], decimals: &[u8], unit: TimestampUnit) -> Cow<'static, str> {
    let digits = integer.len();
    let text = if decimals.is_empty() { integer.to_vec() } else { [integer, b".", decimals].concat() };
    let shown = String::from_utf8_lossy(&text[..text.len().min(SHOWN_BYTES_MAX)]);
    let parsed = std::str::from_utf8(integer).ok().filter(|_| digits <= DIGITS_MAX).and_then(|text| text.parse().ok());
    let Some(integer) = parsed else {
        return format!("click_timestamp: a number of {digits} digits is not a time from 2000 to 2099 in any unit")
            .into();
    };
    let date = |unit| date_of(integer, decimals, unit);
    let is = match date(unit) {
        Some(date) => format!("click_timestamp: {shown} is {date} in {}", unit.name()),
        None => format!("click_timestamp: {shown} in {} is not within the years 0 to 9999", unit.name()),
    };
    let fits = |unit: &TimestampUnit| i64::try_from(ms_of(integer, decimals, *unit)).is_ok_and(|ms| is_accepted(&ms));
    match TimestampUnit::iter().find(fits) {
        Some(other) => {
            let date = date(other).unwrap_or_default();
            format!("{is}; it would be {date} in {}: set input.timestamp_unit", other.name()).into()
        }
        None => format!("{is}: before 2000 or after 2099").into(),
    }
}

/// The date of a number in a unit; `None` outside the years 0 to 9999.
fn date_of(integer: i128, decimals: &[u8], unit: TimestampUnit) -> Option<String> {
    let ms = ms_of(integer, decimals, unit);
    let ms = DATED_MS.contains(&ms).then_some(ms)?;
    Some(date_and_hour(i64::try_from(ms).ok()?).0)
}

/// Milliseconds, for messages.
fn ms_of(integer: i128, decimals: &[u8], unit: TimestampUnit) -> i128 {
    match unit {
        TimestampUnit::Seconds => integer * 1_000 + i128::from(thousandths(decimals)),
        TimestampUnit::Milliseconds => integer,
        TimestampUnit::Microseconds => integer.div_euclid(1_000),
        TimestampUnit::Nanoseconds => integer.div_euclid(1_000_000),
    }
}
