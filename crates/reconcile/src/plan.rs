//! The plan of a run: which minutes to recount, at which epochs.

use crate::compare::{days_of, union};
use crate::corrections::SourceProgress;
use crate::recount::{Damaged, Hours, Level, Recount, Rolled, Slice, slices};
use crate::run::{ReconcileOptions, ReconcileReport};
use adtally_model::reconcile::{EpochOf, Reconciled};
use adtally_model::time::rfc3339;
use adtally_model::{
    EpochNumber, Error, Frontiers, InputRow, InputStatus, Minute, Progress, RECONCILE, Result, Watermark,
};
use adtally_store::epoch_log::EpochLogs;
use adtally_store::lake::{Epochs, Lake, Table};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Most inputs that are named as those that hold a partition.
const HOLDERS_SHOWN_MAX: usize = 3;

/// The source partitions at the lake's epochs.
pub(crate) struct Sources {
    epochs: Vec<EpochOf>,
    pub(crate) progress: SourceProgress,
    /// Minutes before this one are final in every source partition.
    final_to: Option<Minute>,
    /// The partition whose minutes become final last; the first one that is not in the lake, if there is one.
    last: Option<Progress>,
}

/// The minutes of a run.
pub(crate) struct Plan<'a> {
    pub(crate) recount: Recount<'a>,
    pub(crate) sources: Sources,
    pub(crate) slices: Vec<Slice>,
    /// Days whose counts by hour and day are to be compared with the stored clicks.
    pub(crate) compared: Vec<Slice>,
    /// Rows of `clicks` by hour.
    pub(crate) hours: Hours,
    /// Hours in which `clicks` is not whole.
    pub(crate) damaged: BTreeSet<Minute>,
    /// Minutes from this one on are not final.
    pub(crate) final_to: Minute,
    /// The first minute whose raw clicks, counts and dead letters are all kept.
    pub(crate) kept_from: Minute,
    /// The first minute with anything to recount.
    pub(crate) since: Minute,
    /// What is known before the recount.
    pub(crate) report: ReconcileReport,
}

impl<'a> Plan<'a> {
    pub(crate) async fn make(
        lake: &'a Lake,
        logs: &EpochLogs,
        state: &Reconciled,
        options: &ReconcileOptions,
    ) -> Result<Plan<'a>> {
        let rolled = Rolled::read(lake, logs).await?;
        let held = lake.epochs().await?;
        let sources = Sources::at(logs, &held).await?;
        let recount = Recount::open(lake, &sources.cut(held.last(RECONCILE)), rolled).await?;
        let kept_from = kept_from(lake).await?;
        let (first, end) = lake.minutes().await?.unwrap_or((Minute(0), Minute(0)));
        let final_to = sources.final_to.unwrap_or(first);
        let not_final = match end > final_to {
            true => Some((final_to.max(first), sources.reason(logs).await?)),
            false => None,
        };
        let hours = recount.hours(kept_from, final_to).await?;
        // Clicks may be missing at the beginning: the ledger still names their hours.
        let begun = [hours.keys().next().copied(), recount.first_hour(kept_from).await?];
        let since = begun.into_iter().flatten().min().unwrap_or(final_to).max(kept_from);
        let whole = Slice {
            from: options.from.unwrap_or(since).max(kept_from),
            to: options.to.unwrap_or(final_to).min(final_to),
        };
        let Due { ranges, fresh } = match &options.minutes {
            _ if whole.from >= whole.to => Due::default(),
            Some(minutes) => {
                let within = minutes.iter().filter(|&&minute| (whole.from..whole.to).contains(&minute));
                let ranges = union(within.map(|&from| Slice { from, to: from.next() }), Level::Hour.minutes());
                Due { fresh: ranges.clone(), ranges }
            }
            None if !options.is_complete() => Due { ranges: vec![whole], fresh: vec![whole] },
            None => due(whole, state, &recount).await?,
        };
        let before = state.uncompared.iter().map(|&(from, to)| Slice { from, to });
        let compared = days_of(before.chain(fresh));
        let suspects: Vec<Slice> = union(ranges.iter().chain(&compared).copied(), 0);
        let clipped = |range: Slice| Slice { from: range.from.max(kept_from), to: range.to.min(final_to) };
        let suspects: Vec<Slice> = suspects.into_iter().map(clipped).filter(|range| range.from < range.to).collect();
        let found = damaged(&recount, &suspects).await?;
        let damaged: BTreeSet<Minute> = found.iter().map(|damaged| damaged.hour).collect();
        let ranges = without(&ranges, &damaged);
        let mut report = ReconcileReport {
            minutes: ranges.iter().map(|range| (range.to.0 - range.from.0).unsigned_abs()).sum(),
            span: ranges.first().zip(ranges.last()).map(|(first, last)| (first.from, last.to)),
            expired: expired(&recount, state, kept_from).await?,
            without_fields: recount.letters_without_fields(kept_from, final_to, &state.last_cut()).await?,
            not_final,
            ..ReconcileReport::default()
        };
        report.note_damage(&found);
        let slices = slices(&ranges, &hours);
        Ok(Plan { recount, sources, slices, compared, hours, damaged, final_to, kept_from, since, report })
    }
}

