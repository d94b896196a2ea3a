//! The truth of `adtally generate --truth`, and checks of a data directory and a server against it.

use crate::site::{Serving, Site, check_ledger};
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// The rows of `counts.csv`, from the lake's counts.
pub(crate) const COUNTS: &str = "SELECT minute, ad_id, country, sum(clicks) AS clicks FROM clicks_by_minute \
                      GROUP BY minute, ad_id, country ORDER BY minute, ad_id, country";

/// The same from raw clicks.
const RECOUNT: &str = "SELECT date_trunc('minute', click_timestamp) AS minute, ad_id, country, count(*) AS clicks \
                       FROM clicks GROUP BY 1, 2, 3 ORDER BY 1, 2, 3";

/// Configuration with an identity key, so that hashes are the same in each run of a test.
pub(crate) const KEY: &str = "[identity]\nkey = \"6164745f616c6c795f746573745f6b65\"\n";

/// The truth of a generated log.
pub(crate) struct Expected {
    /// Totals and leaders.
    pub(crate) report: Value,
    csv: String,
}

/// A row of counts.
struct Row<'a> {
    minute: &'a str,
    ad_id: u64,
    country: &'a str,
    clicks: u64,
}

impl Expected {
    /// Generates `log` with these arguments, and its truth.
    pub(crate) fn generate(site: &Site, log: &str, words: &str) -> Expected {
        site.adtally(&format!("generate {words} --output {log} --truth truth.json")).ok();
        let report = serde_json::from_slice(&site.read("truth.json")).unwrap();
        Expected { report, csv: String::from_utf8(site.read("truth.counts.csv")).unwrap() }
    }

    /// The rows of counts, which may be a million.
    fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.csv.lines().skip(1).map(|line| {
            let fields: Vec<&str> = line.split(',').collect();
            let [minute, ad_id, country, clicks] = fields[..] else { panic!("{line}") };
            Row { minute, ad_id: ad_id.parse().unwrap(), country, clicks: clicks.parse().unwrap() }
        })
    }

    /// Lines generated.
    pub(crate) fn lines(&self) -> u64 {
        self.report["read"].as_u64().unwrap()
    }

    /// Checks the data directory: ledger, counts, the recount of raw clicks, dead letters and `verify`.
    pub(crate) fn check_data(&self, site: &Site) {
        check_ledger(&site.ledger(), &self.report);
        self.check_counts(site);
        for verdict in ["late", "malformed", "invalid"] {
            let letters = site.sql_value(&format!("SELECT count(*) FROM dead_letters WHERE verdict = '{verdict}'"));
            assert_eq!(letters, self.report[verdict].to_string(), "dead letters: {verdict}");
        }
        site.verify();
    }

    /// Checks all counts, in the count table and in a recount of raw clicks.
    pub(crate) fn check_counts(&self, site: &Site) {
        self.check_csv("clicks_by_minute", &site.sql(COUNTS));
        self.check_csv("clicks", &site.sql(RECOUNT));
    }

    /// Checks the duplicates with another country.
    pub(crate) fn check_conflicts(&self, ledger: &Value) {
        assert_eq!(ledger["conflicting_duplicates"], self.report["conflicting_duplicates"]);
    }

    /// Compares rows of counts.
    pub(crate) fn check_csv(&self, table: &str, csv: &str) {
        if csv == self.csv {
            return;
        }
        let pairs = csv.lines().zip(self.csv.lines()).enumerate();
        let first = pairs.into_iter().find(|(_, (found, expected))| found != expected);
        let (found, expected) = (csv.lines().count(), self.csv.lines().count());
        panic!("{table}: {found} rows, expected {expected}; the first that differ (found, expected): {first:?}");
    }

    /// Checks the answers of a server that has committed everything.
    pub(crate) fn check_answers(&self, server: &Serving) {
        let span = format!("from={}&to={}", self.report["from"].as_str().unwrap(), self.report["to"].as_str().unwrap());
        let top = server.get(&format!("/ads/top100?{span}"));
        assert_eq!(top["ads"], self.report["ads"]);
        assert_eq!((&top["from"], &top["to"]), (&self.report["from"], &self.report["to"]));
        for country in ["US", "ZZ", "BR"] {
            let top = server.get(&format!("/ads/top100?{span}&filter_country={country}"));
            assert_eq!(top["ads"], self.top(|row| row.country == country), "{country}");
        }
        for rank in [0, 1, 40, 99] {
            let ad = self.report["ads"][rank]["ad_id"].as_str().unwrap().parse().unwrap();
            self.check_series(server, &span, ad);
        }
    }

    fn check_series(&self, server: &Serving, span: &str, ad: u64) {
        let mut minutes: BTreeMap<&str, u64> = BTreeMap::new();
        for row in self.rows() {
            *minutes.entry(row.minute).or_default() += if row.ad_id == ad { row.clicks } else { 0 };
        }
        let answer = server.get(&format!("/ads/{ad}/clicks?{span}&series=true"));
        assert_eq!(answer["clicks"], minutes.values().sum::<u64>(), "ad {ad}");
        let series = answer["minutes"].as_array().unwrap().iter();
        let series: BTreeMap<&str, u64> =
            series.map(|row| (row["minute"].as_str().unwrap(), row["clicks"].as_u64().unwrap())).collect();
        assert_eq!(series, minutes, "ad {ad}");
    }

    fn top(&self, wanted: impl Fn(&Row<'_>) -> bool) -> Value {
        let mut ads: BTreeMap<u64, u64> = BTreeMap::new();
        for row in self.rows().filter(|row| wanted(row)) {
            *ads.entry(row.ad_id).or_default() += row.clicks;
        }
        ranked(ads)
    }
}

/// The first hundred ads in the form of an answer.
pub(crate) fn ranked(ads: BTreeMap<u64, u64>) -> Value {
    let mut ads: Vec<(u64, u64)> = ads.into_iter().collect();
    ads.sort_unstable_by_key(|&(ad, clicks)| (Reverse(clicks), ad));
    let rows = ads.iter().take(100).enumerate();
    rows.map(|(at, (ad, clicks))| json!({ "rank": at + 1, "ad_id": ad.to_string(), "clicks": clicks })).collect()
}
