//! Mistakes and their messages; the defaults; the output of `config show`.

use super::*;
use adtally_model::{ErrorKind, IdentityKey};
use std::time::Duration;

fn load_text(file: &str, environment: &[(&str, &str)], flags: &[FlagSetting]) -> Result<(RawConfig, Config)> {
    let environment: Vec<_> = environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    let raw = RawConfig::merge(&Sources { file: Some(("c.toml", file)), environment: &environment, flags })?;
    let config = Config::validate(&raw)?;
    Ok((raw, config))
}

/// Loads a file that must be rejected, with messages that contain each of `expected`.
fn check(file: &str, expected: &[&str]) {
    check_environment(file, &[], expected);
}

fn check_environment(file: &str, environment: &[(&str, &str)], expected: &[&str]) {
    let error = load_text(file, environment, &[]).expect_err(file);
    assert_eq!(error.kind(), ErrorKind::User);
    for expected in expected {
        assert!(error.to_string().contains(expected), "{file}: {error} lacks {expected}");
    }
}

#[test]
fn syntax_and_unknown_names_are_told_with_their_place() {
    check("[time]\nmax_jump = \n", &["c.toml:2: not valid TOML"]);
    check("[time]\nmax_jumps = \"5m\"", &["c.toml:2: unknown setting time.max_jumps; did you mean time.max_jump?"]);
    check("max_jump = \"5m\"", &["c.toml:1: unknown setting max_jump; did you mean time.max_jump?"]);
    check("[epoch]\nlisten = \"127.0.0.1:1\"", &["unknown setting epoch.listen; did you mean serve.listen?"]);
    check("[log]\ncolour_of_hair = 1", &["c.toml:2: unknown setting log.colour_of_hair; [log] has format, level"]);
    check("\n[tiem]\nmax_jump = \"5m\"", &["c.toml:2: unknown section [tiem]; did you mean [time]?"]);
    check("[input.field]\nip = \"a\"", &["unknown section [input.field]; did you mean [input.fields]?"]);
    check("[elsewhere.entirely]", &["the sections are input, input.fields, time, epoch"]);
    check("time = 5", &["c.toml:1: time is a section: write [time]"]);
    check("[time.max_jump]\nx = 1", &["c.toml:1: time.max_jump is a setting, not a section"]);
    check(
        "[a]\n[log]\nlevel = \"info\"\nlevle = 1\n",
        &["2 mistakes", "c.toml:1", "c.toml:4", "did you mean log.level?"],
    );
}

#[test]
fn wrong_types_and_ranges_are_told_with_what_is_allowed() {
    check(
        "[time]\nmax_jump = 5",
        &["c.toml:2: time.max_jump must be a duration from \"1s\" to \"1d\"", "not the number 5"],
    );
    check("[time]\nmax_jump = \"5\"", &["such as \"250ms\", \"5s\"", "not the text \"5\""]);
    check("[time]\nmax_jump = \"2d\"", &["to \"1d\""]);
    check("[time]\nmax_jump = 1979-05-27", &["not the time 1979-05-27"]);
    check("[epoch]\nmax_lines = 0", &["a whole number from 1 to 100000000, not the number 0"]);
    check("[epoch]\nmax_lines = 1e6", &["not the number 1e6"]);
    check("[epoch]\nmax_lines = \"many\"", &["not the text \"many\""]);
    check("[epoch]\nmax_lines = 99999999999999999999", &["not the number 99999999999999999999"]);
    check("[epoch]\nfsync = \"yes\"", &["epoch.fsync must be true or false"]);
    check("[epoch]\nmax_bytes = \"1KB\"", &["a size from \"64KiB\" to \"4GiB\""]);
    check("[serve]\nlisten = \"8080\"", &["serve.listen must be an IP address and a port"]);
    check("[log]\nlevel = \"loud\"", &["one of \"error\", \"warn\", \"info\", \"debug\", \"trace\""]);
    check("[input]\nformat = \"xml\"", &["one of \"auto\", \"ndjson\", \"csv\""]);
    check("[input]\ncsv_delimiter = \"x\"", &["\",\", \";\", \"\\t\", \"|\""]);
    check("[input]\npaths = \"a.log\"", &["input.paths must be a list of texts"]);
    check(
        "[input]\nnull_values = \"-\"",
        &["input.null_values must be a list of at most 64 texts of at most 128 bytes"],
    );
    check("[input]\npaths = [1]", &["not a list that holds more than text"]);
    check("[input.fields]\nip = \"\"", &["input.fields.ip must be a text of 1 to 128 bytes"]);
    check("[store]\ndata_dir = \"\"", &["store.data_dir"]);
    check("[log]\nlevel = 1\nformat = 2", &["2 mistakes", "c.toml:2", "c.toml:3"]);
}

