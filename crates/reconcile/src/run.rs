//! One run of reconciliation: which minutes to recount, the recount in slices, and the commit of what it found.

use crate::compare::{days_of, union};
use crate::corrections::{Change, Corrections, SourceProgress};
use crate::recount::{DamagedEpoch, Found, FoundClicks, Hours, Level, Recount, Rolled, Slice, slices};
use adtally_model::ledger::thousands;
use adtally_model::reconcile::{Cause, Correction, EpochOf, Reconciled, Recounted};
use adtally_model::time::rfc3339;
use adtally_model::{Error, Frontiers, Minute, MinuteCounts, Progress, RECONCILE, Result, Watermark};
use adtally_store::epoch_log::EpochLogs;
use adtally_store::lake::{Epochs, Lake, Table};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Most clicks in one epoch of corrections.
pub(crate) const CLICKS_MAX: usize = 500_000;

/// Slices without findings after which the progress is committed.
const SLICES_BETWEEN_COMMITS: usize = 16;

const HOUR_MINUTES: i64 = 60;

/// Most hours with damage that a report describes.
pub const DAMAGED_SHOWN_MAX: usize = 100;

/// What to recount.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReconcileOptions {
    /// The first minute; by default the first one that needs it.
    pub from: Option<Minute>,
    /// The minute after the last; by default the first one that is not final.
    pub to: Option<Minute>,
    /// Who started the run: `schedule` or `command`.
    pub made_by: &'static str,
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
    /// Hours of epochs in which `clicks` is not what was stored. Nothing in these hours was corrected.
    pub damaged_hours: u64,
    /// The first of them, at most [`DAMAGED_SHOWN_MAX`].
    pub damaged: Vec<String>,
    /// Dead letters of minutes whose raw clicks are no longer kept. They are not recovered.
    pub expired: u64,
    /// The minute from which minutes are not final, and why.
    pub not_final: Option<(Minute, String)>,
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
                "{} late or future lines cannot be recovered: the raw clicks of their minutes are no longer kept",
                thousands(self.expired)
            ));
        }
        let shown = self.damaged.iter().take(hours_max);
        notes.extend(shown.map(|damaged| format!("{damaged}: nothing was corrected there")));
        let further = self.damaged_hours.saturating_sub(self.damaged.len().min(hours_max) as u64);
        if further > 0 {
            notes.push(format!("{} more hours of damaged clicks", thousands(further)));
        }
        notes
    }

    pub(crate) fn add(&mut self, cause: Cause, rows: u64, clicks: i64) {
        if rows > 0 {
            let sum = self.findings.entry(cause).or_default();
            sum.rows += rows;
            sum.clicks += clicks;
        }
    }
}

/// The source partitions at the lake's epochs.
pub(crate) struct Sources {
    epochs: Vec<EpochOf>,
    pub(crate) progress: SourceProgress,
    /// Minutes before this one are final in every source partition.
    final_to: Option<Minute>,
    /// Why later minutes are not final.
    reason: String,
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
        run.correct(&plan.recount.find(from, to).await?).await?;
        run.state.recount(Recounted { from, to, cut: plan.sources.epochs.clone() });
        done += (to.0 - from.0).unsigned_abs();
        watch(done, minutes);
    }
    for range in &plan.compared {
        run.compare(&plan, range).await?;
    }
    run.state.uncompared.clear();
    let is_complete = options.from.is_none() && options.to.is_none();
    if is_complete {
        run.state.since = Some(plan.since);
        run.state.completed_ms = run.corrections.as_ref().map(|corrections| corrections.now_ms());
    }
    if is_complete || !plan.slices.is_empty() || !plan.compared.is_empty() {
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
            self.report.add(cause, rows.len() as u64, sum_of(&counts));
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

/// The minutes of a run.
pub(crate) struct Plan<'a> {
    pub(crate) recount: Recount<'a>,
    sources: Sources,
    slices: Vec<Slice>,
    /// Days whose counts by hour and day are to be compared with the stored clicks.
    compared: Vec<Slice>,
    /// Rows of `clicks` by hour.
    pub(crate) hours: Hours,
    /// Hours in which `clicks` is not whole.
    pub(crate) damaged: BTreeSet<Minute>,
    /// Minutes from this one on are not final.
    pub(crate) final_to: Minute,
    /// The first minute whose raw clicks, counts and dead letters are all kept.
    pub(crate) kept_from: Minute,
    /// The first minute with anything to recount.
    since: Minute,
    /// What is known before the recount.
    report: ReconcileReport,
}

