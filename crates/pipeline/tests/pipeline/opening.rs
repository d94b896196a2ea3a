//! Tests of inputs that wait because only a few can be open at a time, and of inputs that cannot be opened or read.

use crate::clockwork::{MINUTE, START, World};
use crate::driver::{LATER, LINE_BYTES, Log, batch, clock, new_input};
use crate::exactness::{lines, step};
use crate::oracle::{self, Line};
use adtally_model::{InputId, InputStatus};
use adtally_pipeline::{ClockReading, Partition, RunEnd, Stopped, TimeSettings};
use proptest::collection::vec;
use proptest::prelude::*;

const HOUR: i64 = 60 * MINUTE;

/// Reads inputs of which only a few are open at a time, like the run loop. The others wait. An open input that is ahead
/// gives way to one that is behind it or has no watermark.
struct FewOpen<'a> {
    inputs: &'a [Vec<Line>],
    /// Which inputs may still grow: these are at their ends after each batch.
    live: &'a [bool],
    partition: Partition,
    log: Log,
    open: Vec<usize>,
}

impl FewOpen<'_> {
    fn id(input: usize) -> InputId {
        InputId(input as u64 + 1)
    }

    fn read(&self, input: usize) -> usize {
        let row = self.partition.inputs().get(Self::id(input)).map(|input| input.row.position().to);
        (row.unwrap_or_default() / LINE_BYTES) as usize
    }

    fn left(&self) -> Vec<usize> {
        (0..self.inputs.len()).filter(|&input| self.read(input) < self.inputs[input].len()).collect()
    }

    /// The waiting input that is behind all other waiting ones.
    fn first_waiting(&self) -> Option<usize> {
        let waiting = self.left().into_iter().filter(|input| !self.open.contains(input));
        waiting.min_by_key(|&input| self.partition.watermark_of(Self::id(input)))
    }

    /// Judges lines of an open input. Returns whether there were any.
    fn judge(&mut self, input: usize, lines: usize) -> bool {
        let first = self.read(input);
        let last = (first + lines).min(self.inputs[input].len());
        let mut pending = batch(input as u64 + 1, first as u64, &self.inputs[input][first..last]);
        let judged = self.partition.judge(&mut pending, &clock(LATER), usize::MAX).unwrap();
        if self.read(input) == self.inputs[input].len() {
            self.partition.end_input(Self::id(input));
        } else if self.live[input] && judged.stopped == Stopped::BatchEnd {
            self.partition.note_at_end(Self::id(input), None, &clock(LATER));
        }
        judged.lines > 0
    }

    /// Replaces finished inputs by waiting ones. `stuck` gives way if it is ahead of a waiting input.
    fn give_places(&mut self, slots: usize, stuck: Option<usize>) {
        let left = self.left();
        self.open.retain(|input| left.contains(input));
        while self.open.len() < slots
            && let Some(next) = self.first_waiting()
        {
            self.open.push(next);
        }
        let watermark = |input| self.partition.watermark_of(Self::id(input));
        if let (Some(stuck), Some(next)) = (stuck, self.first_waiting())
            && watermark(next) < watermark(stuck)
        {
            self.open.retain(|&input| input != stuck);
            self.open.push(next);
        }
        for input in left.into_iter().filter(|input| !self.open.contains(input)) {
            self.partition.note_backlog(Self::id(input));
        }
    }

    fn epoch(&mut self, end: RunEnd) {
        if let Some(draft) = self.partition.end_epoch(&clock(LATER), end).unwrap() {
            self.log.commit(draft);
        }
    }
}

/// Runs inputs to their ends with at most `slots` open at a time.
fn drive(inputs: &[Vec<Line>], live: &[bool], slots: usize, capacity: usize, choices: &[u32]) -> Log {
    let mut choices = crate::driver::Choices::new(choices);
    let settings = TimeSettings { dedup_capacity: capacity, ..TimeSettings::default() };
    let log = Log::default();
    let partition = Partition::new(settings, log.fold());
    let mut run = FewOpen { inputs, live, partition, log, open: Vec::new() };
    for input in 0..inputs.len() {
        run.partition.add_input(new_input(input as u64 + 1), &clock(LATER));
    }
    run.give_places(slots, None);
    let mut steps = 0;
    while !run.open.is_empty() {
        let input = run.open[choices.below(run.open.len())];
        let moved = run.judge(input, 1 + choices.below(40));
        run.give_places(slots, Some(input).filter(|_| !moved));
        if choices.below(5) == 0 {
            run.epoch(RunEnd::GoesOn);
        }
        steps += 1;
        assert!(steps < 200_000, "the inputs wait for each other for ever");
    }
    run.epoch(RunEnd::Close);
    run.log
}

