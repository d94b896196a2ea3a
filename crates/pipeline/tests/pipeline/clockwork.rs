//! Tests of behaviour that depends on more than lines: idleness, ends, the clock, finality, capacity.

use crate::driver::{LINE_BYTES, Log, batch, clock, first_state, new_input, state_of};
use crate::oracle::Line;
use adtally_model::{InputId, Verdict};
use adtally_pipeline::{ClockReading, Partition, RunEnd, Stopped, TimeSettings};

/// The beginning of a minute, in milliseconds.
pub(crate) const START: i64 = 1_700_000_040_000;
/// A minute in milliseconds.
pub(crate) const MINUTE: i64 = 60_000;

/// A partition, its log, and a clock that stands still until a test moves it.
pub(crate) struct World {
    pub(crate) partition: Partition,
    pub(crate) log: Log,
    pub(crate) now: i64,
    pub(crate) read: [u64; 4],
}

impl World {
    pub(crate) fn new(inputs: u64, settings: TimeSettings) -> World {
        let state = first_state();
        let mut world =
            World { partition: Partition::new(settings, state), log: Log::default(), now: START, read: [0; 4] };
        for id in 1..=inputs {
            world.partition.add_input(new_input(id), &clock(world.now));
        }
        world
    }

    /// Judges lines of an input at these event times. Returns why judging stopped.
    pub(crate) fn lines(&mut self, input: u64, times: &[i64]) -> Stopped {
        let first = self.read[input as usize];
        let lines: Vec<Line> = times
            .iter()
            .enumerate()
            .map(|(number, &at)| Line {
                at,
                who: (first as u32 + number as u32) * 8 + input as u32,
                ad: 1,
                country: "US",
            })
            .collect();
        let mut pending = batch(input, first, &lines);
        let judged = self.partition.judge(&mut pending, &clock(self.now), usize::MAX).unwrap();
        self.read[input as usize] += judged.lines as u64;
        judged.stopped
    }

    pub(crate) fn epoch(&mut self) {
        self.epoch_at(clock(self.now), RunEnd::GoesOn);
    }

    pub(crate) fn epoch_at(&mut self, now: ClockReading, end: RunEnd) {
        if let Some(draft) = self.partition.end_epoch(&now, end).unwrap() {
            self.log.commit(draft);
        }
    }

    /// Lets time pass while these inputs are at their ends.
    pub(crate) fn wait(&mut self, ms: i64, at_end: &[u64]) {
        let until = self.now + ms;
        while self.now < until {
            self.now = (self.now + 1_000).min(until);
            for &input in at_end {
                self.partition.note_at_end(InputId(input), None, &clock(self.now));
            }
            self.epoch();
        }
    }

    pub(crate) fn state(&self, minute: i64) -> &'static str {
        state_of(&self.log, START / MINUTE + minute)
    }

    pub(crate) fn late(&self) -> u64 {
        self.partition.ledger().late
    }
}

#[test]
fn fault_22_minutes_close_while_one_input_or_all_are_idle() {
    let mut world = World::new(2, TimeSettings::default());
    world.lines(1, &[START; 16]);
    world.lines(2, &[START; 16]);
    world.wait(29_000, &[1, 2]);
    world.lines(2, &[START + 20_000]);
    world.now = START + 70_000;
    world.partition.note_at_end(InputId(1), None, &clock(world.now));
    world.partition.note_at_end(InputId(2), None, &clock(world.now));
    world.lines(2, &[START + 70_000]);
    world.epoch();
    assert_eq!(world.state(0), "closed", "the idle input holds nothing");
    world.wait(60_000, &[1, 2]);
    assert_eq!(world.state(1), "closed", "all are idle: the clock closes");
    assert_ne!(world.state(0), "final");
}

#[test]
fn fault_43_an_old_file_dropped_into_an_idle_deployment_is_counted() {
    let mut world = World::new(1, TimeSettings::default());
    world.lines(1, &[START; 16]);
    world.wait(3_600_000, &[1]);
    assert_eq!(world.state(0), "final", "idle for long enough");
    assert_eq!(world.state(1), "closed", "the clock makes nothing final beyond the newest minute");
    world.partition.add_input(new_input(2), &clock(world.now));
    world.lines(2, &[START + 5 * MINUTE; 20]);
    assert_eq!(world.late(), 0);
}

