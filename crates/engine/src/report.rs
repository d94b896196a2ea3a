//! The report of the process: ledger, readiness and gauges, which requests can read without waiting.

use crate::clock::Clock;
use crate::first_rejections::{FirstRejection, FirstRejections};
use crate::line_notes::{Countries, LineNotes};
use crate::status::{
    DurationHistogram, Gauges, InputLedger, LEDGER_INPUTS_MAX, LedgerReport, PartitionLedger, Projection, QueueDepth,
    Readiness, RunLoop, Status, TopicLag,
};
use adtally_model::{EpochNumber, InputId, InputRow, InputStatus, Ledger, PartitionState, Progress, RECONCILE};
use adtally_pipeline::{ClockReading, EpochDraft, Partition, TimeSettings};
use adtally_source::Backlog;
use adtally_store::epoch_log::ReadProgress;
use adtally_store::questions::Revision;
use parking_lot::Mutex;
use reconciliation::Reconciliation;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

mod input_notes;
mod reconciliation;
#[cfg(test)]
mod tests;

/// Most notes on the source to show.
const SOURCE_NOTES_MAX: usize = 20;

/// A turn of ingest longer than this hangs, on a mount or on the committer: normally there are many turns a second.
const STUCK_AFTER_MS: i64 = 30_000;

#[derive(Default)]
struct Committed {
    progress: Progress,
    inputs: BTreeMap<InputId, Arc<InputRow>>,
}

/// The memory use and reading of a partition.
#[derive(Clone, Copy, Default)]
struct Holds {
    identities: usize,
    minutes: usize,
    open_files: u64,
    /// Bytes of text read ahead, and their limit.
    read_ahead: (u64, u64),
    /// The last epoch that the lake contains.
    lake_epoch: EpochNumber,
    /// How far a topic's partition is read.
    backlog: Option<Backlog>,
}

#[derive(Default)]
struct Live {
    clock: Option<ClockReading>,
    partitions: BTreeMap<u32, Holds>,
    /// By partition.
    store_failing: BTreeMap<u32, String>,
    lake_failing: Option<String>,
    upkeep_failing: Option<String>,
    group_failing: Option<String>,
    reconciliation: Reconciliation,
    /// By partition.
    source_notes: BTreeMap<u32, Vec<String>>,
    starting: bool,
    recovering: bool,
    /// Progress of reading the epoch log, once reading has begun.
    records: Option<Arc<ReadProgress>>,
    /// When ingest began its last turn, in milliseconds of monotonic time; `None` while it does not read.
    turned_ms: Option<i64>,
}

/// The report, shared between the threads.
pub struct Report {
    settings: TimeSettings,
    clock: Arc<dyn Clock>,
    committed: Mutex<BTreeMap<u32, Committed>>,
    /// Progress of partitions when they moved to another process. Totals include what this process counted.
    left: Mutex<BTreeMap<u32, Progress>>,
    live: Mutex<Live>,
    commits: DurationHistogram,
    rejections: Mutex<FirstRejections>,
    lines: Mutex<BTreeMap<u32, LineNotes>>,
}

impl Report {
    /// A report that starts from a recovered state.
    pub fn new(settings: TimeSettings, state: &PartitionState, clock: Arc<dyn Clock>) -> Arc<Report> {
        let report = Report::recovers(settings, clock);
        report.recovered(state);
        report
    }

    /// A report that starts before the state is recovered.
    pub fn recovers(settings: TimeSettings, clock: Arc<dyn Clock>) -> Arc<Report> {
        Arc::new(Report {
            settings,
            clock,
            committed: Mutex::default(),
            left: Mutex::default(),
            live: Mutex::new(Live { starting: true, recovering: true, ..Live::default() }),
            commits: DurationHistogram::default(),
            rejections: Mutex::new(FirstRejections::default()),
            lines: Mutex::default(),
        })
    }

    /// Records that recovery reads the epoch log.
    pub fn reads(&self, records: Arc<ReadProgress>) {
        self.live.lock().records = Some(records);
    }

    /// Records the recovered state of a partition.
    pub fn recovered(&self, state: &PartitionState) {
        if state.progress.partition == RECONCILE {
            let reconciled = state.reconcile.as_deref().map(|record| record.state.clone()).unwrap_or_default();
            return self.corrected(state.progress, &reconciled);
        }
        let committed = Committed { progress: state.progress, inputs: state.inputs.clone() };
        let mut partitions = self.committed.lock();
        partitions.insert(state.progress.partition, committed);
        self.left.lock().remove(&state.progress.partition);
        drop(partitions);
        self.live.lock().recovering = false;
    }