/// Commas separate values, except in braces; an array is unambiguous.
#[test]
fn lists_in_the_environment() {
    let check = |text: &str, expected: &[&str]| {
        let (_, config) = load_text("", &[("ADTALLY_INPUT__PATHS", text)], &[]).expect(text);
        assert_eq!(config.run.source.paths, expected, "{text}");
    };
    check("a.log", &["a.log"]);
    check(" a.log , b.log,", &["a.log", "b.log"]);
    check("logs/{a,b}.log,more/{c,{d,e}}.log", &["logs/{a,b}.log", "more/{c,{d,e}}.log"]);
    check("a}b,c", &["a}b", "c"]);
    check("[ab].log,[cd].log", &["[ab].log", "[cd].log"]);
    check(r#"["a,b.log", 'c{d.log']"#, &["a,b.log", "c{d.log"]);
    check(" [ \"a\", ] ", &["a"]);
    check("[]", &[]);
    check("", &[]);
    check_environment("", &[("ADTALLY_INPUT__PATHS", "[\"a\", 1]")], &["not a list that holds more than text"]);
    for wrong in ["[\"a\"", "[\"a\"]\nother = 1", "['a',b]"] {
        check_environment("", &[("ADTALLY_INPUT__PATHS", wrong)], &["not an array that is not valid TOML"]);
    }
}

#[test]
fn settings_that_contradict_each_other_are_told_with_both_places() {
    check(
        "[time]\ndedup_horizon = \"1m\"",
        &["time.dedup_horizon (\"1m\", c.toml:2) must not be less than time.allowed_lateness (\"5m\", default)"],
    );
    check("[input]\nblock = \"64KiB\"\nmax_line = \"1MiB\"", &["input.max_line", "must not be more than input.block"]);
    check(
        "[input.fields]\nip = \"ad_id\"",
        &["input.fields.ip (\"ad_id\", c.toml:2) must differ from input.fields.ad_id"],
    );
}

#[test]
fn a_wrong_key_is_refused_without_being_shown() {
    let secret = "0123456789abcdef0123456789abcdeX";
    let error = load_text(&format!("[identity]\nkey = \"{secret}\""), &[], &[]).expect_err("not hex");
    assert!(
        error.to_string().contains("c.toml:2: identity.key must be 32 hex digits, or empty, not a text of 32 bytes")
    );
    check("[identity]\nkey = 12345678901234567", &["not a number"]);
    let syntax = load_text(&format!("[identity]\nkey = {secret}"), &[], &[]).expect_err("no quotes");
    assert!(!syntax.to_string().contains(secret), "{syntax}");
}

#[test]
fn the_environment_is_read_by_the_type_of_the_default() {
    let environment = [
        ("ADTALLY_TIME__MAX_JUMP", "20m"),
        ("ADTALLY_EPOCH__MAX_LINES", "7"),
        ("ADTALLY_EPOCH__FSYNC", "false"),
        ("ADTALLY_INPUT__PATHS", "a.log, b/*.log"),
        ("ADTALLY_INPUT__FIELDS__AD_ID", "ad"),
        ("ADTALLY_PYTHON", "not a setting"),
        ("HOME", "/"),
    ];
    let (_, config) = load_text("", &environment, &[]).expect("fine");
    assert_eq!(
        (config.run.time.max_jump_ms, config.run.epoch.lines_max, config.run.epoch.fsync),
        (1_200_000, 7, false)
    );
    assert_eq!(config.run.source.paths, ["a.log", "b/*.log"]);
    assert_eq!(config.run.source.tail.decode.fields.ad_id, "ad");

    let wrong = |name, value, expected: &str| check_environment("", &[(name, value)], &[expected]);
    wrong(
        "ADTALLY_EPOCH__MAX_LINES",
        "x",
        "environment ADTALLY_EPOCH__MAX_LINES: epoch.max_lines must be a whole number",
    );
    wrong("ADTALLY_TIME__MAX_JUMPS", "1m", "ADTALLY_TIME__MAX_JUMPS: unknown setting time.max_jumps; did you mean");
    wrong("ADTALLY_TIME_MAX_JUMP", "1m", "did you mean ADTALLY_TIME__MAX_JUMP, with two underscores?");
}

#[test]
fn flags_win_over_environment_over_file_over_defaults_and_each_origin_is_shown() {
    let file = "\n[log]\nlevel = \"debug\"\nformat = \"json\"\n[serve]\nlisten = \"0.0.0.0:1\"\n[identity]\nkey = \"000102030405060708090a0b0c0d0e0f\"\n";
    let environment = [("ADTALLY_SERVE__LISTEN", "0.0.0.0:2"), ("ADTALLY_LOG__LEVEL", "warn")];
    let listen = FlagSetting { flag: "--listen", key: "serve.listen", value: Value::Text("[::1]:3".to_owned()) };
    let (raw, config) = load_text(file, &environment, &[listen]).expect("fine");
    assert_eq!(config.listen.to_string(), "[::1]:3");
    assert_eq!(config.log.level, LogLevel::Warn);
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.run.identity_key, Some(IdentityKey::new([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15])));

    let shown = raw.shown();
    let origin = |key: &str| shown.iter().find(|row| row.key == key).map(|row| row.origin.as_str());
    assert_eq!(origin("serve.listen"), Some("flag --listen"));
    assert_eq!(origin("log.level"), Some("environment ADTALLY_LOG__LEVEL"));
    assert_eq!(origin("log.format"), Some("c.toml:4"));
    assert_eq!(origin("time.max_jump"), Some("default"));
    let text = raw.shown_as_toml();
    assert!(text.contains("key = \"***\"") && !text.contains("0c0d0e0f"), "{text}");
    assert!(!format!("{config:?}").contains("15]"), "{config:?}");

    let json = serde_json::to_value(&shown).expect("JSON");
    let value = |key: &str| json.as_array()?.iter().find(|row| row["key"] == key).map(|row| row["value"].clone());
    assert_eq!(value("store.hot_minutes"), Some(60.into()));
    assert_eq!(value("epoch.fsync"), Some(true.into()));
    assert_eq!(value("input.paths"), Some(serde_json::json!([])));
    assert_eq!(value("identity.key"), Some("***".into()));
    assert_eq!(value("time.max_jump"), Some("10m".into()));

    let again = RawConfig::merge(&Sources { file: Some(("shown", &text)), ..Sources::default() }).expect("valid TOML");
    assert_eq!(again.get("serve.listen").map(|setting| &setting.value), Some(&Value::Text("[::1]:3".to_owned())));
}

