//! Reads logs, stamps and packs their lines, and moves their positions. A state machine that its caller turns.

mod journaling;
pub(crate) mod packing;

use crate::input::{Buffer, Input};
use crate::journal::Journal;
use crate::produce::{Outgoing, Produce};
use crate::settings::AgentSettings;
use adtally_model::{
    DecodedBatch, Error, InputId, InputRow, InputStatus, Ledger, Minute, PartitionState, Position, Result, Verdict,
};
use adtally_pipeline::{ClockGuard, TimeSettings, watermark};
use adtally_source::{Decoder, Discovery, Partitioner, ReadOutcome, RoutedLine, RoutedLines, Source, SourceBlock};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Most bytes of lines that are buffered or not acknowledged. Beyond it nothing is read.
const HELD_BYTES_MAX: usize = 48 << 20;

/// Bytes that a record takes beside its lines until it is acknowledged, about.
const RECORD_BYTES: usize = 512;

/// How often a log at its end is asked again, in milliseconds.
const POLL_MS: i64 = 20;

/// Most logs at their end to ask in a turn.
const TURN_ASKED_MAX: usize = 4_096;

/// Most bytes to read in a turn.
const TURN_BYTES_MAX: usize = 4 << 20;

/// The clocks, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// The wall clock, since the Unix epoch.
    pub wall_ms: i64,
    /// Monotonic time.
    pub monotonic_ms: i64,
}

/// The result of a turn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turn {
    /// Did some work: turn again.
    Worked,
    /// Did nothing: wait briefly.
    Nothing,
    /// A bounded run has read everything, and all of it is safe.
    Finished,
}

/// The dependencies of an agent.
pub struct AgentParts<P> {
    /// How lines are packed.
    pub settings: AgentSettings,
    /// The rules of event time, as in the workers.
    pub time: TimeSettings,
    /// How often to look for files, in milliseconds.
    pub discovery_interval_ms: i64,
    /// Whether the run ends with the logs.
    pub is_bounded: bool,
    /// The agent's name: the names of its logs begin with it.
    pub name: String,
    /// The logs.
    pub source: Box<dyn Source>,
    /// Decodes lines. Its identities are not used.
    pub decoder: Decoder,
    /// The partitions of the topic.
    pub partitions: u32,
    /// How the partition of an ad is chosen.
    pub partitioner: Partitioner,
    /// Kafka.
    pub producer: P,
    /// How far the logs are safe.
    pub journal: Journal,
    /// The state in the journal.
    pub state: PartitionState,
    /// The clocks now.
    pub now: Now,
}

/// A record that is not acknowledged yet.
#[derive(Clone, Copy, Debug)]
struct Sent {
    input: InputId,
    first: u64,
    bytes: usize,
}

/// An agent.
pub struct Agent<P> {
    settings: AgentSettings,
    time: TimeSettings,
    discovery_interval_ms: i64,
    is_bounded: bool,
    name: String,
    source: Box<dyn Source>,
    decoder: Decoder,
    partitions: u32,
    partitioner: Partitioner,
    producer: P,
    journal: Journal,
    guard: ClockGuard,
    inputs: BTreeMap<InputId, Input>,
    sent: HashMap<u64, Sent>,
    next_tag: u64,
    /// Records that the producer had no room for, in order.
    outbox: std::collections::VecDeque<Outgoing>,
    /// Bytes in buffers, in the outbox, and not acknowledged.
    held_bytes: usize,
    discovered_at_ms: Option<i64>,
    journaled_at_ms: i64,
    /// Whether anything has changed since the last journal entry.
    is_changed: bool,
    lines: u64,
    /// What a bounded run could not read, with the reasons.
    unread: Vec<String>,
}

impl<P: Produce> Agent<P> {
    /// An agent that continues from the state in its journal.
    pub fn new(parts: AgentParts<P>) -> Agent<P> {
        let AgentParts { settings, time, discovery_interval_ms, is_bounded, name, source, decoder, .. } = parts;
        let inputs = parts.state.inputs.values().map(|row| (row.id, Input::new(Arc::clone(row), &name)));
        let mut inputs: BTreeMap<InputId, Input> = inputs.collect();
        // The source says which of them go on.
        inputs.values_mut().for_each(|input| input.ended = true);
        Agent {
            settings,
            time,
            discovery_interval_ms,
            is_bounded,
            name,
            source,
            decoder,
            partitions: parts.partitions,
            partitioner: parts.partitioner,
            producer: parts.producer,
            journal: parts.journal,
            guard: ClockGuard::new(parts.now.wall_ms, parts.now.monotonic_ms, parts.state.progress.clock_ms),
            inputs,
            sent: HashMap::new(),
            next_tag: 1,
            outbox: std::collections::VecDeque::new(),
            held_bytes: 0,
            discovered_at_ms: None,
            journaled_at_ms: parts.now.monotonic_ms,
            is_changed: false,
            lines: 0,
            unread: Vec::new(),
        }
    }

