//! Client addresses. The usual notations are parsed without the standard library's parser.

use super::short_text::{ONES, word_of};
use adtally_model::ip;

/// Parses an address like [`ip::parse`].
pub(super) fn parse(text: &[u8]) -> Option<u128> {
    if let Some(v4) = parse_v4(text) {
        return Some(ip::of_v4(v4));
    }
    parse_v6_in_full(text).or_else(|| ip::parse(text))
}

/// Parses eight groups of up to four hex digits, none omitted: nearly all IPv6 addresses of clients are written like
/// this. As for dotted quads, there is no branch on the number of digits in a group.
#[inline]
fn parse_v6_in_full(text: &[u8]) -> Option<u128> {
    if !(V6_TEXT_MIN..=V6_TEXT_MAX).contains(&text.len()) {
        return None;
    }
    let (mut address, mut at, mut invalid) = (0_u128, 0_usize, 0_u8);
    for _ in 0..8 {
        // Colons appended to the text end its last group.
        let window = match text.get(at..at + 8).and_then(|window| window.first_chunk()) {
            Some(window) => u64::from_le_bytes(*window),
            None => {
                let rest = text.get(at..)?;
                word_of(rest)? as u64 | COLONS << (8 * rest.len())
            }
        };
        let digits = first_zero(window ^ COLONS);
        if !(1..=4).contains(&digits) {
            return None;
        }
        // The group's digits, left-padded with zeros to four.
        let group = window << (8 * (4 - digits)) | 0x3030_3030 >> (8 * digits);
        let [a, b, c, d] = (group as u32).to_le_bytes().map(|digit| HEX[usize::from(digit)]);
        invalid |= a | b | c | d;
        let group = u16::from(a) << 12 | u16::from(b) << 8 | u16::from(c) << 4 | u16::from(d);
        address = address << 16 | u128::from(group);
        at += digits + 1;
    }
    (invalid <= 0xf && at == text.len() + 1).then_some(address)
}

/// The index of the first zero byte, or 8 if there is none.
#[inline]
fn first_zero(word: u64) -> usize {
    // The lowest set bit is exact: a borrow only comes from a byte that is itself zero.
    (word.wrapping_sub(ONES as u64) & !word & (ONES as u64 * 0x80)).trailing_zeros() as usize / 8
}

/// The values of hexadecimal digits, 255 for other bytes; built at compile time.
const HEX: [u8; 256] = {
    let mut values = [255; 256];
    let mut value = 0;
    while value < 16 {
        values[b"0123456789abcdef"[value] as usize] = value as u8;
        values[b"0123456789ABCDEF"[value] as usize] = value as u8;
        value += 1;
    }
    values
};

/// Lengths of the shortest and the longest text with eight groups.
const V6_TEXT_MIN: usize = 15;
const V6_TEXT_MAX: usize = 39;

/// A colon in each byte.
const COLONS: u64 = ONES as u64 * b':' as u64;

/// Parses dotted quads without leading zeros, the common case. There is no branch on the number of digits in an octet:
/// it is unpredictable, and a misprediction costs more than the octet.
#[inline]
fn parse_v4(text: &[u8]) -> Option<u32> {
    const LOW_BITS: u128 = ONES * 0x7f;
    if text.len() > V4_TEXT_MAX {
        return None;
    }
    // Dots appended to the text end its last octet.
    let window = word_of(text)? | (ONES * u128::from(b'.')) << (8 * text.len());
    let no_dots = window ^ (ONES * u128::from(b'.'));
    // The highest bit of each byte that is a dot.
    let mut dots = !(((no_dots & LOW_BITS) + LOW_BITS) | no_dots | LOW_BITS);
    let (mut address, mut start, mut is_good) = (0_u32, 0_usize, true);
    for _ in 0..4 {
        let end = dots.trailing_zeros() as usize / 8;
        dots &= dots.wrapping_sub(1);
        let digits = end.wrapping_sub(start);
        is_good &= (1..=3).contains(&digits);
        // The four bytes before the dot, the last one lowest.
        let before = (window.rotate_right(8 * end as u32 + 96) as u32).swap_bytes();
        let values = (before ^ 0x3030_3030) & !(u32::MAX << (8 * (digits & 3)));
        // For a byte above 9, the addition sets its highest bit, or the bit is already set.
        is_good &= ((values.wrapping_add(0x7676_7676)) | values) & 0x8080_8080 == 0;
        let octet = (values >> 16) * 100 + (values >> 8 & 0xff) * 10 + (values & 0xff);
        is_good &= octet <= 255 && octet >= LEAST[digits & 3];
        address = address << 8 | octet & 0xff;
        start = end + 1;
    }
    (is_good && start == text.len() + 1).then_some(address)
}

/// Length of the longest dotted quad.
const V4_TEXT_MAX: usize = 15;

/// The smallest number with this many digits.
const LEAST: [u32; 4] = [0, 0, 10, 100];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    proptest! {
        #[test]
        fn quads_are_read_as_the_standard_library_reads_them(
            text in prop_oneof![
                any::<u32>().prop_map(|v4| Ipv4Addr::from(v4).to_string()),
                "[0-9]{0,4}\\.[0-9]{0,3}\\.[0-9]{1,3}\\.[0-9]{0,3}",
                "[0-3]?[0-9]?[0-9](\\.[0-2]?[0-9]?[0-9]){2,4}",
                "[0-9./:;\u{0}\u{ff}-]{0,17}",
            ],
        ) {
            prop_assert_eq!(parse_v4(text.as_bytes()), text.parse::<Ipv4Addr>().ok().map(u32::from), "{}", text);
        }

        #[test]
        fn eight_groups_are_read_as_the_standard_library_reads_them(
            text in prop_oneof![
                "[0-9a-fA-F]{1,4}(:[0-9a-fA-F]{1,4}){7}",
                "[0-9a-fA-F]{0,5}(:[0-9a-fA-F]{1,4}){6,8}",
                "[0-9a-f]{1,4}(:[0-9a-f]{1,4}){5,6}(:[0-9a-gG/@`\u{0}\u{ff}-]{1,4}){1,2}",
                "[0-9a-fA-F:\u{0}\u{ff}]{0,41}",
            ],
        ) {
            // Full notation only: short forms are left to the standard library.
            let expected = text.parse::<Ipv6Addr>().ok().map(u128::from).filter(|_| !text.contains("::") && !text.contains('.'));
            prop_assert_eq!(parse_v6_in_full(text.as_bytes()), expected, "{}", text);
        }
    }
}
