//! What to run, and how it ends.

use crate::settings::Settings;
use adtally_pipeline::RunEnd;

/// How a run ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// Tails and serves until stopped.
    Never,
    /// Reads all inputs to their end and closes the minutes seen.
    UntilEnd,
    /// Like [`Ending::UntilEnd`], and makes the minutes final.
    Final,
    /// Like [`Ending::Final`], for inputs that no longer grow, so that an unterminated last row of CSV counts as a
    /// line. The lake is temporary, so upkeep only rolls up final minutes.
    Scratch,
}

impl Ending {
    /// Whether the run ends when its inputs end.
    pub fn is_bounded(self) -> bool {
        self != Ending::Never
    }

    /// How the last epoch ends.
    pub fn run_end(self) -> RunEnd {
        match self {
            Ending::Never => RunEnd::GoesOn,
            Ending::UntilEnd => RunEnd::Close,
            Ending::Final | Ending::Scratch => RunEnd::Finalise,
        }
    }
}

/// What to run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// All settings.
    pub settings: Settings,
    /// How the run ends.
    pub ending: Ending,
    /// Attempts of a bounded run to write before it gives up; a service retries forever.
    pub attempts_max: u32,
}

/// Attempts of a bounded run before it gives up: about a minute.
pub const ATTEMPTS_MAX: u32 = 20;