#[test]
fn fault_20_a_clock_that_disagrees_moves_no_frontier() {
    let mut world = World::new(1, TimeSettings::default());
    world.lines(1, &[START; 16]);
    world.wait(40_000, &[1]);
    let day = 86_400_000;
    let wrong = ClockReading { guarded_ms: world.now + day, wall_ms: world.now + day, agrees: false };
    world.partition.note_at_end(InputId(1), None, &wrong);
    world.epoch_at(wrong, RunEnd::GoesOn);
    assert_eq!(world.state(0), "open");
}

#[test]
fn fault_21_a_click_years_ahead_is_future_and_moves_nothing() {
    let mut world = World::new(1, TimeSettings::default());
    world.lines(1, &[START; 16]);
    world.lines(1, &[START + 60_001, START + 60_000]);
    let ledger = world.partition.ledger();
    assert_eq!((ledger.future, ledger.counted), (1, 17));
    world.lines(1, &[START + 3_650 * 86_400_000; 40]);
    assert_eq!(world.partition.ledger().future, 41);
    assert_eq!(world.partition.watermark_of(InputId(1)), Some(START + 60_000 - 5_000));
    world.epoch();
    let epoch = world.log.epochs.last().unwrap();
    assert_eq!(epoch.progress.ledger.read, 58);
}

#[test]
fn fault_41_a_fast_clock_on_one_server_does_not_hold_the_others() {
    let mut world = World::new(2, TimeSettings::default());
    world.lines(1, &[START; 16]);
    for second in 1..=90 {
        world.now = START + second * 1_000;
        world.lines(1, &[START + second * 1_000]);
        world.lines(2, &[START + second * 1_000 + 3_600_000]);
        world.partition.note_at_end(InputId(1), None, &clock(world.now));
        world.partition.note_at_end(InputId(2), None, &clock(world.now));
        world.epoch();
    }
    assert_eq!(world.partition.ledger().future, 90);
    assert_eq!(world.state(0), "closed");
}

#[test]
fn fault_42_and_51_a_line_20_hours_ahead_is_counted_and_makes_nothing_late() {
    for first in [false, true] {
        let mut world = World::new(1, TimeSettings::default());
        world.now = START + 86_400_000;
        let ahead = START + 72_000_000;
        if first {
            world.lines(1, &[ahead]);
        }
        for minute in 0..30 {
            world.lines(1, &[START + minute * MINUTE; 20]);
            if minute == 15 && !first {
                world.lines(1, &[ahead]);
            }
        }
        let ledger = world.partition.ledger();
        assert_eq!((ledger.counted, ledger.late), (601, 0));
    }
}

#[test]
fn fault_55_minutes_beyond_the_bound_are_late_and_said_to_be() {
    let settings =
        TimeSettings { dedup_horizon_ms: 10_000 * MINUTE, allowed_lateness_ms: 10_000 * MINUTE, ..Default::default() };
    let mut world = World::new(1, settings);
    world.now = START + 10_000 * MINUTE;
    let times: Vec<i64> = (0..5_000).map(|minute| START + minute * MINUTE).collect();
    world.lines(1, &times);
    assert_eq!(world.partition.held(), (4_096, 4_096));
    assert_eq!(world.late(), 5_000 - 4_096);
    let Ok(Some(draft)) = world.partition.end_epoch(&clock(world.now), RunEnd::GoesOn) else { panic!("no epoch") };
    let late: Vec<_> = draft.dead_letters.iter().filter(|letter| letter.verdict == Verdict::Late).collect();
    assert_eq!(late.len(), 5_000 - 4_096);
    assert!(late[0].reason.contains("too_many_minutes"));
}

