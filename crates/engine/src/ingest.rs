//! Ingest: tail -> decode -> judge -> hand epochs over. A state machine turned by its caller.

mod epoch_end;
mod reading;
mod settings;
#[cfg(test)]
mod tests;

pub use settings::{Bounds, IngestSettings};

use crate::clock::Clock;
use crate::decode_pool::{DecodePool, Decoding};
use crate::report::Report;
use adtally_model::{InputId, InputRow, Position, Result};
use adtally_pipeline::{ClockGuard, ClockReading, EpochDraft, Partition, PendingBatch, RunEnd, Stopped};
use adtally_source::{Discovery, InputFacts, ReadOutcome, Tailer, Unopened};
use adtally_store::hot_counts::HotCounts;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// Batches read ahead of one input while others have a backlog as well.
const READ_AHEAD: usize = 2;

/// Batches read ahead in all, one for each input with a backlog apart: keeps all decoders busy on a single file.
const READ_AHEAD_TOTAL: usize = 8;

/// Text read ahead in all; shared evenly among the inputs with a backlog.
const READ_AHEAD_BYTES: usize = 16 << 20;

/// Inputs with a backlog from which on epochs are a third as long: what is held of each input leaves less for clicks.
const CROWD: usize = 1_024;

/// Clicks judged before other inputs get their turn.
const JUDGE_LINES: usize = 1 << 16;

/// While there is a backlog, passing a minute's end ends an epoch only when the epoch is this old: a sparse file passes
/// thousands of minutes a second.
const BACKLOG_EPOCH_MS: i64 = 1_000;

/// How long to wait before asking inputs at their end again.
const POLL_MS: i64 = 25;

/// How often, at most, an epoch is ended only because every input waits.
const STALL_EPOCH_MS: i64 = 200;

/// Where epochs go.
pub trait EpochSink {
    /// Whether the next epoch would be taken without waiting.
    fn is_ready(&self) -> bool;

    /// Takes an epoch to be committed; waits while the one before is not.
    ///
    /// # Errors
    /// What stopped the committer.
    fn submit(&mut self, draft: EpochDraft) -> Result<()>;
}

/// What a turn did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// Something: turn again.
    Worked,
    /// Nothing: wait a moment.
    Nothing,
    /// The bounded run is over, its last epoch handed over.
    Finished,
}

/// One input on its way in.
#[derive(Default)]
struct Lane {
    /// Bytes of text of each block in `decoding`, and of `front` before them.
    sizes: VecDeque<usize>,
    decoding: VecDeque<Decoding>,
    front: Option<Box<PendingBatch>>,
    /// When it was last found to have nothing for the moment, by monotonic time.
    asked_ms: Option<i64>,
    /// Whether that was its end, still to be noted once what was read before is judged.
    at_end: bool,
    /// Its front batch waits for other inputs or for the end of the epoch.
    waits: bool,
    /// The source will deliver no more.
    ended: bool,
    /// A bounded run leaves the rest of it to the next.
    left: bool,
}

impl Lane {
    fn is_drained(&self) -> bool {
        self.decoding.is_empty() && self.front.is_none()
    }

    fn depth(&self) -> usize {
        self.decoding.len() + usize::from(self.front.is_some())
    }

    /// Bytes of text on their way.
    fn held_bytes(&self) -> usize {
        self.sizes.iter().sum()
    }

    /// What was read ahead is read again by a later run.
    fn drop_batches(&mut self) {
        self.decoding.clear();
        self.sizes.clear();
        self.front = None;
    }

    /// A lane of an input that was at its end and may have more now.
    fn woken() -> Lane {
        Lane { asked_ms: Some(i64::MIN / 2), ..Lane::default() }
    }
}

