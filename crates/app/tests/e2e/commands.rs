//! The output of the commands: for people on a terminal or in a pipe, and as JSON for programs.

use crate::site::{Site, end, wait_for};
use serde_json::{Value, json};

/// Clicks exported by another program: other names, seconds, semicolons.
const ODD: &str = "when;banner_id;visitor;address;land
1746093600;42;anna;10.0.0.1;us
1746093601;42;bert;2001:db8::1;de
1746093661;7;\"carl; jr.\";10.0.0.2;
1746093662;8;dora;999.0.0.1;fr
";

#[test]
fn inspect_writes_the_configuration_that_reads_the_file() {
    let site = Site::new();
    site.write("odd.csv", ODD);
    let ended = site.adtally("inspect odd.csv").ok();
    for shown in ["CSV with ';'", "banner_id", "4 lines = 3 clicks", "1 invalid", "odd.csv:5: invalid: ip"] {
        assert!(ended.stderr.contains(shown), "{shown}: {}", ended.stderr);
    }
    site.write("odd.toml", &ended.stdout);
    site.adtally("config check --config odd.toml").ok();
    let ran = site.adtally("run --config odd.toml --data-dir data --until-end").ok();
    let ledger = ran.json();
    assert_eq!((&ledger["read"], &ledger["counted"], &ledger["invalid"]), (&json!(4), &json!(3), &json!(1)));
    assert!(ran.stderr.contains("4 lines = 3 counted + 0 duplicate"), "{}", ran.stderr);
    assert!(ran.stderr.contains("odd.csv:5: invalid: ip"), "{}", ran.stderr);
    let clicks = site.sql("SELECT ad_id, user_id, ip, country FROM clicks ORDER BY click_timestamp");
    let expected = "ad_id,user_id,ip,country\n42,anna,10.0.0.1,US\n42,bert,2001:db8::1,DE\n7,carl; jr.,10.0.0.2,ZZ\n";
    assert_eq!(clicks, expected);
    let report = site.adtally("inspect odd.csv --json").ok().json();
    assert_eq!(report["configuration"], ended.stdout);
    assert_eq!((&report["lines"], &report["clicks"], &report["invalid"]), (&json!(4), &json!(3), &json!(1)));
}

#[test]
fn inspect_writes_nothing_and_reads_compressed_files() {
    let site = Site::new();
    site.adtally("generate --lines 3000 --malformed 1% --output clicks.log").ok();
    let plain = site.adtally("inspect clicks.log").ok();
    site.gzip("clicks.log");
    let compressed = site.adtally("inspect clicks.log.gz").ok();
    assert_eq!(compressed.stdout, plain.stdout.replace("clicks.log", "clicks.log.gz"));
    assert!(compressed.stderr.contains("the first 1000 lines"), "{}", compressed.stderr);
    let names: Vec<_> = std::fs::read_dir(site.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["clicks.log.gz"]);
}

#[test]
fn config_shows_each_value_with_its_origin() {
    let site = Site::new();
    site.write("adtally.toml", "[time]\nmax_jump = \"7m\"\n[identity]\nkey = \"00112233445566778899aabbccddeeff\"\n");
    let mut command = site.program();
    command.args(["config", "show", "--config", "adtally.toml"]).env("ADTALLY_EPOCH__INTERVAL", "3s");
    let shown = end(command).ok().stdout;
    let line = |key: &str| shown.lines().find(|line| line.starts_with(&format!("{key} = "))).unwrap_or_default();
    for (key, value, origin) in [
        ("max_jump", "\"7m\"", "adtally.toml"),
        ("interval", "\"3s\"", "ADTALLY_EPOCH__INTERVAL"),
        ("allowed_lateness", "\"5m\"", "default"),
    ] {
        assert!(line(key).contains(value) && line(key).contains(origin), "{key}: {shown}");
    }
    assert!(!shown.contains("ccddeeff"), "secrets are masked: {shown}");
    site.write("shown.toml", site.adtally("config show").ok().stdout);
    site.adtally("config check --config shown.toml").ok();
}

