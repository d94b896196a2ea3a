//! `adtally repair`: all that `verify` can find is repaired from the remaining data; nothing is lost or counted twice.

use crate::expected::{Expected, KEY};
use crate::site::{Ended, Site, check_ledger, wait_for};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;

const WORDS: &str = "--lines 20000 --rate 20 --seed 41 --duplicates 3% --malformed 0.5% --start 2025-05-01T00:00:00Z";

/// The names in a folder, in order.
fn names(site: &Site, folder: &str) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(site.path(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn cut(path: &PathBuf) {
    let bytes = fs::read(path).unwrap();
    fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

/// Reads half of a log in a first run; then the whole log is there.
fn half_read(site: &Site) -> Expected {
    let expected = Expected::generate(site, "whole.log", WORDS);
    let text = site.read("whole.log");
    let half = text[..text.len() / 2].iter().rposition(|&byte| byte == b'\n').unwrap() + 1;
    site.write("adtally.toml", KEY);
    site.write("logs/clicks.log", &text[..half]);
    site.adtally("run logs --config adtally.toml --data-dir data --until-end").ok();
    site.append("logs/clicks.log", &text[half..]);
    expected
}

fn repair(site: &Site, more: &str) -> Ended {
    site.adtally(&format!("repair --config adtally.toml --data-dir data {more}"))
}

/// Checks that `repair` first only says what it would do, then does it, and then has nothing to do. After reading the
/// rest, all generated counts are right.
fn check(site: &Site, expected: &Expected, said: &[&str]) -> Value {
    let verified = site.adtally("verify --data-dir data");
    assert_eq!(verified.code, Some(3), "{verified:?}");
    let refused = site.adtally("run logs --config adtally.toml --data-dir data --until-end");
    assert_eq!(refused.code, Some(3), "{refused:?}");
    let before = (names(site, "data"), names(site, "data/lake/clicks_by_minute/_delta_log"));
    let would = repair(site, "");
    assert_eq!(would.code, Some(3), "{would:?}");
    for what in said {
        assert!(would.stdout.contains(what), "{what}: {}", would.stdout);
    }
    let after = (names(site, "data"), names(site, "data/lake/clicks_by_minute/_delta_log"));
    assert_eq!(before, after, "without --yes nothing is changed");
    repair(site, "--yes").ok();
    let again = repair(site, "").ok();
    assert!(again.stdout.contains("nothing to repair"), "{again:?}");
    let ledger = site.adtally("run logs --config adtally.toml --data-dir data --until-end --final").ok().json();
    assert_eq!(ledger["counted"], expected.report["counted"]);
    expected.check_counts(site);
    site.verify();
    ledger
}

#[test]
fn a_torn_entry_of_the_lake_is_put_aside_and_written_again() {
    let site = Site::new();
    let expected = half_read(&site);
    cut(names(&site, "data/lake/clicks_by_minute/_delta_log")
        .iter()
        .rfind(|path| path.extension().unwrap() == "json")
        .unwrap());
    let ledger = check(&site, &expected, &["would move aside lake/clicks_by_minute/_delta_log/"]);
    check_ledger(&ledger, &expected.report);
}

#[test]
fn a_torn_end_of_the_log_is_put_aside_and_read_again() {
    let site = Site::new();
    let expected = half_read(&site);
    // The lake lacks these epochs: its next commit is a day away.
    site.write("adtally.toml", format!("{KEY}[store]\nlake_interval = \"1d\"\n[epoch]\ninterval = \"100ms\"\n"));
    let records = names(&site, "data/epochs/00000").len();
    let server = site.serve("logs --config adtally.toml");
    server.wait_read(expected.lines());
    site.append("logs/clicks.log", "{}\n");
    server.wait_read(expected.lines() + 1);
    server.kill();
    let after = names(&site, "data/epochs/00000");
    assert!(after.len() > records + 2, "{} records", after.len());
    cut(after.last().unwrap());
    let ledger = check(&site, &expected, &["would move aside epochs/00000/", "is not in the lake"]);
    assert_eq!(ledger["read"], expected.lines() + 1);
    assert_eq!(ledger["invalid"].as_u64(), expected.report["invalid"].as_u64().map(|lines| lines + 1));
}

/// If the lake contains the epoch of a damaged record, its counts replace the record.
#[test]
fn a_damaged_record_that_the_lake_holds_is_made_up_for() {
    let site = Site::new();
    let expected = half_read(&site);
    let records = names(&site, "data/epochs/00000");
    let mut bytes = fs::read(&records[records.len() - 1]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&records[records.len() - 1], bytes).unwrap();
    let ledger = check(&site, &expected, &["would write the epoch log up to 192", "would move aside epochs"]);
    check_rebuilt(&ledger, &expected);
}

#[test]
fn a_lost_log_is_written_anew_from_the_lake() {
    let site = Site::new();
    let expected = half_read(&site);
    fs::remove_dir_all(site.path("data/epochs")).unwrap();
    let ledger = check(&site, &expected, &["would write the epoch log up to 192"]);
    check_rebuilt(&ledger, &expected);
    // It continues like any other.
    let server = site.serve("logs --config adtally.toml");
    wait_for("the lake to be read", || (server.get("/ledger")["counted"] == expected.report["counted"]).then_some(()));
    server.stop();
    site.verify();
}

/// The key that was generated for the data directory is used like a configured one.
#[test]
fn a_lost_log_is_written_anew_with_the_key_that_was_made() {
    let site = Site::new();
    site.adtally("generate --clicks 3000 --rate 100 --output clicks.log").ok();
    site.adtally("run clicks.log --data-dir data --until-end").ok();
    fs::remove_dir_all(site.path("data/epochs")).unwrap();
    let would = site.adtally("repair --data-dir data --json");
    assert_eq!(would.code, Some(3), "{would:?}");
    assert_eq!((&would.json()["damaged"], &would.json()["repaired"]), (&true.into(), &false.into()), "{would:?}");
    let done = site.adtally("repair --data-dir data --yes --json").ok().json();
    assert_eq!((&done["damaged"], &done["repaired"]), (&true.into(), &true.into()), "{done}");
    assert!(done["steps"][0].as_str().unwrap().contains("writing the epoch log"), "{done}");
    let nothing = site.adtally("repair --data-dir data --yes --json").ok().json();
    assert_eq!((&nothing["damaged"], &nothing["steps"]), (&false.into(), &serde_json::json!([])), "{nothing}");
    let ledger = site.adtally("run clicks.log --data-dir data --until-end").ok().json();
    assert_eq!(ledger["counted"], 3_000, "{ledger}");
    site.verify();
}

/// Checks that lines read before the repair are duplicates or late when read again, never counted.
fn check_rebuilt(ledger: &Value, expected: &Expected) {
    let read = ledger["read"].as_u64().unwrap();
    assert!(read > expected.lines(), "{ledger}");
    let gone = ledger["inputs"].as_array().unwrap().iter().find(|row| row["name"] == "(gone)").unwrap();
    assert_eq!(read, expected.lines() + gone["read"].as_u64().unwrap(), "{ledger}");
}

#[test]
fn without_the_key_nothing_is_made_up_and_a_sound_directory_needs_nothing() {
    let site = Site::new();
    let expected = Expected::generate(&site, "whole.log", WORDS);
    site.adtally("run whole.log --data-dir data --until-end --final").ok();
    assert!(site.adtally("repair --data-dir data --yes").ok().stdout.contains("nothing to repair"));
    expected.check_data(&site);
    fs::remove_dir_all(site.path("data/epochs")).unwrap();
    fs::remove_file(site.path("data/identity.key")).unwrap();
    let refused = site.adtally("repair --data-dir data --yes");
    assert_eq!(refused.code, Some(3), "{refused:?}");
    assert!(refused.stderr.contains("identity.key"), "{refused:?}");
    let nowhere = site.adtally("repair --data-dir nowhere");
    assert_eq!(nowhere.code, Some(2), "{nowhere:?}");
}
