//! Reconciliation: late clicks are recovered once, through kills, and what was known before can still be asked for. Every answer
//! is compared with a naive count of all lines ever written.

use crate::expected::ranked;
use crate::faults::{START, click};
use crate::lake::interpreter;
use crate::site::{Serving, Site, end, wait_for};
use adtally_model::time::rfc3339;
use adtally_store::fail_points::FAIL_POINTS;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const SECOND: i64 = 1_000;
pub(crate) const MINUTE: i64 = 60 * SECOND;

/// Distinct clicks by minute and ad, whenever they were written.
fn naive(text: &str) -> BTreeMap<(i64, u64), u64> {
    let mut seen = BTreeSet::new();
    let mut counts = BTreeMap::new();
    for line in text.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let (at, ad) = (line["click_timestamp"].as_i64().unwrap(), line["ad_id"].as_u64().unwrap());
        if seen.insert((at, ad, line["user_id"].to_string(), line["ip"].to_string())) {
            *counts.entry((at / MINUTE, ad)).or_default() += 1;
        }
    }
    counts
}

/// The counts of a table of counts, or of the raw clicks.
fn stored(site: &Site, query: &str) -> BTreeMap<(i64, u64), u64> {
    let row = |line: &str| {
        let fields: Vec<i64> = line.split(',').map(|field| field.parse().unwrap()).collect();
        ((fields[0], fields[1] as u64), fields[2] as u64)
    };
    site.sql(query).lines().skip(1).map(row).collect()
}

/// Checks that minutes, hours and raw clicks have the counts of `text`, and that `verify`, which compares days with hours, finds
/// nothing.
pub(crate) fn check_stored(site: &Site, text: &str) {
    let expected = naive(text);
    let by = |minutes: i64| {
        let mut sums: BTreeMap<(i64, u64), u64> = BTreeMap::new();
        for (&(minute, ad), &clicks) in &expected {
            *sums.entry((minute - minute % minutes, ad)).or_default() += clicks;
        }
        sums
    };
    let minute_of = |time: &str| format!("CAST(date_part('epoch', {time}) AS BIGINT) / 60");
    for (table, time, clicks, minutes) in [
        ("clicks_by_minute", "minute", "clicks", 1),
        ("clicks_by_hour", "hour", "clicks", 60),
        ("clicks", "date_trunc('minute', click_timestamp)", "sign", 1),
    ] {
        let query = format!(
            "SELECT {}, ad_id, sum({clicks}) FROM {table} GROUP BY 1, 2 HAVING sum({clicks}) <> 0",
            minute_of(time)
        );
        assert_eq!(stored(site, &query), by(minutes), "{table}");
    }
    site.verify();
}

/// Checks the answers of a server about an hour from [`START`] on.
pub(crate) fn check_answers(server: &Serving, text: &str) {
    check_hour(server, text, START);
}

/// Checks the answers of a server about an hour.
pub(crate) fn check_hour(server: &Serving, text: &str, from: i64) {
    let to = from + 60 * MINUTE;
    let span = format!("from={}&to={}", rfc3339(from), rfc3339(to));
    let mut expected = naive(text);
    expected.retain(|&(minute, _), _| (from / MINUTE..to / MINUTE).contains(&minute));
    let mut ads: BTreeMap<u64, u64> = BTreeMap::new();
    expected.iter().for_each(|(&(_, ad), &clicks)| *ads.entry(ad).or_default() += clicks);
    assert_eq!(server.get(&format!("/ads/top100?{span}"))["ads"], ranked(ads.clone()), "top 100");
    for (&ad, &clicks) in &ads {
        let answer = server.get(&format!("/ads/{ad}/clicks?{span}&series=true"));
        assert_eq!(answer["clicks"], clicks, "ad {ad}");
        for (row, minute) in answer["minutes"].as_array().unwrap().iter().zip(from / MINUTE..) {
            let expected = expected.get(&(minute, ad)).copied().unwrap_or_default();
            assert_eq!(row["clicks"], expected, "ad {ad} in minute {}", row["minute"]);
        }
    }
}

pub(crate) fn reconcile(site: &Site, words: &str) -> Value {
    site.adtally(&format!("reconcile --data-dir data --json {words}")).ok().json()
}

/// One input is cut off for twenty minutes while the other goes on.
struct CutOff {
    site: Site,
    /// All lines but the late ones.
    before: String,
    late: String,
}

impl CutOff {
    fn new() -> CutOff {
        let site = Site::new();
        let users = |from: i64, to: i64, offset: i64| -> String {
            (from..to).map(|user| click(START + user * SECOND + offset, user + offset)).collect()
        };
        let (steady, first) = (users(0, 3_600, 0), users(0, 600, 500));
        site.write("logs/a.log", &steady);
        site.write("logs/b.log", &first);
        CutOff { site, before: steady + &first, late: users(600, 1_800, 500) }
    }

