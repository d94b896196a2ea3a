//! The faults of `docs/faults.md` on the real binary and real files: each fault happens, nothing is lost, and nothing
//! is counted twice.
//!
//! The name of each test gives the fault that it shows, and the first sentence of its comment says what it shows.
//! `cargo xtask faults` writes the table from them. [`check`] decides: a recount of the lines by a plain reader.

mod clocks;
mod damage;
mod disks;
mod feeding;
mod handles;
mod kills;
mod lines;
mod minutes;
mod poison;
mod rotations;

use crate::site::Site;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// 2025-06-02T00:00:00Z: in the past for any machine's clock, so that nothing is `future`.
pub(crate) const START: i64 = 1_748_822_400_000;

/// A file with a size that is write-only for every user, including root.
const UNREADABLE: &str = "/sys/bus/platform/drivers_probe";

/// In milliseconds.
pub(crate) const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;

/// A click of a user, whose number determines the ad.
pub(crate) fn click(at: i64, user: i64) -> String {
    let ad = user % 7;
    format!("{{\"click_timestamp\":{at},\"ad_id\":{ad},\"user_id\":{user},\"ip\":\"10.0.0.1\",\"country\":\"US\"}}\n")
}

/// Clicks a second apart.
pub(crate) fn clicks(users: Range<i64>) -> String {
    users.map(|user| click(START + user * SECOND, user)).collect()
}

/// Clicks per minute and ad, each identity once.
fn recount(text: &str) -> BTreeMap<(i64, i64), u64> {
    let mut identities = BTreeSet::new();
    let mut counts = BTreeMap::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let number = |key: &str| line[key].as_i64().unwrap();
        let (at, ad) = (number("click_timestamp"), number("ad_id"));
        if identities.insert((at, ad, number("user_id"), line["ip"].to_string())) {
            *counts.entry((at / MINUTE * 60, ad)).or_default() += 1;
        }
    }
    counts
}

/// Runs the folder `logs` to its end.
pub(crate) fn until_end(site: &Site) -> Value {
    site.adtally("run logs --data-dir data --until-end").ok().json()
}

/// Checks that `data` has counted exactly these clicks, each once, in the ledger, the counts and the raw clicks; that
/// its ledger has these lines under other verdicts and no more; and that `verify` finds nothing. Returns the ledger.
pub(crate) fn check(site: &Site, counted: &str, others: &[(&str, u64)]) -> Value {
    let expected = recount(counted);
    let ledger = site.ledger();
    let total: u64 = expected.values().sum();
    let mut read = total;
    assert_eq!(ledger["counted"], total, "counted of {ledger}");
    for verdict in ["duplicate", "late", "future", "malformed", "invalid"] {
        let lines = others.iter().find(|(other, _)| *other == verdict).map_or(0, |(_, lines)| *lines);
        assert_eq!(ledger[verdict], lines, "{verdict} of {ledger}");
        read += lines;
    }
    assert_eq!(ledger["read"], read, "{ledger}");
    for query in [
        "SELECT CAST(date_part('epoch', minute) AS BIGINT), ad_id, sum(clicks) FROM clicks_by_minute GROUP BY 1, 2",
        "SELECT CAST(date_part('epoch', date_trunc('minute', click_timestamp)) AS BIGINT), ad_id, count(*) FROM clicks \
         GROUP BY 1, 2",
    ] {
        let csv = site.sql(query);
        let row = |line: &str| {
            let fields: Vec<i64> = line.split(',').map(|field| field.parse().unwrap()).collect();
            ((fields[0], fields[1]), fields[2] as u64)
        };
        let found: BTreeMap<_, _> = csv.lines().skip(1).map(row).collect();
        assert!(found == expected, "{query}: {found:?}, expected {expected:?}");
    }
    site.verify();
    ledger
}

/// The numbers of the existing epoch records.
fn records(site: &Site) -> Vec<u64> {
    let Ok(entries) = std::fs::read_dir(site.path("data/epochs/00000")) else { return Vec::new() };
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut numbers: Vec<u64> = entries.filter_map(|entry| name(entry).strip_suffix(".epoch")?.parse().ok()).collect();
    numbers.sort_unstable();
    numbers
}

/// All files below a folder of the site, as paths relative to it.
fn files_below(site: &Site, folder: &str) -> Vec<String> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(site.path(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{folder}/{}", entry.file_name().into_string().unwrap());
            let to = if entry.file_type().unwrap().is_dir() { &mut folders } else { &mut found };
            to.push(path);
        }
    }
    found.sort_unstable();
    found
}