impl<'a> Plan<'a> {
    async fn make(
        lake: &'a Lake,
        logs: &EpochLogs,
        state: &Reconciled,
        options: &ReconcileOptions,
    ) -> Result<Plan<'a>> {
        let rolled = Rolled::read(lake, logs).await?;
        let held = lake.epochs().await?;
        let sources = Sources::at(logs, &held).await?;
        let recount = Recount::open(lake, &sources.cut(&held), rolled).await?;
        let mut kept_from = Minute(i64::MIN);
        for table in [Table::Clicks, Table::ClicksByMinute, Table::DeadLetters] {
            // Dead letters are kept by the time at which they were read, which is later than that of their clicks.
            kept_from = kept_from.max(lake.kept_from(table).await?.unwrap_or(kept_from));
        }
        let (first, end) = lake.minutes().await?.unwrap_or((Minute(0), Minute(0)));
        let final_to = sources.final_to.unwrap_or(first);
        let not_final = (end > final_to).then(|| (final_to.max(first), sources.reason.clone()));
        let hours = recount.hours(kept_from, final_to).await?;
        // Clicks may be missing at the beginning: the ledger still names their hours.
        let begun = [hours.keys().next().copied(), recount.first_hour(kept_from).await?];
        let since = begun.into_iter().flatten().min().unwrap_or(final_to).max(kept_from);
        let whole = Slice {
            from: options.from.unwrap_or(since).max(kept_from),
            to: options.to.unwrap_or(final_to).min(final_to),
        };
        let is_asked = options.from.is_some() || options.to.is_some();
        let Due { ranges, fresh } = match is_asked {
            _ if whole.from >= whole.to => Due::default(),
            true => Due { ranges: vec![whole], fresh: vec![whole] },
            false => due(whole, state, &recount).await?,
        };
        let before = state.uncompared.iter().map(|&(from, to)| Slice { from, to });
        let compared = days_of(before.chain(fresh));
        let suspects: Vec<Slice> = union(ranges.iter().chain(&compared).copied(), 0);
        let clipped = |range: Slice| Slice { from: range.from.max(kept_from), to: range.to.min(final_to) };
        let suspects: Vec<Slice> = suspects.into_iter().map(clipped).filter(|range| range.from < range.to).collect();
        let found = damaged(&recount, &suspects).await?;
        let damaged: BTreeSet<Minute> = found.iter().map(|damaged| damaged.hour).collect();
        let ranges = without(&ranges, &damaged);
        let report = ReconcileReport {
            minutes: ranges.iter().map(|range| (range.to.0 - range.from.0).unsigned_abs()).sum(),
            span: ranges.first().zip(ranges.last()).map(|(first, last)| (first.from, last.to)),
            damaged_hours: found.len() as u64,
            damaged: found.iter().take(DAMAGED_SHOWN_MAX).map(ToString::to_string).collect(),
            expired: recount.letters_before(kept_from, &state.last_cut()).await?,
            not_final,
            ..ReconcileReport::default()
        };
        let slices = slices(&ranges, &hours);
        Ok(Plan { recount, sources, slices, compared, hours, damaged, final_to, kept_from, since, report })
    }
}

impl Sources {
    /// The epochs of the recount, with the newest corrections.
    fn cut(&self, held: &Epochs) -> Epochs {
        let mut cut: Epochs = self.epochs.iter().map(|of| (of.partition, of.number)).collect();
        if held.last(RECONCILE) > 0 {
            cut.note(RECONCILE, held.last(RECONCILE));
        }
        cut
    }

    /// Reads the progress of the source partitions at the lake's epochs from their records.
    pub(crate) async fn at(logs: &EpochLogs, held: &Epochs) -> Result<Sources> {
        let mut sources =
            Sources { epochs: Vec::new(), progress: SourceProgress::default(), final_to: None, reason: String::new() };
        let mut all: Vec<Progress> = Vec::new();
        for partition in logs.partitions().await?.into_iter().filter(|&partition| partition != RECONCILE) {
            let number = held.last(partition);
            if number == 0 {
                sources.reason = format!("partition {partition} is not in the lake yet");
                return Ok(sources);
            }
            let Some((epoch, _)) = logs.log(partition).read(number).await? else {
                return Err(Error::transient(format!(
                    "record {number} of partition {partition} was deleted while the recount began: try again"
                )));
            };
            all.push(epoch.progress);
        }
        sources.epochs =
            all.iter().map(|of| EpochOf { partition: of.partition, log_id: of.log_id, number: of.number }).collect();
        let least = |of: fn(&Frontiers) -> Watermark| {
            all.iter().map(|progress| of(&progress.frontiers)).min().unwrap_or_default()
        };
        sources.progress = SourceProgress {
            frontiers: Frontiers {
                watermark: least(|of| of.watermark),
                closed: least(|of| of.closed),
                final_: least(|of| of.final_),
                expired: least(|of| of.final_),
            },
            newest_click_ms: all.iter().filter_map(|progress| progress.newest_click_ms).max(),
        };
        sources.final_to = sources.progress.frontiers.final_.get().map(Minute::of);
        if let Some(last) = all.iter().min_by_key(|progress| progress.frontiers.final_) {
            let watermark = last
                .frontiers
                .watermark
                .get()
                .map_or("no watermark".to_owned(), |watermark| format!("the watermark {}", rfc3339(watermark)));
            sources.reason = format!("partition {} has {watermark}", last.partition);
        }
        Ok(sources)
    }
}

