//! Tests of inputs that are quiet, gone, far behind or empty: which of them hold minutes open.

use crate::clockwork::{MINUTE, START, World};
use crate::driver::clock;
use adtally_model::{InputId, InputRow};
use adtally_pipeline::{Partition, RunEnd, Stopped, TimeSettings};

const HOUR: i64 = 60 * MINUTE;

#[test]
fn when_all_inputs_have_ended_the_clock_closes_and_finalises() {
    let mut world = World::new(1, TimeSettings::default());
    world.lines(1, &[START; 16]);
    world.partition.end_input(InputId(1));
    world.wait(40_000, &[]);
    assert_eq!(world.state(0), "open", "the minute is not over by the clock");
    world.wait(2 * MINUTE, &[]);
    assert_eq!(world.state(0), "closed");
    world.wait(HOUR, &[]);
    assert_eq!(world.state(0), "final");
    assert_eq!(world.state(1), "closed", "nothing beyond the newest click is final");
}

#[test]
fn fault_42_and_44_a_bounded_run_closes_each_minute_that_has_a_counted_click() {
    let mut world = World::new(1, TimeSettings::default());
    let mut times = vec![START; 20];
    times.push(START + 20 * HOUR);
    world.now = START + 30 * HOUR;
    world.lines(1, &times);
    world.partition.end_input(InputId(1));
    world.epoch_at(clock(world.now), RunEnd::Close);
    assert_eq!((world.state(0), world.state(20 * 60)), ("closed", "closed"), "each minute with a counted click");
    // The next run over the same log: lines in between are no later than before.
    let mut next = Partition::new(TimeSettings::default(), world.log.fold());
    next.add_input(crate::driver::new_input(2), &clock(world.now));
    std::mem::swap(&mut world.partition, &mut next);
    world.lines(2, &[START + 7 * HOUR; 20]);
    world.lines(2, &[START - 10 * MINUTE; 20]);
    assert_eq!(world.late(), 20, "by its own time alone");
    world.epoch();
    assert_eq!(world.state(7 * 60), "open", "lines of it are being read");
    world.partition.end_input(InputId(2));
    world.epoch_at(clock(world.now), RunEnd::Finalise);
    assert_eq!((world.state(7 * 60), world.state(20 * 60)), ("final", "final"));
}

#[test]
fn a_released_input_that_is_quiet_lets_the_clock_close() {
    let settings = TimeSettings { dedup_capacity: 10, ..TimeSettings::default() };
    let mut world = World::new(2, settings);
    world.now = START + HOUR;
    world.lines(1, &[START; 16]);
    world.lines(2, &[START + 30 * MINUTE; 16]);
    world.epoch();
    world.wait(20 * MINUTE, &[1, 2]);
    assert_eq!(world.state(30), "final", "by the clock alone: it was quiet for long enough");
}

#[test]
fn waiting_consumes_nothing_and_writes_no_epoch() {
    let mut world = World::new(2, TimeSettings::default());
    world.now = START + HOUR;
    world.lines(1, &[START; 16]);
    world.lines(2, &[START; 16]);
    assert_eq!(world.lines(2, &[START + 10 * MINUTE; 20]), Stopped::Aligned);
    world.epoch();
    let epochs = world.log.epochs.len();
    for _ in 0..5 {
        assert_eq!(world.lines(2, &[START + 10 * MINUTE]), Stopped::Aligned);
        world.epoch();
    }
    assert_eq!(world.log.epochs.len(), epochs);
}

/// An input that was idle and then delivers three days at once must not run out of minutes before the epoch ends.
#[test]
fn catching_up_after_idleness_loses_no_minute() {
    let mut world = World::new(1, TimeSettings::default());
    world.lines(1, &[START; 16]);
    world.wait(MINUTE, &[1]);
    world.now = START + 80 * HOUR;
    let times: Vec<i64> = (1..=4_300).map(|minute| START + minute * MINUTE).collect();
    let (mut done, mut epochs) = (0, 0);
    while done < times.len() {
        let before = world.read[1];
        world.lines(1, &times[done..]);
        done += (world.read[1] - before) as usize;
        if world.read[1] == before {
            world.epoch();
            epochs += 1;
            assert!(epochs < 10, "it does not get on: {done}");
        }
    }
    assert_eq!(world.late(), 0);
}