fn was_released(log: &Log) -> bool {
    log.epochs.iter().flat_map(|epoch| &epoch.inputs).any(|row| row.status == InputStatus::Released)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the number of inputs, the number open at a time and the capacity for identities: if all inputs wait for
    /// one another, none is released, and the counts depend only on each input's lines.
    #[test]
    fn fault_58_counts_do_not_depend_on_how_few_inputs_are_open_and_how_little_is_held(
        steps in vec(vec(step(), 1..120), 1..12),
        slots in 1_usize..5,
        capacity in 1_usize..200,
        choices in vec(any::<u32>(), 1..200),
    ) {
        let inputs: Vec<Vec<Line>> = steps.iter().map(|steps| lines(steps)).collect();
        let log = drive(&inputs, &vec![false; inputs.len()], slots, capacity, &choices);
        prop_assert!(!was_released(&log));
        prop_assert_eq!(log.counts(), oracle::counts(&inputs));
        prop_assert_eq!(log.ledger().read, inputs.iter().map(Vec::len).sum::<usize>() as u64);
    }

    /// The same if some inputs reach their ends repeatedly and so run ahead: only inputs with a watermark are released,
    /// and unless one was, the counts do not change.
    #[test]
    fn only_what_has_a_watermark_is_released(
        steps in vec((vec(step(), 1..120), any::<bool>()), 1..8),
        slots in 1_usize..5,
        capacity in 1_usize..200,
        choices in vec(any::<u32>(), 1..200),
    ) {
        let inputs: Vec<Vec<Line>> = steps.iter().map(|(steps, _)| lines(steps)).collect();
        let live: Vec<bool> = steps.iter().map(|(_, live)| *live).collect();
        let log = drive(&inputs, &live, slots, capacity, &choices);
        for row in log.epochs.iter().flat_map(|epoch| &epoch.inputs) {
            prop_assert!(row.status != InputStatus::Released || row.time.largest_ms.is_some(), "{row:?}");
        }
        if !was_released(&log) {
            prop_assert_eq!(log.counts(), oracle::counts(&inputs));
        }
        prop_assert!(log.ledger().check("the test").is_ok());
    }
}

fn status(world: &World, input: u64) -> InputStatus {
    world.partition.inputs().get(InputId(input)).unwrap().row.status
}

/// Lets time pass while one input is at its end and another is unreadable.
fn fail(world: &mut World, ms: i64, at_end: u64, unreadable: u64) {
    let until = world.now + ms;
    while world.now < until {
        world.now = (world.now + 1_000).min(until);
        world.partition.note_at_end(InputId(at_end), None, &clock(world.now));
        world.partition.note_unreadable(InputId(unreadable), &clock(world.now));
        world.epoch();
    }
}

/// A live run continues without the input after `idle_timeout`, and waits for it again once it is read.
#[test]
fn fault_54_an_unreadable_input_holds_for_idle_timeout_and_again_when_it_is_read() {
    for has_watermark in [false, true] {
        let mut world = World::new(2, TimeSettings::default());
        world.now = START + 10 * MINUTE;
        if has_watermark {
            world.lines(2, &[START; 16]);
        }
        world.lines(1, &[START; 16]);
        fail(&mut world, 20_000, 1, 2);
        world.lines(1, &[START + 2 * MINUTE]);
        fail(&mut world, 10_000, 1, 2);
        assert_eq!((world.state(0), status(&world, 2)), ("open", InputStatus::Holding));
        fail(&mut world, 1_000, 1, 2);
        assert_eq!((world.state(0), status(&world, 2)), ("closed", InputStatus::Unreadable));
        // A restart reads the input, or fails again.
        let again = Partition::new(TimeSettings::default(), world.log.fold());
        assert_eq!(again.inputs().get(InputId(2)).unwrap().row.status, InputStatus::Holding);
        world.partition.note_backlog(InputId(2));
        world.epoch();
        assert_eq!(status(&world, 2), InputStatus::Holding);
        world.lines(2, &[START + MINUTE; 16]);
        assert_eq!(world.late(), 0);
        world.lines(1, &[START + 5 * MINUTE]);
        world.epoch();
        assert_eq!(world.state(3), "open", "it is waited for");
    }
}

/// While all other inputs are idle, the clock closes minutes but makes none final, because lines may be missing.
#[test]
fn the_clock_makes_nothing_final_while_an_input_cannot_be_read() {
    let mut world = World::new(2, TimeSettings::default());
    world.lines(1, &[START; 16]);
    world.lines(2, &[START; 16]);
    fail(&mut world, HOUR, 1, 2);
    assert_eq!((world.state(0), world.state(50)), ("closed", "closed"));
    world.wait(HOUR, &[1, 2]);
    assert_eq!(world.state(0), "final");
}

/// While no input can be read, no minute closes.
#[test]
fn the_clock_closes_nothing_while_no_input_can_be_read() {
    let mut world = World::new(1, TimeSettings::default());
    world.lines(1, &[START; 16]);
    for _ in 0..100 {
        world.now += 10_000;
        world.partition.note_unreadable(InputId(1), &clock(world.now));
        world.epoch();
    }
    assert_eq!(world.state(0), "open");
}

/// A file that could not be opened at first is not an input yet, but holds the watermark like one.
#[test]
fn what_could_not_be_looked_at_holds_the_watermark() {
    let mut world = World::new(1, TimeSettings::default());
    world.now = START + HOUR;
    world.partition.note_unopened(true);
    world.epoch();
    world.lines(1, &[START; 16]);
    world.lines(1, &[START + 9 * MINUTE]);
    world.epoch();
    assert_eq!(world.state(0), "open");
    world.partition.note_unopened(false);
    world.epoch();
    assert_eq!(world.state(0), "final");
}

