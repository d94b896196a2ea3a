//! Logs with wrong settings: the operator gets a message, and nothing is lost.

use super::{SECOND, START, check, click, clicks};
use crate::site::Site;

/// 400 clicks of 400 users with the same click id.
fn clicks_with_id(click_id: &str) -> String {
    let line = |user: i64| {
        let line = click(START + user / 20 * SECOND, user);
        line.replace("\"country\"", &format!("\"click_id\":\"{click_id}\",\"country\""))
    };
    (0..400).map(line).collect()
}

/// Each user's click is counted where all bear a placeholder as click id; where all bear another text, the copies are
/// kept and the text is named.
#[test]
fn fault_63_a_placeholder_as_click_id_makes_no_copies() {
    let site = Site::new();
    for (number, placeholder) in ["-", "\\\\N", "NULL", "00000000-0000-0000-0000-000000000000", ""].iter().enumerate() {
        let name = format!("{number}.log");
        site.write(&name, clicks_with_id(placeholder));
        let ended = site.adtally(&format!("count {name}")).ok();
        assert!(ended.stderr.contains("400 lines = 400 counted"), "{placeholder}: {}", ended.stderr);
        assert!(!ended.stderr.contains("note:"), "{placeholder}: {}", ended.stderr);
    }
    site.write("logs/a.log", clicks_with_id("not-set"));
    let ended = site.adtally("run logs --data-dir data --until-end").ok();
    // Seven ads within each of twenty seconds.
    assert_eq!((&ended.json()["counted"], &ended.json()["duplicate"]), (&140.into(), &260.into()));
    assert!(ended.stderr.contains("click_id \"not-set\" repeats"), "{}", ended.stderr);
    assert!(ended.stderr.contains("input.null_values"), "{}", ended.stderr);
    let kept: u64 = site.sql_value("SELECT count(*) FROM dead_letters WHERE verdict = 'conflict'").parse().unwrap();
    let conflicting = ended.json()["conflicting_duplicates"].as_u64().unwrap();
    assert!(kept == conflicting && kept > 250, "{kept} kept, {conflicting} conflicting of 260");
    let of_users = "SELECT count(DISTINCT payload) FROM dead_letters WHERE verdict = 'conflict'";
    assert_eq!(site.sql_value(of_users), kept.to_string());
    site.verify();
}

/// An input whose lines are all refused is told within seconds, on stderr and in `/readyz`, with the reason and the
/// setting that would help, also beside inputs that are read well, and no more once its lines are accepted.
#[test]
fn fault_65_whoever_feeds_seconds_as_milliseconds_is_told() {
    let site = Site::new();
    let seconds: String = (0..300).map(|user| click(START / SECOND + user, user)).collect();
    site.write("logs/good.log", clicks(0..600));
    site.write("adtally.toml", "[epoch]\ninterval = \"100ms\"\n");
    let server = site.serve("logs --config adtally.toml");
    server.wait_read(600);
    assert!(!server.text("/readyz").1.contains("are rejected"));
    site.write("logs/bad.log", &seconds);
    let told = "is 1970-01-21 in ms; it would be 2025-06-02 in s: set input.timestamp_unit";
    server.wait_readiness(200, told);
    assert!(server.text("/readyz").1.contains("logs/bad.log: 300 of its last 300 lines are rejected"));
    assert!(server.said().contains(told), "{}", server.said());
    site.append("logs/bad.log", clicks(600..1_200));
    server.wait_read(1_500);
    assert!(!server.text("/readyz").1.contains("are rejected"));
    server.stop();
    check(&site, &clicks(0..1_200), &[("invalid", 300)]);
    for command in ["count logs/good.log logs/new.log", "run logs --data-dir data --until-end"] {
        site.write("logs/new.log", &seconds);
        let ended = site.adtally(command).ok();
        assert!(
            ended.stderr.contains("note: logs/new.log: 300 of its last 300 lines are rejected"),
            "{}",
            ended.stderr
        );
    }
}

/// A column of countries none of which is known is told, with what stands in it; a log without the field is not.
#[test]
fn fault_65_a_column_without_a_known_country_is_told() {
    let site = Site::new();
    site.write("logs/a.log", clicks(0..300).replace("\"US\"", "\"Germany\""));
    site.write("logs/b.log", clicks(300..600).replace(",\"country\":\"US\"", ""));
    let ended = site.adtally("run logs --data-dir data --until-end").ok();
    let told = "note: logs/a.log: none of its last 300 clicks has a known country, so they are counted as ZZ: the \
                field has \"Germany\"";
    assert!(ended.stderr.contains(told) && !ended.stderr.contains("note: logs/b.log"), "{}", ended.stderr);
    // A service reports it while it continues, until a known country arrives.
    let server = site.serve("logs");
    site.append("logs/a.log", clicks(600..700).replace("\"US\"", "\"Germany\""));
    server.wait_readiness(200, "logs/a.log: none of its last 100 clicks has a known country");
    site.append("logs/a.log", clicks(700..701));
    server.wait_read(701);
    assert!(!server.text("/readyz").1.contains("known country"), "{}", server.text("/readyz").1);
    server.stop();
}
