//! Minutes that are far apart, or too many.

use super::UNREADABLE;
use super::{HOUR, MINUTE, START, check, click, clicks, records, until_end};
use crate::site::{Site, wait_for};

/// The binary, its libraries and 4,096 minutes with a click each.
const MEMORY_MIB_MAX: u64 = 400;

/// Lines in more minutes than are held at a time are late, and said to be, one dead letter each; memory stays bounded.
#[test]
fn fault_55_more_minutes_than_are_held() {
    const MINUTES: i64 = 60_000;
    let site = Site::new();
    let near = clicks(0..40);
    let mut text = near.clone();
    // Nine in ten lines have their own minute, so that no sixteen in a row confirm that time has moved.
    for user in 0..MINUTES {
        text += &click(START + HOUR + (user + 1) * MINUTE, 1_000 + user);
        if user % 10 == 9 {
            text += &click(START + 39_000, 100_000 + user);
        }
    }
    // No line is ahead of the clock.
    const { assert!(START + HOUR + MINUTES * MINUTE < 1_790_000_000_000) };
    site.write("logs/clicks.log", &text);
    let server = site.serve("logs");
    let lines = text.lines().count() as u64;
    let ledger = server.wait_read(lines);
    let held = 4_096 - 1;
    let late = MINUTES as u64 - held;
    assert_eq!((&ledger["late"], &ledger["counted"]), (&late.into(), &(lines - late).into()), "{ledger}");
    assert!(server.memory_mib_max() < MEMORY_MIB_MAX, "{} MiB", server.memory_mib_max());
    server.stop();
    let told = site.sql_value("SELECT count(*) FROM dead_letters WHERE reason LIKE '%too_many_minutes%'");
    assert_eq!(told, late.to_string());
    site.verify();
}

/// One line twenty hours ahead of hundreds of epochs: its minute stays live and a copy of it is recognised, while the
/// records before it are collected and a restart folds few of them.
#[test]
fn fault_56_a_far_line_keeps_the_log_collectable() {
    let site = Site::new();
    let far = click(START + 20 * HOUR, 999_999);
    let text = clicks(0..20) + &far + &clicks(20..700);
    site.write("logs/clicks.log", &text);
    site.write("adtally.toml", "[epoch]\nmax_lines = 1\nfsync = false\n");
    let run = "run logs --config adtally.toml --data-dir data --until-end";
    let ledger = site.adtally(run).ok().json();
    assert_eq!(ledger["late"], 0, "{ledger}");
    // Only a base shows that the far line was counted: its own record is deleted.
    site.append("logs/clicks.log", &far);
    let ledger = site.adtally(run).ok().json();
    assert_eq!((&ledger["duplicate"], &ledger["late"]), (&1.into(), &0.into()), "{ledger}");
    let kept = records(&site);
    let newest = kept[kept.len() - 1];
    assert!(newest > 700, "{newest}");
    // The first, and those from 128 before the latest base on.
    assert!(kept.len() <= 1 + 128 + 64 + 64 && kept[1] > 400, "{} records from {} on", kept.len(), kept[1]);
    check(&site, &text, &[("duplicate", 1)]);
}

/// A file that cannot be read, as on a hung mount, and a day-old file that is dropped in keep no minute of the others
/// open unsaid.
#[test]
fn fault_54_an_unreadable_file_and_a_day_old_one() {
    let site = Site::new();
    site.write("logs/clicks.log", clicks(0..20));
    // It has a size, but is write-only, even for root.
    std::os::unix::fs::symlink(UNREADABLE, site.path("logs/hung.log")).unwrap();
    site.write("adtally.toml", "[epoch]\ninterval = \"100ms\"\n[time]\nidle_timeout = \"1s\"\n");
    let server = site.serve("logs --config adtally.toml");
    server.wait_read(20);
    server.wait_readiness(200, "hung.log");
    site.append("logs/clicks.log", clicks(20..200));
    server.wait_read(200);
    // A file that cannot be opened is waited for as long as an input that cannot be read.
    wait_for("minutes to close", || {
        let closed = server.get("/ledger")["partitions"][0]["closed"].clone();
        closed.as_str().is_some_and(|closed| closed >= "2025-06-02T00:03:00Z").then_some(())
    });
    // A day before: behind the final frontier nothing is counted, and no input waits.
    let old: String = (0..300).map(|user| click(START - 24 * HOUR + user * 1_000, 50_000 + user)).collect();
    site.write("logs/old.log", &old);
    server.wait_read(500);
    site.append("logs/clicks.log", clicks(200..900));
    let ledger = server.wait_read(1_200);
    assert!(ledger["partitions"][0]["closed"].as_str().unwrap() >= "2025-06-02T00:14:00Z", "{ledger}");
    assert_eq!(ledger["late"].as_u64().unwrap() + ledger["counted"].as_u64().unwrap(), 1_200, "{ledger}");
    server.stop();
    std::fs::remove_file(site.path("logs/hung.log")).unwrap();
    let ledger = until_end(&site);
    let late = ledger["late"].as_u64().unwrap();
    assert!(late == 0 || late == 300, "{ledger}");
    check(&site, &(if late == 0 { clicks(0..900) + &old } else { clicks(0..900) }), &[("late", late)]);
}

