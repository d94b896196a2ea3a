//! A consistent view of the partitions of a process at one moment.

use crate::hot_counts::{HotCounts, Snapshot};
use crate::lake::Epochs;
use crate::questions::Revision;
use adtally_model::{CountedClicks, Minute, MinuteState, Progress};
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The hot counts of the partitions that a process owns, which can change. Clones share them.
#[derive(Clone, Default)]
pub struct HotPartitions(Arc<RwLock<BTreeMap<u32, Arc<HotCounts>>>>);

impl HotPartitions {
    /// The hot counts of a process with one partition.
    pub fn of(partition: u32, hot: Arc<HotCounts>) -> HotPartitions {
        let partitions = HotPartitions::default();
        partitions.add(partition, hot);
        partitions
    }

    /// Adds a partition.
    pub fn add(&self, partition: u32, hot: Arc<HotCounts>) {
        self.0.write().insert(partition, hot);
    }

    /// Removes a partition.
    pub fn remove(&self, partition: u32) {
        self.0.write().remove(&partition);
    }

    /// A view of their current state.
    pub fn view(&self) -> View {
        View { partitions: self.0.read().values().map(|hot| hot.snapshot()).collect() }
    }
}

/// A snapshot of each partition.
pub struct View {
    partitions: Vec<Arc<Snapshot>>,
}

impl View {
    /// The snapshots.
    pub fn partitions(&self) -> impl Iterator<Item = &Snapshot> {
        self.partitions.iter().map(Arc::as_ref)
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
        self.partitions().filter_map(|snapshot| snapshot.progress.newest_click_ms).max()
    }

    /// The smallest watermark among the partitions.
    pub fn watermark_ms(&self) -> Option<i64> {
        self.partitions().filter_map(|snapshot| snapshot.progress.frontiers.watermark.get()).min()
    }

    /// The minute before which "the last M minutes" end: the smallest closed frontier, or the latest end if all inputs
    /// have ended. `None` before any click, and while a partition has closed nothing.
    pub fn to(&self) -> Option<Minute> {
        if self.partitions().all(|snapshot| snapshot.progress.all_ended) {
            return self.partitions().filter_map(|snapshot| snapshot.progress.to()).max();
        }
        self.newest_click_ms()?;
        let closed = self.partitions().map(|snapshot| snapshot.progress.frontiers.closed.get());
        closed.min().flatten().map(Minute::of)
    }

    /// The least settled state of a minute among the partitions. A partition whose inputs have all ended is ignored for
    /// minutes after its end, unless that leaves no partition.
    pub fn state_of(&self, minute: Minute) -> MinuteState {
        let progress = || self.partitions().map(|snapshot| &snapshot.progress);
        let is_over = |progress: &&Progress| progress.all_ended && progress.to().is_none_or(|to| to <= minute);
        let least = progress().filter(|progress| !is_over(progress)).map(|progress| progress.state_of(minute)).min();
        least.or(progress().map(|progress| progress.state_of(minute)).min()).unwrap_or(MinuteState::Open)
    }

    /// The start, within a span, of the minutes that are complete in memory in every partition.
    pub fn hot_from(&self, from: Minute, to: Minute) -> Minute {
        let complete_from = self.partitions().filter_map(|snapshot| snapshot.complete_from).max();
        complete_from.map_or(from, |complete| complete.clamp(from, to))
    }

    /// Clicks not yet committed.
    pub fn open_clicks(&self) -> impl Iterator<Item = &CountedClicks> {
        self.partitions().flat_map(Snapshot::open_clicks)
    }
}
