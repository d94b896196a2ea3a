//! Measures each stage of a click separately, next to its floor: the time of memory, the checksum or zstd for the same
//! bytes.
//!
//! Run by `cargo xtask bench --only stages`, which reads the printed lines: a stage, its nanoseconds per click, the
//! name of the floor, and the floor's nanoseconds. The values are medians of several repetitions.

use adtally_allocator::Allocator;
use adtally_generate::{DEFAULT_START, Format as LogFormat, Generator, MISSION_ADS, MISSION_RATE, Settings};
use adtally_model::identity::IdentityFields;
use adtally_model::time::parse_rfc3339;
use adtally_model::{ClickColumns, Epoch, Fold, IdentityKey, InputId, InputRow, Minute, PartitionState, Progress};
use adtally_pipeline::{ClockReading, EpochDraft, Partition, PendingBatch, RunEnd, TimeSettings};
use adtally_source::{Block, DecodeSettings, Decoder, Format};
use adtally_store::epoch_log::codec;
use adtally_store::hot_counts::{HotCounts, PendingEpoch};
use adtally_store::lake::{ClickRows, encode_clicks};
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Number of clicks: an epoch of a bulk run.
const CLICKS: u64 = 1_000_000;

/// Repetitions, of which the median counts.
const TIMES: usize = 7;

/// Bytes of a block of text, as configured by default.
const BLOCK_BYTES: usize = 256 << 10;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() {
    // The same settings as in the binary.
    adtally_allocator::use_small_pages();
    adtally_allocator::keep_freed_memory(Duration::from_secs(10));
    // `cargo test --benches` only checks that this runs.
    let clicks = if std::env::args().any(|word| word == "--bench") { CLICKS } else { 20_000 };
    let text = text(clicks);
    let key = IdentityKey::new([7; 16]);
    let decoder = Decoder::new(DecodeSettings::default(), key).expect("default settings");

    let blocks = blocks(&text);
    let decoding =
        time(|| blocks.clone(), |blocks| blocks.into_iter().map(|block| decoder.decode(block)).collect::<Vec<_>>());
    let copying = time(|| (), |()| text.clone());
    report("decode", decoding, "copying the text", copying, clicks);

    let batches: Vec<_> = blocks.iter().map(|block| decoder.decode(block.clone())).collect();
    let columns: Vec<Arc<ClickColumns>> = batches.iter().map(|batch| Arc::new(batch.clicks.clone())).collect();
    let identifying = time(|| (), |()| columns.iter().fold(0, |mixed, columns| mixed ^ identify(&key, columns)));
    let bytes: usize = columns.iter().map(|columns| columns.len() * 33 + columns.user_bytes.len()).sum();
    let hashing = time(|| vec![1_u8; bytes], |bytes| codec::checksum(&bytes));
    report("identity", identifying, "SipHash-2-4 of the contiguous fields", hashing, clicks);

    let judging = time(
        || (partition(), batches.iter().cloned().map(PendingBatch::new).collect::<Vec<_>>()),
        |(mut partition, mut batches)| {
            judge(&mut partition, &mut batches);
            (partition, batches)
        },
    );
    let probing =
        time(|| vec![0_u128; (clicks as usize * 2).next_power_of_two()], |slots| write_at_random(slots, &columns));
    report("judge: watermark, deduplicate, window", judging, "one random write of 16 bytes per click", probing, clicks);

    let draft = || {
        let mut partition = partition();
        judge(&mut partition, &mut batches.iter().cloned().map(PendingBatch::new).collect::<Vec<_>>());
        let ended = partition.end_epoch(&now(), RunEnd::GoesOn).expect("a ledger that adds up");
        ended.expect("an epoch with clicks")
    };
    let sorting = time(|| draft().windows, |windows| windows.finish());
    let copying = time(|| vec![0_u64; clicks as usize], |numbers| (0..4).map(|_| numbers.clone()).collect::<Vec<_>>());
    report("sort counts", sorting, "four copies of 8 bytes per click", copying, clicks);

    let one = draft();
    let parquet = time(|| (), |()| encode_clicks(&rows(&one), 0, 1, 1).expect("rows of ours"));
    let raw: Vec<u8> = columns.iter().flat_map(|columns| raw_bytes(columns)).collect();
    let zstd = time(|| (), |()| zstd::bulk::compress(&raw, 1).expect("memory to compress in"));
    report("encode raw clicks as Parquet", parquet, "zstd, level 1, of the columns", zstd, clicks);

    let epoch = epoch(draft());
    let encoding = time(|| (), |()| codec::encode(&epoch).expect("a record of ours"));
    let (record, checksum) = codec::encode(&epoch).expect("a record of ours");
    let floor = time(|| record.clone(), |record| codec::checksum(&record));
    report("encode the epoch record", encoding, "its checksum", floor, clicks);

    let folding = time(
        || (),
        |()| {
            let (epoch, checksum) = codec::decode(&record).expect("a record of ours");
            let mut fold = Fold::new(1, None).expect("no base yet");
            fold.apply(&epoch, checksum).expect("the first record");
            Partition::new(TimeSettings::default(), fold.finish().expect("one record"))
        },
    );
    report("read, fold and restore the epoch", folding, "its checksum", floor, clicks);
    black_box(checksum);

    let hot = HotCounts::new(60);
    hot.commit(
        epoch.progress,
        Arc::new(PendingEpoch { epoch: 1, counts: epoch.counts.clone().into(), staged: Vec::new() }),
    );
    let snapshot = hot.snapshot();
    let count_rows: usize = epoch.counts.iter().map(adtally_model::MinuteCounts::len).sum();
    let top = time(
        || (),
        |()| {
            let mut sums = snapshot.sums();
            snapshot.add_minutes(&mut sums, Minute(0), Minute(i64::MAX), None);
            sums.top(100)
        },
    );
    let column = vec![1_u32; count_rows * 2];
    let reading = time(|| (), |()| column.iter().map(|&clicks| u64::from(black_box(clicks))).sum::<u64>());
    report("top 100, per row of counts", top, "reading its 8 bytes", reading, count_rows as u64);
}

