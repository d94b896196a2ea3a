//! One run of reconciliation: the recount in slices, and the commit of what it found.

use crate::corrections::{Change, Corrections, SourceProgress};
use crate::plan::Plan;
use crate::recount::{Damaged, Found, FoundClicks, Level, Slice, is_out_of_memory};
use adtally_model::ledger::thousands;
use adtally_model::reconcile::{Cause, Correction, Intake, Reconciled, Recounted};
use adtally_model::{ClickColumns, EpochNumber, Frontiers, Minute, MinuteCounts, RECONCILE, Result};
use adtally_store::epoch_log::EpochLogs;
use adtally_store::lake::Lake;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;

/// Most clicks in one epoch of corrections.
pub(crate) const CLICKS_MAX: usize = 500_000;

/// Slices without findings after which the progress is committed.
const SLICES_BETWEEN_COMMITS: usize = 16;

/// Most hours with damage that a report describes.
pub const DAMAGED_SHOWN_MAX: usize = 100;

/// What to recount.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReconcileOptions {
    /// The first minute; by default the first one that needs it.
    pub from: Option<Minute>,
    /// The minute after the last; by default the first one that is not final.
    pub to: Option<Minute>,
    /// Of these, only some minutes: those in which another recount found something.
    pub minutes: Option<Vec<Minute>>,
    /// Who started the run: `schedule` or `command`.
    pub made_by: &'static str,
}

impl ReconcileOptions {
    /// All minutes that need a recount.
    pub fn all(made_by: &'static str) -> ReconcileOptions {
        ReconcileOptions { from: None, to: None, minutes: None, made_by }
    }

    /// Whether all minutes that need it are recounted.
    pub fn is_complete(&self) -> bool {
        self.from.is_none() && self.to.is_none() && self.minutes.is_none()
    }
}

/// Corrections of one cause.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Corrected {
    /// Rows of `clicks` that were added; of a cause of counts, the counts that differed.
    pub rows: u64,
    /// The signed sum of clicks by which counts change.
    pub clicks: i64,
}

/// The result of a run.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ReconcileReport {
    /// The number of the run; `None` of a dry run, or if nothing was to do.
    pub run: Option<u64>,
    /// The minutes that were recounted.
    pub minutes: u64,
    /// The first of them, and the minute after the last.
    pub span: Option<(Minute, Minute)>,
    /// Corrections by cause.
    pub findings: BTreeMap<Cause, Corrected>,
    /// Clicks by which counts of minutes grow: they are to be billed.
    pub recovered: u64,
    /// Clicks by which counts of minutes shrink: they are to be credited.
    pub credits: u64,
    /// Hours of epochs in which `clicks` is not what was stored. Nothing in these hours was corrected.
    pub damaged_hours: u64,
    /// The first of them, at most [`DAMAGED_SHOWN_MAX`].
    pub damaged: Vec<String>,
    /// Dead letters of minutes whose raw clicks are no longer kept. They are not recovered.
    pub expired: u64,
    /// Late and future lines that an earlier version stored without their fields. Only a replay can decode them.
    pub without_fields: u64,
    /// The minute from which minutes are not final, and why.
    pub not_final: Option<(Minute, String)>,
    /// What became of the lines that were taken in; `None` of a recount.
    pub intake: Option<Intake>,
    /// The first lines that were taken in and rejected, each with its reason.
    pub rejected: Vec<String>,
    /// What a backfill could not read, such as a file that is no log or an incomplete last line, each with the reason.
    pub unread: Vec<String>,
    /// The run that this one reverted.
    pub reverted: Option<u64>,
}

impl ReconcileReport {
    /// Whether something was corrected or, in a dry run, would be.
    pub fn has_findings(&self) -> bool {
        !self.findings.is_empty()
    }

