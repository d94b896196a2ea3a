//! The life cycle of a run: which step is next, which error the run ends with, and when a stopping run gives up. This
//! module only decides; [`crate::run`] carries the decisions out.

use crate::options::Ending;
use adtally_model::{Error, Result};

/// How long a stopping run keeps trying to commit what it has read and to update the lake, in milliseconds: less than
/// the ten seconds after which container runtimes kill it. Giving up loses nothing, because the next start continues.
const DRAIN_MS_MAX: i64 = 8_000;

/// The steps of a run, in order. Some runs skip steps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Reads, and submits epochs.
    Read,
    /// The run was asked to stop: submits the epochs begun.
    HandOver,
    /// Waits until the submitted epochs are committed.
    Commit,
    /// Waits until the lake contains the committed epochs.
    Project,
    /// Everything is read: maintains the lake once.
    KeepLake,
    /// The run is over.
    Over,
}

/// The current step of a run, and its outcome so far.
#[derive(Debug)]
pub struct LifeCycle {
    step: Step,
    is_bounded: bool,
    is_interrupted: bool,
    outcome: Result<()>,
}

impl LifeCycle {
    /// The life cycle of a run that has not read anything.
    pub fn new(ending: Ending) -> LifeCycle {
        LifeCycle { step: Step::Read, is_bounded: ending.is_bounded(), is_interrupted: false, outcome: Ok(()) }
    }

    /// The current step.
    pub fn step(&self) -> Step {
        self.step
    }

    /// Whether the run stopped before its inputs ended.
    pub fn is_interrupted(&self) -> bool {
        self.is_interrupted
    }

    /// Whether the run ends with an error. If so, the next start commits the rest.
    pub fn has_failed(&self) -> bool {
        self.outcome.is_err()
    }

    /// Asks the run to stop. A run that has read everything ends anyway.
    pub fn ask_to_stop(&mut self) {
        if self.step == Step::Read {
            (self.step, self.is_interrupted) = (Step::HandOver, true);
        }
    }

    /// Records an error of the current step. The projector's error replaces others, because they may only say that the
    /// projector has ended. Otherwise the first error is kept.
    pub fn fail(&mut self, error: Error) {
        if self.outcome.is_ok() || self.step == Step::Project {
            self.outcome = Err(error);
        }
    }

    /// Ends the current step, whether it succeeded or failed.
    pub fn end_step(&mut self) {
        let keeps_lake = self.is_bounded && !self.is_interrupted && self.outcome.is_ok();
        self.step = match self.step {
            Step::Read | Step::HandOver => Step::Commit,
            Step::Commit => Step::Project,
            Step::Project if keeps_lake => Step::KeepLake,
            Step::Project | Step::KeepLake | Step::Over => Step::Over,
        };
    }

    /// The outcome. An error is returned only once.
    pub fn take_outcome(&mut self) -> Result<()> {
        std::mem::replace(&mut self.outcome, Ok(()))
    }
}

/// What to do about the time that a run takes to stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DrainOrder {
    /// Nothing.
    GoOn,
    /// The run was just asked to stop: stop upkeep, which is not needed before the end.
    StopUpkeep,
    /// The time is over: committers and projector give up.
    GiveUp,
}

/// Watches the time that a run takes to stop.
#[derive(Clone, Copy, Debug, Default)]
pub struct Drain {
    /// When the request to stop was first seen, in milliseconds of monotonic time.
    asked_ms: Option<i64>,
}

impl Drain {
    /// What to do now.
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

    /// The steps and the outcome of a run that is asked to stop in step `stop` and in which `failing` steps fail.
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
            // The run has read everything already.
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
