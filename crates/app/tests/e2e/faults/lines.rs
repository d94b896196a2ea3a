//! Lines that are late, duplicates, far ahead, too long or not lines at all.

use super::{HOUR, SECOND, START, check, click, clicks, records, until_end};
use crate::site::{Site, end, wait_for};
use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write;

/// Far more than reading needs, far less than the line: the binary with its libraries, buffers, a block per thread.
const MEMORY_MIB_MAX: u64 = 300;

/// Clicks that come after their minute became final are late, one dead letter each, and change no count.
#[test]
fn fault_23_late_clicks_are_set_aside_whole() {
    let site = Site::new();
    site.write("logs/clicks.log", clicks(0..1_200));
    until_end(&site);
    // The same minutes again with other users, shuffled: final minutes reject them, others accept them.
    let late: Vec<i64> = (0..200).map(|step| step * 77 % 200).collect();
    let shuffled: String = late.iter().map(|&second| click(START + (500 + second) * SECOND, 5_000 + second)).collect();
    let new: String = late.iter().map(|&second| click(START + (1_000 + second) * SECOND, 6_000 + second)).collect();
    site.append("logs/clicks.log", shuffled.clone() + &new);
    until_end(&site);
    check(&site, &(clicks(0..1_200) + &new), &[("late", 200)]);
    let kept = site.sql("SELECT encode(payload, 'hex') FROM dead_letters WHERE verdict = 'late'");
    let hex = |line: &str| line.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    let (kept, expected): (BTreeSet<_>, BTreeSet<_>) =
        (kept.lines().skip(1).map(str::to_owned).collect(), shuffled.lines().map(hex).collect());
    assert_eq!(kept, expected, "whole lines");
    let minutes = site.sql_value("SELECT count(DISTINCT click_timestamp) FROM dead_letters WHERE verdict = 'late'");
    assert_eq!(minutes, "200");
}

/// Copies are recognised in the same file, in another one, after a kill and after a restart, up to the edge of the
/// horizon, and beyond it they are late: counted never twice.
#[test]
fn fault_24_copies_are_counted_once_across_restarts() {
    let site = Site::new();
    let text = clicks(0..600);
    site.write("logs/a.log", text.clone() + &clicks(500..600));
    site.write("adtally.toml", "[epoch]\ninterval = \"100ms\"\n[time]\nidle_finality = \"1d\"\n");
    let server = site.serve("logs --config adtally.toml");
    server.wait_read(700);
    site.write("logs/b.log", &text);
    server.wait_read(1_300);
    server.kill();
    site.write("logs/c.log", clicks(300..600));
    until_end(&site);
    check(&site, &text, &[("duplicate", 1_000)]);
    // Two hours later, the same lines are behind the horizon.
    site.append("logs/a.log", (0..40).map(|user| click(START + 2 * HOUR + user, 10_000 + user)).collect::<String>());
    site.append("logs/a.log", (40..80).map(|user| click(START + 2 * HOUR + user, 10_000 + user)).collect::<String>());
    until_end(&site);
    site.write("logs/d.log", &text);
    let ledger = until_end(&site);
    assert_eq!((&ledger["counted"], &ledger["duplicate"], &ledger["late"]), (&680.into(), &1_000.into(), &600.into()));
    site.verify();
}

/// A line of a gigabyte without a newline is one malformed line: it is skipped in bounded memory, and the lines around
/// it are counted.
#[test]
fn fault_26_a_line_of_a_gigabyte_is_skipped_in_bounded_memory() {
    const LINE: u64 = 1 << 30;
    let site = Site::new();
    site.write("logs/clicks.log", clicks(0..20));
    let server = site.serve("logs");
    server.wait_read(20);
    let mut file = OpenOptions::new().append(true).open(site.path("logs/clicks.log")).unwrap();
    // Written in full: NUL bytes, which a sparse file would have, are not part of a line.
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..LINE / piece.len() as u64 {
        file.write_all(&piece).unwrap();
    }
    file.write_all(b"\n").unwrap();
    file.write_all(clicks(20..40).as_bytes()).unwrap();
    assert!(std::fs::metadata(site.path("logs/clicks.log")).unwrap().len() > LINE);
    server.wait_read(41);
    assert!(server.memory_mib_max() < MEMORY_MIB_MAX, "{} MiB", server.memory_mib_max());
    server.stop();
    check(&site, &clicks(0..40), &[("malformed", 1)]);
}

/// Bad UTF-8 and a byte-order mark in the midst are malformed; a byte-order mark at the beginning, CRLF and NULs before
/// the end of a line are not; half a last line waits for its end.
#[test]
fn fault_27_bytes_that_are_no_text_and_half_a_last_line() {
    let site = Site::new();
    let last = click(START + 30 * SECOND, 30);
    let (half, rest) = last.split_at(40);
    let mut text = b"\xef\xbb\xbf".to_vec();
    text.extend(clicks(0..20).replace('\n', "\r\n").bytes());
    text.extend(b"\xff\xfe\n\0\0\0\n\xef\xbb\xbf{}\n");
    text.extend(b"{\"user_id\":\"\xc3\"}\n");
    text.extend(half.bytes());
    site.write("logs/clicks.log", &text);
    let server = site.serve("logs");
    let ledger = server.wait_read(23);
    let position = ledger["inputs"][0]["position"].as_u64().unwrap();
    assert_eq!(position, (text.len() - half.len()) as u64, "half a line is not read: {ledger}");
    site.append("logs/clicks.log", rest);
    server.wait_read(24);
    server.stop();
    check(&site, &(clicks(0..20) + &last), &[("malformed", 3)]);
}