    /// What is wrong and was not corrected, in words. At most `hours_max` hours with damage are described.
    pub fn unsettled(&self, hours_max: usize) -> Vec<String> {
        let mut notes = Vec::new();
        if self.expired > 0 {
            notes.push(format!(
                "{} late or future lines cannot be recovered, because the raw clicks of their minutes were dropped \
                 (store.keep_clicks)",
                thousands(self.expired)
            ));
        }
        if self.without_fields > 0 {
            notes.push(format!(
                "{} late or future lines were stored by an earlier version without their fields: count their clicks with \
                 `adtally dead-letters replay`",
                thousands(self.without_fields)
            ));
        }
        let shown = self.damaged.iter().take(hours_max);
        notes.extend(shown.map(|damaged| format!(
            "{damaged}. Nothing in this hour was corrected: restore the data directory from a backup, and check it with \
             `adtally verify`"
        )));
        let further = self.damaged_hours.saturating_sub(self.damaged.len().min(hours_max) as u64);
        if further > 0 {
            notes.push(format!("{} more hours with damaged clicks: `adtally verify` lists them", thousands(further)));
        }
        notes
    }

    /// Adds hours in which stored clicks are damaged.
    pub(crate) fn note_damage(&mut self, found: &[Damaged]) {
        self.damaged_hours = found.len() as u64;
        self.damaged = found.iter().take(DAMAGED_SHOWN_MAX).map(ToString::to_string).collect();
    }

    /// Adds corrections of one cause, with the signed counts that change.
    pub(crate) fn add(&mut self, cause: Cause, rows: u64, counts: &[MinuteCounts]) {
        if rows == 0 {
            return;
        }
        let sum = self.findings.entry(cause).or_default();
        sum.rows += rows;
        sum.clicks += counts.iter().map(MinuteCounts::total).sum::<i64>();
        // Counts of hours and days are sums of those of minutes, or are repaired in their own tables alone.
        if !matches!(cause, Cause::HourCount | Cause::DayCount) {
            for (_, _, clicks) in counts.iter().flat_map(MinuteCounts::rows) {
                let sum = if clicks < 0 { &mut self.credits } else { &mut self.recovered };
                *sum += clicks.unsigned_abs();
            }
        }
    }
}

/// Recounts the minutes that are final and kept, and commits the corrections that they need. Without `corrections` it is
/// a dry run, which changes nothing. `watch` is called with the minutes done and the minutes to do.
///
/// # Errors
/// External when a store fails, corrupt when stored data is damaged, fenced when another process reconciles.
pub async fn reconcile(
    lake: &Lake,
    logs: &EpochLogs,
    corrections: Option<&mut Corrections>,
    options: &ReconcileOptions,
    watch: &(dyn Fn(u64, u64) + Send + Sync),
) -> Result<ReconcileReport> {
    let state = match &corrections {
        Some(corrections) => corrections.state().clone(),
        None => {
            let folded = logs.log(RECONCILE).fold().await?;
            folded.and_then(|state| state.reconcile).map(|record| record.state.clone()).unwrap_or_default()
        }
    };
    let plan = Plan::make(lake, logs, &state, options).await?;
    let number = state.runs + 1;
    let state = Reconciled { runs: number, ..state };
    let mut run = Run::new(state, corrections, plan.sources.progress, options.made_by, number);
    run.report = plan.report.clone();
    run.state.forget_before(plan.kept_from);
    run.state.uncompared = plan.compared.iter().map(|range| (range.from, range.to)).collect();
    let (mut done, minutes) = (0, run.report.minutes);
    for (number, &Slice { from, to }) in plan.slices.iter().enumerate() {
        if number > 0 && number % SLICES_BETWEEN_COMMITS == 0 {
            run.commit(None, None, Vec::new()).await?;
        }
        run.correct_slice(&plan, Slice { from, to }).await?;
        run.state.recount(Recounted { from, to, cut: plan.sources.epochs().to_vec() });
        done += (to.0 - from.0).unsigned_abs();
        watch(done, minutes);
    }
    for range in &plan.compared {
        run.compare(&plan, range).await?;
    }
    run.state.uncompared.clear();
    if options.is_complete() {
        run.state.since = Some(plan.since);
        run.state.completed_ms = run.corrections.as_ref().map(|corrections| corrections.now_ms());
    }
    if options.is_complete() || !plan.slices.is_empty() || !plan.compared.is_empty() {
        run.commit(None, None, Vec::new()).await?;
    }
    Ok(run.report)
}