    /// Records that a partition has moved to another process.
    pub fn left(&self, partition: u32) {
        let mut partitions = self.committed.lock();
        if let Some(committed) = partitions.remove(&partition) {
            self.left.lock().insert(partition, committed.progress);
        }
        drop(partitions);
        let mut live = self.live.lock();
        live.partitions.remove(&partition);
        live.store_failing.remove(&partition);
        live.source_notes.remove(&partition);
        drop(live);
        self.lines.lock().remove(&partition);
    }

    /// Records a committed epoch, with the countries of its clicks.
    pub fn committed(&self, draft: &EpochDraft, countries: &[Countries], took_ms: i64) {
        self.commits.observe(Duration::from_millis(took_ms.max(0) as u64));
        self.rejections.lock().observe(&draft.dead_letters);
        let mut partitions = self.committed.lock();
        let Some(committed) = partitions.get_mut(&draft.progress.partition) else {
            // The next owner reports the partition. Epochs still committed here count in the totals.
            if let Some(left) = self.left.lock().get_mut(&draft.progress.partition) {
                *left = draft.progress;
            }
            return;
        };
        let (before, total, now_ms) = (&committed.inputs, &committed.progress.ledger, self.clock.monotonic_ms());
        let mut lines = self.lines.lock();
        for warning in
            lines.entry(draft.progress.partition).or_default().observe(draft, countries, before, total, now_ms)
        {
            tracing::warn!("{warning}");
        }
        if draft.progress.number.is_multiple_of(adtally_model::epoch::BASE_EVERY) {
            committed.inputs.clear();
        }
        for row in &draft.inputs {
            committed.inputs.insert(row.id, Arc::clone(row));
        }
        committed.progress = draft.progress;
    }

    /// Records that a group assigns partitions to this process: it may have none.
    pub fn assigned(&self) {
        self.live.lock().recovering = false;
    }

    /// Records why the group cannot be reached; `None` when it can.
    pub fn group_failing(&self, problem: Option<String>) {
        self.live.lock().group_failing = problem;
    }

    /// The offset up to which a partition was committed.
    pub fn committed_offset(&self, partition: u32) -> Option<u64> {
        self.committed.lock().get(&partition)?.progress.source.map(|source| source.to)
    }

    /// Records that reading has begun.
    pub fn started(&self) {
        self.live.lock().starting = false;
    }

    /// Records that ingest begins a turn. `monotonic_ms` is monotonic time.
    pub fn turned(&self, monotonic_ms: i64) {
        self.live.lock().turned_ms = Some(monotonic_ms);
    }

    /// Records that reading is over.
    pub fn ended(&self) {
        self.live.lock().turned_ms = None;
    }

    /// Records the clocks.
    pub fn clock(&self, now: &ClockReading) {
        self.live.lock().clock = Some(*now);
    }

    /// Records a partition's reading: open files, bytes of text read ahead, and their limit.
    pub fn reading(&self, partition: u32, open_files: usize, held_bytes: usize, held_bytes_max: usize) {
        let mut live = self.live.lock();
        let holds = live.partitions.entry(partition).or_default();
        holds.open_files = open_files as u64;
        holds.read_ahead = (held_bytes as u64, held_bytes_max as u64);
    }

    /// Records how far a topic's partition is read.
    pub fn backlog(&self, partition: u32, backlog: Backlog) {
        self.live.lock().partitions.entry(partition).or_default().backlog = Some(backlog);
    }

    /// Records a partition's memory use.
    pub fn holds(&self, partition: &Partition) {
        let mut live = self.live.lock();
        let holds = live.partitions.entry(partition.number()).or_default();
        (holds.identities, holds.minutes) = partition.held();
    }

    /// Records that the lake contains a partition's epochs up to `epoch`.
    pub fn lake_holds(&self, partition: u32, epoch: EpochNumber) {
        self.live.lock().partitions.entry(partition).or_default().lake_epoch = epoch;
    }

    /// Records the current problems of inputs that do not stop the run.
    pub fn note_source(&self, partition: u32, mut notes: Vec<String>) {
        notes.truncate(SOURCE_NOTES_MAX);
        self.live.lock().source_notes.insert(partition, notes);
    }

