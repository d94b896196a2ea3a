//! Files as found in practice: broken, incomplete, deleted, compressed, yesterday's and tomorrow's.

use crate::site::{Site, wait_for};
use serde_json::Value;
use std::fmt::Write;

/// 2025-06-01T23:50:00Z.
const LATE_EVENING: i64 = 1_748_821_800_000;

fn line(at: i64, user: i64) -> String {
    format!(
        "{{\"click_timestamp\":{at},\"ad_id\":{},\"user_id\":{user},\"ip\":\"10.0.0.1\",\"country\":\"US\"}}\n",
        user % 3
    )
}

/// Lines a second apart.
fn lines(from_ms: i64, users: std::ops::Range<i64>) -> String {
    users.map(|user| line(from_ms + user * 1_000, user)).collect()
}

fn check_totals(ledger: &Value, expected: &[(&str, u64)]) {
    for (verdict, lines) in expected {
        assert_eq!(ledger[verdict], *lines, "{verdict} of {ledger}");
    }
}

/// Runs the folder `logs` to its end.
fn until_end(site: &Site) -> Value {
    site.adtally("run logs --data-dir data --until-end").ok().json()
}

#[test]
fn fault_25_and_27_poison_is_set_aside_and_the_rest_counted() {
    let site = Site::new();
    let click = line(LATE_EVENING, 0);
    let mut poison: Vec<u8> = b"\xef\xbb\xbf".to_vec();
    poison.extend(line(LATE_EVENING, 1).replace('\n', "\r\n").bytes());
    poison.extend(b"\0\0\0\0\n\xff\xfe{}\n\r\n\n");
    poison.extend(b"\xef\xbb\xbf{}\n");
    poison.extend(b"{\"click_timestamp\":NaN}\n[]\nnull\n{\"a\":{\"a\":{\"a\":1}}}\n");
    poison.extend(format!("{{\"a\":{}1\n", "[".repeat(30_000)).bytes());
    poison.extend(format!("{}\n", "x".repeat(3_000_000)).bytes());
    poison.extend(line(LATE_EVENING, 2).bytes());
    poison.extend(&click.as_bytes()[..40]);
    site.write("logs/poison.log", &poison);
    site.write("logs/good.log", &click);
    site.write("logs/empty.log", "");
    site.write("logs/zeros.log", vec![0; 300_000]);
    site.write("logs/half.log.gz", b"\x1f\x8b\x08\x00\x00\x00");
    site.write("logs/folder.log/inner.log", line(LATE_EVENING, 99));
    rustix::fs::mknodat(
        rustix::fs::CWD,
        site.path("logs/fifo.log"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
        0,
    )
    .unwrap();
    std::os::unix::fs::symlink("nowhere", site.path("logs/dangling.log")).unwrap();
    let ended = site.words(&["run", "logs/*", "--data-dir", "data", "--until-end"]).ok();
    // Malformed: invalid UTF-8, a BOM in the middle, NaN, a list, null, the deep one, the long one. Invalid: no fields.
    // Trailing NUL bytes are not a line.
    check_totals(&ended.json(), &[("read", 11), ("counted", 3), ("malformed", 7), ("invalid", 1)]);
    assert!(
        ended.stderr.contains("poison.log: its last line has no newline, so 40 bytes are not read"),
        "{}",
        ended.stderr
    );
    for shown in ["poison.log:3: malformed: utf-8", "fifo.log: not a", "folder.log: not a"] {
        assert!(ended.stderr.contains(shown), "{shown}: {}", ended.stderr);
    }
    let payload = "SELECT max(length(encode(payload, 'hex'))) / 2 FROM dead_letters";
    assert_eq!(site.sql_value(payload), "4096", "long payloads are cut");
    site.verify();
    // An incomplete line is completed later.
    site.append("logs/poison.log", &click.as_bytes()[40..]);
    check_totals(&until_end(&site), &[("read", 12), ("counted", 3), ("duplicate", 1), ("malformed", 7)]);
}

/// A file made tomorrow must not be late for what was closed, nor a half line be lost or counted in halves.
#[test]
fn fault_44_day_one_ends_in_the_midst_of_a_line_and_day_two_goes_on() {
    let site = Site::new();
    let day_one = lines(LATE_EVENING, 0..602);
    let (whole, half) = day_one.split_at(day_one.len() - 31);
    // Rotated two seconds after midnight.
    site.write("logs/clicks.log.1", whole);
    check_totals(&until_end(&site), &[("read", 601), ("counted", 601)]);
    site.append("logs/clicks.log.1", half);
    site.write("logs/clicks.log", lines(LATE_EVENING, 602..2_000));
    let ledger = until_end(&site);
    check_totals(&ledger, &[("read", 2_000), ("counted", 2_000), ("late", 0), ("gap_bytes", 0)]);
    assert_eq!(site.sql_value("SELECT sum(clicks) FROM clicks_by_minute"), "2000");
    site.verify();
}

#[test]
fn an_unterminated_last_line_is_taken_when_it_is_whole() {
    let site = Site::new();
    site.write("logs/whole.log", lines(LATE_EVENING, 0..2).trim_end());
    check_totals(&until_end(&site), &[("read", 2), ("counted", 2)]);
    // Its newline comes later, and another line.
    site.append("logs/whole.log", format!("\n{}", line(LATE_EVENING, 2)));
    check_totals(&until_end(&site), &[("read", 3), ("counted", 3), ("malformed", 0)]);
    assert_eq!(site.ledger()["inputs"][0]["position"], site.read("logs/whole.log").len() as u64);
}

#[test]
fn fault_30_compressing_a_file_that_was_read_reads_nothing_again() {
    let site = Site::new();
    site.write("logs/a.log", lines(LATE_EVENING, 0..500));
    site.write("logs/b.log", lines(LATE_EVENING, 500..900));
    check_totals(&until_end(&site), &[("read", 900)]);
    site.gzip("logs/a.log");
    std::fs::rename(site.path("logs/b.log"), site.path("logs/renamed.log")).unwrap();
    check_totals(&until_end(&site), &[("read", 900), ("counted", 900), ("duplicate", 0)]);
    // The same with a running process, a file that arrives compressed and one that is compressed half read.
    let server = site.serve("logs");
    site.write("more.log", lines(LATE_EVENING, 900..1_000));
    site.gzip("more.log");
    std::fs::rename(site.path("more.log.gz"), site.path("logs/more.log.gz")).unwrap();
    server.wait_read(1_000);
    site.append("logs/renamed.log", lines(LATE_EVENING, 1_000..1_100));
    server.wait_read(1_100);
    site.gzip("logs/renamed.log");
    site.write("logs/last.log", lines(LATE_EVENING, 1_100..1_101));
    check_totals(&server.wait_read(1_101), &[("counted", 1_101), ("duplicate", 0), ("gap_bytes", 0)]);
    server.stop();
    check_totals(&until_end(&site), &[("read", 1_101), ("counted", 1_101)]);
    site.verify();
}

/// What was never read is not silently forgotten.
#[test]
fn fault_45_a_file_deleted_half_read_while_stopped_is_a_gap() {
    let site = Site::new();
    site.write("adtally.toml", "[time]\nidle_timeout = \"1h\"\n[epoch]\ninterval = \"100ms\"\n");
    // The long file is an hour long, and waits for the slow one, which stays at its beginning.
    site.write("logs/slow.log", lines(LATE_EVENING, 0..20));
    site.write("logs/long.log", (20..3_600).map(|user| line(LATE_EVENING + user * 1_000, user)).collect::<String>());
    let size = site.read("logs/long.log").len() as u64;
    let long = |ledger: &Value| {
        let mut rows = ledger["inputs"].as_array().unwrap().iter();
        rows.find(|row| row["name"].as_str().unwrap().ends_with("long.log")).cloned().unwrap_or_default()
    };
    let server = site.serve("logs --config adtally.toml");
    wait_for("the part that need not wait", || (server.get("/ledger")["read"].as_u64()? > 60).then_some(()));
    server.kill();
    let before = site.ledger();
    let position = long(&before)["position"].as_u64().unwrap();
    assert!((1..size).contains(&position), "{before}");
    std::fs::remove_file(site.path("logs/long.log")).unwrap();
    let server = site.serve("logs --config adtally.toml");
    let gap = size - position;
    let ledger = wait_for("the gap", || Some(server.get("/ledger")).filter(|ledger| ledger["gap_bytes"] != 0));
    assert_eq!((&ledger["gap_bytes"], &long(&ledger)["gap_bytes"]), (&gap.into(), &gap.into()), "{ledger}");
    check_totals(&ledger, &[("read", before["read"].as_u64().unwrap())]);
    // Reported for as long as the ledger contains it.
    let told = format!("{gap} bytes could never be read");
    wait_for("a note", || server.text("/readyz").1.contains(&told).then_some(()));
    assert!(server.text("/metrics").1.contains(&format!("gap_bytes_total {gap}")));
    // Other inputs continue.
    site.append("logs/slow.log", lines(LATE_EVENING, 20..40));
    server.wait_read(before["read"].as_u64().unwrap() + 20);
    server.stop();
    assert_eq!(site.ledger()["gap_bytes"], gap);
    let ended = site.adtally("run logs --data-dir data --until-end").ok();
    assert!(ended.stderr.contains(&thousands(gap)) && ended.stderr.contains("could never be read"), "{ended:?}");
    assert!(site.adtally("verify --data-dir data").ok().stdout.contains("could never be read"));
}

/// `1234567` as `1,234,567`.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap()).collect();
    groups.join(",")
}

