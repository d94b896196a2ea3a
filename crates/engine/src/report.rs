//! What the process tells of itself: ledger, readiness and gauges, kept where requests can read them without waiting.

use crate::clock::Clock;
use crate::first_rejections::{FirstRejection, FirstRejections};
use crate::line_notes::{Countries, LineNotes};
use crate::status::{
    DurationHistogram, Gauges, InputLedger, LEDGER_INPUTS_MAX, LedgerReport, PartitionLedger, Projection, QueueDepth,
    Readiness, RunLoop, Status,
};
use adtally_model::{InputId, InputRow, InputStatus, Ledger, PartitionState, Progress};
use adtally_pipeline::{ClockReading, EpochDraft, Partition, TimeSettings};
use adtally_store::epoch_log::ReadProgress;
use adtally_store::questions::Revision;
use parking_lot::Mutex;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

#[cfg(test)]
mod tests;

/// Notes on the source that are shown.
const SOURCE_NOTES_MAX: usize = 20;

/// Ingest turns many times a second: one turn that takes longer than this hangs, on a mount or on the committer.
const STUCK_AFTER_MS: i64 = 30_000;

/// An input whose watermark lies this far behind the newest click is named as what holds minutes open.
const HOLDS_BACK_MS: i64 = 120_000;

#[derive(Default)]
struct Committed {
    progress: Progress,
    inputs: BTreeMap<InputId, Arc<InputRow>>,
}

#[derive(Default)]
struct Live {
    clock: Option<ClockReading>,
    held: (usize, usize),
    open_files: u64,
    /// Bytes, and how many there may be.
    read_ahead: (u64, u64),
    store_failing: Option<String>,
    lake_failing: Option<String>,
    upkeep_failing: Option<String>,
    source_notes: Vec<String>,
    over_capacity: bool,
    lake_epoch: u64,
    starting: bool,
    recovering: bool,
    /// How far reading the epoch log is, once that has begun.
    records: Option<Arc<ReadProgress>>,
    /// When ingest began its last turn, by monotonic time; none while it does not read.
    turned_ms: Option<i64>,
}

/// The report, shared between the threads.
pub struct Report {
    settings: TimeSettings,
    clock: Arc<dyn Clock>,
    committed: Mutex<Committed>,
    live: Mutex<Live>,
    commits: DurationHistogram,
    rejections: Mutex<FirstRejections>,
    lines: Mutex<LineNotes>,
}

impl Report {
    /// Starts from a recovered state.
    pub fn new(settings: TimeSettings, state: &PartitionState, clock: Arc<dyn Clock>) -> Arc<Report> {
        let report = Report::recovers(settings, clock);
        report.recovered(state);
        report
    }

    /// Starts while the state is still to be recovered: nothing is known yet.
    pub fn recovers(settings: TimeSettings, clock: Arc<dyn Clock>) -> Arc<Report> {
        Arc::new(Report {
            settings,
            clock,
            committed: Mutex::default(),
            live: Mutex::new(Live { starting: true, recovering: true, ..Live::default() }),
            commits: DurationHistogram::default(),
            rejections: Mutex::new(FirstRejections::default()),
            lines: Mutex::default(),
        })
    }

    /// Recovery reads the epoch log.
    pub fn reads(&self, records: Arc<ReadProgress>) {
        self.live.lock().records = Some(records);
    }

    /// The state is recovered.
    pub fn recovered(&self, state: &PartitionState) {
        *self.committed.lock() = Committed { progress: state.progress, inputs: state.inputs.clone() };
        self.live.lock().recovering = false;
    }