/// In a bounded run, nothing becomes final without the unreadable input. Other inputs are read as far as memory allows.
#[test]
fn fault_62_a_bounded_run_makes_nothing_final_without_what_it_cannot_read() {
    for is_input in [false, true] {
        let settings = TimeSettings { dedup_capacity: 1_000, ..TimeSettings::default() };
        let mut world = World::new(2, settings);
        world.partition.set_bounded();
        world.now = START + 1_000 * MINUTE;
        if is_input {
            world.lines(2, &[START; 16]);
            world.partition.note_unreadable(InputId(2), &clock(world.now));
            world.now += 30_000;
        } else {
            world.partition.end_input(InputId(2));
            world.partition.note_unopened(true);
        }
        world.epoch();
        let times: Vec<i64> = (0..5_000).map(|line| START + line * 6_000).collect();
        let mut batches = 0;
        while !world.partition.is_stuck() {
            let read = world.read[1] as usize;
            world.lines(1, &times[read..(read + 100).min(times.len())]);
            world.epoch();
            batches += 1;
            assert!(batches < 100, "nothing bounds what is held");
        }
        assert!(world.partition.must_wait(InputId(1), &clock(world.now)));
        assert_eq!(world.late(), 0);
        world.epoch_at(clock(world.now), RunEnd::Close);
        assert_eq!(world.state(0), "closed", "counted and to be seen");
        let statuses = world.log.epochs.iter().flat_map(|epoch| &epoch.inputs).map(|row| row.status);
        assert!(statuses.into_iter().all(|status| status != InputStatus::Released));
        // The next run reads it, and none of its lines is late.
        let mut next = Partition::new(TimeSettings::default(), world.log.fold());
        if !is_input {
            next.add_input(new_input(3), &clock(world.now));
        }
        std::mem::swap(&mut world.partition, &mut next);
        let id = if is_input { 2 } else { 3 };
        world.partition.note_backlog(InputId(id));
        world.lines(id, &[START + MINUTE; 20]);
        assert_eq!(world.late(), 0);
    }
}

/// A file last written long before its end was first reached stops holding from the next epoch on.
#[test]
fn an_old_file_is_idle_as_soon_as_its_end_is_reached() {
    let mut world = World::new(2, TimeSettings::default());
    world.now = START + HOUR;
    world.lines(1, &[START; 16]);
    assert_eq!(world.lines(2, &[START + 200_000; 40]), Stopped::Aligned);
    world.partition.note_at_end(InputId(1), Some(world.now - 30_001), &clock(world.now));
    assert!(world.partition.must_wait(InputId(2), &clock(world.now)), "not within an epoch");
    world.epoch();
    assert!(!world.partition.must_wait(InputId(2), &clock(world.now)));
    assert_eq!(status(&world, 1), InputStatus::Idle);
    // The file is written after all: from then on the normal rule applies, whatever the file's time.
    world.partition.note_backlog(InputId(1));
    world.lines(1, &[START + 200_000]);
    world.partition.note_at_end(InputId(1), Some(0), &clock(world.now));
    world.epoch();
    assert_eq!(status(&world, 1), InputStatus::Holding);
    world.wait(30_000, &[1]);
    assert_eq!(status(&world, 1), InputStatus::Idle);
}

#[test]
fn a_file_that_was_just_written_or_will_be_is_not_idle_at_once() {
    let now = START + HOUR;
    let agreed = clock(now);
    let disagreeing = ClockReading { agrees: false, ..agreed };
    for (modified_ms, now) in
        [(Some(now - 30_000), agreed), (Some(now + HOUR), agreed), (Some(now - HOUR), disagreeing), (None, agreed)]
    {
        let mut world = World::new(1, TimeSettings::default());
        world.now = now.guarded_ms;
        world.lines(1, &[START; 16]);
        world.partition.note_at_end(InputId(1), modified_ms, &now);
        world.epoch_at(now, RunEnd::GoesOn);
        assert_eq!(status(&world, 1), InputStatus::Holding, "{modified_ms:?}");
    }
}

/// Old files added one after another: the age of the first makes nothing final before the next one is added.
#[test]
fn fault_43_old_files_dropped_in_one_after_another_are_counted() {
    let mut world = World::new(1, TimeSettings::default());
    world.now = START + 24 * HOUR;
    world.lines(1, &[START; 16]);
    for input in 2..4 {
        let old = Some(world.now - HOUR);
        for _ in 0..60 {
            world.now += 1_000;
            (1..input).for_each(|input| world.partition.note_at_end(InputId(input), old, &clock(world.now)));
            world.epoch();
        }
        assert_eq!(world.state(0), "closed");
        world.partition.add_input(new_input(input), &clock(world.now));
        world.lines(input, &[START + 1; 20]);
    }
    assert_eq!(world.late(), 0);
}