/// The state machine.
pub struct Ingest<S> {
    settings: IngestSettings,
    clock: Arc<dyn Clock>,
    guard: ClockGuard,
    tailer: Tailer,
    pool: DecodePool,
    partition: Partition,
    lanes: BTreeMap<InputId, Lane>,
    /// Inputs at their end that have no lane until their source tells of something new.
    quiet: BTreeSet<InputId>,
    /// Inputs of which a bounded run leaves lines to the next: whatever their source tells, they have not ended.
    left: BTreeSet<InputId>,
    hot: Arc<HotCounts>,
    report: Arc<Report>,
    sink: S,
    number: u64,
    discovered: Vec<Discovery>,
    unread: Vec<String>,
    discovered_at_ms: Option<i64>,
    epoch_began_ms: i64,
    stalled_at_ms: i64,
}

/// The parts that ingest is made of.
pub struct Parts {
    /// What it needs to know.
    pub settings: IngestSettings,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// The source.
    pub tailer: Tailer,
    /// The decoders.
    pub pool: DecodePool,
    /// The partition, recovered.
    pub partition: Partition,
    /// The guarded clock of the last epoch.
    pub last_clock_ms: i64,
    /// The number of the first epoch to be made.
    pub number: u64,
    /// Where uncommitted clicks are shown.
    pub hot: Arc<HotCounts>,
    /// What the process tells of itself.
    pub report: Arc<Report>,
}

impl<S: EpochSink> Ingest<S> {
    /// Ready to turn; epochs go to the sink.
    pub fn new(parts: Parts, sink: S) -> Self {
        let monotonic = parts.clock.monotonic_ms();
        let mut partition = parts.partition;
        if parts.settings.run_end != RunEnd::GoesOn {
            partition.set_bounded();
        }
        Ingest {
            guard: ClockGuard::new(parts.clock.wall_ms(), monotonic, parts.last_clock_ms),
            settings: parts.settings,
            clock: parts.clock,
            tailer: parts.tailer,
            pool: parts.pool,
            partition,
            lanes: BTreeMap::new(),
            quiet: BTreeSet::new(),
            left: BTreeSet::new(),
            hot: parts.hot,
            report: parts.report,
            sink,
            number: parts.number,
            discovered: Vec::new(),
            unread: Vec::new(),
            discovered_at_ms: None,
            epoch_began_ms: monotonic,
            stalled_at_ms: monotonic,
        }
    }

    /// The partition, for reports.
    pub fn partition(&self) -> &Partition {
        &self.partition
    }

    /// The source, for reports.
    pub fn tailer(&mut self) -> &mut Tailer {
        &mut self.tailer
    }

    /// Lets the report say how much is read ahead, and how many files are open for it.
    pub fn report_reading(&self) {
        let held = self.lanes.values().map(Lane::held_bytes).sum();
        self.report.reading(self.tailer.open_files(), held, self.held_max());
    }

    /// Gives the sink back, and all else up.
    pub fn into_sink(self) -> S {
        let crowded = self.partition.inputs().iter().nth(CROWD).is_some();
        let sink = self.sink;
        drop(self.partition);
        if crowded {
            // What comes now needs memory in other pieces than identities did.
            adtally_allocator::give_back_freed_memory();
        }
        sink
    }

    /// What a bounded run left unread because it could not be read, and why.
    pub fn unread(&self) -> &[String] {
        &self.unread
    }

    /// Waits a moment for decoders or for lines to come.
    pub fn wait(&self) {
        self.pool.wait(Duration::from_millis(5));
    }

    fn now(&mut self) -> (ClockReading, i64) {
        let monotonic = self.clock.monotonic_ms();
        (self.guard.read(self.clock.wall_ms(), monotonic), monotonic)
    }

