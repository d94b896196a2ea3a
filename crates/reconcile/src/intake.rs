//! Takes clicks in after their minutes were final: of rejected lines that are decoded again, and of files that are brought in
//! later. Each click counts once, through the partition `reconcile`.

use crate::corrections::Corrections;
use crate::plan::{Sources, kept_from};
use crate::recount::{Damaged, FoundClicks, Level, Recount, Rolled, Slice};
use crate::run::{CLICKS_MAX, ReconcileReport, Run};
use adtally_model::reconcile::{Cause, Intake, Reconciled};
use adtally_model::{ClickColumns, Error, Identity, Invariant, Minute, RECONCILE, Result};
use adtally_store::epoch_log::EpochLogs;
use adtally_store::lake::Lake;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// A line is a click of the future if it was further ahead of the clock when it was read, in milliseconds.
const AHEAD_MS_MAX: i64 = 900_000;

/// Most clicks of a dry run that are remembered, so that their copies are told as duplicates.
const SEEN_MAX: usize = 8_000_000;

/// Most rejected lines that a report names.
pub const REJECTED_SHOWN_MAX: usize = 100;

/// Where a click comes from.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The name of its input.
    pub input: Arc<str>,
    /// The position of its line in the input.
    pub position: u64,
    /// When its line was read, in milliseconds since the Unix epoch.
    pub received_at_ms: i64,
}

/// What a line becomes, or would become.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// A correction.
    Recovered,
    /// Nothing: its click is stored.
    Duplicate,
    /// Nothing: it is too far ahead of the clock.
    Ahead,
    /// Nothing: the raw clicks of its minute are no longer kept, so its copies could not be found.
    Expired,
    /// Nothing yet: its minute is not final.
    NotFinal,
    /// Nothing yet: the stored clicks of its hour are damaged.
    Damaged,
}

impl Outcome {
    /// The outcome in words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Recovered => "recovered",
            Outcome::Duplicate => "duplicate",
            Outcome::Ahead => "rejected: more than 15 minutes ahead of the clock when it was read",
            Outcome::Expired => "expired: the raw clicks of its minute are no longer kept",
            Outcome::NotFinal => "waiting: its minute is not final",
            Outcome::Damaged => "waiting: the stored clicks of its hour are damaged",
        }
    }

    /// The ledger of one line with it.
    const fn booked(self) -> Intake {
        let mut one = Intake { read: 1, recovered: 0, duplicate: 0, rejected: 0, expired: 0, waiting: 0 };
        match self {
            Outcome::Recovered => one.recovered = 1,
            Outcome::Duplicate => one.duplicate = 1,
            Outcome::Ahead => one.rejected = 1,
            Outcome::Expired => one.expired = 1,
            Outcome::NotFinal | Outcome::Damaged => one.waiting = 1,
        }
        one
    }
}

/// Takes clicks in, in batches.
pub struct Intaker<'a> {
    lake: &'a Lake,
    sources: Sources,
    kept_from: Minute,
    final_to: Minute,
    cause: Cause,
    run: Run<'a>,
    /// The epoch of the partition `reconcile` to compare with.
    corrected: u64,
    /// Whether the stored clicks of an hour are damaged.
    hours: BTreeMap<Minute, bool>,
    /// The damage of these hours.
    damaged: Vec<Damaged>,
    /// In a dry run, the clicks that would have been recovered.
    seen: HashSet<Identity>,
    /// What was not committed yet.
    uncommitted: Intake,
    intake: Intake,
    rejected: Vec<String>,
}

