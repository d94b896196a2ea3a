//! The first rejected line of each reason, for people who want to see what is wrong with a file.

use adtally_model::dead_letter::reason_kind;
use adtally_model::{DeadLetter, Verdict};
use std::collections::BTreeMap;

/// Reasons that are remembered.
const REASONS_MAX: usize = 32;

/// Where a rejected line is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FirstRejection {
    /// Why it was rejected.
    pub verdict: Verdict,
    /// In words.
    pub reason: String,
    /// The input.
    pub input: String,
    /// Where the line begins, in bytes of the input's uncompressed text.
    pub position: u64,
}

/// Remembers the first rejected line of each reason.
#[derive(Debug, Default)]
pub struct FirstRejections {
    found: BTreeMap<(Verdict, String), FirstRejection>,
}

impl FirstRejections {
    /// Looks at lines that were not counted, in the order in which they were read.
    pub fn observe(&mut self, letters: &[DeadLetter]) {
        for letter in letters {
            // These lines are clicks.
            if matches!(letter.verdict, Verdict::Late | Verdict::Duplicate) {
                continue;
            }
            let key = (letter.verdict, reason_kind(&letter.reason));
            if self.found.contains_key(&key) || self.found.len() == REASONS_MAX {
                continue;
            }
            let rejection = FirstRejection {
                verdict: letter.verdict,
                reason: letter.reason.to_string(),
                input: letter.input.to_string(),
                position: letter.position,
            };
            self.found.insert(key, rejection);
        }
    }

    /// What was found, by verdict and reason.
    pub fn list(&self) -> Vec<FirstRejection> {
        self.found.values().cloned().collect()
    }
}
