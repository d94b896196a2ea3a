//! Reads logs, stamps and packs their lines, and moves their positions. A state machine that its caller turns.

use crate::input::{Buffer, Input};
use crate::journal::Journal;
use crate::produce::{Outgoing, Produce};
use crate::settings::AgentSettings;
use adtally_model::{
    DecodedBatch, Error, FileLog, InputId, InputLog, InputRow, InputStatus, Ledger, Minute, PartitionState, Position,
    Result, Verdict,
};
use adtally_pipeline::{ClockGuard, TimeSettings, watermark};
use adtally_source::{Decoder, Discovery, InputFacts, Partitioner, Progress, ReadOutcome, Source, SourceBlock};
use memchr::memchr;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Most bytes of lines that are buffered or not acknowledged. Beyond it nothing is read.
const HELD_BYTES_MAX: usize = 48 << 20;

/// How often a log at its end is asked again, in milliseconds.
const POLL_MS: i64 = 20;

/// Most logs at their end to ask in a turn.
const TURN_ASKED_MAX: usize = 4_096;

/// Most bytes to read in a turn.
const TURN_BYTES_MAX: usize = 4 << 20;

/// Time between two journal entries, in milliseconds. After a crash, so much is sent again.
const JOURNAL_EVERY_MS: i64 = 2_000;

/// How long after a watermark has passed the end of a minute the partitions without new lines are told, in milliseconds.
const TELL_AFTER_MS: i64 = 1_000;

/// How long the row of an ended log is kept after its last entry, in milliseconds: 30 days.
const GONE_AFTER_MS: i64 = 30 * 24 * 3_600_000;