/// An incomplete last line is part of the gap.
#[test]
fn a_half_line_deleted_while_stopped_is_a_gap() {
    let site = Site::new();
    let text = lines(LATE_EVENING, 0..20);
    site.write("logs/clicks.log", &text[..text.len() - 30]);
    site.write("logs/other.log", line(LATE_EVENING, 100));
    let server = site.serve("logs");
    let position = server.wait_read(20)["inputs"][0]["position"].as_u64().unwrap();
    server.stop();
    std::fs::remove_file(site.path("logs/clicks.log")).unwrap();
    let server = site.serve("logs");
    let ledger = wait_for("the gap", || Some(server.get("/ledger")).filter(|ledger| ledger["gap_bytes"] != 0));
    assert_eq!(ledger["gap_bytes"], text.len() as u64 - 30 - position);
}

/// The half line is completed, the file is truncated in place, and another grows under the name.
#[test]
fn half_lines_truncation_and_new_files_under_a_running_process() {
    let site = Site::new();
    site.write("logs/clicks.log", "");
    let server = site.serve("logs/*.log");
    let first = lines(LATE_EVENING, 0..100);
    let (whole, half) = first.split_at(first.len() - 20);
    site.append("logs/clicks.log", whole);
    server.wait_read(99);
    site.append("logs/clicks.log", half);
    server.wait_read(100);
    // copytruncate: shorter than before, so that it is detected.
    std::fs::File::options().write(true).truncate(true).open(site.path("logs/clicks.log")).unwrap();
    site.append("logs/clicks.log", lines(LATE_EVENING, 100..130));
    server.wait_read(130);
    site.write("logs/other.log", lines(LATE_EVENING, 130..150));
    server.wait_read(150);
    site.write("logs/ignored.txt", lines(LATE_EVENING, 150..160));
    site.append("logs/other.log", line(LATE_EVENING, 160));
    let ledger = server.wait_read(151);
    check_totals(&ledger, &[("counted", 151), ("duplicate", 0), ("late", 0), ("gap_bytes", 0)]);
    server.stop();
    site.verify();
}

