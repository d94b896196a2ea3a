//! The partition `reconcile`: its log, and the commit of its epochs.

use crate::recount::FoundClicks;
use adtally_model::epoch::{BASE_EVERY, fold_start};
use adtally_model::reconcile::{Cause, Corrected, Correction, ReconcileRecord, Reconciled};
use adtally_model::{
    Base, Epoch, EpochNumber, Error, Frontiers, LinePositions, Minute, MinuteCounts, Progress, RECONCILE, Result,
};
use adtally_store::embedded::HotPartitions;
use adtally_store::epoch_log::{EpochLogs, Fingerprints, LogWriter};
use adtally_store::fail_points;
use adtally_store::hot_counts::HotCounts;
use adtally_store::lake::{ClickRows, EpochProjection, Epochs, LakeStore};
use std::ops::Range;
use std::sync::Arc;

/// The dependencies of corrections.
#[derive(Clone)]
pub struct CorrectionParts {
    /// The logs of all partitions.
    pub logs: EpochLogs,
    /// The lake.
    pub lake: Arc<dyn LakeStore>,
    /// The readers' view of corrections, if the process answers questions.
    pub readers: Option<Readers>,
    /// The fingerprints that records contain.
    pub fingerprints: Fingerprints,
    /// Draws 128 random bits.
    pub random: Arc<dyn Fn() -> u128 + Send + Sync>,
    /// The current time, in milliseconds since the Unix epoch.
    pub now_ms: Arc<dyn Fn() -> i64 + Send + Sync>,
}

/// Where a process shows corrections to readers.
#[derive(Clone)]
pub struct Readers {
    /// The corrections of hot minutes.
    pub hot: Arc<HotCounts>,
    /// All partitions, which say what is restated. They show the hot counts once the partition is claimed.
    pub shown: HotPartitions,
}

/// The right to commit corrections.
pub struct Corrections {
    parts: CorrectionParts,
    writer: LogWriter,
    progress: Progress,
    state: Reconciled,
    /// The last epoch that the lake contains.
    lake_epoch: EpochNumber,
    file_token: u128,
}

/// How far the source partitions have come, as seen by a recount.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SourceProgress {
    /// The least frontiers of all source partitions.
    pub(crate) frontiers: Frontiers,
    /// The newest click of any of them.
    pub(crate) newest_click_ms: Option<i64>,
}

/// One epoch of corrections.
pub(crate) struct Change<'a> {
    /// The reason; `None` if only the state changes.
    pub(crate) correction: Option<Correction>,
    /// Rows for `clicks`, and their sign.
    pub(crate) clicks: Option<(&'a FoundClicks, Range<usize>, i32)>,
    /// Signed counts by minute.
    pub(crate) counts: Vec<MinuteCounts>,
    /// The state of the recounts after it. The sums by cause are added by the commit.
    pub(crate) state: Reconciled,
}

impl Corrections {
    /// Takes over the partition `reconcile`, and updates the lake to its last epoch. The log is created if it does not
    /// exist.
    ///
    /// # Errors
    /// As [`adtally_store::epoch_log::EpochLog::claim`]; corrupt when the lake does not fit the log.
    pub async fn claim(parts: CorrectionParts) -> Result<Corrections> {
        let log = parts.logs.log(RECONCILE);
        let newest = log.newest().await?;
        let fresh = (parts.random)();
        let (log_id, number) = newest.map_or((fresh, 0), |epoch| (epoch.progress.log_id, epoch.progress.number));
        let ahead = parts.lake.held(log_id, RECONCILE).await?.tables.into_iter().filter_map(|(_, epoch)| epoch).max();
        if ahead > Some(number) {
            return Err(Error::corrupt(format!(
                "the lake holds epoch {} of the partition reconcile, and its epoch log ends at {number}: records are \
                 missing; restore the folder `epochs` from a backup that is as new as the lake",
                ahead.unwrap_or_default()
            )));
        }
        let (writer, state) = log.claim((parts.random)(), fresh, parts.fingerprints).await?;
        let lake_epoch = parts.lake.held(state.progress.log_id, RECONCILE).await?.by_all();
        let file_token = (parts.random)();
        let reconciled = state.reconcile.as_deref().map(|record| record.state.clone()).unwrap_or_default();
        let mut corrections =
            Corrections { parts, writer, progress: state.progress, state: reconciled, lake_epoch, file_token };
        corrections.warm().await?;
        corrections.catch_up().await?;
        corrections.mark_committing(None);
        Ok(corrections)
    }

