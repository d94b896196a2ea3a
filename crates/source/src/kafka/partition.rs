//! Turns the records of a topic's partition into blocks.

use super::partitioner::Routing;
use super::record::{self, Stamp};
use crate::block::{CsvHeader, Format, RecordBlock};
use crate::decode::DecodeSettings;
use crate::file_tail::{Discovery, Progress, ReadOutcome};
use crate::source::{Backlog, Source, SourceBlock};
use adtally_model::{Error, InputId, LaneId, PartitionState, Position, Record, RecordTime, Result};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The only lane.
const LANE: LaneId = LaneId(0);

/// Most records of a block: the state of a record takes some hundred bytes.
const BLOCK_RECORDS_MAX: usize = 16_384;

/// Most inputs of a partition: some tens of megabytes. They are forgotten when they were silent for 30 days.
const INPUTS_MAX: usize = 65_536;

/// Most inputs whose sequence numbers are remembered. Beyond it, the numbers are forgotten, and begin anew.
const SEQUENCES_MAX: usize = 65_536;

/// A record as the client delivers it.
#[derive(Clone, Copy, Debug, Default)]
pub struct RawRecord<'a> {
    /// Its offset.
    pub offset: u64,
    /// Its lines. A record may have no value.
    pub value: &'a [u8],
    /// The header [`INPUT`](super::record::INPUT).
    pub input: Option<&'a [u8]>,
    /// The header [`WATERMARK`](super::record::WATERMARK).
    pub watermark: Option<&'a [u8]>,
    /// The header [`SEQUENCE`](super::record::SEQUENCE).
    pub sequence: Option<&'a [u8]>,
    /// The header [`CSV`](super::record::CSV).
    pub csv: Option<&'a [u8]>,
    /// The header [`GAP`](super::record::GAP).
    pub gap: Option<&'a [u8]>,
}

/// The state of a partition of a topic, for the client that reads it.
#[derive(Debug)]
pub enum Polled {
    /// A record was taken.
    Record,
    /// Nothing has arrived. There may be more records.
    Nothing,
    /// There are no more records: the partition is read to its end, and this was true a moment ago.
    AtEnd,
    /// The partition cannot be read at the moment.
    Unreachable(Error),
}

