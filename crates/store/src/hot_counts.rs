//! Minute counts in memory: one writer, many readers that never block it.
//!
//! Each minute is a set of columns sorted by ad and country. Ads are interned to dense numbers, so that the sum over
//! many minutes is a pass over columns into an array. Readers take a snapshot (an `Arc`) and work on that; the writer
//! builds new columns beside the old ones and swaps the snapshot.

mod ad_index;
#[cfg(test)]
mod tests;

pub use ad_index::AdIndex;
use adtally_model::{CountedClicks, Country, EpochNumber, Frontiers, Minute, MinuteCounts, MinuteState, StagedFile};
use hashbrown::HashTable;
use parking_lot::{Mutex, RwLock};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

/// The ad index is rebuilt when it holds more than this many times the rows that are counted, so that ads that are
/// no longer clicked cost nothing for ever.
const INDEX_SLACK: usize = 2;

/// Below this many ads the index is never rebuilt: 12 MB.
const INDEX_ADS_MIN: usize = 1 << 20;

/// Progress that answers are given by: that of the newest committed epoch.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// The epoch.
    pub epoch: EpochNumber,
    /// Its frontiers.
    pub frontiers: Frontiers,
    /// Event time of the newest click counted up to it.
    pub newest_click_ms: Option<i64>,
    /// Largest guarded event time of any input; none before enough lines were accepted.
    pub largest_guarded_ms: Option<i64>,
    /// Whether all inputs had ended.
    pub all_ended: bool,
    /// Least watermark among the holding inputs with a backlog.
    pub reopened_from_ms: Option<i64>,
}

impl Progress {
    /// The minute before which "the last M minutes" end; `None` before any click is closed.
    pub fn to(&self) -> Option<Minute> {
        if self.all_ended {
            // One click far ahead of all others does not draw the last minutes away from them.
            self.largest_guarded_ms.or(self.newest_click_ms).map(|largest| Minute::of(largest).next())
        } else {
            self.newest_click_ms.and(self.frontiers.closed.get()).map(Minute::of)
        }
    }

    /// The state of a minute.
    pub fn state_of(&self, minute: Minute) -> MinuteState {
        self.frontiers.state_of(minute, self.reopened_from_ms)
    }
}

/// A committed epoch that the lake does not hold yet.
#[derive(Debug)]
pub struct PendingEpoch {
    /// Its number.
    pub epoch: EpochNumber,
    /// Its clicks by minute.
    pub counts: Vec<MinuteCounts>,
    /// Its staged files.
    pub staged: Vec<StagedFile>,
}

/// Counts of one minute, in columns sorted by (ad, country).
#[derive(Debug, Default)]
pub struct MinuteColumns {
    ad: Vec<u32>,
    country: Vec<Country>,
    clicks: Vec<u32>,
}

/// What readers see.
#[derive(Clone, Default)]
pub struct Snapshot {
    /// Progress of the newest committed epoch.
    pub progress: Progress,
    /// The first minute of which, and of all later ones, every committed click is in `minutes`.
    pub complete_from: Option<Minute>,
    /// The last epoch that the lake holds.
    pub lake_epoch: EpochNumber,
    /// Committed epochs after it, ascending.
    pub pending: Vec<Arc<PendingEpoch>>,
    minutes: Arc<BTreeMap<Minute, Arc<MinuteColumns>>>,
    ads: AdIndex,
    /// Clicks judged but not committed, with the epoch that will commit them.
    open: Vec<(EpochNumber, Arc<CountedClicks>)>,
}

/// The hot counts.
pub struct HotCounts {
    shared: RwLock<Arc<Snapshot>>,
    writer: Mutex<ad_index::Interner>,
    hot_minutes: i64,
}

impl HotCounts {
    /// Holds the last `hot_minutes` minutes, and those that are live.
    pub fn new(hot_minutes: u32) -> Self {
        HotCounts {
            shared: RwLock::new(Arc::new(Snapshot::default())),
            writer: Mutex::new(ad_index::Interner::default()),
            hot_minutes: i64::from(hot_minutes),
        }
    }

