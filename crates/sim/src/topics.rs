//! A topic in memory: partitions of records that agents produce and processes read, in the format of the contract.

use crate::machine::Machine;
use crate::random::Random;
use crate::servers::number_in;
use adtally_model::{InputId, InputTime, LaneId, PartitionState, Position, Record, RecordTime, Result};
use adtally_pipeline::{TimeSettings, watermark};
use adtally_source::{Discovery, Format, ReadOutcome, RecordBlock, Source, SourceBlock};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The only lane of a partition.
const LANE: LaneId = LaneId(0);

/// Most records in a block.
const BLOCK_RECORDS_MAX: usize = 5;

/// Most lines in a record.
const RECORD_LINES_MAX: usize = 6;

/// The name of the input of records without a stamp.
const UNSTAMPED: &str = "unstamped";

/// A record of a partition.
#[derive(Clone, Debug)]
struct Produced {
    offset: u64,
    /// The name of its input.
    input: Arc<str>,
    time: RecordTime,
    text: String,
}

/// A record that is being filled.
#[derive(Debug)]
struct Filling {
    stamp_ms: Option<i64>,
    text: String,
    lines: usize,
}

/// A log, as read by its agent.
#[derive(Debug, Default)]
struct Agent {
    time: InputTime,
    filling: BTreeMap<u32, Filling>,
}

#[derive(Debug, Default)]
struct Topic {
    partitions: Vec<Vec<Produced>>,
    next_offset: Vec<u64>,
    agents: BTreeMap<u64, Agent>,
}

/// Clones share the same topic.
#[derive(Clone)]
pub(crate) struct Topics {
    topic: Arc<Mutex<Topic>>,
    machine: Machine,
    settings: TimeSettings,
    /// Whether the last server's agent is a foreign one, which stamps nothing.
    has_foreign_agent: bool,
    servers: u64,
}

impl Topics {
    pub(crate) fn new(
        partitions: u32,
        servers: u64,
        has_foreign_agent: bool,
        settings: TimeSettings,
        machine: Machine,
    ) -> Topics {
        let topic = Topic {
            partitions: vec![Vec::new(); partitions as usize],
            next_offset: vec![0; partitions as usize],
            agents: BTreeMap::new(),
        };
        Topics { topic: Arc::new(Mutex::new(topic)), machine, settings, has_foreign_agent, servers }
    }

    /// Number of partitions.
    pub(crate) fn partitions(&self) -> u32 {
        self.topic.lock().partitions.len() as u32
    }

    /// Logs a line of a server, with its event time if it is accepted. Its agent adds it to a record.
    pub(crate) fn append(
        &self,
        server: u64,
        partition: u32,
        text: &str,
        accepted_ms: Option<i64>,
        random: &mut Random,
    ) {
        let mut topic = self.topic.lock();
        let agent = topic.agents.entry(server).or_default();
        let of = |time: &InputTime| time.largest_ms.map(|largest| largest - self.settings.out_of_orderness_ms);
        let before = of(&agent.time);
        let filling = agent.filling.entry(partition).or_insert_with(|| Filling {
            stamp_ms: before,
            text: String::new(),
            lines: 0,
        });
        filling.text.push_str(text);
        filling.lines += 1;
        let is_full = filling.lines >= RECORD_LINES_MAX || random.chance(300);
        if let Some(at_ms) = accepted_ms {
            watermark::observe(&mut agent.time, at_ms, &self.settings);
        }
        let minute = |watermark: Option<i64>| watermark.map(|ms| ms.div_euclid(60_000));
        if minute(of(&agent.time)) != minute(before) {
            topic.produce(server, None, random, self.is_foreign(server));
        } else if is_full {
            topic.produce(server, Some(partition), random, self.is_foreign(server));
        }
    }

    /// Lets agents produce their pending records: each one sometimes or, at the end, `all`.
    pub(crate) fn linger(&self, all: bool, random: &mut Random) {
        for server in 0..self.servers {
            if all || random.chance(200) {
                self.topic.lock().produce(server, None, random, self.is_foreign(server));
            }
        }
    }

    fn is_foreign(&self, server: u64) -> bool {
        self.has_foreign_agent && server + 1 == self.servers
    }

    /// The offset after a partition's newest record.
    pub(crate) fn end(&self, partition: u32) -> u64 {
        self.topic.lock().next_offset[partition as usize]
    }

