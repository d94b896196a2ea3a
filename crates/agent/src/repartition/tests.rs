//! A repartition that dies at any moment: each line arrives once, in order, with its stamp, and partitions are read in step.

use super::place::{Beginning, Found, resolve};
use super::*;
use crate::agent::packing::minute;
use adtally_model::{Error, IdentityKey, InputTime};
use adtally_pipeline::watermark;
use adtally_source::{DecodeSettings, Polled, RawRecord, RecordReader};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

const SOURCES: u32 = 3;
const TARGETS: u32 = 4;
const FROM: Topic = Topic { id: 1, partitions: SOURCES };
const TO: Topic = Topic { id: 2, partitions: TARGETS };
const START_MS: i64 = 1_748_822_400_000;

/// A record of the source.
#[derive(Clone, Default)]
struct Stored {
    value: String,
    /// Input and watermark of an agent's record.
    stamp: Option<(&'static str, Option<i64>)>,
    /// When it can be read, in monotonic milliseconds.
    at_ms: i64,
}

/// What the topics and the group have.
#[derive(Default)]
struct Kafka {
    sources: BTreeMap<u32, Vec<Stored>>,
    /// The records of committed transactions, in the order in which they were committed.
    target: Vec<Outgoing>,
    group: BTreeMap<u32, Committed>,
    now_ms: i64,
}

type Shared = Arc<Mutex<Kafka>>;

/// Reads a partition of the source. Each second offset is empty.
struct Reader {
    kafka: Shared,
    partition: u32,
    next: u64,
}

impl RecordReader for Reader {
    fn poll(&mut self, take: &mut dyn FnMut(RawRecord<'_>)) -> Result<Polled> {
        let kafka = self.kafka.lock().unwrap();
        let records = &kafka.sources[&self.partition];
        let at = self.next.div_ceil(2) as usize;
        let Some(stored) = records.get(at).filter(|stored| stored.at_ms <= kafka.now_ms) else {
            self.next = self.next.max(2 * at as u64);
            return Ok(Polled::AtEnd);
        };
        let watermark = stored.stamp.map(|(_, ms)| ms.map_or_else(String::new, |ms| ms.to_string()));
        take(RawRecord {
            offset: 2 * at as u64,
            value: stored.value.as_bytes(),
            input: stored.stamp.map(|(name, _)| name.as_bytes()),
            watermark: watermark.as_ref().map(String::as_bytes),
            sequence: stored.stamp.map(|_| &b"1"[..]),
            csv: None,
            gap: None,
        });
        self.next = 2 * at as u64 + 1;
        Ok(Polled::Record)
    }

    fn lag(&self) -> Option<u64> {
        None
    }

    fn passed(&self) -> u64 {
        self.next
    }
}

/// A producer whose calls fail now and then, before or after they had their effect.
struct Fake {
    kafka: Shared,
    open: Vec<Outgoing>,
    calls: u64,
    /// Every this many calls fails.
    fails_every: u64,
}

impl Transact for Fake {
    fn send(&mut self, record: &Outgoing) -> Result<bool> {
        self.calls += 1;
        if self.calls.is_multiple_of(7) {
            return Ok(false);
        }
        self.open.push(record.clone());
        Ok(true)
    }

    fn commit(&mut self, offsets: &[Committed]) -> Result<bool> {
        self.calls += 1;
        let fails = self.calls.is_multiple_of(self.fails_every);
        if fails && self.calls.is_multiple_of(2) {
            return Err(Error::transient("it was not committed"));
        }
        if !fails && self.calls.is_multiple_of(3) {
            return Ok(false);
        }
        let mut kafka = self.kafka.lock().unwrap();
        kafka.target.append(&mut self.open);
        kafka.group.extend(offsets.iter().map(|offset| (offset.partition, offset.clone())));
        if fails { Err(Error::transient("the reply was lost")) } else { Ok(true) }
    }

