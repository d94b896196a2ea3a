//! Countries in a column of counts: as letters since version 2, as ranks in version 1.

use adtally_model::Country;

/// The largest possible number of countries: a rank is a byte.
pub(super) const MAX: usize = 256;

/// The codes of version 1, in the order of their ranks. They never change, since its records contain ranks.
const OF_VERSION_1: &[u8; 251 * 2] = b"\
ADAEAFAGAIALAMAOAQARASATAUAWAXAZBABBBDBEBFBGBHBIBJBLBMBNBOBQBRBSBTBVBWBYBZCACCCDCFCGCHCICKCLCMCNCOCRCUCVCWCXCYCZ\
DEDJDKDMDODZECEEEGEHERESETFIFJFKFMFOFRGAGBGDGEGFGGGHGIGLGMGNGPGQGRGSGTGUGWGYHKHMHNHRHTHUIDIEILIMINIOIQIRISITJEJM\
JOJPKEKGKHKIKMKNKPKRKWKYKZLALBLCLILKLRLSLTLULVLYMAMCMDMEMFMGMHMKMLMMMNMOMPMQMRMSMTMUMVMWMXMYMZNANCNENFNGNINLNONPNR\
NUNZOMPAPEPFPGPHPKPLPMPNPRPSPTPWPYQARERORSRURWSASBSCSDSESGSHSISJSKSLSMSNSOSRSSSTSVSXSYSZTCTDTFTGTHTJTKTLTMTNTOTRTT\
TVTWTZUAUGUMUSUYUZVAVCVEVGVIVNVUWFWSXKYEYTZAZMZWZZ";

/// The countries of version 1, by their ranks.
pub(super) fn of_version_1() -> Vec<Option<Country>> {
    OF_VERSION_1.chunks_exact(2).map(Country::parse_known).collect()
}

/// Writes the number of countries that occur, their letters, and then for each row the index of its country. A
/// country's rank cannot be used, since it changes with the list of countries.
pub(super) fn write(countries: &[Country], plain: &mut Vec<u8>) {
    let mut places = [None; MAX];
    for country in countries {
        places[usize::from(country.rank())] = Some(0);
    }
    let at = plain.len();
    plain.push(0);
    for (rank, place) in (0..=u8::MAX).zip(&mut places).filter(|(_, place)| place.is_some()) {
        if let Some(country) = Country::from_rank(rank) {
            *place = Some(plain[at]);
            plain[at] += 1;
            plain.extend_from_slice(country.as_str().as_bytes());
        }
    }
    plain.extend(countries.iter().map(|country| places[usize::from(country.rank())].unwrap_or_default()));
}

/// Reads the countries of a column by index. The value is `None` for letters that are not a country's.
pub(super) fn read(plain: &[u8], at: &mut usize) -> Option<Vec<Option<Country>>> {
    let count = usize::from(*plain.get(*at)?);
    let letters = plain.get(*at + 1..*at + 1 + 2 * count)?;
    *at += 1 + 2 * count;
    Some(letters.chunks_exact(2).map(Country::parse_known).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_country_of_version_1_is_known() {
        let countries = of_version_1();
        assert_eq!(countries.len(), 251);
        assert!(countries.iter().all(Option::is_some), "a code that was taken off the list still needs its rank");
        let hash = OF_VERSION_1.iter().fold(0_u64, |hash, &byte| hash.wrapping_mul(31).wrapping_add(u64::from(byte)));
        assert_eq!(hash, 3_948_437_152_558_639_072, "records hold ranks in this very list");
    }
}