    fn all(&self) -> String {
        format!("{}{}", self.before, self.late)
    }
}

/// One log of two is cut off for twenty minutes. Its clicks are late, and then counted once, while a service answers and after
/// it was started again.
#[test]
fn fault_49_an_input_that_was_cut_off_is_recovered_exactly_live_and_after_a_restart() {
    let cut_off = CutOff::new();
    let site = &cut_off.site;
    site.write(
        "adtally.toml",
        "[time]\nidle_timeout = \"1s\"\n[store]\nlake_interval = \"1s\"\n[epoch]\ninterval = \"200ms\"\n",
    );
    let server = site.serve("logs --config adtally.toml");
    let lines = |text: &str| text.lines().count() as u64;
    server.wait_read(lines(&cut_off.before));
    // The other input has become idle once the late minutes are final.
    wait_for("final minutes", || {
        let ledger = server.get("/ledger");
        (ledger["partitions"][0]["final"].as_str()? > "2025-06-02T00:50:00Z").then_some(())
    });
    site.append("logs/b.log", &cut_off.late);
    let copy = click(START + 5 * SECOND, 5);
    site.append("logs/b.log", &copy);
    let ledger = server.wait_read(lines(&cut_off.before) + lines(&cut_off.late) + 1);
    assert_eq!(ledger["late"], lines(&cut_off.late) + 1, "{ledger}");
    check_answers(&server, &cut_off.before);
    wait_for("the late lines in the lake", || {
        let late = site.sql_value("SELECT count(*) FROM dead_letters WHERE verdict = 'late'");
        (late == (lines(&cut_off.late) + 1).to_string()).then_some(())
    });

    let found = site.adtally("reconcile --data-dir data --dry-run");
    assert_eq!(found.code, Some(3), "{}", found.stdout);
    assert!(
        found.stdout.contains("late: 1,200 rows, +1,200 clicks\n1,200 clicks recovered, 0 credits\n"),
        "{}",
        found.stdout
    );
    check_answers(&server, &cut_off.before);

    // The process that owns the data directory does it.
    let report = reconcile(site, "");
    assert_eq!(
        (&report["run"], &report["corrections"]),
        (&json!(1), &json!({"late": {"rows": 1_200, "clicks": 1_200}}))
    );
    assert!(report["not_final_from"].is_string(), "{report}");
    check_answers(&server, &cut_off.all());
    let corrections = server.get("/ledger")["corrections"].clone();
    assert_eq!((&corrections["recovered"], &corrections["reversed"]), (&json!(1_200), &json!(0)), "{corrections}");
    assert_eq!(reconcile(site, "")["corrections"], json!({}), "running it again changes nothing");
    server.stop();

    site.adtally("run logs --data-dir data --until-end --final").ok();
    check_stored(site, &cut_off.all());
    let server = site.serve("logs --config adtally.toml");
    check_answers(&server, &cut_off.all());
    assert_eq!(server.get("/ledger")["corrections"]["recovered"], 1_200);
    server.stop();
    let again = "--from 2025-06-02T00:00:00Z --to 2025-06-02T01:00:00Z";
    assert_eq!(reconcile(site, again)["corrections"], json!({}));

    let reverted = site.adtally("reconcile revert 1 --data-dir data --json").ok().json();
    assert_eq!(reverted["corrections"], json!({"reverted": {"rows": 1_200, "clicks": -1_200}}));
    check_stored(site, &cut_off.before);
    assert_eq!(reconcile(site, again)["corrections"], json!({}), "a reverted run stays reverted");
    let refused = site.adtally("reconcile revert 1 --data-dir data");
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
}

