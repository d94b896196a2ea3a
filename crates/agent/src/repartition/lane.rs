//! One source partition: its records, the guarded time of those without a stamp, and how far it is ahead of the others.

use super::packer::{Input, Packer};
use super::place::Place;
use crate::agent::packing::mark_of;
use adtally_model::{DecodedRecords, Error, InputId, InputTime, LaneId, PartitionState, RecordTime, Result};
use adtally_pipeline::{TimeSettings, watermark};
use adtally_source::{
    Decoder, Discovery, Format, KafkaPartition, Partitioner, ReadOutcome, RecordReader, RoutedLines, Routing, Source,
    SourceBlock,
};
use std::collections::HashMap;
use std::sync::Arc;

/// The only lane of a source partition.
const LANE: LaneId = LaneId(0);

/// How long a partition must be at its end before the others need not wait for it, in milliseconds. A burst of old lines
/// arrives in all partitions within that time.
pub(super) const SETTLE_MS: i64 = 2_000;

/// How long a partition waits for others until this is told, in milliseconds.
const WAITS_TOLD_MS: i64 = 60_000;

/// What a source partition needs to be read.
pub struct LaneParts {
    /// Its number.
    pub partition: u32,
    /// Its records, from the place on.
    pub reader: Box<dyn RecordReader>,
    /// Where it begins.
    pub place: Place,
    /// The offset up to which it is read; `None` if it is read for ever.
    pub end: Option<u64>,
}

/// What the caller knows about a turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Turn<'a> {
    pub(super) now_ms: i64,
    /// Later lines do not move guarded times.
    pub(super) future_ms: i64,
    /// Partitions whose watermark is beyond it wait.
    pub(super) limit_ms: i64,
    pub(super) time: &'a TimeSettings,
    /// How the target is partitioned.
    pub(super) routing: (Partitioner, u32),
}

/// What is known about the rest of a source partition.
#[derive(Debug)]
enum Rest {
    /// Nothing yet.
    Unread,
    /// There is more, or may be.
    More,
    /// It is at its end, since this time in monotonic milliseconds.
    AtEnd(i64),
    /// It cannot be read, since this time in monotonic milliseconds.
    Unreachable(i64, Error),
}

/// The first records after a pause. Other partitions may have such records as well, which have not arrived yet.
#[derive(Clone, Copy, Debug, Default)]
struct Burst {
    /// When the first one was passed on, in monotonic milliseconds.
    since_ms: Option<i64>,
    /// The watermark after it.
    base_ms: Option<i64>,
}

/// Decoded records that are being passed on.
struct Pending {
    decoded: DecodedRecords,
    csv_header: Option<Arc<[u8]>>,
    /// The next record.
    record: usize,
    /// The next click and the next rejected line.
    rows: (usize, usize),
}

/// A source partition.
pub(super) struct Lane {
    pub(super) partition: u32,
    /// Its topic and number.
    name: Arc<str>,
    pub(super) source: KafkaPartition,
    /// The guarded time of its records without a stamp.
    time: InputTime,
    /// The largest watermark of its inputs, as far as the clock allows.
    pub(super) mark_ms: Option<i64>,
    /// When it last advanced, and when the partition was last at its end, in monotonic milliseconds.
    advanced_ms: i64,
    at_end_ms: Option<i64>,
    /// Since when it waits for other partitions, in monotonic milliseconds.
    waits_since_ms: Option<i64>,
    pub(super) inputs: HashMap<InputId, Input>,
    rest: Rest,
    burst: Option<Burst>,
    pending: Option<Pending>,
    /// The offset after the last record that was passed on.
    next: u64,
    /// The offset that was last committed.
    pub(super) committed: Option<u64>,
    end: Option<u64>,
}

impl Lane {
    /// A partition of the source `topic`, which is read in blocks of some bytes. `now_ms` is monotonic.
    pub(super) fn new(
        topic: &str,
        partitions: u32,
        parts: LaneParts,
        decoder: &Decoder,
        (block_bytes, now_ms): (usize, i64),
    ) -> Lane {
        let LaneParts { partition, reader, place, end } = parts;
        let name = format!("{topic}/{partition}");
        let routing = Routing { partitioner: Partitioner::default(), partition, partitions };
        let settings = Arc::new(decoder.settings().clone());
        let mut source = KafkaPartition::new(reader, &name, routing, settings, &PartitionState::default(), place.next);
        source.set_block_bytes(block_bytes);
        Lane {
            partition,
            name: name.into(),
            source,
            time: place.time,
            mark_ms: place.mark_ms,
            advanced_ms: now_ms,
            at_end_ms: None,
            waits_since_ms: None,
            inputs: HashMap::new(),
            rest: Rest::Unread,
            burst: None,
            pending: None,
            next: place.next,
            committed: None,
            end,
        }
    }

