//! What a process tells of itself, beside the answers: its ledger, its readiness and its gauges. Nothing here depends on
//! which stores it has, or on whether it counts clicks itself.

use adtally_model::{InputStatus, Ledger};
use adtally_store::questions::Revision;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How many rows of inputs a ledger has at most: some 3 MB of JSON. Beyond it they are summed in one of the rows.
pub const LEDGER_INPUTS_MAX: usize = 10_000;

/// The process behind the server, asked at every request. An implementation promises that
///
/// - it answers from memory, without I/O and without waiting for the work that it tells of;
/// - ledgers are those of committed epochs and add up (`Ledger::check`), and [`LedgerReport::revision`] names these
///   epochs;
/// - totals of [`Gauges`] never decrease once [`Status::recovering`] is over.
pub trait Status: Send + Sync {
    /// Where every line went, as of the last commit that this process knows.
    fn ledger(&self) -> LedgerReport;

    /// Whether the process does its work.
    fn readiness(&self) -> Readiness;

    /// While the process recovers its state: how far it is, in a sentence. Until then nothing but its life and its
    /// readiness can be asked for.
    fn recovering(&self) -> Option<String> {
        None
    }

    /// The state of the machinery.
    fn gauges(&self) -> Gauges;
}

/// Where every line went.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LedgerReport {
    /// Every partition; their ledgers sum to the total of the answer.
    pub partitions: Vec<PartitionLedger>,
    /// Inputs, in the order in which they are to be shown, at most [`LEDGER_INPUTS_MAX`] rows.
    /// Rows that sum those that are gone and those that are too many make the sum complete.
    pub inputs: Vec<InputLedger>,
    /// Inputs that have no row of their own because there are too many.
    pub inputs_left_off: u64,
    /// The epochs that it is made of; none before the first.
    pub revision: Option<Revision>,
}

/// The lines and the progress of one partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionLedger {
    /// Its number.
    pub partition: u32,
    /// Its last committed epoch.
    pub epoch: u64,
    /// Its lines by verdict.
    pub ledger: Ledger,
    /// Its watermark; `None` before there is one.
    pub watermark_ms: Option<i64>,
    /// Minutes that end at or before it are closed.
    pub closed_ms: Option<i64>,
    /// Minutes that end at or before it are final.
    pub final_ms: Option<i64>,
}

/// The lines and the progress of one input.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InputLedger {
    /// Its name for people: where its file is now.
    pub name: String,
    /// What the lake's tables call it, for as long as it is known.
    pub origin: String,
    /// Whether it holds its partition.
    pub status: InputStatus,
    /// How far it was read and committed, in bytes of uncompressed text.
    pub position: u64,
    /// Its watermark; `None` before there is one.
    pub watermark_ms: Option<i64>,
    /// Its lines by verdict.
    pub ledger: Ledger,
}

/// Whether the process does its work, in sentences for people.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Readiness {
    /// What keeps it from its work; ready means that there is none.
    pub problems: Vec<String>,
    /// What an operator should know although the work goes on.
    pub notes: Vec<String>,
}

/// The state of the machinery, for metrics.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Gauges {
    /// Lines by verdict since the deployment began, as of the last commit, of the partitions that this process has; of those
    /// that went to another process, as of when they did.
    pub lines: Ledger,
    /// Epochs committed since the deployment began, of the same partitions.
    pub epochs_committed: u64,
    /// How far the least watermark is behind the clock, in milliseconds; `None` before there is one.
    pub watermark_lag_ms: Option<i64>,
    /// How far the least closed frontier is behind the clock, in milliseconds; `None` before there is one.
    pub closed_lag_ms: Option<i64>,
    /// The stores that epochs are projected into.
    pub projections: Vec<Projection>,
    /// The run loop; `None` in a process that answers questions and counts nothing.
    pub run_loop: Option<RunLoop>,
}

/// How far a store follows the epoch log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Projection {
    /// The name of the store, one word such as `lake`: it is part of the metric's name.
    pub store: &'static str,
    /// Committed epochs that it does not hold yet.
    pub epochs_behind: u64,
}

/// The state of a run loop.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct RunLoop {
    /// How long commits took since the process started.
    pub epoch_commits: DurationSnapshot,
    /// Queues between stages.
    pub queues: Vec<QueueDepth>,
    /// Identities held for deduplication.
    pub live_identities: u64,
    /// Minutes whose identities are held.
    pub live_minutes: u64,
    /// Input files that are open.
    pub open_files: u64,
}

/// How full a queue is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueDepth {
    /// Its name, a noun such as `batches`, or what it is measured in such as `read_ahead_bytes`.
    pub queue: &'static str,
    /// Items, or bytes, in it.
    pub depth: u64,
    /// Items, or bytes, that it can hold.
    pub capacity: u64,
}

/// Upper bounds of the classes of durations, in microseconds: 1 ms (a commit to memory) to 60 s (a stuck disk).
const BOUNDS_US: [u64; 14] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 60_000_000,
];

/// Counts durations by class. Writers and readers share it without locks.
///
/// ```
/// # use adtally_engine::status::DurationHistogram;
/// # use std::time::Duration;
/// let commits = DurationHistogram::default();
/// commits.observe(Duration::from_millis(3));
/// assert_eq!(commits.snapshot().count(), 1);
/// ```
#[derive(Debug, Default)]
pub struct DurationHistogram {
    classes: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl DurationHistogram {
    /// Adds one duration.
    pub fn observe(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let class = BOUNDS_US.partition_point(|bound| *bound < us);
        if let Some(count) = self.classes.get(class) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub fn snapshot(&self) -> DurationSnapshot {
        DurationSnapshot {
            classes: std::array::from_fn(|class| self.classes[class].load(Ordering::Relaxed)),
            sum_us: self.sum_us.load(Ordering::Relaxed),
        }
    }
}

/// The contents of a [`DurationHistogram`] at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DurationSnapshot {
    classes: [u64; BOUNDS_US.len() + 1],
    sum_us: u64,
}

impl DurationSnapshot {
    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.classes.iter().sum()
    }

    /// Their sum in seconds.
    pub fn sum_s(&self) -> f64 {
        self.sum_us as f64 / 1e6
    }

    /// (upper bound in seconds, durations in that class alone), the last class unbounded.
    pub fn classes_s(&self) -> Vec<(f64, u64)> {
        let bounds = BOUNDS_US.iter().map(|us| *us as f64 / 1e6).chain([f64::INFINITY]);
        bounds.zip(self.classes).collect()
    }
}
