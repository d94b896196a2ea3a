//! The value of a field in a line, and numbers in decimal digits.

use super::short_text::{ONES, SHORT_TEXT_MAX, word_of};

/// The value of a field.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// Nothing, or JSON's null.
    #[default]
    Absent,
    /// Text after unescaping.
    Text(&'a [u8]),
    /// An integer by the grammar `0|-?[1-9][0-9]*`.
    Integer(&'a [u8]),
    /// A decimal number: an integer followed by `\.[0-9]+`.
    Decimal(&'a [u8]),
    /// Anything else: another number, a boolean, an array, an object.
    Other,
}

/// Whether a text is an integer by the grammar `0|-?[1-9][0-9]*`.
pub(crate) fn is_integer(text: &[u8]) -> bool {
    if text == b"0" {
        return true;
    }
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    matches!(digits, [b'1'..=b'9', rest @ ..] if rest.iter().all(u8::is_ascii_digit))
}

/// The value of decimal digits; `None` if the text contains anything else or the value is too large.
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

/// The value of up to sixteen digits without a loop: it combines adjacent digits, then pairs, then groups of four.
#[inline]
fn sixteen(word: u128, digits: usize) -> Option<u64> {
    // Left-padded with zeros in place of the missing digits.
    let values = (word ^ (ONES * u128::from(b'0'))) << (8 * (SHORT_TEXT_MAX - digits));
    // For a byte above 9, the addition sets its highest bit, or the bit is already set.
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