    /// Does some work: looks for files, reads, judges, ends an epoch, each as far as it is due.
    ///
    /// # Errors
    /// What must stop the process; everything else is retried or reported.
    pub fn turn(&mut self) -> Result<Turn> {
        let (now, monotonic) = self.now();
        self.report.clock(&now);
        self.partition.observe(&now);
        self.report.turned(monotonic);
        self.discover(monotonic)?;
        let mut worked = self.read(monotonic)?;
        worked |= self.judge()?;
        // Time has passed: files may be slow, and a process may be suspended.
        let (now, monotonic) = self.now();
        self.note_ends(&now, monotonic);
        self.settle_ended();
        self.settle_left(&now);
        if self.is_over(monotonic) {
            // What the last reads found out of lost bytes comes with one more look.
            let found = self.tailer.discover_all(monotonic)?;
            self.discovered.extend(found);
            if self.is_over(monotonic) {
                self.unread.extend(self.tailer.unopened().map(|unopened| unopened.reason.clone()));
                let all_is_read = self.unread.is_empty();
                // What was left unread must not find its minutes final.
                self.end_epoch(if all_is_read { self.settings.run_end } else { RunEnd::Close })?;
                self.note_warnings();
                return Ok(Turn::Finished);
            }
        }
        worked |= self.end_epoch_if_due(monotonic, worked)?;
        Ok(if worked { Turn::Worked } else { Turn::Nothing })
    }

    /// Stops in good order: hands over the epoch begun.
    ///
    /// # Errors
    /// What stopped the committer.
    pub fn stop(&mut self) -> Result<()> {
        self.end_epoch(RunEnd::GoesOn)
    }

    fn discover(&mut self, monotonic: i64) -> Result<()> {
        let due = self.discovered_at_ms.is_none_or(|at| monotonic - at >= self.settings.discovery_interval_ms);
        if due {
            self.discovered_at_ms = Some(monotonic);
            let found = self.tailer.discover(monotonic)?;
            self.discovered.extend(found);
            self.note_warnings();
            for id in self.tailer.take_woken() {
                if self.quiet.remove(&id) {
                    self.lanes.insert(id, Lane::woken());
                }
            }
            let (now, _) = self.now();
            self.partition.note_watched(&now);
            self.note_unopened(&now, monotonic);
        }
        Ok(())
    }

    /// Whether the run ends with its inputs.
    fn is_bounded(&self) -> bool {
        self.settings.run_end != RunEnd::GoesOn
    }

    /// Lets what could not be looked at hold the watermark: a live run for `idle_timeout`, a bounded one to its end.
    fn note_unopened(&mut self, now: &ClockReading, monotonic: i64) {
        for &id in self.tailer.unreachable() {
            self.partition.note_unreadable(id, now);
        }
        let is_recent = |unopened: &Unopened| monotonic - unopened.since_ms < self.partition.idle_timeout_ms();
        let holds = self.tailer.unopened().any(|unopened| self.is_bounded() || is_recent(unopened));
        self.partition.note_unopened(holds);
    }

    /// Whether a bounded run has given up what it could not look at.
    fn unopened_are_given_up(&self, monotonic: i64) -> bool {
        let waited = |unopened: &Unopened| monotonic - unopened.since_ms >= self.partition.idle_timeout_ms();
        self.tailer.unopened().all(|unopened| unopened.is_lasting || waited(unopened))
    }

    /// Logs what is newly wrong with inputs, and lets `/readyz` and the end of a run show what still is.
    fn note_warnings(&mut self) {
        for warning in self.tailer.new_warnings() {
            tracing::warn!("{warning}");
        }
        self.report.note_source(self.tailer.warnings());
    }

