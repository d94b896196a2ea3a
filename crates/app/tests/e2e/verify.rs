//! The damage that `verify` finds, and what it does not report; reading commands change nothing.

use crate::site::{Ended, Site};
use serde_json::Value;
use std::path::PathBuf;

const RECORDS: &str = "data/epochs/00000";

fn record(number: u64) -> String {
    format!("{RECORDS}/{number:020}.epoch")
}

/// A site whose log has some hundred records, of which the first are deleted.
fn long_log() -> Site {
    let site = Site::new();
    site.adtally("generate --lines 1500 --malformed 2% --duplicates 2% --late 1% --rate 50 --output clicks.log").ok();
    site.write("adtally.toml", "[epoch]\nmax_lines = 5\n");
    site.adtally("run clicks.log --config adtally.toml --data-dir data --until-end").ok();
    site.adtally("run clicks.log --data-dir data --until-end").ok();
    assert!(!site.path(&record(2)).exists(), "records were deleted");
    site.verify();
    site
}

fn numbers(site: &Site) -> Vec<u64> {
    let names = std::fs::read_dir(site.path(RECORDS)).unwrap().map(|entry| entry.unwrap().file_name());
    let mut numbers: Vec<u64> =
        names.map(|name| name.to_str().unwrap().trim_end_matches(".epoch").parse().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

/// All reported damage, as one text.
fn wrong(site: &Site) -> String {
    let ended = site.adtally("verify --data-dir data --json");
    assert_eq!(ended.code, Some(3), "{ended:?}");
    ended.json()["wrong"].as_array().unwrap().iter().map(|what| what.as_str().unwrap().to_owned() + "\n").collect()
}

#[test]
fn what_nobody_needs_is_no_damage_and_what_is_needed_is() {
    let site = long_log();
    let kept = numbers(&site);
    let (first_kept, head) = (kept[1], *kept.last().unwrap());
    // A zombie's record, and one whose deletion a power loss has undone.
    site.write(&record(2), site.read(&record(head)));
    site.write(&record(3), "torn");
    site.verify();
    std::fs::remove_file(site.path(&record(2))).unwrap();
    std::fs::remove_file(site.path(&record(3))).unwrap();

    for (number, lost) in [(first_kept, "is missing"), (head - 70, "is missing"), (head - 1, "is missing")] {
        let whole = site.read(&record(number));
        std::fs::remove_file(site.path(&record(number))).unwrap();
        let found = wrong(&site);
        assert!(found.contains(&format!("{number:020}")) && found.contains(lost), "{number}: {found}");
        site.write(&record(number), whole);
    }
    site.verify();
}

#[test]
fn a_hole_behind_the_first_record_is_found() {
    let site = Site::new();
    site.adtally("generate --clicks 300 --output clicks.log").ok();
    site.write("adtally.toml", "[epoch]\nmax_lines = 60\n");
    site.adtally("run clicks.log --config adtally.toml --data-dir data --until-end").ok();
    std::fs::remove_file(site.path(&record(2))).unwrap();
    assert!(wrong(&site).contains("00000000000000000002.epoch is missing"));
}

/// The first log entry of a table that adds rows.
fn entry_with_rows(site: &Site, table: &str) -> PathBuf {
    let log = site.path(&format!("data/lake/{table}/_delta_log"));
    let mut entries: Vec<PathBuf> = std::fs::read_dir(log).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort_unstable();
    let adds = |entry: &PathBuf| std::fs::read_to_string(entry).is_ok_and(|text| text.contains("\"add\""));
    entries.into_iter().find(adds).unwrap()
}

#[test]
fn one_damage_does_not_hide_another() {
    let site = long_log();
    let head = *numbers(&site).last().unwrap();
    let mut bytes = site.read(&record(head - 2));
    bytes[40] ^= 1;
    site.write(&record(head - 2), bytes);
    std::fs::write(entry_with_rows(&site, "dead_letters"), "").unwrap();
    site.write("data/identity.key", "00112233445566778899aabbccddeeff\n");
    let found = wrong(&site);
    for word in ["is damaged", "is empty", "is not the key", "malformed lines, the ledger of epoch"] {
        assert!(found.contains(word), "{word}: {found}");
    }
}

#[test]
fn rows_that_are_gone_are_found() {
    let site = long_log();
    let counts = entry_with_rows(&site, "clicks_by_minute");
    let whole = std::fs::read_to_string(&counts).unwrap();
    let without: Vec<&str> = whole.lines().filter(|line| !line.contains("\"add\"")).collect();
    std::fs::write(&counts, without.join("\n")).unwrap();
    let found = wrong(&site);
    for word in [
        "the recount of clicks",
        "the counts of the lake sum up to",
        "the lake table `clicks_by_minute` has 0",
        "more epochs differ",
    ] {
        assert!(found.contains(word), "{word}: {found}");
    }
}

#[test]
fn a_lost_key_is_not_made_again() {
    let site = long_log();
    let key = site.read("data/identity.key");
    std::fs::remove_file(site.path("data/identity.key")).unwrap();
    let before = numbers(&site);
    let ended = site.adtally("run clicks.log --data-dir data --until-end");
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stderr.contains("identity.key"), "{ended:?}");
    assert!(!site.path("data/identity.key").exists());
    assert_eq!(numbers(&site), before);
    site.write("data/identity.key", key);
    site.adtally("run clicks.log --data-dir data --until-end").ok();
}

/// Every file and folder below the data directory, with size and modification time.
fn traces(site: &Site) -> Vec<(PathBuf, u64, std::time::SystemTime)> {
    let mut found = Vec::new();
    let mut folders = vec![site.path("data")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let entry = entry.unwrap();
            let facts = entry.metadata().unwrap();
            found.push((entry.path(), facts.len(), facts.modified().unwrap()));
            if facts.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    found.sort_unstable();
    found
}

#[test]
fn reading_commands_leave_no_trace() {
    let site = long_log();
    let commands: [&[&str]; 3] = [
        &["ledger", "--data-dir", "data", "--json"],
        &["verify", "--data-dir", "data", "--json"],
        &["sql", "--data-dir", "data", "--format", "csv", "SELECT sum(clicks) FROM clicks_by_minute"],
    ];
    let read_all = || -> Vec<Ended> {
        let before = traces(&site);
        let ended = commands.map(|words| site.words(words));
        assert_eq!(traces(&site), before);
        ended.into()
    };
    read_all().into_iter().for_each(|ended| drop(ended.ok()));
    std::fs::rename(site.path("data/lake/corrections"), site.path("corrections")).unwrap();
    let codes = |ended: Vec<Ended>| -> Vec<Option<i32>> { ended.iter().map(|ended| ended.code).collect() };
    assert_eq!(codes(read_all()), [Some(0), Some(3), Some(3)]);
    std::fs::rename(site.path("data/lake"), site.path("lake")).unwrap();
    let ended = read_all();
    // The ledger comes from the log only.
    let ledger: Value = ended[0].json();
    assert!(ledger["read"].as_u64().unwrap() > 1_400, "{ledger}");
    assert!(ended[1].stdout.contains("data/lake is missing"), "{:?}", ended[1]);
    assert_eq!(codes(ended), [Some(0), Some(3), Some(3)]);
}
