//! What an operator should know of inputs.

use super::{Committed, Report};
use adtally_model::{InputRow, InputStatus};
use std::sync::Arc;

/// An input whose watermark is this far behind the newest click is reported as holding minutes open.
const HOLDS_BACK_MS: i64 = 120_000;

impl Report {
    /// Adds sentences about inputs: gaps, released inputs, and the input that holds minutes open.
    pub(super) fn input_notes(&self, committed: &Committed, notes: &mut Vec<String>) {
        let lost = committed.progress.ledger.gap_offsets;
        if lost > 0 {
            let partition = committed.progress.partition;
            notes.push(format!("partition {partition}: the topic has lost {lost} offsets that were not read (gap)"));
        }
        let gap = committed.progress.ledger.gap_bytes;
        if gap > 0 {
            let of: Vec<&str> = committed
                .inputs
                .values()
                .filter(|row| row.ledger.gap_bytes > 0)
                .take(5)
                .map(|row| &*row.name)
                .collect();
            notes.push(format!("{gap} bytes could never be read (gap), for example of {}", of.join(", ")));
        }
        for row in committed.inputs.values().filter(|row| row.status == InputStatus::Released).take(5) {
            notes.push(format!(
                "input {} is so far behind that minutes no longer wait for it (dedup_capacity)",
                row.name
            ));
        }
        for row in committed.inputs.values().filter(|row| row.status == InputStatus::Unreadable).take(5) {
            notes.push(format!(
                "input {} could not be read for idle_timeout: minutes no longer wait for it; reading is tried again",
                row.name
            ));
        }
        // An input behind the final frontier holds nothing.
        let holds = |row: &&InputRow| {
            let behind = self
                .watermark_of(row)
                .zip(committed.progress.frontiers.final_.get())
                .is_some_and(|(own, final_)| own < final_);
            row.status == InputStatus::Holding && !behind
        };
        let holding = committed.inputs.values().map(Arc::as_ref).filter(holds);
        let least = holding.min_by_key(|row| self.watermark_of(row));
        if let (Some(row), Some(newest)) = (least, committed.progress.newest_click_ms) {
            match self.watermark_of(row) {
                None => notes.push(format!("input {} has no watermark yet and holds minutes open", row.name)),
                Some(watermark) if newest - watermark > HOLDS_BACK_MS => notes.push(format!(
                    "input {} holds minutes open: its watermark is {} s behind the newest click",
                    row.name,
                    (newest - watermark) / 1_000
                )),
                Some(_) => {}
            }
        }
    }
}