/// The minutes that need a recount.
#[derive(Default)]
struct Due {
    /// All of them.
    ranges: Vec<Slice>,
    /// Those that were never recounted.
    fresh: Vec<Slice>,
}

/// The minutes of `whole` that were never recounted, or for which there is something new. Ranges less than an hour apart are
/// joined: to recount a few more minutes is cheaper than to begin again.
async fn due(whole: Slice, state: &Reconciled, recount: &Recount<'_>) -> Result<Due> {
    let (mut ranges, mut fresh) = (Vec::new(), Vec::new());
    let mut at = whole.from;
    for range in &state.recounted {
        let (from, to) = (range.from.clamp(at, whole.to), range.to.clamp(at, whole.to));
        push(&mut ranges, at, from);
        push(&mut fresh, at, from);
        if from < to {
            let cut = range.cut.iter().map(|of| (of.partition, of.number)).collect();
            for minute in recount.changed(from, to, &cut).await? {
                push(&mut ranges, minute, minute.next());
            }
        }
        at = to;
    }
    push(&mut ranges, at, whole.to);
    push(&mut fresh, at, whole.to);
    Ok(Due { ranges: union(ranges, HOUR_MINUTES), fresh })
}

/// Appends minutes to ascending ranges.
fn push(ranges: &mut Vec<Slice>, from: Minute, to: Minute) {
    match ranges.last_mut() {
        _ if from >= to => {}
        Some(last) if last.to == from => last.to = to,
        _ => ranges.push(Slice { from, to }),
    }
}

/// The hours of some minutes in which `clicks` is not whole.
async fn damaged(recount: &Recount<'_>, ranges: &[Slice]) -> Result<Vec<DamagedEpoch>> {
    let mut damaged = Vec::new();
    let mut at = Minute(i64::MIN);
    for range in ranges {
        let (from, to) = (hour_of(range.from).max(at), hour_of(Minute(range.to.0 + HOUR_MINUTES - 1)));
        if from < to {
            damaged.extend(recount.damaged(from, to).await?);
            at = to;
        }
    }
    Ok(damaged)
}

fn hour_of(minute: Minute) -> Minute {
    Minute(minute.0 - minute.0.rem_euclid(HOUR_MINUTES))
}

/// The ranges without some hours.
fn without(ranges: &[Slice], hours: &BTreeSet<Minute>) -> Vec<Slice> {
    let mut left = Vec::new();
    for range in ranges {
        let mut at = range.from;
        for &hour in hours.range(hour_of(range.from)..range.to) {
            push(&mut left, at, hour.clamp(at, range.to));
            at = Minute(hour.0 + HOUR_MINUTES).clamp(at, range.to);
        }
        push(&mut left, at, range.to);
    }
    left
}

pub(crate) fn sum_of(counts: &[MinuteCounts]) -> i64 {
    counts.iter().map(MinuteCounts::total).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damaged_hours_are_left_out() {
        let slice = |(from, to): (i64, i64)| Slice { from: Minute(from), to: Minute(to) };
        let check = |ranges: &[(i64, i64)], hours: &[i64], expected: &[(i64, i64)]| {
            let ranges: Vec<Slice> = ranges.iter().copied().map(slice).collect();
            let hours = hours.iter().map(|hour| Minute(hour * 60)).collect();
            let expected: Vec<Slice> = expected.iter().copied().map(slice).collect();
            assert_eq!(without(&ranges, &hours), expected, "{ranges:?} {hours:?}");
        };
        check(&[(0, 200)], &[], &[(0, 200)]);
        check(&[(0, 200)], &[1], &[(0, 60), (120, 200)]);
        check(&[(70, 200)], &[1, 2], &[(180, 200)]);
        check(&[(0, 61), (119, 130)], &[1], &[(0, 60), (120, 130)]);
        check(&[(10, 20)], &[0], &[]);
        check(&[(-70, 10)], &[-1], &[(-70, -60), (0, 10)]);
    }
}
