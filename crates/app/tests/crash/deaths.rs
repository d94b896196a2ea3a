//! Deaths before and after every single operation, at every stage of a log's life.

use crate::deployment::Deployment;
use crate::faulty_store::{Fault, Moment, Side, is_change, kind_of};
use crate::oracle::{Expected, Logs, Random};
use std::collections::{BTreeMap, BTreeSet};

/// Lines in each of the three logs: some eight epochs of [`LINES_PER_EPOCH`] lines.
const LINES: usize = 240;

const LINES_PER_EPOCH: u64 = 90;

/// Number of random pairs of points at which two deaths in a row are tried.
const PAIRS: u64 = 24;

/// Step between tested reads. Runs on an old log open it like the first run, which is tested at every single read.
const READS_STEP: usize = 4;

/// After every so many recoveries, another run with nothing to do must change nothing.
const AGAIN_EVERY: usize = 4;

/// A deployment whose process has died.
struct Death {
    deployment: Deployment,
    /// How it died.
    story: String,
    changes: BTreeSet<String>,
}

/// Runs a process that should die; `None` if it ended before.
fn die(base: &Deployment, fault: Fault) -> Option<Death> {
    let deployment = base.fork();
    let (outcome, faults) = deployment.run(fault.clone(), 1);
    if !faults.is_dead() {
        outcome.expect("a process without faults ends well");
        return None;
    }
    let (verb, path) = faults.operations().last().cloned().expect("the deadly operation");
    Some(Death { deployment, story: format!("{fault:?}, {verb} {path}"), changes: faults.changes_made() })
}

/// Kills a process before and after each of its operations. After each death, a new process must end with everything
/// counted once. Of read operations, only every `reads_step`th of a kind is tested. Returns the kinds at which one
/// died.
fn die_everywhere(base: &Deployment, expected: &Expected, reads_step: usize, name: &str) -> BTreeSet<String> {
    let reference = base.fork();
    let (outcome, faults) = reference.run(Fault::None, 1);
    outcome.expect(name);
    let trace = faults.operations();
    reference.check(expected, true, name);

    let mut points: BTreeMap<String, usize> = BTreeMap::new();
    for (verb, path) in &trace {
        *points.entry(kind_of(verb, path)).or_default() += 1;
    }
    let (mut kinds, mut checked) = (BTreeSet::new(), BTreeSet::new());
    for (kind, count) in points {
        let (verb, _) = kind.split_once(' ').expect("a verb and a folder");
        // After a read, the state equals the one before the next operation.
        let (step, sides) =
            if is_change(verb) { (1, &[Side::Before, Side::After][..]) } else { (reads_step, &[Side::Before][..]) };
        for &side in sides {
            // If a run outlives its fault, there is no further operation of this kind.
            for at in (1..).step_by(step) {
                let Some(death) = die(base, Fault::Death(Moment::OfKind(kind.clone(), at), side)) else {
                    assert!(at > 1, "{name}: {kind} came {count} times, and never again");
                    break;
                };
                kinds.insert(kind.clone());
                // The stored data follows from the changes before the death: equal changes mean equal stores.
                if checked.insert(death.changes) {
                    let again = checked.len().is_multiple_of(AGAIN_EVERY);
                    death.deployment.check(expected, again, &format!("{name}: {}", death.story));
                }
            }
        }
    }
    kinds
}

fn check_kinds(kinds: &BTreeSet<String>, expected: &[&str]) {
    for kind in expected {
        assert!(kinds.contains(*kind), "nobody died at {kind}, only at {kinds:#?}");
    }
}

/// Operations of every run with something to read.
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
    let kinds = die_everywhere(&base, &logs.expected(), 1, "first run");
    check_kinds(&kinds, &EVERY_RUN);
    check_kinds(&kinds, &["put lake/clicks_by_hour/_delta_log", "put lake/corrections/_delta_log"]);
}

/// A deployment whose servers wrote two thirds of their lines, and which read them in one run, `lines_per_epoch` at a
/// time. The rest is written but not read, and will be read `then` lines at a time.
fn aged(logs: &Logs, lines: usize, lines_per_epoch: u64, then: u64) -> Deployment {
    let mut base = Deployment::new(lines_per_epoch);
    base.write(&logs.first(lines * 2 / 3));
    base.run_well("ageing");
    base.set_lines_per_epoch(then);
    base.write(logs);
    base
}

#[test]
fn across_a_base_that_repeats_minutes() {
    let lines = 315;
    let logs = Logs::generate(2, lines);
    let base = aged(&logs, lines, 3, 40);
    // Record 192 is the first base that repeats minutes: those begun before record 64 and still live.
    assert!((182..191).contains(&base.head()), "{}", base.head());
    let kinds = die_everywhere(&base, &logs.expected(), READS_STEP, "base");
    check_kinds(&kinds, &EVERY_RUN);
}

#[test]
fn across_the_first_collection() {
    let lines = 339;
    let logs = Logs::generate(3, lines);
    let base = aged(&logs, lines, 3, LINES_PER_EPOCH);
    // The lake contains the first base that makes older records unnecessary.
    assert!((192..250).contains(&base.head()), "{}", base.head());
    let kinds = die_everywhere(&base, &logs.expected(), READS_STEP, "first collection");
    check_kinds(&kinds, &EVERY_RUN);
    check_kinds(&kinds, &["delete epochs"]);
}

#[test]
fn and_again_in_the_next_run() {
    let logs = Logs::generate(4, LINES);
    let expected = logs.expected();
    let young = Deployment::new(LINES_PER_EPOCH);
    young.write(&logs);
    let old = aged(&logs, LINES, 7, LINES_PER_EPOCH);
    assert!((58..64).contains(&old.head()), "{}", old.head());
    for seed in 0..PAIRS {
        let mut random = Random(seed);
        let deployment = if seed % 2 == 0 { young.fork() } else { old.fork() };
        let mut context = format!("seed {seed}");
        for _ in 0..2 {
            // Runs have 150 to 250 operations: a few of these points are beyond the end.
            let at = 1 + random.below(230) as usize;
            let side = if random.below(2) == 0 { Side::Before } else { Side::After };
            context.push_str(&format!(", death {side:?} operation {at}"));
            let (outcome, faults) = deployment.run(Fault::Death(Moment::Nth(at), side), 1);
            assert!(faults.is_dead() || outcome.is_ok(), "{context}: {outcome:?}");
        }
        deployment.check(&expected, true, &context);
    }
}
