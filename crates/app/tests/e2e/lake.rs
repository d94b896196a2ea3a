//! Other programs read the lake: the Python packages `deltalake` and `polars` find the sums that `adtally sql` finds.

use crate::expected::Expected;
use crate::site::{Site, end};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// The values that the other readers print, from `adtally sql`.
fn sums(site: &Site) -> Value {
    let number = |query: &str| -> Value { site.sql_value(query).parse::<u64>().unwrap_or_default().into() };
    let rows = |query: &str| -> Value {
        let csv = site.sql(query);
        csv.lines().skip(1).map(|row| row.split(',').collect::<Vec<_>>()).collect()
    };
    json!({
        "raw_clicks": number("SELECT count(*) FROM clicks"),
        "raw_users": number("SELECT count(DISTINCT user_id) FROM clicks"),
        "clicks": number("SELECT sum(clicks) FROM clicks_by_minute"),
        "ads": number("SELECT count(DISTINCT ad_id) FROM clicks_by_minute"),
        "minutes": rows(
            "SELECT date_part('epoch', minute)::BIGINT, sum(clicks) FROM clicks_by_minute GROUP BY 1 ORDER BY 1"
        ),
        "by_hour": rows("SELECT date_part('epoch', hour)::BIGINT, sum(clicks) FROM clicks_by_hour GROUP BY 1 ORDER BY 1"),
        "by_day": rows("SELECT date_part('epoch', day)::BIGINT, sum(clicks) FROM clicks_by_day GROUP BY 1 ORDER BY 1"),
        "countries": rows("SELECT country, sum(clicks) FROM clicks_by_minute GROUP BY 1 ORDER BY 1"),
        "hours": rows("SELECT CAST(click_date AS VARCHAR), click_hour, count(*) FROM clicks GROUP BY 1, 2 ORDER BY 1, 2"),
        "dead_letters": rows("SELECT verdict, count(*) FROM dead_letters GROUP BY 1 ORDER BY 1"),
        "read": number("SELECT max(read) FROM ledger WHERE input IS NULL"),
    })
}

/// The interpreter with the packages, which `cargo xtask test` creates and names.
pub(crate) fn interpreter() -> String {
    let requirements = "tests/python/requirements.txt";
    let python = std::env::var("ADTALLY_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let import = "import deltalake, duckdb, duckdb_extension_delta, duckdb_extension_httpfs, polars, pyspark";
    let lacks = match Command::new(&python).args(["-c", import]).output() {
        Ok(output) if output.status.success() => return python,
        Ok(output) => String::from_utf8_lossy(&output.stderr).lines().next_back().unwrap_or_default().to_owned(),
        Err(error) => error.to_string(),
    };
    panic!(
        "{python} lacks packages with which tests read the lake ({lacks}). Install them and say where:\n    \
         python3 -m venv venv && venv/bin/pip install -r {requirements} && export ADTALLY_PYTHON=$PWD/venv/bin/python"
    );
}

fn check(site: &Site, reader: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/python/read_lake.py");
    let mut command = Command::new(interpreter());
    command.arg(script).args([reader, "data/lake"]).current_dir(site.path(""));
    let found = end(command).ok().json();
    assert_eq!(found, sums(site), "{reader}");
}

#[test]
fn deltalake_and_polars_find_the_same_sums() {
    let site = Site::new();
    let words =
        "--lines 60000 --rate 10 --seed 31 --duplicates 2% --late 1% --malformed 1% --invalid 1% --click-ids 30%";
    let expected = Expected::generate(&site, "clicks.log", &format!("{words} --start 2025-07-01T22:30:00Z"));
    let text = site.read("clicks.log");
    // Several lake commits: half of the log, the rest while serving, and the end.
    let half = text.len() / 2;
    site.write("logs/clicks.log", &text[..half]);
    site.adtally("run logs --data-dir data --until-end").ok();
    check(&site, "deltalake");
    site.write("adtally.toml", "[store]\nlake_interval = \"1s\"\n[epoch]\ninterval = \"200ms\"\n");
    let server = site.serve("logs --config adtally.toml");
    site.append("logs/clicks.log", &text[half..]);
    server.wait_read(expected.lines());
    server.stop();
    site.adtally("run logs --data-dir data --until-end --final").ok();
    expected.check_data(&site);
    check(&site, "deltalake");
    check(&site, "polars");
}