/// A run between its slices.
pub(crate) struct Run<'a> {
    number: u64,
    /// Where to commit; `None` in a dry run.
    corrections: Option<&'a mut Corrections>,
    sources: SourceProgress,
    made_by: &'static str,
    state: Reconciled,
    pub(crate) report: ReconcileReport,
}

impl<'a> Run<'a> {
    /// A run that has corrected nothing. Without `corrections` it commits nothing.
    pub(crate) fn new(
        state: Reconciled,
        corrections: Option<&'a mut Corrections>,
        sources: SourceProgress,
        made_by: &'static str,
        number: u64,
    ) -> Run<'a> {
        Run { number, corrections, sources, made_by, state, report: ReconcileReport::default() }
    }

    /// Whether it commits nothing.
    pub(crate) fn is_dry(&self) -> bool {
        self.corrections.is_none()
    }

    /// The last epoch of the partition `reconcile` that it committed or found; `None` in a dry run.
    pub(crate) fn committed(&self) -> Option<EpochNumber> {
        self.corrections.as_ref().map(|corrections| corrections.progress().number)
    }

    /// Adds lines that were taken in to the ledger that the next commit contains.
    pub(crate) fn book(&mut self, more: &Intake) {
        self.state.intake.add(more);
    }

    /// Recounts a slice, in halves if its minutes need too much memory at once.
    async fn correct_slice(&mut self, plan: &Plan<'_>, slice: Slice) -> Result<()> {
        let mut left = vec![slice];
        while let Some(Slice { from, to }) = left.pop() {
            match plan.recount.find(from, to).await {
                Err(error) if is_out_of_memory(&error) && from.next() < to => {
                    let middle = Minute(from.0 + (to.0 - from.0) / 2);
                    left.extend([Slice { from: middle, to }, Slice { from, to: middle }]);
                }
                found => self.correct(&found?).await?,
            }
        }
        Ok(())
    }

    /// Makes the corrections of a slice.
    async fn correct(&mut self, found: &Found) -> Result<()> {
        for (&cause, clicks) in &found.recovered {
            self.correct_clicks(cause, clicks, 1).await?;
        }
        self.correct_clicks(Cause::StoredTwice, &found.stored_twice, -1).await?;
        self.correct_counts(Level::Minute.cause(), &found.counts).await
    }

    /// Adds rows to `clicks` with a sign.
    pub(crate) async fn correct_clicks(&mut self, cause: Cause, clicks: &FoundClicks, sign: i32) -> Result<()> {
        for first in (0..clicks.lines.len()).step_by(CLICKS_MAX) {
            let rows = first..clicks.lines.len().min(first + CLICKS_MAX);
            let counts = clicks.counts(rows.clone(), sign.into());
            self.report.add(cause, rows.len() as u64, &counts);
            self.commit(Some(cause), Some((clicks, rows, sign)), counts).await?;
        }
        Ok(())
    }

    pub(crate) async fn commit(
        &mut self,
        cause: Option<Cause>,
        clicks: Option<(&FoundClicks, Range<usize>, i32)>,
        counts: Vec<MinuteCounts>,
    ) -> Result<()> {
        let Some(corrections) = &mut self.corrections else { return Ok(()) };
        let run = self.number;
        self.report.run = Some(run);
        let correction = cause.map(|cause| Correction { run, cause, made_by: self.made_by.to_owned() });
        let change = Change { correction, clicks, counts, state: self.state.clone() };
        corrections.commit(change, &self.sources).await
    }
}

impl Corrections {
    /// Adds clicks to final minutes, as one run. The frontiers are those of the source partitions. The caller has checked that no
    /// stored click equals one of them. After an error, the partition must be claimed again.
    ///
    /// # Errors
    /// External when a store fails, fenced when another process reconciles.
    pub async fn recover(
        &mut self,
        cause: Cause,
        made_by: &'static str,
        (columns, lines): (ClickColumns, Vec<(String, u64)>),
        frontiers: Frontiers,
    ) -> Result<()> {
        let number = self.state().runs + 1;
        let state = Reconciled { runs: number, ..self.state().clone() };
        let sources = SourceProgress { frontiers, newest_click_ms: None };
        let mut run = Run::new(state, Some(self), sources, made_by, number);
        run.correct_clicks(cause, &FoundClicks { columns, lines }, 1).await
    }
}
