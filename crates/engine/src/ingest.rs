//! Ingest: tail -> decode -> judge -> submit epochs. A state machine that its caller turns.

mod epoch_end;
mod lane;
mod reading;
mod settings;
#[cfg(test)]
mod tests;

pub use settings::IngestSettings;

use crate::clock::Clock;
use crate::decode_pool::{DecodePool, Decoding};
use crate::report::Report;
use adtally_model::{InputId, InputRow, InputStatus, LaneId, Result};
use adtally_pipeline::{ClockGuard, ClockReading, EpochDraft, Partition, RunEnd, Stopped};
use adtally_source::{Discovery, ReadOutcome, Source, SourceBlock, Unopened};
use adtally_store::hot_counts::HotCounts;
use lane::Lane;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Batches to read ahead of one input while other inputs have a backlog, too.
const READ_AHEAD: usize = 2;

/// Batches to read ahead in total, beyond one for each input with a backlog: keeps all decoders busy on a single file.
const READ_AHEAD_TOTAL: usize = 8;

/// Bytes of text to read ahead in total, shared evenly among the inputs with a backlog.
const READ_AHEAD_BYTES: usize = 16 << 20;

/// From this many inputs with a backlog, epochs are a third as long: per-input state leaves less room for clicks.
const CROWD: usize = 1_024;

/// Clicks to judge before other inputs get their turn.
const JUDGE_LINES: usize = 1 << 16;

/// While there is a backlog, the end of a minute ends an epoch only if the epoch is at least this old, in milliseconds:
/// a sparse file can pass thousands of minutes a second.
const BACKLOG_EPOCH_MS: i64 = 1_000;

/// Most lines in the first epoch of a process. Later epochs may be as large as all that it has submitted. So a process
/// that lives for a fraction of a second commits something, and a long one soon has large epochs.
const FIRST_EPOCH_LINES: u64 = 1 << 15;

/// How long to wait before asking inputs at their end again, in milliseconds.
const POLL_MS: i64 = 25;

/// Least time between epochs that end only because every input waits, in milliseconds.
const STALL_EPOCH_MS: i64 = 200;

/// The destination of epochs.
pub trait EpochSink {
    /// Whether the sink can take the next epoch without waiting.
    fn is_ready(&self) -> bool;

    /// Submits an epoch to be committed. Waits until the epoch before it is committed.
    ///
    /// # Errors
    /// The error that stopped the committer.
    fn submit(&mut self, draft: EpochDraft) -> Result<()>;

    /// Fails if the committer has stopped, also while there is nothing to submit. Does not wait.
    ///
    /// # Errors
    /// The error that stopped the committer.
    fn check(&mut self) -> Result<()> {
        Ok(())
    }

    /// Ends the sink: no more epochs follow. Returns whether all submitted epochs are committed. Waits for threads.
    ///
    /// # Errors
    /// The error that stopped the committer.
    fn finish(&mut self) -> Result<bool>;
}

/// The result of a turn: of ingest, of a run, and of the workers beside it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// Did some work: turn again.
    Worked,
    /// Did nothing: wait briefly.
    Nothing,
    /// Has ended. For ingest: the bounded run is over, and its last epoch is submitted.
    Finished,
}

/// The state machine.
pub struct Ingest<S> {
    settings: IngestSettings,
    clock: Arc<dyn Clock>,
    guard: ClockGuard,
    source: Box<dyn Source>,
    pool: Arc<DecodePool>,
    partition: Partition,
    lanes: BTreeMap<LaneId, Lane>,
    /// Lanes at their end that are not asked until their source reports news.
    quiet: BTreeSet<LaneId>,
    /// Lanes that a bounded run leaves partly unread. They have not ended, whatever their source reports.
    left: BTreeSet<LaneId>,
    hot: Arc<HotCounts>,
    report: Arc<Report>,
    sink: S,
    number: u64,
    discovered: Vec<Discovery>,
    /// Inputs of a shared lane whose first records were read.
    found: Vec<(InputId, Arc<str>)>,
    unread: Vec<String>,
    discovered_at_ms: Option<i64>,
    epoch_began_ms: i64,
    stalled_at_ms: i64,
    /// Lines in the epochs that this process has submitted.
    lines_submitted: u64,
}