/// Late lines are recovered, counts are repaired, and the late lines are reverted, however often the process dies.
#[test]
fn a_process_that_dies_at_any_step_corrects_nothing_twice() {
    let cut_off = CutOff::new();
    let site = &cut_off.site;
    site.adtally("run logs --data-dir data --until-end --final").ok();
    site.append("logs/b.log", &cut_off.late);
    site.adtally("run logs --data-dir data --until-end").ok();
    for (table, span, at) in [("clicks_by_minute", "minute", START + 5 * MINUTE), ("clicks_by_hour", "hour", START)] {
        let predicate = format!("{span} = '{}' AND ad_id = 3", rfc3339(at));
        change(site, table, &format!("update(predicate=\"{predicate}\", updates={{'clicks': 'clicks + 5'}})"));
    }
    for point in FAIL_POINTS {
        let copy = Site::new();
        let status = std::process::Command::new("cp").arg("-a").args([site.path("data"), copy.path("")]).status();
        assert!(status.unwrap().success());
        let killed = |words: &str, passed: u32| {
            let mut command = copy.program();
            command.args(format!("{words} --data-dir data").split(' '));
            command.env("FAILPOINTS", format!("{point}={passed}*off->return"));
            let died = end(command).code.is_none();
            // There are too few records to delete old ones.
            assert!(died || passed > 0 || point.contains("collect"), "{words}: nobody came to {point}");
        };
        (0..4).for_each(|passed| killed("reconcile", passed));
        reconcile(&copy, "");
        check_stored(&copy, &cut_off.all());
        let run = copy.sql_value("SELECT DISTINCT correction FROM corrections WHERE cause = 'late'");
        killed(&format!("reconcile revert {run}"), 0);
        // It may have been committed before the process died.
        let reverted = copy.adtally(&format!("reconcile revert {run} --data-dir data"));
        assert!(reverted.code == Some(0) || reverted.stderr.contains("is reverted already"), "{}", reverted.stderr);
        check_stored(&copy, &cut_off.before);
        assert_eq!(reconcile(&copy, "")["corrections"], json!({}), "{point}");
    }
}

#[test]
fn a_lost_epoch_log_is_rebuilt_beside_corrections() {
    let cut_off = CutOff::new();
    let site = &cut_off.site;
    site.adtally("run logs --data-dir data --until-end --final").ok();
    site.append("logs/b.log", &cut_off.late);
    site.adtally("run logs --data-dir data --until-end").ok();
    reconcile(site, "");
    check_stored(site, &cut_off.all());

    std::fs::remove_dir_all(site.path("data/epochs/00000")).unwrap();
    site.adtally("repair --data-dir data --yes").ok();
    // All lines are read again, and are late or duplicates.
    site.adtally("run logs --data-dir data --until-end --final").ok();
    check_stored(site, &cut_off.all());
    assert_eq!(reconcile(site, "")["corrections"], json!({}));

    std::fs::remove_dir_all(site.path("data/epochs/65535")).unwrap();
    let refused = site.adtally("repair --data-dir data --yes");
    assert_eq!(refused.code, Some(3), "{}", refused.stdout);
    assert!(refused.stderr.contains("epochs/65535, is lost or damaged: restore"), "{}", refused.stderr);
}

/// Random streams with clicks up to 26 hours late, silent inputs, and copies of any age: after a recount, the counts are those of a
/// deduplication without limits, and what was known before can still be asked for.
#[test]
fn fault_23_and_24_random_streams_are_counted_as_if_all_lines_had_been_on_time() {
    for seed in 0..3 {
        let site = Site::new();
        let mut random: u64 = seed * 7_919 + 1;
        let mut below = |bound: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % bound
        };
        let (mut all, mut ever): (String, Vec<String>) = (String::new(), Vec::new());
        std::fs::create_dir(site.path("logs")).unwrap();
        for round in 0..4 {
            for input in 0..3 {
                // Some inputs are silent in some rounds.
                if below(3) == 0 {
                    continue;
                }
                for _ in 0..below(200) {
                    let line = match below(10) {
                        // A copy, however old.
                        0 | 1 if !ever.is_empty() => ever[below(ever.len() as u64) as usize].clone(),
                        // Up to 26 hours late.
                        2 | 3 => {
                            click(START + round * 3_600 * SECOND - below(26 * 3_600_000) as i64, below(500) as i64)
                        }
                        _ => click(START + round * 3_600 * SECOND + below(3_600_000) as i64, below(500) as i64),
                    };
                    site.append(&format!("logs/{input}.log"), &line);
                    all.push_str(&line);
                    ever.push(line);
                }
            }
            let finally = if below(2) == 0 { "--final" } else { "" };
            site.adtally(&format!("run logs --data-dir data --until-end {finally}")).ok();
            if below(2) == 0 {
                reconcile(&site, "");
                site.verify();
            }
        }
        site.adtally("run logs --data-dir data --until-end --final").ok();
        let counts = "SELECT minute, ad_id, sum(clicks) FROM clicks_by_minute GROUP BY 1, 2 ORDER BY 1, 2";
        let (known, before) = (site.ledger()["revision"].as_str().unwrap().to_owned(), site.sql(counts));
        let report = reconcile(&site, "");
        check_stored(&site, &all);
        if report["corrections"] != json!({}) {
            assert_ne!(site.sql(counts), before, "seed {seed}");
        }
        let as_of = ["sql", "--data-dir", "data", "--format", "csv", "--as-of", &known, counts];
        assert_eq!(site.words(&as_of).ok().stdout, before, "seed {seed}");
        assert_eq!(reconcile(&site, "")["corrections"], json!({}), "seed {seed}");
        let whole = reconcile(&site, "--from 2025-05-30T00:00:00Z --to 2025-06-03T00:00:00Z");
        assert_eq!(whole["corrections"], json!({}), "seed {seed}: {whole}");
    }
}

