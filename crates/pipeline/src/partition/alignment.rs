//! Stage: alignment limits how far an input with a backlog may run ahead of the others.

use super::Partition;
use crate::clock_guard::ClockReading;
use crate::frontier::{self, NEVER};
use crate::inputs::Blocker;
use crate::lateness::LineFrontiers;
use crate::pending_batch::PendingBatch;
use crate::settings::LIVE_MINUTES_MAX;
use crate::watermark;
use adtally_model::{Error, InputId, InputStatus, Result};

/// Live minutes up to which an input with a backlog may run ahead while another has no watermark and nothing to read;
/// also the most lines that it may then add at a time. Together they stay within the bound on live minutes.
const BLOCKED_MINUTES_MAX: usize = LIVE_MINUTES_MAX / 2;

/// How far an input may advance before the partition is asked again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    /// An input's next line is judged only while the input's watermark is not beyond this.
    pub(super) limit_ms: i64,
    /// Most lines.
    pub(super) lines_max: usize,
    /// The frontiers of the partition before each line.
    pub(super) frontiers: LineFrontiers,
}

impl Partition {
    /// How far the input of a batch may advance now, by at most `lines_max` lines. Records are not divided: only lanes
    /// wait for one another, and the inputs of records share one lane.
    ///
    /// # Errors
    /// An internal error when the partition does not know the input.
    pub(super) fn allowance(&self, batch: &PendingBatch, lines_max: usize, now: &ClockReading) -> Result<Allowance> {
        let id = batch.input;
        let unknown = || Error::internal(format!("input {id} is not known to the partition"));
        let status = self.inputs.get(id).ok_or_else(unknown)?.row.status;
        let final_ms = frontier::ms(self.progress.frontiers.final_);
        let is_blocked = status == InputStatus::Idle || self.inputs.blocker_of(id).is_some();
        // While the input holds, the partition's watermark before a line is the least of its own and the others'.
        let watermark_max_ms = match status {
            InputStatus::Holding => self.inputs.least_holding(final_ms, &self.settings, Some(id)).unwrap_or(i64::MAX),
            _ => NEVER,
        };
        let frontiers = LineFrontiers::new(&self.progress.frontiers, watermark_max_ms, &self.settings);
        if batch.is_record() {
            return Ok(Allowance { limit_ms: i64::MAX, lines_max: usize::MAX, frontiers });
        }
        // Each line may begin a minute.
        let lines_max = if is_blocked { lines_max.min(BLOCKED_MINUTES_MAX) } else { lines_max };
        Ok(Allowance { limit_ms: self.alignment_limit(id, now), lines_max, frontiers })
    }

    /// The watermark beyond which the next line of an input must not be judged.
    fn alignment_limit(&self, id: InputId, now: &ClockReading) -> i64 {
        let Some(input) = self.inputs.get(id) else { return i64::MAX };
        let final_ms = frontier::ms(self.progress.frontiers.final_);
        // While no frontier moves, nothing expires, so memory must be bounded. An idle input moves no frontier until an
        // epoch has ended and it holds again.
        let many_minutes = self.held.minutes() >= BLOCKED_MINUTES_MAX;
        if input.row.status == InputStatus::Idle && many_minutes {
            return watermark::NONE;
        }
        if self.inputs.at_end_lately(id, now.guarded_ms, &self.settings) {
            return i64::MAX;
        }
        match self.inputs.blocker_of(id) {
            Some(Blocker::WithBacklog) => return watermark::NONE,
            Some(Blocker::WithoutLines) if many_minutes || self.is_full() => return watermark::NONE,
            Some(Blocker::WithoutLines) | None => {}
        }
        let least = self.inputs.least_with_watermark(final_ms, &self.settings, Some(id));
        least.map_or(i64::MAX, |least| least.saturating_add(self.settings.alignment_ms))
    }

    /// Whether every input with a backlog must wait for lines that none of them can deliver.
    pub fn is_stuck(&self) -> bool {
        self.inputs.lines_are_missing() && (self.held.minutes() >= BLOCKED_MINUTES_MAX || self.is_full())
    }

    /// Whether the number of identities has reached its limit.
    fn is_full(&self) -> bool {
        self.held.held() + self.held_elsewhere >= self.settings.dedup_capacity
    }

    /// Whether an input with a backlog must wait for others now.
    pub fn must_wait(&self, id: InputId, now: &ClockReading) -> bool {
        let limit = self.alignment_limit(id, now);
        self.inputs.get(id).is_some_and(|input| input.watermark(&self.settings) > limit)
    }

    /// The least watermark of the holding inputs that have one. The others wait for the input with this watermark.
    pub fn least_holding_watermark(&self) -> Option<i64> {
        self.inputs.least_with_watermark(frontier::ms(self.progress.frontiers.final_), &self.settings, None)
    }
}