/// The parts of ingest.
pub struct Parts {
    /// The settings.
    pub settings: IngestSettings,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The source of lines.
    pub source: Box<dyn Source>,
    /// The decoders.
    pub pool: Arc<DecodePool>,
    /// The recovered partition.
    pub partition: Partition,
    /// The guarded clock of the last epoch.
    pub last_clock_ms: i64,
    /// The number of the first epoch to build.
    pub number: u64,
    /// The view that shows uncommitted clicks.
    pub hot: Arc<HotCounts>,
    /// The report of the process.
    pub report: Arc<Report>,
}

impl<S: EpochSink> Ingest<S> {
    /// An ingest that submits its epochs to `sink`.
    pub fn new(parts: Parts, sink: S) -> Self {
        let monotonic = parts.clock.monotonic_ms();
        let mut partition = parts.partition;
        if parts.settings.run_end != RunEnd::GoesOn {
            partition.set_bounded();
        }
        let shared_lane = parts.source.shared_lane();
        if shared_lane.is_some() {
            partition.share_lane();
        }
        Ingest {
            guard: ClockGuard::new(parts.clock.wall_ms(), monotonic, parts.last_clock_ms),
            settings: parts.settings,
            clock: parts.clock,
            pool: parts.pool,
            lanes: shared_lane.map(|lane| (lane, Lane::shared())).into_iter().collect(),
            source: parts.source,
            partition,
            quiet: BTreeSet::new(),
            left: BTreeSet::new(),
            hot: parts.hot,
            report: parts.report,
            sink,
            number: parts.number,
            discovered: Vec::new(),
            found: Vec::new(),
            unread: Vec::new(),
            discovered_at_ms: None,
            epoch_began_ms: monotonic,
            stalled_at_ms: monotonic,
            lines_submitted: 0,
        }
    }

    /// Sets the share of memory that the other partitions of the process leave to this one.
    pub fn share(&mut self, settings: IngestSettings, held_elsewhere: usize) {
        self.settings = settings;
        self.partition.set_held_elsewhere(held_elsewhere);
    }

    /// The partition, for reports.
    pub fn partition(&self) -> &Partition {
        &self.partition
    }

    /// The partition, for a simulation that plants bugs.
    #[doc(hidden)]
    pub fn partition_mut(&mut self) -> &mut Partition {
        &mut self.partition
    }

    /// The source, for reports.
    pub fn source(&self) -> &dyn Source {
        self.source.as_ref()
    }

    /// Reports how much text is read ahead, and how many files are open.
    pub fn report_reading(&self) {
        let held = self.lanes.values().map(Lane::held_bytes).sum();
        self.report.reading(self.partition.number(), self.source.open_files(), held, self.held_max());
        if let Some(backlog) = self.source.backlog() {
            self.report.backlog(self.partition.number(), backlog);
        }
    }

    /// Drops everything but the sink, and returns it.
    pub fn into_sink(self) -> S {
        let crowded = self.partition.inputs().iter().nth(CROWD).is_some();
        let sink = self.sink;
        drop(self.partition);
        if crowded {
            // The next steps allocate blocks of other sizes than identities did.
            adtally_allocator::give_back_freed_memory();
        }
        sink
    }

    /// What a bounded run could not read, with the reasons.
    pub fn unread(&self) -> &[String] {
        &self.unread
    }

    fn now(&mut self) -> (ClockReading, i64) {
        let monotonic = self.clock.monotonic_ms();
        (self.guard.read(self.clock.wall_ms(), monotonic), monotonic)
    }

    /// Does the work that is due: discovers files, reads, judges, ends an epoch.
    ///
    /// # Errors
    /// The error that must stop the process. Other errors are retried or reported.
    pub fn turn(&mut self) -> Result<Turn> {
        let (now, monotonic) = self.now();
        self.report.clock(&now);
        self.partition.observe(&now);
        self.report.turned(monotonic);
        self.sink.check()?;
        self.discover(monotonic)?;
        let mut worked = self.read(monotonic)?;
        worked |= self.judge()?;
        // Read the clocks again: files may be slow, and the process may have been suspended.
        let (now, monotonic) = self.now();
        self.note_ends(&now, monotonic);
        self.settle_ended();
        self.settle_left(&now);
        if self.is_over(monotonic) {
            // One more discovery reports the bytes that the last reads found to be lost.
            let found = self.source.discover_all(monotonic)?;
            self.discovered.extend(found);
            if self.is_over(monotonic) {
                self.unread.extend(self.source.unopened().iter().map(|unopened| unopened.reason.clone()));
                let all_is_read = self.unread.is_empty();
                // If anything was left unread, its minutes must not become final.
                self.end_epoch(if all_is_read { self.settings.run_end } else { RunEnd::Close })?;
                self.note_warnings();
                return Ok(Turn::Finished);
            }
        }
        worked |= self.end_epoch_if_due(monotonic, worked)?;
        Ok(if worked { Turn::Worked } else { Turn::Nothing })
    }

