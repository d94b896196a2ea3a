//! A death before and after every single operation, at every stage of a log's life.

use crate::deployment::Deployment;
use crate::faulty_store::{Fault, Side, kind_of};
use crate::oracle::{Expected, Logs, Random};
use std::collections::BTreeSet;

/// Lines in each of the three logs: some eight epochs of [`LINES_PER_EPOCH`] lines.
const LINES: usize = 240;

const LINES_PER_EPOCH: u64 = 90;

/// Two deaths in a row are tried at so many pairs of random points.
const PAIRS: u64 = 24;

/// Of a long row of deletions, only every so manieth is a point of death: they are all alike.
const DELETIONS_STEP: usize = 12;

/// Kills a process before and after each of its operations; after each death a new process must end with everything
/// counted once. Returns the kinds of operation at which one died.
fn die_everywhere(base: &Deployment, expected: &Expected, name: &str) -> BTreeSet<String> {
    let reference = base.fork();
    let (outcome, faults) = reference.run(Fault::None, 1);
    outcome.expect(name);
    let trace = faults.operations();
    reference.check(expected, name);

    let is_deletion = |at: usize| trace.get(at).is_some_and(|(verb, _)| *verb == "delete");
    let (mut kinds, mut checked) = (BTreeSet::new(), BTreeSet::new());
    for at in 1.. {
        // `trace[at - 1]` is the operation itself.
        let amid_deletions = at >= 2 && is_deletion(at - 2) && is_deletion(at - 1) && is_deletion(at);
        if amid_deletions && !at.is_multiple_of(DELETIONS_STEP) {
            continue;
        }
        let mut alive = true;
        for side in [Side::Before, Side::After] {
            let deployment = base.fork();
            let (outcome, faults) = deployment.run(Fault::Death(at, side), 1);
            alive = !faults.is_dead();
            if alive {
                outcome.expect(name);
                break;
            }
            let (verb, path) = faults.operations().last().cloned().expect("the deadly operation");
            let kind = kind_of(verb, &path);
            // What is stored is what was changed before the death: the same changes are the same store.
            if checked.insert(faults.changes_made()) {
                deployment.check(expected, &format!("{name}: death {side:?} operation {at}, {verb} {path}"));
            }
            kinds.insert(kind);
        }
        if alive {
            break;
        }
    }
    kinds
}

fn check_kinds(kinds: &BTreeSet<String>, expected: &[&str]) {
    for kind in expected {
        assert!(kinds.contains(*kind), "nobody died at {kind}, only at {kinds:#?}");
    }
}

/// What every run with something to read does.
const EVERY_RUN: [&str; 12] = [
    "list epochs",
    "put epochs",
    "get epochs",
    "get lake/clicks/_delta_log",
    "put lake/clicks",
    "put lake/dead_letters",
    "put lake/clicks/_delta_log",
    "put lake/dead_letters/_delta_log",
    "put lake/clicks_by_minute",
    "put lake/clicks_by_minute/_delta_log",
    "put lake/ledger",
    "put lake/ledger/_delta_log",
];

#[test]
fn in_the_first_run() {
    let logs = Logs::generate(1, LINES);
    let base = Deployment::new(LINES_PER_EPOCH);
    base.write(&logs);
    let kinds = die_everywhere(&base, &logs.expected(), "first run");
    check_kinds(&kinds, &EVERY_RUN);
    check_kinds(&kinds, &["put lake/clicks_by_hour/_delta_log", "put lake/corrections/_delta_log"]);
}

/// A deployment whose log has `head` records after its servers wrote two thirds of their lines, which it read
/// `lines_per_epoch` at a time; empty runs, which only claim, fill up.
fn aged(logs: &Logs, head: u64, lines_per_epoch: u64) -> Deployment {
    let mut base = Deployment::new(lines_per_epoch);
    base.write(&logs.first(LINES * 2 / 3));
    base.run_well("ageing");
    while base.records().last().is_some_and(|&last| last < head) {
        base.run_well("ageing");
    }
    assert_eq!(base.records().last(), Some(&head), "fewer lines an epoch were needed");
    base.set_lines_per_epoch(LINES_PER_EPOCH);
    base.write(logs);
    base
}

#[test]
fn across_a_base_that_repeats_minutes() {
    let logs = Logs::generate(2, LINES);
    let base = aged(&logs, 189, 4);
    let kinds = die_everywhere(&base, &logs.expected(), "base");
    check_kinds(&kinds, &EVERY_RUN);
}

#[test]
fn across_the_first_collection() {
    let logs = Logs::generate(3, LINES);
    let base = aged(&logs, 193, 3);
    let kinds = die_everywhere(&base, &logs.expected(), "first collection");
    check_kinds(&kinds, &EVERY_RUN);
    check_kinds(&kinds, &["delete epochs"]);
}

#[test]
fn and_again_in_the_next_run() {
    let logs = Logs::generate(4, LINES);
    let expected = logs.expected();
    let young = Deployment::new(LINES_PER_EPOCH);
    young.write(&logs);
    let old = aged(&logs, 61, 9);
    for seed in 0..PAIRS {
        let mut random = Random(seed);
        let deployment = if seed % 2 == 0 { young.fork() } else { old.fork() };
        let mut context = format!("seed {seed}");
        for _ in 0..2 {
            // Runs have 150 to 250 operations: a few of these points lie beyond the end.
            let at = 1 + random.below(230) as usize;
            let side = if random.below(2) == 0 { Side::Before } else { Side::After };
            context.push_str(&format!(", death {side:?} operation {at}"));
            let (outcome, faults) = deployment.run(Fault::Death(at, side), 1);
            assert!(faults.is_dead() || outcome.is_ok(), "{context}: {outcome:?}");
        }
        deployment.check(&expected, &context);
    }
}
#[test]
fn probe() {
    for lines_per_epoch in [9, 30, 90, 1000] {
    for seed in [1u64, 2, 3, 4, 5] {
        let logs = Logs::generate(seed, LINES);
        let base = Deployment::new(lines_per_epoch);
        base.write(&logs);
        let one = base.run_well("x").ledger;
        let base = Deployment::new(lines_per_epoch);
        base.write(&logs.first(160));
        base.run_well("x");
        base.write(&logs);
        let two = base.run_well("x").ledger;
        let exp = logs.expected();
        let nums = |l: adtally_model::Ledger| (l.counted, l.duplicate+ l.late, l.conflicting_duplicates);
        eprintln!("{lines_per_epoch} {seed} {:?} {:?} {:?} {}", (exp.counted, exp.duplicate_or_late, exp.conflicting), nums(one), nums(two), base.records().len());
    }
    }
}
