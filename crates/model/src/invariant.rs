//! The invariant register: ids shared by tests, simulation and production counters.

use std::fmt;

/// A property that is always true. A violation stops the process.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Invariant {
    /// No click is counted twice.
    NoDoubleCount,
    /// No line is lost: every line has exactly one verdict.
    Conservation,
    /// Positions advance by contiguous ranges only.
    ContiguousPositions,
    /// The epoch log is one linear chain.
    LinearChain,
    /// Watermarks and frontiers never move back.
    MonotoneFrontiers,
    /// A final minute never changes, except by corrections.
    FinalIsFinal,
    /// The lake contains exactly what the epoch log says, up to the epoch that it names.
    LakeEqualsLog,
}

impl Invariant {
    /// The id used in tests, metrics and documentation.
    pub const fn id(self) -> &'static str {
        match self {
            Invariant::NoDoubleCount => "EO-1",
            Invariant::Conservation => "EO-2",
            Invariant::ContiguousPositions => "EO-3",
            Invariant::LinearChain => "EO-4",
            Invariant::MonotoneFrontiers => "TM-1",
            Invariant::FinalIsFinal => "TM-2",
            Invariant::LakeEqualsLog => "ST-1",
        }
    }

    /// The invariant in words.
    pub const fn text(self) -> &'static str {
        match self {
            Invariant::NoDoubleCount => "no click is counted twice",
            Invariant::Conservation => "every line has exactly one verdict",
            Invariant::ContiguousPositions => "positions advance by contiguous ranges only",
            Invariant::LinearChain => "the epoch log is one linear chain",
            Invariant::MonotoneFrontiers => "watermarks and frontiers never move back",
            Invariant::FinalIsFinal => "a final minute never changes, except by corrections",
            Invariant::LakeEqualsLog => "the lake holds exactly what the epoch log says",
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.id(), self.text())
    }
}