    /// Submits the epoch begun, for an orderly stop.
    ///
    /// # Errors
    /// The error that stopped the committer.
    pub fn stop(&mut self) -> Result<()> {
        self.end_epoch(RunEnd::GoesOn)
    }

    fn discover(&mut self, monotonic: i64) -> Result<()> {
        let due = self.discovered_at_ms.is_none_or(|at| monotonic - at >= self.settings.discovery_interval_ms);
        if due {
            self.discovered_at_ms = Some(monotonic);
            let found = self.source.discover(monotonic)?;
            self.discovered.extend(found);
            self.note_warnings();
            for id in self.source.take_woken() {
                if self.quiet.remove(&id) {
                    self.lanes.insert(id, Lane::woken(id));
                }
            }
            let (now, _) = self.now();
            if self.source.shared_lane().is_none() {
                self.partition.note_watched(&now);
            }
            self.note_unopened(&now, monotonic);
        }
        Ok(())
    }

    /// Whether the run ends when its inputs end.
    fn is_bounded(&self) -> bool {
        self.settings.run_end != RunEnd::GoesOn
    }

    /// Lets unreadable paths hold the watermark: in a live run for `idle_timeout`, in a bounded run to its end.
    fn note_unopened(&mut self, now: &ClockReading, monotonic: i64) {
        for &id in self.source.unreachable() {
            self.partition.note_unreadable(id, now);
        }
        let is_recent = |unopened: &Unopened| monotonic - unopened.since_ms < self.partition.idle_timeout_ms();
        let holds = self.source.unopened().into_iter().any(|unopened| self.is_bounded() || is_recent(unopened));
        self.partition.note_unopened(holds);
    }

    /// Whether a bounded run has given up the paths that it could not read.
    fn unopened_are_given_up(&self, monotonic: i64) -> bool {
        let waited = |unopened: &Unopened| monotonic - unopened.since_ms >= self.partition.idle_timeout_ms();
        self.source.unopened().into_iter().all(|unopened| unopened.is_lasting || waited(unopened))
    }

    /// Logs new warnings about inputs, and reports the current ones to `/readyz` and to the end of the run.
    fn note_warnings(&mut self) {
        for warning in self.source.new_warnings() {
            tracing::warn!("{warning}");
        }
        self.report.note_source(self.partition.number(), self.source.warnings());
    }

    /// Judges batches, the lane with the least watermark first, until the epoch is full or all lanes wait.
    fn judge(&mut self) -> Result<bool> {
        let mut order: Vec<(Option<i64>, LaneId)> = Vec::new();
        for (&id, lane) in &mut self.lanes {
            if lane.batches.is_empty()
                && let Some(decoding) = lane.decoding.front()
                && let Some(batches) = decoding.poll()?
            {
                lane.decoding.pop_front();
                lane.batches = batches;
                if lane.batches.is_empty() {
                    lane.sizes.pop_front();
                }
            }
            if !lane.batches.is_empty() {
                order.push((lane.input.and_then(|input| self.partition.watermark_of(input)), id));
            }
        }
        order.sort_unstable();
        // Read the clock after the lines: otherwise lines written meanwhile could be ahead of it.
        let (now, _) = self.now();
        let mut worked = false;
        for (_, id) in order {
            let mut lines_left = JUDGE_LINES;
            while lines_left > 0
                && let Some(room) = self.epoch_room()
            {
                let (lines, is_done) = self.judge_one(id, &now, lines_left.min(room))?;
                worked |= lines > 0 || is_done;
                // In a block of records, the next record follows at once.
                if !is_done {
                    break;
                }
                lines_left = lines_left.saturating_sub(lines.max(1));
            }
        }
        Ok(worked)
    }

    /// How many lines the epoch may still take; `None` when it is full.
    fn epoch_room(&self) -> Option<usize> {
        let (lines, bytes) = self.partition.epoch_size();
        let room = self.epoch_lines_max().saturating_sub(lines);
        let many_pieces = self.partition.epoch_pieces() >= self.settings.bounds.epoch_pieces_max;
        (room > 0 && bytes < self.settings.epoch_bytes_max && !many_pieces).then_some(room as usize)
    }

