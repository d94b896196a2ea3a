//! Recovery: from what the stores hold to a state that goes on.

use super::project::Waiting;
use adtally_model::{EpochNumber, Error, Minute, MinuteCounts, PartitionState, Result};
use adtally_store::epoch_log::{EpochLog, Fingerprints, LogWriter};
use adtally_store::hot_counts::{HotCounts, PendingEpoch, Progress};
use adtally_store::lake::{Epochs, Lake};
use std::sync::Arc;

/// A partition that this process owns, as it stood.
pub struct Recovered {
    /// The right to append.
    pub writer: LogWriter,
    /// The state at the claim.
    pub state: PartitionState,
    /// The last epoch that the lake holds.
    pub lake_epoch: EpochNumber,
    /// Epochs that it does not hold yet.
    pub waiting: Vec<Waiting>,
}

/// Takes possession of the partition and reads what the lake has not seen yet.
///
/// # Errors
/// As [`EpochLog::claim`]; corrupt when the lake does not fit the log.
pub async fn take_over(
    log: &EpochLog,
    lake: &Lake,
    writer: u128,
    fresh_log_id: u128,
    fingerprints: Fingerprints,
) -> Result<Recovered> {
    check_lake(log, lake, fresh_log_id).await?;
    let (writer, state) = log.claim(writer, fresh_log_id, fingerprints).await?;
    let lake_epoch = lake.held(state.log_id, state.partition).await?.by_all();
    let mut waiting = Vec::new();
    for number in lake_epoch + 1..=state.number {
        let Some((epoch, _)) = log.read(number).await? else {
            return Err(Error::corrupt(format!(
                "epoch {number} is missing from the log and not yet in the lake (which holds {lake_epoch}); restore it from a \
                 backup"
            )));
        };
        let inputs = epoch.inputs.iter().map(|row| (row.name.clone(), row.ledger)).collect();
        waiting.push(Waiting {
            ledger: epoch.ledger,
            inputs,
            clock_ms: epoch.clock_ms,
            oldest_needed: epoch.oldest_needed,
            pending: Arc::new(PendingEpoch { epoch: number, counts: epoch.counts, staged: epoch.staged }),
        });
    }
    Ok(Recovered { writer, state, lake_epoch, waiting })
}

/// A lake that holds epochs of another log, or more of them than the log, says so with what to do before anything is
/// written: each claim would grow the log towards the numbers that the lake holds, whose epochs would then be skipped.
async fn check_lake(log: &EpochLog, lake: &Lake, fresh_log_id: u128) -> Result<()> {
    let newest = log.numbers().await?.last().copied().unwrap_or_default();
    let log_id = log.read(1).await?.map_or(fresh_log_id, |(first, _)| first.log_id);
    let held = lake.held(log_id, log.partition()).await?;
    match held.tables.iter().filter_map(|&(_, epoch)| epoch).max() {
        Some(epoch) if epoch > newest => Err(Error::corrupt(format!(
            "the lake holds epoch {epoch}, the epoch log ends at {newest}: records are missing; restore them from a backup"
        ))),
        _ => Ok(()),
    }
}

/// Fills the hot counts: minutes still hot from the lake and the epochs after it, older live ones from the fold.
///
/// # Errors
/// External when the lake cannot be read.
pub async fn warm(hot: &HotCounts, lake: &Lake, recovered: &Recovered) -> Result<()> {
    let state = &recovered.state;
    let progress = Progress {
        epoch: state.number,
        frontiers: state.frontiers,
        newest_click_ms: state.newest_click_ms,
        largest_guarded_ms: state.largest_guarded_ms,
        all_ended: state.all_ended,
        reopened_from_ms: state.reopened_from_ms,
    };
    let hot_from = hot.hot_from(&progress);
    let mut counts: Vec<MinuteCounts> = Vec::new();
    if let (Some(from), Some(newest)) = (hot_from, state.newest_click_ms) {
        let to = Minute::of(newest).next();
        if from < to {
            let upto = Epochs::of(state.partition, recovered.lake_epoch);
            counts.extend(lake.counts(from, to, Some(&upto)).await?.minutes);
        }
        for waiting in &recovered.waiting {
            counts.extend(waiting.pending.counts.iter().filter(|counts| counts.minute >= from).cloned());
        }
        for (_, folded) in state.live.iter().filter(|(minute, _)| **minute < from) {
            counts.extend(folded.counts.iter().cloned());
        }
    }
    let pending = recovered.waiting.iter().map(|waiting| Arc::clone(&waiting.pending)).collect();
    hot.restore(progress, hot_from, counts, recovered.lake_epoch, pending);
    Ok(())
}