    /// Judges batches, the input with the least watermark first, until the epoch is full or all wait.
    fn judge(&mut self) -> Result<bool> {
        let mut order: Vec<(Option<i64>, InputId)> = Vec::new();
        for (&id, lane) in &mut self.lanes {
            if lane.front.is_none()
                && let Some(decoding) = lane.decoding.front()
                && let Some(batch) = decoding.poll()?
            {
                lane.decoding.pop_front();
                lane.front = Some(Box::new(PendingBatch::new(batch)));
            }
            if lane.front.is_some() {
                order.push((self.partition.watermark_of(id), id));
            }
        }
        order.sort_unstable();
        // After the lines were read: else those written meanwhile could be ahead of the clock.
        let (now, _) = self.now();
        let mut worked = false;
        for (_, id) in order {
            let (lines, bytes) = self.partition.epoch_size();
            let room = self.epoch_lines_max().saturating_sub(lines);
            let many_pieces = self.partition.epoch_pieces() >= self.settings.bounds.epoch_pieces_max;
            if room == 0 || bytes >= self.settings.epoch_bytes_max || many_pieces {
                break;
            }
            let Some(lane) = self.lanes.get_mut(&id) else { continue };
            let Some(batch) = &mut lane.front else { continue };
            let judged = self.partition.judge(batch, &now, JUDGE_LINES.min(room as usize))?;
            lane.waits = judged.stopped == Stopped::Aligned;
            if judged.stopped == Stopped::BatchEnd
                && let Some(batch) = lane.front.take()
            {
                lane.sizes.pop_front();
                self.tailer.recycle(batch.into_text());
            }
            worked |= judged.lines > 0 || judged.stopped == Stopped::BatchEnd;
            // A bounded run answers no questions.
            if let Some(counted) = judged.counted.filter(|_| self.settings.run_end == RunEnd::GoesOn) {
                self.hot.open(self.number, counted);
            }
        }
        Ok(worked)
    }

    /// Notes the inputs that were found at their end and of which everything is judged: also those that are written to
    /// all the time, between one line and the next.
    fn note_ends(&mut self, now: &ClockReading, monotonic: i64) {
        let mut quiet = Vec::new();
        for (&id, lane) in &mut self.lanes {
            if lane.at_end && lane.is_drained() {
                lane.at_end = false;
                self.partition.note_at_end(id, self.tailer.modified_ms(id), now);
                if !lane.ended && self.tailer.is_quiet(id, monotonic) {
                    quiet.push(id);
                }
            }
        }
        for id in quiet {
            self.partition.note_quiet(id);
            self.tailer.rest(id);
            self.lanes.remove(&id);
            self.quiet.insert(id);
        }
    }

    /// Inputs that the source is done with, and of which everything is judged, have ended, unless the source found more
    /// meanwhile.
    fn settle_ended(&mut self) {
        let done: Vec<InputId> = self
            .lanes
            .iter()
            .filter(|(_, lane)| lane.ended && !lane.left && lane.is_drained())
            .map(|(&id, _)| id)
            .collect();
        for id in done {
            let resumes = |found: &Discovery| matches!(found, Discovery::Resumed { input } if *input == id);
            if self.discovered.iter().any(resumes) {
                continue;
            }
            self.lanes.remove(&id);
            self.discovered.push(Discovery::Ended { input: id });
        }
    }

    /// Lets go of the inputs that a bounded run leaves to the next. Without one of them no frontier moves: where as much is
    /// held as may be, the others are left as well.
    fn settle_left(&mut self, now: &ClockReading) {
        let waits = |(id, lane): (&InputId, &Lane)| {
            lane.waits || (lane.is_drained() && (lane.left || self.partition.must_wait(*id, now)))
        };
        if self.is_bounded() && self.partition.is_stuck() && self.lanes.iter().all(waits) {
            for (id, lane) in &mut self.lanes {
                if !std::mem::replace(&mut lane.left, true) {
                    let name = self.partition.inputs().get(*id).map_or("", |input| &*input.row.name);
                    self.unread.push(format!("{name}: not read further: too much would be held without the others"));
                }
                lane.drop_batches();
            }
        }
        self.left.extend(self.lanes.extract_if(.., |_, lane| lane.left && lane.is_drained()).map(|(id, _)| id));
    }

    /// Whether a bounded run has read everything.
    fn is_over(&self, monotonic: i64) -> bool {
        self.is_bounded()
            && self.lanes.is_empty()
            && self.unopened_are_given_up(monotonic)
            && self.discovered_at_ms.is_some()
            && self
                .discovered
                .iter()
                .all(|discovery| matches!(discovery, Discovery::Ended { .. } | Discovery::Gap { .. }))
    }
}
