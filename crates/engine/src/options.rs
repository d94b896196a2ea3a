//! What to run, and how it ends.

use crate::settings::Settings;
use adtally_pipeline::RunEnd;

/// How a run ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// Tails and serves until it is stopped.
    Never,
    /// Reads all inputs to their end and closes the minutes seen.
    UntilEnd,
    /// The same, and makes them final.
    Final,
    /// The same over inputs that nobody writes to any more, so that an unterminated last row of CSV is a line, into a lake
    /// that is thrown away afterwards, so that keeping it in order is worth nothing.
    Scratch,
}

impl Ending {
    /// Whether the run ends with its inputs.
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
    /// How it ends.
    pub ending: Ending,
    /// How often a bounded run tries to write before it gives up; a service tries for ever.
    pub attempts_max: u32,
}

/// Attempts of a bounded run before it gives up: about a minute.
pub const ATTEMPTS_MAX: u32 = 20;