    /// The numbers of the lines of a partition's records before offset `end`.
    pub(crate) fn lines_before(&self, partition: u32, end: u64) -> Vec<usize> {
        let topic = self.topic.lock();
        let records = topic.partitions[partition as usize].iter().take_while(|record| record.offset < end);
        records.flat_map(|record| record.text.lines()).filter_map(number_in).collect()
    }

    /// A source for a partition that continues from a state. It ends at offset `end`, if there is one.
    pub(crate) fn source(&self, partition: u32, state: &PartitionState, end: Option<u64>) -> Box<dyn Source> {
        let inputs = state.inputs.values().map(|row| (Arc::clone(&row.origin), row.id)).collect();
        Box::new(TopicSource {
            topics: self.clone(),
            partition,
            position: state.progress.source.map_or(0, |source| source.to),
            inputs,
            next_input: state.progress.next_input.max(1),
            end,
            block_records: BLOCK_RECORDS_MAX,
        })
    }
}

impl Topic {
    /// Finishes the records that a server is filling, or only the record of one partition.
    fn produce(&mut self, server: u64, partition: Option<u32>, random: &mut Random, is_foreign: bool) {
        let Some(agent) = self.agents.get_mut(&server) else { return };
        let ended = agent.filling.extract_if(.., |&of, _| partition.is_none_or(|partition| partition == of));
        for (partition, Filling { stamp_ms, text, .. }) in ended {
            let at = partition as usize;
            // Transaction markers and compaction leave gaps.
            let offset = self.next_offset[at] + if random.chance(150) { random.below(4) } else { 0 };
            self.next_offset[at] = offset + 1;
            let (input, time) = match is_foreign {
                true => (UNSTAMPED.into(), RecordTime::Guarded),
                false => (format!("server-{server}").into(), RecordTime::Stamped(stamp_ms)),
            };
            self.partitions[at].push(Produced { offset, input, time, text });
        }
    }
}

/// Reads one partition of the topic.
struct TopicSource {
    topics: Topics,
    partition: u32,
    /// The next offset to read.
    position: u64,
    inputs: BTreeMap<Arc<str>, InputId>,
    next_input: u64,
    /// The offset at which a bounded run ends.
    end: Option<u64>,
    block_records: usize,
}

impl Source for TopicSource {
    fn discover(&mut self, _: i64) -> Result<Vec<Discovery>> {
        Ok(Vec::new())
    }

    fn read(&mut self, _: LaneId, _: i64) -> Result<ReadOutcome<SourceBlock>> {
        let machine = &self.topics.machine;
        machine.crash_point("consume", 50);
        if machine.fails("consume", 5) {
            let error = adtally_model::Error::transient("the broker does not answer");
            return Ok(ReadOutcome::Unreadable(error));
        }
        let topic = self.topics.topic.lock();
        let produced = &topic.partitions[self.partition as usize];
        let from = produced.partition_point(|record| record.offset < self.position);
        let is_before_end = |record: &&Produced| self.end.is_none_or(|end| record.offset < end);
        let read: Vec<Produced> =
            produced[from..].iter().take_while(is_before_end).take(self.block_records).cloned().collect();
        drop(topic);
        if read.is_empty() {
            return Ok(if self.end.is_some() { ReadOutcome::Ended } else { ReadOutcome::AtEnd });
        }
        let (mut text, mut records, mut found) = (Vec::new(), Vec::new(), Vec::new());
        for Produced { offset, input, time, text: lines } in read {
            let next = self.next_input;
            let id = *self.inputs.entry(Arc::clone(&input)).or_insert(InputId(next));
            if id.0 == next {
                self.next_input += 1;
                found.push((id, input));
            }
            text.extend_from_slice(lines.as_bytes());
            let position = Position { from: self.position, to: offset + 1 };
            records.push(Record { input: id, text_end: text.len() as u32, position, time });
            self.position = offset + 1;
        }
        Ok(ReadOutcome::Block(SourceBlock::Records(RecordBlock {
            text,
            records,
            found,
            format: Format::Ndjson,
            routing: None,
        })))
    }

    fn shared_lane(&self) -> Option<LaneId> {
        Some(LANE)
    }

    fn set_block_bytes(&mut self, bytes: usize) {
        // The bound in bytes is meant for real text.
        self.block_records = if bytes < 2_048 { 1 } else { BLOCK_RECORDS_MAX };
    }
}
