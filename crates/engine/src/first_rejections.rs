//! The first rejected line of each reason, for users who want to see what is wrong with a file.

use adtally_model::dead_letter::reason_kind;
use adtally_model::{DeadLetter, Verdict};
use std::collections::BTreeMap;

/// Most reasons remembered.
const REASONS_MAX: usize = 32;

/// The place and the reason of a rejected line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FirstRejection {
    /// Why it was rejected.
    pub verdict: Verdict,
    /// The reason in words.
    pub reason: String,
    /// The input.
    pub input: String,
    /// Where the line begins, as a byte offset into the input's uncompressed text.
    pub position: u64,
}

/// Remembers the first rejected line of each reason.
#[derive(Debug, Default)]
pub struct FirstRejections {
    found: BTreeMap<(Verdict, String), FirstRejection>,
}

impl FirstRejections {
    /// Examines lines that were not counted, in reading order.
    pub fn observe(&mut self, letters: &[DeadLetter]) {
        for letter in letters {
            // These lines are valid clicks.
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

    /// The rejections found, by verdict and reason.
    pub fn list(&self) -> Vec<FirstRejection> {
        self.found.values().cloned().collect()
    }
}
