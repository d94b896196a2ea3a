//! The life cycle of a run: which step comes next, which error it ends with, and when a run that was asked to stop gives up.
//! These are decisions alone; [`crate::run`] carries them out.

use crate::options::Ending;
use adtally_model::{Error, Result};

/// How long a run that was told to stop goes on trying to commit what it has read and to bring the lake up to date:
/// less than the ten seconds after which container runtimes kill. Giving up loses nothing; the next start goes on.
const DRAIN_MS_MAX: i64 = 8_000;

/// What a run does, in this order. Some runs leave out steps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// It reads, and hands epochs over.
    Read,
    /// It was asked to stop: it hands over the epochs begun.
    HandOver,
    /// It waits until what was handed over is committed.
    Commit,
    /// It waits until the lake holds what is committed.
    Project,
    /// It has read everything, and keeps the lake in order once.
    KeepLake,
    /// It is over.
    Over,
}

/// Where a run stands, and what it has come to so far.
#[derive(Debug)]
pub struct LifeCycle {
    step: Step,
    is_bounded: bool,
    is_interrupted: bool,
    outcome: Result<()>,
}

impl LifeCycle {
    /// That of a run that has not read anything.
    pub fn new(ending: Ending) -> LifeCycle {
        LifeCycle { step: Step::Read, is_bounded: ending.is_bounded(), is_interrupted: false, outcome: Ok(()) }
    }

    /// The step to be done.
    pub fn step(&self) -> Step {
        self.step
    }

    /// Whether it stopped before its inputs were at their end.
    pub fn is_interrupted(&self) -> bool {
        self.is_interrupted
    }

    /// Whether it ends with an error: then what is not committed is left to the next start.
    pub fn has_failed(&self) -> bool {
        self.outcome.is_err()
    }

    /// The run is asked to stop. Once it has read everything it ends anyway.
    pub fn ask_to_stop(&mut self) {
        if self.step == Step::Read {
            (self.step, self.is_interrupted) = (Step::HandOver, true);
        }
    }

    /// The step has met an error. What stopped the projector is the cause where others only say that it has ended;
    /// otherwise the first error counts.
    pub fn fail(&mut self, error: Error) {
        if self.outcome.is_ok() || self.step == Step::Project {
            self.outcome = Err(error);
        }
    }

    /// The step has ended, in good order or with an error.
    pub fn end_step(&mut self) {
        let keeps_lake = self.is_bounded && !self.is_interrupted && self.outcome.is_ok();
        self.step = match self.step {
            Step::Read | Step::HandOver => Step::Commit,
            Step::Commit => Step::Project,
            Step::Project if keeps_lake => Step::KeepLake,
            Step::Project | Step::KeepLake | Step::Over => Step::Over,
        };
    }

    /// What it has come to. An error is told once.
    pub fn take_outcome(&mut self) -> Result<()> {
        std::mem::replace(&mut self.outcome, Ok(()))
    }
}

/// What is to be done about the time that a run takes to stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DrainOrder {
    /// Nothing.
    GoOn,
    /// It was just asked to stop: what need not be done before it ends is stopped.
    StopUpkeep,
    /// Its time is over: committers and projector give up.
    GiveUp,
}

/// The time that a run takes to stop.
#[derive(Clone, Copy, Debug, Default)]
pub struct Drain {
    /// When it was first seen that it was asked to, by monotonic time in milliseconds.
    asked_ms: Option<i64>,
}

impl Drain {
    /// What is to be done now.
    pub fn order(&mut self, is_asked_to_stop: bool, now_ms: i64) -> DrainOrder {
        match self.asked_ms {
            None if is_asked_to_stop => {
                self.asked_ms = Some(now_ms);
                DrainOrder::StopUpkeep
            }
            Some(asked_ms) if now_ms - asked_ms >= DRAIN_MS_MAX => DrainOrder::GiveUp,
            _ => DrainOrder::GoOn,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The steps of a run, which is asked to stop in the step `stop`, and in which these steps fail; and what it comes to.
    fn steps(ending: Ending, stop: Option<Step>, failing: &[Step]) -> (Vec<Step>, Option<String>) {
        let (mut life, mut steps) = (LifeCycle::new(ending), Vec::new());
        while life.step() != Step::Over {
            if stop == Some(life.step()) {
                life.ask_to_stop();
            }
            steps.push(life.step());
            if failing.contains(&life.step()) {
                life.fail(Error::transient(format!("{:?}", life.step())));
            }
            life.end_step();
        }
        (steps, life.take_outcome().err().map(|error| error.report()))
    }

    #[test]
    fn a_run_ends_step_by_step() {
        use Step::{Commit, HandOver, KeepLake, Project, Read};
        let check = |ending, stop, failing: &[Step], expected: &[Step], error: Option<Step>| {
            let error = error.map(|step| format!("{step:?}"));
            assert_eq!(steps(ending, stop, failing), (expected.to_vec(), error), "{ending:?} {stop:?} {failing:?}");
        };
        for ending in [Ending::UntilEnd, Ending::Final, Ending::Scratch] {
            check(ending, None, &[], &[Read, Commit, Project, KeepLake], None);
            check(ending, Some(Read), &[], &[HandOver, Commit, Project], None);
            // It has read everything already.
            check(ending, Some(Commit), &[], &[Read, Commit, Project, KeepLake], None);
            check(ending, None, &[Read], &[Read, Commit, Project], Some(Read));
        }
        check(Ending::Never, Some(Read), &[], &[HandOver, Commit, Project], None);
        check(Ending::Never, None, &[Read], &[Read, Commit, Project], Some(Read));
        check(Ending::Never, Some(Read), &[HandOver, Commit], &[HandOver, Commit, Project], Some(HandOver));
        check(Ending::Never, Some(Read), &[HandOver, Project], &[HandOver, Commit, Project], Some(Project));
        check(Ending::UntilEnd, None, &[Commit], &[Read, Commit, Project], Some(Commit));
        check(Ending::UntilEnd, None, &[Commit, Project], &[Read, Commit, Project], Some(Project));
    }

    #[test]
    fn a_drain_is_given_up_eight_seconds_after_the_stop() {
        let mut drain = Drain::default();
        let mut check = |asked, now_ms, expected| assert_eq!(drain.order(asked, now_ms), expected, "{now_ms}");
        check(false, 1_000, DrainOrder::GoOn);
        check(false, 100_000, DrainOrder::GoOn);
        check(true, 100_050, DrainOrder::StopUpkeep);
        check(true, 100_100, DrainOrder::GoOn);
        check(true, 108_049, DrainOrder::GoOn);
        check(true, 108_050, DrainOrder::GiveUp);
        check(true, 200_000, DrainOrder::GiveUp);
    }
}
