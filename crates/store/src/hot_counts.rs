//! Minute counts in memory: one writer, and many readers that never block it.
//!
//! Each minute is a set of columns. Ads have dense numbers, by which the columns are sorted, so a sum over many minutes
//! accesses the columns and an array of sums in order. Final minutes are also summed in groups of ten. Readers work on
//! a snapshot (an `Arc`); the writer builds new columns beside the old ones and swaps the snapshot.

mod ad_index;
mod columns;
mod sums;
#[cfg(test)]
mod tests;

pub use ad_index::AdIndex;
use adtally_model::{CountedClicks, Country, EpochNumber, Minute, MinuteCounts, Progress, StagedFile};
use columns::{MinuteColumns, SpanColumns};
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::sync::Arc;
pub use sums::AdSums;

/// Minutes that are summed together once all of them are final.
const SPAN_MINUTES: i64 = 10;

/// The ad index is rebuilt when it has more than this many times the counted rows, so that ads that are no longer
/// clicked do not take memory forever.
const INDEX_SLACK: usize = 2;

/// The ad index is never rebuilt below this many ads: 12 MB.
const INDEX_ADS_MIN: usize = 1 << 20;

/// A committed epoch that is not in the lake yet.
#[derive(Debug)]
pub struct PendingEpoch {
    /// Its number.
    pub epoch: EpochNumber,
    /// Its clicks by minute.
    pub counts: Arc<[MinuteCounts]>,
    /// Its staged files.
    pub staged: Vec<StagedFile>,
}

type Minutes = BTreeMap<Minute, Arc<MinuteColumns>>;

/// The state that readers see.
#[derive(Clone, Default)]
pub struct Snapshot {
    /// Progress of the newest committed epoch.
    pub progress: Progress,
    /// Every committed click of this minute and all later ones is in `minutes`.
    pub complete_from: Option<Minute>,
    /// The last epoch in the lake.
    pub lake_epoch: EpochNumber,
    /// Committed epochs after `lake_epoch`, ascending.
    pub pending: Vec<Arc<PendingEpoch>>,
    minutes: Arc<Minutes>,
    /// Sums of [`SPAN_MINUTES`] minutes, by their first minute.
    spans: Arc<BTreeMap<Minute, Arc<SpanColumns>>>,
    ads: Arc<AdIndex>,
    /// The number of ads that had a number when this was made, which includes all in the columns.
    numbers: usize,
    /// Clicks judged but not committed, with the epoch that will commit them.
    open: Vec<(EpochNumber, Arc<CountedClicks>)>,
}

/// The hot counts.
pub struct HotCounts {
    shared: RwLock<Arc<Snapshot>>,
    /// Locked while minutes are changed.
    writing: Mutex<()>,
    hot_minutes: i64,
}

impl HotCounts {
    /// Keeps the last `hot_minutes` minutes, and live ones.
    pub fn new(hot_minutes: u32) -> Self {
        HotCounts {
            shared: RwLock::new(Arc::new(Snapshot::default())),
            writing: Mutex::new(()),
            hot_minutes: i64::from(hot_minutes),
        }
    }

