//! Recovery: rebuilds a partition's state from the stores, so that the run can continue.

use crate::project::Waiting;
use adtally_model::{EpochNumber, Error, Minute, MinuteCounts, PartitionState, Progress, Result};
use adtally_store::epoch_log::{Beginning, EpochLog, Fingerprints, LogWriter};
use adtally_store::hot_counts::{HotCounts, PendingEpoch};
use adtally_store::lake::{Epochs, LakeStore, TableEpochs};
use std::sync::Arc;

/// Minutes to read from the lake at a time. They are in memory twice until they are shown.
const MINUTES_AT_ONCE: i64 = 10;

/// A partition that this process owns, as recovered.
pub struct Recovered {
    /// The right to append.
    pub writer: LogWriter,
    /// The state at the claim.
    pub state: PartitionState,
    /// The last epoch that the lake contains.
    pub lake_epoch: EpochNumber,
    /// Epochs that the lake does not contain yet.
    pub waiting: Vec<Waiting>,
}

/// Takes possession of the partition, and reads the epochs that the lake does not contain yet.
///
/// # Errors
/// As [`EpochLog::claim`]; corrupt when the lake does not fit the log.
pub async fn take_over(
    log: &EpochLog,
    lake: &dyn LakeStore,
    writer: u128,
    fresh_log_id: u128,
    fingerprints: Fingerprints,
) -> Result<Recovered> {
    take_over_as(log, lake, (writer, fresh_log_id), fingerprints, &Beginning::default()).await
}

/// Like [`take_over`], of a partition with this source.
///
/// # Errors
/// As [`EpochLog::claim_as`]; corrupt when the lake does not fit the log.
pub async fn take_over_as(
    log: &EpochLog,
    lake: &dyn LakeStore,
    (writer, fresh_log_id): (u128, u128),
    fingerprints: Fingerprints,
    beginning: &Beginning,
) -> Result<Recovered> {
    // Checked before anything is written. If the lake is ahead of the log, each start reports this and its remedy. A
    // claim at each start would advance the log's numbers up to the lake's.
    let newest = log.newest().await?;
    let (log_id, number) = newest.map_or((fresh_log_id, 0), |epoch| (epoch.progress.log_id, epoch.progress.number));
    check_behind(&lake.held(log_id, log.partition()).await?, number)?;
    let (writer, state) = log.claim_as(writer, fresh_log_id, fingerprints, beginning).await?;
    let held = lake.held(state.progress.log_id, state.progress.partition).await?;
    check_behind(&held, state.progress.number)?;
    let lake_epoch = held.by_all();
    let waiting = waiting_after(log, lake_epoch, &state.progress).await?;
    Ok(Recovered { writer, state, lake_epoch, waiting })
}

/// The epochs that the lake lacks of a partition at this progress.
///
/// # Errors
/// External when a store fails, corrupt when the lake does not fit the log.
pub async fn waiting_of(log: &EpochLog, lake: &dyn LakeStore, at: &Progress) -> Result<Vec<Waiting>> {
    let held = lake.held(at.log_id, at.partition).await?;
    check_behind(&held, at.number)?;
    waiting_after(log, held.by_all(), at).await
}

async fn waiting_after(log: &EpochLog, lake_epoch: EpochNumber, at: &Progress) -> Result<Vec<Waiting>> {
    let mut waiting = Vec::new();
    let progress = log.progress();
    if lake_epoch < at.number {
        progress.begin(at.number - lake_epoch);
    }
    for number in lake_epoch + 1..=at.number {
        progress.advance();
        let Some((epoch, _)) = log.read(number).await? else {
            return Err(Error::corrupt(format!(
                "epoch {number} is missing from the log and not yet in the lake (which holds {lake_epoch}); restore it from a \
                 backup"
            )));
        };
        let inputs = epoch.inputs.iter().map(|row| (Arc::clone(&row.origin), row.ledger)).collect();
        waiting.push(Waiting {
            progress: epoch.progress,
            inputs,
            oldest_needed: epoch.oldest_needed,
            pending: Arc::new(PendingEpoch { epoch: number, counts: epoch.counts.into(), staged: epoch.staged }),
        });
    }
    Ok(waiting)
}

/// Fails if a table contains an epoch after `number`, the last epoch of the log.
fn check_behind(held: &TableEpochs, number: EpochNumber) -> Result<()> {
    let ahead = held.tables.iter().filter_map(|&(table, epoch)| Some((epoch?, table))).max();
    match ahead {
        Some((epoch, table)) if epoch > number => Err(Error::corrupt(format!(
            "the lake table `{table}` holds epoch {epoch}, and the epoch log ends at {number}: records are missing. Restore \
             the folder `epochs` from a backup that is as new as the lake; or, to count again from the inputs, move both \
             the lake and the epoch log away and start with an empty data directory"
        ))),
        _ => Ok(()),
    }
}

/// Hot minutes before the live ones, still to be read from the lake. No more clicks are counted in them.
#[derive(Clone, Debug)]
pub struct OlderMinutes {
    from: Minute,
    to: Minute,
    cut: Epochs,
    /// Epochs that the lake did not contain at that time.
    waiting: Vec<Arc<PendingEpoch>>,
}