/// The first minute whose raw clicks, counts, dead letters and ledger are all kept.
pub(crate) async fn kept_from(lake: &Lake) -> Result<Minute> {
    let mut kept_from = Minute(i64::MIN);
    for table in [Table::Clicks, Table::ClicksByMinute, Table::DeadLetters] {
        // Dead letters are kept by the time at which they were read, which is later than that of their clicks.
        kept_from = kept_from.max(lake.kept_from(table).await?.unwrap_or(kept_from));
    }
    Ok(kept_from.max(ledger_kept_from(lake).await?.unwrap_or(kept_from)))
}

/// The first minute of which the ledger says what was stored; `None` if nothing of it was deleted.
pub(crate) async fn ledger_kept_from(lake: &Lake) -> Result<Option<Minute>> {
    // The ledger is kept by the time of its epochs. They can be committed a little before the time of their clicks.
    Ok(lake.kept_from(Table::Ledger).await?.map(|kept| Minute(Level::Hour.ceil(kept).0 + Level::Hour.minutes())))
}

impl Sources {
    /// Minutes before this one are final in every source partition.
    pub(crate) fn final_to(&self) -> Option<Minute> {
        self.final_to
    }

    /// The last epoch of each source partition.
    pub(crate) fn epochs(&self) -> &[EpochOf] {
        &self.epochs
    }

    /// These epochs, with the corrections up to an epoch of the partition `reconcile`; 0 if there are none.
    pub(crate) fn cut(&self, corrected: EpochNumber) -> Epochs {
        let mut cut: Epochs = self.epochs.iter().map(|of| (of.partition, of.number)).collect();
        if corrected > 0 {
            cut.note(RECONCILE, corrected);
        }
        cut
    }

