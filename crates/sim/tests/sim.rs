//! Tests of the simulation: seeds that must pass, seeds that replay, and planted bugs that must be found.

use adtally_sim::{Outcome, Plant, simulate, simulate_stream};
use std::sync::atomic::{AtomicU64, Ordering};

/// Seeds to simulate in each test run: a few tens of seconds on two cores.
const SEEDS: u64 = 2_000;

/// Partitions of the topic, in simulations with a topic.
const PARTITIONS: u32 = 3;

/// Seeds within which a planted bug must be found.
const FOUND_WITHIN: u64 = 50;

/// The same for bugs that need a process that wakes up just after a takeover, a stop request at the wrong time, or more
/// clicks than the memory limit beside a new log.
const FOUND_WITHIN_RARE: u64 = 400;

/// Runs seeds on two threads, one world at a time on each.
fn on_two_threads(seeds: u64, run: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    run(seed);
                }
            });
        }
    });
}

#[test]
fn every_promise_holds_under_every_seed() {
    let sums: [AtomicU64; 8] = Default::default();
    on_two_threads(SEEDS, |seed| {
        let outcome = simulate(seed, Plant::Nothing, false);
        assert_eq!(
            outcome.violation, None,
            "seed {seed}: `cargo xtask sim --from {seed} --seeds 1 --story` replays it"
        );
        let Outcome { deaths, zombies, power_losses, bounded, stops, given_up, recovered, fenced, .. } = outcome;
        for (sum, more) in sums.iter().zip([deaths, zombies, power_losses, bounded, stops, given_up, recovered, fenced])
        {
            sum.fetch_add(more, Ordering::Relaxed);
        }
    });
    let [deaths, zombies, power_losses, bounded, stops, given_up, recovered, fenced] = sums.map(AtomicU64::into_inner);
    assert!(
        deaths > 5 * SEEDS && zombies > SEEDS / 20 && power_losses > 2 * SEEDS && bounded > SEEDS / 8,
        "{deaths} {zombies} {power_losses} {bounded}"
    );
    assert!(stops > SEEDS / 4 && given_up > SEEDS / 20, "{stops} {given_up}");
    assert!(recovered > SEEDS / 4 && fenced > SEEDS / 40, "{recovered} {fenced}");
}

#[test]
fn every_promise_holds_with_three_partitions_under_every_seed() {
    const SEEDS: u64 = crate::SEEDS / 2;
    let sums: [AtomicU64; 6] = Default::default();
    on_two_threads(SEEDS, |seed| {
        let outcome = simulate_stream(seed, PARTITIONS, Plant::Nothing, false);
        assert_eq!(
            outcome.violation, None,
            "seed {seed}: `cargo xtask sim --partitions {PARTITIONS} --from {seed} --seeds 1 --story` replays it"
        );
        let Outcome { deaths, zombies, power_losses, bounded, stops, given_up, .. } = outcome;
        for (sum, more) in sums.iter().zip([deaths, zombies, power_losses, bounded, stops, given_up]) {
            sum.fetch_add(more, Ordering::Relaxed);
        }
    });
    let [deaths, zombies, power_losses, bounded, stops, given_up] = sums.map(AtomicU64::into_inner);
    assert!(
        deaths > 5 * SEEDS && zombies > SEEDS / 20 && power_losses > 2 * SEEDS && bounded > SEEDS / 8,
        "{deaths} {zombies} {power_losses} {bounded}"
    );
    assert!(stops > SEEDS / 4 && given_up > SEEDS / 20, "{stops} {given_up}");
}

#[test]
fn a_seed_plays_the_same_again() {
    on_two_threads(40, |seed| {
        let twice = |of: &dyn Fn() -> Outcome| assert_eq!(of(), of(), "seed {seed}");
        twice(&|| simulate(seed, Plant::Nothing, false));
        twice(&|| simulate_stream(seed, PARTITIONS, Plant::Nothing, false));
    });
}

/// The number of seeds to find a planted bug, and the violation that reveals it.
fn found(plant: Plant, within: u64) -> (u64, String) {
    for seed in 0..within {
        let outcome = match plant {
            Plant::VacuumOfOneLog => simulate_stream(seed, PARTITIONS, plant, false),
            _ => simulate(seed, plant, false),
        };
        if let Some(violation) = outcome.violation {
            return (seed + 1, violation);
        }
    }
    panic!("{plant:?} is not found within {within} seeds");
}

/// Checks that a planted bug is found, and that the violation contains one of `words`.
fn check(plant: Plant, within: u64, words: &[&str]) {
    let (seeds, violation) = found(plant, within);
    println!("{plant:?} is found after {seeds} seeds: {violation}");
    assert!(words.iter().any(|word| violation.contains(word)), "{plant:?} shows by {violation}");
}

#[test]
fn finds_a_lake_that_is_told_before_the_record_exists() {
    check(Plant::LakeBeforeRecord, FOUND_WITHIN, &["ST-1", "records are missing"]);
}

#[test]
fn finds_records_whose_content_is_not_synced() {
    check(Plant::ContentNotSynced, FOUND_WITHIN, &["EO-4", "damaged"]);
}

#[test]
fn finds_records_whose_folder_is_not_synced() {
    check(Plant::EntryNotSynced, FOUND_WITHIN, &["EO-4", "is missing", "records are missing", "of another log"]);
}

#[test]
fn finds_a_process_that_takes_over_without_a_claim() {
    check(Plant::ClaimForgotten, FOUND_WITHIN_RARE, &["EO-4", "EO-2"]);
}

#[test]
fn finds_identities_that_recovery_forgets() {
    check(Plant::IdentitiesForgotten, FOUND_WITHIN, &["EO-1"]);
}

#[test]
fn finds_a_release_of_an_input_that_was_not_opened() {
    check(Plant::UnopenedReleased, FOUND_WITHIN_RARE, &["TM-2"]);
}

#[test]
fn finds_files_that_are_vacuumed_because_an_old_clock_stamped_them() {
    check(Plant::TombstonesByOldClock, FOUND_WITHIN_RARE, &["ST-1"]);
}

#[test]
fn finds_a_vacuum_that_sees_one_log_only() {
    check(Plant::VacuumOfOneLog, FOUND_WITHIN_RARE, &["ST-1"]);
}

#[test]
fn finds_a_recount_that_does_not_read_corrections() {
    check(Plant::CorrectionsNotReadBack, FOUND_WITHIN, &["EO-1"]);
}

#[test]
fn finds_positions_that_run_ahead_of_the_commit() {
    check(Plant::PositionBeforeCommit, FOUND_WITHIN, &["EO-2", "EO-3"]);
}

#[test]
fn finds_a_drain_that_gives_up_and_says_that_all_is_committed() {
    check(Plant::DrainSaysCommitted, FOUND_WITHIN_RARE, &["EO-2", "ST-1"]);
}

#[test]
fn finds_a_projector_that_is_closed_before_the_last_commit() {
    check(Plant::ProjectorClosedEarly, FOUND_WITHIN_RARE, &["ST-1", "the projector has ended early"]);
}
