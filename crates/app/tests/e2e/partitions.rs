//! The same logs read as files, and as a topic with three partitions of stamped records, give equal answers.
//!
//! The topic is in memory. Its agent follows the contract: it guards the times of each log as a whole, routes lines by
//! their ad, stamps each record with the watermark before its first line, and ends records when the watermark passes
//! the end of a minute.

use crate::expected::{Expected, KEY};
use crate::site::{Site, VERDICTS};
use adtally::{config, handles};
use adtally_engine::clock::{Clock, SystemClock, SystemRandomness};
use adtally_engine::commit::CommitThreads;
use adtally_engine::engine::{Engine, Environment, Owned, Workers};
use adtally_engine::ingest::Turn;
use adtally_engine::recovery::{take_over, warm};
use adtally_engine::report::Report;
use adtally_engine::run::Run;
use adtally_engine::{Backing, Ending, RunOptions, Service};
use adtally_model::{
    Country, DecodedBatch, IdentityKey, InputId, InputTime, LaneId, Ledger, Minute, PartitionState, Position, Record,
    RecordTime, Result, ip,
};
use adtally_pipeline::watermark;
use adtally_source::{
    Block, DecodeSettings, Decoder, Discovery, Format, ReadOutcome, RecordBlock, Source, SourceBlock,
};
use adtally_store::backing::StoreUrl;
use adtally_store::data_dir::DataDir;
use adtally_store::embedded::{Embedded, HotPartitions};
use adtally_store::epoch_log::Fingerprints;
use adtally_store::questions::{Filters, Question, Questions, Span};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

const PARTITIONS: u64 = 3;

/// Number of logs that are written concurrently.
const LOGS: usize = 4;

/// Maximum lines of a record.
const RECORD_LINES_MAX: usize = 40;

/// Records of a block.
const BLOCK_RECORDS: usize = 16;

/// One record of a partition.
#[derive(Clone)]
struct Produced {
    input: Arc<str>,
    stamp_ms: Option<i64>,
    text: Vec<u8>,
    lines: usize,
}

/// A line of a log: its text, and, if it is a click in time, its ad and its event time.
struct Line {
    text: Vec<u8>,
    click: Option<(u64, i64)>,
}

/// A log, decoded in one block.
fn decoded(text: &[u8]) -> DecodedBatch {
    let decoder = Decoder::new(DecodeSettings::default(), IdentityKey::new([7; 16])).unwrap();
    let (input, to, text) = (InputId(1), text.len() as u64, text.to_vec());
    decoder.decode(Block { input, from: 0, to, text, format: Format::Ndjson, nul_bytes: 0, overlong: false })
}

/// The same log with every copy of a click equal to its first line: the reading order decides which comes first.
fn with_equal_copies(text: &[u8]) -> Vec<u8> {
    let clicks = decoded(text).clicks;
    let mut firsts = BTreeMap::new();
    let mut first_of = BTreeMap::new();
    for row in 0..clicks.len() {
        let click = clicks.get(row);
        let by = match click.click_id {
            b"" => (click.user_id.to_vec(), click.ip),
            click_id => (click_id.to_vec(), u128::MAX),
        };
        let at = clicks.line_start[row] as usize;
        let first = *firsts.entry((click.event_time_ms, click.ad_id, by)).or_insert(at);
        first_of.insert(at, first);
    }
    let mut equal = Vec::with_capacity(text.len());
    let mut at = 0;
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        let from = first_of.get(&at).copied().unwrap_or(at);
        equal.extend(text[from..].split_inclusive(|&byte| byte == b'\n').next().unwrap_or(line));
        at += line.len();
    }
    equal
}

/// The lines of a log in order.
fn lines_of(text: &[u8], now_ms: i64) -> Vec<Line> {
    let clicks = decoded(text).clicks;
    let row = |row: usize| (clicks.line_start[row] as usize, (clicks.ad_id[row], clicks.event_time_ms[row]));
    let found: BTreeMap<usize, (u64, i64)> = (0..clicks.len()).map(row).collect();
    let mut lines = Vec::new();
    let mut at = 0;
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        let click = found.get(&at).copied().filter(|&(_, at_ms)| at_ms <= now_ms);
        lines.push(Line { text: line.to_vec(), click });
        at += line.len();
    }
    lines
}

