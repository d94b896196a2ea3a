//! The ledger: every line read, under one verdict.

use crate::{Error, Invariant, Verdict};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::AddAssign;

/// Cumulative lines by verdict. They must always add up: see [`Ledger::check`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Ledger {
    /// Lines read.
    pub read: u64,
    /// New clicks.
    pub counted: u64,
    /// Copies of counted clicks.
    pub duplicate: u64,
    /// Lines whose minute was final.
    pub late: u64,
    /// Lines ahead of the clock.
    pub future: u64,
    /// Lines that could not be parsed.
    pub malformed: u64,
    /// Lines with a field that breaks the rules.
    pub invalid: u64,
    /// The lines under `duplicate` whose remaining fields differ from the counted click.
    pub conflicting_duplicates: u64,
    /// Bytes that could never be read.
    pub gap_bytes: u64,
    /// NUL bytes that belong to no line: padding before or after the text of a line. Not part of format 1.
    #[serde(skip)]
    pub nul_bytes: u64,
    /// Offsets that a topic had lost before they were read. Not part of format 1.
    #[serde(skip)]
    pub gap_offsets: u64,
}

impl Ledger {
    /// Adds `lines` lines to a verdict.
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

    /// Checks conservation: `read = counted + duplicate + late + future + malformed + invalid`.
    ///
    /// # Errors
    /// An internal error that must stop the process when the ledger does not add up.
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
        self.gap_offsets += other.gap_offsets;
    }
}

/// The sum line: `1,000,000 lines = 989,012 counted + 10,001 duplicate + …`.
impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} lines", thousands(self.read))?;
        let parts = [
            (self.counted, "counted"),
            (self.duplicate, "duplicate"),
            (self.late, "late"),
            (self.future, "future"),
            (self.malformed, "malformed"),
            (self.invalid, "invalid"),
        ];
        for ((lines, verdict), sign) in parts.into_iter().zip(std::iter::once('=').chain(std::iter::repeat('+'))) {
            write!(f, " {sign} {} {verdict}", thousands(lines))?;
        }
        if self.gap_bytes > 0 {
            write!(f, "; {} bytes could never be read", thousands(self.gap_bytes))?;
        }
        if self.gap_offsets > 0 {
            write!(f, "; {} offsets of a topic were lost", thousands(self.gap_offsets))?;
        }
        if self.nul_bytes > 0 {
            write!(f, "; {} NUL bytes belong to no line", thousands(self.nul_bytes))?;
        }
        Ok(())
    }
}

/// Formats a number for people: `1,234,567`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_separators() {
        let check = |number, expected: &str| assert_eq!(thousands(number), expected);
        check(0, "0");
        check(999, "999");
        check(1_000, "1,000");
        check(1_234_567, "1,234,567");
    }

    #[test]
    fn the_sum_line_names_what_is_no_line_only_where_there_is_some() {
        let mut ledger = Ledger { read: 1_500, counted: 1_499, late: 1, ..Ledger::default() };
        let lines = "1,500 lines = 1,499 counted + 0 duplicate + 1 late + 0 future + 0 malformed + 0 invalid";
        assert_eq!(ledger.to_string(), lines);
        (ledger.gap_bytes, ledger.nul_bytes) = (7, 4_096);
        let more = "; 7 bytes could never be read; 4,096 NUL bytes belong to no line";
        assert_eq!(ledger.to_string(), format!("{lines}{more}"));
    }
}
