//! Tests of the epoch log.
//!
//! Contents: fixtures; the codec; owners and fences; folding; collecting.

use super::*;
use adtally_model::epoch::{BASE_EVERY, FOLD_BEFORE_BASE, StagedFile, StagedTable};
use adtally_model::fold::FoldedMinute;
use adtally_model::input::Fingerprint;
use adtally_model::{
    Country, ErrorKind, Frontiers, Identity, InputId, InputRow, InputStatus, InputTime, Ledger, Minute, MinuteCounts,
    Position, Verdict, Watermark,
};
use async_trait::async_trait;
use futures::executor::block_on;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::{CopyOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, PutMultipartOptions, PutResult};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

const KEYS: Fingerprints = Fingerprints { config: 1, key: 2 };

/// A record as this format version writes it, byte by byte: see [`small`].
const GOLDEN: &str = include_str!("../../tests/golden/epoch_v1.hex");

// ---- fixtures ----

fn counts(minute: i64, rows: &[(u64, &str, u32)]) -> MinuteCounts {
    let mut counts = MinuteCounts::empty(Minute(minute));
    rows.iter().for_each(|&(ad, country, clicks)| counts.push(ad, Country::parse(country.as_bytes()), clicks));
    counts
}

fn input(id: u64, position: Position, ledger: Ledger) -> InputRow {
    InputRow {
        id: InputId(id),
        name: format!("logs/{id}.log"),
        fingerprint: Fingerprint { head_len: 4_096, head_hash: 0x0102_0304, tail_len: 64, tail_hash: u64::MAX },
        generation: 2,
        compressed: true,
        size: 123_456,
        position,
        time: InputTime { largest_ms: Some(1_767_225_600_123), run: 3, run_least_ms: -1, advanced_at_ms: 5 },
        status: InputStatus::Idle,
        ledger,
        seen_at_ms: 1_767_225_700_000,
    }
}

/// A record with something in every field.
fn small() -> Epoch {
    let mut ledger = Ledger { conflicting_duplicates: 1, gap_bytes: 9, ..Ledger::default() };
    ledger.book(Verdict::Counted, 3);
    ledger.book(Verdict::Duplicate, 2);
    ledger.book(Verdict::Late, 1);
    let identities =
        MinuteIdentities { minute: Minute(29_453_760), identities: vec![Identity(7), Identity(u128::MAX)] };
    let counted = counts(29_453_760, &[(7, "DE", 1), (7, "US", 200), (i64::MAX as u64, "ZZ", u32::MAX)]);
    Epoch {
        log_id: 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff,
        partition: 3,
        number: 64,
        writer: u128::MAX - 1,
        predecessor: 12_345,
        oldest_needed: 2,
        claim: false,
        clock_ms: 1_767_225_700_000,
        frontiers: Frontiers {
            watermark: Watermark::at(1_767_225_595_000),
            closed: Watermark::at(1_767_225_600_000),
            final_: Watermark::at(-1),
            expired: Watermark::NONE,
        },
        newest_click_ms: Some(1_767_225_600_123),
        largest_guarded_ms: None,
        next_input: 5,
        all_ended: true,
        reopened_from_ms: Some(0),
        inputs: vec![input(4, Position { from: 10, to: 300 }, ledger)],
        gone: Ledger { read: 1, late: 1, ..Ledger::default() },
        ledger,
        counts: vec![counted.clone(), counts(29_453_761, &[(1, "FR", 1)])],
        identities: vec![identities.clone()],
        staged: vec![StagedFile {
            table: StagedTable::Clicks,
            path: "click_date=2026-01-01/click_hour=0/x.parquet".into(),
            size: 1_000,
            rows: 3,
            partition_values: vec![("click_date".into(), "2026-01-01".into())],
            event_time_ms: Some((1, 2)),
            stats: "{\"numRecords\":3}".into(),
        }],
        config_fingerprint: 0xfeed,
        key_fingerprint: 0xbeef,
        base: Some(Box::new(Base {
            inputs: vec![input(4, Position::at(300), ledger)],
            minutes: vec![LiveMinute { begun: 1, identities, counts: counted }],
        })),
    }
}

