//! A generated click and its notation as a line.

use super::random::{Random, Zipf, mix};
use adtally_model::Country;
use std::io::Write;

/// The number of users: about as many as make a billion clicks a day.
const USERS: u64 = 40_000_000;

/// Weights of countries in 1/1000 of the users; the rest to 1000 is spread evenly over all countries.
const COUNTRIES: [(&[u8; 2], u16); 40] = [
    (b"US", 240),
    (b"IN", 110),
    (b"BR", 60),
    (b"GB", 55),
    (b"DE", 50),
    (b"JP", 45),
    (b"FR", 40),
    (b"ID", 38),
    (b"MX", 32),
    (b"CA", 30),
    (b"IT", 26),
    (b"ES", 24),
    (b"KR", 20),
    (b"TR", 18),
    (b"AU", 17),
    (b"PH", 16),
    (b"VN", 15),
    (b"TH", 14),
    (b"PL", 13),
    (b"NL", 12),
    (b"AR", 11),
    (b"CO", 9),
    (b"EG", 8),
    (b"PK", 8),
    (b"MY", 7),
    (b"NG", 7),
    (b"ZA", 6),
    (b"SA", 6),
    (b"SE", 5),
    (b"BE", 5),
    (b"CH", 4),
    (b"AT", 4),
    (b"CL", 4),
    (b"RO", 3),
    (b"PT", 3),
    (b"CZ", 3),
    (b"GR", 3),
    (b"DK", 2),
    (b"FI", 2),
    (b"NO", 2),
];

/// The number of clicks without a usable country among 1,024.
const UNKNOWN_COUNTRY: u64 = 10;

/// How a click's country is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Written {
    /// As its code.
    Code(Country),
    /// As its code in lower case.
    Lower(Country),
    /// As an empty string.
    Empty,
    /// As `null` (in CSV an empty value).
    Null,
    /// As a code that no country has.
    Nobody,
    /// Not at all (in CSV an empty value).
    Missing,
}

impl Written {
    /// The country that a reader derives from it.
    pub(super) fn country(self) -> Country {
        match self {
            Written::Code(country) | Written::Lower(country) => country,
            _ => Country::UNKNOWN,
        }
    }
}

/// A generated click before it is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Click {
    /// Event time in milliseconds.
    pub event_time_ms: i64,
    /// The ad, from 1.
    pub ad_id: u64,
    /// The user's number.
    pub user: u64,
    /// Canonical address as in [`adtally_model::ip`].
    pub ip: u128,
    /// How the country is written.
    pub(super) written: Written,
    /// The client's unique id, if it sent one.
    pub click_id: Option<u64>,
}

impl Click {
    /// The country that a reader derives.
    pub fn country(&self) -> Country {
        self.written.country()
    }
}

/// How lines are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Format {
    /// A JSON object a line.
    Ndjson,
    /// Comma-separated values with a header.
    Csv,
}

/// Generates clicks: user, place and ad.
#[derive(Clone, Debug)]
pub(super) struct Population {
    ads: u64,
    zipf: Zipf,
    /// A number coprime to `ads`, which scatters popular ads over the ids.
    stride: u64,
    /// Country by thousandth; `None` for the part that is spread over all countries.
    countries: Vec<Option<Country>>,
}

impl Population {
    /// `ads` is at least 1 and at most 2^32.
    pub(super) fn new(ads: u64) -> Self {
        // A stride near the golden ratio of the number of ids puts neighbouring ranks far apart.
        let mut stride = (ads as f64 * 0.618_033_988_749_894_9) as u64 | 1;
        while gcd(stride, ads) != 1 {
            stride += 2;
        }
        let weighted =
            COUNTRIES.iter().flat_map(|(code, weight)| vec![Some(Country::parse(*code)); usize::from(*weight)]);
        let mut countries: Vec<_> = weighted.collect();
        countries.resize(1_000, None);
        Population { ads, zipf: Zipf::new(ads), stride, countries }
    }

    /// Generates one click. A user has one country and usually one address.
    pub(super) fn click(&self, random: &mut Random, event_time_ms: i64, click_id: Option<u64>) -> Click {
        let rank = self.zipf.rank(random);
        // The product of two uniform numbers makes some users click far more than others.
        let user = ((u128::from(random.bits()) * u128::from(random.below(USERS))) >> 64) as u64;
        let home = mix(user);
        let chance = random.bits();
        let away = if chance & 7 == 0 { 1 + (chance >> 3 & 3) } else { 0 };
        let country = match self.countries[(home >> 32) as usize % 1_000] {
            Some(country) => country,
            // Every rank except the last, which is the unknown country.
            None => {
                Country::from_rank((home >> 16 & 0xffff) as u8 % Country::UNKNOWN.rank()).unwrap_or(Country::UNKNOWN)
            }
        };
        Click {
            event_time_ms,
            ad_id: 1 + (rank - 1) * self.stride % self.ads,
            user,
            ip: address(mix(user ^ away << 56)),
            written: written(country, chance >> 8 & 0x3ff),
            click_id,
        }
    }
}