#[test]
fn count_by_ad_country_and_minute() {
    let site = Site::new();
    let words = "generate --lines 20000 --rate 100 --ads 500 --seed 5 --duplicates 2% --malformed 1%";
    site.adtally(&format!("{words} --output clicks.log --truth truth.json")).ok();
    let truth: Value = serde_json::from_slice(&site.read("truth.json")).unwrap();
    for (by, list, key) in
        [("ad", "ads", "ad_id"), ("country", "countries", "country"), ("minute", "minutes", "minute")]
    {
        let counted = site.adtally(&format!("count clicks.log --by {by} --top 3 --json")).ok().json();
        let shown = |row: &Value| match &row[key] {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let rows = |of: &Value| -> Vec<(String, Value)> {
            of.as_array().unwrap().iter().take(3).map(|row| (shown(row), row["clicks"].clone())).collect()
        };
        assert_eq!(rows(&counted["top"]), rows(&truth[list]), "{by}");
        assert_eq!(counted["top"].as_array().unwrap().len(), 3);
        for verdict in ["read", "counted", "duplicate", "malformed"] {
            assert_eq!(counted["ledger"][verdict], truth[verdict], "{verdict}");
        }
    }
    let ended = site.adtally("count clicks.log").ok();
    assert_eq!(ended.stdout.lines().count(), 11, "{}", ended.stdout);
    assert!(ended.stderr.contains("20,000 lines = "), "{}", ended.stderr);
    assert!(ended.stderr.contains("clicks.log:"), "{}", ended.stderr);
}

#[test]
fn everything_that_prints_json_prints_it_whole() {
    let site = Site::new();
    site.adtally("generate --lines 500 --malformed 2% --output clicks.log").ok();
    site.adtally("run clicks.log --data-dir data --until-end").ok().json();
    for command in [
        "ledger --data-dir data --json",
        "config check --json",
        "config show --json",
        "repair --data-dir data --json",
        "generate --clicks 10 --output new.log --json",
        "verify --data-dir data --json",
        "inspect clicks.log --json",
        "count clicks.log --json",
    ] {
        let ended = site.adtally(command).ok();
        assert!(ended.json().is_object(), "{command}");
        assert!(ended.stdout.ends_with("}\n"), "{command}");
    }
    for table in
        ["clicks", "clicks_by_minute", "clicks_by_hour", "clicks_by_day", "dead_letters", "corrections", "ledger"]
    {
        let query = format!("SELECT * FROM {table}");
        let rows = site.words(&["sql", "--data-dir", "data", "--format", "json", &query]).ok().stdout;
        for row in rows.lines() {
            assert!(serde_json::from_str::<Value>(row).unwrap().is_object(), "{table}: {row}");
        }
        let table = site.words(&["sql", "--data-dir", "data", &query]).ok().stdout;
        assert!(table.starts_with('+') && table.ends_with("+\n"), "{table}");
    }
}

/// Rows are printed as they arrive: they would not fit into memory.
#[test]
fn a_table_for_people_ends_with_its_first_rows() {
    let site = Site::new();
    site.adtally("generate --clicks 5 --output clicks.log").ok();
    site.adtally("run clicks.log --data-dir data --until-end").ok();
    let query = "SELECT value FROM generate_series(1, 1000000000000)";
    let ended = site.words(&["sql", "--data-dir", "data", query]).ok();
    assert_eq!(ended.stdout.lines().count(), 10_000 + 4);
    assert!(ended.stderr.contains("the first 10000 rows"), "{}", ended.stderr);
}

#[test]
fn json_has_counts_as_numbers_ids_as_text_and_fields_in_order() {
    let site = Site::new();
    let generated = site.adtally("generate --clicks 500 --ads 9 --output c.log --truth t.json --json").ok().stdout;
    assert_eq!(
        generated,
        "{\"read\":500,\"output\":\"c.log\",\"truth\":\"t.json\",\"counts\":\"t.counts.csv\",\"counted\":500}\n"
    );
    let ledger = site.adtally("run c.log --data-dir data --until-end --final").ok().stdout;
    let counted = site.adtally("count c.log --json --top 1").ok();
    assert!(counted.json()["top"][0]["ad_id"].is_string(), "{}", counted.stdout);
    let up_to_partitions = |text: &str| text.split_once("\"partitions\"").unwrap().0.to_owned();
    let ledger = up_to_partitions(&ledger);
    assert_eq!(up_to_partitions(&counted.stdout), format!("{{\"ledger\":{ledger}"));
    site.write("wrong.toml", "[time]\nmax_jmp = \"1s\"\n");
    let wrong = site.adtally("config check --config wrong.toml --json");
    assert_eq!(wrong.code, Some(2));
    assert_eq!(wrong.json()["valid"], false);
    assert!(wrong.json()["mistakes"][0].as_str().unwrap().contains("wrong.toml:2"), "{}", wrong.stdout);
    site.write("wrong.toml", "[time]\nmax_jmp = \"1s\"\nidle_timout = \"3s\"\n");
    let wrong = site.adtally("config check --config wrong.toml --json").json();
    assert_eq!(wrong["mistakes"].as_array().unwrap().len(), 2, "{wrong}");
}

/// Paths on the command line replace those of the configuration, in `run` as in `count`.
#[test]
fn paths_on_the_command_line_replace_those_of_the_configuration() {
    let site = Site::new();
    site.adtally("generate --clicks 7 --output one.log").ok();
    site.adtally("generate --clicks 5 --seed 2 --output two.log").ok();
    site.write("adtally.toml", "[input]\npaths = [\"one.log\"]\n");
    let read = |line: &str| site.adtally(line).ok().json()["read"].clone();
    assert_eq!(read("run --config adtally.toml --data-dir a --until-end"), 7);
    assert_eq!(read("run two.log --config adtally.toml --data-dir b --until-end"), 5);
    assert_eq!(site.adtally("count two.log --config adtally.toml --json").ok().json()["ledger"]["read"], 5);
}

/// With the configuration of the run, `ledger` prints the same as the run.
#[test]
fn ledger_equals_what_the_server_says() {
    let site = Site::new();
    site.adtally("generate --clicks 3000 --rate 100 --output clicks.log").ok();
    site.write("adtally.toml", "[time]\nout_of_orderness = \"1s\"\n[epoch]\ninterval = \"200ms\"\n");
    let server = site.serve("clicks.log --config adtally.toml");
    server.wait_read(3_000);
    wait_for("the same ledger", || {
        let printed = site.adtally("ledger --data-dir data --config adtally.toml --json").ok().stdout;
        (printed.trim_end() == server.text("/ledger").1).then_some(())
    });
    let mut command = site.program();
    command.args(["ledger", "--data-dir", "data", "--json"]).env("ADTALLY_TIME__OUT_OF_ORDERNESS", "1s");
    assert_eq!(end(command).ok().stdout.trim_end(), server.text("/ledger").1);
    let other = site.adtally("ledger --data-dir data --json").ok().json();
    assert_ne!(other["inputs"], server.get("/ledger")["inputs"]);
}

/// Every command on a data directory finds it and its settings as `run` does.
#[test]
fn settings_come_from_the_same_places_for_every_command() {
    let site = Site::new();
    site.adtally("generate --clicks 300 --output clicks.log").ok();
    site.write("adtally.toml", "[store]\ndata_dir = \"there\"\n");
    site.adtally("run clicks.log --config adtally.toml --until-end").ok();
    for line in ["ledger", "verify", "repair", "sql,SELECT 1"] {
        let code = 0;
        let run = |command: &mut std::process::Command| command.output().unwrap().status.code();
        let program = || {
            let mut command = site.program();
            command.args(line.split(','));
            command
        };
        assert_eq!(run(program().args(["--config", "adtally.toml"])), Some(code), "{line}");
        assert_eq!(run(program().env("ADTALLY_STORE__DATA_DIR", "there")), Some(code), "{line}");
        let flag_wins = run(program().args(["--data-dir", "there"]).env("ADTALLY_STORE__DATA_DIR", "nowhere"));
        assert_eq!(flag_wins, Some(code), "{line}");
        assert_eq!(run(&mut program()), Some(2), "{line}: the default is not there");
    }
    // The configured key is checked.
    let mut command = site.program();
    command.args(["verify", "--data-dir", "there"]).env("ADTALLY_IDENTITY__KEY", "00112233445566778899aabbccddeeff");
    let ended = end(command);
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stdout.contains("identity.key"), "{ended:?}");
}

