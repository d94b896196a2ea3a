//! Reconciliation of a lake that was changed from outside: wrong counts are repaired once, and damaged clicks are reported.

use crate::faults::{START, click};
use crate::reconcile::{MINUTE, change, check_answers, check_hour, check_stored, reconcile};
use crate::site::Site;
use adtally_model::time::rfc3339;
use serde_json::{Value, json};

const SECOND: i64 = 1_000;

/// Clicks of three hours, all final and rolled up.
fn three_hours() -> (Site, String) {
    let site = Site::new();
    let text: String = (0..5_400).map(|user| click(START + user * 2 * SECOND, user)).collect();
    site.write("logs/a.log", &text);
    site.adtally("run logs --data-dir data --until-end --final").ok();
    (site, text)
}

/// A count by minute, hour or day that was altered by hand is found, reported and repaired once, whether the next questions
/// are answered from memory or from the lake.
#[test]
fn fault_40_a_count_altered_by_hand_is_repaired_once() {
    let again = "--from 2025-06-02T00:00:00Z --to 2025-06-02T03:00:00Z";
    for (table, span, at, causes) in [
        ("clicks_by_minute", "minute", START + 60 * MINUTE, &["count"][..]),
        // Its counts are also in the epoch log, from which they get into memory.
        ("clicks_by_minute", "minute", START + 179 * MINUTE, &["count"]),
        // The day is not summed yet. Readers sum its hours.
        ("clicks_by_hour", "hour", START + 60 * MINUTE, &["hour_count", "day_count"]),
    ] {
        let (site, text) = three_hours();
        let predicate = format!("{span} = '{}' AND ad_id = 3", rfc3339(at));
        change(&site, table, &format!("update(predicate=\"{predicate}\", updates={{'clicks': 'clicks + 5'}})"));
        assert_eq!(site.adtally("verify --data-dir data").code, Some(3), "{table}");
        let found = site.adtally(&format!("reconcile --data-dir data --dry-run --json {again}"));
        let corrections: serde_json::Map<String, Value> =
            causes.iter().map(|&cause| (cause.to_owned(), json!({"rows": 1, "clicks": -5}))).collect();
        let corrections = Value::Object(corrections);
        assert_eq!((found.code, &found.json()["corrections"]), (Some(3), &corrections), "{table}");
        assert_eq!(found.json()["credits"], if table == "clicks_by_minute" { 5 } else { 0 }, "{table}");
        assert_eq!(reconcile(&site, again)["corrections"], corrections, "{table}");
        check_stored(&site, &text);
        assert_eq!(reconcile(&site, again)["corrections"], json!({}), "{table}: repaired once");
        let server = site.serve("logs");
        (0..3).for_each(|hour| check_hour(&server, &text, START + hour * 60 * MINUTE));
        server.stop();
        check_stored(&site, &text);
    }
}

/// A count is altered by hand below a service, which has the right one in memory.
#[test]
fn fault_40_a_count_altered_below_a_service_is_repaired_there() {
    let (site, text) = three_hours();
    let server = site.serve("logs");
    check_answers(&server, &text);
    let minutes = [30, 179].map(|minute| format!("minute = '{}'", rfc3339(START + minute * MINUTE)));
    let updates = "updates={'clicks': 'clicks + 5'}";
    change(&site, "clicks_by_minute", &format!("update(predicate=\"{}\", {updates})", minutes.join(" OR ")));
    let report = reconcile(&site, "");
    assert_eq!(report["corrections"]["count"]["clicks"].as_i64(), Some(-5 * 7 * 2), "{report}");
    (0..3).for_each(|hour| check_hour(&server, &text, START + hour * 60 * MINUTE));
    server.stop();
    check_stored(&site, &text);
}

/// Damaged clicks are reported, and nothing is corrected where they are.
#[test]
fn damaged_clicks_are_reported_and_nothing_is_corrected() {
    let at = rfc3339(START + 65 * MINUTE);
    let predicate = format!("click_timestamp = '{at}'");
    for statement in [
        format!("delete(predicate=\"{predicate}\")"),
        format!("update(predicate=\"{predicate}\", updates={{'user_id': \"'someone else'\"}})"),
        format!("update(predicate=\"{predicate}\", updates={{'ad_id': 'ad_id + 1'}})"),
    ] {
        let (site, _) = three_hours();
        let before = site.sql("SELECT sum(clicks) FROM clicks_by_minute");
        change(&site, "clicks", &statement);
        for words in ["--dry-run", ""] {
            let found = site.adtally(&format!("reconcile --data-dir data --json {words}"));
            let report = found.json();
            assert_eq!((found.code, &report["corrections"]), (Some(3), &json!({})), "{statement}: {report}");
            let damaged = report["damaged"].as_array().unwrap();
            assert!(damaged[0].as_str().unwrap().contains("the hour 2025-06-02T01:00:00Z"), "{report}");
            assert_eq!(report["minutes"], 120, "other hours are recounted: {report}");
            if words.is_empty() {
                break;
            }
        }
        assert_eq!(site.sql("SELECT sum(clicks) FROM clicks_by_minute"), before);
        assert_eq!(site.adtally("verify --data-dir data").code, Some(3));
        if statement.starts_with("delete") {
            // A service says so until a run finds the hour whole.
            let server = site.serve("logs");
            assert_eq!(site.adtally("reconcile --data-dir data").code, Some(3));
            let ready = server.get("/readyz").to_string();
            assert!(ready.contains("rows too few in the hour 2025-06-02T01:00:00Z"), "{ready}");
            server.stop();
        }
    }
    let (site, _) = three_hours();
    let mut files = std::fs::read_dir(site.path("data/lake/clicks/click_date=2025-06-02/click_hour=1")).unwrap();
    std::fs::remove_file(files.next().unwrap().unwrap().path()).unwrap();
    let found = site.adtally("reconcile --data-dir data --json");
    let report = found.json();
    assert_eq!(
        (found.code, &report["minutes"], &report["damaged_hours"]),
        (Some(3), &json!(120), &json!(1)),
        "{report}"
    );
    let damaged = report["damaged"][0].as_str().unwrap();
    assert!(
        damaged.starts_with("`clicks` cannot be read in the hour 2025-06-02T01:00:00Z: the lake file "),
        "{damaged}"
    );
    // What would be counted there waits.
    site.write("more.log", click(START + 65 * MINUTE + 7, 70_000) + &click(START + 7, 70_001));
    let brought = site.adtally("backfill more.log --data-dir data --json");
    let intake = &brought.json()["intake"];
    assert_eq!((brought.code, &intake["recovered"], &intake["waiting"]), (Some(3), &json!(1), &json!(1)), "{intake}");
}

/// The minutes that another recount names are recounted, and their hours and days as well.
#[test]
fn findings_of_another_recount_are_applied_to_hours_as_well() {
    let (site, text) = three_hours();
    reconcile(&site, "");
    let hour = format!("predicate=\"hour = '{}' AND ad_id = 3\"", rfc3339(START + 60 * MINUTE));
    change(&site, "clicks_by_hour", &format!("update({hour}, updates={{'clicks': 'clicks + 5'}})"));
    site.write("findings.jsonl", format!("{{\"cause\":\"count\",\"span\":\"{}\"}}\n", rfc3339(START + 65 * MINUTE)));
    let applied = reconcile(&site, "--apply findings.jsonl");
    assert_eq!(applied["corrections"]["hour_count"], json!({"rows": 1, "clicks": -5}), "{applied}");
    check_stored(&site, &text);
    let refused = site.adtally("reconcile --apply findings.jsonl --data-dir data revert 1");
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
}
