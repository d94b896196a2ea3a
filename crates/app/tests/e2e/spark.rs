//! The Spark job of `deploy/spark`, with a real Spark: it finds what `adtally reconcile` finds, which applies it once.

use crate::faults::{START, click};
use crate::lake::interpreter;
use crate::reconcile::change;
use crate::site::{Site, end, provided};
use adtally_model::time::rfc3339;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

const SECOND: i64 = 1_000;
const HOUR: i64 = 3_600 * SECOND;

/// The arguments of `spark-submit` for a small Spark with Delta, and more of them. The jars are those that `cargo xtask test`
/// provides.
pub(crate) fn submit_arguments(more: &str) -> String {
    let folder = provided("ADTALLY_SPARK_JARS");
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let paths = files.map(|file| file.unwrap().path());
    let mut jars: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|name| name == "jar")).collect();
    assert!(!jars.is_empty(), "{} has no jars", folder.display());
    jars.sort();
    let jars: Vec<String> = jars.iter().map(|jar| jar.display().to_string()).collect();
    // The defaults of partitions and of the compiler are for clusters and long runs: with them, this takes twice as long.
    format!(
        "--master local[2] --driver-memory 1g --jars '{}' --driver-java-options -XX:TieredStopAtLevel=1 \
         --conf spark.sql.extensions=io.delta.sql.DeltaSparkSessionExtension \
         --conf spark.sql.catalog.spark_catalog=org.apache.spark.sql.delta.catalog.DeltaCatalog \
         --conf spark.databricks.delta.snapshotPartitions=2 --conf spark.sql.shuffle.partitions=4 \
         --conf spark.ui.enabled=false --conf spark.driver.bindAddress=127.0.0.1 --conf spark.driver.host=127.0.0.1 \
         {more} pyspark-shell",
        jars.join(",")
    )
}

/// Runs the job. Returns its findings.
fn spark(site: &Site) -> Vec<Value> {
    let job = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/spark/reconcile.py");
    let mut command = Command::new(interpreter());
    command.arg(job).args(["--lake", "data/lake", "--findings", "findings.jsonl"]).current_dir(site.path(""));
    command.env("PYSPARK_SUBMIT_ARGS", submit_arguments("")).env("TZ", "America/New_York");
    end(command).ok();
    let findings = String::from_utf8(site.read("findings.jsonl")).unwrap();
    findings.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn spark_finds_the_same_and_its_findings_are_applied_once() {
    let site = Site::new();
    let users = |from: i64, to: i64, offset: i64| -> String {
        (from..to).map(|user| click(START + user * 2 * SECOND + offset, user + 100_000 * offset)).collect()
    };
    // Raw clicks of two days before are dropped at the end of the next run; their counts stay.
    site.write("adtally.toml", "[store]\nkeep_clicks = \"1d\"\n");
    let dropped: String = (0..100).map(|user| click(START - 48 * HOUR + user * SECOND, user)).collect();
    let on_time = users(0, 5_400, 0);
    site.write("logs/a.log", format!("{dropped}{on_time}"));
    site.adtally("run logs --config adtally.toml --data-dir data --until-end --final").ok();
    let late = users(100, 300, 1);
    // Late, and twice; and copies of clicks that were counted.
    site.append("logs/a.log", format!("{late}{late}{}", users(10, 20, 0)));
    site.adtally("run logs --config adtally.toml --data-dir data --until-end --final").ok();
    let at = |hour: i64, seconds: i64| rfc3339(START + hour * HOUR + seconds * SECOND);
    let alter = format!("predicate=\"minute = '{}' AND ad_id = 3\", updates={{'clicks': 'clicks + 5'}}", at(1, 120));
    change(&site, "clicks_by_minute", &format!("update({alter})"));
    let damage = format!("predicate=\"click_timestamp = '{}'\", updates={{'user_id': \"'someone'\"}}", at(2, 600));
    change(&site, "clicks", &format!("update({damage})"));

    let found = site.adtally("reconcile --data-dir data --dry-run --json");
    let (code, expected) = (found.code, found.json());
    assert_eq!(code, Some(3));
    let corrections = json!({"late": {"rows": 200, "clicks": 200}, "count": {"rows": 1, "clicks": -5}});
    assert_eq!(expected["corrections"], corrections, "{expected}");
    let findings = spark(&site);
    let of = |cause: &str| -> Vec<&Value> { findings.iter().filter(|finding| finding["cause"] == cause).collect() };
    assert_eq!((of("late").len(), of("count").len(), of("damaged").len(), findings.len()), (200, 1, 1, 202));
    let count = of("count")[0];
    assert_eq!((&count["ad_id"], &count["clicks"]), (&json!(3), &json!(-5)), "{count}");
    assert!(count["span"].as_str().unwrap().starts_with(&at(1, 120)[..19]), "{count}");
    assert!(of("damaged")[0]["event_hour"].as_str().unwrap().starts_with(&at(2, 0)[..19]));

    let apply = || {
        let applied = site.adtally("reconcile --data-dir data --json --apply findings.jsonl");
        assert_eq!(applied.code, Some(3), "the damage is reported: {}", applied.stderr);
        applied.json()
    };
    let applied = apply();
    assert_eq!((&applied["corrections"], &applied["damaged_hours"]), (&corrections, &json!(1)), "{applied}");
    // The corrections are the rows that Spark found.
    let rows = site.sql(
        "SELECT date_part('epoch', click_timestamp)::BIGINT, ad_id, user_id, ip, country, input, position FROM clicks \
         WHERE partition = 65535",
    );
    let rows: BTreeSet<&str> = rows.lines().skip(1).collect();
    let row = |finding: &Value| {
        let ms = adtally_model::time::parse_rfc3339(finding["click_timestamp"].as_str().unwrap().as_bytes()).unwrap();
        let texts = ["user_id", "ip", "country", "input"].map(|field| finding[field].as_str().unwrap()).join(",");
        format!("{},{},{texts},{}", ms / SECOND, finding["ad_id"], finding["position"])
    };
    let of_spark: BTreeSet<String> = of("late").into_iter().map(row).collect();
    assert_eq!(rows, of_spark.iter().map(String::as_str).collect());
    assert_eq!(apply()["corrections"], json!({}), "applied once");
    site.write("nonsense.jsonl", "{\"cause\":\"late\"}\n");
    let refused = site.adtally("reconcile --apply nonsense.jsonl --data-dir data");
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("nonsense.jsonl:1: not a finding"), "{}", refused.stderr);
}