    /// Whether records are read that are not passed on. Their inputs must be remembered.
    pub(super) fn has_pending(&self) -> bool {
        self.pending.is_some() || self.source.has_held()
    }

    /// The place up to which everything was passed on.
    pub(super) fn place(&self) -> Place {
        let next = if self.pending.is_some() { self.next } else { self.next.max(self.source.position()) };
        Place { next, time: self.time, mark_ms: self.mark_ms }
    }

    /// Whether it was read as far as it is to be read.
    pub(super) fn is_done(&self) -> bool {
        self.end.is_some_and(|end| {
            self.place().next >= end || (self.pending.is_none() && matches!(self.rest, Rest::AtEnd(_)))
        })
    }

    /// Whether partitions that are ahead of it wait. Whatever lines it delivers, it is idle if it was at its end lately and its
    /// watermark has not advanced for `idle_timeout_ms`.
    pub(super) fn holds(&self, now_ms: i64, idle_timeout_ms: i64) -> bool {
        let was_at_end = self.at_end_ms.is_some_and(|at_ms| now_ms - at_ms <= idle_timeout_ms);
        let is_idle = was_at_end && now_ms - self.advanced_ms >= idle_timeout_ms;
        !self.is_done()
            && !is_idle
            && match self.rest {
                Rest::Unread | Rest::More => true,
                Rest::AtEnd(since_ms) => now_ms - since_ms < SETTLE_MS,
                Rest::Unreachable(since_ms, _) => now_ms - since_ms < idle_timeout_ms,
            }
    }

    /// Why it does not get on, if it does not.
    pub(super) fn problem(&self, now_ms: i64) -> Option<String> {
        match (&self.rest, self.waits_since_ms) {
            (Rest::Unreachable(_, error), _) => Some(error.report()),
            (_, Some(since_ms)) if now_ms - since_ms >= WAITS_TOLD_MS => {
                Some(format!("{} waits for partitions with older clicks", self.name))
            }
            _ => None,
        }
    }

    /// Offsets that were not read.
    pub(super) fn lag(&self) -> u64 {
        let progress = self.source.progress();
        progress.total_bytes.saturating_sub(progress.read_bytes)
    }

    /// Reads and decodes the next records, unless some are pending. Returns whether there were any.
    ///
    /// # Errors
    /// Errors after which the source cannot be read any more.
    pub(super) fn read(&mut self, decoder: &Decoder, now_ms: i64) -> Result<bool> {
        if self.pending.is_some() || self.is_done() {
            return Ok(false);
        }
        // Past the markers of transactions, as it may have been committed.
        self.next = self.next.max(self.source.position());
        match self.source.read(LANE, now_ms)? {
            ReadOutcome::Block(SourceBlock::Records(mut block)) => {
                self.go_on(now_ms);
                for (id, name) in std::mem::take(&mut block.found) {
                    let is_unstamped = *name == *self.name;
                    let mut input =
                        if is_unstamped { Input::unstamped(&self.name) } else { Input::stamped(&name, &self.name) };
                    input.seen_ms = now_ms;
                    self.inputs.insert(id, input);
                }
                for discovery in self.source.take_gaps() {
                    if let Discovery::Gap { input, bytes, .. } = discovery
                        && let Some(input) = self.inputs.get_mut(&input)
                    {
                        input.add_gap(bytes);
                    }
                }
                let csv_header = match &block.format {
                    Format::Csv(header) => Some(header.line()),
                    Format::Ndjson => None,
                };
                // That its lines may be in wrong partitions is why it is read.
                block.routing = None;
                let decoded = decoder.decode_records(block);
                self.pending = Some(Pending { decoded, csv_header, record: 0, rows: (0, 0) });
                return Ok(true);
            }
            ReadOutcome::Block(SourceBlock::Text(_)) => {
                return Err(Error::internal("a repartition reads a topic, and got a file"));
            }
            ReadOutcome::AtEnd => {
                self.at_end_ms = Some(now_ms);
                if !matches!(self.rest, Rest::AtEnd(_)) {
                    self.rest = Rest::AtEnd(now_ms);
                }
            }
            ReadOutcome::Unreadable(error) => {
                let since_ms = if let Rest::Unreachable(since_ms, _) = self.rest { since_ms } else { now_ms };
                self.rest = Rest::Unreachable(since_ms, error);
            }
            ReadOutcome::Waits | ReadOutcome::Busy | ReadOutcome::Ended => {
                if !matches!(self.rest, Rest::Unread) {
                    self.go_on(now_ms);
                }
            }
        }
        Ok(false)
    }