// ---- the codec ----

#[test]
fn the_format_of_version_1_stays_as_it_is() {
    let golden: Vec<u8> = GOLDEN
        .split_ascii_whitespace()
        .flat_map(|line| line.as_bytes().chunks(2))
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect();
    let (epoch, sum) = codec::decode(&golden).unwrap();
    assert_eq!(epoch, small());
    let (bytes, written) = codec::encode(&small()).unwrap();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!((bytes, written), (golden, sum), "written now: {hex}");
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    let (bytes, _) = codec::encode(&small()).unwrap();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            assert_eq!(codec::decode(&damaged).unwrap_err().kind(), ErrorKind::Corrupt, "bit {bit} of byte {at}");
        }
        let mut overwritten = bytes.clone();
        overwritten[at] = !overwritten[at];
        assert!(codec::decode(&overwritten).is_err(), "byte {at}");
        assert_eq!(codec::decode(&bytes[..at]).unwrap_err().kind(), ErrorKind::Corrupt, "cut to {at} bytes");
        assert!(codec::decode(&bytes[at + 1..]).is_err(), "begun after {at} bytes");
    }
    for more in [1, 16, 4_096] {
        let longer = [bytes.clone(), vec![0; more]].concat();
        assert_eq!(codec::decode(&longer).unwrap_err().kind(), ErrorKind::Corrupt, "{more} bytes more");
    }
}

#[test]
fn lies_under_a_right_checksum_are_errors_not_panics() {
    let (bytes, _) = codec::encode(&small()).unwrap();
    let content = &bytes[..bytes.len() - codec::CHECKSUM_BYTES];
    for at in 8..content.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut lie = content.to_vec();
            lie[at] = value;
            let sum = codec::checksum(&lie).to_le_bytes();
            lie.extend_from_slice(&sum);
            if let Err(error) = codec::decode(&lie) {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{value} at {at}: {error}");
            }
        }
    }
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let (mut bytes, _) = codec::encode(&small()).unwrap();
    bytes[8] = 2;
    let error = codec::decode(&bytes).unwrap_err();
    assert!(error.to_string().contains("format version 2"), "{error}");
}

fn any_counts() -> impl Strategy<Value = MinuteCounts> {
    let rows = btree_map((0..=i64::MAX as u64, 0..251_u8), 1..=u32::MAX, 0..20);
    (any::<i64>(), rows).prop_map(|(minute, rows)| {
        let mut counts = MinuteCounts::empty(Minute(minute));
        rows.into_iter().for_each(|((ad, rank), clicks)| counts.push(ad, Country::from_rank(rank).unwrap(), clicks));
        counts
    })
}

fn any_identities() -> impl Strategy<Value = MinuteIdentities> {
    (any::<i64>(), vec(any::<u128>(), 0..20)).prop_map(|(minute, identities)| MinuteIdentities {
        minute: Minute(minute),
        identities: identities.into_iter().map(Identity).collect(),
    })
}

fn any_input() -> impl Strategy<Value = InputRow> {
    (any::<[u64; 6]>(), ".{0,40}", any::<bool>(), 0..4, option::of(any::<i64>())).prop_map(
        |(numbers, name, compressed, status, largest_ms)| InputRow {
            name,
            compressed,
            size: numbers[2],
            generation: numbers[3] as u32,
            seen_at_ms: numbers[4] as i64,
            time: InputTime { largest_ms, run: numbers[5] as u32, ..InputTime::default() },
            status: [InputStatus::Holding, InputStatus::Idle, InputStatus::Ended, InputStatus::Released][status],
            ..input(numbers[0], Position { from: numbers[1], to: numbers[2] }, Ledger::default())
        },
    )
}