    /// Records that the store rejects epochs.
    pub fn store_failing(&self, partition: u32, problem: String) {
        self.live.lock().store_failing.insert(partition, problem);
    }

    /// Records that the store accepts epochs again.
    pub fn store_mended(&self, partition: u32) {
        self.live.lock().store_failing.remove(&partition);
    }

    /// Records that the lake cannot be updated.
    pub fn lake_failing(&self, problem: String) {
        self.live.lock().lake_failing = Some(problem);
    }

    /// Records that the lake is up to date.
    pub fn lake_mended(&self) {
        self.live.lock().lake_failing = None;
    }

    /// Records a problem of lake upkeep; `None` when its last round succeeded.
    pub fn upkeep_failing(&self, problem: Option<String>) {
        self.live.lock().upkeep_failing = problem;
    }

    /// The first line that this process rejected for each reason.
    pub fn first_rejections(&self) -> Vec<FirstRejection> {
        self.rejections.lock().list()
    }

    /// Event time of the newest click committed.
    pub fn newest_click_ms(&self) -> Option<i64> {
        self.committed.lock().values().filter_map(|committed| committed.progress.newest_click_ms).max()
    }

    /// The committed lines of all partitions by verdict.
    pub fn total(&self) -> Ledger {
        total(self.committed.lock().values().map(|committed| &committed.progress))
    }

    fn watermark_of(&self, row: &InputRow) -> Option<i64> {
        row.time.largest_ms.map(|largest| largest - self.settings.out_of_orderness_ms)
    }
}

/// The lines of all partitions by verdict.
fn total<'a>(partitions: impl Iterator<Item = &'a Progress>) -> Ledger {
    let mut sum = Ledger::default();
    partitions.for_each(|progress| sum += &progress.ledger);
    sum
}

/// A row with the sum of several inputs.
fn sum_row(name: &str, ledger: Ledger) -> InputLedger {
    InputLedger {
        name: name.into(),
        origin: name.into(),
        status: InputStatus::Ended,
        position: 0,
        watermark_ms: None,
        ledger,
    }
}

impl Report {
    /// The inputs of a partition: at most `rows_max` rows, which add up to the partition's ledger, and the number of
    /// inputs not listed. If there are too many, inputs that have not ended are listed first, then the newest.
    fn input_rows(&self, committed: &Committed, rows_max: usize) -> (Vec<InputLedger>, u64) {
        let mut listed: Vec<&InputRow> = committed.inputs.values().map(Arc::as_ref).collect();
        let mut rows = Vec::new();
        if committed.progress.gone != Ledger::default() {
            rows.push(sum_row("(gone)", committed.progress.gone));
        }
        let mut others = Vec::new();
        if rows.len() + listed.len() > rows_max {
            listed.sort_by_key(|row| (row.status == InputStatus::Ended, Reverse(row.id)));
            others = listed.split_off(rows_max.saturating_sub(1 + rows.len()));
        }
        rows.extend(listed.into_iter().map(|row| InputLedger {
            name: row.name.to_string(),
            origin: row.origin.to_string(),
            status: row.status,
            position: row.position().to,
            watermark_ms: self.watermark_of(row),
            ledger: row.ledger,
        }));
        if !others.is_empty() {
            let mut sum = Ledger::default();
            others.iter().for_each(|row| sum += &row.ledger);
            rows.push(sum_row("(others)", sum));
        }
        (rows, others.len() as u64)
    }
}

impl Live {
    /// The progress of recovery, until it is over.
    fn recovery(&self) -> Option<String> {
        let what = "starting: the state is being recovered";
        let records = self.records.as_ref().map(|records| records.get());
        self.recovering.then(|| match records {
            Some((read, total)) if total > 0 => format!("{what}, {read} of {total} records of the epoch log are read"),
            _ => format!("{what}, the stores are being opened"),
        })
    }
}

impl Status for Report {
    fn recovering(&self) -> Option<String> {
        self.live.lock().recovery()
    }

