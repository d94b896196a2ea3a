//! Lines that are taken in after their minutes were final: rejected lines that are decoded again, and files that are brought
//! in. Each of their clicks counts once, through kills, in whatever order.

use crate::faults::{START, click};
use crate::reconcile::{check_answers, check_stored, reconcile};
use crate::site::{Site, end};
use adtally_store::fail_points::FAIL_POINTS;
use serde_json::{Value, json};
use std::fmt::Write;
use std::os::unix::fs::PermissionsExt;

const SECOND: i64 = 1_000;

/// A name of a field that the default mapping does not know.
const MENDED: &str = "[input.fields]\nad_id = \"advert\"\n";

fn json_of(site: &Site, words: &str) -> Value {
    site.adtally(&format!("{words} --data-dir data --json")).ok().json()
}

fn intake(read: u64, recovered: u64, duplicate: u64, rejected: u64, waiting: u64) -> Value {
    json!({
        "read": read, "recovered": recovered, "duplicate": duplicate, "rejected": rejected, "expired": 0, "waiting": waiting,
    })
}

/// Clicks of an hour in one log, and of the same hour in two logs that name the ad differently.
struct Misnamed {
    site: Site,
    /// The lines of the log that was read.
    good: String,
    /// Those of the other logs, as they should have been.
    misnamed: String,
}

impl Misnamed {
    fn new() -> Misnamed {
        let site = Site::new();
        let users =
            |from: i64, to: i64| -> String { (from..to).map(|user| click(START + user * SECOND, user)).collect() };
        let (good, copied) = (users(0, 3_600), users(0, 50));
        let lost: String = (0..500).map(|at| click(START + at * SECOND + 7, 10_000 + at)).collect();
        site.write("logs/good.log", &good);
        let renamed = |text: &str| text.replace("ad_id", "advert");
        let long = format!("{{\"note\":\"{}\",", "x".repeat(6_000));
        let lines = renamed(&format!("{copied}{lost}")).replacen('{', &long, 1) + "no json\n";
        site.write("logs/misnamed.log", lines);
        let mut rows = "click_timestamp;advert;user_id;ip;country\n".to_owned();
        let mut of_rows = String::new();
        for user in 20_000..20_300_i64 {
            let at = START + (user - 20_000) * SECOND + 9;
            writeln!(rows, "{at};{};{user};10.0.0.1;US", user % 7).unwrap();
            of_rows.push_str(&click(at, user));
        }
        // The last one is a copy of the first.
        let first = rows.lines().nth(1).unwrap().to_owned();
        writeln!(rows, "{first}").unwrap();
        site.write("logs/rows.csv", rows);
        site.write("first.toml", "[input]\ncsv_delimiter = \";\"\n");
        site.write("mended.toml", format!("[input]\ncsv_delimiter = \";\"\n{MENDED}"));
        Misnamed { site, good, misnamed: copied + &lost + &of_rows }
    }

    fn all(&self) -> String {
        format!("{}{}", self.good, self.misnamed)
    }
}

#[test]
fn rejected_lines_are_counted_once_when_the_mapping_is_mended() {
    let misnamed = Misnamed::new();
    let site = &misnamed.site;
    site.adtally("run logs --config first.toml --data-dir data --until-end --final").ok();
    let groups = json_of(site, "dead-letters list");
    let group = |at: usize| (groups[at]["lines"].clone(), groups[at]["verdict"].clone(), groups[at]["reason"].clone());
    assert_eq!(group(0), (json!(851), json!("invalid"), json!("ad_id: missing")), "{groups}");
    assert_eq!((&groups[1]["lines"], &groups[1]["verdict"]), (&json!(1), &json!("malformed")), "{groups}");
    let text = site.adtally("dead-letters list --data-dir data").ok().stdout;
    assert!(text.contains("851 invalid lines: ad_id: missing\n"), "{text}");
    let shown = site.adtally("dead-letters show --reason malformed --data-dir data").ok().stdout;
    assert!(shown.contains("logs/misnamed.log, position ") && shown.contains(": no json\n  malformed: "), "{shown}");
    assert_eq!(site.adtally("dead-letters show --data-dir data --limit 3 --json").ok().stdout.lines().count(), 3);
    let none = site.adtally("dead-letters list --data-dir data --since 2099-01-01T00:00:00Z").ok().stdout;
    assert_eq!(none, "no dead letters\n");

    // By the same mapping, they are what they were.
    let same = json_of(site, "dead-letters replay --config first.toml");
    assert_eq!(same["intake"], intake(852, 0, 0, 852, 0), "{same}");
    check_stored(site, &misnamed.good);

    let dry = site.adtally("dead-letters replay --dry-run --config mended.toml --data-dir data").ok().stdout;
    let told = |outcome: &str| dry.lines().filter(|line| *line == format!("  {outcome}")).count();
    assert_eq!((told("recovered"), told("duplicate")), (800, 51), "{dry}");
    assert!(dry.contains("852 read = 800 recovered + 51 duplicate + 1 rejected + 0 expired + 0 waiting\n"), "{dry}");
    check_stored(site, &misnamed.good);

    let report = json_of(site, "dead-letters replay --config mended.toml");
    assert_eq!(report["intake"], intake(852, 800, 51, 1, 0), "{report}");
    assert_eq!(report["corrections"], json!({"replay": {"rows": 800, "clicks": 800}}));
    assert!(report["rejected"][0].as_str().unwrap().contains("logs/misnamed.log, position "), "{report}");
    check_stored(site, &misnamed.all());
    let again = json_of(site, "dead-letters replay --config mended.toml");
    assert_eq!(again["intake"], intake(852, 0, 851, 1, 0), "replaying again changes nothing");
    check_stored(site, &misnamed.all());
    assert_eq!(reconcile(site, "")["corrections"], json!({}));
    let run = report["run"].as_u64().unwrap();
    json_of(site, &format!("reconcile revert {run}"));
    check_stored(site, &misnamed.good);
    let reverted = json_of(site, "dead-letters replay --config mended.toml");
    assert_eq!(reverted["intake"], intake(852, 0, 851, 1, 0), "a reverted replay stays reverted");
}

