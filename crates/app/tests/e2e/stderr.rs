//! Standard error: only JSON if the log is JSON, and no character that moves a cursor.

use crate::site::{Site, end};
use crate::stopping::{rest, send, start};
use rustix::process::Signal;
use serde_json::Value;
use std::io::{BufRead, BufReader};

const JSON: (&str, &str) = ("ADTALLY_LOG__FORMAT", "json");

/// Checks that each line is an object in the form of log lines, and returns their messages.
fn messages(said: &str) -> Vec<String> {
    let message = |line: &str| {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line:?} in {said}"));
        assert!(["timestamp", "level", "target"].iter().all(|key| line[key].is_string()), "{line}");
        line["fields"]["message"].as_str().unwrap().to_owned()
    };
    said.lines().map(message).collect()
}

#[test]
fn where_the_log_is_json_everything_is() {
    let site = Site::new();
    site.adtally("generate --lines 500 --malformed 2% --invalid 2% --output clicks.log").ok();
    site.append("clicks.log", "{\"half");
    site.write("json.toml", "[log]\nformat = \"json\"\n[time]\nmax_jump = \"0s\"\n");
    for (line, code, word) in [
        ("run clicks.log --data-dir data --until-end", 0, "500 lines = "),
        ("count clicks.log", 0, "first rejected line of each reason"),
        ("count missing.log", 2, "missing.log"),
        ("inspect clicks.log", 0, "500 lines = "),
        ("generate --clicks 5 --output new.log --truth truth.json", 0, "5 lines generated"),
        ("rnu", 2, "rnu"),
        ("run --until-end --data-dir new", 2, "nothing to read"),
        ("ledger --data-dir missing", 2, "missing"),
        ("demo --rate 100 --seconds 1 --listen 127.0.0.1:0", 0, "the temporary folder is removed"),
    ] {
        let mut command = site.program();
        command.args(line.split(' ')).env(JSON.0, JSON.1);
        let ended = end(command);
        assert_eq!(ended.code, Some(code), "{ended:?}");
        let messages = messages(&ended.stderr);
        assert!(messages.iter().any(|message| message.contains(word)), "{line}: {messages:?}");
    }
    // The file selects JSON, even if the file has mistakes.
    let ended = site.adtally("config check --config json.toml");
    assert_eq!(ended.code, Some(2));
    assert!(messages(&ended.stderr)[0].contains("json.toml:4"), "{ended:?}");
}

#[test]
fn a_service_and_its_panic_are_json() {
    let site = Site::new();
    site.adtally("generate --clicks 500 --output clicks.log").ok();
    let mut command = site.program();
    command.args(["run", "clicks.log", "--data-dir", "data", "--listen", "127.0.0.1:0"]);
    let ended = end({
        command.env(JSON.0, JSON.1).env("FAILPOINTS", "accepting=panic");
        command
    });
    assert_eq!(ended.code, Some(5), "{ended:?}");
    let panicked = messages(&ended.stderr).into_iter().filter(|message| message.contains("panicked at"));
    assert_eq!(panicked.count(), 1, "{ended:?}");
    let mut child = start(&site, "run clicks.log --data-dir data --listen 127.0.0.1:0 --config /dev/null");
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("answering on") {
        assert!(said.read_line(&mut line).unwrap() > 0, "{line}");
    }
    send(&child, Signal::TERM);
    assert!(rest(&mut said).contains("stopped; everything read is committed"));
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// Names and payloads come from others, and a terminal executes control characters.
#[test]
fn names_cannot_move_the_cursor() {
    let site = Site::new();
    let name = "a\u{1b}[2Jb\u{9b}1mc\nfake: 7 lines.log";
    site.adtally("generate --lines 300 --malformed 5% --output clicks.log").ok();
    let lines = [&site.read("clicks.log")[..], b"\x1b]0;title\x07 nonsense\n"].concat();
    site.write(&format!("logs/{name}"), lines);
    site.write("logs/folder\u{1b}[2J.log/x", "");
    let ran = site.words(&["run", "logs/*", "--data-dir", "data", "--until-end"]).ok();
    let shown = "a\\u{1b}[2Jb\\u{9b}1mc\\nfake: 7 lines.log";
    let ledger = site.adtally("ledger --data-dir data").ok();
    assert!(ledger.stdout.contains(shown), "{}", ledger.stdout);
    assert_eq!(ledger.stdout.lines().count(), 2, "{}", ledger.stdout);
    assert!(ran.stderr.contains(shown), "{}", ran.stderr);
    let counted = site.words(&["count", "logs/*"]).ok();
    let table = site.words(&["sql", "--data-dir", "data", "SELECT input, payload FROM dead_letters"]).ok();
    for said in [ledger.stdout, ran.stderr, counted.stdout, counted.stderr, table.stdout] {
        let raw = said.chars().find(|char| char.is_control() && !"\n\t".contains(*char));
        assert_eq!(raw, None, "{said:?}");
    }
}