/// The records that the agents of these logs produce for each partition, all at the same pace.
fn produce(logs: &[Vec<Line>], options: &RunOptions) -> Vec<Vec<Produced>> {
    let settings = options.settings.time;
    let mut partitions: Vec<Vec<Produced>> = vec![Vec::new(); PARTITIONS as usize];
    let mut filling: BTreeMap<(usize, usize), Produced> = BTreeMap::new();
    let mut times = vec![InputTime::default(); logs.len()];
    let of = |time: &InputTime| time.largest_ms.map(|largest| largest - settings.out_of_orderness_ms);
    let longest = logs.iter().map(Vec::len).max().unwrap_or_default();
    for at in 0..longest {
        for (log, lines) in logs.iter().enumerate() {
            let Some(line) = lines.get(at) else { continue };
            let key = line.click.map_or(at as u64, |(ad, _)| ad);
            let partition = (key % PARTITIONS) as usize;
            let before = of(&times[log]);
            let record = filling.entry((log, partition)).or_insert_with(|| Produced {
                input: format!("log-{log}").into(),
                stamp_ms: before,
                text: Vec::new(),
                lines: 0,
            });
            record.text.extend_from_slice(&line.text);
            record.lines += 1;
            let is_full = record.lines == RECORD_LINES_MAX;
            if let Some((_, at_ms)) = line.click {
                watermark::observe(&mut times[log], at_ms, &settings);
            }
            let minute = |watermark: Option<i64>| watermark.map(Minute::of);
            let passes_minute = minute(of(&times[log])) != minute(before);
            let ended = filling.extract_if(.., |&(of_log, of_partition), _| {
                of_log == log && (passes_minute || (is_full && of_partition == partition))
            });
            ended.for_each(|((_, partition), record)| partitions[partition].push(record));
        }
    }
    filling.into_iter().for_each(|((_, partition), record)| partitions[partition].push(record));
    partitions
}

/// Reads a partition of the topic to its end.
struct TopicSource {
    records: Vec<Produced>,
    /// The next record. Offsets are twice as large: every second one is empty.
    next: usize,
    inputs: BTreeMap<Arc<str>, InputId>,
}

impl TopicSource {
    fn new(records: Vec<Produced>, state: &PartitionState) -> TopicSource {
        let next = state.progress.source.map_or(0, |source| source.to as usize / 2);
        let inputs = state.inputs.values().map(|row| (Arc::clone(&row.origin), row.id)).collect();
        TopicSource { records, next, inputs }
    }
}

impl Source for TopicSource {
    fn discover(&mut self, _: i64) -> Result<Vec<Discovery>> {
        Ok(Vec::new())
    }

    fn read(&mut self, _: LaneId, _: i64) -> Result<ReadOutcome<SourceBlock>> {
        let read = self.records[self.next..].iter().take(BLOCK_RECORDS);
        let (mut text, mut records, mut found) = (Vec::new(), Vec::new(), Vec::new());
        for (produced, at) in read.zip(self.next as u64..) {
            let new = InputId(self.inputs.len() as u64 + 1);
            let input = *self.inputs.entry(Arc::clone(&produced.input)).or_insert(new);
            if input == new {
                found.push((input, Arc::clone(&produced.input)));
            }
            text.extend_from_slice(&produced.text);
            let position = Position { from: 2 * at, to: 2 * at + 2 };
            let time = RecordTime::Stamped(produced.stamp_ms);
            records.push(Record { input, text_end: text.len() as u32, position, time });
        }
        if records.is_empty() {
            return Ok(ReadOutcome::Ended);
        }
        self.next += records.len();
        Ok(ReadOutcome::Block(SourceBlock::Records(RecordBlock {
            text,
            records,
            found,
            format: Format::Ndjson,
            routing: None,
        })))
    }