    /// Reads the progress of the source partitions at the lake's epochs from their records.
    pub(crate) async fn at(logs: &EpochLogs, held: &Epochs) -> Result<Sources> {
        let mut sources =
            Sources { epochs: Vec::new(), progress: SourceProgress::default(), final_to: None, last: None };
        let mut all: Vec<Progress> = Vec::new();
        for partition in logs.partitions().await?.into_iter().filter(|&partition| partition != RECONCILE) {
            let number = held.last(partition);
            if number == 0 {
                sources.last = Some(Progress { partition, ..Progress::default() });
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
        if let (true, Some(newest_ms)) = (all.iter().all(|of| of.is_retired), sources.progress.newest_click_ms) {
            // The frontiers of retired partitions are at the end of time.
            let end = Watermark::at(Minute::of(newest_ms).end_ms());
            sources.progress.frontiers = Frontiers { watermark: end, closed: end, final_: end, expired: end };
        }
        sources.final_to = sources.progress.frontiers.final_.get().map(Minute::of);
        sources.last = all.into_iter().min_by_key(|progress| progress.frontiers.final_);
        Ok(sources)
    }

    /// Why later minutes are not final: the partition, and the inputs that hold it.
    async fn reason(&self, logs: &EpochLogs) -> Result<String> {
        let Some(Progress { partition, number, frontiers, .. }) = self.last else {
            return Ok("no partition has an epoch".to_owned());
        };
        if number == 0 {
            return Ok(format!("partition {partition} is not in the lake yet"));
        }
        let watermark = frontiers.watermark.get();
        let watermark = watermark.map_or("no watermark".to_owned(), |ms| format!("the watermark {}", rfc3339(ms)));
        let mut holding = inputs(logs, partition, number).await?;
        holding.retain(|row| row.status == InputStatus::Holding);
        holding.sort_by_key(|row| row.time.largest_ms);
        let names: Vec<&str> = holding.iter().map(|row| &*row.name).take(HOLDERS_SHOWN_MAX).collect();
        let held_by = match holding.len() - names.len() {
            _ if names.is_empty() => "no input holds it: all are idle, have ended or lie far behind".to_owned(),
            0 => format!("held by {}", names.join(", ")),
            more => format!("held by {} and {more} more", names.join(", ")),
        };
        Ok(format!("partition {partition} has {watermark}, {held_by}"))
    }
}

/// The inputs of a partition at an epoch. A record has those that its epoch changed, and every base has all.
async fn inputs(logs: &EpochLogs, partition: u32, number: EpochNumber) -> Result<Vec<Arc<InputRow>>> {
    let log = logs.log(partition);
    let mut rows = BTreeMap::new();
    for number in (1..=number).rev() {
        // Records that are not needed any more are deleted in the meantime.
        let Some((epoch, _)) = log.read(number).await? else { break };
        let base = epoch.base.as_deref().map(|base| base.inputs.clone());
        for row in epoch.inputs.into_iter().chain(base.iter().flatten().cloned()) {
            rows.entry(row.id).or_insert(row);
        }
        if base.is_some() {
            break;
        }
    }
    Ok(rows.into_values().collect())
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
    Ok(Due { ranges: union(ranges, Level::Hour.minutes()), fresh })
}

/// Appends minutes to ascending ranges.
fn push(ranges: &mut Vec<Slice>, from: Minute, to: Minute) {
    match ranges.last_mut() {
        _ if from >= to => {}
        Some(last) if last.to == from => last.to = to,
        _ => ranges.push(Slice { from, to }),
    }
}

/// The number of late and future lines that the last complete run did not know or could not settle, and whose raw clicks are
/// no longer kept.
async fn expired(recount: &Recount<'_>, state: &Reconciled, kept_from: Minute) -> Result<u64> {
    let since = state.since.unwrap_or(kept_from).min(kept_from);
    let mut expired = recount.letters(Minute(i64::MIN), since, &state.last_cut()).await?;
    let mut at = since;
    for range in state.recounted.iter().take_while(|range| range.from < kept_from) {
        let (from, to) = (range.from.clamp(at, kept_from), range.to.clamp(at, kept_from));
        expired += recount.letters(at, from, &[]).await? + recount.letters(from, to, &range.cut).await?;
        at = to;
    }
    Ok(expired + recount.letters(at, kept_from, &[]).await?)
}

/// The hours of some minutes in which `clicks` is not whole.
async fn damaged(recount: &Recount<'_>, ranges: &[Slice]) -> Result<Vec<Damaged>> {
    let mut damaged = Vec::new();
    let mut at = Minute(i64::MIN);
    for range in ranges {
        let (from, to) = (Level::Hour.floor(range.from).max(at), Level::Hour.ceil(range.to));
        if from < to {
            damaged.extend(recount.damaged(from, to).await?);
            at = to;
        }
    }
    Ok(damaged)
}

/// The ranges without some hours.
pub(crate) fn without(ranges: &[Slice], hours: &BTreeSet<Minute>) -> Vec<Slice> {
    let mut left = Vec::new();
    for range in ranges {
        let mut at = range.from;
        for &hour in hours.range(Level::Hour.floor(range.from)..range.to) {
            push(&mut left, at, hour.clamp(at, range.to));
            at = Minute(hour.0 + Level::Hour.minutes()).clamp(at, range.to);
        }
        push(&mut left, at, range.to);
    }
    left
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
