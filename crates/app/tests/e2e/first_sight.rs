//! What a new user sees: the demo, the startup messages of `run`, and progress bars on a terminal.

use crate::site::{Site, end, exit_of, wait_for};
use crate::stopping::{hear, is_empty, rest, send, start, with_separators};
use rustix::process::Signal;
use std::io::BufReader;
use std::process::{Command, Stdio};

#[test]
fn the_demo_asks_its_questions() {
    let site = Site::new();
    let mut child = start(&site, "demo --rate 300 --ads 50 --listen 127.0.0.1:0");
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let said = hear(&mut stderr, "Ctrl-C stops");
    let url = said.lines().find(|line| line.starts_with("http://")).unwrap_or_else(|| panic!("{said}"));
    for path in ["/ads/top100?minutes=1", "/ads/top100?minutes=1&filter_country=US", "/ledger", "/readyz", "/metrics"] {
        let question = format!("curl '{url}{path}'\n  ");
        let (_, answer) = said.split_once(&question).unwrap_or_else(|| panic!("{question}: {said}"));
        assert!(answer.starts_with(['{', '#']), "{path}: {answer}");
    }
    // The first closed minute is a complete one, of 18,000 lines; its first ad has more than a tenth of them.
    let (_, top) = said.split_once("\"ads\":[{\"rank\":1,\"ad_id\":\"").unwrap();
    let clicks = top.split_once("\"clicks\":").unwrap().1;
    let clicks: u64 = clicks.split('}').next().unwrap().parse().unwrap();
    assert!(clicks > 1_800, "{clicks}: {said}");
    send(&child, Signal::INT);
    assert_eq!(exit_of(&mut child).code(), Some(0));
    let said = rest(&mut stderr);
    assert!(said.contains(" lines = ") && said.ends_with("the temporary folder is removed\n"), "{said}");
    assert!(is_empty(&site, "tmp"));
}

#[test]
fn the_demo_ends_by_itself() {
    let site = Site::new();
    let mut child = start(&site, "demo --rate 300 --ads 50 --listen 127.0.0.1:0 --seconds 2");
    assert_eq!(exit_of(&mut child).code(), Some(0));
    let said = rest(&mut child.stderr.unwrap());
    assert!(said.contains(" lines = ") && said.ends_with("the temporary folder is removed\n"), "{said}");
    assert!(is_empty(&site, "tmp"));
}

#[test]
fn the_demo_refuses_what_cannot_be_before_it_begins() {
    let site = Site::new();
    for (words, word) in [
        ("--rate NaN", "--rate"),
        ("--rate 0", "--rate"),
        ("--rate inf", "--rate"),
        ("--ads 0", "--ads"),
        ("--seconds 18446744073709551615", "--seconds"),
        ("--listen 8080", "--listen"),
        ("--brokers 127.0.0.1:9092", "--kafka"),
    ] {
        let ended = site.adtally(&format!("demo {words}"));
        assert_eq!(ended.code, Some(2), "{words}: {ended:?}");
        assert!(ended.stderr.contains(word) && !ended.stderr.contains("writing"), "{words}: {ended:?}");
    }
}

#[cfg(not(feature = "scale-out"))]
#[test]
fn the_demo_says_how_to_build_what_it_lacks() {
    let ended = Site::new().adtally("demo --kafka");
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("cargo run --features scale-out -- demo --kafka"), "{ended:?}");
}

#[test]
fn run_says_what_it_found_and_how_old_it_is() {
    let site = Site::new();
    let words = "generate --clicks 3000 --rate 100 --start 2025-05-01T10:00:00Z";
    site.write("logs/empty.log", "");
    site.adtally(&format!("{words} --output logs/clicks.log")).ok();
    site.write("adtally.toml", "[epoch]\ninterval = \"200ms\"\n");
    for start in ["fresh", "later"] {
        let bytes = with_separators(site.read("logs/clicks.log").len() as u64);
        let server = site.serve("logs *.ndjson --config adtally.toml");
        wait_for("the age of the newest click", || server.said().contains("h old").then_some(()));
        let said = server.said();
        assert!(said.contains(&format!("reading logs, *.ndjson: found 1 file, {bytes} bytes")), "{start}: {said}");
        assert!(said.contains("no file with lines matches *.ndjson yet"), "{start}: {said}");
        assert_eq!(said.contains("going on after 3,001 lines = "), start == "later", "{start}: {said}");
        let (_, span) = said.split_once("for example ").unwrap();
        let span = span.lines().next().unwrap();
        assert_eq!(span, "from=2025-05-01T09:01:00Z&to=2025-05-01T10:01:00Z", "{start}");
        let ads = server.get(&format!("/ads/top100?{span}"))["ads"].clone();
        assert!(!ads.as_array().unwrap().is_empty(), "{start}: {ads}");
        // Only once.
        site.append("logs/clicks.log", "{}\n");
        server.wait_read(if start == "fresh" { 3_001 } else { 3_002 });
        assert_eq!(server.stop().matches("h old").count(), 1, "{start}");
    }
}

/// Runs a command line with a terminal, which `script` provides, or without one.
fn shown(site: &Site, line: &str, terminal: bool) -> String {
    let line = format!("{} {line}", env!("CARGO_BIN_EXE_adtally"));
    let mut command = Command::new(if terminal { "script" } else { "sh" });
    if terminal {
        command.args(["--quiet", "--return", "--command", &line, "typescript"]);
    } else {
        command.args(["-c", &line]);
    }
    command.current_dir(site.path("")).env("TERM", "xterm").env("NO_COLOR", "1").stdin(Stdio::null());
    // Many turns, so that a bar moves before the end.
    command.env("ADTALLY_INPUT__BLOCK", "64KiB").env("ADTALLY_EPOCH__MAX_LINES", "5000");
    let ended = end(command).ok();
    ended.stdout + &ended.stderr
}

#[test]
fn long_work_has_a_bar_on_a_terminal_and_only_there() {
    let site = Site::new();
    for line in [
        "generate --clicks 300000 --rate 1000 --output clicks.log",
        "count clicks.log",
        "run clicks.log --data-dir data --until-end",
    ] {
        let on_terminal = shown(&site, line, true);
        for part in [" %  ", "/s", " left"] {
            assert!(on_terminal.contains(part), "{line}: {part}: {on_terminal}");
        }
        // NO_COLOR: the cursor moves, but nothing is coloured.
        let styled = on_terminal
            .split("\x1b[")
            .skip(1)
            .any(|code| code.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';').starts_with('m'));
        assert!(!styled, "{line}: {on_terminal:?}");
        std::fs::remove_dir_all(site.path("data")).unwrap_or_default();
        let in_pipe = shown(&site, line, false);
        assert!(
            !in_pipe.contains('\x1b') && !in_pipe.contains('\r') && !in_pipe.contains(" left"),
            "{line}: {in_pipe}"
        );
    }
}
