//! Data directories of earlier formats: they open, verify, answer as in their version, and can be continued, wherever
//! the first continuing process dies.

use crate::faults::{SECOND, START, check, click, clicks, until_end};
use crate::site::{Site, end};
use adtally_store::fail_points::{COLUMNS_ADDED, FAIL_POINTS};
use std::path::Path;
use std::process::Command;

/// Number of clicks in the log that each directory has read.
const CLICKS: i64 = 3_000;

/// Number of additional clicks.
const MORE: i64 = 200;

/// Unpacks a directory and its log into a site.
fn unpacked(name: &str) -> Site {
    let site = Site::new();
    let packed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let tar = zstd::decode_all(&*std::fs::read(packed).unwrap()).unwrap();
    site.write("golden.tar", tar);
    let status = Command::new("tar").current_dir(site.path("")).args(["xf", "golden.tar"]).status().unwrap();
    assert!(status.success(), "tar: {status}");
    site
}

/// The format version of a record.
fn format_of(site: &Site, number: u64) -> u16 {
    let record = site.read(&format!("data/epochs/00000/{number:020}.epoch"));
    u16::from_le_bytes(record[8..10].try_into().unwrap())
}

/// The newest record.
fn newest(site: &Site) -> u64 {
    let entries = std::fs::read_dir(site.path("data/epochs/00000")).unwrap();
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    entries.filter_map(|entry| name(entry).strip_suffix(".epoch")?.parse().ok()).max().unwrap()
}

/// Lines that are not counted.
const OTHERS: [(&str, u64); 2] = [("duplicate", 1), ("malformed", 1)];

#[test]
fn a_directory_of_format_1_verifies_answers_and_goes_on() {
    let site = unpacked("format-1.tar.zst");
    let before = newest(&site);
    assert_eq!(format_of(&site, before), 1);
    check(&site, &clicks(0..CLICKS), &OTHERS);
    assert_eq!(format_of(&site, newest(&site)), 1, "reading changes nothing");

    // A process with nothing to read answers from it.
    let server = site.serve("logs");
    let span = "from=2025-06-02T00:00:00Z&to=2025-06-02T00:50:00Z";
    for ad in 0..7 {
        let expected = (0..CLICKS).filter(|user| user % 7 == ad).count();
        assert_eq!(server.get(&format!("/ads/{ad}/clicks?{span}"))["clicks"], expected, "ad {ad}");
    }
    assert_eq!(server.get(&format!("/ads/3/clicks?{span}&filter_user_id=10"))["clicks"], 1);
    server.stop();
    assert_eq!((format_of(&site, before), format_of(&site, before + 1)), (1, 2));

    site.append("logs/clicks.log", clicks(CLICKS..CLICKS + MORE));
    until_end(&site);
    check(&site, &clicks(0..CLICKS + MORE), &OTHERS);
    // Dead letters have columns that the old version lacked.
    site.append("logs/clicks.log", click(START - 3_600 * SECOND, 5));
    until_end(&site);
    let new = "verdict = 'late' AND ad_id = 5 AND user_id = '5' AND country = 'US' AND watermark > click_timestamp";
    for letters in [new, "verdict = 'malformed' AND ad_id IS NULL AND watermark IS NULL"] {
        assert_eq!(site.sql_value(&format!("SELECT count(*) FROM dead_letters WHERE {letters}")), "1", "{letters}");
    }
    // A copy of a click that the old version counted is recognised.
    site.append("logs/clicks.log", click(START + (CLICKS - 1) * SECOND, CLICKS - 1));
    let ledger = until_end(&site);
    assert_eq!((&ledger["duplicate"], &ledger["late"]), (&2.into(), &1.into()), "{ledger}");
}

#[test]
fn a_directory_of_format_1_survives_death_at_every_step_of_going_on() {
    for point in FAIL_POINTS.into_iter().chain([COLUMNS_ADDED]) {
        for passed in [0, 2] {
            let site = unpacked("format-1.tar.zst");
            site.append("logs/clicks.log", clicks(CLICKS..CLICKS + MORE));
            let mut command = site.program();
            command.args(["run", "logs", "--data-dir", "data", "--until-end"]);
            command.envs([("ADTALLY_EPOCH__MAX_LINES", "40"), ("ADTALLY_EPOCH__FSYNC", "false")]);
            command.env("FAILPOINTS", format!("{point}={passed}*off->return"));
            let died = end(command).code.is_none();
            // The log is too young to delete records, and everything is projected at once.
            assert!(died || passed > 0 || point == "while_collecting", "nobody came to {point}");
            until_end(&site);
            check(&site, &clicks(0..CLICKS + MORE), &OTHERS);
        }
    }
}
