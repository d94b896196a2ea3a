//! A consistent view of the partitions of a process at one moment.

use crate::hot_counts::{HotCounts, Snapshot};
use crate::lake::{Epochs, Restated};
use crate::questions::Revision;
use adtally_model::{CountedClicks, EpochNumber, Minute, MinuteState, Progress, RECONCILE};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The hot counts of the partitions that a process owns, which can change. Clones share them.
#[derive(Clone, Default)]
pub struct HotPartitions(Arc<Shown>);

#[derive(Default)]
struct Shown {
    partitions: RwLock<BTreeMap<u32, Arc<HotCounts>>>,
    restated: RwLock<Arc<Restated>>,
}

impl HotPartitions {
    /// The hot counts of a process with one partition.
    pub fn of(partition: u32, hot: Arc<HotCounts>) -> HotPartitions {
        let partitions = HotPartitions::default();
        partitions.add(partition, hot);
        partitions
    }

    /// Adds a partition.
    pub fn add(&self, partition: u32, hot: Arc<HotCounts>) {
        self.0.partitions.write().insert(partition, hot);
    }

    /// Removes a partition.
    pub fn remove(&self, partition: u32) {
        self.0.partitions.write().remove(&partition);
    }

    /// Changes what is known about corrections. It must not lag behind the hot counts of the partition `reconcile`.
    pub fn restate(&self, change: impl FnOnce(&mut Restated)) {
        change(Arc::make_mut(&mut self.0.restated.write()));
    }

    /// A view of their current state.
    pub fn view(&self) -> View {
        let partitions = self.0.partitions.read().values().map(|hot| hot.snapshot()).collect();
        View { partitions, restated: Arc::clone(&self.0.restated.read()) }
    }
}

/// A snapshot of each partition.
pub struct View {
    partitions: Vec<Arc<Snapshot>>,
    restated: Arc<Restated>,
}

impl View {
    /// The snapshots.
    pub fn partitions(&self) -> impl Iterator<Item = &Snapshot> {
        self.partitions.iter().map(Arc::as_ref)
    }

    /// The same without some partitions.
    #[must_use]
    pub fn only(&self, keeps: impl Fn(u32) -> bool) -> View {
        let partitions = self.partitions.iter().filter(|snapshot| keeps(snapshot.progress.partition)).cloned();
        View { partitions: partitions.collect(), restated: Arc::clone(&self.restated) }
    }

    /// The last epoch of the partition `reconcile`; 0 if there is none.
    pub fn corrected(&self) -> EpochNumber {
        let corrections = self.partitions().find(|snapshot| snapshot.progress.partition == RECONCILE);
        corrections.map_or(0, |snapshot| snapshot.progress.number)
    }

    /// Whether an epoch of corrections is being committed whose time may be this one or earlier, in milliseconds since the Unix
    /// epoch.
    pub fn is_committing_since(&self, ms: i64) -> bool {
        self.restated.committing_ms.is_some_and(|since_ms| since_ms <= ms)
    }

    /// Whether epochs of the partition `reconcile` up to `by` corrected a minute.
    pub fn is_restated(&self, minute: Minute, by: EpochNumber) -> bool {
        self.restated.has(minute, by)
    }

    /// The same for any minute of `[from, to)`.
    pub fn has_restated(&self, span: (Minute, Minute), by: EpochNumber) -> bool {
        self.restated.has_any(span, by)
    }

    /// How far minutes were reconciled at an epoch of the partition `reconcile`.
    pub fn reconciled_to(&self, at: EpochNumber) -> Option<Minute> {
        self.restated.reconciled_to.range(..=at).next_back().map(|(_, &to)| to)
    }

    /// The progress of the partitions that read a source: all but `reconcile`.
    fn sources(&self) -> impl Iterator<Item = &Progress> {
        self.partitions().map(|snapshot| &snapshot.progress).filter(|progress| progress.partition != RECONCILE)
    }

    /// The epochs in this view.
    pub fn revision(&self) -> Revision {
        Revision::of(self.partitions().map(|snapshot| &snapshot.progress))
    }

    /// The last epoch of each partition in this view.
    pub fn epochs(&self) -> Epochs {
        self.partitions().map(|snapshot| (snapshot.progress.partition, snapshot.progress.number)).collect()
    }

    /// The last epoch of each partition in the lake.
    pub fn lake_epochs(&self) -> Epochs {
        self.partitions().map(|snapshot| (snapshot.progress.partition, snapshot.lake_epoch)).collect()
    }

    /// Event time of the newest committed click.
    pub fn newest_click_ms(&self) -> Option<i64> {
        self.sources().filter_map(|progress| progress.newest_click_ms).max()
    }

    /// The smallest watermark among the partitions.
    pub fn watermark_ms(&self) -> Option<i64> {
        let live = self.sources().filter(|progress| !progress.is_retired);
        live.filter_map(|progress| progress.frontiers.watermark.get()).min()
    }

    /// The minute before which "the last M minutes" end: the smallest closed frontier, or the latest end if all inputs
    /// have ended. `None` before any click, and while a partition has closed nothing.
    pub fn to(&self) -> Option<Minute> {
        if self.sources().all(|progress| progress.all_ended) {
            return self.sources().filter_map(Progress::to).max();
        }
        self.newest_click_ms()?;
        let closed = self.sources().map(|progress| progress.frontiers.closed.get());
        closed.min().flatten().map(Minute::of)
    }

    /// The least settled state of a minute among the partitions. A partition whose inputs have all ended is ignored for
    /// minutes after its end, unless that leaves no partition.
    pub fn state_of(&self, minute: Minute) -> MinuteState {
        let is_over = |progress: &&Progress| progress.all_ended && progress.to().is_none_or(|to| to <= minute);
        let least =
            self.sources().filter(|progress| !is_over(progress)).map(|progress| progress.state_of(minute)).min();
        least.or(self.sources().map(|progress| progress.state_of(minute)).min()).unwrap_or(MinuteState::Open)
    }

    /// The start, within a span, of the minutes whose counts are complete in memory in every partition.
    pub fn hot_from(&self, from: Minute, to: Minute) -> Minute {
        let complete_from = self.partitions().filter_map(|snapshot| snapshot.complete_from).max();
        let complete_from = complete_from.max(self.restated.repaired_to(self.corrected()));
        complete_from.map_or(from, |complete| complete.clamp(from, to))
    }

    /// Clicks not yet committed.
    pub fn open_clicks(&self) -> impl Iterator<Item = &CountedClicks> {
        self.partitions().flat_map(Snapshot::open_clicks)
    }
}
