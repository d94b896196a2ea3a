//! Every exit code. Code 5, a defect of the program, cannot be caused from outside, since known causes are fixed: the
//! unit tests of `exit` and `cli` cover it. Code 130 is in `stopping`.

use crate::site::{Site, end};
use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

const LINE: &str = r#"{"click_timestamp":1746093600000,"ad_id":1,"user_id":"a","ip":"10.0.0.1","country":"US"}"#;

/// Checks the exit code of a command line, and a word of its explanation on standard error.
fn check(site: &Site, line: &str, expected: (i32, &str)) {
    check_words(site, &line.split_whitespace().collect::<Vec<_>>(), expected);
}

fn check_words(site: &Site, words: &[&str], (code, word): (i32, &str)) {
    let ended = site.words(words);
    assert_eq!(ended.code, Some(code), "{words:?}: {ended:?}");
    assert!(ended.stderr.contains(word), "{words:?}: {ended:?}");
    if code != 0 && code != 3 {
        assert_eq!(ended.stdout, "", "{words:?}: {ended:?}");
    }
}

/// A site with one committed click.
fn counted() -> Site {
    let site = Site::new();
    site.write("clicks.log", format!("{LINE}\n"));
    site.adtally("run clicks.log --data-dir data --until-end").ok();
    site
}

#[test]
fn zero_done() {
    let site = counted();
    check(&site, "run clicks.log --data-dir data --until-end --final", (0, "1 lines = 1 counted"));
    check(&site, "verify --data-dir data", (0, ""));
    check(&site, "ledger --data-dir data", (0, ""));
    check(&site, "count clicks.log", (0, "1 lines = 1 counted"));
    check(&site, "inspect clicks.log", (0, "1 lines = 1 clicks"));
    check(&site, "generate --clicks 3", (0, ""));
    check(&site, "config check", (0, ""));
    check(&site, "--version", (0, ""));
    let help = site.adtally("--help").ok();
    for code in 0..=5 {
        assert!(help.stdout.contains(&format!("\n  {code}  ")), "{}", help.stdout);
    }
    for command in ["demo", "run", "count", "inspect", "config", "generate", "sql", "ledger", "verify", "completions"] {
        assert!(help.stdout.contains(&format!("\n  {command} ")), "{command}: {}", help.stdout);
        check(&site, &format!("{command} --help"), (0, ""));
    }
}

#[test]
fn one_something_outside_failed() {
    let site = counted();
    check(&site, "generate --clicks 5 --output missing/clicks.log", (1, "missing/clicks.log"));
    let mut command = site.program();
    command.args(["ledger", "--data-dir", "data", "--json"]);
    // No user, not even root, can read its first bytes.
    check(&site, "inspect /proc/self/mem", (1, "/proc/self/mem"));
    site.write("broken.gz", [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3][..], &[0xff; 50]].concat());
    check(&site, "inspect broken.gz", (1, "broken.gz"));
    // A device that is always full.
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let status = command.stdout(full).stderr(Stdio::null()).status().unwrap();
    assert_eq!(status.code(), Some(1));
    let mut command = site.program();
    command.args(["count", "clicks.log"]).env("TMPDIR", site.path("missing"));
    assert_eq!(end(command).code, Some(1));
}

#[test]
fn two_wrong_argument_configuration_or_query() {
    let site = counted();
    site.write("unknown.toml", "[time]\nmax_jmp = \"3s\"\n");
    site.write("range.toml", "[time]\ndedup_horizon = \"1m\"\n");
    site.write("syntax.toml", "[time\n");
    for (line, word) in [
        ("", "Usage"),
        ("rnu", "rnu"),
        ("run --until-end --data-dir new", "nothing to read"),
        ("run missing.log --until-end --data-dir new", "missing.log"),
        ("run clicks.log --final --data-dir new", "--until-end"),
        ("run clicks.log --listen 8080 --data-dir new", "--listen"),
        ("run clicks.log --config missing.toml", "missing.toml"),
        ("run clicks.log --config unknown.toml", "max_jump"),
        ("config check --config unknown.toml", "unknown.toml:2"),
        ("config check --config range.toml", "allowed_lateness"),
        ("config check --config syntax.toml", "syntax.toml:1"),
        ("count missing.log", "missing.log"),
        ("count clicks.log --by colour", "colour"),
        ("inspect missing.log", "missing.log"),
        ("inspect data", "data"),
        ("generate --clicks 0", "--clicks"),
        ("generate --clicks 5 --duplicates 200%", "--duplicates"),
        ("generate --clicks 5 --output same --truth same", "same file"),
        ("generate --clicks 5 --json", "--output"),
        ("ledger --data-dir missing", "missing"),
        ("verify --data-dir missing", "missing"),
        ("completions tcl", "tcl"),
    ] {
        check(&site, line, (2, word));
    }
    assert!(!site.path("new/lake").exists(), "a mistake makes no data");
    for (query, word) in [
        ("SELECT nothing FROM clicks", "nothing"),
        ("SELECT 1; SELECT 2", "single"),
        ("DROP TABLE clicks", "read only"),
        ("INSERT INTO clicks_by_minute SELECT * FROM clicks_by_minute", "read only"),
        ("COPY (SELECT 1) TO 'out.csv' STORED AS CSV", "read only"),
        ("CREATE EXTERNAL TABLE f STORED AS CSV LOCATION 'clicks.log'", "read only"),
        ("SELECT * FROM 'clicks.log'", "clicks.log"),
        ("SELECT * FROM read_csv('clicks.log')", "read_csv"),
        ("SELEKT 1", "SELEKT"),
    ] {
        check_words(&site, &["sql", "--data-dir", "data", query], (2, word));
    }
    assert!(!site.path("out.csv").exists());
}