/// The notation of a country, chosen by a number below 1,024.
fn written(country: Country, chance: u64) -> Written {
    match chance {
        0..3 => Written::Missing,
        3..6 => Written::Empty,
        6..8 => Written::Null,
        8..UNKNOWN_COUNTRY => Written::Nobody,
        UNKNOWN_COUNTRY..12 => Written::Lower(country),
        _ => Written::Code(country),
    }
}

/// An address from 64 random bits: IPv6 in a fifth of cases, otherwise unicast IPv4.
fn address(bits: u64) -> u128 {
    if bits.is_multiple_of(5) {
        // 2000::/3 is the global unicast space; the low half is a host that chose its own suffix.
        let network = 0x2000_0000_0000_0000 | bits >> 3;
        u128::from(network) << 64 | u128::from(mix(bits))
    } else {
        let first = 1 + (bits >> 24 & 0xff) % 223;
        let first = if first == 127 { 128 } else { first };
        u128::from(0xffff_0000_0000 | first << 24 | bits >> 40)
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The CSV header.
pub(super) fn csv_header(click_ids: bool) -> &'static str {
    if click_ids {
        "click_timestamp,ad_id,user_id,ip,country,click_id\n"
    } else {
        "click_timestamp,ad_id,user_id,ip,country\n"
    }
}

impl Click {
    /// Appends the click as a line. `click_ids` says whether CSV has that column.
    pub(super) fn write(&self, format: Format, click_ids: bool, out: &mut Vec<u8>) {
        match format {
            Format::Ndjson => self.write_json(out),
            Format::Csv => self.write_csv(click_ids, out),
        }
    }

    fn write_json(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"click_timestamp\":");
        decimal(self.event_time_ms.unsigned_abs(), 1, out);
        out.extend_from_slice(b",\"ad_id\":");
        decimal(self.ad_id, 1, out);
        out.extend_from_slice(b",\"user_id\":\"u");
        decimal(self.user, 8, out);
        out.extend_from_slice(b"\",\"ip\":\"");
        write_ip(self.ip, out);
        out.push(b'"');
        match self.written {
            Written::Missing => {}
            Written::Null => out.extend_from_slice(b",\"country\":null"),
            _ => {
                out.extend_from_slice(b",\"country\":\"");
                self.write_country(out);
                out.push(b'"');
            }
        }
        if let Some(click_id) = self.click_id {
            out.extend_from_slice(b",\"click_id\":\"");
            let _ = write!(out, "{click_id:016x}");
            out.push(b'"');
        }
        out.extend_from_slice(b"}\n");
    }

    fn write_csv(&self, click_ids: bool, out: &mut Vec<u8>) {
        decimal(self.event_time_ms.unsigned_abs(), 1, out);
        out.push(b',');
        decimal(self.ad_id, 1, out);
        out.extend_from_slice(b",u");
        decimal(self.user, 8, out);
        out.push(b',');
        write_ip(self.ip, out);
        out.push(b',');
        self.write_country(out);
        if click_ids {
            out.push(b',');
            if let Some(click_id) = self.click_id {
                let _ = write!(out, "{click_id:016x}");
            }
        }
        out.push(b'\n');
    }

    fn write_country(&self, out: &mut Vec<u8>) {
        match self.written {
            Written::Code(country) => out.extend_from_slice(country.as_str().as_bytes()),
            Written::Lower(country) => out.extend(country.as_str().bytes().map(|letter| letter.to_ascii_lowercase())),
            Written::Nobody => out.extend_from_slice(b"XX"),
            Written::Empty | Written::Null | Written::Missing => {}
        }
    }
}

/// Appends a number in decimal with at least `digits` digits.
fn decimal(mut number: u64, digits: usize, out: &mut Vec<u8>) {
    let mut text = [b'0'; 20];
    let mut at = text.len();
    while number > 0 {
        at -= 1;
        text[at] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    out.extend_from_slice(&text[at.min(text.len() - digits)..]);
}

/// Appends an address; IPv6 in full, without `::`, like many loggers.
fn write_ip(ip: u128, out: &mut Vec<u8>) {
    if ip >> 32 == 0xffff {
        for (at, octet) in (ip as u32).to_be_bytes().into_iter().enumerate() {
            if at > 0 {
                out.push(b'.');
            }
            decimal(u64::from(octet), 1, out);
        }
        return;
    }
    for group in 0..8 {
        if group > 0 {
            out.push(b':');
        }
        let bits = (ip >> (112 - 16 * group)) as u16;
        let mut leading = true;
        for nibble in (0..4).rev() {
            let digit = (bits >> (4 * nibble) & 15) as usize;
            leading &= digit == 0 && nibble > 0;
            if !leading {
                out.push(b"0123456789abcdef"[digit]);
            }
        }
    }
}