/// A file that cannot be read makes a bounded run fail; what it did read is closed and none of it final, even with
/// `--final`, and the next run reads the file with nothing of it late.
#[test]
fn fault_62_a_bounded_run_with_a_file_that_it_cannot_read() {
    let site = Site::new();
    site.write("logs/clicks.log", clicks(0..900));
    std::os::unix::fs::symlink(UNREADABLE, site.path("logs/broken.log")).unwrap();
    site.write("adtally.toml", "[time]\nidle_timeout = \"1s\"\n");
    let run = "run logs --config adtally.toml --data-dir data --until-end --final";
    let ended = site.adtally(run);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("broken.log"), "{ended:?}");
    let ledger = ended.json();
    let partition = &ledger["partitions"][0];
    assert_eq!((&ledger["counted"], &partition["final"]), (&900.into(), &serde_json::Value::Null), "{ledger}");
    assert_eq!(partition["closed"], "2025-06-02T00:15:00Z", "{ledger}");
    let ended = site.adtally("count logs/broken.log --config adtally.toml");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    std::fs::remove_file(site.path("logs/broken.log")).unwrap();
    let late: String = (0..900).map(|user| click(START + user * 1_000, 10_000 + user)).collect();
    site.write("logs/broken.log", &late);
    let ledger = site.adtally(run).ok().json();
    assert_eq!((&ledger["counted"], &ledger["late"]), (&1_800.into(), &0.into()), "{ledger}");
    assert_eq!(ledger["partitions"][0]["final"], "2025-06-02T00:15:00Z", "{ledger}");
    check(&site, &(clicks(0..900) + &late), &[]);
}

/// Clicks after a pause, too few for time to be believed, are closed by a bounded run as well, and a later run finds
/// nothing late because of it.
#[test]
fn fault_42_few_clicks_after_a_pause_are_closed_by_a_bounded_run() {
    let site = Site::new();
    let after: String = (0..10).map(|user| click(START + HOUR + user * 1_000, 5_000 + user)).collect();
    site.write("logs/clicks.log", clicks(0..60) + &after);
    let ledger = until_end(&site);
    assert_eq!(ledger["partitions"][0]["closed"], "2025-06-02T01:01:00Z", "{ledger}");
    let between: String = (0..1_000).map(|user| click(START + user * 3_000, 10_000 + user)).collect();
    site.write("logs/more.log", &between);
    let ledger = until_end(&site);
    assert_eq!((&ledger["late"], &ledger["counted"]), (&0.into(), &1_070.into()), "{ledger}");
    let text = clicks(0..60) + &after + &between;
    let run = "run logs --data-dir data --until-end --final";
    assert_eq!(site.adtally(run).ok().json()["partitions"][0]["final"], "2025-06-02T01:01:00Z");
    check(&site, &text, &[]);
}

/// Old files of which one ends long before the other: the one at its end holds up nobody.
#[test]
fn fault_54_old_files_do_not_wait_for_one_that_is_at_its_end() {
    let site = Site::new();
    site.write("logs/a.log", clicks(0..60));
    let longer: String = (0..300).map(|user| click(START + user * 1_000, 10_000 + user)).collect();
    site.write("logs/b.log", &longer);
    // A time long ago.
    let hours_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_767_000_000);
    for name in ["logs/a.log", "logs/b.log"] {
        std::fs::File::options().append(true).open(site.path(name)).unwrap().set_modified(hours_ago).unwrap();
    }
    // By the ordinary rule, it would hold the other up for an hour.
    site.write(
        "adtally.toml",
        "[epoch]\ninterval = \"100ms\"\n[time]\nidle_timeout = \"1h\"\nidle_finality = \"2h\"\n",
    );
    let server = site.serve("logs --config adtally.toml");
    let ledger = server.wait_read(360);
    assert_eq!(ledger["late"], 0, "{ledger}");
    server.stop();
    check(&site, &(clicks(0..60) + &longer), &[]);
}
