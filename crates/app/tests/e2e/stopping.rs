//! Signals at any moment, temporary folders that must not be left behind, and a stderr without a reader.

use crate::site::{Site, end, exit_of, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Many small epochs, so that a run takes long enough to be stopped in the middle.
const SLOW: [(&str, &str); 2] = [("ADTALLY_EPOCH__MAX_LINES", "500"), ("ADTALLY_INPUT__BLOCK", "64KiB")];

/// A site with a log of this many lines.
fn site(lines: u64) -> Site {
    let site = Site::new();
    site.adtally(&format!("generate --lines {lines} --rate 100 --malformed 1% --output clicks.log")).ok();
    site
}

/// Starts a command whose temporary folders go to `tmp`.
pub(crate) fn start(site: &Site, line: &str) -> Child {
    std::fs::create_dir_all(site.path("tmp")).unwrap();
    // The command would also ignore signals that the test itself was started to ignore.
    let mut command = Command::new("env");
    command.args(["--default-signal=INT,TERM,HUP", env!("CARGO_BIN_EXE_adtally")]).args(line.split_whitespace());
    command.current_dir(site.path("")).env("TMPDIR", site.path("tmp")).envs(SLOW).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Sends a signal.
pub(crate) fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// Reads output up to a line with this word.
pub(crate) fn hear(from: &mut impl BufRead, word: &str) -> String {
    let mut said = String::new();
    while !said.contains(word) {
        assert!(from.read_line(&mut said).unwrap() > 0, "it ended before it said {word}: {said}");
    }
    said
}

/// The rest of the output.
pub(crate) fn rest(from: &mut impl Read) -> String {
    let mut text = String::new();
    from.read_to_string(&mut text).unwrap();
    text
}

/// Whether a folder is empty.
pub(crate) fn is_empty(site: &Site, folder: &str) -> bool {
    std::fs::read_dir(site.path(folder)).unwrap().next().is_none()
}

/// Waits for the third record of a log somewhere below a folder.
fn wait_for_records(site: &Site, folder: &str) {
    fn found(folder: &Path) -> bool {
        // Folders can appear and disappear during the search.
        std::fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().ends_with("03.epoch") || found(&entry.path()))
    }
    wait_for("three records", || found(&site.path(folder)).then_some(()));
}

#[test]
fn an_interrupted_bounded_run_goes_on_later() {
    let site = site(200_000);
    let mut child = start(&site, "run clicks.log --data-dir data --until-end");
    wait_for_records(&site, "data");
    send(&child, Signal::INT);
    assert_eq!(exit_of(&mut child).code(), Some(130));
    let ledger: serde_json::Value = serde_json::from_str(&rest(&mut child.stdout.unwrap())).unwrap();
    let read = ledger["read"].as_u64().unwrap();
    assert!(0 < read && read < 200_000, "{ledger}");
    let said = rest(&mut child.stderr.unwrap());
    assert!(said.contains("what was read is committed"), "{said}");
    let ended = site.adtally("run clicks.log --data-dir data --until-end --final").ok();
    assert_eq!(ended.json()["read"], 200_000);
    let words = format!("of all runs together; this run read {} lines", with_separators(200_000 - read));
    assert!(ended.stderr.contains(&words), "{words}: {}", ended.stderr);
    site.verify();
}

/// `12,345`, below a million.
pub(crate) fn with_separators(number: u64) -> String {
    if number < 1_000 { number.to_string() } else { format!("{},{:03}", number / 1_000, number % 1_000) }
}

#[test]
fn an_interrupted_count_tells_what_it_counted() {
    let site = site(200_000);
    let mut child = start(&site, "count clicks.log");
    wait_for_records(&site, "tmp");
    send(&child, Signal::TERM);
    assert_eq!(exit_of(&mut child).code(), Some(130));
    let said = rest(&mut child.stderr.unwrap());
    assert!(
        said.contains("the counts cover only what was read until then") && !said.contains("is committed"),
        "{said}"
    );
    assert!(is_empty(&site, "tmp"));
}

/// However early the signal comes, nothing is left: it ends the process before there is a folder, or the folder is
/// removed.
#[test]
fn a_signal_at_any_moment_leaves_no_folder_of_count() {
    let site = site(2_000);
    for moment in 0..24 {
        for second in [false, true] {
            let mut child = start(&site, "count clicks.log");
            std::thread::sleep(Duration::from_millis(moment));
            send(&child, Signal::INT);
            if second {
                send(&child, Signal::TERM);
            }
            let code = exit_of(&mut child).code();
            assert!([None, Some(130), Some(0)].contains(&code), "{code:?}: {}", rest(&mut child.stderr.unwrap()));
            assert!(is_empty(&site, "tmp"), "after {moment} ms");
        }
    }
}

/// A request that is never finished, for which a stopping server waits.
fn hold(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /ledger HTTP/1.1\r\nhost: a\r\n").unwrap();
    stream
}

#[test]
fn the_second_signal_ends_a_run_at_once_and_loses_nothing() {
    let site = site(3_000);
    let mut child = start(&site, "run clicks.log --data-dir data --listen 127.0.0.1:0");
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let line = hear(&mut said, "answering on");
    let address = line.split("http://").nth(1).and_then(|rest| rest.split(';').next()).unwrap();
    let _held = hold(address);
    wait_for_records(&site, "data");
    send(&child, Signal::TERM);
    hear(&mut said, "a second signal stops at once");
    send(&child, Signal::INT);
    assert_eq!(exit_of(&mut child).code(), Some(130));
    assert_eq!(site.adtally("run clicks.log --data-dir data --until-end").ok().json()["read"], 3_000);
    site.verify();
}

#[test]
fn the_second_signal_leaves_no_folder_of_the_demo() {
    let site = site(1);
    let mut child = start(&site, "demo --rate 500 --ads 100 --listen 127.0.0.1:0");
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let heard = hear(&mut said, "http://");
    assert!(!is_empty(&site, "tmp"));
    let _held = hold(heard.trim().rsplit("http://").next().unwrap());
    send(&child, Signal::INT);
    hear(&mut said, "a second signal stops at once");
    send(&child, Signal::INT);
    assert_eq!(exit_of(&mut child).code(), Some(130));
    assert!(is_empty(&site, "tmp"));
}

/// Closing the terminal stops it in good order, unless it was started to outlive the terminal.
#[test]
fn a_hangup_stops_unless_it_is_ignored() {
    let site = site(3_000);
    let mut child = start(&site, "run clicks.log --data-dir data --listen 127.0.0.1:0");
    hear(&mut BufReader::new(child.stderr.as_mut().unwrap()), "answering on");
    send(&child, Signal::HUP);
    assert_eq!(exit_of(&mut child).code(), Some(0));
    let mut command = Command::new("env");
    command.args(["--ignore-signal=HUP", "--default-signal=TERM", env!("CARGO_BIN_EXE_adtally")]);
    command.args(["run", "clicks.log", "--data-dir", "other", "--listen", "127.0.0.1:0"]).current_dir(site.path(""));
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    hear(&mut said, "answering on");
    send(&child, Signal::HUP);
    wait_for_records(&site, "other");
    send(&child, Signal::TERM);
    assert_eq!(exit_of(&mut child).code(), Some(0));
    assert!(!rest(&mut said).contains("panic"));
}

/// A thread that hangs forever, as on a dead mount, does not delay the end of a process that was asked to stop.
#[test]
fn a_run_that_hangs_ends_before_a_container_runtime_kills_it() {
    let site = site(3_000);
    let mut command = Command::new(env!("CARGO_BIN_EXE_adtally"));
    command.args(["run", "clicks.log", "--data-dir", "data", "--listen", "127.0.0.1:0"]).current_dir(site.path(""));
    command.envs(SLOW).env("FAILPOINTS", "before_record=2*off->pause").stdin(Stdio::null());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    hear(&mut said, "answering on");
    wait_for_records(&site, "data");
    send(&child, Signal::TERM);
    hear(&mut said, "a second signal stops at once");
    assert_eq!(exit_of(&mut child).code(), Some(1));
    let said = rest(&mut said);
    assert!(said.contains("not everything ended in time: the next start reads again what is not committed"), "{said}");
    assert_eq!(site.adtally("run clicks.log --data-dir data --until-end").ok().json()["read"], 3_000);
    site.verify();
}

/// The output of a run, without the parts that depend on its data directory.
fn without_revision(stdout: &str) -> &str {
    stdout.split_once(",\"revision\":").map_or(stdout, |(before, _)| before)
}

/// Messages may be lost: on a full disk, in a pipe without a reader, without any file.
#[test]
fn a_lost_stderr_changes_nothing() {
    let site = site(2_000);
    let mut runs = 0;
    for (line, code) in [
        ("count clicks.log --top 3", 0),
        ("run clicks.log --data-dir NEW --until-end", 0),
        ("inspect clicks.log", 0),
        ("generate --clicks 10 --output new.log --truth truth.json", 0),
        ("demo --rate 100 --seconds 1 --listen 127.0.0.1:0", 0),
        ("run missing.log --until-end", 2),
        ("ledger --data-dir missing", 2),
        ("rnu", 2),
        ("generate --clicks 5 --output missing/clicks.log", 1),
    ] {
        let mut line = || {
            runs += 1;
            line.replace("NEW", &format!("data{runs}"))
        };
        let mut command = || {
            let mut command = site.program();
            command.args(line().split(' ')).env("ADTALLY_LOG__LEVEL", "trace").stdout(Stdio::piped());
            command
        };
        let expected = end(command());
        assert_eq!(expected.code, Some(code), "{expected:?}");
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let (reader, closed) = std::io::pipe().unwrap();
        drop(reader);
        for stderr in [Stdio::from(full), Stdio::from(closed)] {
            let found = command().stderr(stderr).output().unwrap();
            assert_eq!(found.status.code(), Some(code), "{expected:?}");
            assert_eq!(without_revision(&String::from_utf8(found.stdout).unwrap()), without_revision(&expected.stdout));
        }
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{} {} 2>&-", env!("CARGO_BIN_EXE_adtally"), line())]).current_dir(site.path(""));
        assert_eq!(shell.output().unwrap().status.code(), Some(code), "{expected:?}");
    }
}
