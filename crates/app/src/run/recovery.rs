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
    if log.numbers().await?.is_empty() {
        // Before a new log is begun: a lake that holds epochs of another log says so, with what to do.
        lake.held(fresh_log_id, log.partition()).await?;
    }
    let (writer, state) = log.claim(writer, fresh_log_id, fingerprints).await?;
    let lake_epoch = lake.held(state.log_id, state.partition).await?.by_all();
    if lake_epoch > state.number {
        return Err(Error::corrupt(format!(
            "the lake holds epoch {lake_epoch}, the epoch log ends at {}: records are missing; restore them from a backup",
            state.number
        )));
    }
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
