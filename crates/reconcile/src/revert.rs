//! Reverts a run of corrections: every row that it added to `clicks` gets a row with the opposite sign.

use crate::corrections::Corrections;
use crate::plan::Sources;
use crate::recount::{FoundClicks, Made, Recount, Rolled, clicks_of};
use crate::run::{CLICKS_MAX, ReconcileReport, Run};
use adtally_model::reconcile::Cause;
use adtally_model::{Error, Result};
use adtally_store::epoch_log::EpochLogs;
use adtally_store::lake::Lake;
use futures::TryStreamExt;

/// Reverts the clicks that a run recovered or reversed. A later recount does not make these corrections again. If a revert was
/// interrupted, it is completed.
///
/// # Errors
/// User when there is no such run, when it is reverted, or when its clicks are no longer kept; otherwise as [`crate::reconcile`].
pub async fn revert(
    lake: &Lake,
    logs: &EpochLogs,
    corrections: &mut Corrections,
    reverted: u64,
    by: &'static str,
) -> Result<ReconcileReport> {
    let mut state = corrections.state().clone();
    if reverted == 0 || reverted > state.runs {
        let last = match state.runs {
            0 => "nothing was corrected yet".to_owned(),
            last => format!("the last one is {last}"),
        };
        return Err(Error::user(format!("there is no run {reverted}: {last}")));
    }
    if state.reverted.values().any(|&run| run == reverted) {
        return Err(Error::user(format!("run {reverted} reverted another run, and cannot be reverted itself")));
    }
    let is_begun = state.reverted.contains_key(&reverted);
    // An interrupted revert has a number already.
    let number = *state.reverted.entry(reverted).or_insert(state.runs + 1);
    state.runs = state.runs.max(number);
    let held = lake.epochs().await?;
    let sources = Sources::at(logs, &held).await?;
    let made = Made::open(lake, &held, reverted, number).await?;
    let recount = Recount::open(lake, &held, Rolled::default()).await?;
    for hours in &made.hours {
        if let Some(damaged) = recount.damaged(hours.from, hours.to).await?.first() {
            return Err(Error::corrupt(format!(
                "{damaged}. Nothing was reverted: restore the data directory from a backup, and check it with `adtally verify`"
            )));
        }
    }
    let mut run = Run::new(state, Some(corrections), sources.progress, by, number);
    for slice in &made.slices {
        for sign in [1, -1] {
            let mut found = FoundClicks::default();
            let mut batches = made.not_reverted(slice, sign).await?;
            while let Some(batch) = batches.try_next().await? {
                clicks_of(&batch)?.into_iter().for_each(|row| found.add(row));
                if found.lines.len() >= CLICKS_MAX {
                    run.correct_clicks(Cause::Reverted, &std::mem::take(&mut found), -sign).await?;
                }
            }
            run.correct_clicks(Cause::Reverted, &found, -sign).await?;
        }
    }
    match run.report.has_findings() {
        true => Ok(ReconcileReport { reverted: Some(reverted), ..run.report }),
        false if is_begun => Err(Error::user(format!("run {reverted} is reverted already"))),
        false => Err(Error::user(format!(
            "run {reverted} neither added nor reversed clicks: there is nothing to revert. Repaired counts stay"
        ))),
    }
}
