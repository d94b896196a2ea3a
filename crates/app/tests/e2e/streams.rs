//! Standard input and output, and pipes, instead of files.

use crate::site::{Ended, Site, end};
use serde_json::Value;
use std::process::Command;

/// Runs a line of `bash`, in which `$A` is the binary.
fn bash(site: &Site, line: &str) -> Ended {
    std::fs::create_dir_all(site.path("tmp")).unwrap();
    let mut command = Command::new("bash");
    command.args(["-c", &format!("set -o pipefail; {line}")]).current_dir(site.path(""));
    command.env("A", env!("CARGO_BIN_EXE_adtally")).env("TMPDIR", site.path("tmp"));
    end(command)
}

/// Checks that a line counts 1,000 clicks and leaves no files behind.
fn check(site: &Site, line: &str, name: &str) {
    let ended = bash(site, line).ok();
    let counted = ended.json();
    assert_eq!(counted["ledger"]["counted"], 1_000, "{line}: {ended:?}");
    assert_eq!(counted["ledger"]["inputs"][0]["name"], name, "{line}");
    assert_eq!(std::fs::read_dir(site.path("tmp")).unwrap().count(), 0, "{line}");
}

#[test]
fn count_reads_standard_input_and_pipes() {
    let site = Site::new();
    site.adtally("generate --clicks 1000 --output clicks.log").ok();
    site.adtally("generate --clicks 1000 --output packed.log").ok();
    site.gzip("packed.log");
    let stdin = "standard input";
    check(&site, "$A count - --json < clicks.log", stdin);
    check(&site, "cat clicks.log | $A count - --json", stdin);
    check(&site, "cat packed.log.gz | $A count - --json", stdin);
    check(&site, "zcat packed.log.gz | $A count - --json", stdin);
    check(&site, "$A generate --clicks 1000 | $A count - --json", stdin);
    check(&site, "$A generate --clicks 1000 --format csv --output - | $A count - --json", stdin);
    check(&site, "mkfifo pipe.log; cat clicks.log > pipe.log & $A count pipe.log --json", "pipe.log");
    let substituted = bash(&site, "$A count <(cat clicks.log) --json").ok().json();
    assert_eq!(substituted["ledger"]["counted"], 1_000);
    site.adtally("generate --clicks 500 --seed 2 --output other.log").ok();
    let both = bash(&site, "cat clicks.log | $A count - other.log --json").ok().json();
    assert_eq!(both["ledger"]["counted"], 1_500, "{both}");
    assert!(!site.path("-").exists());
}

/// Rejected lines are reported with the name of the stream and their number.
#[test]
fn lines_of_a_stream_are_told_by_its_name() {
    let site = Site::new();
    let ended = bash(&site, "($A generate --clicks 3; echo nonsense) | $A count -").ok();
    assert!(ended.stderr.contains("  standard input:4: malformed"), "{ended:?}");
}

#[test]
fn inspect_reads_the_beginning_of_a_stream() {
    let site = Site::new();
    // Without an end, like a live log.
    let ended = bash(&site, "set +o pipefail; $A generate --clicks 100000000 2>/dev/null | $A inspect - --json").ok();
    let report: Value = ended.json();
    assert_eq!((&report["path"], &report["lines"]), (&"-".into(), &1_000.into()), "{report}");
    assert!(report["configuration"].as_str().unwrap().contains("paths = []\n"), "{report}");
    let ended = bash(&site, "$A generate --clicks 5 --format csv | gzip | $A inspect -").ok();
    assert!(ended.stderr.contains("5 lines = 5 clicks"), "{ended:?}");
    assert_eq!(std::fs::read_dir(site.path("tmp")).unwrap().count(), 0);
}

#[test]
fn a_configuration_comes_from_standard_input() {
    let site = Site::new();
    let ended = bash(&site, "echo '[time]\nmax_jump = \"7m\"' | $A config show --config - --json").ok();
    let settings = ended.json()["settings"].as_array().unwrap().clone();
    let jump = settings.iter().find(|row| row["key"] == "time.max_jump").unwrap();
    assert_eq!((&jump["value"], &jump["origin"]), (&"7m".into(), &"-:2".into()));
}

#[test]
fn what_cannot_be_a_stream_is_refused() {
    let site = Site::new();
    for (line, word) in [
        ("$A run - --data-dir data --until-end < /dev/null", "count -"),
        ("$A generate --clicks 5 --truth -", "--truth"),
        ("$A generate --clicks 5 --output - --json", "--output"),
        ("$A count - --config - < /dev/null", "standard input"),
    ] {
        let ended = bash(&site, line);
        assert_eq!(ended.code, Some(2), "{line}: {ended:?}");
        assert!(ended.stderr.contains(word), "{line}: {ended:?}");
    }
    assert!(!site.path("data").exists());
}

/// A command waits for a pipe without a writer, like any program, but says so, and a signal ends the wait.
#[test]
fn a_silent_pipe_is_told() {
    let site = Site::new();
    let ended = bash(
        &site,
        "mkfifo pipe; $A count pipe 2> said & until grep -q 'waiting for its writer' said; do sleep 0.05; done; \
         kill $!; wait $!",
    );
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert_eq!(std::fs::read_dir(site.path("tmp")).unwrap().count(), 0);
}
