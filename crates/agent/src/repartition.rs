//! Re-keys a topic: reads all its partitions, and writes each line into the partition of another topic that its ad belongs to.
//!
//! - **Receives** the records of the source partitions, settings, a clock, and a producer with transactions.
//! - **Emits** stamped records of lines, and after each of its transactions the places up to which the source was read.
//! - **Promises** that each line is in exactly one transaction, with the places of one moment; that the lines of an input
//!   in a source partition keep their order in each target partition; that each line is stamped with a watermark of the same minute as the
//!   one that its agent, or the guarded time of its source partition, had before it; that partitions are read in step, as far
//!   as event time goes; and that memory is bounded.
//! - **Never** drops or changes a line (the end of one that is too long excepted), or decides a verdict.
//!
//! Each input of a source partition is an input of its own in the target. Its name ends with that partition, because the
//! partitions are not read exactly in step, and the watermark of an input must never go back.

mod lane;
mod packer;
pub mod place;
#[cfg(test)]
mod tests;

use crate::agent::{Now, Turn};
use crate::produce::Outgoing;
use crate::settings::AgentSettings;
use adtally_model::{InputId, Result};
use adtally_pipeline::{ClockGuard, TimeSettings};
use adtally_source::{Decoder, Partitioner, Source};
use lane::Lane;
pub use lane::LaneParts;
use packer::Packer;
use place::{Committed, Note, Topic};

/// How long a transaction stays open, in milliseconds: readers of the target see its lines after that.
const COMMIT_EVERY_MS: i64 = 1_000;

/// How often all offsets are committed, in milliseconds: brokers forget offsets that do not change for long.
const REFRESH_EVERY_MS: i64 = 600_000;

/// Bytes of decoded lines that wait in all source partitions together, about.
const PENDING_BYTES_MAX: usize = 16 << 20;

/// Least and most bytes of lines that are decoded at a time.
const BLOCK_BYTES: (usize, usize) = (16 << 10, 256 << 10);

/// How long an input that brings nothing is remembered, in milliseconds. After that, its records are numbered anew.
const FORGET_AFTER_MS: i64 = 900_000;

/// How often inputs are forgotten, in milliseconds.
const FORGET_EVERY_MS: i64 = 60_000;

/// Most pairs of an input and a target partition that knows it. Of more, the inputs that bring nothing for longest are forgotten,
/// but none that brought something within the last minutes: it would be told to all partitions again and again.
const KNOWN_MAX: usize = 1 << 20;

/// How long an input that brought something is remembered in any case, in milliseconds.
const BUSY_MS: i64 = 180_000;

/// Produces records in transactions.
pub trait Transact: Send {
    /// Takes a record. Returns whether it was taken; otherwise the caller tries again later. Does not wait.
    ///
    /// # Errors
    /// The error after which everything must begin again from what was committed, or stop.
    fn send(&mut self, record: &Outgoing) -> Result<bool>;

    /// Commits the records since the last commit together with offsets of the source. Returns whether it is done; otherwise it is
    /// called again with the same offsets.
    ///
    /// # Errors
    /// As [`Transact::send`]. It may have been committed or not.
    fn commit(&mut self, offsets: &[Committed]) -> Result<bool>;

    /// Why it does not get on at the moment, if it does not.
    fn failure(&self) -> Option<String>;
}

/// The dependencies of a repartition.
pub struct RepartitionParts<T> {
    /// How lines are packed.
    pub settings: AgentSettings,
    /// The rules of event time, as in the workers.
    pub time: TimeSettings,
    /// Decodes lines. Its identities are not used.
    pub decoder: Decoder,
    /// How the target is partitioned.
    pub partitioner: Partitioner,
    /// The name of the topic that is read.
    pub source: String,
    /// The topic that is read.
    pub from: Topic,
    /// The topic that is written.
    pub to: Topic,
    /// A random number of this process.
    pub owner: u64,
    /// The partitions of the source.
    pub lanes: Vec<LaneParts>,
    /// Kafka.
    pub producer: T,
    /// The clocks now.
    pub now: Now,
}

/// A state machine that its caller turns. After an error, it is made anew from what was committed.
pub struct Repartition<T> {
    time: TimeSettings,
    decoder: Decoder,
    partitioner: Partitioner,
    from: Topic,
    to: Topic,
    owner: u64,
    lanes: Vec<Lane>,
    packer: Packer,
    producer: T,
    guard: ClockGuard,
    /// The offsets of the transaction that is being committed.
    closing: Option<Vec<Committed>>,
    /// When the first record of the transaction was read, in monotonic milliseconds.
    opened_ms: Option<i64>,
    refreshed_ms: i64,
    forgot_ms: i64,
    /// When it was last turned, in monotonic milliseconds.
    turned_ms: i64,
    is_stopping: bool,
    /// Lines that are committed.
    lines: u64,
}

