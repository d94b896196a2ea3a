//! Tests of ingest over files, turned by hand.

use super::*;
use crate::settings::Bounds;
use adtally_model::{IdentityKey, PartitionState};
use adtally_pipeline::TimeSettings;
use adtally_source::{Decoder, LocalFiles, TailSettings, Tailer};
use std::path::Path;

/// A clock that stands still, so that no turn does anything because time has passed.
struct StandingClock;

impl Clock for StandingClock {
    fn wall_ms(&self) -> i64 {
        START_MS + 86_400_000
    }

    fn monotonic_ms(&self) -> i64 {
        0
    }
}

const START_MS: i64 = 1_767_225_600_000;

/// Counts the lines of the submitted epochs.
struct Lines(u64);

impl EpochSink for Lines {
    fn is_ready(&self) -> bool {
        true
    }

    fn submit(&mut self, draft: EpochDraft) -> Result<()> {
        self.0 = draft.progress.ledger.counted;
        Ok(())
    }

    fn finish(&mut self) -> Result<bool> {
        Ok(true)
    }
}

fn ingest(folder: &Path, bounds: Bounds) -> Ingest<Lines> {
    let clock: Arc<dyn Clock> = Arc::new(StandingClock);
    let time = TimeSettings::default();
    let tail = TailSettings { bounded: true, ..TailSettings::default() };
    let decoder = Decoder::new(adtally_source::DecodeSettings::clone(&tail.decode), IdentityKey::new([7; 16])).unwrap();
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
        source: Box::new(
            Tailer::new(Box::new(LocalFiles), tail, &[folder.display().to_string()], Vec::new(), 1).unwrap(),
        ),
        pool: Arc::new(DecodePool::new(Arc::new(decoder), 0).unwrap()),
        last_clock_ms: 0,
        number: 1,
        hot: Arc::new(HotCounts::new(0)),
        report: Report::new(time, &state, Arc::clone(&clock)),
        partition: Partition::new(time, state),
        clock,
    };
    Ingest::new(parts, Lines(0))
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
    let mut ingest = ingest(folder.path(), Bounds { held_bytes_max: 16 << 10, ..Bounds::default() });
    let mut turns = 0;
    while ingest.turn().unwrap() != Turn::Finished {
        turns += 1;
        let held: usize = ingest.lanes.values().map(Lane::held_bytes).sum();
        assert!(held <= files as usize * 4_096, "a block for each input at most: {held}");
        assert!(turns < 1_000, "{:?}", ingest.partition().ledger());
    }
    assert_eq!(ingest.into_sink().0, (files * lines) as u64);
}