    /// An epoch is committed, whose clicks say this of their countries.
    pub fn committed(&self, draft: &EpochDraft, countries: &[Countries], took_ms: i64) {
        self.commits.observe(Duration::from_millis(took_ms.max(0) as u64));
        self.rejections.lock().observe(&draft.dead_letters);
        let mut committed = self.committed.lock();
        let (before, total, now_ms) = (&committed.inputs, &committed.progress.ledger, self.clock.monotonic_ms());
        for warning in self.lines.lock().observe(draft, countries, before, total, now_ms) {
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

    /// Reading has begun.
    pub fn started(&self) {
        self.live.lock().starting = false;
    }

    /// Ingest begins a turn, by monotonic time.
    pub fn turned(&self, monotonic_ms: i64) {
        self.live.lock().turned_ms = Some(monotonic_ms);
    }

    /// Reading is over.
    pub fn ended(&self) {
        self.live.lock().turned_ms = None;
    }

    /// What the clocks say.
    pub fn clock(&self, now: &ClockReading) {
        self.live.lock().clock = Some(*now);
    }

    /// What ingest reads: files held open, and bytes of text read ahead of what they may be.
    pub fn reading(&self, open_files: usize, held_bytes: usize, held_bytes_max: usize) {
        let mut live = self.live.lock();
        live.open_files = open_files as u64;
        live.read_ahead = (held_bytes as u64, held_bytes_max as u64);
    }

    /// Where ingest stands.
    pub fn ingest(&self, partition: &Partition) {
        let mut live = self.live.lock();
        live.held = partition.held();
        live.over_capacity = live.held.0 > self.settings.dedup_capacity;
    }

    /// The lake holds everything up to an epoch.
    pub fn lake_epoch(&self, epoch: u64) {
        self.live.lock().lake_epoch = epoch;
    }

    /// What is wrong with inputs at the moment and stops nothing.
    pub fn note_source(&self, mut notes: Vec<String>) {
        notes.truncate(SOURCE_NOTES_MAX);
        self.live.lock().source_notes = notes;
    }

    /// The store refuses epochs.
    pub fn store_failing(&self, problem: String) {
        self.live.lock().store_failing = Some(problem);
    }

    /// The store takes epochs.
    pub fn store_mended(&self) {
        self.live.lock().store_failing = None;
    }

    /// The lake cannot be brought up to date.
    pub fn lake_failing(&self, problem: String) {
        self.live.lock().lake_failing = Some(problem);
    }

    /// The lake is up to date.
    pub fn lake_mended(&self) {
        self.live.lock().lake_failing = None;
    }

    /// What is wrong with upkeep of the lake; nothing when its last round went well.
    pub fn upkeep_failing(&self, problem: Option<String>) {
        self.live.lock().upkeep_failing = problem;
    }

    /// The first line of each reason that this process rejected.
    pub fn first_rejections(&self) -> Vec<FirstRejection> {
        self.rejections.lock().list()
    }

    /// Event time of the newest click committed.
    pub fn newest_click_ms(&self) -> Option<i64> {
        self.committed.lock().progress.newest_click_ms
    }

    /// The partition's lines by verdict, as committed.
    pub fn total(&self) -> Ledger {
        self.committed.lock().progress.ledger
    }

    fn watermark_of(&self, row: &InputRow) -> Option<i64> {
        row.time.largest_ms.map(|largest| largest - self.settings.out_of_orderness_ms)
    }

    /// Sentences about inputs: gaps, released ones, and the one that holds minutes open.
    fn input_notes(&self, committed: &Committed, notes: &mut Vec<String>) {
        let gap = committed.progress.ledger.gap_bytes;
        if gap > 0 {
            let of: Vec<&str> = committed
                .inputs
                .values()
                .filter(|row| row.ledger.gap_bytes > 0)
                .take(5)
                .map(|row| &*row.name)
                .collect();
            notes.push(format!("{gap} bytes could never be read (gap), for example of {}", of.join(", ")));
        }
        for row in committed.inputs.values().filter(|row| row.status == InputStatus::Released).take(5) {
            notes.push(format!(
                "input {} is so far behind that minutes no longer wait for it (dedup_capacity)",
                row.name
            ));
        }
        for row in committed.inputs.values().filter(|row| row.status == InputStatus::Unreadable).take(5) {
            notes.push(format!(
                "input {} could not be read for idle_timeout: minutes no longer wait for it; reading is tried again",
                row.name
            ));
        }
        // One behind the final frontier holds nothing.
        let holds = |row: &&InputRow| {
            let behind = self
                .watermark_of(row)
                .zip(committed.progress.frontiers.final_.get())
                .is_some_and(|(own, final_)| own < final_);
            row.status == InputStatus::Holding && !behind
        };
        let holding = committed.inputs.values().map(Arc::as_ref).filter(holds);
        let least = holding.min_by_key(|row| self.watermark_of(row));
        if let (Some(row), Some(newest)) = (least, committed.progress.newest_click_ms) {
            match self.watermark_of(row) {
                None => notes.push(format!("input {} has no watermark yet and holds minutes open", row.name)),
                Some(watermark) if newest - watermark > HOLDS_BACK_MS => notes.push(format!(
                    "input {} holds minutes open: its watermark is {} s behind the newest click",
                    row.name,
                    (newest - watermark) / 1_000
                )),
                Some(_) => {}
            }
        }
    }
}

/// A row that sums inputs.
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
    /// The inputs, at most [`LEDGER_INPUTS_MAX`] rows that add up to the partition, and how many of them are not listed.
    /// Where there are too many, those are listed that have not ended, then the newest.
    fn input_rows(&self, committed: &Committed) -> (Vec<InputLedger>, u64) {
        let mut listed: Vec<&InputRow> = committed.inputs.values().map(Arc::as_ref).collect();
        let mut rows = Vec::new();
        if committed.progress.gone != Ledger::default() {
            rows.push(sum_row("(gone)", committed.progress.gone));
        }
        let mut others = Vec::new();
        if rows.len() + listed.len() > LEDGER_INPUTS_MAX {
            listed.sort_by_key(|row| (row.status == InputStatus::Ended, Reverse(row.id)));
            others = listed.split_off(LEDGER_INPUTS_MAX - 1 - rows.len());
        }
        rows.extend(listed.into_iter().map(|row| InputLedger {
            name: row.name.to_string(),
            origin: row.origin.to_string(),
            status: row.status,
            position: row.position.to,
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
    /// How far recovery is, until it is over.
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
        let (inputs, inputs_left_off) = self.input_rows(&committed);
        LedgerReport {
            partitions: vec![PartitionLedger {
                partition: committed.progress.partition,
                epoch: committed.progress.number,
                ledger: committed.progress.ledger,
                watermark_ms: committed.progress.frontiers.watermark.get(),
                closed_ms: committed.progress.frontiers.closed.get(),
                final_ms: committed.progress.frontiers.final_.get(),
            }],
            inputs,
            inputs_left_off,
            revision: Revision::of([&committed.progress]).if_any(),
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
        problems.extend(live.store_failing.clone());
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
        if live.over_capacity {
            notes.push(format!("{} identities are in memory, more than dedup_capacity", live.held.0));
        }
        notes.extend(live.upkeep_failing.clone());
        self.input_notes(&committed, &mut notes);
        notes.extend(self.lines.lock().notes(self.clock.monotonic_ms()));
        notes.extend(live.source_notes.iter().cloned());
        Readiness { problems, notes }
    }

    fn gauges(&self) -> Gauges {
        let committed = self.committed.lock();
        let live = self.live.lock();
        let lag = |time: Option<i64>| Some(live.clock?.wall_ms - time?);
        Gauges {
            lines: committed.progress.ledger,
            epochs_committed: committed.progress.number,
            watermark_lag_ms: lag(committed.progress.frontiers.watermark.get()),
            closed_lag_ms: lag(committed.progress.frontiers.closed.get()),
            projections: vec![Projection {
                store: "lake",
                epochs_behind: committed.progress.number.saturating_sub(live.lake_epoch),
            }],
            run_loop: Some(RunLoop {
                epoch_commits: self.commits.snapshot(),
                queues: vec![QueueDepth {
                    queue: "read_ahead_bytes",
                    depth: live.read_ahead.0,
                    capacity: live.read_ahead.1,
                }],
                live_identities: live.held.0 as u64,
                live_minutes: live.held.1 as u64,
                open_files: live.open_files,
            }),
        }
    }
}
