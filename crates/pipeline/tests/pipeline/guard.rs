//! Tests of the guard against wrong clocks across crashes, and of the bound on minutes with many more minutes.

use crate::clockwork::{MINUTE, START};
use crate::driver::{LATER, LINE_BYTES, Log, batch, clock, new_input};
use crate::oracle::{self, Line};
use adtally_model::InputId;
use adtally_pipeline::{Partition, RunEnd, TimeSettings};

/// Judges lines from the input's position up to line number `to`, in one batch.
fn judge(partition: &mut Partition, lines: &[Line], to: usize) {
    let from = partition.inputs().get(InputId(1)).map_or(0, |input| input.row.position().to / LINE_BYTES) as usize;
    if from < to {
        let mut pending = batch(1, from as u64, &lines[from..to]);
        partition.judge(&mut pending, &clock(LATER), usize::MAX).unwrap();
    }
}

fn start(log: &Log) -> Partition {
    let state = log.fold();
    let is_new = state.inputs.is_empty();
    let mut partition = Partition::new(TimeSettings::default(), state);
    if is_new {
        partition.add_input(new_input(1), &clock(LATER));
    }
    partition
}

/// Commits up to line `kept`, reads on to line `lost`, crashes, and reads the rest from the committed position.
fn with_a_crash(lines: &[Line], kept: usize, lost: usize) -> Log {
    let mut log = Log::default();
    let mut partition = start(&log);
    judge(&mut partition, lines, kept);
    if let Some(draft) = partition.end_epoch(&clock(LATER), RunEnd::GoesOn).unwrap() {
        log.commit(draft);
    }
    judge(&mut partition, lines, lost);
    drop(partition);
    let mut partition = start(&log);
    judge(&mut partition, lines, lines.len());
    if let Some(draft) = partition.end_epoch(&clock(LATER), RunEnd::GoesOn).unwrap() {
        log.commit(draft);
    }
    log
}

/// A crash at any line near the sixteen that set an input's clock, or near the sixteen beyond the bound that move it,
/// does not change the verdicts.
#[test]
fn fault_52_a_crash_at_any_line_of_the_guard() {
    let at = |times: &[i64]| times.to_vec();
    let first = at(&[START; 20]);
    let far: Vec<i64> = (0..15).map(|step| START + 60 * MINUTE + step * 1_000).collect();
    // Fifteen far lines, one that interrupts them, sixteen far lines, and lines that are late if those are believed.
    let times =
        [first, far.clone(), at(&[START + 1_000]), far, at(&[START + 61 * MINUTE, START + 2_000, START + 3_000])]
            .concat();
    let lines: Vec<Line> =
        (0..).zip(&times).map(|(who, &at)| Line { at, who, ad: u64::from(who % 3), country: "US" }).collect();
    let verdicts = oracle::single(&lines);
    let of = |verdict| verdicts.chars().filter(|&other| other == verdict).count() as u64;
    assert_eq!(of('l'), 2, "the sixteenth is believed: {verdicts}");
    let mut crashes = 0;
    for kept in 0..=lines.len() {
        for lost in (kept..=lines.len()).step_by(3) {
            let log = with_a_crash(&lines, kept, lost);
            let ledger = log.ledger();
            assert_eq!(
                (ledger.read, ledger.counted, ledger.late),
                (lines.len() as u64, of('c'), of('l')),
                "a crash at {lost} after a commit at {kept}"
            );
            crashes += 1;
        }
    }
    assert!(crashes > 400, "{crashes}");
}

/// Ten million lines in nearly as many minutes, while time does not move: no more than 4,096 minutes are in memory, and
/// the lines of all other minutes are late.
#[test]
fn fault_55_ten_million_minutes_are_held_in_bounded_memory() {
    const LINES: u64 = 10_000_000;
    const BATCH: u64 = 100_000;
    let mut partition = Partition::new(TimeSettings::default(), Log::default().fold());
    partition.add_input(new_input(1), &clock(i64::MAX / 2));
    let now = clock(i64::MAX / 2);
    let mut number = 0_i64;
    for first in (0..LINES).step_by(BATCH as usize) {
        let lines: Vec<Line> = (first..first + BATCH)
            .map(|line| {
                number += 1;
                // One line in eight is in the first minute, so that no sixteen consecutive lines agree on a new time.
                let at = if line < 16 || line % 8 == 0 { START } else { START + (number + 11) * MINUTE };
                Line { at, who: line as u32, ad: 1, country: "US" }
            })
            .collect();
        let mut pending = batch(1, first, &lines);
        partition.judge(&mut pending, &now, usize::MAX).unwrap();
        partition.end_epoch(&now, RunEnd::GoesOn).unwrap();
        assert!(partition.held().1 <= 4_096, "{:?}", partition.held());
    }
    let ledger = partition.ledger();
    let near = LINES / 8 + 14;
    assert_eq!((ledger.read, ledger.counted), (LINES, near + 4_095));
    assert_eq!(ledger.late, LINES - near - 4_095);
}