/// The process that owns the data directory decodes by the settings of the command, and shows the clicks at once.
#[test]
fn a_service_replays_and_brings_in_what_a_command_asks_for() {
    let misnamed = Misnamed::new();
    let site = &misnamed.site;
    site.adtally("run logs --config first.toml --data-dir data --until-end --final").ok();
    let server = site.serve("logs --config first.toml");
    check_answers(&server, &misnamed.good);
    let mode = std::fs::metadata(site.path("data/control.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "for its user alone");
    let report = json_of(site, "dead-letters replay --config mended.toml");
    assert_eq!(report["intake"], intake(852, 800, 51, 1, 0), "{report}");
    check_answers(&server, &misnamed.all());
    let more: String = (0..100).map(|user| click(START + user * SECOND + 11, 30_000 + user)).collect();
    site.write("older.log", &more);
    let report = json_of(site, "backfill older.log");
    assert_eq!(report["intake"], intake(100, 100, 0, 0, 0), "{report}");
    let all = misnamed.all() + &more;
    check_answers(&server, &all);
    let corrections = server.get("/ledger")["corrections"].clone();
    assert_eq!(
        (&corrections["recovered"], &corrections["intake"]),
        (&json!(900), &intake(952, 900, 51, 1, 0)),
        "{corrections}"
    );
    server.stop();
    check_stored(site, &all);
}

#[test]
fn lines_of_minutes_that_are_not_final_wait() {
    let site = Site::new();
    let good: String = (0..3_600).map(|user| click(START + user * SECOND, user)).collect();
    let late: String = (0..60).map(|at| click(START + at * 60 * SECOND + 7, 10_000 + at)).collect();
    site.write("logs/good.log", &good);
    site.write("logs/misnamed.log", late.replace("ad_id", "advert"));
    site.write("mended.toml", MENDED);
    site.adtally("run logs --data-dir data --until-end").ok();
    let first = json_of(&site, "dead-letters replay --config mended.toml");
    let waiting = first["intake"]["waiting"].as_u64().unwrap();
    assert!((1..20).contains(&waiting), "{first}");
    assert_eq!(first["intake"], intake(60, 60 - waiting, 0, 0, waiting));
    site.write("more.log", &late);
    let brought = json_of(&site, "backfill more.log");
    assert_eq!(brought["intake"], intake(60, 0, 60 - waiting, 0, waiting));
    site.adtally("run logs --data-dir data --until-end --final").ok();
    let second = json_of(&site, "dead-letters replay --config mended.toml");
    assert_eq!(second["intake"], intake(60, waiting, 60 - waiting, 0, 0));
    check_stored(&site, &(good + &late));
}

/// Rejected lines, files and late lines of the same clicks, in any order, and a process that dies at any step.
#[test]
fn fault_68_replay_backfill_and_late_lines_of_the_same_clicks_count_once() {
    let misnamed = Misnamed::new();
    let site = &misnamed.site;
    site.adtally("run logs --config first.toml --data-dir data --until-end --final").ok();
    // Late now, and in a file as well.
    site.append("logs/good.log", &misnamed.misnamed);
    site.adtally("run logs --config first.toml --data-dir data --until-end").ok();
    let steps = ["dead-letters replay --config mended.toml", "backfill old.log.gz", "reconcile"];
    for (number, point) in FAIL_POINTS.iter().enumerate() {
        let copy = Site::new();
        let status = std::process::Command::new("cp").arg("-a").args([site.path("data"), copy.path("")]).status();
        assert!(status.unwrap().success());
        copy.write("mended.toml", site.read("mended.toml"));
        copy.write("old.log", misnamed.all());
        copy.gzip("old.log");
        for (killed, passed) in [(0, 0), (1, 0), (0, 1), (1, 1)] {
            let mut command = copy.program();
            command.args(format!("{} --data-dir data", steps[killed]).split(' '));
            command.env("FAILPOINTS", format!("{point}={passed}*off->return"));
            let died = end(command).code.is_none();
            // There are too few records to delete old ones.
            assert!(died || passed > 0 || point.contains("collect"), "{}: nobody came to {point}", steps[killed]);
        }
        // In another order each time.
        for at in 0..3 {
            json_of(&copy, steps[(number + at) % 3]);
        }
        check_stored(&copy, &misnamed.all());
        for step in steps {
            assert_eq!(json_of(&copy, step)["corrections"], json!({}), "{point}: {step} again");
        }
    }
}

/// Of a malformed line, only the beginning is stored. It is not taken for the line.
#[test]
fn a_line_that_was_stored_in_part_is_not_replayed() {
    let site = Site::new();
    let note = "x".repeat(70_000);
    let row = |user: i64, note: &str| format!("{},7,{user},10.0.0.1,US,{note}\n", START + user * SECOND);
    let mut rows = "click_timestamp,ad_id,user_id,ip,country,note\n".to_owned();
    (0..100).for_each(|user| rows += &row(user, ""));
    site.write("logs/rows.csv", format!("{rows}{}{}", row(500, &note), row(101, "")));
    let ledger = site.adtally("run logs --data-dir data --until-end --final").ok().json();
    assert_eq!((&ledger["counted"], &ledger["malformed"]), (&json!(101), &json!(1)), "{ledger}");
    let replayed = json_of(&site, "dead-letters replay");
    assert_eq!(replayed["intake"], intake(1, 0, 0, 1, 0), "{replayed}");
    assert!(replayed["rejected"][0].as_str().unwrap().contains("only its first 4 KiB are stored"), "{replayed}");
}

#[test]
fn what_a_backfill_cannot_read_is_named() {
    let site = Site::new();
    site.write("logs/a.log", (0..3_600).map(|user| click(START + user * SECOND, user)).collect::<String>());
    site.adtally("run logs --data-dir data --until-end --final").ok();
    site.write("old/a.zip", b"PK\x03\x04\x14\0\0\0\x08\0");
    site.write("old/b.log", click(START + 7, 70_000) + "{\"click_timestamp\":");
    let ended = site.adtally("backfill old --data-dir data");
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    assert!(ended.stdout.contains("1 read = 1 recovered"), "{}", ended.stdout);
    for unread in ["not read: ", "old/a.zip: cannot be read: it is a zip archive: unpack it", "old/b.log"] {
        assert!(ended.stdout.contains(unread), "{unread}: {}", ended.stdout);
    }
}

#[test]
fn files_with_clicks_that_are_too_old_are_refused() {
    let site = Site::new();
    let days: String = (0..5 * 24 * 60).map(|minute| click(START + minute * 60 * SECOND, minute)).collect();
    site.write("logs/a.log", &days);
    site.write("adtally.toml", "[store]\nkeep_clicks = \"1d\"\n");
    site.adtally("run logs --config adtally.toml --data-dir data --until-end --final").ok();
    let before = site.sql("SELECT sum(clicks) FROM clicks_by_minute");
    let new = START + 4 * 24 * 3_600 * SECOND + 7;
    site.write("old.log", format!("{}{}", click(new, 50_000), click(START + 7, 50_001)));
    for words in ["--dry-run", ""] {
        let refused = site.adtally(&format!("backfill old.log --config adtally.toml --data-dir data {words}"));
        assert_eq!(refused.code, Some(2), "{}", refused.stderr);
        assert!(refused.stderr.contains("raw clicks are kept only from "), "{}", refused.stderr);
    }
    assert_eq!(site.sql("SELECT sum(clicks) FROM clicks_by_minute"), before);
    site.write("new.log", click(new, 50_000));
    let brought = json_of(&site, "backfill new.log --config adtally.toml");
    assert_eq!(brought["intake"], intake(1, 1, 0, 0, 0), "{brought}");
    let missing = site.adtally("backfill none.log --data-dir data");
    assert_eq!(missing.code, Some(2), "{}", missing.stderr);
    site.verify();
}
