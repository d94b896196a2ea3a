//! Lines inside, at and beyond every boundary of time, as one input.

use crate::driver::{drive, state_of};
use crate::oracle::{self, Line};
use adtally_pipeline::TimeSettings;

const START: i64 = 1_700_000_040_000;
const MINUTE: i64 = 60_000;

/// Sixteen lines that set the input's clock, then lines at `times`; a repeated time is a copy.
fn check(times: &[i64], expected: &str) {
    let mut lines: Vec<Line> = (0..16).map(|who| Line { at: START, who: 100 + who, ad: 1, country: "US" }).collect();
    lines.extend(times.iter().map(|&at| Line { at: START + at, who: 1, ad: 2, country: "US" }));
    let verdicts = oracle::single(&lines);
    assert_eq!(&verdicts[16..], expected, "the oracle, for {times:?}");
    let log = drive(&[lines], TimeSettings::default(), &[7, 3, 0, 11, 5], false);
    let ledger = log.ledger();
    let of = |verdict| expected.chars().filter(|&other| other == verdict).count() as u64;
    assert_eq!(
        (ledger.counted, ledger.duplicate, ledger.late),
        (16 + of('c'), of('d'), of('l')),
        "the pipeline, for {times:?}"
    );
}

/// An event time that moves the watermark to exactly `ms` after the end of the start minute.
const fn watermark_at(ms: i64) -> i64 {
    MINUTE + ms + 5_000
}

#[test]
fn the_edge_of_allowed_lateness() {
    assert_eq!(START % MINUTE, 0);
    check(&[watermark_at(299_999), 1], "cc");
    check(&[watermark_at(300_000), 1], "cl");
    check(&[watermark_at(300_001), 1], "cl");
}

#[test]
fn fault_24_the_edge_of_the_dedup_horizon() {
    check(&[7, watermark_at(299_999), 7], "ccd");
    check(&[7, watermark_at(300_000), 7], "ccd");
    check(&[7, watermark_at(300_000), watermark_at(599_999), 7], "cccd");
    check(&[7, watermark_at(300_000), watermark_at(600_000), 7], "cccl");
    check(&[7, watermark_at(300_000), watermark_at(600_000), 7, 7], "cccll");
}

#[test]
fn windows_are_half_open() {
    check(&[MINUTE - 1, MINUTE, watermark_at(300_000), MINUTE - 2, MINUTE + 1], "ccclc");
}

#[test]
fn a_jump_beyond_the_bound_moves_nothing() {
    check(&[700_000, 1, 700_000, 2], "ccdc");
    check(&[600_001, 1], "cc");
    // Within the bound, the jump is believed: the start minute is final at once.
    check(&[600_000, 1], "cl");
}

#[test]
fn minutes_go_from_open_to_closed_to_final() {
    let mut lines: Vec<Line> = (0..16).map(|who| Line { at: START, who, ad: 1, country: "US" }).collect();
    let minute = START / MINUTE;
    let mut states = Vec::new();
    for at in [0, MINUTE + 4_999, MINUTE + 5_000, watermark_at(299_999), watermark_at(300_000)] {
        lines.push(Line { at: START + at, who: 50, ad: 1, country: "US" });
        let log = crate::driver::drive_open(&lines, TimeSettings::default());
        states.push(state_of(&log, minute));
    }
    assert_eq!(states, ["open", "open", "closed", "closed", "final"]);
}
