//! Canonical IP addresses as 128-bit numbers: IPv4 is stored as its IPv4-mapped IPv6 address.
//!
//! By contract `::ffff:a.b.c.d` is the same address as `a.b.c.d`, so the mapping loses nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const MAPPED: u128 = 0xffff_0000_0000;

/// Reads an IPv4 or IPv6 address without zone or prefix length. Returns `None` for other text.
pub fn parse(text: &[u8]) -> Option<u128> {
    match std::str::from_utf8(text).ok()?.parse().ok()? {
        IpAddr::V4(v4) => Some(of_v4(v4.into())),
        IpAddr::V6(v6) => Some(v6.into()),
    }
}

/// The canonical form of the IPv4 address with these 32 bits.
#[inline]
pub fn of_v4(v4: u32) -> u128 {
    MAPPED | u128::from(v4)
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
