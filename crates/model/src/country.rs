//! Countries: ISO 3166-1 alpha-2.

use std::fmt;

/// The 249 officially assigned ISO 3166-1 alpha-2 codes, `XK` (Kosovo, user-assigned and in wide use) and
/// `ZZ` (unknown), sorted. A [`Country`] is an index into it.
const CODES: &[u8; 251 * 2] = b"\
ADAEAFAGAIALAMAOAQARASATAUAWAXAZBABBBDBEBFBGBHBIBJBLBMBNBOBQBRBSBTBVBWBYBZCACCCDCFCGCHCICKCLCMCNCOCRCUCVCWCXCYCZ\
DEDJDKDMDODZECEEEGEHERESETFIFJFKFMFOFRGAGBGDGEGFGGGHGIGLGMGNGPGQGRGSGTGUGWGYHKHMHNHRHTHUIDIEILIMINIOIQIRISITJEJM\
JOJPKEKGKHKIKMKNKPKRKWKYKZLALBLCLILKLRLSLTLULVLYMAMCMDMEMFMGMHMKMLMMMNMOMPMQMRMSMTMUMVMWMXMYMZNANCNENFNGNINLNONPNR\
NUNZOMPAPEPFPGPHPKPLPMPNPRPSPTPWPYQARERORSRURWSASBSCSDSESGSHSISJSKSLSMSNSOSRSSSTSVSXSYSZTCTDTFTGTHTJTKTLTMTNTOTRTT\
TVTWTZUAUGUMUSUYUZVAVCVEVGVIVNVUWFWSXKYEYTZAZMZWZZ";

/// Number of codes, `XK` and `ZZ` included.
pub const COUNTRIES: usize = CODES.len() / 2;

/// Index by letter pair, 255 if there is no such code; built at compile time.
const INDEX: [u8; 26 * 26] = {
    let mut index = [255_u8; 26 * 26];
    let mut at = 0;
    while at < COUNTRIES {
        let (first, second) = ((CODES[at * 2] - b'A') as usize, (CODES[at * 2 + 1] - b'A') as usize);
        index[first * 26 + second] = at as u8;
        at += 1;
    }
    index
};

/// The codes as texts; built at compile time.
const NAMES: [&str; COUNTRIES] = {
    let mut names = ["ZZ"; COUNTRIES];
    let mut at = 0;
    while at < COUNTRIES {
        if let Ok(name) = std::str::from_utf8(CODES.split_at(at * 2).1.split_at(2).0) {
            names[at] = name;
        }
        at += 1;
    }
    names
};

/// A country code, or `ZZ` if unknown. Its byte is its rank in the alphabetical list of codes.
///
/// ```
/// # use adtally_model::Country;
/// assert_eq!(Country::parse(b"us").as_str(), "US");
/// assert_eq!(Country::parse(b"UK"), Country::UNKNOWN);
/// assert_eq!(Country::parse(b""), Country::UNKNOWN);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Country(u8);

impl Country {
    /// `ZZ`: missing, empty, null or not an assigned code.
    pub const UNKNOWN: Country = Country(COUNTRIES as u8 - 1);

    /// Reads a code in any ASCII case. Any other text is [`Country::UNKNOWN`].
    #[inline]
    pub fn parse(text: &[u8]) -> Country {
        let [first, second] = text else { return Country::UNKNOWN };
        let (first, second) = (first & !0x20, second & !0x20);
        // `& !0x20` also maps some non-letters into the range of letters, so the original bytes are checked to be
        // letters.
        if !text[0].is_ascii_alphabetic() || !text[1].is_ascii_alphabetic() {
            return Country::UNKNOWN;
        }
        match INDEX[usize::from(first - b'A') * 26 + usize::from(second - b'A')] {
            255 => Country::UNKNOWN,
            index => Country(index),
        }
    }

    /// Reads a code strictly: `None` if it is not a known code.
    pub fn parse_known(text: &[u8]) -> Option<Country> {
        let country = Country::parse(text);
        (country != Country::UNKNOWN || text.eq_ignore_ascii_case(b"ZZ")).then_some(country)
    }

    /// The country with this rank; `None` if there is no such country.
    pub fn from_rank(rank: u8) -> Option<Country> {
        (usize::from(rank) < COUNTRIES).then_some(Country(rank))
    }

    /// Its rank in the alphabetical list.
    #[inline]
    pub const fn rank(self) -> u8 {
        self.0
    }

    /// The two upper-case letters.
    #[inline]
    pub fn as_str(self) -> &'static str {
        NAMES[usize::from(self.0)]
    }

    /// All countries, in alphabetical order.
    pub fn all() -> impl Iterator<Item = Country> {
        (0..COUNTRIES as u8).map(Country)
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_and_round_trip() {
        let codes: Vec<_> = Country::all().map(Country::as_str).collect();
        assert_eq!(codes.len(), 251);
        assert!(codes.windows(2).all(|pair| pair[0] < pair[1]));
        for code in codes {
            assert_eq!(Country::parse(code.as_bytes()).as_str(), code);
            assert_eq!(Country::parse(code.to_lowercase().as_bytes()).as_str(), code);
        }
        for text in ["U", "USA", "1A", "{A", "[[", "@@", "\u{e4}"] {
            assert_eq!(Country::parse(text.as_bytes()), Country::UNKNOWN, "{text}");
        }
    }
}