impl<T: Transact> Repartition<T> {
    /// A repartition that continues from the places of its lanes. Its first transaction commits these, with its owner.
    pub fn new(parts: RepartitionParts<T>) -> Repartition<T> {
        let RepartitionParts { settings, time, decoder, partitioner, source, from, to, owner, lanes, producer, now } =
            parts;
        let block_bytes = (PENDING_BYTES_MAX / lanes.len().max(1)).clamp(BLOCK_BYTES.0, BLOCK_BYTES.1);
        let lane = |parts| Lane::new(&source, from.partitions, parts, &decoder, (block_bytes, now.monotonic_ms));
        let lanes: Vec<Lane> = lanes.into_iter().map(lane).collect();
        let packer = Packer::new(settings, decoder.settings().line_bytes_max, to.partitions);
        let mut repartition = Repartition {
            time,
            decoder,
            partitioner,
            from,
            to,
            owner,
            lanes,
            packer,
            producer,
            guard: ClockGuard::new(now.wall_ms, now.monotonic_ms, 0),
            closing: None,
            opened_ms: None,
            refreshed_ms: now.monotonic_ms,
            forgot_ms: now.monotonic_ms,
            turned_ms: now.monotonic_ms,
            is_stopping: false,
            lines: 0,
        };
        repartition.closing = Some(repartition.offsets(true));
        repartition
    }

    /// Lines that were committed.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Whether the first transaction is committed: the group knows the owner.
    pub fn has_begun(&self) -> bool {
        self.lanes.iter().all(|lane| lane.committed.is_some())
    }

    /// Offsets of the source that were not read, as far as they are known.
    pub fn lag(&self) -> u64 {
        self.lanes.iter().map(Lane::lag).sum()
    }

    /// Present problems, as messages for people.
    pub fn problems(&self) -> Vec<String> {
        let failure = self.producer.failure().map(|why| format!("Kafka does not take records at the moment: {why}"));
        let now_ms = self.turned_ms;
        self.lanes.iter().filter_map(|lane| lane.problem(now_ms)).chain(failure).collect()
    }

    /// Warnings that were not returned before, as messages for people.
    pub fn new_warnings(&mut self) -> Vec<String> {
        self.lanes.iter_mut().flat_map(|lane| lane.source.new_warnings()).collect()
    }

    /// Reads nothing more, and commits what was read. The caller goes on turning.
    pub fn stop(&mut self) {
        self.is_stopping = true;
    }

    /// The producer, to give up its transaction.
    pub fn into_producer(self) -> T {
        self.producer
    }

    /// Does the work that is due. It is finished when all partitions were read to their ends, or after a stop, and everything is
    /// committed.
    ///
    /// # Errors
    /// The error after which everything must begin again from what was committed, or stop.
    pub fn turn(&mut self, now: Now) -> Result<Turn> {
        self.turned_ms = now.monotonic_ms;
        let mut worked = self.send_outbox()?;
        if let Some(offsets) = &self.closing {
            if !self.packer.outbox.is_empty() || !self.producer.commit(offsets)? {
                return Ok(if worked { Turn::Worked } else { Turn::Nothing });
            }
            self.note_committed(now.monotonic_ms);
            worked = true;
        }
        let is_over = self.is_stopping || self.lanes.iter().all(Lane::is_done);
        if !is_over && self.packer.outbox.is_empty() && !self.packer.is_full() {
            worked |= self.read(now)?;
            self.send_outbox()?;
        }
        let is_to_be_refreshed = now.monotonic_ms - self.refreshed_ms >= REFRESH_EVERY_MS;
        let is_old = self.opened_ms.is_some_and(|opened_ms| now.monotonic_ms - opened_ms >= COMMIT_EVERY_MS);
        let has_moved = self.lanes.iter().any(|lane| lane.committed != Some(lane.place().next));
        if is_old || is_to_be_refreshed || self.packer.is_full() || (is_over && has_moved) {
            self.close(is_to_be_refreshed, now.monotonic_ms);
            return Ok(Turn::Worked);
        }
        Ok(match (is_over, worked) {
            (true, _) => Turn::Finished,
            (false, true) => Turn::Worked,
            (false, false) => Turn::Nothing,
        })
    }

