//! Tests of the report on a hanging process, on inputs that hold the partition, and on too many inputs.

use super::Report;
use crate::clock::Clock;
use crate::status::{LEDGER_INPUTS_MAX, Status};
use adtally_model::{
    FileLog, InputId, InputLog, InputRow, InputStatus, InputTime, Ledger, PartitionState, Position, Progress, Watermark,
};
use adtally_pipeline::{EpochDraft, TimeSettings};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

const NOON_MS: i64 = 1_769_860_800_000;

#[derive(Default)]
struct SetClock(AtomicI64);

impl Clock for SetClock {
    fn wall_ms(&self) -> i64 {
        NOON_MS
    }

    fn monotonic_ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

fn lines(read: u64) -> Ledger {
    Ledger { read, counted: read, ..Ledger::default() }
}

/// An input whose watermark is `behind_ms` before noon.
fn input(id: u64, status: InputStatus, behind_ms: Option<i64>) -> InputRow {
    let settings = TimeSettings::default();
    InputRow {
        log: InputLog::File(FileLog { position: Position::at(id), ..FileLog::default() }),
        time: InputTime {
            largest_ms: behind_ms.map(|behind| NOON_MS - behind + settings.out_of_orderness_ms),
            ..InputTime::default()
        },
        status,
        ledger: lines(id),
        ..InputRow::new(InputId(id), format!("{id}.log"), 0)
    }
}

fn state(inputs: Vec<InputRow>) -> PartitionState {
    let ledger = lines(inputs.iter().map(|row| row.ledger.read).sum());
    PartitionState {
        inputs: inputs.into_iter().map(|row| (row.id, row.into())).collect(),
        progress: Progress { ledger, newest_click_ms: Some(NOON_MS), ..Progress::default() },
        ..PartitionState::default()
    }
}

fn report(state: &PartitionState) -> (Arc<Report>, Arc<SetClock>) {
    let clock = Arc::new(SetClock::default());
    let report = Report::new(TimeSettings::default(), state, Arc::clone(&clock) as Arc<dyn Clock>);
    report.started();
    (report, clock)
}

#[test]
fn reading_that_stands_still_is_a_problem() {
    let (report, clock) = report(&state(Vec::new()));
    let check = |monotonic_ms: i64, expected: &[&str]| {
        clock.0.store(monotonic_ms, Ordering::Relaxed);
        assert_eq!(report.readiness().problems, expected, "at {monotonic_ms}");
    };
    check(1_000_000, &[]);
    report.turned(1_000_000);
    check(1_030_000, &[]);
    let stuck =
        "reading has made no progress for 31 s: check that the folders of the inputs and the data directory respond";
    check(1_031_000, &[stuck]);
    report.turned(1_031_000);
    check(1_031_001, &[]);
    report.ended();
    check(9_000_000, &[]);
}

#[test]
fn totals_keep_what_a_partition_brought_that_left() {
    let at = |partition, number, read| {
        let progress = Progress { partition, number, ledger: lines(read), ..Progress::default() };
        PartitionState { progress, ..PartitionState::default() }
    };
    let (report, _) = report(&at(3, 10, 100));
    report.recovered(&at(4, 20, 1_000));
    let check = |read: u64, epochs: u64, in_ledger: usize| {
        let gauges = report.gauges();
        assert_eq!((gauges.lines.read, gauges.epochs_committed), (read, epochs));
        assert_eq!(report.ledger().partitions.len(), in_ledger);
    };
    check(1_100, 30, 2);
    report.left(4);
    check(1_100, 30, 1);
    // An epoch submitted before the partition left.
    let handed_over = EpochDraft { progress: at(4, 21, 1_200).progress, ..EpochDraft::default() };
    report.committed(&handed_over, &[], 0);
    check(1_300, 31, 1);
    // The partition returns with lines that another process has read.
    report.recovered(&at(4, 25, 1_500));
    check(1_600, 35, 2);
}

#[test]
fn only_an_input_that_holds_is_named_as_holding() {
    let check = |inputs: Vec<InputRow>, final_ms: i64, expected: &[&str]| {
        let mut state = state(inputs);
        state.progress.frontiers.final_ = Watermark::at(final_ms);
        assert_eq!(report(&state).0.readiness().notes, expected);
    };
    let holding = |id, behind_ms| input(id, InputStatus::Holding, behind_ms);
    let slow = "input 2.log holds minutes open: its watermark is 300 s behind the newest click";
    let inputs = || vec![holding(1, Some(0)), holding(2, Some(300_000)), holding(3, Some(7_200_000))];
    check(inputs(), NOON_MS - 300_000, &[slow]);
    check(inputs(), NOON_MS - 299_999, &[]);
    let idle = vec![holding(1, Some(0)), input(2, InputStatus::Idle, Some(300_000))];
    check(idle, NOON_MS - 600_000, &[]);
    let none = "input 4.log has no watermark yet and holds minutes open";
    check(vec![holding(4, None), holding(5, Some(0))], NOON_MS, &[none]);
}

#[test]
fn inputs_beyond_the_bound_are_summed() {
    let many = LEDGER_INPUTS_MAX as u64;
    let of = |id: u64| input(id, if id % 5_000 == 1 { InputStatus::Idle } else { InputStatus::Ended }, None);
    let found = |inputs: u64, gone: u64| {
        let mut state = state((1..=inputs).map(of).collect());
        state.progress.gone = lines(gone);
        state.progress.ledger += &lines(gone);
        let ledger = report(&state).0.ledger();
        let read: u64 = ledger.inputs.iter().map(|row| row.ledger.read).sum();
        assert_eq!(read, ledger.partitions[0].ledger.read, "the rows add up");
        let names: Vec<String> = ledger.inputs.iter().map(|row| row.name.clone()).collect();
        (names, ledger.inputs_left_off)
    };
    let (names, left_off) = found(many, 0);
    assert_eq!((names.len(), left_off), (LEDGER_INPUTS_MAX, 0));
    assert_eq!(names[..2], ["1.log", "2.log"]);
    let (names, left_off) = found(many + 2, 0);
    assert_eq!((names.len(), left_off), (LEDGER_INPUTS_MAX, 3));
    assert_eq!(names[..5], ["10001.log", "5001.log", "1.log", "10002.log", "10000.log"]);
    assert_eq!(names[LEDGER_INPUTS_MAX - 2..], ["5.log", "(others)"]);
    let (names, left_off) = found(many, 7);
    assert_eq!((names.len(), left_off), (LEDGER_INPUTS_MAX, 2));
    assert_eq!((names[0].as_str(), names[LEDGER_INPUTS_MAX - 1].as_str()), ("(gone)", "(others)"));
}
