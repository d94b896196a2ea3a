//! The generated truth, and its comparison with the counts.

use super::feeder::GENERATED;
use super::process::Adtally;
use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

/// The totals to compare.
const TOTALS: [&str; 7] = ["read", "counted", "duplicate", "late", "future", "malformed", "invalid"];

/// The expected totals, and every count.
pub(super) struct Truth {
    totals: String,
    counts: String,
}

impl Truth {
    /// Generates the log and its expected counts with the program. The first click is at `start`, a time since the Unix
    /// epoch. No click is late: which lines are would depend on the times of rotation.
    pub(super) fn generate(
        adtally: &Adtally,
        seed: u64,
        rate: u64,
        ads: u64,
        lines: u64,
        start: Duration,
    ) -> Result<Truth, String> {
        let [seed, rate, ads, lines] = [seed, rate, ads, lines].map(|number| number.to_string());
        let start = rfc3339(start.as_secs());
        adtally.output(&[
            "generate",
            "--lines",
            &lines,
            "--seed",
            &seed,
            "--rate",
            &rate,
            "--ads",
            &ads,
            "--duplicates",
            "1%",
            "--malformed",
            "0.05%",
            "--invalid",
            "0.05%",
            "--start",
            &start,
            "--output",
            GENERATED,
            "--truth",
            "truth.json",
        ])?;
        let read = |name: &str| {
            let path = adtally.folder().join(name);
            fs::read_to_string(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))
        };
        Ok(Truth { totals: read("truth.json")?, counts: read("truth.counts.csv")? })
    }

    /// Compares the totals of a ledger in JSON.
    pub(super) fn check_ledger(&self, ledger: &str) -> Result<(), String> {
        for name in TOTALS {
            let (expected, found) = (number(&self.totals, name), number(ledger, name));
            if expected.is_none() || expected != found {
                return Err(format!("{name}: {found:?}, expected {expected:?}: {ledger}"));
            }
        }
        match number(ledger, "gap_bytes") {
            Some(0) => Ok(()),
            gap => Err(format!("gap_bytes: {gap:?}")),
        }
    }

    /// Compares the clicks of every ad in every minute with the lake's. Countries are summed: of copies with different
    /// countries the first one read counts, and that may depend on how a rotated file and its successor are read.
    pub(super) fn check_counts(&self, adtally: &Adtally) -> Result<(), String> {
        let mut minutes: BTreeMap<&str, BTreeMap<u64, u64>> = BTreeMap::new();
        for row in self.counts.lines().skip(1) {
            let wrong = || format!("not a count: {row}");
            let fields: Vec<&str> = row.split(',').collect();
            let [minute, ad, _, clicks] = fields[..] else { return Err(wrong()) };
            let (Ok(ad), Ok(clicks)) = (ad.parse(), clicks.parse::<u64>()) else { return Err(wrong()) };
            *minutes.entry(minute).or_default().entry(ad).or_default() += clicks;
        }
        let sum = adtally.output(&sql("SELECT count(DISTINCT minute) FROM clicks_by_minute"))?;
        if sum.lines().nth(1) != Some(&minutes.len().to_string()) {
            return Err(format!("{sum} minutes are counted, expected {}", minutes.len()));
        }
        for (minute, expected) in minutes {
            let query = format!(
                "SELECT ad_id, sum(clicks) AS clicks FROM clicks_by_minute WHERE minute = '{minute}' \
                 GROUP BY ad_id ORDER BY ad_id"
            );
            let found = adtally.output(&sql(&query))?;
            let expected: Vec<String> = expected.iter().map(|(ad, clicks)| format!("{ad},{clicks}")).collect();
            if !found.lines().skip(1).eq(expected.iter().map(String::as_str)) {
                let first = found.lines().skip(1).zip(&expected).find(|(found, expected)| found != *expected);
                return Err(format!("minute {minute}: the first counts that differ (found, expected): {first:?}"));
            }
        }
        Ok(())
    }
}

fn sql(query: &str) -> [&str; 6] {
    ["sql", "--data-dir", "data", "--format", "csv", query]
}

/// The first number of this name in a JSON document.
fn number(json: &str, name: &str) -> Option<u64> {
    let (_, rest) = json.split_once(&format!("\"{name}\":"))?;
    let rest = rest.trim_start();
    rest[..rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len())].parse().ok()
}

/// Seconds since the Unix epoch as RFC 3339 (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn rfc3339(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3_600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::{number, rfc3339};

    #[test]
    fn times_and_numbers_are_read_and_written() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(1_767_225_599), "2025-12-31T23:59:59Z");
        assert_eq!(number("{\"read\": 12,\"counted\":7}", "counted"), Some(7));
        assert_eq!(number("{\"read\": 12}", "read"), Some(12));
        assert_eq!(number("{}", "read"), None);
    }
}