    fn send_outbox(&mut self) -> Result<bool> {
        let mut worked = false;
        while let Some(record) = self.packer.outbox.front() {
            if !self.producer.send(record)? {
                break;
            }
            self.packer.outbox.pop_front();
            worked = true;
        }
        Ok(worked)
    }

    /// Reads all partitions, and passes on the records of those that are furthest behind. A partition that is more than
    /// `alignment` ahead of one that may have older records waits: in the target, minutes could become final too early.
    fn read(&mut self, now: Now) -> Result<bool> {
        let (now_ms, mut worked) = (now.monotonic_ms, false);
        for lane in &mut self.lanes {
            worked |= lane.read(&self.decoder, now_ms)?;
        }
        let reading = self.guard.read(now.wall_ms, now_ms);
        let future_ms = reading.guarded_ms.max(reading.wall_ms).saturating_add(self.time.max_future_skew_ms);
        let holding = self.lanes.iter().filter(|lane| lane.holds(now_ms, self.time.idle_timeout_ms));
        let limit_ms = match holding.map(|lane| lane.mark_ms).min() {
            None => i64::MAX,
            // One of them has no watermark yet.
            Some(None) => i64::MIN,
            Some(Some(least_ms)) => least_ms.saturating_add(self.time.alignment_ms),
        };
        let routing = (self.partitioner, self.to.partitions);
        let turn = lane::Turn { now_ms, future_ms, limit_ms, time: &self.time, routing };
        let mut order: Vec<&mut Lane> = self.lanes.iter_mut().collect();
        order.sort_by_key(|lane| lane.mark_ms);
        for lane in order {
            if lane.pass(&mut self.packer, &turn)? {
                worked = true;
                self.opened_ms.get_or_insert(now_ms);
            }
        }
        Ok(worked)
    }

    /// Ends all records, so that the transaction can be committed.
    fn close(&mut self, is_refresh: bool, now_ms: i64) {
        for lane in &mut self.lanes {
            lane.inputs.values_mut().for_each(|input| self.packer.close(input));
        }
        if is_refresh {
            self.refreshed_ms = now_ms;
        }
        self.closing = Some(self.offsets(is_refresh));
    }

    /// The offsets that are to be committed, each with its note.
    fn offsets(&self, all: bool) -> Vec<Committed> {
        let &Repartition { from, to, owner, .. } = self;
        let moved = |lane: &Lane| {
            let place = lane.place();
            (all || lane.committed != Some(place.next)).then(|| Committed {
                partition: lane.partition,
                next: place.next,
                note: Note { from, to, owner, time: place.time, mark_ms: place.mark_ms }.to_string(),
            })
        };
        self.lanes.iter().filter_map(moved).collect()
    }

    fn note_committed(&mut self, now_ms: i64) {
        let offsets = self.closing.take().unwrap_or_default();
        for Committed { partition, next, .. } in offsets {
            if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.partition == partition) {
                lane.committed = Some(next);
            }
        }
        self.lines += self.packer.take_lines();
        self.opened_ms = None;
        let known: usize = self.lanes.iter().flat_map(|lane| lane.inputs.values()).map(packer::Input::known_to).sum();
        if known > KNOWN_MAX || now_ms - self.forgot_ms >= FORGET_EVERY_MS {
            self.forgot_ms = now_ms;
            self.forget(known, now_ms);
        }
    }

    /// Forgets inputs that bring nothing for long; of too many, half.
    fn forget(&mut self, mut known: usize, now_ms: i64) {
        let is_too_much = known > KNOWN_MAX;
        let mut quiet: Vec<(i64, usize, InputId)> = Vec::new();
        for (at, lane) in self.lanes.iter().enumerate().filter(|(_, lane)| !lane.has_pending()) {
            let at_rest = lane.inputs.iter().filter(|(_, input)| input.is_at_rest());
            quiet.extend(at_rest.map(|(&id, input)| (input.seen_ms, at, id)));
        }
        quiet.sort_unstable();
        for (seen_ms, at, id) in quiet {
            let age_ms = now_ms - seen_ms;
            let is_busy = age_ms < BUSY_MS;
            let is_over = is_busy || (age_ms < FORGET_AFTER_MS && !(is_too_much && known > KNOWN_MAX / 2));
            let Some(lane) = self.lanes.get_mut(at).filter(|_| !is_over) else { break };
            if let Some(input) = lane.inputs.remove(&id) {
                known -= input.known_to();
            }
            lane.source.forget(id);
        }
    }
}