    fn shared_lane(&self) -> Option<LaneId> {
        Some(LaneId(0))
    }

    fn set_block_bytes(&mut self, _: usize) {}
}

/// Reads the topic with one process that owns all partitions. Returns the source of its answers, and its ledger.
fn read_topic(
    topic: Vec<Vec<Produced>>,
    options: &RunOptions,
    runtime: &tokio::runtime::Runtime,
) -> (Embedded, Ledger) {
    let url = &options.settings.store.data_dir;
    let data_dir = DataDir::own(url.locked_folder().unwrap()).unwrap();
    let backing = Backing::for_owner(url, false).unwrap();
    let stores = runtime.block_on(backing.open()).unwrap();
    let key = data_dir.identity_key([9; 16], stores.log_is_empty).unwrap();
    let lake = Arc::new(stores.lake);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let environment = Environment {
        logs: stores.logs.clone(),
        lake: lake.clone(),
        clock: Arc::clone(&clock),
        randomness: Arc::new(SystemRandomness),
        runtime: runtime.handle().clone(),
        decode_threads: 2,
        report: Report::recovers(options.settings.time, Arc::clone(&clock)),
        sources: None,
        keeper: Arc::default(),
        letters: None,
    };
    let hot = HotPartitions::default();
    let fingerprints = Fingerprints { config: options.settings.fingerprint(), key: key.fingerprint() };
    let (mut engine, Workers { projecting, .. }) = Engine::new(options, key, hot.clone(), environment).unwrap();
    for (partition, records) in topic.into_iter().enumerate() {
        let log = stores.logs.log(partition as u32);
        let taking = take_over(&log, lake.as_ref(), 1 + partition as u128, 100 + partition as u128, fingerprints);
        let mut recovered = runtime.block_on(taking).unwrap();
        let (hot, _) = warm(&mut recovered, 60, clock.wall_ms());
        let source = Box::new(TopicSource::new(records, &recovered.state));
        engine.add(Owned { log, recovered, hot, source, confirm: None }, CommitThreads::start).unwrap();
    }
    let mut run = Run::new(engine);
    let projecting = projecting.start().unwrap();
    loop {
        match run.turn(false) {
            Turn::Finished => break,
            Turn::Worked => {}
            Turn::Nothing => run.wait(),
        }
    }
    projecting.join().unwrap();
    let ledger = run.take_summary().unwrap().ledger;
    (Embedded::new(hot, lake), ledger)
}

/// The questions for both.
fn questions(from: Minute, to: Minute) -> Vec<Question> {
    let mut questions = Vec::new();
    for span in
        [Span::Last(1), Span::Last(3), Span::Last(60), Span::Between(from, to), Span::Between(Minute(from.0 + 1), to)]
    {
        for filters in [
            Filters::default(),
            Filters { country: Some(Country::parse(b"US")), ..Filters::default() },
            Filters { country: Some(Country::UNKNOWN), ..Filters::default() },
            Filters { user_id: Some("u7".to_owned()), ..Filters::default() },
            Filters { ip: ip::parse(b"10.0.0.1"), ..Filters::default() },
        ] {
            questions.push(Question { filters, ..Question::about(span) });
        }
    }
    questions
}