/// Builds the hot counts of `hot_minutes` minutes. Live minutes come from the fold, so that base records repeat only
/// data of the log. Returns the minutes to read from the lake, which may be done while clicks are counted; until then
/// the lake answers queries about them. `now_ms` replaces the clock of epochs that have none.
pub fn warm(recovered: &mut Recovered, hot_minutes: u32, now_ms: i64) -> (Arc<HotCounts>, Option<OlderMinutes>) {
    for waiting in recovered.waiting.iter_mut().filter(|waiting| waiting.progress.clock_ms == 0) {
        // The claim that begins a log has no earlier clock.
        waiting.progress.clock_ms = now_ms;
    }
    let hot = Arc::new(HotCounts::new(hot_minutes));
    let older = fill(&hot, recovered);
    (hot, older)
}

fn fill(hot: &HotCounts, recovered: &Recovered) -> Option<OlderMinutes> {
    let state = &recovered.state;
    let progress = state.progress;
    let mut complete_from = hot.hot_from(&progress);
    let mut older = None;
    if let (Some(from), Some(newest)) = (complete_from, state.progress.newest_click_ms) {
        let mut to = Minute::of(newest).next();
        while from < to && state.progress.frontiers.is_live(Minute(to.0 - 1)) {
            to = Minute(to.0 - 1);
        }
        if from < to {
            let waiting = recovered.waiting.iter().map(|waiting| Arc::clone(&waiting.pending)).collect();
            older = Some(OlderMinutes {
                from,
                to,
                cut: Epochs::of(state.progress.partition, recovered.lake_epoch),
                waiting,
            });
            complete_from = Some(to);
        }
    }
    let live: Vec<MinuteCounts> = state.live.values().flat_map(|folded| folded.counts.iter().cloned()).collect();
    let pending = recovered.waiting.iter().map(|waiting| Arc::clone(&waiting.pending)).collect();
    hot.restore(progress, complete_from, &live, recovered.lake_epoch, pending);
    older
}

impl OlderMinutes {
    /// Reads the minutes in batches, newest first, and shows them to readers. After an error, the next call continues.
    ///
    /// # Errors
    /// External when the lake cannot be read.
    pub async fn load(&mut self, hot: &HotCounts, lake: &dyn LakeStore) -> Result<()> {
        while self.from < self.to {
            let last = self.to.0 - 1;
            let begin = Minute(last - last.rem_euclid(MINUTES_AT_ONCE)).max(self.from);
            let mut counts = lake.minute_counts(begin, self.to, &self.cut).await?;
            let waiting = self.waiting.iter().flat_map(|pending| pending.counts.iter());
            counts.extend(waiting.filter(|counts| (begin..self.to).contains(&counts.minute)).cloned());
            hot.extend_back(begin, &counts);
            self.to = begin;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use adtally_model::Country;
    use adtally_model::fold::FoldedMinute;
    use adtally_store::lake::{EpochProjection, Lake};
    use object_store::ObjectStore;
    use object_store::memory::InMemory;

    fn counts(minute: Minute, clicks: i64) -> MinuteCounts {
        let mut counts = MinuteCounts::empty(minute);
        counts.push(42, Country::parse(b"US"), clicks);
        counts
    }

    /// Base records repeat hot counts. Rows that were altered in the lake must not enter the log this way.
    #[test]
    fn live_minutes_are_the_logs_whatever_the_lake_says() {
        let runtime = tokio::runtime::Builder::new_multi_thread().thread_stack_size(8 << 20).build().unwrap();
        let checked = runtime.spawn(async {
            let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
            let (lake, log) = (Lake::open(Arc::clone(&store)).await.unwrap(), EpochLog::new(store, 0));
            let (writer, mut state) = log.claim(1, 7, Fingerprints { config: 1, key: 2 }).await.unwrap();
            let (expired, live) = (Minute(29_000_000), Minute(29_000_001));
            let long_ago = Minute(live.0 - 55);
            let altered = EpochProjection {
                progress: Progress { log_id: 7, number: 1, ..Progress::default() },
                counts: [counts(long_ago, 1), counts(expired, 2), counts(live, 5)].into(),
                staged: Vec::new(),
                inputs: Arc::default(),
                correction: None,
            };
            lake.project(&[altered], 1).await.unwrap();
            state.progress.newest_click_ms = Some(live.start_ms());
            state.progress.frontiers.expired.advance(expired.end_ms());
            let folded = FoldedMinute { begun: 1, identities: Vec::new(), counts: vec![counts(live, 3)] };
            state.live.insert(live, folded);
            let hot = HotCounts::new(60);
            let recovered = Recovered { writer, state, lake_epoch: 1, waiting: Vec::new() };
            let mut older = fill(&hot, &recovered).unwrap();
            assert_eq!(hot.snapshot().complete_from, Some(live), "the lake answers for what is before");
            older.load(&hot, &lake).await.unwrap();
            let snapshot = hot.snapshot();
            assert_eq!(snapshot.minute_counts(live), Some(counts(live, 3)));
            assert_eq!(snapshot.minute_counts(expired), Some(counts(expired, 2)));
            assert_eq!(snapshot.minute_counts(long_ago), Some(counts(long_ago, 1)), "all pieces are read");
            assert_eq!(snapshot.complete_from, Some(Minute(live.0 - 60)));
        });
        runtime.block_on(checked).unwrap();
    }
}
