//! The end of an epoch: inputs are reviewed, the clock may move frontiers, and everything that changed is handed out.

use super::{GONE_AFTER_MS, Partition, RunEnd};
use crate::clock_guard::ClockReading;
use crate::epoch_draft::EpochDraft;
use crate::frontier;
use crate::inputs::{Input, Unreadable};
use crate::watermark;
use adtally_model::epoch::{BASE_EVERY, FOLD_BEFORE_BASE};
use adtally_model::{
    Error, Frontiers, InputId, InputStatus, Invariant, Minute, MinuteIdentities, Position, Progress, Result,
};

/// How long before its row is summed up an ended input is looked for once more: bases come far more often than daily.
const SEEN_AGAIN_MS: i64 = 24 * 3_600_000;

impl Partition {
    /// Inputs that have ended and whose rows will be summed up unless they are seen again within a day.
    pub fn long_unseen(&self, now: &ClockReading) -> Vec<InputId> {
        let old = |input: &&Input| is_unseen_for(input, now.guarded_ms, GONE_AFTER_MS - SEEN_AGAIN_MS);
        self.inputs.iter().filter(old).map(|input| input.row.id).collect()
    }

    /// The inputs whose rows were summed up since the last call: their source may forget them.
    pub fn take_forgotten(&mut self) -> Vec<InputId> {
        std::mem::take(&mut self.forgotten)
    }

    /// The file of an input that has ended is still there.
    pub fn note_seen(&mut self, id: InputId, now: &ClockReading) {
        self.inputs.change(id, |input| {
            input.seen_at_ms = now.guarded_ms;
            input.touch();
        });
    }

    /// Time passes under the eyes of this process: what it did not see is not taken for idleness. Call it often.
    pub fn observe(&mut self, now: &ClockReading) {
        self.observed.note(now.guarded_ms, self.settings.idle_timeout_ms);
    }

    /// Ends the epoch: reviews inputs, lets the clock move frontiers, and hands out everything that changed. `None`
    /// when nothing did, in which case the epoch goes on.
    ///
    /// # Errors
    /// An internal error when the ledger does not add up.
    pub fn end_epoch(&mut self, now: &ClockReading, run_end: RunEnd) -> Result<Option<EpochDraft>> {
        self.observe(now);
        self.inputs.review(now.guarded_ms, frontier::ms(self.progress.frontiers.watermark), &self.settings);
        // A later run will read what a bounded one cannot.
        self.inputs.set_lines_missing(self.unopened || (self.bounded && self.inputs.has_unreadable()));
        frontier::follow_watermark(&mut self.progress.frontiers, &self.inputs, &self.settings);
        self.release_inputs(now.guarded_ms);
        match run_end {
            RunEnd::GoesOn if now.agrees => self.follow_clock(now.guarded_ms),
            RunEnd::GoesOn => {}
            RunEnd::Close | RunEnd::Finalise => {
                if let Some(newest) = self.progress.newest_click_ms {
                    let finalise = run_end == RunEnd::Finalise;
                    frontier::close_up_to(&mut self.progress.frontiers, Minute::of(newest), finalise, &self.settings);
                }
            }
        }
        self.expire();
        self.progress.ledger.check("the partition")?;
        if !self.progress.frontiers.follows(&self.epoch_frontiers) {
            return Err(Error::violated(Invariant::MonotoneFrontiers, "a frontier moved back"));
        }
        let is_base = self.progress.number.is_multiple_of(BASE_EVERY);
        if self.bytes == 0 && !self.changes_a_minute() && !self.inputs.iter().any(Input::is_touched) {
            return Ok(None);
        }
        self.draft(now, is_base).map(Some)
    }

    /// Lets the clock move frontiers while every input is idle or has ended.
    /// What cannot be read keeps no minute open, but nothing becomes final without it only because time passes.
    fn follow_clock(&mut self, now_ms: i64) {
        if self.inputs.all_idle_since_ms(now_ms, Unreadable::LeftOut, &self.settings).is_none() {
            return;
        }
        let idle_ms = |since| now_ms - self.observed.from_ms.map_or(now_ms, |from| from.max(since));
        let idle_since = self.inputs.all_idle_since_ms(now_ms, Unreadable::NotIdle, &self.settings);
        let is_final = idle_since.is_some_and(|since| idle_ms(since) >= self.settings.idle_finality_ms);
        let largest = self.progress.largest_guarded_ms.filter(|_| is_final);
        frontier::follow_clock(&mut self.progress.frontiers, now_ms, largest, &self.settings);
    }