/// A byte that makes a line malformed in every format: it is not UTF-8.
const NOT_UTF8: u8 = 0xff;

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

    /// The number of logs that are being read.
    pub fn active(&self) -> usize {
        self.inputs.values().filter(|input| !input.ended).count()
    }

    /// How much of the files was read.
    pub fn progress(&self) -> Progress {
        self.source.progress()
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
        worked |= self.send_due(now)?;
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
                    let row = Arc::new(new_row(&facts, position));
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
                Discovery::Gap { input, bytes, reason } => {
                    tracing::error!(bytes, reason, "bytes can never be read: a gap");
                    if let Some(input) = self.inputs.get_mut(&input) {
                        input.ledger.gap_bytes += bytes;
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

    /// Puts the lines of a block into buffers, in order, and ends records that are complete.
    fn pack(
        &mut self,
        id: InputId,
        batch: &DecodedBatch,
        is_overlong: bool,
        header: Option<Arc<[u8]>>,
        now: Now,
    ) -> Result<()> {
        let reading = self.guard.read(now.wall_ms, now.monotonic_ms);
        let future_ms = reading.guarded_ms.max(reading.wall_ms).saturating_add(self.time.max_future_skew_ms);
        if let Some(input) = self.inputs.get_mut(&id) {
            if input.csv_header != header && !input.buffers.is_empty() {
                self.end_records(id, |_, _| true)?;
            }
            let Some(input) = self.inputs.get_mut(&id) else { return Ok(()) };
            input.csv_header = header;
            input.note_place();
        }
        let (clicks, rejected) = (&batch.clicks, &batch.rejected);
        let (mut row, mut refused) = (0, 0);
        while row < clicks.len() || refused < rejected.len() {
            let click_at = clicks.line_start.get(row).copied();
            let rejected_at = rejected.get(refused).map(|rejected| rejected.line_start);
            let is_click = rejected_at.is_none() || click_at.is_some_and(|at| Some(at) < rejected_at);
            let at = if is_click { click_at } else { rejected_at }.unwrap_or_default();
            let line = line_at(&batch.text, at);
            let click = is_click.then(|| (clicks.ad_id[row], clicks.event_time_ms[row]));
            if is_click {
                row += 1
            } else {
                refused += 1
            }
            let verdict = match click {
                Some(_) => Verdict::Counted,
                None => rejected.get(refused - 1).map_or(Verdict::Malformed, |rejected| rejected.verdict),
            };
            let place = batch.from + u64::from(at);
            let partition = match click {
                Some((ad, _)) => Partitioner::Murmur2.partition_of(ad, self.partitions),
                None => Partitioner::Murmur2.partition(line, self.partitions),
            };
            let Some(input) = self.inputs.get_mut(&id) else { return Ok(()) };
            let before = mark_of(&input.time, &self.time);
            let buffer = input.buffers.entry(partition).or_insert_with(|| Buffer {
                first: place,
                watermark_ms: before,
                since_ms: now.monotonic_ms,
                ..Buffer::default()
            });
            let length = buffer.text.len();
            buffer.text.extend_from_slice(line);
            if is_overlong {
                // Its end is not here. What is here must not pass for a whole line.
                buffer.text.push(NOT_UTF8);
            }
            buffer.text.push(b'\n');
            buffer.key = click.map(|(ad, _)| ad).filter(|_| self.settings.single_lines);
            let is_full = buffer.text.len() >= self.settings.record_size || self.settings.single_lines;
            self.held_bytes += buffer.text.len() - length;
            input.ledger.book(verdict, 1);
            input.read_to = place;
            self.lines += 1;
            if let Some((_, at_ms)) = click.filter(|&(_, at_ms)| at_ms <= future_ms) {
                watermark::observe(&mut input.time, at_ms, &self.time);
            }
            let after = mark_of(&input.time, &self.time);
            let passed = minute(before) != minute(after);
            if passed {
                input.tell_at_ms = Some(now.monotonic_ms + TELL_AFTER_MS);
            }
            if passed || is_full {
                self.end_records(id, |of, _| passed || of == partition)?;
            }
        }
        if let Some(input) = self.inputs.get_mut(&id) {
            input.read_to = batch.to;
            input.ledger.nul_bytes += batch.nul_bytes;
        }
        self.is_changed = true;
        Ok(())
    }

    /// Ends the records of a log for which `is_due` is true.
    fn end_records(&mut self, id: InputId, mut is_due: impl FnMut(u32, &Buffer) -> bool) -> Result<()> {
        let Some(input) = self.inputs.get_mut(&id) else { return Ok(()) };
        let due: Vec<(u32, Buffer)> =
            input.buffers.extract_if(.., |&partition, buffer| is_due(partition, buffer)).collect();
        for (partition, buffer) in due {
            let Buffer { text, key, first, watermark_ms, .. } = buffer;
            self.outgo(id, partition, (text, key.map(|ad| ad.to_string())), (first, watermark_ms))?;
        }
        Ok(())
    }

    /// Sends a record, after those that wait already.
    fn outgo(
        &mut self,
        id: InputId,
        partition: u32,
        (text, key): (Vec<u8>, Option<String>),
        (first, watermark_ms): (u64, Option<i64>),
    ) -> Result<()> {
        let Some(input) = self.inputs.get_mut(&id) else { return Ok(()) };
        let told = input.told.entry(partition).or_default();
        told.sequence += 1;
        told.watermark_ms = watermark_ms;
        let tag = self.next_tag;
        self.next_tag += 1;
        self.sent.insert(tag, Sent { input: id, first, bytes: text.len() });
        let record = Outgoing {
            partition,
            key,
            text,
            input: Arc::clone(&input.name),
            watermark_ms,
            sequence: told.sequence,
            csv_header: input.csv_header.clone(),
            tag,
        };
        input.note_sent(first);
        self.outbox.push_back(record);
        self.send_outbox().map(drop)
    }

    fn send_outbox(&mut self) -> Result<bool> {
        let mut worked = false;
        while let Some(record) = self.outbox.front() {
            if !self.producer.send(record)? {
                break;
            }
            self.outbox.pop_front();
            worked = true;
        }
        Ok(worked)
    }

    /// Ends records whose first line has waited long enough. When much is held, all records end.
    fn send_due(&mut self, now: Now) -> Result<bool> {
        let before_ms = now.monotonic_ms - self.settings.linger.as_millis() as i64;
        let is_full = self.held_bytes >= HELD_BYTES_MAX;
        let waiting = self.inputs.iter().filter(|(_, input)| !input.buffers.is_empty());
        let ids: Vec<InputId> = waiting.map(|(&id, _)| id).collect();
        for id in &ids {
            self.end_records(*id, |_, buffer| is_full || buffer.since_ms <= before_ms)?;
        }
        Ok(false)
    }

    /// Tells the partitions that got no line lately that the watermark of a log has passed the end of a minute.
    fn tell_partitions(&mut self, now: Now) -> Result<()> {
        let is_due = |input: &Input| input.tell_at_ms.is_some_and(|at_ms| at_ms <= now.monotonic_ms);
        let due: Vec<InputId> = self.inputs.iter().filter(|(_, input)| is_due(input)).map(|(&id, _)| id).collect();
        for id in due {
            let Some(input) = self.inputs.get_mut(&id) else { continue };
            input.tell_at_ms = None;
            let (mark, read_to) = (mark_of(&input.time, &self.time), input.read_to);
            let behind = input.told.iter().filter(|(_, told)| minute(told.watermark_ms) < minute(mark));
            let behind: Vec<u32> = behind.map(|(&partition, _)| partition).collect();
            for partition in behind {
                // Lines of this partition that wait were read before.
                self.end_records(id, |of, _| of == partition)?;
                self.outgo(id, partition, (Vec::new(), None), (read_to, mark))?;
            }
        }
        Ok(())
    }

    fn write_if_due(&mut self, now: Now) -> Result<()> {
        if self.is_changed && now.monotonic_ms - self.journaled_at_ms >= JOURNAL_EVERY_MS {
            self.write(now)?;
        }
        Ok(())
    }

    /// Writes a journal entry with the logs that have moved.
    fn write(&mut self, now: Now) -> Result<()> {
        let clock_ms = self.guard.read(now.wall_ms, now.monotonic_ms).guarded_ms;
        let mut changed = Vec::new();
        for (&id, input) in &mut self.inputs {
            let place = input.safe_place();
            let status = if input.ended && input.is_safe() { InputStatus::Ended } else { InputStatus::Holding };
            let gap_bytes = input.ledger.gap_bytes;
            let ledger = Ledger { gap_bytes, ..place.ledger };
            let position = input.row.position();
            let is_changed = place.offset != position.to
                || status != input.row.status
                || ledger != input.row.ledger
                || input.row.seen_at_ms == 0;
            if !is_changed {
                continue;
            }
            let facts = self.source.facts(id, place.offset, None);
            let row = Arc::make_mut(&mut input.row);
            if let Some(facts) = &facts {
                describe(row, facts);
            }
            if let Some(file) = row.file_mut() {
                file.position = Position { from: position.to, to: place.offset.max(position.to) };
            }
            (row.time, row.ledger, row.status, row.seen_at_ms) = (place.time, ledger, status, clock_ms);
            changed.push(Arc::clone(&input.row));
        }
        let gone = if self.journal.next_is_base() { self.forget(clock_ms) } else { Ledger::default() };
        let inputs = &self.inputs;
        let all = || {
            let row = |input: &Input| {
                let is_changed = changed.iter().any(|row| row.id == input.row.id);
                if is_changed { Arc::clone(&input.row) } else { settled(&input.row) }
            };
            inputs.values().map(row).collect()
        };
        self.journal.write(&changed, gone, clock_ms, all)?;
        for row in changed {
            if let Some(input) = self.inputs.get_mut(&row.id) {
                input.row = settled(&row);
            }
        }
        (self.is_changed, self.journaled_at_ms) = (false, now.monotonic_ms);
        Ok(())
    }

    /// Forgets logs that ended long ago and whose files are gone. Returns the sum of their ledgers.
    fn forget(&mut self, clock_ms: i64) -> Ledger {
        let source = &self.source;
        let gone = self.inputs.extract_if(.., |&id, input| {
            let is_old = clock_ms - input.row.seen_at_ms > GONE_AFTER_MS;
            input.row.status == InputStatus::Ended && is_old && !source.is_listed(id)
        });
        let gone: Vec<(InputId, Input)> = gone.collect();
        let mut sum = Ledger::default();
        for (id, input) in gone {
            sum += &input.row.ledger;
            self.source.forget(id);
        }
        sum
    }
}

/// The watermark of a log.
fn mark_of(time: &adtally_model::InputTime, settings: &TimeSettings) -> Option<i64> {
    time.largest_ms.map(|largest| largest - settings.out_of_orderness_ms)
}

fn minute(watermark_ms: Option<i64>) -> Option<Minute> {
    watermark_ms.map(Minute::of)
}

/// The line that begins at an offset of a text, without its line ending.
fn line_at(text: &[u8], start: u32) -> &[u8] {
    let rest = text.get(start as usize..).unwrap_or_default();
    let line = &rest[..memchr(b'\n', rest).unwrap_or(rest.len())];
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// A row whose range begins where it ends: nothing was read since.
fn settled(row: &Arc<InputRow>) -> Arc<InputRow> {
    let mut row = Arc::clone(row);
    let next = row.position().next();
    if row.position() != next
        && let Some(file) = Arc::make_mut(&mut row).file_mut()
    {
        file.position = next;
    }
    row
}

fn describe(row: &mut InputRow, facts: &InputFacts) {
    row.name.clone_from(&facts.name);
    let Some(file) = row.file_mut() else { return };
    file.fingerprint = facts.fingerprint;
    file.size = facts.size;
    file.compressed = facts.compressed;
    file.csv_header.clone_from(&facts.csv_header);
}

fn new_row(facts: &InputFacts, position: u64) -> InputRow {
    let file = FileLog {
        fingerprint: facts.fingerprint,
        generation: facts.generation,
        compressed: facts.compressed,
        size: facts.size,
        position: Position::at(position),
        csv_header: None,
    };
    let row = InputRow::new(facts.input, facts.name.clone(), facts.generation);
    InputRow { log: InputLog::File(file), ..row }
}