/// One far line ahead of its neighbours, first or in the midst, is counted and makes nothing late.
#[test]
fn fault_21_and_42_and_51_one_wrong_clock_makes_nothing_late() {
    const FAR: i64 = 20 * 3_600_000;
    let site = Site::new();
    let mut text = line(LATE_EVENING + FAR, 9_000);
    for user in 0..1_500 {
        text += &line(LATE_EVENING + user * 1_000, user);
        if user == 700 {
            write!(text, "{}", line(LATE_EVENING + FAR + 1, 9_001)).unwrap();
        }
    }
    // Ten years ahead of any clock: this makes nothing late either.
    text += &line(4_000_000_000_000, 9_002);
    text += &line(LATE_EVENING + 1_500_000, 1_500);
    site.write("logs/clicks.log", text);
    check_totals(&until_end(&site), &[("read", 1_504), ("counted", 1_503), ("late", 0), ("future", 1)]);
    site.verify();
}

/// The gauges of reading show open files and the text that may be read ahead.
#[test]
fn the_gauges_of_reading_follow_what_is_read() {
    let site = Site::new();
    std::fs::create_dir(site.path("logs")).unwrap();
    let server = site.serve("logs");
    let gauge = |name: &str| {
        let said = server.text("/metrics").1;
        let value = said.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
        value.unwrap_or_else(|| panic!("no {name} in {said}"))
    };
    assert_eq!(gauge("adtally_open_files "), 0.0);
    site.write("logs/a.log", lines(LATE_EVENING, 0..10));
    site.write("logs/b.log", lines(LATE_EVENING, 10..20));
    server.wait_read(20);
    wait_for("two open files", || (gauge("adtally_open_files ") == 2.0).then_some(()));
    assert_eq!(gauge("adtally_queue_capacity{queue=\"read_ahead_bytes\"} "), f64::from(24 << 20));
    assert_eq!(gauge("adtally_queue_depth{queue=\"read_ahead_bytes\"} "), 0.0);
    server.stop();
}
