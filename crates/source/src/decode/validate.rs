//! Turns the values of a line into a click, or gives the reason to reject it: the rules that all formats share.

use super::address;
use super::event_time::event_time;
use super::null_values::NullValues;
use super::settings::{FIELDS, TimestampUnit};
use super::value::{Value, is_integer, unsigned};
use adtally_model::{ClickRef, Country};
use std::borrow::Cow;

/// Longest `user_id`, in bytes.
const USER_ID_BYTES_MAX: usize = 128;

/// Longest `click_id`, in bytes.
const CLICK_ID_BYTES_MAX: usize = 64;

/// The settings that the rules depend on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules<'a> {
    /// Unit of timestamps that are numbers.
    pub(super) unit: TimestampUnit,
    /// Texts that make an optional field absent.
    pub(super) null_values: &'a NullValues,
}

/// Applies the rules of a click to the values of its fields, in field order.
#[inline]
pub(super) fn validate<'a>(values: &[Value<'a>; FIELDS], rules: Rules<'_>) -> Result<ClickRef<'a>, Cow<'static, str>> {
    let [timestamp, ad_id, user_id, ip, country, click_id] = *values;
    Ok(ClickRef {
        event_time_ms: event_time(timestamp, rules.unit)?,
        ad_id: ad(ad_id)?,
        user_id: user(user_id)?,
        ip: match ip {
            Value::Text(text) => address::parse(text).ok_or("ip: not an IPv4 or IPv6 address")?,
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
                // The least `i64` has no positive counterpart in `i64`, but one in `u64`.
                Some(magnitude) => unsigned(magnitude).is_some_and(|magnitude| magnitude <= 1 << 63),
                None => unsigned(digits).is_some(),
            };
            if held { Ok(digits) } else { Err("user_id: an integer not from -2^63 to 2^64-1") }
        }
        Value::Absent => Err("user_id: missing"),
        Value::Decimal(_) | Value::Other => Err("user_id: neither text nor an integer"),
    }
}
