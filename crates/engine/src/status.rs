//! The status of a process, as opposed to query results: its ledger, its readiness and its gauges. It does not depend
//! on the stores of the process, or on whether the process counts clicks.

use adtally_model::reconcile::{Cause, Corrected, Intake};
use adtally_model::{InputStatus, Ledger};
use adtally_store::questions::Revision;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Most rows of inputs in a ledger: about 3 MB of JSON. One row sums the remaining inputs.
pub const LEDGER_INPUTS_MAX: usize = 10_000;

/// The status of the process behind the server, read at every request. An implementation promises that
///
/// - it answers from memory, without I/O and without waiting for the work that it reports on;
/// - ledgers cover committed epochs and add up (`Ledger::check`), and [`LedgerReport::revision`] names these epochs;
/// - totals of [`Gauges`] never decrease once [`Status::recovering`] is over.
pub trait Status: Send + Sync {
    /// The verdicts of all lines, as of the last commit known to this process.
    fn ledger(&self) -> LedgerReport;

    /// Whether the process can do its work.
    fn readiness(&self) -> Readiness;

    /// The progress of recovery in a sentence, while the process recovers its state. Until recovery is over, only
    /// liveness and readiness can be queried.
    fn recovering(&self) -> Option<String> {
        None
    }

    /// The metrics of the process.
    fn gauges(&self) -> Gauges;
}

/// The verdicts of all lines.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LedgerReport {
    /// All partitions; their ledgers sum to the total.
    pub partitions: Vec<PartitionLedger>,
    /// Inputs in display order, at most [`LEDGER_INPUTS_MAX`] rows. Rows that sum up gone inputs and excess inputs
    /// make the total complete.
    pub inputs: Vec<InputLedger>,
    /// Inputs without a row of their own because there are too many.
    pub inputs_left_off: u64,
    /// The corrections of final minutes; `None` before the first run of reconciliation.
    pub corrections: Option<CorrectionLedger>,
    /// The epochs included; `None` before the first.
    pub revision: Option<Revision>,
}

/// The corrections of final minutes: `sum(sign) of clicks = counted + recovered - reversed`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CorrectionLedger {
    /// The last epoch of the partition `reconcile`.
    pub epoch: u64,
    /// The number of runs.
    pub runs: u64,
    /// Every earlier minute whose raw clicks are kept is recounted; `None` before the first recount.
    pub reconciled_to_ms: Option<i64>,
    /// All corrections, by cause.
    pub by_cause: BTreeMap<Cause, Corrected>,
    /// Lines that were taken in after their minutes were final.
    pub intake: Intake,
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
    /// Its display name: the current path of its file.
    pub name: String,
    /// Its permanent name in the lake's tables.
    pub origin: String,
    /// Whether it holds its partition's watermark.
    pub status: InputStatus,
    /// How far it was read and committed, in bytes of uncompressed text.
    pub position: u64,
    /// Its watermark; `None` before there is one.
    pub watermark_ms: Option<i64>,
    /// Its lines by verdict.
    pub ledger: Ledger,
}

/// Whether the process can do its work, in sentences for people.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Readiness {
    /// Problems that prevent its work. The process is ready if there are none.
    pub problems: Vec<String>,
    /// Conditions that an operator should know although the work continues.
    pub notes: Vec<String>,
}

/// Metrics of the process.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Gauges {
    /// Lines by verdict since the deployment began, as of the last commit. Partitions that moved to another process
    /// count as of their move.
    pub lines: Ledger,
    /// Epochs committed since the deployment began, of the same partitions.
    pub epochs_committed: u64,
    /// How far the least watermark is behind the clock, in milliseconds; `None` before there is one.
    pub watermark_lag_ms: Option<i64>,
    /// How far the least closed frontier is behind the clock, in milliseconds; `None` before there is one.
    pub closed_lag_ms: Option<i64>,
    /// The stores that epochs are projected into.
    pub projections: Vec<Projection>,
    /// The corrections of final minutes; `None` before the first run of reconciliation.
    pub corrections: Option<CorrectionLedger>,
    /// How far the partitions of a topic are committed; those whose end is known.
    pub topic_lags: Vec<TopicLag>,
    /// The run loop; `None` in a process that only answers queries.
    pub run_loop: Option<RunLoop>,
}

/// How far a store is behind the epoch log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Projection {
    /// The name of the store, one word such as `lake`: it is part of the metric's name.
    pub store: &'static str,
    /// Committed epochs that it does not contain yet.
    pub epochs_behind: u64,
}

/// How far a partition of a topic is committed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TopicLag {
    /// The number of the partition in the deployment.
    pub partition: u32,
    /// Kafka records between what is committed and the end of the partition.
    pub records: u64,
    /// Those of them that are not read.
    pub unread: u64,
}

/// The state of a run loop.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct RunLoop {
    /// Durations of commits since the process started.
    pub epoch_commits: DurationSnapshot,
    /// Queues between stages.
    pub queues: Vec<QueueDepth>,
    /// Identities in memory for deduplication.
    pub live_identities: u64,
    /// Minutes whose identities are in memory.
    pub live_minutes: u64,
    /// Input files that are open.
    pub open_files: u64,
}

/// How full a queue is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueueDepth {
    /// Its name: a noun such as `batches`, or its unit such as `read_ahead_bytes`.
    pub queue: &'static str,
    /// Items, or bytes, in it.
    pub depth: u64,
    /// Capacity in items or bytes.
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

    /// The durations counted so far.
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
