//! Canonical IP addresses as one 128-bit number: IPv4 is held as its IPv4-mapped IPv6 address.
//!
//! Since `::ffff:a.b.c.d` is by contract the same address as `a.b.c.d`, the mapping loses nothing.

use std::net::{Ipv4Addr, Ipv6Addr};

const MAPPED: u128 = 0xffff_0000_0000;

/// Reads IPv4 or IPv6 text without zone or prefix length.
pub fn parse(text: &[u8]) -> Option<u128> {
    if let Some(v4) = parse_v4(text) {
        return Some(MAPPED | u128::from(v4));
    }
    if let Some(v6) = parse_v6_in_full(text) {
        return Some(v6);
    }
    let text = std::str::from_utf8(text).ok()?;
    text.parse::<Ipv6Addr>().ok().map(u128::from)
}

/// Eight groups of up to four hex digits, nothing left out: how nearly all IPv6 addresses of clients are written.
#[inline]
fn parse_v6_in_full(text: &[u8]) -> Option<u128> {
    if text.len() > 39 {
        return None;
    }
    let (mut address, mut group, mut digits, mut colons) = (0_u128, 0_u32, 0_u32, 0_u32);
    for &byte in text {
        if byte == b':' {
            if digits == 0 || colons == 7 {
                return None;
            }
            address = address << 16 | u128::from(group);
            (group, digits) = (0, 0);
            colons += 1;
        } else {
            let digit = (byte as char).to_digit(16)?;
            group = group << 4 | digit;
            digits += 1;
            if digits > 4 {
                return None;
            }
        }
    }
    (colons == 7 && digits > 0).then_some(address << 16 | u128::from(group))
}

/// Dotted quads without leading zeros, the common case.
#[inline]
fn parse_v4(text: &[u8]) -> Option<u32> {
    if text.len() > 15 {
        return None;
    }
    let (mut address, mut octet, mut digits, mut dots) = (0_u32, 0_u32, 0_u32, 0_u32);
    for &byte in text {
        if byte == b'.' {
            if digits == 0 || dots == 3 {
                return None;
            }
            address = address << 8 | octet;
            (octet, digits) = (0, 0);
            dots += 1;
        } else {
            let digit = u32::from(byte.wrapping_sub(b'0'));
            if digit > 9 || (digits > 0 && octet == 0) {
                return None;
            }
            octet = octet * 10 + digit;
            digits += 1;
            if octet > 255 {
                return None;
            }
        }
    }
    (dots == 3 && digits > 0).then_some(address << 8 | octet)
}

/// The canonical text: dotted quad for IPv4, RFC 5952 for IPv6.
pub fn format(ip: u128) -> String {
    if ip >> 32 == MAPPED >> 32 { Ipv4Addr::from(ip as u32).to_string() } else { Ipv6Addr::from(ip).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_text_of_each_form() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(parse(text.as_bytes()).map(format).as_deref(), expected, "{text}");
        };
        check("1.2.3.4", Some("1.2.3.4"));
        check("0.0.0.0", Some("0.0.0.0"));
        check("255.255.255.255", Some("255.255.255.255"));
        check("::ffff:1.2.3.4", Some("1.2.3.4"));
        check("::FFFF:0102:0304", Some("1.2.3.4"));
        check("2001:DB8:0:0:0:0:0:1", Some("2001:db8::1"));
        check("::", Some("::"));
        check("::1.2.3.4", Some("::102:304"));
        for text in [
            "",
            "1.2.3",
            "1.2.3.4.5",
            "256.1.1.1",
            "01.2.3.4",
            "1.2.3.4/8",
            "fe80::1%eth0",
            "::1/64",
            " 1.2.3.4",
            "1..2.3",
            "[::1]",
        ] {
            check(text, None);
        }
    }
}