/// An input behind the final frontier holds nothing until it has caught up within the same batch.
#[test]
fn catching_up_from_behind_the_final_frontier_loses_no_minute() {
    let mut world = World::new(1, TimeSettings::default());
    world.lines(1, &[START; 16]);
    world.epoch_at(clock(world.now), RunEnd::Finalise);
    world.now = START + 200 * HOUR;
    let times: Vec<i64> = (1..=9_000).map(|minute| START + minute * MINUTE).collect();
    assert_eq!(world.lines(1, &times), Stopped::BatchEnd);
    assert_eq!(world.late(), 0);
}

/// Time while a process slept is not idleness: the process did not watch the inputs.
#[test]
fn time_that_nobody_watched_is_not_idleness() {
    let mut world = World::new(1, TimeSettings::default());
    world.lines(1, &[START; 16]);
    world.wait(MINUTE, &[1]);
    world.now += HOUR;
    world.wait(2_000, &[1]);
    assert_ne!(world.state(0), "final");
    world.wait(20 * MINUTE, &[1]);
    assert_eq!(world.state(0), "final");
}

/// An unreadable input without a watermark does not block others; one with a backlog does.
#[test]
fn an_unreadable_input_without_a_watermark_blocks_nobody() {
    let mut world = World::new(2, TimeSettings::default());
    world.now = START + HOUR;
    world.partition.note_backlog(InputId(2));
    assert_eq!(world.lines(1, &[START; 40]), Stopped::Aligned);
    world.partition.note_unreadable(InputId(2), &clock(world.now));
    assert_eq!(world.lines(1, &[START; 40]), Stopped::BatchEnd);
}

#[test]
fn rows_of_inputs_that_are_still_there_are_kept() {
    const DAY: i64 = 24 * HOUR;
    let mut world = World::new(3, TimeSettings::default());
    for input in 1..=3 {
        world.lines(input, &[START; 16]);
    }
    world.partition.end_input(InputId(1));
    world.partition.end_input(InputId(2));
    world.epoch();
    let read = world.partition.ledger().read;
    for _ in 0..40 {
        world.now += DAY;
        let now = clock(world.now);
        for id in world.partition.long_unseen(&now) {
            if id == InputId(2) {
                world.partition.note_seen(id, &now);
            }
        }
        // Each line makes an epoch, and every 64th epoch is a base.
        for _ in 0..4 {
            world.lines(3, &[START]);
            world.epoch();
        }
    }
    let ids: Vec<u64> = world.partition.inputs().iter().map(|input| input.row.id.0).collect();
    assert_eq!(ids, [2, 3]);
    assert_eq!(world.partition.take_forgotten(), [InputId(1)]);
    assert_eq!(world.partition.ledger().read, read + 160, "the sum is kept");
}

/// Nobody says that a log behind a topic has ended, and each restarted container may bring a log with a new name.
#[test]
fn rows_of_silent_logs_behind_a_topic_are_summed_up() {
    const DAY: i64 = 24 * HOUR;
    let mut world = World::new(1, TimeSettings::default());
    world.partition.share_lane();
    for id in [2, 3] {
        world
            .partition
            .add_input(InputRow::of_records(InputId(id), format!("agent-{id}:clicks.log")), &clock(world.now));
    }
    for day in 0..40 {
        world.now += DAY;
        let now = clock(world.now);
        world.partition.observe(&now);
        if day == 20 {
            world.partition.note_seen(InputId(3), &now);
        }
        world.partition.note_shared_lane(true, &now);
        for _ in 0..4 {
            world.lines(1, &[START]);
            world.epoch();
        }
    }
    let ids: Vec<u64> = world.partition.inputs().iter().map(|input| input.row.id.0).collect();
    assert_eq!(ids, [1, 3], "a file is listed by its folder, and the log 3 was seen on day 20");
    assert_eq!(world.partition.take_forgotten(), [InputId(2)]);
}