    /// Notes that there is more.
    fn go_on(&mut self, now_ms: i64) {
        if let Rest::AtEnd(since_ms) = self.rest
            && now_ms - since_ms >= SETTLE_MS
        {
            self.burst = Some(Burst::default());
        }
        self.rest = Rest::More;
    }

    /// Passes pending records on, as long as the transaction has room and the partition is not too far ahead. Returns whether it
    /// passed any on.
    ///
    /// # Errors
    /// Internal when a record's input is unknown.
    pub(super) fn pass(&mut self, packer: &mut Packer, turn: &Turn<'_>) -> Result<bool> {
        let Some(mut pending) = self.pending.take() else { return Ok(false) };
        let Pending { decoded, csv_header, .. } = &pending;
        let lines = RoutedLines::new(&decoded.text, &decoded.clicks, &decoded.rejected, turn.routing);
        let mut lines = lines.continued(pending.rows);
        let first = pending.record;
        let mut at = first;
        while let Some(record) = decoded.records.get(at) {
            if packer.is_full() || self.is_ahead(turn) {
                break;
            }
            let Some(input) = self.inputs.get_mut(&record.input) else {
                return Err(Error::internal(format!("a record of {} belongs to an unknown input", self.name)));
            };
            packer.begin(input, csv_header.as_ref(), turn.now_ms);
            match record.time {
                RecordTime::Stamped(mark_ms) => {
                    input.raise(mark_ms);
                    while let Some(line) = lines.next_before(record.text_end) {
                        packer.add(input, &line, mark_ms);
                    }
                }
                RecordTime::Guarded => {
                    while let Some(line) = lines.next_before(record.text_end) {
                        packer.add(input, &line, mark_of(&self.time, turn.time));
                        if let Some((_, at_ms)) = line.click.filter(|&(_, at_ms)| at_ms <= turn.future_ms) {
                            watermark::observe(&mut self.time, at_ms, turn.time);
                        }
                    }
                    input.raise(mark_of(&self.time, turn.time));
                }
            }
            // A clock ahead of ours must not stop a partition, or make it wait for nobody.
            let mark_ms = input.mark_ms.map(|mark_ms| mark_ms.min(turn.future_ms));
            if mark_ms > self.mark_ms {
                (self.mark_ms, self.advanced_ms) = (mark_ms, turn.now_ms);
            }
            self.next = record.position.to;
            at += 1;
            if let Some(burst) = &mut self.burst {
                burst.since_ms.get_or_insert(turn.now_ms);
                burst.base_ms = burst.base_ms.or(self.mark_ms);
            }
        }
        let (rows, is_over) = (lines.returned(), at >= decoded.records.len());
        if !is_over {
            (pending.record, pending.rows) = (at, rows);
            self.pending = Some(pending);
        }
        Ok(at > first)
    }

    /// Whether it must wait for other partitions.
    fn is_ahead(&mut self, turn: &Turn<'_>) -> bool {
        let Some(mark_ms) = self.mark_ms else { return false };
        let mark_ms = mark_ms.min(turn.future_ms);
        if let Some(Burst { since_ms: Some(since_ms), .. }) = self.burst
            && turn.now_ms - since_ms >= SETTLE_MS
        {
            self.burst = None;
        }
        let base_ms = self.burst.and_then(|burst| burst.base_ms);
        let own_limit_ms = base_ms.map_or(i64::MAX, |base_ms| base_ms.saturating_add(turn.time.alignment_ms));
        let is_ahead = mark_ms > turn.limit_ms.min(own_limit_ms);
        self.waits_since_ms = is_ahead.then(|| self.waits_since_ms.unwrap_or(turn.now_ms));
        is_ahead
    }
}