    /// What a bounded run could not read, with the reasons.
    pub fn unread(&self) -> &[String] {
        &self.unread
    }

    /// Lines that were read since the start.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// All lines that are safe, and bytes that could never be read.
    pub fn ledger(&self) -> Ledger {
        let mut sum = Ledger::default();
        self.inputs.values().for_each(|input| sum += &input.row.ledger);
        sum
    }

    /// Present problems, as messages for people.
    pub fn problems(&self) -> Vec<String> {
        let waits = (self.held_bytes >= HELD_BYTES_MAX).then(|| "reading waits until Kafka accepts records".to_owned());
        let failure = self.producer.failure().map(|why| format!("Kafka cannot be reached: {why}"));
        self.source.warnings().into_iter().chain(failure).chain(waits).collect()
    }

    /// Does the work that is due.
    ///
    /// # Errors
    /// The error after which the agent must begin again from its journal, or stop.
    pub fn turn(&mut self, now: Now) -> Result<Turn> {
        let mut worked = self.take_outcomes()?;
        self.discover(now)?;
        worked |= self.send_outbox()?;
        worked |= self.read(now)?;
        self.send_due(now)?;
        self.tell_gaps()?;
        self.tell_partitions(now)?;
        self.write_if_due(now)?;
        if self.is_bounded && self.discovered_at_ms.is_some() && self.is_over() {
            let found = self.source.discover_all(now.monotonic_ms)?;
            self.apply(found);
            let waited = |since_ms: i64| now.monotonic_ms - since_ms >= self.time.idle_timeout_ms;
            let unopened = self.source.unopened();
            if self.is_over() && unopened.iter().all(|unopened| unopened.is_lasting || waited(unopened.since_ms)) {
                self.unread = unopened.into_iter().map(|unopened| unopened.reason.clone()).collect();
                self.write(now)?;
                return Ok(Turn::Finished);
            }
        }
        Ok(if worked { Turn::Worked } else { Turn::Nothing })
    }

    /// Sends what is buffered, for an orderly stop. The caller goes on turning until [`Agent::is_safe`].
    ///
    /// # Errors
    /// As [`Agent::turn`].
    pub fn flush(&mut self) -> Result<()> {
        for id in self.inputs.keys().copied().collect::<Vec<_>>() {
            self.end_records(id, |_, _| true)?;
        }
        Ok(())
    }

    /// Takes outcomes and sends what waits, without reading. Returns whether everything that was read is safe.
    ///
    /// # Errors
    /// As [`Agent::turn`].
    pub fn drain(&mut self, now: Now) -> Result<bool> {
        self.take_outcomes()?;
        self.send_outbox()?;
        let is_safe = self.is_safe();
        if is_safe {
            self.write(now)?;
        } else {
            self.write_if_due(now)?;
        }
        Ok(is_safe)
    }

    /// Whether everything that was read is safe.
    pub fn is_safe(&self) -> bool {
        self.sent.is_empty() && self.outbox.is_empty() && self.inputs.values().all(Input::is_safe)
    }

    fn is_over(&self) -> bool {
        self.inputs.values().all(|input| input.ended) && self.is_safe()
    }

    fn take_outcomes(&mut self) -> Result<bool> {
        let mut any = false;
        while let Some(outcome) = self.producer.outcome() {
            any = true;
            outcome.result?;
            let Some(sent) = self.sent.remove(&outcome.tag) else { continue };
            self.held_bytes -= sent.bytes;
            if let Some(input) = self.inputs.get_mut(&sent.input) {
                input.note_acknowledged(sent.first);
                self.is_changed = true;
            }
        }
        Ok(any)
    }