    /// The state of things for a reader.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.shared.read())
    }

    /// The first minute that is hot, by progress.
    pub fn hot_from(&self, progress: &Progress) -> Option<Minute> {
        let to = progress.to().or(progress.newest_click_ms.map(Minute::of))?;
        Some(Minute(to.0 - self.hot_minutes))
    }

    /// Starts from what recovery found: all counts of the minutes from `complete_from` on, and of live ones before it.
    pub fn restore(
        &self,
        progress: Progress,
        complete_from: Option<Minute>,
        counts: Vec<MinuteCounts>,
        lake_epoch: EpochNumber,
        pending: Vec<Arc<PendingEpoch>>,
    ) {
        let mut interner = self.writer.lock();
        let mut minutes = BTreeMap::new();
        for counts in &counts {
            interner.add_counts(&mut minutes, counts);
        }
        let ads = interner.index();
        *self.shared.write() = Arc::new(Snapshot {
            progress,
            complete_from,
            lake_epoch,
            pending,
            minutes: Arc::new(minutes),
            ads,
            open: Vec::new(),
        });
    }

    /// Shows clicks that were judged and will be committed by an epoch.
    pub fn open(&self, epoch: EpochNumber, clicks: Arc<CountedClicks>) {
        let mut shared = self.shared.write();
        Arc::make_mut(&mut shared).open.push((epoch, clicks));
    }

    /// Adds a committed epoch: its clicks are no longer open but counted.
    pub fn commit(&self, progress: Progress, pending: Arc<PendingEpoch>) {
        let mut interner = self.writer.lock();
        let before = self.snapshot();
        let mut minutes = (*before.minutes).clone();
        for counts in &pending.counts {
            interner.add_counts(&mut minutes, counts);
        }
        let mut complete_from = before.complete_from;
        if let Some(hot_from) = self.hot_from(&progress) {
            // Before the first click everything is complete, from the beginning of time.
            complete_from = Some(complete_from.map_or(hot_from, |from| from.max(hot_from)));
            minutes.retain(|&minute, _| minute >= hot_from || progress.frontiers.is_live(minute));
        }
        let rows: usize = minutes.values().map(|columns| columns.ad.len()).sum();
        if interner.len() > INDEX_ADS_MIN && interner.len() > rows * INDEX_SLACK {
            interner.rebuild(&mut minutes);
        }
        let ads = interner.index();
        let mut shared = self.shared.write();
        let snapshot = Arc::make_mut(&mut shared);
        snapshot.open.retain(|(epoch, _)| *epoch > progress.epoch);
        snapshot.progress = progress;
        snapshot.complete_from = complete_from;
        snapshot.minutes = Arc::new(minutes);
        snapshot.ads = ads;
        snapshot.pending.push(pending);
    }

    /// The lake holds everything up to an epoch now.
    pub fn projected(&self, lake_epoch: EpochNumber) {
        let mut shared = self.shared.write();
        let snapshot = Arc::make_mut(&mut shared);
        snapshot.lake_epoch = lake_epoch;
        snapshot.pending.retain(|pending| pending.epoch > lake_epoch);
    }
}

/// Sums clicks by ad, over hot columns and over rows that come with their ad.
pub struct AdSums<'a> {
    ads: &'a AdIndex,
    dense: Vec<u64>,
    others: HashTable<(u64, u64)>,
}

