//! The ledger: every line that was read, under one verdict.

use crate::{Error, Invariant, Verdict};
use serde::{Deserialize, Serialize};
use std::ops::AddAssign;

/// Lines by verdict, cumulative. It must add up at all times: see [`Ledger::check`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Ledger {
    /// Lines read.
    pub read: u64,
    /// New clicks.
    pub counted: u64,
    /// Copies of clicks.
    pub duplicate: u64,
    /// Lines whose minute was final.
    pub late: u64,
    /// Lines ahead of the clock.
    pub future: u64,
    /// Lines that could not be parsed.
    pub malformed: u64,
    /// Lines with a field that breaks the rules.
    pub invalid: u64,
    /// Copies, of those counted under `duplicate`, whose remaining fields differed from the click that was counted.
    pub conflicting_duplicates: u64,
    /// Bytes that could never be read.
    pub gap_bytes: u64,
    /// NUL bytes that belong to no line: padding before or after the text of a line. Not part of format 1.
    #[serde(skip)]
    pub nul_bytes: u64,
}

impl Ledger {
    /// Books `lines` lines under a verdict.
    pub fn book(&mut self, verdict: Verdict, lines: u64) {
        self.read += lines;
        *match verdict {
            Verdict::Malformed => &mut self.malformed,
            Verdict::Invalid => &mut self.invalid,
            Verdict::Future => &mut self.future,
            Verdict::Duplicate => &mut self.duplicate,
            Verdict::Late => &mut self.late,
            Verdict::Counted => &mut self.counted,
        } += lines;
    }

    /// The sum of all verdicts, which must equal `read`.
    pub fn sum(&self) -> u64 {
        self.counted + self.duplicate + self.late + self.future + self.malformed + self.invalid
    }

    /// Conservation: `read = counted + duplicate + late + future + malformed + invalid`.
    ///
    /// # Errors
    /// An internal error that must stop the process when it does not add up.
    pub fn check(&self, whose: &str) -> Result<(), Error> {
        if self.read == self.sum() && self.conflicting_duplicates <= self.duplicate {
            Ok(())
        } else {
            Err(Error::violated(Invariant::Conservation, format!("the ledger of {whose} does not add up: {self:?}")))
        }
    }
}

impl AddAssign<&Ledger> for Ledger {
    fn add_assign(&mut self, other: &Ledger) {
        self.read += other.read;
        self.counted += other.counted;
        self.duplicate += other.duplicate;
        self.late += other.late;
        self.future += other.future;
        self.malformed += other.malformed;
        self.invalid += other.invalid;
        self.conflicting_duplicates += other.conflicting_duplicates;
        self.gap_bytes += other.gap_bytes;
        self.nul_bytes += other.nul_bytes;
    }
}