#[test]
fn unknown_flags_are_a_defect_that_is_told() {
    let flag = FlagSetting { flag: "--x", key: "no.such", value: Value::Integer(1) };
    assert!(load_text("", &[], &[flag]).is_err_and(|error| error.to_string().contains("--x")));
}

#[test]
fn defaults_are_valid_commented_and_complete() {
    let (raw, config) = load_text("", &[], &[]).expect("the defaults are valid");
    // Settings built in code have the same defaults.
    assert_eq!(config.run, Settings::default());
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.run.epoch.interval, Duration::from_secs(10));
    assert_eq!(config.run.identity_key, None);
    // Each setting and each section is explained directly above it.
    let lines: Vec<_> = DEFAULT_TOML.lines().collect();
    let keys = lines.iter().enumerate().filter(|(_, line)| line.contains(" = ") && !line.starts_with('#'));
    let mut count = 0;
    for (at, line) in keys {
        assert!(lines[at - 1].starts_with("# "), "{line} has no comment");
        count += 1;
    }
    assert_eq!(count, raw.settings().len());
    // Each setting has an effect: another value is another configuration or an error.
    for setting in raw.settings() {
        let other = match &setting.value {
            Value::Integer(number) => Value::Integer(number + 1),
            Value::Boolean(answer) => Value::Boolean(!answer),
            _ => Value::Other("something else".to_owned()),
        };
        let flag = FlagSetting { flag: "--x", key: String::leak(setting.key.clone()), value: other };
        assert!(load_text("", &[], &[flag]).map_or(true, |(_, other)| other != config), "{} is not read", setting.key);
    }
}

