//! From the values of a line's fields to a click, or the reason why it is none: the rules that all formats share.

use super::event_time::event_time;
use super::null_values::NullValues;
use super::settings::TimestampUnit;
use adtally_model::short_text::{ONES, SHORT_TEXT_MAX, word_of};
use adtally_model::{ClickRef, Country, ip};
use std::borrow::Cow;

/// Fields of a click.
pub(crate) const FIELDS: usize = 6;

/// Names of the fields in reasons, in their order.
pub(crate) const FIELD_NAMES: [&str; FIELDS] = ["click_timestamp", "ad_id", "user_id", "ip", "country", "click_id"];

/// Longest `user_id`, in bytes.
const USER_ID_BYTES_MAX: usize = 128;

/// Longest `click_id`, in bytes.
const CLICK_ID_BYTES_MAX: usize = 64;

/// What stands in a field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// Nothing, or JSON's null.
    #[default]
    Absent,
    /// Text after unescaping.
    Text(&'a [u8]),
    /// An integer by the grammar `0|-?[1-9][0-9]*`.
    Integer(&'a [u8]),
    /// A decimal number: an integer, and `\.[0-9]+` behind it.
    Decimal(&'a [u8]),
    /// Anything else: another number, a truth value, an array, an object.
    Other,
}

/// What of the settings the rules depend on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules<'a> {
    /// Unit of timestamps that are numbers.
    pub(super) unit: TimestampUnit,
    /// What makes an optional field absent.
    pub(super) null_values: &'a NullValues,
}

/// Applies the rules of a click to the values of its fields, in their order.
#[inline]
pub(super) fn judge<'a>(values: &[Value<'a>; FIELDS], rules: Rules<'_>) -> Result<ClickRef<'a>, Cow<'static, str>> {
    let [timestamp, ad_id, user_id, ip, country, click_id] = *values;
    Ok(ClickRef {
        event_time_ms: event_time(timestamp, rules.unit)?,
        ad_id: ad(ad_id)?,
        user_id: user(user_id)?,
        ip: match ip {
            Value::Text(text) => ip::parse(text).ok_or("ip: not an IPv4 or IPv6 address")?,
            Value::Absent => return Err("ip: missing".into()),
            Value::Integer(_) | Value::Decimal(_) | Value::Other => return Err("ip: not text".into()),
        },
        country: match country {
            Value::Text(text) => rules.null_values.country(text),
            _ => Country::UNKNOWN,
        },
        click_id: match click_id {
            Value::Text(text) if rules.null_values.is_marker(text) => &[],
            Value::Text(text) if text.len() <= CLICK_ID_BYTES_MAX => text,
            Value::Text(_) => return Err("click_id: longer than 64 bytes".into()),
            Value::Absent => &[],
            Value::Integer(digits) if rules.null_values.is_marker(digits) => &[],
            Value::Integer(_) | Value::Decimal(_) | Value::Other => return Err("click_id: not text".into()),
        },
    })
}

#[inline]
fn ad(value: Value<'_>) -> Result<u64, &'static str> {
    const RANGE: &str = "ad_id: not from 0 to 9223372036854775807";
    let number = match value {
        Value::Integer(digits) => unsigned(digits).ok_or(RANGE)?,
        Value::Text(text) if is_integer(text) && text[0] != b'-' => unsigned(text).ok_or(RANGE)?,
        Value::Absent => return Err("ad_id: missing"),
        Value::Text(_) | Value::Decimal(_) | Value::Other => {
            return Err("ad_id: neither an integer nor decimal digits");
        }
    };
    if number <= i64::MAX as u64 { Ok(number) } else { Err(RANGE) }
}

#[inline]
fn user(value: Value<'_>) -> Result<&[u8], &'static str> {
    match value {
        Value::Text([]) => Err("user_id: empty"),
        Value::Text(text) if text.len() > USER_ID_BYTES_MAX => Err("user_id: longer than 128 bytes"),
        Value::Text(text) => Ok(text),
        Value::Integer(digits) => {
            let held = match digits.strip_prefix(b"-") {
                // The least value has no positive counterpart in i64, yet one in u64.
                Some(magnitude) => unsigned(magnitude).is_some_and(|magnitude| magnitude <= 1 << 63),
                None => unsigned(digits).is_some(),
            };
            if held { Ok(digits) } else { Err("user_id: an integer not from -2^63 to 2^64-1") }
        }
        Value::Absent => Err("user_id: missing"),
        Value::Decimal(_) | Value::Other => Err("user_id: neither text nor an integer"),
    }
}

/// Whether a text is an integer by the grammar `0|-?[1-9][0-9]*`.
pub(crate) fn is_integer(text: &[u8]) -> bool {
    if text == b"0" {
        return true;
    }
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    matches!(digits, [b'1'..=b'9', rest @ ..] if rest.iter().all(u8::is_ascii_digit))
}

/// The value of decimal digits; none where there is anything else among them or it does not fit.
#[inline]
pub(super) fn unsigned(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    if let Some(word) = word_of(digits) {
        return sixteen(word, digits.len());
    }
    let mut value = 0_u64;
    for byte in digits {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    Some(value)
}

/// The value of up to sixteen digits, without a loop over them: neighbours are put together, then pairs, then fours.
#[inline]
fn sixteen(word: u128, digits: usize) -> Option<u64> {
    // Behind zeros in the place of the digits that are not there.
    let values = (word ^ (ONES * u128::from(b'0'))) << (8 * (SHORT_TEXT_MAX - digits));
    // A byte above 9 reaches its highest bit by what is added, or has it.
    if (((values & (ONES * 0x7f)) + ONES * 0x76) | values) & (ONES * 0x80) != 0 {
        return None;
    }
    let eight = |values: u64| {
        let pairs = (values * 10 + (values >> 8)) & 0x00ff_00ff_00ff_00ff;
        let fours = (pairs * 100 + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
        (fours * 10_000 + (fours >> 32)) & 0xffff_ffff
    };
    Some(eight(values as u64) * 100_000_000 + eight((values >> 64) as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn digits_are_read_as_the_standard_library_reads_them(
            text in prop_oneof!["[0-9]{0,22}", "[0-9]{0,9}[^0-9+][0-9]{0,9}", any::<u64>().prop_map(|value| value.to_string())],
        ) {
            prop_assert_eq!(unsigned(text.as_bytes()), text.parse::<u64>().ok(), "{}", text);
        }
    }
}