    /// Loads the corrections of hot minutes into a view that has none yet.
    async fn warm(&self) -> Result<()> {
        let Some(Readers { hot, shown }) = &self.parts.readers else { return Ok(()) };
        let reconciled_to = self.state.reconciled_to();
        shown.restate(|restated| reconciled_to.into_iter().for_each(|to| restated.reconcile(self.lake_epoch, to)));
        if hot.snapshot().progress.number > 0 {
            return Ok(());
        }
        load_hot(self.parts.lake.as_ref(), hot, Progress { number: self.lake_epoch, ..self.progress }).await
    }

    /// The current time, in milliseconds since the Unix epoch.
    pub(crate) fn now_ms(&self) -> i64 {
        (self.parts.now_ms)()
    }

    /// The progress at the last epoch.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The state after the last epoch.
    pub fn state(&self) -> &Reconciled {
        &self.state
    }

    /// Projects the epochs that the lake lacks, and shows them to readers.
    async fn catch_up(&mut self) -> Result<()> {
        for number in self.lake_epoch + 1..=self.progress.number {
            let Some((mut epoch, _)) = self.writer.log().read(number).await? else {
                return Err(Error::corrupt(format!(
                    "epoch {number} of the partition reconcile is missing from the log and not yet in the lake; restore it \
                     from a backup"
                )));
            };
            if epoch.progress.clock_ms == 0 {
                // The claim that begins a log has no earlier clock.
                epoch.progress.clock_ms = (self.parts.now_ms)();
            }
            self.show(epoch).await?;
        }
        Ok(())
    }

    /// Adds a committed epoch to the lake, and shows it to readers.
    async fn show(&mut self, epoch: Epoch) -> Result<()> {
        let Epoch { progress, counts, staged, reconcile, oldest_needed, .. } = epoch;
        let counts: Arc<[MinuteCounts]> = counts.into();
        let (correction, reconciled_to) =
            reconcile.map_or((None, None), |record| (record.correction.clone(), record.state.reconciled_to()));
        let cause = correction.as_ref().map(|correction| correction.cause);
        let projection =
            EpochProjection { progress, counts: Arc::clone(&counts), staged, inputs: Arc::default(), correction };
        fail_points::reach("before_projection");
        self.parts.lake.project(&[projection], self.file_token).await?;
        fail_points::reach("after_projection");
        self.lake_epoch = progress.number;
        if let Some(Readers { hot, shown }) = &self.parts.readers
            && hot.snapshot().progress.number < progress.number
        {
            shown.restate(|restated| {
                if let Some(cause) = cause {
                    counts.iter().for_each(|counts| restated.add(counts.minute, cause, progress.number));
                }
                reconciled_to.into_iter().for_each(|to| restated.reconcile(progress.number, to));
            });
            // Counts of hours and days are not in memory.
            let has_minutes = !matches!(cause, Some(Cause::HourCount | Cause::DayCount));
            hot.commit_projected(progress, if has_minutes { &counts } else { &[] });
        }
        let collected = self.writer.log().collect(oldest_needed).await;
        if let Err(error) = collected {
            tracing::warn!("old records of the partition reconcile cannot be deleted: {}", error.report());
        }
        Ok(())
    }