    /// Whether a minute would change its state.
    fn changes_a_minute(&self) -> bool {
        let minutes = |frontiers: &Frontiers| {
            [frontiers.closed, frontiers.final_, frontiers.expired].map(|frontier| frontier.get().map(Minute::of))
        };
        minutes(&self.progress.frontiers) != minutes(&self.epoch_frontiers)
    }

    /// While more identities are held than `dedup_capacity` and inputs lie further apart than the horizon, the least
    /// of them stop holding the watermark. Only inputs at their ends, and those that share a lane, run away from
    /// others: where those ahead wait, what is behind comes up to them, and nothing needs to be late. While one without a watermark holds, releasing others
    /// would move nothing.
    fn release_inputs(&mut self, now_ms: i64) {
        let held = |partition: &Partition| {
            let expired_ms = frontier::ms(partition.progress.frontiers.expired);
            partition.held.held_after(expired_ms) + partition.held_elsewhere
        };
        while held(self) > self.settings.dedup_capacity {
            let final_ms = frontier::ms(self.progress.frontiers.final_);
            let least = self.inputs.least_holding(final_ms, &self.settings, None);
            let least = least.filter(|&least| least != watermark::NONE || self.releases_unopened);
            let most = self.inputs.most_watermark_unaligned(now_ms, &self.settings);
            let (Some(least), Some(most)) = (least, most) else { return };
            if most.saturating_sub(least) <= self.settings.dedup_horizon_ms {
                return;
            }
            self.inputs.release(least, final_ms, &self.settings);
            frontier::follow_watermark(&mut self.progress.frontiers, &self.inputs, &self.settings);
        }
    }

    fn draft(&mut self, now: &ClockReading, is_base: bool) -> Result<EpochDraft> {
        if is_base {
            let (sum, ids) = self.inputs.remove_where(|input| is_unseen_for(input, now.guarded_ms, GONE_AFTER_MS));
            self.progress.gone += &sum;
            self.forgotten.extend(ids);
        }
        self.check_ledgers(is_base)?;
        let identities = self.held.drain_added();
        let final_ms = frontier::ms(self.progress.frontiers.final_);
        self.progress.reopened_from_ms =
            self.inputs.reopened_from_ms(self.progress.reopened_from_ms, final_ms, &self.settings);
        let draft = EpochDraft {
            progress: Progress { clock_ms: now.guarded_ms, all_ended: self.inputs.all_ended(), ..self.progress },
            inputs: self.inputs.record(is_base),
            windows: std::mem::take(&mut self.windows),
            identities: identities
                .into_iter()
                .map(|(minute, identities)| MinuteIdentities { minute, identities })
                .collect(),
            clicks: std::mem::take(&mut self.clicks),
            dead_letters: std::mem::take(&mut self.dead_letters),
            old_minutes: if is_base {
                self.held.begun_before(self.progress.number.saturating_sub(FOLD_BEFORE_BASE))
            } else {
                Vec::new()
            },
        };
        self.epoch_frontiers = self.progress.frontiers;
        self.progress.number += 1;
        self.progress.source = self.progress.source.map(Position::next);
        (self.lines, self.bytes) = (0, 0);
        Ok(draft)
    }

    /// Checks the ledgers that an epoch records; for a base, that they sum to the partition's.
    fn check_ledgers(&self, is_base: bool) -> Result<()> {
        for input in self.inputs.iter().filter(|input| is_base || input.is_touched()) {
            input.row.ledger.check(&input.row.name)?;
        }
        if !is_base {
            return Ok(());
        }
        let mut sum = self.progress.gone;
        for input in self.inputs.iter() {
            sum += &input.row.ledger;
        }
        if sum == self.progress.ledger {
            return Ok(());
        }
        let ledger = self.progress.ledger;
        let what = format!("the inputs sum to {sum:?}, the partition's ledger is {ledger:?}");
        Err(Error::violated(Invariant::Conservation, what))
    }
}

/// Whether an input has ended and was not seen for so long.
fn is_unseen_for(input: &Input, now_ms: i64, ms: i64) -> bool {
    input.row.status == InputStatus::Ended && now_ms - input.seen_at_ms > ms
}

/// Since when this process has watched without a break.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Observed {
    from_ms: Option<i64>,
    last_ms: i64,
}

impl Observed {
    /// Notes a moment; one that comes more than `break_ms` after the last begins anew: the process slept.
    fn note(&mut self, now_ms: i64, break_ms: i64) {
        if self.from_ms.is_none() || now_ms - self.last_ms > break_ms {
            self.from_ms = Some(now_ms);
        }
        self.last_ms = now_ms;
    }
}