    /// A snapshot of the current state.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.shared.read())
    }

    /// The first hot minute, by progress.
    pub fn hot_from(&self, progress: &Progress) -> Option<Minute> {
        let to = progress.to().or(progress.newest_click_ms.map(Minute::of))?;
        Some(Minute(to.0 - self.hot_minutes))
    }

    /// Starts from the result of recovery: all counts of the minutes from `complete_from`, and of live ones before it.
    pub fn restore(
        &self,
        progress: Progress,
        complete_from: Option<Minute>,
        counts: &[MinuteCounts],
        lake_epoch: EpochNumber,
        pending: Vec<Arc<PendingEpoch>>,
    ) {
        let _writing = self.writing.lock();
        let mut snapshot = Snapshot { progress, complete_from, lake_epoch, pending, ..Snapshot::default() };
        let mut minutes = Minutes::new();
        counts.iter().for_each(|counts| add_counts(&mut minutes, counts, &snapshot.ads));
        snapshot.set_minutes(minutes);
        *self.shared.write() = Arc::new(snapshot);
    }

    /// Adds all counts of the minutes from `from` up to the first complete one. They cannot get more clicks, since they
    /// are no longer live.
    pub fn extend_back(&self, from: Minute, counts: &[MinuteCounts]) {
        let _writing = self.writing.lock();
        let before = self.snapshot();
        let (Some(complete), Some(hot_from)) = (before.complete_from, self.hot_from(&before.progress)) else { return };
        let from = from.max(hot_from);
        let mut minutes = (*before.minutes).clone();
        for counts in counts.iter().filter(|counts| (from..complete).contains(&counts.minute)) {
            add_counts(&mut minutes, counts, &before.ads);
        }
        let (progress, complete_from) = (before.progress, Some(from.min(complete)));
        let (ads, spans) = (Arc::clone(&before.ads), Arc::clone(&before.spans));
        self.change(Snapshot { progress, complete_from, ads, spans, ..Snapshot::default() }, minutes, |_| {});
    }

    /// Publishes new minutes to readers.
    fn change(&self, mut changed: Snapshot, minutes: Minutes, finish: impl FnOnce(&mut Snapshot)) {
        // Before the lock: summing final minutes takes long, and must not make readers wait.
        changed.set_minutes(minutes);
        let mut shared = self.shared.write();
        let snapshot = Arc::make_mut(&mut shared);
        changed.lake_epoch = snapshot.lake_epoch;
        changed.pending = std::mem::take(&mut snapshot.pending);
        changed.open = std::mem::take(&mut snapshot.open);
        finish(&mut changed);
        *snapshot = changed;
    }

    /// Shows clicks that were judged and that an epoch will commit.
    pub fn open(&self, epoch: EpochNumber, clicks: Arc<CountedClicks>) {
        let mut shared = self.shared.write();
        Arc::make_mut(&mut shared).open.push((epoch, clicks));
    }

    /// Adds a committed epoch: its open clicks become committed counts.
    pub fn commit(&self, progress: Progress, pending: Arc<PendingEpoch>) {
        self.add(progress, &Arc::clone(&pending.counts), |changed| changed.pending.push(pending));
    }

    /// Adds a committed epoch that the lake contains already.
    pub fn commit_projected(&self, progress: Progress, counts: &[MinuteCounts]) {
        self.add(progress, counts, |changed| changed.lake_epoch = progress.number);
    }

    fn add(&self, progress: Progress, counts: &[MinuteCounts], finish: impl FnOnce(&mut Snapshot)) {
        let _writing = self.writing.lock();
        let before = self.snapshot();
        let mut minutes = (*before.minutes).clone();
        counts.iter().for_each(|counts| add_counts(&mut minutes, counts, &before.ads));
        let mut complete_from = before.complete_from;
        if let Some(hot_from) = self.hot_from(&progress) {
            // Before the first click, all minutes are complete, from the beginning of time.
            complete_from = Some(complete_from.map_or(hot_from, |from| from.max(hot_from)));
            minutes.retain(|&minute, _| minute >= hot_from || progress.frontiers.is_live(minute));
        }
        let rows: usize = minutes.values().map(|columns| columns.ad.len()).sum();
        let numbers = before.ads.len();
        let mut ads = Arc::clone(&before.ads);
        let mut spans = Arc::clone(&before.spans);
        for counts in counts {
            // A correction changes a minute that is already in a sum.
            let first = first_of_span(counts.minute);
            if spans.contains_key(&first) {
                Arc::make_mut(&mut spans).remove(&first);
            }
        }
        if numbers > INDEX_ADS_MIN && numbers > rows * INDEX_SLACK {
            ads = Arc::new(AdIndex::default());
            spans = Arc::default();
            for (&minute, columns) in &mut minutes {
                *columns = Arc::new(MinuteColumns::of(&columns.counts(minute, &before.ads), &ads));
            }
        }
        self.change(Snapshot { progress, complete_from, ads, spans, ..Snapshot::default() }, minutes, |changed| {
            changed.open.retain(|(epoch, _)| *epoch > changed.progress.number);
            finish(changed);
        });
    }

    /// Records that the lake contains all epochs up to this one.
    pub fn projected(&self, lake_epoch: EpochNumber) {
        let mut shared = self.shared.write();
        let snapshot = Arc::make_mut(&mut shared);
        snapshot.lake_epoch = lake_epoch.max(snapshot.lake_epoch);
        snapshot.pending.retain(|pending| pending.epoch > lake_epoch);
    }
}

