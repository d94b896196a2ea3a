//! The end of an epoch: reviews inputs, lets the clock move frontiers, and returns everything that changed.

use super::{GONE_AFTER_MS, Partition, RunEnd};
use crate::clock_guard::ClockReading;
use crate::epoch_draft::EpochDraft;
use crate::frontier;
use crate::inputs::{Input, Unreadable};
use crate::watermark;
use adtally_model::epoch::{BASE_EVERY, FOLD_BEFORE_BASE};
use adtally_model::{
    Error, Frontiers, InputId, InputLog, InputStatus, Invariant, Minute, MinuteIdentities, Position, Progress, Result,
};

/// How long before the row of an ended input is summed up its file is checked again, in milliseconds.
const SEEN_AGAIN_MS: i64 = 24 * 3_600_000;

impl Partition {
    /// Ended inputs whose rows will be summed up unless the inputs are seen again within a day.
    pub fn long_unseen(&self, now: &ClockReading) -> Vec<InputId> {
        let old = |input: &&Input| is_unseen_for(input, now.guarded_ms, GONE_AFTER_MS - SEEN_AGAIN_MS);
        self.inputs.iter().filter(old).map(|input| input.row.id).collect()
    }

    /// The inputs whose rows were summed up since the last call. Their source may forget them.
    pub fn take_forgotten(&mut self) -> Vec<InputId> {
        std::mem::take(&mut self.forgotten)
    }

    /// Notes that the file of an ended input still exists.
    pub fn note_seen(&mut self, id: InputId, now: &ClockReading) {
        self.inputs.change(id, |input| {
            input.seen_at_ms = now.guarded_ms;
            input.touch();
        });
    }

    /// Notes that this process is watching. Time that it did not watch does not count as idleness, so call this often.
    pub fn observe(&mut self, now: &ClockReading) {
        self.observed.note(now.guarded_ms, self.settings.idle_timeout_ms);
    }

    /// Ends the epoch: reviews inputs, lets the clock move frontiers, and returns everything that changed. Returns
    /// `None` if nothing changed; the epoch then continues.
    ///
    /// # Errors
    /// An internal error when the ledger does not add up.
    pub fn end_epoch(&mut self, now: &ClockReading, run_end: RunEnd) -> Result<Option<EpochDraft>> {
        self.observe(now);
        self.inputs.review(now.guarded_ms, frontier::ms(self.progress.frontiers.watermark), &self.settings);
        // A later run will read what this bounded run cannot.
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

    /// Lets the clock move frontiers while every input is idle or has ended. Unreadable inputs keep no minute open, but
    /// while there are any, passing time alone makes nothing final.
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

    /// Whether the state of any minute would change.
    fn changes_a_minute(&self) -> bool {
        let minutes = |frontiers: &Frontiers| {
            [frontiers.closed, frontiers.final_, frontiers.expired].map(|frontier| frontier.get().map(Minute::of))
        };
        minutes(&self.progress.frontiers) != minutes(&self.epoch_frontiers)
    }

    /// Releases the inputs furthest behind, while more than `dedup_capacity` identities are in memory and inputs are
    /// further apart than the horizon. Only inputs at their end, and inputs that share a lane, can run away. Otherwise
    /// the inputs ahead wait until the others catch up, and nothing becomes late. While an input without a watermark
    /// holds, releasing others would move nothing.
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

    /// Checks the ledgers that an epoch records. For a base, also checks that they sum to the partition's ledger.
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

/// Whether an input has ended and has not been seen for `ms`. Nobody says that the log behind the records of a shared lane
/// has ended: it counts as ended while it is idle, and was last seen when its watermark last advanced.
fn is_unseen_for(input: &Input, now_ms: i64, ms: i64) -> bool {
    match (&input.row.log, input.row.status) {
        (InputLog::Records, InputStatus::Idle | InputStatus::Ended) => {
            now_ms - input.seen_at_ms.max(input.row.time.advanced_at_ms) > ms
        }
        (InputLog::File(_), InputStatus::Ended) => now_ms - input.seen_at_ms > ms,
        _ => false,
    }
}

/// Since when this process has watched without a break.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Observed {
    from_ms: Option<i64>,
    last_ms: i64,
}

impl Observed {
    /// Notes the time. A gap of more than `break_ms` since the last call, as when the process slept, starts again.
    fn note(&mut self, now_ms: i64, break_ms: i64) {
        if self.from_ms.is_none() || now_ms - self.last_ms > break_ms {
            self.from_ms = Some(now_ms);
        }
        self.last_ms = now_ms;
    }
}