/// Arguments that are not text are rejected by name and never altered.
#[test]
fn two_for_what_is_not_utf8() {
    let site = counted();
    let odd = OsStr::from_bytes(b"caf\xe9");
    let check = |command: &mut Command, word: &str| {
        let found = command.output().unwrap();
        let said = String::from_utf8(found.stderr).unwrap();
        assert_eq!(found.status.code(), Some(2), "{said}");
        assert!(said.contains(word) && said.contains("caf\\xE9"), "{said}");
    };
    check(site.program().args(["run", "clicks.log", "--until-end", "--data-dir"]).arg(odd), "argument 5");
    check(site.program().arg("count").arg(odd), "argument 2");
    check(site.program().args(["config", "check"]).env("ADTALLY_STORE__DATA_DIR", odd), "ADTALLY_STORE__DATA_DIR");
    check(site.program().args(["count", "clicks.log"]).env("TMPDIR", odd), "TMPDIR");
    // Variables of other programs may have any content.
    assert!(site.program().args(["config", "check"]).env("OTHER", odd).output().unwrap().status.success());
}

#[test]
fn two_for_a_port_in_use() {
    let site = counted();
    let server = site.serve("clicks.log");
    let line = format!("run clicks.log --data-dir other --listen {}", server.address());
    check(&site, &line, (2, server.address()));
    assert!(!site.path("other").exists(), "nothing was touched");
}

#[test]
fn three_damaged() {
    let site = counted();
    let record = "data/epochs/00000/00000000000000000002.epoch";
    let whole = site.read(record);
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    let commands = ["verify --data-dir data", "ledger --data-dir data", "run clicks.log --data-dir data --until-end"];
    for damaged in [&flipped[..], &whole[..whole.len() / 2], b""] {
        site.write(record, damaged);
        for command in commands {
            let ended = site.adtally(command);
            assert_eq!(ended.code, Some(3), "{ended:?}");
            let said = ended.stdout + &ended.stderr;
            assert!(said.contains(record.trim_start_matches("data/")), "{said}");
        }
    }
    let report = site.adtally("verify --data-dir data --json").json();
    assert_eq!(report["sound"], false, "{report}");
    site.write(record, whole);
    site.verify();
    // The lake without the file with its counts.
    let counts = std::fs::read_dir(site.path("data/lake/clicks_by_minute")).unwrap();
    let counts = counts.map(|entry| entry.unwrap().path()).find(|path| path.extension().is_some()).unwrap();
    std::fs::remove_file(counts).unwrap();
    let ended = site.adtally("verify --data-dir data");
    assert_eq!(ended.code, Some(3), "{ended:?}");
    assert!(ended.stdout.contains("clicks_by_minute"), "{ended:?}");
}

#[test]
fn four_in_use() {
    let site = counted();
    let server = site.serve("clicks.log");
    check(&site, "run clicks.log --data-dir data --until-end", (4, "in use"));
    // Readers can run at the same time.
    check(&site, "ledger --data-dir data", (0, ""));
    check(&site, "sql --data-dir data SHOW", (2, "the query is wrong"));
    site.verify();
    server.stop();
    check(&site, "run clicks.log --data-dir data --until-end", (0, "1 lines = 1 counted"));
}

/// A reader that goes away ends the output quietly.
#[test]
fn a_closed_pipe_is_quiet() {
    let site = counted();
    let binary = env!("CARGO_BIN_EXE_adtally");
    for (command, head) in [
        (format!("{binary} generate --clicks 100000"), 1),
        (format!("{binary} sql --data-dir data --format csv 'SELECT * FROM generate_series(1, 200000)'"), 2),
        (format!("{binary} completions bash"), 1),
        (format!("{binary} run --help"), 0),
        (format!("{binary} --version"), 0),
    ] {
        let mut shell = Command::new("bash");
        let line = format!("set -o pipefail; {command} | head -n {head}");
        shell.args(["-c", &line]).current_dir(site.path(""));
        let ended = end(shell).ok();
        assert_eq!(ended.stdout.lines().count(), head, "{ended:?}");
        assert!(!ended.stderr.contains("error") && !ended.stderr.contains("panic"), "{ended:?}");
    }
}
