//! Generated logs give exact counts: in one run, and with rotation, kills and restarts of a serving process.

use crate::expected::{Expected, KEY};
use crate::feed::{Feed, with_equal_copies};
use crate::site::{Site, check_ledger};
use std::time::Duration;

/// In the past for any machine's clock, so that nothing is `future`.
const START: &str = "--start 2025-03-01T00:00:00Z";

/// Epochs and lake commits come often, so that a kill falls between and into many of them.
const OFTEN: &str = "[epoch]\ninterval = \"300ms\"\n[store]\nlake_interval = \"1s\"\n";

fn check(words: &str) {
    let site = Site::new();
    let expected = Expected::generate(&site, "clicks.log", &format!("{words} {START}"));
    site.write("key.toml", KEY);
    let ended = site.adtally("run clicks.log --config key.toml --data-dir data --until-end --final").ok();
    check_ledger(&ended.json(), &expected.report);
    expected.check_conflicts(&ended.json());
    expected.check_data(&site);
    // Everything is read: another run changes nothing.
    let again = site.adtally("run clicks.log --config key.toml --data-dir data --until-end --final").ok();
    check_ledger(&again.json(), &expected.report);
    let server = site.serve("clicks.log --config key.toml");
    expected.check_answers(&server);
    assert_eq!(server.get("/ads/top100?minutes=1")["to"], expected.report["to"]);
    server.stop();
    expected.check_data(&site);
}

#[test]
fn a_log_at_the_mission_rate() {
    check("--lines 300000 --seed 11 --duplicates 3% --malformed 0.5% --invalid 0.5% --click-ids 30%");
}

#[test]
fn a_log_of_twenty_minutes_with_late_clicks() {
    check(
        "--lines 150000 --rate 125 --seed 12 --late 1% --duplicates 5% --malformed 0.2% --invalid 0.2% --click-ids 30%",
    );
}

#[test]
fn csv() {
    check("--lines 30000 --rate 25 --seed 13 --late 1% --duplicates 5% --malformed 1% --invalid 1% --format csv");
}

/// The main job: a writer that rotates and compresses, a process that is killed, stopped and restarted meanwhile.
#[test]
fn fault_28_rotated_under_a_process_that_is_killed_and_restarted() {
    let site = Site::new();
    let words = "--lines 300000 --rate 250 --seed 14 --late 0.5% --duplicates 3% --malformed 0.3% --invalid 0.3%";
    let expected = Expected::generate(&site, "whole.log", &format!("{words} --click-ids 20% {START}"));
    let text = with_equal_copies(&site.read("whole.log"));
    let total = text.len();
    site.write("adtally.toml", OFTEN);
    let mut feed = Feed::new(&site, "logs/clicks.log", text, total / 9);
    let pause = Duration::from_millis(12);
    let parts = |feed: &mut Feed, count: u32| {
        for _ in 0..count {
            feed.write(total / 400);
            std::thread::sleep(pause);
        }
    };
    std::thread::scope(|scope| {
        let server = site.serve("logs --config adtally.toml");
        // Rotations while it reads, and a kill during writing.
        parts(&mut feed, 100);
        let writer = scope.spawn(|| {
            parts(&mut feed, 60);
            feed
        });
        std::thread::sleep(pause * 31);
        server.kill();
        let mut feed = writer.join().unwrap();
        // Rotations and compression while no process reads.
        parts(&mut feed, 60);
        let server = site.serve("logs --config adtally.toml");
        parts(&mut feed, 20);
        server.kill();
        let server = site.serve("logs --config adtally.toml");
        parts(&mut feed, 60);
        server.stop();
        parts(&mut feed, 50);
        let server = site.serve("logs --config adtally.toml");
        feed.write_slowly(total / 400 + 1, pause);
        assert!(feed.rotated() >= 6, "{} rotations", feed.rotated());
        check_ledger(&server.wait_read(expected.lines()), &expected.report);
        expected.check_answers(&server);
        server.kill();
    });
    let server = site.serve("logs --config adtally.toml");
    check_ledger(&server.wait_read(expected.lines()), &expected.report);
    expected.check_answers(&server);
    server.stop();
    let ended = site.adtally("run logs --config adtally.toml --data-dir data --until-end --final").ok();
    check_ledger(&ended.json(), &expected.report);
    assert_eq!(ended.json()["partitions"][0]["final"], expected.report["to"]);
    expected.check_data(&site);
}