#[test]
fn the_fingerprint_changes_with_what_verdicts_depend_on_and_with_nothing_else() {
    let fingerprint = |file: &str| load_text(file, &[], &[]).expect(file).1.run.fingerprint();
    let default = fingerprint("");
    assert_eq!(default, 2_283_466_157_713_920_748, "stored in every epoch: it must not change between versions");
    let changed = r#"
        time.max_jump = "9m"
        [input]
        format = "csv"
        csv_delimiter = "\t"
        timestamp_unit = "us"
        max_line = "1MiB"
        block = "1MiB"
        null_values = ['"']
        fields.ip = 'a\b'
    "#;
    assert_eq!(fingerprint(changed), 15_350_933_951_241_520_950, "as little as that of the defaults");
    for file in [
        "[time]\nallowed_lateness = \"4m\"",
        "[time]\nalignment = \"61s\"",
        "[input]\nmax_line = \"32KiB\"",
        "[input]\ntimestamp_unit = \"s\"",
        "[input]\nnull_values = [\"-\"]",
        "[input.fields]\nip = \"addr\"",
    ] {
        assert_ne!(fingerprint(file), default, "{file}");
    }
    let nulls = "[input]\nnull_values = ['', '-', '\\N', 'null', 'NULL', '00000000-0000-0000-0000-000000000000']";
    for file in ["[log]\nlevel = \"warn\"", "[epoch]\ninterval = \"1s\"", "[time]\nmax_jump = \"600s\"", nulls] {
        assert_eq!(fingerprint(file), default, "{file}");
    }
}

#[test]
fn a_field_without_a_setting_is_a_defect_that_is_told() {
    #[derive(Debug, serde::Deserialize)]
    struct Wrong {
        #[serde(rename = "time")]
        _time: Time,
    }
    #[derive(Debug, serde::Deserialize)]
    struct Time {
        #[serde(rename = "no_such")]
        _no_such: bool,
    }
    let (raw, _) = load_text("", &[], &[]).expect("the defaults are valid");
    let mistake = Wrong::deserialize(deserialize::Section::whole(&raw)).expect_err("there is no such setting");
    assert_eq!(mistake.to_string(), "config/default.toml lacks time.no_such");
}

#[test]
fn passwords_of_kafka_are_not_shown() {
    let options = "[kafka]\noptions = [\"sasl.password=hunter2\", \"ssl.key.password=hunter3\", \"sasl.mechanisms=PLAIN\", \"linger.ms=9\"]";
    let (raw, _) = load_text(options, &[], &[]).unwrap();
    let shown = raw.shown_as_toml();
    assert!(!shown.contains("hunter"), "{shown}");
    for expected in ["sasl.password=***", "ssl.key.password=***", "sasl.mechanisms=PLAIN", "linger.ms=9"] {
        assert!(shown.contains(expected), "{shown}");
    }
}
