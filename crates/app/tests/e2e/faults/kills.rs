//! The process dies at each of its fail points, and the next one recovers.

use super::{SECOND, START, check, click, clicks, files_below, records, until_end};
use crate::site::{Site, end, wait_for};
use adtally_store::fail_points::FAIL_POINTS;
use std::collections::BTreeSet;
use std::path::Path;

/// Small epochs, so that a run has many. Syncs are not needed, since only the process dies.
const SMALL: [(&str, &str); 2] = [("ADTALLY_EPOCH__MAX_LINES", "40"), ("ADTALLY_EPOCH__FSYNC", "false")];

/// Runs the folder `logs` until the process dies at a fail point.
fn die(site: &Site, points: &str) {
    assert!(may_die(site, points), "nobody came to {points}");
}

/// Runs the folder `logs`; returns whether the process died at a fail point.
fn may_die(site: &Site, points: &str) -> bool {
    let mut command = site.program();
    command.args(["run", "logs", "--data-dir", "data", "--until-end"]).envs(SMALL).env("FAILPOINTS", points);
    let ended = end(command);
    assert!(matches!(ended.code, None | Some(0)), "{points}: {ended:?}");
    ended.code.is_none()
}

/// The output of `verify` for a sound data directory.
fn verified(site: &Site) -> String {
    site.adtally("verify --data-dir data").ok().stdout
}

/// The files staged in the lake's table of clicks.
fn staged(site: &Site) -> BTreeSet<String> {
    let files = files_below(site, "data/lake/clicks").into_iter();
    files.filter(|path| path.ends_with(".parquet") && !path.contains("_delta_log")).collect()
}

/// A process that dies before it creates an epoch's record has committed nothing of it, and the next one reads the same
/// lines again.
#[test]
fn fault_01_killed_before_the_record_is_created() {
    for (point, passed) in [("before_stage", 0), ("after_stage", 1), ("before_record", 3)] {
        let site = Site::new();
        let text = clicks(0..200);
        site.write("logs/clicks.log", &text);
        die(&site, &format!("{point}={passed}*off->return"));
        let committed: Vec<u64> = (1..=1 + passed).collect();
        assert_eq!(records(&site), committed, "{point}");
        assert!(site.ledger()["read"].as_u64().unwrap() <= passed * 40, "{point}");
        until_end(&site);
        check(&site, &text, &[]);
    }
}

/// A process that hangs before it creates an epoch's record and dies there has shown nothing of the epoch to anybody,
/// and the lake has nothing of it.
#[test]
fn fault_01_killed_while_it_hangs_before_the_record() {
    let site = Site::new();
    let text = clicks(0..200);
    site.write("logs/clicks.log", &text);
    site.write("adtally.toml", "[epoch]\nmax_lines = 40\n[store]\nlake_interval = \"1s\"\n");
    let server = site.serve_with("logs --config adtally.toml", &[("FAILPOINTS", "before_record=3*off->pause")]);
    server.wait_read(120);
    // Longer than the lake needs for the epochs that it may get.
    std::thread::sleep(std::time::Duration::from_millis(2_500));
    assert_eq!(server.get("/ledger")["read"], 120);
    server.kill();
    assert_eq!(records(&site), [1, 2, 3, 4]);
    let held = site.sql_value("SELECT max(epoch) FROM ledger");
    assert_eq!(held, "4", "the lake goes as far as the log");
    until_end(&site);
    check(&site, &text, &[]);
}

/// A process that dies while it writes a record leaves a temporary name, which is no record and is swept by the next
/// start.
#[test]
fn fault_02_killed_while_a_record_is_written() {
    let site = Site::new();
    let text = clicks(0..200);
    // After the lake's tables exist.
    site.write("logs/clicks.log", clicks(0..20));
    until_end(&site);
    site.write("logs/clicks.log", &text);
    let mut left = BTreeSet::new();
    let mut deaths = 0;
    while may_die(&site, &format!("record_temporary_written={deaths}*off->return")) {
        let temporary: Vec<String> = files_below(&site, "data")
            .into_iter()
            .filter(|path| path.contains('#') && !path.contains(".parquet"))
            .collect();
        // Another thread may have been about to remove its own file.
        let torn: Vec<&str> = temporary.iter().map(|path| path.rsplit_once('#').unwrap().0).collect();
        let torn: Vec<&&str> = torn.iter().filter(|name| !site.path(name).exists()).collect();
        assert!(!torn.is_empty(), "after {deaths} deaths: {temporary:?}");
        left.extend(torn.iter().map(|name| Path::new(name).extension().unwrap().to_owned()));
        deaths += 1;
    }
    assert!(deaths >= 5, "{deaths} deaths");
    assert_eq!(left.into_iter().collect::<Vec<_>>(), ["epoch", "json"], "records of the epoch log and of Delta logs");
    until_end(&site);
    assert!(!files_below(&site, "data").iter().any(|path| path.contains('#')), "the temporary files are swept");
    check(&site, &text, &[]);
}