impl AdSums<'_> {
    /// Adds clicks of an ad that comes by its id.
    pub fn add(&mut self, ad_id: u64, clicks: u64) {
        self.others
            .entry(ad_index::hash(ad_id), |row| row.0 == ad_id, |row| ad_index::hash(row.0))
            .and_modify(|row| row.1 += clicks)
            .or_insert((ad_id, clicks));
    }

    /// The `limit` most clicked ads, ties by ascending ad.
    pub fn top(mut self, limit: usize) -> Vec<(u64, u64)> {
        // What came by id is folded into the array where the ad has a place there: a pass over it, to keep exact sums.
        if !self.others.is_empty() {
            for (dense, sum) in self.dense.iter_mut().enumerate() {
                let ad = self.ads.ad(dense as u32);
                if let Ok(row) = self.others.find_entry(ad_index::hash(ad), |row| row.0 == ad) {
                    *sum += row.remove().0.1;
                }
            }
        }
        let dense = self.dense.iter().enumerate().filter(|(_, sum)| **sum > 0);
        let dense = dense.map(|(number, &sum)| (sum, number));
        let mut heap: BinaryHeap<Reverse<(u64, Reverse<u64>)>> = BinaryHeap::with_capacity(limit + 1);
        let mut least = 0;
        let mut offer = |sum: u64, ad: u64| {
            heap.push(Reverse((sum, Reverse(ad))));
            if heap.len() > limit {
                heap.pop();
            }
            if heap.len() == limit {
                least = heap.peek().map_or(0, |row| row.0.0);
            }
            least
        };
        let mut bar = 0;
        for (sum, number) in dense {
            if sum >= bar && limit > 0 {
                bar = offer(sum, self.ads.ad(number as u32));
            }
        }
        for &(ad, sum) in &self.others {
            if sum >= bar && sum > 0 && limit > 0 {
                bar = offer(sum, ad);
            }
        }
        let mut rows: Vec<(u64, u64)> = heap.into_iter().map(|Reverse((sum, Reverse(ad)))| (ad, sum)).collect();
        rows.sort_unstable_by_key(|&(ad, sum)| (Reverse(sum), ad));
        rows
    }
}

impl Snapshot {
    /// An empty sum over the ads known.
    pub fn sums(&self) -> AdSums<'_> {
        AdSums { ads: &self.ads, dense: vec![0; self.ads.len()], others: HashTable::new() }
    }

    /// An empty sum that expects few ads, all by their id.
    pub fn sparse_sums(&self) -> AdSums<'_> {
        AdSums { ads: &self.ads, dense: Vec::new(), others: HashTable::new() }
    }

    /// Adds the hot minutes `[from, to)` to a sum.
    pub fn add_minutes(&self, sums: &mut AdSums<'_>, from: Minute, to: Minute, country: Option<Country>) {
        for (_, columns) in self.minutes.range(from..to) {
            match country {
                None => {
                    for (&ad, &clicks) in columns.ad.iter().zip(&columns.clicks) {
                        sums.dense[ad as usize] += u64::from(clicks);
                    }
                }
                Some(country) => {
                    for row in 0..columns.ad.len() {
                        if columns.country[row] == country {
                            sums.dense[columns.ad[row] as usize] += u64::from(columns.clicks[row]);
                        }
                    }
                }
            }
        }
    }

    /// Clicks of one ad in each hot minute of `[from, to)` that has any.
    pub fn ad_minutes(&self, ad_id: u64, from: Minute, to: Minute, country: Option<Country>) -> Vec<(Minute, u64)> {
        let mut clicks = Vec::new();
        for (&minute, columns) in self.minutes.range(from..to) {
            let start = columns.ad.partition_point(|&ad| self.ads.ad(ad) < ad_id);
            let rows = (start..columns.ad.len()).take_while(|&row| self.ads.ad(columns.ad[row]) == ad_id);
            let rows = rows.filter(|&row| country.is_none_or(|country| columns.country[row] == country));
            let sum: u64 = rows.map(|row| u64::from(columns.clicks[row])).sum();
            if sum > 0 {
                clicks.push((minute, sum));
            }
        }
        clicks
    }

    /// All counts of one minute, where it is held.
    pub fn minute_counts(&self, minute: Minute) -> Option<MinuteCounts> {
        let columns = self.minutes.get(&minute)?;
        Some(MinuteCounts {
            minute,
            ad_id: columns.ad.iter().map(|&ad| self.ads.ad(ad)).collect(),
            country: columns.country.clone(),
            clicks: columns.clicks.clone(),
        })
    }

    /// Clicks not yet committed.
    pub fn open_clicks(&self) -> impl Iterator<Item = &CountedClicks> {
        self.open.iter().map(|(_, clicks)| clicks.as_ref())
    }

    /// Rows held, for gauges.
    pub fn rows(&self) -> usize {
        self.minutes.values().map(|columns| columns.ad.len()).sum()
    }
}