#[test]
fn three_partitions_of_stamped_records_answer_as_the_files_do() {
    let site = Site::new();
    let words = "--lines 120000 --rate 200 --seed 21 --late 1% --duplicates 4% --malformed 0.5% --invalid 0.5% \
                 --click-ids 30% --start 2025-03-01T00:00:00Z";
    let expected = Expected::generate(&site, "whole.log", words);
    site.write("key.toml", KEY);
    let text = with_equal_copies(&site.read("whole.log"));
    let mut logs = vec![Vec::new(); LOGS];
    for (at, line) in text.split_inclusive(|&byte| byte == b'\n').enumerate() {
        logs[at % LOGS].extend_from_slice(line);
    }
    for (at, text) in logs.iter().enumerate() {
        site.write(&format!("logs/{at}.log"), text);
    }

    let (_, mut config) = config::load(Some(&site.path("key.toml")), &[], &[]).unwrap();
    config.run.store.data_dir = StoreUrl::of_folder(site.path("data"));
    config.run.epoch.interval = Duration::from_millis(200);
    config.run.epoch.fsync = false;
    config.run.source.paths = vec![site.path("logs").display().to_string()];
    let options = handles::run_options(&config, Ending::Final, 3);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(8 << 20)
        .enable_all()
        .build()
        .unwrap();
    let logs: Vec<Vec<Line>> = logs.iter().map(|text| lines_of(text, SystemClock.wall_ms())).collect();
    let topic = produce(&logs, &options);
    // A first run ends in the middle, and a second one continues from there.
    let half = topic.iter().map(|records| records[..records.len() / 2].to_vec()).collect();
    read_topic(half, &RunOptions { ending: Ending::UntilEnd, ..options.clone() }, &runtime);
    let (topic, topic_ledger) = read_topic(topic, &options, &runtime);

    // Checks with the binary that every ledger adds up, every count is right, and all stored data agrees.
    let ledger = site.ledger();
    for verdict in VERDICTS {
        let of_partitions = ledger["partitions"].as_array().unwrap().iter();
        let sum: u64 = of_partitions.map(|of| of["ledger"][verdict].as_u64().or(of[verdict].as_u64()).unwrap()).sum();
        assert_eq!(sum, ledger[verdict].as_u64().unwrap(), "{verdict}: {ledger}");
    }
    assert_eq!(ledger["partitions"].as_array().map(Vec::len), Some(PARTITIONS as usize));
    expected.check_counts(&site);
    site.verify();

    site.adtally("run logs --config key.toml --data-dir files --until-end --final").ok();
    let mut config = config.clone();
    config.run.store.data_dir = StoreUrl::of_folder(site.path("files"));
    let options = handles::run_options(&config, Ending::Final, 3);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let service = Service::start(&options, clock, Arc::new(SystemRandomness), runtime.handle()).unwrap();
    let files = service.questions();
    let files_ledger = service.report().total();
    check_equal(&topic_ledger, &files_ledger);

    let span = |name: &str| {
        let text = expected.report[name].as_str().unwrap();
        Minute::of(adtally_model::time::parse_rfc3339(text.as_bytes()).unwrap())
    };
    let ads = [0, 1, 50, 99].map(|rank| expected.report["ads"][rank]["ad_id"].as_str().unwrap().parse().unwrap());
    for question in questions(span("from"), span("to")) {
        let asked = async {
            let (mut one, mut other) =
                (files.top_ads(&question, 100).await.unwrap(), topic.top_ads(&question, 100).await.unwrap());
            for coverage in [&mut one.coverage, &mut other.coverage] {
                // The logs differ, and stamps are older than the lines after them.
                (coverage.revision, coverage.watermark_ms) = (None, None);
            }
            assert_eq!(one, other, "{question:?}");
            for ad in ads {
                let (mut one, mut other) = (
                    files.ad_clicks(ad, &question, true).await.unwrap(),
                    topic.ad_clicks(ad, &question, true).await.unwrap(),
                );
                for coverage in [&mut one.coverage, &mut other.coverage] {
                    (coverage.revision, coverage.watermark_ms) = (None, None);
                }
                assert_eq!(one, other, "ad {ad}: {question:?}");
            }
        };
        runtime.block_on(asked);
    }
    service.run(&AtomicBool::new(true), |_, _| ()).unwrap();
}

/// For copies in several inputs, only the split between duplicate and late may differ.
fn check_equal(one: &Ledger, other: &Ledger) {
    let of = |ledger: &Ledger| {
        let copies = ledger.duplicate + ledger.late;
        [ledger.read, ledger.counted, copies, ledger.future, ledger.malformed, ledger.invalid, ledger.gap_bytes]
    };
    assert_eq!(of(one), of(other), "{one:?} {other:?}");
}