/// The first minute of the span that a minute belongs to.
fn first_of_span(minute: Minute) -> Minute {
    Minute(minute.0 - minute.0.rem_euclid(SPAN_MINUTES))
}

/// Adds the counts of a minute to its columns.
fn add_counts(minutes: &mut Minutes, counts: &MinuteCounts, ads: &AdIndex) {
    let added = MinuteColumns::of(counts, ads);
    let columns = minutes.entry(counts.minute).or_default();
    *columns = Arc::new(if columns.ad.is_empty() { added } else { columns.merge(&added) });
}

impl Snapshot {
    /// Sets the minutes, and sums those that are final and complete by tens.
    fn set_minutes(&mut self, minutes: Minutes) {
        self.numbers = self.ads.len();
        let final_to = self.progress.frontiers.final_.get().map_or(i64::MIN, |ms| Minute::of(ms).0);
        let mut spans = (*self.spans).clone();
        spans.retain(|&first, _| minutes.range(first..Minute(first.0 + SPAN_MINUTES)).next().is_some());
        for &minute in minutes.keys() {
            let first = first_of_span(minute);
            let end = Minute(first.0 + SPAN_MINUTES);
            let complete = self.complete_from.is_some_and(|from| from <= first) && end.0 <= final_to;
            if complete && !spans.contains_key(&first) {
                let columns = minutes.range(first..end).map(|(_, columns)| columns.as_ref());
                spans.insert(first, Arc::new(SpanColumns::of(columns, self.numbers)));
            }
        }
        self.minutes = Arc::new(minutes);
        self.spans = Arc::new(spans);
    }

    /// An empty sum over the known ads.
    pub fn sums(&self) -> AdSums<'_> {
        AdSums::new(&self.ads, self.numbers)
    }

    /// Adds the hot minutes `[from, to)` to a sum.
    pub fn add_minutes(&self, sums: &mut AdSums<'_>, from: Minute, to: Minute, country: Option<Country>) {
        let mut next = from;
        for (&minute, columns) in self.minutes.range(from..to) {
            if minute < next {
                continue;
            }
            let span = first_of_span(minute);
            let end = Minute(span.0 + SPAN_MINUTES);
            match self.spans.get(&span) {
                Some(columns) if country.is_none() && from <= span && end <= to => {
                    columns.add_to(&mut sums.dense);
                    next = end;
                }
                _ => columns.add_to(&mut sums.dense, country),
            }
        }
    }

    /// Clicks of one ad in each hot minute of `[from, to)` that has clicks of it.
    pub fn ad_minutes(&self, ad_id: u64, from: Minute, to: Minute, country: Option<Country>) -> Vec<(Minute, i64)> {
        let Some(number) = self.ads.number(ad_id) else { return Vec::new() };
        let minutes = self.minutes.range(from..to).map(|(&minute, columns)| (minute, columns.of_ad(number, country)));
        minutes.filter(|&(_, clicks)| clicks != 0).collect()
    }

    /// All counts of one minute; `None` if it is not in memory.
    pub fn minute_counts(&self, minute: Minute) -> Option<MinuteCounts> {
        Some(self.minutes.get(&minute)?.counts(minute, &self.ads))
    }

    /// Clicks not yet committed.
    pub fn open_clicks(&self) -> impl Iterator<Item = &CountedClicks> {
        self.open.iter().map(|(_, clicks)| clicks.as_ref())
    }

    /// The number of rows in memory, for gauges.
    pub fn rows(&self) -> usize {
        self.minutes.values().map(|columns| columns.ad.len()).sum()
    }
}