/// Forms of queries, and the printed rows.
#[test]
fn sql_takes_comments_and_standard_input_and_prints_every_column() {
    let site = Site::new();
    site.adtally("generate --clicks 10 --output clicks.log").ok();
    site.adtally("run clicks.log --data-dir data --until-end").ok();
    let sql = |words: &[&str]| site.words(&[&["sql", "--data-dir", "data"], words].concat());
    let commented = "-- how many\nSELECT count(*) AS n FROM clicks";
    assert_eq!(sql(&["--format", "csv", commented]).ok().stdout, "n\n10\n");
    let row = sql(&["--format", "json", "SELECT ad_id, click_id FROM clicks LIMIT 1"]).ok().json();
    assert_eq!(row.get("click_id"), Some(&Value::Null), "{row}");
    for (words, told) in [
        (&["--format", "csv", "SELECT array_agg(ad_id) AS ads FROM clicks"][..], "`ads`"),
        (&["--no-such-flag"], "--no-such-flag"),
        (&["SELECT sum(ad_id) + 9223372036854775807 FROM clicks"], "does not fit its type"),
    ] {
        let ended = sql(words);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains(told), "{ended:?}");
    }
    let mut piped = std::process::Command::new("sh");
    let line = "echo 'SELECT 1 AS one' | \"$A\" sql --data-dir data --format csv -";
    piped.args(["-c", line]).current_dir(site.path("")).env("A", env!("CARGO_BIN_EXE_adtally"));
    assert_eq!(end(piped).ok().stdout, "one\n1\n");
    assert_eq!(sql(&["--config", "-", "-"]).code, Some(2), "one cannot be both");
}

