//! Repeated kills with a growing log: nothing is lost, nothing is counted twice.

use crate::expected::{Expected, KEY};
use crate::feed::Feed;
use crate::site::{Site, check_ledger};
use std::time::Duration;

/// How long each process lives after its first answer, in milliseconds: from before its first epoch to after several
/// lake commits.
const LIVES_MS: [u64; 8] = [0, 640, 90, 1_310, 230, 30, 870, 410];

fn check(config: &str) {
    let site = Site::new();
    let words = "--lines 200000 --rate 200 --seed 21 --late 0.5% --duplicates 4% --malformed 0.4% --invalid 0.4%";
    let expected = Expected::generate(&site, "whole.log", &format!("{words} --start 2025-04-01T00:00:00Z"));
    let text = site.read("whole.log");
    let piece = text.len() / 600;
    let mut feed = Feed::new(&site, "logs/clicks.log", text, usize::MAX);
    site.write("adtally.toml", format!("{config}{KEY}"));
    let writer = std::thread::spawn(move || feed.write_slowly(piece, Duration::from_millis(10)));
    for life in LIVES_MS {
        let server = site.serve("logs --config adtally.toml");
        std::thread::sleep(Duration::from_millis(life));
        server.kill();
    }
    writer.join().unwrap();
    let server = site.serve("logs --config adtally.toml");
    check_ledger(&server.wait_read(expected.lines()), &expected.report);
    expected.check_answers(&server);
    server.kill();
    site.adtally("run logs --config adtally.toml --data-dir data --until-end --final").ok();
    expected.check_conflicts(&site.ledger());
    expected.check_data(&site);
}

#[test]
fn with_an_epoch_and_a_lake_commit_at_a_time() {
    check("[epoch]\ninterval = \"150ms\"\n[store]\nlake_interval = \"1s\"\n");
}

#[test]
fn with_many_epochs_that_the_lake_does_not_hold() {
    check("[epoch]\ninterval = \"100ms\"\n[store]\nlake_interval = \"1h\"\n");
}