/// Reads one partition of a topic, from the offset at which it was opened.
pub trait RecordReader: Send {
    /// Passes the next record that has arrived to `take`. Does not wait.
    ///
    /// # Errors
    /// Errors after which the process cannot continue: records are lost, or the topic is another one.
    fn poll(&mut self, take: &mut dyn FnMut(RawRecord<'_>)) -> Result<Polled>;

    /// Offsets between the next record and the end of the partition, as far as it is known.
    fn lag(&self) -> Option<u64>;

    /// The offset before which every record was delivered. The offsets after the last record may have been empty.
    fn passed(&self) -> u64 {
        0
    }
}

/// A partition of a topic as a source.
pub struct KafkaPartition {
    reader: Box<dyn RecordReader>,
    /// The name of the input of records without a stamp.
    own_name: Arc<str>,
    routing: Routing,
    settings: Arc<DecodeSettings>,
    /// The known inputs by name.
    inputs: HashMap<Arc<str>, InputId>,
    next_input: u64,
    /// The offset after the last record.
    next: u64,
    /// The last sequence number of each input.
    sequences: HashMap<InputId, u64>,
    /// The last CSV header.
    csv: Option<Arc<CsvHeader>>,
    /// A record that did not fit into the block before it: another format begins with it.
    held: Option<(Taken, Format)>,
    block_bytes: usize,
    warnings: BTreeMap<Arc<str>, String>,
    new_warnings: Vec<String>,
    /// Why the partition could not be read, when it was last tried.
    unreachable: Option<String>,
    read_records: u64,
    /// Offsets that are lost and not booked yet.
    gap: u64,
    /// Whether lost offsets are not booked yet.
    awaits_gap: bool,
    /// Bytes that the agent of each input could never read, as far as they are booked or in `gaps`.
    gap_bytes: HashMap<InputId, u64>,
    /// What is not booked yet of them.
    gaps: Vec<Discovery>,
    /// Whether the caller knows the input of records without a stamp, or learns of it with the last block.
    is_known: bool,
}

/// A record that was taken from the client.
struct Taken {
    text: Vec<u8>,
    to: u64,
    input: InputId,
    time: RecordTime,
    found: Option<Arc<str>>,
    /// A gap of its log that was not known before.
    gap: Option<Discovery>,
}

impl KafkaPartition {
    /// A source that continues from a recovered state. `name` is that of the topic and partition. `reader` begins at the
    /// state's position, or, for a state without one, at `from`.
    pub fn new(
        reader: Box<dyn RecordReader>,
        name: &str,
        routing: Routing,
        settings: Arc<DecodeSettings>,
        state: &PartitionState,
        from: u64,
    ) -> KafkaPartition {
        let inputs = state.inputs.values().map(|row| (Arc::clone(&row.origin), row.id)).collect();
        KafkaPartition {
            reader,
            own_name: name.into(),
            routing,
            settings,
            inputs,
            next_input: state.progress.next_input.max(1),
            next: state.progress.source.map_or(from, |source| source.to),
            sequences: HashMap::new(),
            csv: None,
            held: None,
            block_bytes: 1 << 20,
            warnings: BTreeMap::new(),
            new_warnings: Vec::new(),
            unreachable: None,
            read_records: 0,
            gap: 0,
            awaits_gap: false,
            gap_bytes: state.inputs.values().map(|row| (row.id, row.ledger.gap_bytes)).filter(|of| of.1 > 0).collect(),
            gaps: Vec::new(),
            is_known: false,
        }
    }

    /// The same after offsets that the topic has lost before they were read. They are booked as a gap of the input of records
    /// without a stamp.
    #[must_use]
    pub fn with_gap(self, offsets: u64) -> KafkaPartition {
        KafkaPartition { gap: offsets, awaits_gap: offsets > 0, ..self }
    }

    /// Whether a record was taken from the client and not delivered yet.
    pub fn has_held(&self) -> bool {
        self.held.is_some()
    }

    /// The offset before which every record was delivered in a block.
    pub fn position(&self) -> u64 {
        match self.held {
            None => self.next.max(self.reader.passed()),
            Some(_) => self.next,
        }
    }

    /// The input of records without a stamp, and whether it is new.
    fn own_input(&mut self) -> (InputId, bool) {
        if let Some(&input) = self.inputs.get(&self.own_name) {
            return (input, false);
        }
        let input = InputId(self.next_input);
        self.next_input += 1;
        self.inputs.insert(Arc::clone(&self.own_name), input);
        (input, true)
    }

    /// Gathers records until the block is full or no more have arrived.
    fn gather(&mut self) -> Result<(RecordBlock, Polled)> {
        let mut block = RecordBlock {
            text: Vec::new(),
            records: Vec::new(),
            found: Vec::new(),
            format: Format::Ndjson,
            routing: Some(self.routing),
        };
        if self.awaits_gap {
            if let (input, true) = self.own_input() {
                // The gap needs an input, which becomes known with this block.
                block.found.push((input, Arc::clone(&self.own_name)));
            }
            return Ok((block, Polled::Nothing));
        }
        if let Some((held, format)) = self.held.take() {
            block.format = format;
            block.text.extend_from_slice(&held.text);
            push((&mut block, &mut self.gaps), &mut self.next, held);
        }
        loop {
            if block.records.len() >= BLOCK_RECORDS_MAX
                || (block.text.len() >= self.block_bytes && !block.records.is_empty())
            {
                return Ok((block, Polled::Record));
            }
            let KafkaPartition { reader, own_name, settings, inputs, next_input, sequences, csv, held, next, .. } =
                self;
            let (warnings, new_warnings, read_records) =
                (&mut self.warnings, &mut self.new_warnings, &mut self.read_records);
            let (gap_bytes, gaps) = (&mut self.gap_bytes, &mut self.gaps);
            let mut take = |raw: RawRecord<'_>| {
                *read_records += 1;
                let mut stamp = Stamp::parse(raw.input, raw.watermark, raw.sequence);
                if inputs.len() >= INPUTS_MAX && stamp.as_ref().is_some_and(|stamp| !inputs.contains_key(stamp.input)) {
                    let warning = format!(
                        "{own_name}: there are records of more than {INPUTS_MAX} logs. Those of further logs are judged as \
                         records without a stamp: check that `adtally.input` names a log, and not each record"
                    );
                    if warnings.insert(Arc::clone(own_name), warning.clone()).is_none() {
                        new_warnings.push(warning);
                    }
                    stamp = None;
                }
                let name = stamp.as_ref().map_or(&**own_name, |stamp| stamp.input);
                let (input, found) = match inputs.get(name) {
                    Some(&input) => (input, None),
                    None => {
                        let (input, name): (_, Arc<str>) = (InputId(*next_input), name.into());
                        *next_input += 1;
                        inputs.insert(Arc::clone(&name), input);
                        (input, Some(name))
                    }
                };
                let mut gap = None;
                if let Some(stamp) = &stamp {
                    note_sequence(sequences, warnings, new_warnings, (input, stamp, raw.offset));
                    if let Some(total) = raw.gap.and_then(record::gap) {
                        let booked = gap_bytes.entry(input).or_default();
                        if total > *booked {
                            let bytes = total - std::mem::replace(booked, total);
                            let reason = format!("the agent of {} could not read them", stamp.input);
                            gap = Some(Discovery::Gap { input, bytes, reason });
                        }
                    }
                }
                let format = match (raw.csv, &*csv) {
                    (None, _) => Format::Ndjson,
                    (Some(line), Some(known)) if *known.line == *line => Format::Csv(Arc::clone(known)),
                    (Some(line), _) => {
                        let parsed = Arc::new(CsvHeader::parse(line, 0, settings));
                        *csv = Some(Arc::clone(&parsed));
                        Format::Csv(parsed)
                    }
                };
                let time = stamp.map_or(RecordTime::Guarded, |stamp| RecordTime::Stamped(stamp.watermark_ms));
                let mut taken = Taken { text: Vec::new(), to: raw.offset + 1, input, time, found, gap };
                if block.records.is_empty() {
                    block.format = format;
                } else if !block.format.is_same(&format) {
                    taken.text = with_line_ending(raw.value);
                    *held = Some((taken, format));
                    return;
                }
                block.text.extend_from_slice(raw.value);
                if !raw.value.is_empty() && !raw.value.ends_with(b"\n") {
                    block.text.push(b'\n');
                }
                push((&mut block, gaps), next, taken);
            };
            match reader.poll(&mut take)? {
                Polled::Record if self.held.is_some() => return Ok((block, Polled::Record)),
                Polled::Record => {}
                other => return Ok((block, other)),
            }
        }
    }
}

/// Adds a record, whose text is already in the block.
fn push((block, gaps): (&mut RecordBlock, &mut Vec<Discovery>), next: &mut u64, taken: Taken) {
    let Taken { to, input, time, found, gap, .. } = taken;
    gaps.extend(gap);
    // Offsets have holes: compaction, and the markers of transactions.
    let position = Position { from: (*next).min(to), to };
    *next = to;
    block.found.extend(found.map(|name| (input, name)));
    block.records.push(Record { input, text_end: block.text.len() as u32, position, time });
}

fn with_line_ending(value: &[u8]) -> Vec<u8> {
    let mut text = value.to_vec();
    if !text.is_empty() && !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    text
}

/// Notes a record's number. A number that is too large means that records were lost on their way or in Kafka. An agent
/// that starts again begins with 1.
fn note_sequence(
    sequences: &mut HashMap<InputId, u64>,
    warnings: &mut BTreeMap<Arc<str>, String>,
    new_warnings: &mut Vec<String>,
    (input, stamp, offset): (InputId, &Stamp<'_>, u64),
) {
    if sequences.len() >= SEQUENCES_MAX && !sequences.contains_key(&input) {
        sequences.clear();
    }
    let last = sequences.entry(input).or_insert(stamp.sequence);
    if stamp.sequence > *last + 1 {
        let missing = stamp.sequence - *last - 1;
        let warning = format!(
            "{}: {missing} records before offset {offset} are missing: they were lost in Kafka or on the way to it. Check the \
             topic's acks, min.insync.replicas and unclean.leader.election.enable; reconcile from the log itself with `adtally \
             backfill`",
            stamp.input
        );
        if warnings.insert(stamp.input.into(), warning.clone()).is_none() {
            new_warnings.push(warning);
        }
    }
    *last = stamp.sequence;
}

impl Source for KafkaPartition {
    fn discover(&mut self, _now_ms: i64) -> Result<Vec<Discovery>> {
        let Some(&input) = self.inputs.get(&self.own_name).filter(|_| self.gap > 0 && self.is_known) else {
            return Ok(Vec::new());
        };
        let offsets = std::mem::take(&mut self.gap);
        self.next += offsets;
        Ok(vec![Discovery::LostOffsets { input, offsets }])
    }

    fn take_gaps(&mut self) -> Vec<Discovery> {
        std::mem::take(&mut self.gaps)
    }

    fn gap_booked(&mut self, input: InputId) {
        if self.inputs.get(&self.own_name) == Some(&input) && self.gap == 0 {
            self.awaits_gap = false;
        }
    }

    fn read(&mut self, lane: LaneId, _now_ms: i64) -> Result<ReadOutcome<SourceBlock>> {
        if lane != LANE {
            return Err(Error::internal(format!("a partition of a topic has no lane {}", lane.0)));
        }
        if self.awaits_gap && self.is_known {
            // The position moves past the gap in the epoch that books it: nothing is read before.
            return Ok(ReadOutcome::Waits);
        }
        let (block, polled) = self.gather()?;
        self.is_known |= self.inputs.contains_key(&self.own_name);
        self.unreachable = None;
        if !block.records.is_empty() || !block.found.is_empty() {
            return Ok(ReadOutcome::Block(SourceBlock::Records(block)));
        }
        Ok(match polled {
            Polled::AtEnd => ReadOutcome::AtEnd,
            Polled::Unreachable(error) => {
                self.unreachable = Some(error.report());
                return Ok(ReadOutcome::Unreadable(error));
            }
            // Asked again in a moment. It does not count as being at its end.
            Polled::Record | Polled::Nothing => ReadOutcome::Waits,
        })
    }

    fn shared_lane(&self) -> Option<LaneId> {
        Some(LANE)
    }

    fn is_listed(&self, _input: InputId) -> bool {
        // Only its records show that a log exists.
        false
    }

    fn forget(&mut self, input: InputId) {
        self.inputs.retain(|_, known| *known != input);
        self.sequences.remove(&input);
        self.gap_bytes.remove(&input);
    }

    fn set_block_bytes(&mut self, bytes: usize) {
        self.block_bytes = bytes;
    }

    fn warnings(&self) -> Vec<String> {
        self.unreachable.iter().chain(self.warnings.values()).cloned().collect()
    }

    fn new_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.new_warnings)
    }

    fn backlog(&self) -> Option<Backlog> {
        self.reader.lag().map(|behind| Backlog { next: self.next, behind })
    }

    fn progress(&self) -> Progress {
        let lag = self.reader.lag().unwrap_or_default();
        Progress { total_bytes: self.read_records + lag, read_bytes: self.read_records }
    }
}