    fn discover(&mut self, now: Now) -> Result<()> {
        let is_due = self.discovered_at_ms.is_none_or(|at_ms| now.monotonic_ms - at_ms >= self.discovery_interval_ms);
        if !is_due {
            return Ok(());
        }
        self.discovered_at_ms = Some(now.monotonic_ms);
        let found = self.source.discover(now.monotonic_ms)?;
        self.apply(found);
        for warning in self.source.new_warnings() {
            tracing::warn!("{warning}");
        }
        for lane in self.source.take_woken() {
            if let Some(input) = self.inputs.get_mut(&InputId(lane.0)) {
                input.asked_ms = None;
            }
        }
        Ok(())
    }

    fn apply(&mut self, discoveries: Vec<Discovery>) {
        for discovery in discoveries {
            self.is_changed = true;
            match discovery {
                Discovery::Found { facts, position } => {
                    tracing::info!(input = &*facts.name, "log found");
                    let row = Arc::new(facts.new_row(position));
                    self.inputs.insert(row.id, Input::new(row, &self.name));
                }
                Discovery::Continued { input } | Discovery::Resumed { input } => {
                    if let Some(input) = self.inputs.get_mut(&input) {
                        (input.ended, input.asked_ms) = (false, None);
                        Arc::make_mut(&mut input.row).status = InputStatus::Holding;
                    }
                }
                Discovery::Renamed { input, name } => {
                    if let Some(input) = self.inputs.get_mut(&input) {
                        Arc::make_mut(&mut input.row).name = name;
                    }
                }
                Discovery::Ended { input } => {
                    if let Some(input) = self.inputs.get_mut(&input) {
                        input.ended = true;
                    }
                }
                // An agent reads no topic.
                Discovery::LostOffsets { .. } => {}
                Discovery::Gap { input, bytes, reason } => {
                    tracing::error!(bytes, reason, "bytes can never be read: a gap");
                    if let Some(input) = self.inputs.get_mut(&input) {
                        input.ledger.gap_bytes += bytes;
                        input.tells_gap = true;
                    }
                    self.source.gap_booked(input);
                }
            }
        }
    }

    /// Reads the logs that are furthest behind, as long as there is room. A log that is more than `alignment` ahead of them
    /// waits, so that workers need not hold the minutes between them.
    fn read(&mut self, now: Now) -> Result<bool> {
        if self.held_bytes >= HELD_BYTES_MAX {
            return Ok(false);
        }
        let is_due = |input: &Input| input.asked_ms.is_none_or(|at_ms| now.monotonic_ms - at_ms >= POLL_MS);
        let readable = self.inputs.iter().filter(|(_, input)| !input.ended && is_due(input));
        let mut order: Vec<(bool, Option<i64>, InputId)> =
            readable.map(|(&id, input)| (input.asked_ms.is_some(), input.time.largest_ms, id)).collect();
        order.sort_unstable();
        let least = order.iter().find(|(at_end, ..)| !at_end).and_then(|&(_, largest_ms, _)| largest_ms);
        let (mut read, mut asked, mut worked) = (0, 0, false);
        for (is_at_end, largest_ms, id) in order {
            let is_ahead = largest_ms.zip(least).is_some_and(|(own, least)| own > least + self.time.alignment_ms);
            if !is_at_end && is_ahead {
                continue;
            }
            if read >= TURN_BYTES_MAX || self.held_bytes >= HELD_BYTES_MAX || asked >= TURN_ASKED_MAX {
                break;
            }
            asked += 1;
            let outcome = self.source.read(id.into(), now.monotonic_ms)?;
            let Some(input) = self.inputs.get_mut(&id) else { continue };
            match outcome {
                ReadOutcome::Block(SourceBlock::Text(block)) => {
                    input.asked_ms = None;
                    read += block.text.len();
                    worked = true;
                    let is_overlong = block.overlong;
                    let header = match &block.format {
                        adtally_source::Format::Csv(header) => Some(header.line()),
                        adtally_source::Format::Ndjson => None,
                    };
                    let batch = self.decoder.decode(block);
                    self.pack(id, &batch, is_overlong, header, now)?;
                    self.source.recycle(batch.text);
                }
                ReadOutcome::Block(SourceBlock::Records(_)) => {
                    return Err(Error::internal("an agent reads files, and got records"));
                }
                ReadOutcome::Busy => worked = true,
                ReadOutcome::AtEnd | ReadOutcome::Waits => input.asked_ms = Some(now.monotonic_ms),
                ReadOutcome::Ended => input.ended = true,
                ReadOutcome::Unreadable(error) => {
                    input.asked_ms = Some(now.monotonic_ms);
                    tracing::debug!("a log cannot be read at the moment: {}", error.report());
                }
            }
        }
        Ok(worked)
    }
}