#[test]
fn fault_54_inputs_far_behind_are_released_when_too_much_is_held() {
    let settings = TimeSettings { dedup_capacity: 1_000, ..Default::default() };
    let mut world = World::new(2, settings);
    world.now = START + 100 * MINUTE;
    world.lines(1, &[START; 20]);
    world.partition.note_at_end(InputId(1), None, &clock(world.now));
    for minute in 0..60 {
        world.now += 1_000;
        world.partition.note_at_end(InputId(2), None, &clock(world.now));
        world.lines(2, &[START + minute * MINUTE; 50]);
        world.epoch();
    }
    let released = world.log.epochs.iter().flat_map(|epoch| &epoch.inputs);
    assert!(released.into_iter().any(|row| row.status == adtally_model::InputStatus::Released));
    assert!(world.partition.held().0 <= 1_000, "{:?}", world.partition.held());
    // The remaining lines of the slow input are judged by its own time, and are late only in final minutes.
    world.lines(1, &[START + 59 * MINUTE; 5]);
    assert_eq!(world.late(), 0);
}

#[test]
fn an_input_with_a_backlog_waits_for_the_least_one() {
    let mut world = World::new(2, TimeSettings::default());
    world.now = START + 100 * MINUTE;
    world.lines(1, &[START; 16]);
    let mut times = vec![START; 16];
    times.extend((0..10).map(|minute| START + minute * MINUTE));
    assert_eq!(world.lines(2, &times), Stopped::Aligned);
    assert_eq!(world.read[2], 16 + 3, "up to the line that took its watermark beyond a minute");
    assert!(world.partition.must_wait(InputId(2), &clock(world.now)));
    world.lines(1, &[START + 9 * MINUTE]);
    assert!(!world.partition.must_wait(InputId(2), &clock(world.now)));
    world.epoch();
    let row = world.log.epochs.last().unwrap().inputs.iter().find(|row| row.id == InputId(2)).unwrap().clone();
    assert_eq!(row.position().to, 19 * LINE_BYTES);
}

#[test]
fn fault_46_settings_changed_between_runs_reopen_no_final_minute() {
    let mut world = World::new(1, TimeSettings::default());
    world.now = START + 100 * MINUTE;
    world.lines(1, &[START; 16]);
    world.lines(1, &[START + 6 * MINUTE + 5_000]);
    world.epoch();
    assert_eq!(world.state(0), "final");
    let patient =
        TimeSettings { allowed_lateness_ms: 60 * MINUTE, dedup_horizon_ms: 60 * MINUTE, ..Default::default() };
    let mut again = Partition::new(patient, world.log.fold());
    let line = Line { at: START + 7, who: 5, ad: 1, country: "US" };
    let mut pending = batch(1, 17, &[line]);
    again.judge(&mut pending, &clock(world.now), usize::MAX).unwrap();
    assert_eq!(again.ledger().late, 1);
    let draft = again.end_epoch(&clock(world.now), RunEnd::GoesOn).unwrap().unwrap();
    world.log.commit(draft);
    assert_eq!(world.state(0), "final");
}

#[test]
fn a_bounded_run_closes_the_minutes_seen_and_finalises_on_request() {
    for (end, expected) in [(RunEnd::Close, "closed"), (RunEnd::Finalise, "final")] {
        let mut world = World::new(1, TimeSettings::default());
        world.lines(1, &[START, START + 10]);
        world.partition.end_input(InputId(1));
        world.epoch_at(clock(world.now), end);
        assert_eq!(world.state(0), expected);
        assert!(world.log.epochs.last().unwrap().progress.all_ended);
    }
}

#[test]
fn an_input_without_a_watermark_lets_no_sparse_backlog_run_out_of_minutes() {
    // One click every two minutes for two weeks, beside an input of three lines.
    let times: Vec<i64> = (0..10_000).map(|click| START + click * 2 * MINUTE).collect();
    let now = START + 40_000 * MINUTE;
    let mut world = World::new(2, TimeSettings::default());
    world.now = now;
    assert_eq!(world.lines(1, &times), Stopped::Aligned, "the other may still have old lines");
    assert!(world.read[1] <= 17, "{}", world.read[1]);
    world.lines(2, &[START; 3]);
    world.partition.note_at_end(InputId(2), None, &clock(world.now));
    let read = world.read[1] as usize;
    let mut turns = 0;
    let mut next = read;
    while next < times.len() {
        let before = world.read[1];
        world.lines(1, &times[next..]);
        next = world.read[1] as usize;
        if world.read[1] == before {
            // Nothing moves until the short input is idle.
            world.wait(31_000, &[2]);
        }
        turns += 1;
        assert!(turns < 100, "stuck at line {next}");
    }
    assert_eq!(world.late(), 0);
}