    fn failure(&self) -> Option<String> {
        None
    }
}

/// Begins where the group is.
fn begin(kafka: &Shared, is_bounded: bool, fails_every: u64) -> Repartition<Fake> {
    let (committed, now_ms, ends) = {
        let kafka = kafka.lock().unwrap();
        let committed: Vec<Committed> = kafka.group.values().cloned().collect();
        let ends = kafka.sources.iter().map(|(&partition, records)| (partition, 2 * records.len() as u64));
        (committed, kafka.now_ms, ends.collect::<HashMap<u32, u64>>())
    };
    let found = Found {
        names: ["old", "new", "g"],
        from: FROM,
        to: TO,
        committed: &committed,
        is_target_empty: true,
        is_beginning_given: false,
    };
    let places = match resolve(&found).unwrap() {
        Beginning::First => BTreeMap::new(),
        Beginning::Further(places) => places,
    };
    let lane = |partition: u32| {
        let place = places.get(&partition).copied().unwrap_or_default();
        let reader = Reader { kafka: Arc::clone(kafka), partition, next: place.next };
        let end = is_bounded.then(|| ends[&partition]);
        LaneParts { partition, reader: Box::new(reader), place, end }
    };
    Repartition::new(RepartitionParts {
        settings: AgentSettings { record_size: 1_024, ..AgentSettings::default() },
        time: TimeSettings::default(),
        decoder: Decoder::new(DecodeSettings::default(), IdentityKey::new([0; 16])).unwrap(),
        partitioner: Partitioner::Murmur2,
        source: "old".to_owned(),
        from: FROM,
        to: TO,
        owner: 7,
        lanes: (0..SOURCES).map(lane).collect(),
        producer: Fake { kafka: Arc::clone(kafka), open: Vec::new(), calls: 0, fails_every },
        now: now(now_ms),
    })
}

fn now(now_ms: i64) -> Now {
    Now { wall_ms: START_MS + 86_400_000 + now_ms, monotonic_ms: now_ms }
}

/// Turns a repartition until it has finished, or failed, or at most so often. Returns whether it has finished.
fn run(kafka: &Shared, repartition: &mut Repartition<Fake>, turns: u64) -> bool {
    for _ in 0..turns {
        let now_ms = {
            let mut kafka = kafka.lock().unwrap();
            kafka.now_ms += 100;
            kafka.now_ms
        };
        match repartition.turn(now(now_ms)) {
            Ok(Turn::Finished) => return true,
            Ok(Turn::Worked | Turn::Nothing) => {}
            Err(error) => {
                assert!(error.is_retryable(), "{error}");
                return false;
            }
        }
    }
    false
}

/// The line of a click. `number` makes it unique.
fn click(at_ms: i64, number: i64) -> String {
    let ad = number % 13;
    format!("{{\"click_timestamp\":{at_ms},\"ad_id\":{ad},\"user_id\":\"u{number}\",\"ip\":\"10.0.0.1\"}}")
}

/// The event time in such a line.
fn time_of(line: &str) -> Option<i64> {
    line.strip_prefix("{\"click_timestamp\":")?.split(',').next()?.parse().ok()
}

/// The partition of a line.
fn home_of(line: &str) -> u32 {
    let ad = line.split("\"ad_id\":").nth(1).and_then(|rest| rest.split(',').next());
    Partitioner::Murmur2.partition(ad.unwrap_or(line).as_bytes(), TARGETS)
}

fn mark_of(time: &InputTime) -> Option<i64> {
    time.largest_ms.map(|largest_ms| largest_ms - TimeSettings::default().out_of_orderness_ms)
}

/// Records of other producers in partition 0 and 1, with jumps and malformed lines, and of two agents in partition 2. Returns the
/// lines of each input of the target, with the watermark before each.
fn fill(kafka: &Shared) -> BTreeMap<String, Vec<(String, Option<i64>)>> {
    let (mut kafka, settings) = (kafka.lock().unwrap(), TimeSettings::default());
    let mut expected: BTreeMap<String, Vec<(String, Option<i64>)>> = BTreeMap::new();
    for partition in 0..2_u32 {
        let mut time = InputTime::default();
        let mut records = Vec::new();
        for line in 0..700_i64 {
            let at_ms = START_MS + line * 1_700 - (line % 11) * 900 + if line % 97 == 0 { 3_600_000 } else { 0 };
            let text = match line % 31 {
                30 => format!("broken {partition} {line}"),
                _ => click(at_ms, 10 * line + i64::from(partition)),
            };
            expected.entry(format!("old/{partition}")).or_default().push((text.clone(), mark_of(&time)));
            if let Some(at_ms) = time_of(&text) {
                watermark::observe(&mut time, at_ms, &settings);
            }
            // Some producers end lines, and some send several lines at once.
            match records.last_mut() {
                Some(Stored { value, .. }) if line % 5 == 1 => *value += &text,
                _ => records.push(Stored { value: text + "\n", ..Stored::default() }),
            }
        }
        kafka.sources.insert(partition, records);
    }
    let mut records = Vec::new();
    for record in 0..300_i64 {
        let name = ["a:log", "b:log"][usize::try_from(record % 2).unwrap()];
        let mark_ms = (record > 10).then_some(START_MS + record * 4_000);
        let lines = (0..record % 4).map(|line| click(START_MS + record * 4_000 + line, 10 * (4 * record + line) + 2));
        let lines: Vec<String> = lines.collect();
        let input = expected.entry(format!("{name}@old/2")).or_default();
        input.extend(lines.iter().map(|line| (line.clone(), mark_ms)));
        let value = lines.iter().map(|line| format!("{line}\n")).collect();
        records.push(Stored { value, stamp: Some((name, mark_ms)), at_ms: 0 });
    }
    kafka.sources.insert(2, records);
    expected
}

#[test]
fn each_line_arrives_once_and_in_order_with_its_stamp_however_often_the_process_dies() {
    for seed in 0..12_u64 {
        let kafka = Shared::default();
        let expected = fill(&kafka);
        let mut lives = 0;
        loop {
            // The first lives are short, and some commits of theirs fail.
            let mut repartition = begin(&kafka, true, if lives < 8 { 5 + seed } else { u64::MAX });
            lives += 1;
            let turns = if lives < 8 { 4 + (seed * 7 + lives * 5) % 23 } else { u64::MAX };
            if run(&kafka, &mut repartition, turns) {
                break;
            }
        }
        assert!(lives > 1, "it died");
        let kafka = kafka.lock().unwrap();
        let mut arrived: BTreeMap<(&str, u32), Vec<&str>> = BTreeMap::new();
        for record in &kafka.target {
            let lines: Vec<&str> = std::str::from_utf8(&record.text).unwrap().lines().collect();
            let known: HashMap<&str, Option<i64>> =
                expected[&*record.input].iter().map(|(line, mark_ms)| (line.as_str(), *mark_ms)).collect();
            if let Some(first) = lines.first() {
                assert_eq!(record.watermark_ms, known[first], "seed {seed}: {first}");
            }
            for &line in &lines {
                assert_eq!(record.partition, home_of(line), "seed {seed}: {line}");
                let same = minute(known[line]) == minute(record.watermark_ms);
                assert!(same, "seed {seed}: a record passes a minute at {line}");
            }
            arrived.entry((&*record.input, record.partition)).or_default().extend(lines);
        }
        for (input, lines) in &expected {
            for partition in 0..TARGETS {
                let own = lines.iter().map(|(line, _)| line.as_str()).filter(|line| home_of(line) == partition);
                let found = arrived.remove(&(input.as_str(), partition)).unwrap_or_default();
                assert_eq!(found, own.collect::<Vec<_>>(), "seed {seed}: {input} in {partition}");
            }
        }
        assert!(arrived.is_empty(), "{arrived:?}");
        for partition in 0..SOURCES {
            let end = 2 * kafka.sources[&partition].len() as u64;
            assert!(kafka.group[&partition].next + 1 >= end, "the offsets are those of the ends");
        }
    }
}

#[test]
fn records_are_numbered_by_input_and_partition() {
    let kafka = Shared::default();
    fill(&kafka);
    assert!(run(&kafka, &mut begin(&kafka, true, u64::MAX), u64::MAX));
    let kafka = kafka.lock().unwrap();
    let mut last: HashMap<(&str, u32), u64> = HashMap::new();
    for record in &kafka.target {
        let last = last.entry((&*record.input, record.partition)).or_default();
        *last += 1;
        assert_eq!(record.sequence, *last, "{} in {}", record.input, record.partition);
    }
}

/// Of two partitions with old lines, one is filled a second after the other, when both had been at their ends for long. Without
/// patience, the first would be read to its end, and minutes would become final before the lines of the other came.
#[test]
fn partitions_are_read_in_step_even_if_a_burst_arrives_unevenly() {
    let kafka = Shared::default();
    let lines = |partition: i64, at_ms: i64| {
        let record = |line: i64| Stored {
            value: click(START_MS + line * 2_000, 10 * line + partition) + "\n",
            stamp: None,
            at_ms,
        };
        (0..3_600).map(record).collect::<Vec<_>>()
    };
    {
        let mut kafka = kafka.lock().unwrap();
        kafka.sources.insert(0, lines(0, 60_000));
        kafka.sources.insert(1, lines(1, 61_000));
        kafka.sources.insert(2, Vec::new());
    }
    let mut repartition = begin(&kafka, false, u64::MAX);
    assert!(!run(&kafka, &mut repartition, 2_000));
    let kafka = kafka.lock().unwrap();
    let (mut last, mut newest) = (BTreeMap::new(), BTreeMap::new());
    for record in &kafka.target {
        let Some(mark_ms) = record.watermark_ms else { continue };
        let before = last.insert((&*record.input, record.partition), mark_ms);
        assert!(before.is_none_or(|before| before <= mark_ms), "a stamp goes back");
        let newest_ms: &mut i64 = newest.entry(&*record.input).or_insert(mark_ms);
        *newest_ms = mark_ms.max(*newest_ms);
        let ahead_ms = newest.values().max().zip(newest.values().min()).map(|(most, least)| most - least);
        // A minute in a turn, a minute in records that are not full, and some lines.
        assert!(ahead_ms.is_some_and(|ahead_ms| ahead_ms <= 180_000), "one partition is {ahead_ms:?} ms ahead");
    }
    assert_eq!(newest.len(), 2);
    let (first, second) = (START_MS + 60_000, START_MS + 3_600_000);
    let position = |name: &str, at_ms: i64| {
        kafka.target.iter().position(|record| &*record.input == name && record.watermark_ms >= Some(at_ms)).unwrap()
    };
    assert!(position("old/1", first) < position("old/0", second), "the second partition is not left behind");
    let lines: usize = kafka.target.iter().map(|record| record.text.split(|&byte| byte == b'\n').count() - 1).sum();
    assert_eq!(lines, 7_200);
}

#[test]
fn target_partitions_without_new_lines_are_told_the_watermark() {
    let kafka = Shared::default();
    let stamped = |at_ms: i64, lines: &[String], ready_ms: i64| Stored {
        value: lines.iter().map(|line| format!("{line}\n")).collect(),
        stamp: Some(("a:log", Some(at_ms))),
        at_ms: ready_ms,
    };
    // Ads 0 to 12 in the first record; nothing but a watermark in the second.
    let many: Vec<String> = (0..13).map(|number| click(START_MS, number)).collect();
    {
        let mut kafka = kafka.lock().unwrap();
        kafka.sources.insert(0, vec![stamped(START_MS, &many, 0), stamped(START_MS + 120_000, &[], 5_000)]);
        kafka.sources.insert(1, Vec::new());
        kafka.sources.insert(2, Vec::new());
    }
    let mut repartition = begin(&kafka, false, u64::MAX);
    run(&kafka, &mut repartition, 200);
    let kafka = kafka.lock().unwrap();
    let partitions = |is_empty: bool, mark_ms: i64| {
        let of = kafka.target.iter().filter(|record| record.text.is_empty() == is_empty);
        let of = of.filter(|record| record.watermark_ms == Some(mark_ms)).map(|record| record.partition);
        let mut of: Vec<u32> = of.collect();
        of.sort_unstable();
        of
    };
    let mut homes: Vec<u32> = many.iter().map(|line| home_of(line)).collect();
    homes.sort_unstable();
    homes.dedup();
    assert!(homes.len() > 1);
    assert_eq!(partitions(false, START_MS), homes);
    assert_eq!(partitions(true, START_MS + 120_000), (0..TARGETS).collect::<Vec<_>>());
    assert!(kafka.target.iter().all(|record| &*record.input == "a:log@old/0"));
}

#[test]
fn a_stop_commits_what_was_read() {
    let kafka = Shared::default();
    fill(&kafka);
    let mut repartition = begin(&kafka, false, u64::MAX);
    assert!(!run(&kafka, &mut repartition, 8));
    repartition.stop();
    assert!(run(&kafka, &mut repartition, 1_000));
    let kafka = kafka.lock().unwrap();
    let lines: usize = kafka.target.iter().map(|record| record.text.split(|&byte| byte == b'\n').count() - 1).sum();
    assert!(lines > 0);
    assert_eq!(lines as u64, repartition.lines());
    assert!(kafka.group[&0].next > 0);
}

/// A partition with heartbeats alone never has a watermark, and is never at its end for long.
#[test]
fn a_partition_whose_watermark_stands_still_holds_up_nobody() {
    let kafka = Shared::default();
    {
        let mut kafka = kafka.lock().unwrap();
        let beat = |second: i64| Stored { value: "beat\n".to_owned(), stamp: None, at_ms: second * 1_000 };
        kafka.sources.insert(0, (0..120).map(beat).collect());
        let value = |number: i64| click(START_MS + number * 1_000, number) + "\n";
        let record = |second: i64| Stored { value: value(second), stamp: None, at_ms: second * 1_000 };
        kafka.sources.insert(1, (0..120).map(record).collect());
        kafka.sources.insert(2, Vec::new());
    }
    let mut repartition = begin(&kafka, false, u64::MAX);
    assert!(!run(&kafka, &mut repartition, 4_000));
    let kafka = kafka.lock().unwrap();
    let of = |input: &str| -> usize {
        let records = kafka.target.iter().filter(|record| &*record.input == input);
        records.map(|record| record.text.split(|&byte| byte == b'\n').count() - 1).sum()
    };
    assert_eq!((of("old/0"), of("old/1")), (120, 120), "at {} ms", kafka.now_ms);
}

/// Inputs are forgotten when they bring nothing for long, but not while records of theirs wait for another partition.
#[test]
fn inputs_of_records_that_wait_are_remembered() {
    let kafka = Shared::default();
    {
        let mut kafka = kafka.lock().unwrap();
        // A backlog that takes an hour to arrive, and one record that is far ahead of it.
        let record = |number: i64| Stored {
            value: click(START_MS + number * 1_000, number) + "\n",
            stamp: None,
            at_ms: number * 1_000,
        };
        kafka.sources.insert(0, (0..3_600).map(record).collect());
        let ahead = |number: i64| Stored {
            value: click(START_MS + 3_000_000, number) + "\n",
            stamp: Some(("a:log", Some(START_MS + 3_000_000))),
            at_ms: 0,
        };
        kafka.sources.insert(1, (0..2).map(ahead).collect());
        kafka.sources.insert(2, Vec::new());
    }
    let mut repartition = begin(&kafka, false, u64::MAX);
    assert!(!run(&kafka, &mut repartition, 90_000));
    let kafka = kafka.lock().unwrap();
    let lines: usize = kafka.target.iter().map(|record| record.text.split(|&byte| byte == b'\n').count() - 1).sum();
    assert_eq!(lines, 3_602, "at {} ms", kafka.now_ms);
}
