//! Upkeep of the lake: hours and days are the sums of minutes, files become few, old rows are deleted, answers stay.

use crate::site::{Site, wait_for};
use serde_json::Value;
use std::collections::BTreeSet;

/// Sums of a table by span, ad and country, for all spans that end before a time in seconds.
fn sums(site: &Site, table: &str, span: &str, time: &str, before: i64) -> String {
    site.sql(&format!(
        "SELECT date_part('epoch', date_trunc('{span}', {time}))::BIGINT AS at, ad_id, country, sum(clicks) AS clicks FROM {table} \
         WHERE date_part('epoch', {time}) < {before} GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
    ))
}

/// The number of files of a table, by its log entries.
fn files(site: &Site, table: &str) -> usize {
    let mut entries: Vec<_> = std::fs::read_dir(site.path(&format!("data/lake/{table}/_delta_log")))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    entries.sort();
    let mut files = BTreeSet::new();
    for entry in entries {
        for line in std::fs::read_to_string(entry).unwrap().lines() {
            let action: Value = serde_json::from_str(line).unwrap();
            if let Some(path) = action["add"]["path"].as_str() {
                files.insert(path.to_owned());
            }
            if let Some(path) = action["remove"]["path"].as_str() {
                files.remove(path);
            }
        }
    }
    files.len()
}

/// The first second after the final hours or days.
fn final_before(site: &Site, span_s: i64) -> i64 {
    let newest: i64 =
        site.sql_value("SELECT max(date_part('epoch', minute))::BIGINT FROM clicks_by_minute").parse().unwrap();
    (newest + 60) / span_s * span_s
}

/// Eleven days, a click every 25 seconds.
const LINES: i64 = 38_016;

/// Half an hour before midnight, 2025-07-01.
const START_S: i64 = 1_751_412_600;

fn line(at: i64) -> String {
    let ms = (START_S + 25 * at) * 1_000;
    let country = ["US", "DE", "FR"][(at % 3) as usize];
    format!(
        "{{\"click_timestamp\":{ms},\"ad_id\":{},\"user_id\":\"u{}\",\"ip\":\"1.2.3.{}\",\"country\":\"{country}\"}}\n",
        at % 17,
        at % 1_009,
        at % 250
    )
}

/// Checks that all clicks exist, raw and counted, and that hours and days are the sums of minutes.
fn check_sums(site: &Site) {
    assert_eq!(site.sql_value("SELECT count(*) FROM clicks"), LINES.to_string());
    assert_eq!(site.sql_value("SELECT sum(clicks) FROM clicks_by_minute"), LINES.to_string());
    site.verify();
    for (table, span, span_s) in [("clicks_by_hour", "hour", 3_600), ("clicks_by_day", "day", 86_400)] {
        let before = final_before(site, span_s);
        let found = sums(site, table, span, span, i64::MAX);
        assert!(found.lines().count() > 10, "{table}: {found}");
        let expected = sums(site, "clicks_by_minute", span, "minute", before);
        let differing = found.lines().zip(expected.lines()).find(|(found, expected)| found != expected);
        assert!(found == expected, "{table}: {differing:?}");
    }
}

#[test]
fn a_log_of_days_is_summed_compacted_and_dropped_and_every_answer_stays() {
    let site = Site::new();
    let lines: Vec<String> = (0..LINES).map(line).collect();
    site.write("logs/clicks.log", "");
    // In parts, each read by its own run: without upkeep, each would leave its own file.
    for part in lines.chunks(LINES as usize / 24) {
        site.append("logs/clicks.log", part.concat());
        site.adtally("run logs --data-dir data --until-end").ok();
    }
    site.adtally("run logs --data-dir data --until-end --final").ok();
    check_sums(&site);
    for table in ["clicks_by_minute", "clicks_by_hour", "ledger"] {
        assert!(files(&site, table) < 24, "{table}: {} files", files(&site, table));
    }
    let hours: usize =
        site.sql_value("SELECT count(*) FROM (SELECT DISTINCT click_date, click_hour FROM clicks)").parse().unwrap();
    // The last hour has not ended.
    assert!(files(&site, "clicks") <= hours + 1, "{} files of {hours} hours", files(&site, "clicks"));
    let always = "[store]\nupkeep_interval = \"1s\"\nlake_interval = \"1s\"\n";
    site.write("adtally.toml", always);
    let server = site.serve("logs --config adtally.toml");
    let day = "from=2025-07-03T00:00:00Z&to=2025-07-05T00:00:00Z";
    let asked = format!("/ads/top100?{day}");
    let top = server.get(&asked)["ads"].clone();
    server.stop();
    check_sums(&site);

    // Old rows are deleted, by a bounded run as well; counts come from hours and days, and queries of raw clicks are
    // rejected.
    site.write("adtally.toml", format!("{always}keep_clicks = \"8d\"\n"));
    let raw = site.sql_value("SELECT count(*) FROM clicks");
    site.adtally("run logs --config adtally.toml --data-dir data --until-end").ok();
    assert_ne!(site.sql_value("SELECT count(*) FROM clicks"), raw);
    site.write("adtally.toml", format!("{always}keep_clicks = \"1d\"\nkeep_minutes = \"8d\"\nkeep_hours = \"8d\"\n"));
    let first = "SELECT min(date_part('epoch', minute))::BIGINT FROM clicks_by_minute";
    let raw = site.sql_value("SELECT count(*) FROM clicks");
    let begin = site.sql_value(first);
    let server = site.serve("logs --config adtally.toml");
    wait_for("raw clicks to leave", || (site.sql_value("SELECT count(*) FROM clicks") != raw).then_some(()));
    wait_for("minutes to leave", || (site.sql_value(first) != begin).then_some(()));
    assert_eq!(server.get(&asked)["ads"], top);
    let (status, problem) = server.text(&format!("{asked}&filter_ip=1.2.3.4"));
    assert!((400..500).contains(&status) && problem.contains("kept from"), "{status} {problem}");
    let (status, problem) = server.text("/ads/1/clicks?from=2025-07-02T00:00:00Z&to=2025-07-02T10:00:00Z&series=true");
    assert!((400..500).contains(&status) && problem.contains("kept from"), "{status} {problem}");
    server.stop();
    site.verify();
    let days = site.sql_value("SELECT sum(clicks) FROM clicks_by_day WHERE day < TIMESTAMP '2025-07-02T00:00:00Z'");
    assert_ne!(days, "", "days are kept");
}