fn any_epoch() -> impl Strategy<Value = Epoch> {
    let live = (any::<u64>(), any_counts(), any_identities()).prop_map(|(begun, counts, identities)| LiveMinute {
        begun,
        counts,
        identities,
    });
    let base =
        (vec(any_input(), 0..3), vec(live, 0..3)).prop_map(|(inputs, minutes)| Box::new(Base { inputs, minutes }));
    let numbers = (any::<[u128; 3]>(), any::<[u64; 8]>(), any::<[Option<i64>; 7]>(), any::<[bool; 2]>());
    let columns = (vec(any_input(), 0..4), vec(any_counts(), 0..4), vec(any_identities(), 0..4), option::of(base));
    (numbers, columns).prop_map(|((ids, numbers, times, flags), (inputs, counts, identities, base))| {
        let watermark = |at: usize| times[at].map_or(Watermark::NONE, Watermark::at);
        Epoch {
            log_id: ids[0],
            writer: ids[1],
            predecessor: ids[2],
            partition: numbers[0] as u32,
            number: numbers[1],
            oldest_needed: numbers[2],
            clock_ms: numbers[3] as i64,
            next_input: numbers[4],
            config_fingerprint: numbers[5],
            key_fingerprint: numbers[6],
            ledger: Ledger { read: numbers[7], ..Ledger::default() },
            claim: flags[0],
            all_ended: flags[1],
            frontiers: Frontiers {
                watermark: watermark(0),
                closed: watermark(1),
                final_: watermark(2),
                expired: watermark(3),
            },
            newest_click_ms: times[4],
            largest_guarded_ms: times[5],
            reopened_from_ms: times[6],
            inputs,
            counts,
            identities,
            base,
            ..small()
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_back(epoch in any_epoch()) {
        let (bytes, sum) = codec::encode(&epoch).unwrap();
        prop_assert_eq!(codec::encode(&epoch).unwrap().0, bytes.clone(), "the same bytes each time");
        prop_assert_eq!(codec::decode(&bytes).unwrap(), (epoch, sum));
    }

    #[test]
    fn noise_is_an_error(noise in vec(any::<u8>(), 0..200)) {
        prop_assert!(codec::decode(&noise).is_err());
    }
}

// ---- owners and fences ----

fn in_memory() -> (Arc<InMemory>, EpochLog) {
    let store = Arc::new(InMemory::new());
    let log = EpochLog::new(store.clone(), 0);
    (store, log)
}

fn claim(log: &EpochLog, writer: u128) -> (LogWriter, PartitionState) {
    block_on(log.claim(writer, writer * 1_000, KEYS)).unwrap()
}

/// The next epoch of a partition in some state: one click of an ad in a minute. Applies it to the state as well.
fn next_epoch(state: &mut PartitionState, minute: i64, ad: u64) -> Epoch {
    let mut epoch = claim_record(state);
    epoch.claim = false;
    epoch.ledger.book(Verdict::Counted, 1);
    epoch.counts = vec![counts(minute, &[(ad, "US", 1)])];
    let identity = Identity(u128::from(epoch.number) << 16);
    epoch.identities = vec![MinuteIdentities { minute: Minute(minute), identities: vec![identity] }];
    let before = state.inputs.get(&InputId(1)).map_or(0, |row| row.position.to);
    epoch.inputs = vec![input(1, Position { from: before, to: before + 1 }, epoch.ledger)];
    // A minute's clicks are held for three minutes after it.
    epoch.frontiers.expired.advance(Minute(minute - 3).start_ms());

    state.number = epoch.number;
    state.ledger = epoch.ledger;
    state.frontiers = epoch.frontiers;
    state.inputs.insert(InputId(1), epoch.inputs[0].clone());
    let held = state.live.entry(Minute(minute)).or_insert_with(|| FoldedMinute {
        begun: epoch.number,
        identities: Vec::new(),
        counts: Vec::new(),
    });
    held.identities.push(identity);
    held.counts.push(epoch.counts[0].clone());
    let frontiers = state.frontiers;
    state.live.retain(|minute, _| frontiers.is_live(*minute));
    if let Some(base) = &mut epoch.base {
        // As the state is at the end of the record, which `claim_record` could not know.
        let minutes = state.live.iter().filter(|(_, held)| held.begun < epoch.number.saturating_sub(FOLD_BEFORE_BASE));
        **base = Base {
            inputs: state.inputs.values().cloned().collect(),
            minutes: minutes
                .map(|(&minute, held)| LiveMinute {
                    begun: held.begun,
                    identities: MinuteIdentities { minute, identities: held.identities.clone() },
                    counts: merge_all(minute, held.counts.clone()),
                })
                .collect(),
        };
    }
    epoch
}

/// Appends so many epochs, about `per_minute` a minute.
fn grow(writer: &mut LogWriter, state: &mut PartitionState, epochs: u64, per_minute: u64) {
    for _ in 0..epochs {
        let minute = 1_000 + (state.number / per_minute) as i64;
        let mut epoch = next_epoch(state, minute, state.number % 5);
        epoch.oldest_needed = fold_start(epoch.number);
        state.checksum = block_on(writer.append(epoch)).unwrap();
    }
}

/// The records are one chain from the first to the newest.
fn check_linear(log: &EpochLog, last: EpochNumber) {
    assert_eq!(block_on(log.numbers()).unwrap(), (1..=last).collect::<Vec<_>>());
    let mut predecessor = 0;
    for number in 1..=last {
        let (epoch, checksum) = block_on(log.read(number)).unwrap().unwrap();
        assert_eq!((epoch.number, epoch.predecessor), (number, predecessor));
        predecessor = checksum;
    }
}

#[test]
fn the_first_claim_names_the_log() {
    let (_, log) = in_memory();
    let (writer, state) = claim(&log, 7);
    assert_eq!((writer.head(), writer.log_id(), state.number, state.next_input), (1, 7_000, 1, 1));
    let (epoch, checksum) = block_on(log.read(1)).unwrap().unwrap();
    assert!(epoch.claim && epoch.counts.is_empty());
    assert_eq!((epoch.writer, epoch.predecessor, checksum), (7, 0, state.checksum));
    assert_eq!((epoch.config_fingerprint, epoch.key_fingerprint), (KEYS.config, KEYS.key));
    let (second, _) = claim(&log, 8);
    assert_eq!((second.log_id(), second.head()), (7_000, 2), "the log keeps its name");
}

#[test]
fn another_key_is_refused_and_other_settings_are_not() {
    let (_, log) = in_memory();
    claim(&log, 1);
    let other = block_on(log.claim(2, 2, Fingerprints { key: 3, ..KEYS })).err().unwrap();
    assert_eq!(other.kind(), ErrorKind::User);
    assert!(other.to_string().contains("identity key"), "{other}");
    assert_eq!(block_on(log.numbers()).unwrap(), [1], "nothing was written");
    assert!(block_on(log.claim(2, 2, Fingerprints { config: 9, ..KEYS })).is_ok());
}

#[test]
fn an_owner_is_fenced_by_the_next_claim() {
    let (_, log) = in_memory();
    let (mut old, mut old_state) = claim(&log, 1);
    grow(&mut old, &mut old_state, 3, 2);
    let (mut new, mut state) = claim(&log, 2);
    for _ in 0..2 {
        let error = block_on(old.append(next_epoch(&mut old_state.clone(), 1_000, 1))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
    }
    grow(&mut new, &mut state, 3, 2);
    check_linear(&log, 8);
}

#[test]
fn a_number_out_of_turn_is_refused() {
    let (_, log) = in_memory();
    let (mut writer, mut state) = claim(&log, 1);
    let epoch = Epoch { number: 3, ..next_epoch(&mut state, 1_000, 1) };
    assert_eq!(block_on(writer.append(epoch)).unwrap_err().kind(), ErrorKind::Internal);
    assert_eq!(block_on(log.numbers()).unwrap(), [1]);
}

#[test]
fn two_owners_racing_make_one_chain() {
    const EPOCHS: u64 = 200;
    let (_, log) = in_memory();
    let race = |writer: u128| {
        let log = log.clone();
        move || {
            let mut appended = 0;
            for turn in 0.. {
                let (mut owner, mut state) = claim(&log, writer + turn * 2);
                while owner.head() < EPOCHS {
                    // Now and then both are at the very same point.
                    std::thread::yield_now();
                    let minute = 1_000 + (state.number / 20) as i64;
                    match block_on(owner.append(next_epoch(&mut state, minute, 1))) {
                        Ok(checksum) => {
                            state.checksum = checksum;
                            appended += 1;
                        }
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
                            break;
                        }
                    }
                }
                if owner.head() >= EPOCHS {
                    break;
                }
            }
            appended
        }
    };
    let (one, two) = (std::thread::spawn(race(1)), std::thread::spawn(race(2)));
    let appended: u64 = one.join().unwrap() + two.join().unwrap();
    let last = *block_on(log.numbers()).unwrap().last().unwrap();
    assert!(last >= EPOCHS);
    check_linear(&log, last);
    let state = block_on(log.fold(|_| ())).unwrap().unwrap();
    assert!(state.ledger.counted >= appended, "an append that succeeded is missing");
}

/// A store whose next replies to writes are lost, or whose next writes do not take place.
#[derive(Debug)]
struct Lossy {
    inner: InMemory,
    lost: AtomicUsize,
    refused: AtomicUsize,
}

fn takes_one(left: &AtomicUsize) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

impl std::fmt::Display for Lossy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lossy")
    }
}

#[async_trait]
impl ObjectStore for Lossy {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        let failed = || object_store::Error::Generic { store: "Lossy", source: "timed out".into() };
        if takes_one(&self.refused) {
            return Err(failed());
        }
        let result = self.inner.put_opts(location, payload, options).await;
        if takes_one(&self.lost) { Err(failed()) } else { result }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[test]
fn a_lost_reply_is_a_success_and_a_failure_may_be_repeated() {
    let store = Arc::new(Lossy { inner: InMemory::new(), lost: AtomicUsize::new(1), refused: AtomicUsize::new(0) });
    let log = EpochLog::new(store.clone(), 0);
    let (mut writer, mut state) = claim(&log, 1);
    assert_eq!(writer.head(), 1, "the claim's reply was lost");

    store.lost.store(1, Ordering::SeqCst);
    grow(&mut writer, &mut state, 1, 2);

    store.refused.store(2, Ordering::SeqCst);
    let epoch = next_epoch(&mut state, 1_000, 1);
    for _ in 0..2 {
        let error = block_on(writer.append(epoch.clone())).unwrap_err();
        assert!(error.is_retryable(), "{error}");
    }
    state.checksum = block_on(writer.append(epoch)).unwrap();
    grow(&mut writer, &mut state, 1, 2);
    check_linear(&log, 4);
}

#[test]
fn a_record_found_in_place_of_ours_is_not_taken_for_ours() {
    let store = Arc::new(Lossy { inner: InMemory::new(), lost: AtomicUsize::new(0), refused: AtomicUsize::new(0) });
    let log = EpochLog::new(store.clone(), 0);
    let (mut old, mut old_state) = claim(&log, 1);
    claim(&log, 2);
    // The old owner's write is refused with an error that says nothing, and the new owner's record is there.
    store.refused.store(1, Ordering::SeqCst);
    let error = block_on(old.append(next_epoch(&mut old_state, 1_000, 1))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
}

/// A log of so many records of which all that nobody needs were deleted, after a writer fell asleep at `asleep_at`.
fn collected(asleep_at: u64, last: u64) -> (EpochLog, LogWriter, PartitionState) {
    let (_, log) = in_memory();
    let (mut zombie, mut zombie_state) = claim(&log, 1);
    grow(&mut zombie, &mut zombie_state, asleep_at - 1, 10);
    let (mut owner, mut state) = claim(&log, 2);
    grow(&mut owner, &mut state, last - owner.head(), 10);
    let deleted = block_on(log.collect(fold_start(last))).unwrap();
    assert_eq!(deleted, fold_start(last) - 2);
    (log, zombie, zombie_state)
}

#[test]
fn a_zombie_that_creates_a_collected_number_is_fenced_and_ignored() {
    // Also right after record 1, which is there for ever and so fences nobody by its absence.
    for asleep_at in [1, 2, 3, 50, 100] {
        let (log, mut zombie, mut zombie_state) = collected(asleep_at, 300);
        let before = block_on(log.fold(|_| ())).unwrap().unwrap();
        let error = block_on(zombie.append(next_epoch(&mut zombie_state, 1_000, 4))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Fenced, "asleep at {asleep_at}: {error}");
        assert!(block_on(log.read(asleep_at + 1)).unwrap().is_some(), "its record is there");
        let after = block_on(log.fold(|_| ())).unwrap().unwrap();
        assert_eq!((after.number, after.checksum, after.ledger), (300, before.checksum, before.ledger));
        let (owner, state) = claim(&log, 3);
        assert_eq!((owner.head(), state.ledger), (301, before.ledger));
        assert_eq!(block_on(log.collect(fold_start(301))).unwrap(), 1, "it is swept with the next collection");
    }
}

#[test]
fn a_second_zombie_that_builds_on_the_first_is_fenced() {
    let (log, mut first, mut first_state) = collected(50, 300);
    // It fell asleep one epoch later, at the true record 51, and now finds the first zombie's 51 in its place.
    let true_51 = 51_000;
    let mut second = LogWriter { head: 51, head_checksum: true_51, writer: 9, ..first_of(&first) };
    let mut second_state = PartitionState { number: 51, checksum: true_51, ..first_state.clone() };
    assert!(block_on(first.append(next_epoch(&mut first_state, 1_000, 1))).is_err());
    let error = block_on(second.append(next_epoch(&mut second_state, 1_000, 1))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
    assert_eq!(block_on(log.fold(|_| ())).unwrap().unwrap().number, 300);
}

fn first_of(writer: &LogWriter) -> LogWriter {
    LogWriter {
        log: writer.log.clone(),
        writer: writer.writer,
        log_id: writer.log_id,
        head: writer.head,
        head_checksum: writer.head_checksum,
        fingerprints: writer.fingerprints,
    }
}

// ---- folding ----

/// All that a state says, in a form that can be compared.
fn facts(state: &PartitionState) -> impl PartialEq + std::fmt::Debug {
    let live: BTreeMap<Minute, _> = state
        .live
        .iter()
        .map(|(&minute, held)| {
            let mut identities = held.identities.clone();
            identities.sort_unstable();
            (minute, (held.begun, identities, merge_all(minute, held.counts.clone())))
        })
        .collect();
    let positions: Vec<_> = state.inputs.values().map(|row| (row.id, row.position.to, row.ledger)).collect();
    (state.number, state.checksum, state.frontiers, state.ledger, positions, live)
}

#[test]
fn the_fold_from_a_base_is_the_fold_of_everything() {
    // From a few epochs a minute, so that no minute is old, to so many that each base repeats minutes.
    for per_minute in [3, 40, 90] {
        let (_, log) = in_memory();
        let (mut owner, mut state) = claim(&log, 1);
        let mut repeated = 0;
        for number in 2..=300 {
            grow(&mut owner, &mut state, 1, per_minute);
            assert_eq!(owner.head(), number);
            if number % 7 == 0 || number % BASE_EVERY <= 1 {
                let mut read = 0;
                let folded = block_on(log.fold(|_| read += 1)).unwrap().unwrap();
                assert_eq!(facts(&folded), facts(&state), "{per_minute} a minute, up to {number}");
                assert!(read <= 192, "{read} records were folded");
            }
            if number.is_multiple_of(BASE_EVERY) {
                let (epoch, _) = block_on(log.read(number)).unwrap().unwrap();
                repeated += epoch.base.unwrap().minutes.len();
            }
        }
        assert_eq!(repeated > 0, per_minute > 3, "{per_minute} a minute: {repeated} minutes were repeated");
    }
}

#[test]
fn a_claim_at_a_base_is_a_base() {
    let (_, log) = in_memory();
    let (mut owner, mut state) = claim(&log, 1);
    grow(&mut owner, &mut state, BASE_EVERY * 4 - 2, 90);
    let (owner, claimed) = claim(&log, 2);
    assert_eq!(owner.head(), BASE_EVERY * 4);
    let folded = block_on(log.fold(|_| ())).unwrap().unwrap();
    assert_eq!(facts(&folded), facts(&claimed));
    state.number = folded.number;
    state.checksum = folded.checksum;
    assert_eq!(facts(&folded), facts(&state));
}

#[test]
fn damage_in_the_log_is_named() {
    let spoil: [(&str, fn(&[u8]) -> Vec<u8>); 3] = [
        ("empty", |_| Vec::new()),
        ("torn", |bytes| bytes[..bytes.len() / 2].to_vec()),
        ("flipped", |bytes| bytes.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at == 99)).collect()),
    ];
    for (what, spoil) in spoil {
        for number in [1, 5, 10] {
            let (store, log) = in_memory();
            let (mut owner, mut state) = claim(&log, 1);
            grow(&mut owner, &mut state, 9, 3);
            let path = log.path(number);
            let bytes = block_on(async { store.get(&path).await?.bytes().await }).unwrap();
            block_on(store.put(&path, spoil(&bytes).into())).unwrap();
            for error in [block_on(log.fold(|_| ())).err(), block_on(log.claim(2, 2, KEYS)).err()] {
                let error = error.unwrap_or_else(|| panic!("{what} record {number} was not noticed"));
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{what} {number}: {error}");
                assert!(error.to_string().contains(path.as_ref()), "{error}");
            }
        }
    }
    let (store, log) = in_memory();
    let (mut owner, mut state) = claim(&log, 1);
    grow(&mut owner, &mut state, 9, 3);
    block_on(store.copy(&log.path(4), &log.path(5))).unwrap();
    assert_eq!(block_on(log.read(5)).unwrap_err().kind(), ErrorKind::Corrupt, "a copied record");
    block_on(store.delete(&log.path(5))).unwrap();
    let error = block_on(log.fold(|_| ())).unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
}

// ---- collecting ----

#[test]
fn collection_deletes_nothing_that_is_needed() {
    let (_, log) = in_memory();
    let (mut owner, mut state) = claim(&log, 1);
    for number in 2..=400 {
        grow(&mut owner, &mut state, 1, 50);
        // As if a store lagged behind by up to 150 epochs.
        let held = number - number * 7 % 150.min(number);
        let needed = fold_start(number).min(fold_start(held.max(1)));
        block_on(log.collect(needed)).unwrap();
        let kept = block_on(log.numbers()).unwrap();
        assert_eq!(kept[0], 1, "the first names the log");
        assert!((needed.max(2)..=number).all(|needed| kept.contains(&needed)), "{number}, {held}: {kept:?}");
        if number % 13 == 0 {
            assert_eq!(facts(&block_on(log.fold(|_| ())).unwrap().unwrap()), facts(&state), "{number}");
        }
    }
    assert!(block_on(log.numbers()).unwrap().len() <= 350, "something was deleted");
    // Whatever is asked for, the newest stay.
    block_on(log.collect(u64::MAX)).unwrap();
    let kept = block_on(log.numbers()).unwrap();
    assert_eq!(kept[1..], (400 + 1 - RECORDS_KEPT..=400).collect::<Vec<_>>());
}

#[test]
fn an_empty_log_is_no_log() {
    let (_, log) = in_memory();
    assert!(block_on(log.fold(|_| ())).unwrap().is_none());
    assert_eq!(block_on(log.collect(100)).unwrap(), 0);
    assert!(block_on(log.read(1)).unwrap().is_none());
}
