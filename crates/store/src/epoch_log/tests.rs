//! Tests of the epoch log.
//!
//! Contents: fixtures; owners and fences; folding; deleting old records; the format of records is in `format`.

use super::*;
use adtally_model::epoch::{BASE_EVERY, FOLD_BEFORE_BASE};
use adtally_model::fold::FoldedMinute;
use adtally_model::input::Fingerprint;
use adtally_model::{Base, FileLog, InputLog, LiveMinute, MinuteIdentities};
use adtally_model::{
    Country, ErrorKind, Identity, InputId, InputRow, InputStatus, InputTime, Ledger, Minute, MinuteCounts, Position,
    Verdict,
};
use async_trait::async_trait;
use futures::executor::block_on;
use futures::stream::{BoxStream, StreamExt};
use object_store::memory::InMemory;
use object_store::{CopyOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, PutMultipartOptions, PutResult};
use object_store::{PutOptions, PutPayload};
use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

mod folding;
mod format;

const KEYS: Fingerprints = Fingerprints { config: 1, key: 2 };

// ---- fixtures ----

fn counts(minute: i64, rows: &[(u64, &str, i64)]) -> MinuteCounts {
    let mut counts = MinuteCounts::empty(Minute(minute));
    rows.iter().for_each(|&(ad, country, clicks)| counts.push(ad, Country::parse(country.as_bytes()), clicks));
    counts
}