    fn ledger(&self) -> LedgerReport {
        let committed = self.committed.lock();
        let rows_max = LEDGER_INPUTS_MAX / committed.len().max(1);
        let (mut inputs, mut inputs_left_off) = (Vec::new(), 0);
        for committed in committed.values() {
            let (rows, left_off) = self.input_rows(committed, rows_max);
            inputs.extend(rows);
            inputs_left_off += left_off;
        }
        let of_partition = |Committed { progress, .. }: &Committed| PartitionLedger {
            partition: progress.partition,
            epoch: progress.number,
            ledger: progress.ledger,
            watermark_ms: progress.frontiers.watermark.get(),
            closed_ms: progress.frontiers.closed.get(),
            final_ms: progress.frontiers.final_.get(),
        };
        let live = self.live.lock();
        let progress = committed.values().map(|committed| &committed.progress);
        let revision = Revision::of(progress.chain(live.reconciliation.progress()));
        LedgerReport {
            partitions: committed.values().map(of_partition).collect(),
            inputs,
            inputs_left_off,
            corrections: live.reconciliation.ledger(),
            revision: revision.if_any(),
        }
    }

    fn readiness(&self) -> Readiness {
        let committed = self.committed.lock();
        let live = self.live.lock();
        let mut problems = Vec::new();
        if let Some(progress) = live.recovery() {
            problems.push(progress);
        } else if live.starting {
            problems.push("starting: reading has not begun".into());
        }
        let still_ms = live.turned_ms.map_or(0, |turned| self.clock.monotonic_ms() - turned);
        if still_ms > STUCK_AFTER_MS {
            problems.push(format!(
                "reading has made no progress for {} s: check that the folders of the inputs and the data directory \
                 respond",
                still_ms / 1_000
            ));
        }
        problems.extend(live.store_failing.values().cloned());
        problems.extend(live.lake_failing.clone());
        if let Some(clock) = live.clock.filter(|clock| !clock.agrees) {
            problems.push(format!(
                "the wall clock ({}) disagrees with the elapsed time ({}): the clock closes no minutes until they \
                 agree",
                adtally_model::time::rfc3339(clock.wall_ms),
                adtally_model::time::rfc3339(clock.guarded_ms)
            ));
        }
        let mut notes = Vec::new();
        let identities: usize = live.partitions.values().map(|holds| holds.identities).sum();
        if identities > self.settings.dedup_capacity {
            notes.push(format!("{identities} identities are in memory, more than dedup_capacity"));
        }
        notes.extend(live.upkeep_failing.clone());
        notes.extend(live.group_failing.clone());
        notes.extend(live.reconciliation.notes());
        committed.values().for_each(|committed| self.input_notes(committed, &mut notes));
        let now_ms = self.clock.monotonic_ms();
        notes.extend(self.lines.lock().values().flat_map(|lines| lines.notes(now_ms)));
        notes.extend(live.source_notes.values().flatten().cloned());
        Readiness { problems, notes }
    }

    fn gauges(&self) -> Gauges {
        let committed = self.committed.lock();
        let live = self.live.lock();
        let left = self.left.lock();
        let progress = || committed.values().map(|committed| &committed.progress);
        let ever = || progress().chain(left.values());
        let lag = |time: Option<i64>| Some(live.clock?.wall_ms - time?);
        let holds = || live.partitions.values();
        let lag_of = |of: &Progress| {
            let Backlog { next, behind } = live.partitions.get(&of.partition)?.backlog?;
            let uncommitted = next.saturating_sub(of.source.map_or(next, |source| source.to));
            Some(TopicLag { partition: of.partition, records: behind + uncommitted, unread: behind })
        };
        let in_lake = |partition| live.partitions.get(&partition).map_or(0, |holds| holds.lake_epoch);
        Gauges {
            lines: total(ever()),
            epochs_committed: ever().map(|progress| progress.number).sum(),
            watermark_lag_ms: lag(progress().filter_map(|progress| progress.frontiers.watermark.get()).min()),
            closed_lag_ms: lag(progress().filter_map(|progress| progress.frontiers.closed.get()).min()),
            projections: vec![Projection {
                store: "lake",
                epochs_behind: progress().map(|of| of.number.saturating_sub(in_lake(of.partition))).sum(),
            }],
            corrections: live.reconciliation.ledger(),
            topic_lags: progress().filter_map(lag_of).collect(),
            run_loop: Some(RunLoop {
                epoch_commits: self.commits.snapshot(),
                queues: vec![QueueDepth {
                    queue: "read_ahead_bytes",
                    depth: holds().map(|holds| holds.read_ahead.0).sum(),
                    capacity: holds().map(|holds| holds.read_ahead.1).sum(),
                }],
                live_identities: holds().map(|holds| holds.identities as u64).sum(),
                live_minutes: holds().map(|holds| holds.minutes as u64).sum(),
                open_files: holds().map(|holds| holds.open_files).sum(),
            }),
        }
    }
}