    /// Judges lines of a lane's first batch. Returns how many, and whether the batch is finished.
    fn judge_one(&mut self, id: LaneId, now: &ClockReading, lines_max: usize) -> Result<(usize, bool)> {
        let Some(lane) = self.lanes.get_mut(&id) else { return Ok((0, false)) };
        let Some(batch) = lane.batches.front_mut() else { return Ok((0, false)) };
        if batch.is_record() {
            let input = batch.input;
            let is_ended = self.partition.inputs().get(input).map(|known| known.row.status == InputStatus::Ended);
            if is_ended == Some(true) && !self.discovered.contains(&Discovery::Resumed { input }) {
                self.discovered.push(Discovery::Resumed { input });
            }
            if is_ended != Some(false) {
                // The input becomes known, or continues, when the epoch ends.
                lane.waits = true;
                return Ok((0, false));
            }
        }
        let judged = self.partition.judge(batch, now, lines_max)?;
        lane.waits = judged.stopped == Stopped::Aligned;
        let is_done = judged.stopped == Stopped::BatchEnd;
        if is_done && let Some(text) = lane.batches.pop_front().and_then(|batch| batch.into_text()) {
            lane.sizes.pop_front();
            self.source.recycle(text);
        }
        // A bounded run answers no queries.
        if let Some(counted) = judged.counted.filter(|_| self.settings.run_end == RunEnd::GoesOn) {
            self.hot.open(self.number, counted);
        }
        Ok((judged.lines, is_done))
    }

    /// Notes the inputs that are at their end and fully judged. This includes inputs that are written to all the time,
    /// between one line and the next.
    fn note_ends(&mut self, now: &ClockReading, monotonic: i64) {
        let mut quiet = Vec::new();
        for (&id, lane) in &mut self.lanes {
            if lane.at_end && lane.is_drained() {
                lane.at_end = false;
                let Some(input) = lane.input else {
                    self.partition.note_shared_lane(true, now);
                    continue;
                };
                self.partition.note_at_end(input, self.source.modified_ms(input), now);
                if !lane.ended && self.source.is_quiet(id, monotonic) {
                    quiet.push((id, input));
                }
            }
        }
        for (id, input) in quiet {
            self.partition.note_quiet(input);
            self.source.rest(id);
            self.lanes.remove(&id);
            self.quiet.insert(id);
        }
    }

    /// Ends the inputs of lanes that the source has finished and that are fully judged, unless the source has found
    /// more in the meantime.
    fn settle_ended(&mut self) {
        let is_done = |(_, lane): &(&LaneId, &Lane)| lane.ended && !lane.left && lane.is_drained();
        let done: Vec<(LaneId, Option<InputId>)> =
            self.lanes.iter().filter(is_done).map(|(&id, lane)| (id, lane.input)).collect();
        for (id, input) in done {
            let Some(input) = input else {
                let active = self.partition.inputs().iter().filter(|input| input.row.status != InputStatus::Ended);
                self.discovered.extend(active.map(|input| Discovery::Ended { input: input.row.id }));
                self.lanes.remove(&id);
                continue;
            };
            let resumes =
                |found: &Discovery| matches!(found, Discovery::Resumed { input: resumed } if *resumed == input);
            if self.discovered.iter().any(resumes) {
                continue;
            }
            self.lanes.remove(&id);
            self.discovered.push(Discovery::Ended { input });
        }
    }

    /// Releases the inputs that a bounded run leaves to the next run. Frontiers cannot move without these inputs: once
    /// the memory bound is reached, the other inputs are left as well.
    fn settle_left(&mut self, now: &ClockReading) {
        let waits = |lane: &Lane| {
            let must_wait = |input| self.partition.must_wait(input, now);
            lane.waits || (lane.is_drained() && (lane.left || lane.input.is_some_and(must_wait)))
        };
        if self.is_bounded() && self.partition.is_stuck() && self.lanes.values().all(waits) {
            for lane in self.lanes.values_mut() {
                if !std::mem::replace(&mut lane.left, true) {
                    let input = lane.input.and_then(|input| self.partition.inputs().get(input));
                    let name = input.map_or_else(
                        || format!("partition {}", self.partition.number()),
                        |input| input.row.name.to_string(),
                    );
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
            && self.discovered.iter().all(|discovery| {
                matches!(discovery, Discovery::Ended { .. } | Discovery::Gap { .. } | Discovery::LostOffsets { .. })
            })
    }
}
