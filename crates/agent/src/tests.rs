//! An agent that dies at any moment: every line arrives, in order, with the stamp of its log.

use super::*;
use crate::agent::Now;
use adtally_model::{IdentityKey, InputTime, PartitionState, Result};
use adtally_pipeline::{TimeSettings, watermark};
use adtally_source::{DecodeSettings, Decoder, LocalFiles, Partitioner, TailSettings, Tailer};
use adtally_store::backing::{Backing, StoreUrl};
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

const PARTITIONS: u32 = 3;

/// What a topic has: the text and the stamp of each record, by partition.
type Topic = Arc<Mutex<BTreeMap<u32, Vec<(String, Option<i64>)>>>>;

/// A producer that stores records at once and acknowledges them later.
struct Fake {
    topic: Topic,
    waiting: VecDeque<u64>,
    /// Every this many calls, it acknowledges a record.
    slowness: u64,
    calls: RefCell<u64>,
}

impl Produce for Fake {
    fn send(&mut self, record: &Outgoing) -> Result<bool> {
        if self.waiting.len() >= 40 {
            return Ok(false);
        }
        let text = String::from_utf8(record.text.clone()).unwrap();
        self.topic.lock().unwrap().entry(record.partition).or_default().push((text, record.watermark_ms));
        self.waiting.push_back(record.tag);
        Ok(true)
    }

    fn outcome(&mut self) -> Option<Outcome> {
        *self.calls.borrow_mut() += 1;
        if !self.calls.borrow().is_multiple_of(self.slowness) {
            return None;
        }
        self.waiting.pop_front().map(|tag| Outcome { tag, result: Ok(()) })
    }

    fn failure(&self) -> Option<String> {
        None
    }
}

/// A log of clicks, with a malformed line now and then; the clocks of its lines jump.
fn log(lines: i64) -> String {
    let mut text = String::new();
    for line in 0..lines {
        let at = 1_748_822_400_000 + line * 700 - (line % 13) * 2_000 + if line % 97 == 0 { 3_600_000 } else { 0 };
        let _ = match line % 31 {
            30 => writeln!(text, "broken {line}"),
            _ => writeln!(
                text,
                "{{\"click_timestamp\":{at},\"ad_id\":{},\"user_id\":\"u{line}\",\"ip\":\"10.0.0.1\"}}",
                line % 17
            ),
        };
    }
    text
}

fn agent(folder: &Path, runtime: &tokio::runtime::Runtime, topic: &Topic, (seed, now_ms): (u64, i64)) -> Agent<Fake> {
    let backing = Backing::for_owner(&StoreUrl::of_folder(folder.join("agent")), false).unwrap();
    let numbers = (u128::from(seed) + 1, 7);
    let (journal, state): (_, PartitionState) =
        Journal::open(&backing, None, numbers, runtime.handle().clone()).unwrap();
    let tail = TailSettings { bounded: true, block_bytes: 2_048, ..TailSettings::default() };
    let known = state.inputs.values().cloned().collect();
    let paths = [folder.join("logs").display().to_string()];
    let tailer = Tailer::new(Box::new(LocalFiles), tail, &paths, known, journal.next_input()).unwrap();
    Agent::new(AgentParts {
        settings: AgentSettings { record_size: 1_024, ..AgentSettings::default() },
        time: TimeSettings::default(),
        discovery_interval_ms: 50,
        is_bounded: true,
        name: "test".to_owned(),
        source: Box::new(tailer),
        decoder: Decoder::new(DecodeSettings::default(), IdentityKey::new([0; 16])).unwrap(),
        partitions: PARTITIONS,
        partitioner: Partitioner::Murmur2,
        producer: Fake {
            topic: Arc::clone(topic),
            waiting: VecDeque::new(),
            slowness: 1 + seed % 3,
            calls: RefCell::new(seed),
        },
        journal,
        state,
        now: Now { wall_ms: 1_800_000_000_000 + now_ms, monotonic_ms: now_ms },
    })
}

/// The watermark of the log before each line, by a scan of the whole log.
fn stamps(text: &str) -> BTreeMap<&str, Option<i64>> {
    let settings = TimeSettings::default();
    let mut time = InputTime::default();
    let mut stamps = BTreeMap::new();
    for line in text.lines() {
        stamps.insert(line, time.largest_ms.map(|largest| largest - settings.out_of_orderness_ms));
        if let Some(at) = line.strip_prefix("{\"click_timestamp\":").and_then(|rest| rest.split(',').next()) {
            watermark::observe(&mut time, at.parse().unwrap(), &settings);
        }
    }
    stamps
}

#[test]
fn every_line_arrives_in_order_with_its_stamp_however_often_the_agent_dies() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
    for seed in 0..12 {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("logs")).unwrap();
        let text = log(1_500);
        std::fs::write(folder.path().join("logs/a.log"), &text).unwrap();
        let topic = Topic::default();
        let (mut now_ms, mut lives) = (0, 0);
        'alive: loop {
            let mut agent = agent(folder.path(), &runtime, &topic, (seed * 100 + lives, now_ms));
            lives += 1;
            // The first lives are short.
            for turn in 0.. {
                now_ms += 500;
                let now = Now { wall_ms: 1_800_000_000_000 + now_ms, monotonic_ms: now_ms };
                if agent.turn(now).unwrap() == Turn::Finished {
                    assert_eq!(agent.ledger().read, 1_500);
                    break 'alive;
                }
                if lives < 6 && turn > 3 + seed % 7 {
                    break;
                }
                assert!(turn < 100_000, "the agent does not get on");
            }
        }
        assert!(lives > 1, "it died");
        let stamps = stamps(&text);
        let topic = topic.lock().unwrap();
        let mut arrived = 0;
        for (&partition, records) in topic.iter() {
            let own = |line: &&str| {
                let ad = line.split("\"ad_id\":").nth(1).and_then(|rest| rest.split(',').next());
                let key = ad.unwrap_or(line);
                Partitioner::Murmur2.partition(key.as_bytes(), PARTITIONS) == partition
            };
            let expected: Vec<&str> = text.lines().filter(own).collect();
            // Lines that are sent again after a death are copies.
            let mut seen = Vec::new();
            for (text, stamp) in records {
                for line in text.lines() {
                    if !seen.contains(&line) {
                        seen.push(line);
                    }
                }
                if let Some(first) = text.lines().next() {
                    assert_eq!(*stamp, stamps[first], "seed {seed}: {first}");
                    let minutes = |line: &str| stamps[line].map(|ms| ms.div_euclid(60_000));
                    assert!(
                        text.lines().all(|line| minutes(line) == minutes(first)),
                        "seed {seed}: a record passes a minute"
                    );
                }
            }
            assert_eq!(seen, expected, "seed {seed}, partition {partition}");
            arrived += seen.len();
        }
        assert_eq!(arrived, 1_500);
    }
}
