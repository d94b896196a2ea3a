//! Tests of ingest, turned by hand.

use super::*;
use crate::settings::Bounds;
use adtally_model::{Error, IdentityKey, PartitionState};
use adtally_pipeline::TimeSettings;
use adtally_source::{DecodeSettings, Decoder, LocalFiles, TailSettings, Tailer};
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};

/// A clock that stands still unless a test moves it, so that no turn does anything because time has passed.
#[derive(Default)]
struct StandingClock(AtomicI64);

impl Clock for StandingClock {
    fn wall_ms(&self) -> i64 {
        START_MS + 86_400_000 + self.monotonic_ms()
    }

    fn monotonic_ms(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

const START_MS: i64 = 1_767_225_600_000;

/// The counted lines after each submitted epoch.
#[derive(Default)]
struct Lines(Vec<u64>);

impl EpochSink for Lines {
    fn is_ready(&self) -> bool {
        true
    }

    fn submit(&mut self, draft: EpochDraft) -> Result<()> {
        self.0.push(draft.progress.ledger.counted);
        Ok(())
    }

    fn finish(&mut self) -> Result<bool> {
        Ok(true)
    }
}

/// A stream whose broker never answers.
struct SilentStream;

impl Source for SilentStream {
    fn discover(&mut self, _: i64) -> Result<Vec<Discovery>> {
        Ok(Vec::new())
    }

    fn read(&mut self, _: LaneId, _: i64) -> Result<ReadOutcome<SourceBlock>> {
        Ok(ReadOutcome::Unreadable(Error::transient("the broker does not answer")))
    }

    fn shared_lane(&self) -> Option<LaneId> {
        Some(LaneId(0))
    }

    fn set_block_bytes(&mut self, _: usize) {}
}

/// A bounded ingest of a folder.
fn ingest_of(folder: &Path, bounds: Bounds) -> Ingest<Lines> {
    let tail = TailSettings { bounded: true, ..TailSettings::default() };
    let tailer = Tailer::new(Box::new(LocalFiles), tail, &[folder.display().to_string()], Vec::new(), 1);
    ingest(Box::new(tailer.unwrap()), bounds, Arc::new(StandingClock::default()))
}

/// A bounded ingest.
fn ingest(source: Box<dyn Source>, bounds: Bounds, clock: Arc<StandingClock>) -> Ingest<Lines> {
    let clock: Arc<dyn Clock> = clock;
    let time = TimeSettings::default();
    let decoder = Decoder::new(DecodeSettings::default(), IdentityKey::new([7; 16])).unwrap();
    let settings = IngestSettings {
        epoch_interval_ms: 10_000,
        epoch_lines_max: 1_000_000,
        epoch_bytes_max: 1 << 30,
        discovery_interval_ms: 1_000,
        block_bytes: 4 << 10,
        run_end: RunEnd::Close,
        bounds,
    };
    let state = PartitionState::default();
    let parts = Parts {
        settings,
        source,
        pool: Arc::new(DecodePool::new(Arc::new(decoder), 0).unwrap()),
        last_clock_ms: 0,
        number: 1,
        hot: Arc::new(HotCounts::new(0)),
        report: Report::new(time, &state, Arc::clone(&clock)),
        partition: Partition::new(time, state),
        clock,
    };
    Ingest::new(parts, Lines::default())
}

/// A turn visits every input. Even if every input has a block that reaches further than it may run ahead, and the bound
/// on held text is reached, a turn must read more than one block.
#[test]
fn many_inputs_with_few_lines_each_take_few_turns() {
    let (files, lines) = (1_000_i64, 200_i64);
    let folder = tempfile::tempdir().unwrap();
    for file in 0..files {
        // A line every 20 s: an input may run 60 s ahead, which is three lines.
        let text: String = (0..lines)
            .map(|line| {
                format!(
                    "{{\"click_timestamp\":{},\"ad_id\":{file},\"user_id\":\"u{line}\",\"ip\":\"10.0.0.1\"}}\n",
                    START_MS + line * 20_000 + file * 40
                )
            })
            .collect();
        std::fs::write(folder.path().join(format!("{file:03}.log")), text).unwrap();
    }
    let mut ingest = ingest_of(folder.path(), Bounds { held_bytes_max: 16 << 10, ..Bounds::default() });
    let mut turns = 0;
    while ingest.turn().unwrap() != Turn::Finished {
        turns += 1;
        let held: usize = ingest.lanes.values().map(Lane::held_bytes).sum();
        assert!(held <= files as usize * 4_096, "a block for each input at most: {held}");
        assert!(turns < 1_000, "{:?}", ingest.partition().ledger());
    }
    assert_eq!(ingest.into_sink().0.last(), Some(&((files * lines) as u64)));
}

/// A bounded run must not wait forever for a stream: it ends, and says what it did not read.
#[test]
fn a_bounded_run_gives_up_a_stream_that_does_not_answer() {
    let clock = Arc::new(StandingClock::default());
    let mut ingest = ingest(Box::new(SilentStream), Bounds::default(), Arc::clone(&clock));
    let idle_timeout_ms = TimeSettings::default().idle_timeout_ms;
    while clock.monotonic_ms() < idle_timeout_ms {
        assert_eq!(ingest.turn().unwrap(), Turn::Nothing, "at {}", clock.monotonic_ms());
        clock.0.fetch_add(1_000, Ordering::Relaxed);
    }
    assert_eq!(ingest.turn().unwrap(), Turn::Finished);
    assert_eq!(ingest.unread(), ["the broker does not answer"]);
}

/// A process that is killed again and again, each time within a second, must get on with a backlog.
#[test]
fn the_first_epochs_of_a_process_are_small_and_grow() {
    let folder = tempfile::tempdir().unwrap();
    let lines = 10 * FIRST_EPOCH_LINES;
    let line = |number: u64| {
        let at = START_MS + number as i64 * 10;
        format!("{{\"click_timestamp\":{at},\"ad_id\":7,\"user_id\":\"u{number}\",\"ip\":\"10.0.0.1\"}}\n")
    };
    std::fs::write(folder.path().join("a.log"), (0..lines).map(line).collect::<String>()).unwrap();
    let mut ingest = ingest_of(folder.path(), Bounds::default());
    while ingest.turn().unwrap() != Turn::Finished {}
    let submitted = ingest.into_sink().0;
    let limits = [1, 2, 4, 8, 10].map(|epochs| epochs * FIRST_EPOCH_LINES);
    let large: Vec<u64> = submitted.into_iter().filter(|&counted| counted > 16).collect();
    assert_eq!(large, limits, "each epoch is as large as all before it");
}
