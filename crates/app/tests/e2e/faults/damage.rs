//! Records and entries that are torn, empty, bit-flipped or missing.

use super::{check, clicks, files_below, records, until_end};
use crate::site::{Ended, Site};

type Spoil = fn(&[u8]) -> Vec<u8>;

/// Ways in which a disk damages a file.
const SPOILS: [(&str, Spoil); 3] = [
    ("torn", |bytes| bytes[..bytes.len() / 2].to_vec()),
    ("empty", |_| Vec::new()),
    ("flipped", |bytes| bytes.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at == bytes.len() / 3)).collect()),
];

const RUN: &str = "run logs --data-dir data --until-end";

/// A site with 200 clicks counted in a handful of epochs and two lake commits.
fn counted() -> Site {
    let site = Site::new();
    site.write("logs/clicks.log", clicks(0..100));
    until_end(&site);
    site.append("logs/clicks.log", clicks(100..200));
    until_end(&site);
    site
}

/// Checks that a command rejects damaged data with exit code 3 and names it.
fn check_refused(site: &Site, command: &str, name: &str) -> Ended {
    let ended = site.adtally(command);
    assert_eq!(ended.code, Some(3), "{command}: {ended:?}");
    assert!(ended.stdout.contains(name) || ended.stderr.contains(name), "{command}, {name}: {ended:?}");
    ended
}

/// A torn, empty or bit-flipped epoch record is refused by its checksum and named, and nothing is written after it.
#[test]
fn fault_17_a_damaged_record_is_refused() {
    let site = counted();
    site.append("logs/clicks.log", clicks(200..210));
    let before = records(&site);
    for number in [before[0], before[before.len() / 2], before[before.len() - 1]] {
        let path = format!("data/epochs/00000/{number:020}.epoch");
        let whole = site.read(&path);
        for (what, spoil) in SPOILS {
            site.write(&path, spoil(&whole));
            assert_ne!(site.read(&path), whole, "{what}");
            for command in [RUN, "verify --data-dir data", "ledger --data-dir data"] {
                check_refused(&site, command, &format!("{number:020}.epoch"));
            }
            assert_eq!(records(&site), before, "{what} {number}: nothing was written");
        }
        site.write(&path, whole);
    }
    until_end(&site);
    check(&site, &clicks(0..210), &[]);
}

/// A torn or empty entry of a Delta log is detected, whichever it is, and the newest is repaired from the epoch log:
/// never does `verify` call a lake sound that counts otherwise.
#[test]
fn fault_18_a_damaged_entry_of_a_delta_log_is_detected() {
    let site = counted();
    site.append("logs/clicks.log", clicks(200..210));
    let (mut refused, mut mended, mut repaired) = (0, 0, 0);
    for table in ["clicks", "clicks_by_minute", "ledger", "dead_letters"] {
        let entries = files_below(&site, &format!("data/lake/{table}/_delta_log"));
        let entries: Vec<_> = entries.iter().filter(|path| path.ends_with(".json")).collect();
        assert!(entries.len() >= 2, "{entries:?}");
        for path in entries {
            let whole = site.read(path);
            for (what, spoil) in &SPOILS[..2] {
                copy(&site, "data", "aside");
                site.write(path, spoil(&whole));
                assert_ne!(site.read(path), whole);
                let verified = site.adtally("verify --data-dir data");
                let ended = site.adtally(RUN);
                let again = site.adtally("verify --data-dir data");
                if ended.code == Some(0) && again.code == Some(0) {
                    check(&site, &clicks(0..210), &[]);
                    mended += 1;
                } else {
                    assert!(matches!(verified.code, Some(1 | 3)), "{what} {path}: {verified:?}");
                    let said = verified.stdout + &verified.stderr;
                    assert!(said.contains(table), "{what} {path}: {said}");
                    refused += 1;
                    // An entry that others build on is not repaired; otherwise the repair restores its content.
                    if site.adtally("repair --data-dir data --yes").code == Some(0) {
                        until_end(&site);
                        check(&site, &clicks(0..210), &[]);
                        repaired += 1;
                    }
                }
                std::fs::remove_dir_all(site.path("data")).unwrap();
                std::fs::rename(site.path("aside"), site.path("data")).unwrap();
            }
        }
    }
    assert!(refused > 8 && mended + repaired > 0, "{refused} refused, {repaired} repaired, {mended} mended");
    until_end(&site);
    check(&site, &clicks(0..210), &[]);
}

/// Copies a folder of the site.
fn copy(site: &Site, from: &str, to: &str) {
    let copied = std::process::Command::new("cp").arg("-a").args([site.path(from), site.path(to)]).status().unwrap();
    assert!(copied.success());
}

/// When the epoch log is gone and the lake is there, a run stops and says what to do, however often it is started, and
/// makes no log anew.
#[test]
fn fault_47_a_lost_epoch_log_beside_a_lake_is_refused() {
    let site = counted();
    std::fs::rename(site.path("data/epochs"), site.path("aside")).unwrap();
    for _ in 0..3 {
        let ended = check_refused(&site, RUN, "epoch log");
        assert!(ended.stderr.contains("Restore"), "{ended:?}");
        assert_eq!(records(&site), [0; 0]);
    }
    assert_ne!(site.adtally("verify --data-dir data").code, Some(0));
    drop(std::fs::remove_dir_all(site.path("data/epochs")));
    std::fs::rename(site.path("aside"), site.path("data/epochs")).unwrap();
    until_end(&site);
    check(&site, &clicks(0..200), &[]);
}

/// When the newest records are gone and the lake is ahead of the log, a run stops and says what to do, however often it
/// is started: no claim grows into the numbers that the lake holds.
#[test]
fn fault_47_a_log_cut_short_behind_its_lake_is_refused() {
    let site = counted();
    let all = records(&site);
    let newest: Vec<String> = all[all.len() - 2..].iter().map(|number| format!("{number:020}.epoch")).collect();
    for name in &newest {
        std::fs::rename(site.path(&format!("data/epochs/00000/{name}")), site.path(name)).unwrap();
    }
    for _ in 0..5 {
        let ended = check_refused(&site, RUN, "records are missing");
        assert!(ended.stderr.contains("Restore"), "{ended:?}");
        assert_eq!(records(&site), all[..all.len() - 2], "nothing was written");
    }
    check_refused(&site, "verify --data-dir data", "records are missing");
    for name in &newest {
        std::fs::rename(site.path(name), site.path(&format!("data/epochs/00000/{name}"))).unwrap();
    }
    until_end(&site);
    check(&site, &clicks(0..200), &[]);
}