/// Changes a table of the lake with the Python package `deltalake`, as another program would.
pub(crate) fn change(site: &Site, table: &str, statement: &str) {
    let script =
        format!("from deltalake import DeltaTable\ntable = DeltaTable('data/lake/{table}')\ntable.{statement}\n");
    let mut command = std::process::Command::new(interpreter());
    command.args(["-c", &script]).current_dir(site.path(""));
    end(command).ok();
}

/// Late lines of an earlier version lack the fields of their click. They are told, and a replay counts them.
#[test]
fn late_lines_without_fields_are_told_and_replayed() {
    let cut_off = CutOff::new();
    let site = &cut_off.site;
    site.adtally("run logs --data-dir data --until-end --final").ok();
    site.append("logs/b.log", &cut_off.late);
    site.adtally("run logs --data-dir data --until-end").ok();
    let fields = ["ad_id", "user_id", "ip", "country", "click_id", "watermark", "header"];
    let nothing: Vec<String> = fields.iter().map(|field| format!("'{field}': 'NULL'")).collect();
    change(site, "dead_letters", &format!("update(updates={{{}}})", nothing.join(", ")));
    let found = site.adtally("reconcile --data-dir data --json");
    let report = found.json();
    assert_eq!((found.code, &report["without_fields"]), (Some(3), &json!(1_200)), "{report}");
    check_stored(site, &cut_off.before);
    let replayed = site.adtally("dead-letters replay --data-dir data --json").ok().json();
    assert_eq!(replayed["corrections"], json!({"replay": {"rows": 1_200, "clicks": 1_200}}), "{replayed}");
    check_stored(site, &cut_off.all());
    assert_eq!(reconcile(site, "")["corrections"], json!({}));
}

#[test]
fn as_of_answers_what_was_known_before_a_correction() {
    let cut_off = CutOff::new();
    let site = &cut_off.site;
    site.adtally("run logs --data-dir data --until-end --final").ok();
    site.append("logs/b.log", &cut_off.late);
    site.adtally("run logs --data-dir data --until-end").ok();
    let before = site.ledger()["revision"].as_str().unwrap().to_owned();
    let time = site.sql_value("SELECT max(committed_at) FROM ledger").replace(' ', "T");
    reconcile(site, "");
    let between = site.ledger()["revision"].as_str().unwrap().to_owned();
    site.write("more.log", click(START + 7, 70_001));
    site.adtally("backfill more.log --data-dir data").ok();
    let span = format!("from={}&to={}", rfc3339(START), rfc3339(START + 60 * MINUTE));
    let server = site.serve("logs");
    let total = |suffix: &str| {
        let answer = server.get(&format!("/ads/top100?{span}{suffix}"));
        let clicks = answer["ads"].as_array().unwrap().iter().map(|row| row["clicks"].as_u64().unwrap()).sum::<u64>();
        (clicks, answer["restated"].as_bool().unwrap())
    };
    assert_eq!(total(""), (5_401, true));
    assert_eq!(total(&format!("&as_of={between}")), (5_400, true));
    for as_of in [&before, &time] {
        let suffix = format!("&as_of={as_of}");
        assert_eq!(total(&suffix), (4_200, false), "{as_of}");
        assert_eq!(total(&format!("{suffix}&filter_ip=10.0.0.1")), (4_200, false), "{as_of}");
        let series = |path: &str| server.get(path)["clicks"].as_u64().unwrap();
        let ad = |suffix: &str| series(&format!("/ads/3/clicks?{span}&series=true{suffix}"));
        assert_eq!(ad(&suffix) as usize, cut_off.before.lines().filter(|line| line.contains("\"ad_id\":3,")).count());
        assert_eq!(ad("") as usize, cut_off.all().lines().filter(|line| line.contains("\"ad_id\":3,")).count());
        let words = ["sql", "--data-dir", "data", "--format", "csv", "--as-of", as_of, "SELECT sum(sign) FROM clicks"];
        assert_eq!(site.words(&words).ok().stdout.lines().nth(1), Some("4200"));
    }
    // Nothing was final before the first epoch.
    let (status, text) = server.text(&format!("/ads/top100?{span}&as_of=2025-06-02T00:00:00Z"));
    assert_eq!(status, 400, "{text}");
    assert!(text.contains("were not all final then: ask as of 20"), "{text}");
    let (status, text) = server.text(&format!("/ads/top100?minutes=5&as_of={before}"));
    assert_eq!((status, text.contains("as_of needs from and to")), (400, true), "{text}");
    server.stop();
}
