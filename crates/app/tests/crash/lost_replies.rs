//! Unspecific errors: the change took place or did not, and the process lives on.

use crate::deployment::Deployment;
use crate::faulty_store::{Fault, Side};
use crate::oracle::Logs;

const LINES: usize = 160;

const LINES_PER_EPOCH: u64 = 70;

/// Attempts of a run for each write.
const ATTEMPTS_MAX: u32 = 3;

/// Starts that may fail because their first writes do.
const STARTS_MAX: usize = 3;

/// Checks that one process survives these faults and counts everything once. If nothing was written before it started,
/// it may refuse to start instead.
fn check(fault: Fault, starts_max: usize) {
    let logs = Logs::generate(5, LINES);
    let deployment = Deployment::new(LINES_PER_EPOCH);
    deployment.write(&logs);
    let context = format!("{fault:?}");
    let mut failed = Vec::new();
    while failed.len() < starts_max {
        let (outcome, faults) = deployment.run(fault.clone(), ATTEMPTS_MAX);
        assert!(faults.hits() > 0, "{context}: nothing went wrong");
        match outcome {
            Ok(_) => return deployment.check(&logs.expected(), true, &context),
            Err(error) => failed.push(error.report()),
        }
    }
    panic!("{context}: {failed:#?}");
}

#[test]
fn fault_03_and_69_the_reply_of_every_epoch_record_is_lost() {
    check(Fault::Lost { every: 1, offset: 0, side: Side::After, matching: "epochs/" }, 1);
}

#[test]
fn fault_07_the_reply_of_every_commit_to_the_lake_is_lost() {
    check(Fault::Lost { every: 1, offset: 0, side: Side::After, matching: "/_delta_log/" }, 1);
}

#[test]
fn of_staged_and_projected_files() {
    for offset in 0..4 {
        check(Fault::Lost { every: 4, offset, side: Side::After, matching: ".parquet" }, 1);
    }
}

#[test]
fn fault_32_and_69_the_reply_of_any_change_is_lost() {
    for offset in 0..7 {
        check(Fault::Lost { every: 7, offset, side: Side::After, matching: "" }, 1);
    }
}

#[test]
fn fault_32_and_69_nothing_took_place() {
    for offset in 0..7 {
        check(Fault::Lost { every: 7, offset, side: Side::Before, matching: "" }, STARTS_MAX);
    }
}