/// Files staged for an epoch that was never committed are orphans: they stay on the disk and are counted by nobody.
#[test]
fn fault_04_killed_between_staging_and_the_record() {
    let site = Site::new();
    let text = clicks(0..200);
    site.write("logs/clicks.log", &text);
    die(&site, "after_stage=2*off->return");
    assert_eq!(records(&site), [1, 2, 3]);
    let orphans: Vec<String> = staged(&site).into_iter().filter(|path| path.contains("/0-0000000004-")).collect();
    assert_eq!(orphans.len(), 1, "{orphans:?}");
    until_end(&site);
    assert!(staged(&site).contains(&orphans[0]), "it is still there");
    check(&site, &text, &[]);
    let path = orphans[0].trim_start_matches("data/lake/clicks/");
    let named = files_below(&site, "data/lake/clicks/_delta_log")
        .iter()
        .any(|entry| entry.ends_with(".json") && String::from_utf8_lossy(&site.read(entry)).contains(path));
    assert!(!named, "no commit names {path}");
}

/// A process that dies between the record and the lake, or between two of its tables, leaves a lake that the next one
/// brings level, each epoch once.
#[test]
fn fault_05_and_34_killed_between_the_record_and_the_lake() {
    for (points, level) in [
        ("before_projection=return", true),
        ("between_tables=return", false),
        ("between_tables=1*off->return", false),
        ("between_tables=2*off->return", false),
        // The first projection has only the claim; the second has clicks.
        ("between_tables=4*off->return", false),
        ("between_tables=5*off->return", false),
        ("between_tables=6*off->return", false),
        ("after_projection=return", true),
    ] {
        let site = Site::new();
        let text = clicks(0..200);
        site.write("logs/clicks.log", &text);
        die(&site, points);
        assert!(!records(&site).is_empty(), "{points}");
        assert_eq!(!verified(&site).contains("the next run updates it"), level, "{points}");
        until_end(&site);
        check(&site, &text, &[]);
        assert!(!verified(&site).contains("the next run updates it"), "{points}");
    }
}

/// A process that dies before or while it collects old records leaves a log that still folds to the same state.
#[test]
fn fault_05_killed_before_and_while_records_are_collected() {
    let site = Site::new();
    let text = clicks(0..400);
    site.write("logs/clicks.log", &text);
    // The lake does not advance while 400 epochs are committed.
    let mut command = site.program();
    command.args(["run", "logs", "--data-dir", "data", "--until-end"]).envs(SMALL);
    command.env("ADTALLY_EPOCH__MAX_LINES", "1").env("FAILPOINTS", "before_projection=pause");
    let mut child = command.stderr(std::process::Stdio::null()).stdout(std::process::Stdio::null()).spawn().unwrap();
    wait_for("400 epochs", || (records(&site).len() > 400).then_some(()));
    child.kill().unwrap();
    child.wait().unwrap();
    let all = records(&site);
    die(&site, "before_collect=return");
    assert_eq!(records(&site)[..all.len()], all, "nothing is collected yet");
    // The next epochs determine which records are no longer needed.
    site.append("logs/clicks.log", clicks(400..500));
    die(&site, "while_collecting=4*off->return");
    let left = records(&site);
    assert_eq!(left[..3], [1, 7, 8], "five records are gone, in ascending order");
    until_end(&site);
    assert!(records(&site)[1] > 100, "the rest is collected: {:?}", records(&site));
    check(&site, &clicks(0..500), &[]);
}

/// Whichever fail point a process dies at, time after time over a growing log, everything is counted once.
#[test]
fn fault_01_and_02_and_04_and_05_killed_at_every_fail_point_in_turn() {
    let site = Site::new();
    let mut text = String::new();
    let mut died = Vec::new();
    for (round, point) in (0..).zip(FAIL_POINTS.iter().chain(&FAIL_POINTS)) {
        // In each round some lines are new, and some are copies of earlier ones.
        let new = clicks(round * 50..round * 50 + 60);
        std::fs::create_dir_all(site.path("logs")).unwrap();
        site.append("logs/clicks.log", &new);
        text += &new;
        // A young log has no records to delete.
        if *point != "while_collecting" {
            die(&site, &format!("{point}=1*off->return"));
            died.push(*point);
        }
    }
    assert_eq!(died.len(), 2 * (FAIL_POINTS.len() - 1));
    until_end(&site);
    let copies = text.lines().count() as u64 - 50 * 20 - 10;
    check(&site, &text, &[("duplicate", copies)]);
    // Lines that arrived in the meantime are not late.
    site.append("logs/clicks.log", click(START + 2_000 * SECOND, 9_999));
    assert_eq!(until_end(&site)["late"], 0);
}