fn text(clicks: u64) -> Vec<u8> {
    let settings = Settings {
        amount: adtally_generate::Amount::Lines(clicks),
        seed: 1,
        rate: MISSION_RATE,
        ads: MISSION_ADS,
        duplicates: 0.01,
        exact_copies: false,
        late: 0.0,
        malformed: 0.0,
        invalid: 0.0,
        click_ids: 0.0,
        out_of_order_ms: 2_000,
        start_ms: parse_rfc3339(DEFAULT_START.as_bytes()).expect("the start is a time"),
        format: LogFormat::Ndjson,
    };
    let mut generator = Generator::new(settings).expect("settings in range");
    let mut text = Vec::new();
    while generator.next_line(&mut text) {}
    text
}

fn blocks(text: &[u8]) -> Vec<Block> {
    let (mut blocks, mut from) = (Vec::new(), 0);
    while from < text.len() {
        let end = (from + BLOCK_BYTES).min(text.len());
        let to = from + text[from..end].iter().rposition(|&byte| byte == b'\n').map_or(end - from, |at| at + 1);
        let (input, format) = (InputId(1), Format::Ndjson);
        let text = text[from..to].to_vec();
        blocks.push(Block { input, from: from as u64, to: to as u64, text, format, nul_bytes: 0, overlong: false });
        from = to;
    }
    blocks
}

fn identify(key: &IdentityKey, columns: &ClickColumns) -> u64 {
    let mut mixed = 0;
    for row in 0..columns.len() {
        let identity = key.identify(&IdentityFields {
            event_time_ms: columns.event_time_ms[row],
            ad_id: columns.ad_id[row],
            ip: columns.ip[row],
            country: columns.country[row].rank(),
            user_id: columns.user_id(row),
            click_id: columns.click_id(row),
        });
        mixed ^= identity.table_hash();
    }
    mixed
}

fn now() -> ClockReading {
    let now_ms = 1_800_000_000_000;
    ClockReading { guarded_ms: now_ms, wall_ms: now_ms, agrees: true }
}

fn partition() -> Partition {
    let mut partition = Partition::new(
        TimeSettings::default(),
        PartitionState { progress: Progress { next_input: 1, ..Progress::default() }, ..PartitionState::default() },
    );
    let row = InputRow::new(InputId(1), "clicks.ndjson", 0);
    partition.add_input(row, &now());
    partition
}

fn judge(partition: &mut Partition, batches: &mut [PendingBatch]) {
    for batch in batches {
        partition.judge(batch, &now(), usize::MAX).expect("batches in their order");
    }
}

fn write_at_random(mut slots: Vec<u128>, columns: &[Arc<ClickColumns>]) -> Vec<u128> {
    let shift = 64 - slots.len().trailing_zeros();
    for identity in columns.iter().flat_map(|columns| &columns.identity) {
        slots[(identity.table_hash() >> shift) as usize] = identity.0;
    }
    slots
}

fn rows(draft: &EpochDraft) -> Vec<ClickRows<'_>> {
    draft
        .clicks
        .iter()
        .map(|part| ClickRows {
            batch: &part.columns,
            rows: &part.rows,
            input_name: &part.input,
            positions: part.positions,
            sign: 1,
        })
        .collect()
}

/// The columns as bytes: times, ads, addresses, users.
fn raw_bytes(columns: &ClickColumns) -> Vec<u8> {
    let mut bytes = Vec::new();
    columns.event_time_ms.iter().for_each(|time| bytes.extend_from_slice(&time.to_le_bytes()));
    columns.ad_id.iter().for_each(|ad| bytes.extend_from_slice(&ad.to_le_bytes()));
    columns.ip.iter().for_each(|&ip| bytes.extend_from_slice(adtally_model::ip::format(ip).as_bytes()));
    bytes.extend_from_slice(&columns.user_bytes);
    bytes
}

fn epoch(draft: EpochDraft) -> Epoch {
    Epoch {
        progress: Progress { log_id: 7, number: 1, ..draft.progress },
        writer: 9,
        predecessor: 0,
        oldest_needed: 1,
        claim: false,
        reconcile: None,
        inputs: draft.inputs,
        counts: draft.windows.finish(),
        identities: draft.identities,
        staged: Vec::new(),
        config_fingerprint: 0,
        key_fingerprint: 0,
        base: None,
    }
}

/// The median time of some work in nanoseconds, without preparing it and dropping its result.
fn time<T, R>(mut prepare: impl FnMut() -> T, mut work: impl FnMut(T) -> R) -> f64 {
    let mut times: Vec<f64> = (0..TIMES)
        .map(|_| {
            let prepared = prepare();
            let began = clock();
            let made = black_box(work(black_box(prepared)));
            let took = began.elapsed().as_nanos() as f64;
            drop(made);
            took
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[TIMES / 2]
}

#[expect(clippy::disallowed_methods, reason = "a bench takes place in real time")]
fn clock() -> Instant {
    Instant::now()
}

fn report(stage: &str, took: f64, floor: &str, least: f64, clicks: u64) {
    let each = |nanoseconds: f64| nanoseconds / clicks as f64;
    println!("{stage}\t{:.2}\t{floor}\t{:.2}", each(took), each(least));
}
