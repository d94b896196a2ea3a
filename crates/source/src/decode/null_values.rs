//! Null markers: texts that stand for an absent value, such as nginx's `-` or MySQL's `\N`.

use adtally_model::Country;

/// The markers, with indexes that rule out nearly all values without comparing texts.
#[derive(Clone, Debug)]
pub(super) struct NullValues {
    markers: Vec<Vec<u8>>,
    /// A bit for each length of a marker; the last bit stands for its length and all greater ones.
    lengths: u128,
    /// A bit for each first byte of a marker.
    firsts: [u64; 4],
    /// Whether a marker is also a valid country code.
    name_a_country: bool,
}

impl NullValues {
    pub(super) fn new(texts: &[String]) -> NullValues {
        // An empty text always means absent.
        let markers = texts.iter().filter(|text| !text.is_empty()).map(|text| text.clone().into_bytes());
        let mut values = NullValues { markers: markers.collect(), lengths: 0, firsts: [0; 4], name_a_country: false };
        for marker in &values.markers {
            values.lengths |= length_bit(marker);
            if let Some(&first) = marker.first() {
                values.firsts[usize::from(first >> 6)] |= 1 << (first & 63);
            }
            values.name_a_country |= Country::parse_known(marker).is_some();
        }
        values
    }

    /// Whether a whole value is a marker, byte for byte.
    #[inline]
    pub(super) fn is_marker(&self, text: &[u8]) -> bool {
        let Some(&first) = text.first() else { return true };
        let may_be =
            self.lengths & length_bit(text) != 0 && self.firsts[usize::from(first >> 6)] >> (first & 63) & 1 != 0;
        may_be && self.markers.iter().any(|marker| marker == text)
    }

    /// Parses a country code; markers and everything else that is not a code give the unknown country.
    #[inline]
    pub(super) fn country(&self, text: &[u8]) -> Country {
        if self.name_a_country && self.is_marker(text) { Country::UNKNOWN } else { Country::parse(text) }
    }
}

#[inline]
fn length_bit(text: &[u8]) -> u128 {
    1 << text.len().min(127)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_are_whole_values_byte_for_byte() {
        let values =
            NullValues::new(&["".into(), "-".into(), "\\N".into(), "null".into(), "NA".into(), "é".repeat(70)]);
        for (text, expected) in [
            ("", true),
            ("-", true),
            ("\\N", true),
            ("\\n", false),
            ("null", true),
            ("Null", false),
            ("nulL", false),
            ("nul", false),
            ("--", false),
            (" -", false),
            (&*"é".repeat(70), true),
            (&*"é".repeat(71), false),
        ] {
            assert_eq!(values.is_marker(text.as_bytes()), expected, "{text}");
        }
        assert_eq!(values.country(b"NA"), Country::UNKNOWN);
        assert_eq!(values.country(b"na"), Country::parse(b"NA"));
        assert_eq!(values.country(b"DE"), Country::parse(b"DE"));
        assert_eq!(NullValues::new(&[]).country(b"NA"), Country::parse(b"NA"));
    }
}