/// A day-old file that is dropped into an idle deployment, from which nothing was read yet, is counted and not late.
#[test]
fn fault_43_an_old_file_dropped_into_an_idle_empty_deployment_is_counted() {
    let site = Site::new();
    std::fs::create_dir_all(site.path("logs")).unwrap();
    site.write(
        "adtally.toml",
        "[time]\nidle_timeout = \"1s\"\nidle_finality = \"1s\"\n[epoch]\ninterval = \"100ms\"\n",
    );
    let server = site.serve("logs --config adtally.toml");
    // Idle for longer than `idle_finality`.
    std::thread::sleep(std::time::Duration::from_millis(2_500));
    site.write("logs/old.log", clicks(0..600));
    server.wait_read(600);
    // Then another old file, after the clock has made the last minutes final.
    wait_for("the last minute to be final", || {
        server.get("/ledger")["partitions"][0]["final"]
            .as_str()
            .is_some_and(|at| at >= "2025-06-02T00:09")
            .then_some(())
    });
    site.write("logs/next.log", clicks(600..1_200));
    server.wait_read(1_200);
    server.stop();
    check(&site, &clicks(0..1_200), &[]);
}

/// Settings that are changed between runs, lateness up and horizon down, reopen no final minute.
#[test]
fn fault_46_changed_settings_reopen_no_final_minute() {
    let site = Site::new();
    let run = |config: &str| {
        site.write("adtally.toml", config);
        site.adtally("run logs --config adtally.toml --data-dir data --until-end").ok().json()
    };
    site.write("logs/clicks.log", clicks(0..1_200));
    let before = run("");
    let finals = |ledger: &serde_json::Value| ledger["partitions"][0]["final"].as_str().unwrap().to_owned();
    assert_eq!(finals(&before), "2025-06-02T00:14:54Z", "{before}");
    // New users in final minutes, and copies of lines that were counted there.
    site.append(
        "logs/clicks.log",
        (0..100).map(|user| click(START + (700 + user) * SECOND, 7_000 + user)).collect::<String>(),
    );
    let patient = run("[time]\nallowed_lateness = \"6h\"\ndedup_horizon = \"6h\"\n");
    assert_eq!((&patient["late"], finals(&patient)), (&100.into(), finals(&before)), "{patient}");
    site.append("logs/clicks.log", clicks(0..100));
    let strict = run("[time]\nallowed_lateness = \"1m\"\ndedup_horizon = \"1m\"\n");
    assert!(finals(&strict) > finals(&before), "{strict}");
    site.append("logs/clicks.log", clicks(900..1_000));
    let normal = run("");
    assert!(finals(&normal) >= finals(&strict), "{normal}");
    let (late, copies) = (normal["late"].as_u64().unwrap(), normal["duplicate"].as_u64().unwrap());
    assert_eq!(late + copies, 300, "{normal}");
    check(&site, &clicks(0..1_200), &[("late", late), ("duplicate", copies)]);
}

/// Hours of lines that are late or rejected, none of them counted, still make epochs: after a kill none of them is read
/// again.
#[test]
fn fault_57_lines_of_which_none_is_counted_are_committed() {
    let site = Site::new();
    site.write("logs/clicks.log", clicks(0..100));
    site.adtally("run logs --data-dir data --until-end --final").ok();
    site.write("adtally.toml", "[epoch]\ninterval = \"100ms\"\nmax_lines = 50\n");
    let before = records(&site).len();
    let mut old: String = (0..500).map(|user| click(START - HOUR + user * 20, 1_000 + user)).collect();
    old += &"no click\n".repeat(250);
    old += &"{\"ad_id\":1}\n".repeat(250);
    site.write("logs/old.log", &old);
    let server = site.serve("logs --config adtally.toml");
    let ledger = server.wait_read(1_100);
    server.kill();
    assert!(records(&site).len() >= before + 8, "{before}, then {}", records(&site).len());
    let position = |ledger: &serde_json::Value| {
        let rows = ledger["inputs"].as_array().unwrap();
        rows.iter().find(|row| row["name"].as_str().unwrap().ends_with("old.log")).unwrap()["position"].clone()
    };
    assert_eq!(position(&ledger), old.len() as u64);
    assert_eq!(position(&site.ledger()), old.len() as u64, "the position survives the kill");
    let mut command = site.program();
    command.args(["run", "logs", "--data-dir", "data", "--until-end"]);
    let ended = end(command).ok();
    assert!(ended.stderr.contains("this run read 0 lines") || ended.json()["read"] == 1_100, "{ended:?}");
    check(&site, &clicks(0..100), &[("late", 500), ("malformed", 250), ("invalid", 250)]);
}

/// Lines ten years ahead and more are `future`, however many agree, and move no watermark.
#[test]
fn fault_21_a_line_ten_years_ahead_is_future() {
    let site = Site::new();
    // Ten years ahead of any clock that runs this, and the last time that can be represented as a date.
    let far: String = (0..40).map(|user| click(4_000_000_000_000 + user, 50 + user)).collect();
    site.write("logs/clicks.log", clicks(0..100) + &far + &clicks(100..200));
    until_end(&site);
    let ledger = check(&site, &clicks(0..200), &[("future", 40)]);
    assert_eq!(ledger["partitions"][0]["closed"], "2025-06-02T00:04:00Z", "the minute of the newest click: {ledger}");
}