impl<'a> Intaker<'a> {
    /// Begins a run. Without `corrections` it is a dry run, which changes nothing.
    ///
    /// # Errors
    /// External when a store fails.
    pub async fn begin(
        lake: &'a Lake,
        logs: &EpochLogs,
        corrections: Option<&'a mut Corrections>,
        cause: Cause,
        made_by: &'static str,
    ) -> Result<Intaker<'a>> {
        let held = lake.epochs().await?;
        let sources = Sources::at(logs, &held).await?;
        let kept_from = kept_from(lake).await?;
        let final_to = sources.final_to().unwrap_or(Minute(i64::MIN));
        let state = match &corrections {
            Some(corrections) => corrections.state().clone(),
            None => Reconciled::default(),
        };
        let number = state.runs + 1;
        let state = Reconciled { runs: number, ..state };
        let run = Run::new(state, corrections, sources.progress, made_by, number);
        Ok(Intaker {
            lake,
            sources,
            kept_from,
            final_to,
            cause,
            run,
            corrected: held.last(RECONCILE),
            hours: BTreeMap::new(),
            damaged: Vec::new(),
            seen: HashSet::new(),
            uncommitted: Intake::default(),
            intake: Intake::default(),
            rejected: Vec::new(),
        })
    }

    /// The first minute whose raw clicks are kept; `None` if nothing was deleted.
    pub fn kept_from(&self) -> Option<Minute> {
        Some(self.kept_from).filter(|kept_from| kept_from.0 > i64::MIN)
    }

    /// Books a line that is no click. `what` is its place and the reason.
    pub fn reject(&mut self, what: impl FnOnce() -> String) {
        self.uncommitted.add(&Intake { read: 1, rejected: 1, ..Intake::default() });
        if self.rejected.len() < REJECTED_SHOWN_MAX {
            self.rejected.push(what());
        }
    }

    /// Takes clicks in. Returns what became of each.
    ///
    /// # Errors
    /// External when a store fails, fenced when another process reconciles.
    pub async fn take(&mut self, clicks: &ClickColumns, origins: &[Origin]) -> Result<Vec<Outcome>> {
        let mut outcomes = Vec::with_capacity(origins.len());
        for first in (0..clicks.len().min(origins.len())).step_by(CLICKS_MAX) {
            let rows = first..clicks.len().min(first + CLICKS_MAX);
            self.take_some(clicks, origins, rows, &mut outcomes).await?;
        }
        Ok(outcomes)
    }

    async fn take_some(
        &mut self,
        clicks: &ClickColumns,
        origins: &[Origin],
        rows: std::ops::Range<usize>,
        outcomes: &mut Vec<Outcome>,
    ) -> Result<()> {
        let recount = Recount::open(self.lake, &self.sources.cut(self.corrected), Rolled::default()).await?;
        self.check_hours(&recount, rows.clone().map(|row| Minute::of(clicks.event_time_ms[row]))).await?;
        let begin = outcomes.len();
        let mut candidates = Vec::new();
        for row in rows.clone() {
            let refused = self.refused(clicks.event_time_ms[row], origins[row].received_at_ms);
            let is_copy = self.seen.contains(&clicks.identity[row]);
            if refused.is_none() && !is_copy {
                candidates.push(row);
            }
            outcomes.push(refused.unwrap_or(Outcome::Duplicate));
        }
        let mut found = FoundClicks::default();
        for row in recount.unknown(clicks, &candidates).await? {
            outcomes[begin + row - rows.start] = Outcome::Recovered;
            found.push(&clicks.get(row), origins[row].input.to_string(), origins[row].position);
            if self.run.is_dry() && self.seen.len() < SEEN_MAX {
                self.seen.insert(clicks.identity[row]);
            }
        }
        for (outcome, row) in outcomes[begin..].iter().zip(rows) {
            self.uncommitted.add(&outcome.booked());
            if *outcome == Outcome::Ahead && self.rejected.len() < REJECTED_SHOWN_MAX {
                let Origin { input, position, .. } = &origins[row];
                self.rejected.push(format!("{input}, position {position}: {}", outcome.as_str()));
            }
        }
        if found.lines.is_empty() {
            return Ok(());
        }
        self.book()?;
        self.run.correct_clicks(self.cause, &found, 1).await?;
        if let Some(epoch) = self.run.committed() {
            self.corrected = epoch;
        }
        Ok(())
    }

    /// Why a click is not compared with the stored ones, if it is not.
    fn refused(&self, event_time_ms: i64, received_at_ms: i64) -> Option<Outcome> {
        let minute = Minute::of(event_time_ms);
        if event_time_ms > received_at_ms.saturating_add(AHEAD_MS_MAX) {
            Some(Outcome::Ahead)
        } else if minute < self.kept_from {
            Some(Outcome::Expired)
        } else if minute >= self.final_to {
            Some(Outcome::NotFinal)
        } else if self.hours.get(&Level::Hour.floor(minute)) == Some(&true) {
            Some(Outcome::Damaged)
        } else {
            None
        }
    }

    /// Finds out whether the stored clicks of hours are damaged.
    async fn check_hours(&mut self, recount: &Recount<'_>, minutes: impl Iterator<Item = Minute>) -> Result<()> {
        let is_asked = |minute: &Minute| (self.kept_from..self.final_to).contains(minute);
        let hours = minutes.filter(is_asked).map(|minute| Level::Hour.floor(minute));
        let unknown: HashSet<Minute> = hours.filter(|hour| !self.hours.contains_key(hour)).collect();
        let end = |hour: Minute| Minute(hour.0 + Level::Hour.minutes());
        let ranges = crate::compare::union(unknown.iter().map(|&hour| Slice { from: hour, to: end(hour) }), 0);
        for range in ranges {
            let damaged = recount.damaged(range.from, range.to).await?;
            let mut hour = range.from;
            while hour < range.to {
                self.hours.insert(hour, damaged.iter().any(|damaged| damaged.hour == hour));
                hour = end(hour);
            }
            self.damaged.extend(damaged);
        }
        Ok(())
    }

    /// Adds what was not committed yet to the ledger.
    fn book(&mut self) -> Result<()> {
        let more = std::mem::take(&mut self.uncommitted);
        self.intake.add(&more);
        self.run.book(&more);
        if !self.intake.adds_up() {
            return Err(Error::violated(Invariant::Conservation, format!("of the lines taken in, {}", self.intake)));
        }
        Ok(())
    }

    /// Ends the run: commits what was read.
    ///
    /// # Errors
    /// As [`Intaker::take`].
    pub async fn finish(mut self) -> Result<ReconcileReport> {
        if self.uncommitted.read > 0 {
            self.book()?;
            self.run.commit(None, None, Vec::new()).await?;
        }
        let mut report = self.run.report;
        report.intake = Some(self.intake);
        report.rejected = self.rejected;
        report.note_damage(&self.damaged);
        Ok(report)
    }
}