/// (`input`, `position`) identifies a line even after its file was renamed; `ledger` uses the same input names.
#[test]
fn input_and_position_lead_to_one_line_after_a_rotation() {
    let site = Site::new();
    site.adtally("generate --clicks 100 --output all.log").ok();
    let all = String::from_utf8(site.read("all.log")).unwrap();
    let lines: Vec<&str> = all.split_inclusive('\n').collect();
    site.write("logs/a.log", lines[..50].concat());
    site.adtally("run logs --data-dir data --until-end").ok();
    std::fs::rename(site.path("logs/a.log"), site.path("logs/a.log.1")).unwrap();
    site.write("logs/a.log", lines[50..].concat());
    site.adtally("run logs --data-dir data --until-end").ok();
    let several = "SELECT count(*) FROM (SELECT input, position FROM clicks GROUP BY 1, 2 HAVING count(*) > 1)";
    assert_eq!(site.sql_value(several), "0");
    let inputs = site.sql("SELECT DISTINCT input FROM clicks ORDER BY 1");
    assert_eq!(inputs.lines().collect::<Vec<_>>(), ["input", "logs/a.log", "logs/a.log#1"]);
    let ledger = site.ledger();
    let names: Vec<_> = ledger["inputs"].as_array().unwrap().iter().map(|row| (&row["name"], &row["input"])).collect();
    assert_eq!(names, [(&json!("logs/a.log.1"), &json!("logs/a.log")), (&json!("logs/a.log"), &json!("logs/a.log#1"))]);
    let text = site.adtally("ledger --data-dir data").ok().stdout;
    assert!(text.contains("logs/a.log.1 (logs/a.log in tables): 50 lines"), "{text}");
}

#[test]
fn config_show_takes_the_flags_of_run() {
    let site = Site::new();
    let shown = site.adtally("config show a.log logs --data-dir there --listen 127.0.0.1:9 --json").ok().json();
    let rows = shown["settings"].as_array().unwrap().clone();
    let check = |key: &str, value: Value, origin: &str| {
        let row = rows.iter().find(|row| row["key"] == key).unwrap();
        assert_eq!((&row["value"], &row["origin"]), (&value, &json!(origin)), "{key}");
    };
    check("input.paths", json!(["a.log", "logs"]), "flag INPUT");
    check("store.data_dir", json!("there"), "flag --data-dir");
    check("serve.listen", json!("127.0.0.1:9"), "flag --listen");
    let wrong = site.adtally("config check --listen 9");
    assert_eq!(wrong.code, Some(2), "{wrong:?}");
}

#[test]
fn completions_are_those_of_the_shell() {
    let site = Site::new();
    for (shell, word) in
        [("bash", "complete -F _adtally"), ("zsh", "#compdef adtally"), ("fish", "complete -c adtally")]
    {
        let script = site.adtally(&format!("completions {shell}")).ok().stdout;
        assert!(script.contains(word), "{shell}");
    }
}

/// Pipes get neither bars nor colours.
#[test]
fn pipes_are_plain() {
    let site = Site::new();
    site.adtally("generate --clicks 500 --output clicks.log").ok();
    for command in ["run clicks.log --data-dir data --until-end", "count clicks.log", "run missing.log --until-end"] {
        let ended = site.adtally(command);
        let printed = ended.stdout + &ended.stderr;
        assert!(!printed.contains('\x1b') && !printed.contains('\r'), "{command}: {printed:?}");
    }
}

/// A terminal gets colours, unless `NO_COLOR` is set or the terminal is dumb. `script` gives the command a terminal.
#[test]
fn no_color_is_honoured() {
    let site = Site::new();
    let on_terminal_of = |term: &str, no_color: Option<&str>| {
        let mut command = std::process::Command::new("script");
        let line = format!("{} count missing.log", env!("CARGO_BIN_EXE_adtally"));
        command.args(["--quiet", "--return", "--command", &line, "typescript"]).current_dir(site.path(""));
        command.env_remove("NO_COLOR").env("TERM", term);
        command.envs(no_color.map(|value| ("NO_COLOR", value)));
        command.stdin(std::process::Stdio::null());
        let ended = end(command);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        ended.stdout
    };
    let on_terminal = |no_color| on_terminal_of("xterm", no_color);
    assert!(on_terminal(None).contains("\x1b["));
    assert!(!on_terminal_of("dumb", None).contains("\x1b["));
    assert!(!on_terminal(Some("1")).contains("\x1b["));
    assert!(on_terminal(Some("")).contains("\x1b["), "an empty value says nothing");
}