    /// Commits one epoch. After an error, the partition must be claimed again.
    pub(crate) async fn commit(&mut self, change: Change<'_>, sources: &SourceProgress) -> Result<()> {
        let number = self.progress.number + 1;
        fail_points::reach("before_stage");
        let files = match &change.clicks {
            Some((found, rows, sign)) => self.encode(found, rows.clone(), *sign, number)?,
            None => Vec::new(),
        };
        self.parts.lake.stage(&files).await?;
        fail_points::reach("after_stage");
        let mut progress = Progress { number, ..self.progress };
        // Readers are told before the epoch's time is read. Questions about this time or a later one are refused until the epoch
        // is shown or, after an error, until the partition is claimed again.
        progress.clock_ms = progress.clock_ms.max((self.parts.now_ms)());
        self.mark_committing(Some(progress.clock_ms));
        progress.clock_ms = progress.clock_ms.max((self.parts.now_ms)());
        advance(&mut progress.frontiers, &sources.frontiers);
        progress.newest_click_ms = progress.newest_click_ms.max(sources.newest_click_ms);
        let mut state = change.state;
        state.corrected.clone_from(&self.state.corrected);
        if let Some(correction) = &change.correction {
            let rows = change.clicks.as_ref().map_or(0, |(_, rows, _)| rows.len() as u64);
            let is_reversed = change.clicks.as_ref().is_some_and(|&(_, _, sign)| sign < 0);
            let (recovered, reversed) = if is_reversed { (0, rows) } else { (rows, 0) };
            let counts = change.counts.iter().map(MinuteCounts::total).sum();
            state.add(correction.cause, Corrected { recovered, reversed, counts });
        }
        let record = ReconcileRecord { correction: change.correction, state };
        let mut epoch = Epoch {
            progress,
            writer: 0,
            predecessor: 0,
            oldest_needed: fold_start(number).min(fold_start(self.lake_epoch.max(1))),
            claim: false,
            inputs: Vec::new(),
            counts: change.counts,
            identities: Vec::new(),
            staged: files.into_iter().map(|file| file.staged).collect(),
            reconcile: Some(Arc::new(record.clone())),
            config_fingerprint: 0,
            key_fingerprint: 0,
            // All corrected minutes are final, so there is none to repeat.
            base: number.is_multiple_of(BASE_EVERY).then(|| Box::new(Base::default())),
        };
        fail_points::reach("before_record");
        self.writer.append(&mut epoch).await?;
        fail_points::reach("after_record");
        (self.progress, self.state) = (epoch.progress, record.state);
        self.show(epoch).await?;
        self.mark_committing(None);
        Ok(())
    }

    /// Tells readers the time of the epoch that is being committed, if there is one.
    fn mark_committing(&self, since_ms: Option<i64>) {
        if let Some(Readers { shown, .. }) = &self.parts.readers {
            shown.restate(|restated| restated.committing_ms = since_ms);
        }
    }

    fn encode(
        &self,
        found: &FoundClicks,
        rows: Range<usize>,
        sign: i32,
        number: EpochNumber,
    ) -> Result<Vec<adtally_store::lake::EncodedFile>> {
        let indexes: Vec<u32> = rows.clone().map(|row| row as u32).collect();
        let clicks = indexes.chunks(1).zip(&found.lines[rows]).map(|(row, (input, position))| ClickRows {
            batch: &found.columns,
            rows: row,
            input_name: input,
            positions: LinePositions::Record(*position),
            sign,
        });
        self.parts.lake.encode(&clicks.collect::<Vec<_>>(), &[], (RECONCILE, number), (self.parts.random)())
    }
}

/// Loads the corrections of hot minutes from the lake into an empty view, as of an epoch that the lake contains.
///
/// # Errors
/// As [`LakeStore::minute_counts`].
pub async fn load_hot(lake: &dyn LakeStore, hot: &HotCounts, progress: Progress) -> Result<()> {
    let from = hot.hot_from(&progress);
    let counts = match from {
        Some(from) => {
            let to = progress.newest_click_ms.map_or(from, |newest| Minute::of(newest).next()).max(from);
            lake.minute_counts(from, to, &Epochs::of(RECONCILE, progress.number)).await?
        }
        None => Vec::new(),
    };
    hot.restore(progress, from, &counts, progress.number, Vec::new());
    Ok(())
}

/// Advances frontiers to others. Minutes that are final in all source partitions are not live here.
fn advance(frontiers: &mut Frontiers, to: &Frontiers) {
    for (own, to) in [
        (&mut frontiers.watermark, to.watermark),
        (&mut frontiers.closed, to.closed),
        (&mut frontiers.final_, to.final_),
        (&mut frontiers.expired, to.final_),
    ] {
        if let Some(ms) = to.get() {
            own.advance(ms);
        }
    }
}