fn input(id: u64, position: Position, ledger: Ledger) -> InputRow {
    let file = FileLog {
        fingerprint: Fingerprint { head_len: 4_096, head_hash: 0x0102_0304, tail_len: 64, tail_hash: u64::MAX },
        generation: 2,
        compressed: true,
        size: 123_456,
        position,
        csv_header: None,
    };
    InputRow {
        log: InputLog::File(file),
        time: InputTime { largest_ms: Some(1_767_225_600_123), run: 3, run_least_ms: -1, advanced_at_ms: 5 },
        status: InputStatus::Idle,
        ledger,
        seen_at_ms: 1_767_225_700_000,
        ..InputRow::new(InputId(id), format!("logs/{id}.log"), 2)
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

/// The next epoch of a partition from a state: one click of an ad in a minute. Also applies it to the state.
fn next_epoch(state: &mut PartitionState, minute: i64, ad: u64) -> Epoch {
    let mut epoch = claim_record(state);
    epoch.claim = false;
    epoch.progress.ledger.book(Verdict::Counted, 1);
    epoch.counts = vec![counts(minute, &[(ad, "US", 1)])];
    let identity = Identity(u128::from(epoch.progress.number) << 16);
    epoch.identities = vec![MinuteIdentities { minute: Minute(minute), identities: vec![identity] }];
    let before = state.inputs.get(&InputId(1)).map_or(0, |row| row.position().to);
    epoch.inputs = vec![input(1, Position { from: before, to: before + 1 }, epoch.progress.ledger).into()];
    // A minute's clicks are kept for three minutes after it.
    epoch.progress.frontiers.expired.advance(Minute(minute - 3).start_ms());

    state.progress.number = epoch.progress.number;
    state.progress.ledger = epoch.progress.ledger;
    state.progress.frontiers = epoch.progress.frontiers;
    state.inputs.insert(InputId(1), epoch.inputs[0].clone());
    let held = state.live.entry(Minute(minute)).or_insert_with(|| FoldedMinute {
        begun: epoch.progress.number,
        identities: Vec::new(),
        counts: Vec::new(),
    });
    held.identities.push(identity);
    held.counts.push(epoch.counts[0].clone());
    let frontiers = state.progress.frontiers;
    state.live.retain(|minute, _| frontiers.is_live(*minute));
    if let Some(base) = &mut epoch.base {
        // From the state at the end of the record, which `claim_record` could not know.
        let minutes =
            state.live.iter().filter(|(_, held)| held.begun < epoch.progress.number.saturating_sub(FOLD_BEFORE_BASE));
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

/// Appends `epochs` epochs, about `per_minute` a minute.
fn grow(writer: &mut LogWriter, state: &mut PartitionState, epochs: u64, per_minute: u64) {
    for _ in 0..epochs {
        let minute = 1_000 + (state.progress.number / per_minute) as i64;
        let mut epoch = next_epoch(state, minute, state.progress.number % 5);
        epoch.oldest_needed = fold_start(epoch.progress.number);
        state.checksum = block_on(writer.append(&mut epoch)).unwrap();
    }
}

/// Checks that the records are one chain from the first to the newest.
fn check_linear(log: &EpochLog, last: EpochNumber) {
    assert_eq!(block_on(log.numbers()).unwrap(), (1..=last).collect::<Vec<_>>());
    let mut predecessor = 0;
    for number in 1..=last {
        let (epoch, checksum) = block_on(log.read(number)).unwrap().unwrap();
        assert_eq!((epoch.progress.number, epoch.predecessor), (number, predecessor));
        predecessor = checksum;
    }
}

/// All facts of a state, in a comparable form.
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
    let positions: Vec<_> = state.inputs.values().map(|row| (row.id, row.position().to, row.ledger)).collect();
    (state.progress.number, state.checksum, state.progress.frontiers, state.progress.ledger, positions, live)
}

#[test]
fn the_first_claim_names_the_log() {
    let (_, log) = in_memory();
    let (writer, state) = claim(&log, 7);
    assert_eq!((writer.head(), writer.log_id(), state.progress.number, state.progress.next_input), (1, 7_000, 1, 1));
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
fn fault_08_an_owner_is_fenced_by_the_next_claim() {
    let (_, log) = in_memory();
    let (mut old, mut old_state) = claim(&log, 1);
    grow(&mut old, &mut old_state, 3, 2);
    let (mut new, mut state) = claim(&log, 2);
    for _ in 0..2 {
        let error = block_on(old.append(&mut next_epoch(&mut old_state.clone(), 1_000, 1))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
    }
    grow(&mut new, &mut state, 3, 2);
    check_linear(&log, 8);
}

#[test]
fn a_number_out_of_turn_is_refused() {
    let (_, log) = in_memory();
    let (mut writer, mut state) = claim(&log, 1);
    let mut epoch = next_epoch(&mut state, 1_000, 1);
    epoch.progress.number = 3;
    assert_eq!(block_on(writer.append(&mut epoch)).unwrap_err().kind(), ErrorKind::Internal);
    assert_eq!(block_on(log.numbers()).unwrap(), [1]);
}

#[test]
fn fault_10_two_owners_racing_make_one_chain() {
    const EPOCHS: u64 = 1_000;
    let (_, log) = in_memory();
    let both = Arc::new(Barrier::new(2));
    let race = |writer: u128| {
        let (log, both) = (log.clone(), Arc::clone(&both));
        move || {
            let (mut appended, mut fenced) = (0, 0);
            for turn in 0.. {
                let (mut owner, mut state) = claim(&log, writer + turn * 2);
                if turn == 0 {
                    // Otherwise one could finish before the other starts.
                    both.wait();
                }
                while owner.head() < EPOCHS {
                    // Sometimes both are at exactly the same point.
                    std::thread::yield_now();
                    let minute = 1_000 + (state.progress.number / 20) as i64;
                    match block_on(owner.append(&mut next_epoch(&mut state, minute, 1))) {
                        Ok(checksum) => {
                            state.checksum = checksum;
                            appended += 1;
                        }
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
                            fenced += 1;
                            break;
                        }
                    }
                }
                if owner.head() >= EPOCHS {
                    break;
                }
            }
            (appended, fenced)
        }
    };
    let (one, two) = (std::thread::spawn(race(1)), std::thread::spawn(race(2)));
    let [one, two] = [one, two].map(|owner| owner.join().unwrap());
    let (appended, fenced): (u64, u64) = (one.0 + two.0, one.1 + two.1);
    assert!(fenced > 0, "they never met");
    let last = *block_on(log.numbers()).unwrap().last().unwrap();
    assert!(last >= EPOCHS);
    check_linear(&log, last);
    let state = block_on(log.fold()).unwrap().unwrap();
    assert!(state.progress.ledger.counted >= appended, "an append that succeeded is missing");
}

/// A store that loses the next replies to writes, omits the next writes, or returns an outdated listing next.
#[derive(Debug, Default)]
struct Lossy {
    inner: InMemory,
    lost: AtomicUsize,
    refused: AtomicUsize,
    old_listings: Mutex<VecDeque<Vec<ObjectMeta>>>,
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
        match self.old_listings.lock().pop_front() {
            Some(old) => stream::iter(old.into_iter().map(Ok)).boxed(),
            None => self.inner.list(prefix),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[test]
fn fault_03_and_69_a_lost_reply_is_a_success_and_a_failure_may_be_repeated() {
    let store = Arc::new(Lossy { lost: AtomicUsize::new(1), ..Lossy::default() });
    let log = EpochLog::new(store.clone(), 0);
    let (mut writer, mut state) = claim(&log, 1);
    assert_eq!(writer.head(), 1, "the claim's reply was lost");

    store.lost.store(1, Ordering::SeqCst);
    grow(&mut writer, &mut state, 1, 2);

    store.refused.store(2, Ordering::SeqCst);
    let mut epoch = next_epoch(&mut state, 1_000, 1);
    for _ in 0..2 {
        let error = block_on(writer.append(&mut epoch)).unwrap_err();
        assert!(error.is_retryable(), "{error}");
    }
    state.checksum = block_on(writer.append(&mut epoch)).unwrap();
    grow(&mut writer, &mut state, 1, 2);
    check_linear(&log, 4);
}

#[test]
fn a_record_found_in_place_of_ours_is_not_taken_for_ours() {
    let store = Arc::new(Lossy::default());
    let log = EpochLog::new(store.clone(), 0);
    let (mut old, mut old_state) = claim(&log, 1);
    claim(&log, 2);
    // The old owner's write fails with an unspecific error, and the new owner's record is there.
    store.refused.store(1, Ordering::SeqCst);
    let error = block_on(old.append(&mut next_epoch(&mut old_state, 1_000, 1))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
}

/// A log of `last` records without the unneeded ones, and a writer that was suspended at `asleep_at`.
fn collected(asleep_at: u64, last: u64) -> (EpochLog, LogWriter, PartitionState) {
    let (_, log) = in_memory();
    let (mut zombie, mut zombie_state) = claim(&log, 1);
    grow(&mut zombie, &mut zombie_state, asleep_at - 1, 10);
    let (mut owner, mut state) = claim(&log, 2);
    let more = last - owner.head();
    grow(&mut owner, &mut state, more, 10);
    let deleted = block_on(log.collect(fold_start(last))).unwrap();
    assert_eq!(deleted, fold_start(last) - 2);
    (log, zombie, zombie_state)
}

#[test]
fn fault_09_a_zombie_that_creates_a_collected_number_is_fenced_and_ignored() {
    // Also right after record 1, which is never deleted, so its absence fences no writer.
    for asleep_at in [1, 2, 3, 50, 100] {
        let (log, mut zombie, mut zombie_state) = collected(asleep_at, 300);
        let before = block_on(log.fold()).unwrap().unwrap();
        let error = block_on(zombie.append(&mut next_epoch(&mut zombie_state, 1_000, 4))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Fenced, "asleep at {asleep_at}: {error}");
        assert!(block_on(log.read(asleep_at + 1)).unwrap().is_some(), "its record is there");
        let after = block_on(log.fold()).unwrap().unwrap();
        assert_eq!(
            (after.progress.number, after.checksum, after.progress.ledger),
            (300, before.checksum, before.progress.ledger)
        );
        let (owner, state) = claim(&log, 3);
        assert_eq!((owner.head(), state.progress.ledger), (301, before.progress.ledger));
        assert_eq!(block_on(log.collect(fold_start(301))).unwrap(), 1, "it is swept with the next collection");
    }
}

#[test]
fn fault_09_a_second_zombie_that_builds_on_the_first_is_fenced() {
    let (log, mut first, mut first_state) = collected(50, 300);
    // It was suspended one epoch later, at the true record 51, and now finds the first zombie's 51 in its place.
    let true_51 = 51_000;
    let mut second = LogWriter { head: 51, head_checksum: true_51, writer: 9, ..first_of(&first) };
    let mut second_state = PartitionState { checksum: true_51, ..first_state.clone() };
    second_state.progress.number = 51;
    assert!(block_on(first.append(&mut next_epoch(&mut first_state, 1_000, 1))).is_err());
    let error = block_on(second.append(&mut next_epoch(&mut second_state, 1_000, 1))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced, "{error}");
    assert_eq!(block_on(log.fold()).unwrap().unwrap().progress.number, 300);
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

#[test]
fn fault_48_collection_deletes_nothing_that_is_needed() {
    let (_, log) = in_memory();
    let (mut owner, mut state) = claim(&log, 1);
    for number in 2..=400 {
        grow(&mut owner, &mut state, 1, 50);
        // Simulates a store that lags behind by up to 110 epochs.
        let held = number / 110 * 110;
        let needed = fold_start(number).min(fold_start(held.max(1)));
        block_on(log.collect(needed)).unwrap();
        let kept = block_on(log.numbers()).unwrap();
        assert_eq!(kept[0], 1, "the first names the log");
        assert!((needed.max(2)..=number).all(|needed| kept.contains(&needed)), "{number}, {held}: {kept:?}");
        if number % 13 == 0 {
            assert_eq!(facts(&block_on(log.fold()).unwrap().unwrap()), facts(&state), "{number}");
        }
    }
    assert!(block_on(log.numbers()).unwrap().len() <= 350, "something was deleted");
    // The newest records stay, whatever is requested.
    block_on(log.collect(u64::MAX)).unwrap();
    let kept = block_on(log.numbers()).unwrap();
    assert_eq!(kept[1..], (400 + 1 - RECORDS_KEPT..=400).collect::<Vec<_>>());
}

#[test]
fn young_records_are_kept_on_shared_stores() {
    let (_, log) = in_memory();
    let shared = log.clone().with_min_age(SHARED_MIN_AGE_MS);
    let (mut owner, mut state) = claim(&log, 1);
    grow(&mut owner, &mut state, 300, 10);
    assert_eq!(block_on(shared.collect(fold_start(301))).unwrap(), 0);
    // Ages are differences of the store's times, so they pass only as records are written.
    std::thread::sleep(Duration::from_millis(30));
    grow(&mut owner, &mut state, 1, 10);
    assert!(block_on(log.with_min_age(20).collect(fold_start(301))).unwrap() > 100);
}

#[test]
fn an_empty_log_is_no_log() {
    let (_, log) = in_memory();
    assert!(block_on(log.fold()).unwrap().is_none());
    assert_eq!(block_on(log.collect(100)).unwrap(), 0);
    assert!(block_on(log.read(1)).unwrap().is_none());
}
