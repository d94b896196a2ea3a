//! Tests of how commits wait for the lake.

use super::*;
use crate::clock::SystemRandomness;
use crate::project::{ProjectorParts, Waiting, Work};
use crate::status::Status;
use adtally_model::{PartitionState, Progress};
use adtally_pipeline::TimeSettings;
use adtally_store::epoch_log::{EpochLog, Fingerprints};
use adtally_store::lake::Lake;
use object_store::memory::InMemory;
use parking_lot::Mutex;

/// Pauses after which the lake has caught up: far more than the attempts of a bounded run.
const PAUSES: u32 = 1_000;

/// A clock whose pauses take no time. The lake catches up after [`PAUSES`] of them.
#[derive(Default)]
struct Pauses {
    taken: Mutex<u32>,
    lake: Mutex<Option<Work>>,
}

impl Clock for Pauses {
    fn wall_ms(&self) -> i64 {
        0
    }

    fn monotonic_ms(&self) -> i64 {
        i64::from(*self.taken.lock())
    }

    fn sleep(&self, _: Duration) {
        *self.taken.lock() += 1;
        let has_caught_up = self.monotonic_ms() == i64::from(PAUSES);
        if has_caught_up && let Some(lake) = self.lake.lock().as_mut() {
            while lake.turn() == Turn::Worked {}
        }
    }
}

/// Epochs wait for a slow lake as long as necessary, within bounds: a slow lake is no failure.
#[test]
fn fault_31_a_bounded_run_waits_for_a_slow_lake() {
    let runtime = tokio::runtime::Builder::new_multi_thread().thread_stack_size(8 << 20).build().unwrap();
    let store = Arc::new(InMemory::new());
    let log = EpochLog::new(store.clone(), 0);
    let fingerprints = Fingerprints { config: 1, key: 2 };
    let (writer, state) = runtime.block_on(log.claim(1, 7, fingerprints)).unwrap();
    let lake = Arc::new(runtime.block_on(Lake::open(store)).unwrap());
    let clock = Arc::new(Pauses::default());
    let hot = Arc::new(HotCounts::new(60));
    let report = Report::new(TimeSettings::default(), &PartitionState::default(), clock.clone());
    let parts = ProjectorParts {
        letters: None,
        lake: lake.clone(),
        report: Arc::clone(&report),
        clock: clock.clone(),
        runtime: runtime.handle().clone(),
        file_token: 1,
        interval: Duration::ZERO,
        attempts_max: Some(2),
    };
    let waiting = |epoch| Waiting {
        pending: Arc::new(PendingEpoch { epoch, counts: Arc::default(), staged: Vec::new() }),
        progress: Progress { log_id: state.progress.log_id, number: epoch, ..Progress::default() },
        inputs: Arc::default(),
        oldest_needed: 1,
    };
    // The most epochs that may wait.
    let (projector, work) = Projector::new(parts);
    projector.add(log, Arc::clone(&hot), 0, (1..=4_096).map(waiting).collect());
    assert!(!projector.has_room().unwrap());
    *clock.lake.lock() = Some(work);
    let mut recorder = Recorder::new(RecorderParts {
        is_shared: false,
        confirm: None,
        writer,
        lake_epoch: 0,
        lake,
        hot,
        report: Arc::clone(&report),
        projector,
        clock: clock.clone(),
        randomness: Arc::new(SystemRandomness),
        runtime: runtime.handle().clone(),
        attempts_max: Some(2),
        abandon: Arc::default(),
    });
    recorder.begin(EncodedEpoch {
        draft: EpochDraft::default(),
        counts: Vec::new(),
        files: Vec::new(),
        countries: Vec::new(),
        began_ms: 0,
    });
    // The first step ends once there is room.
    while recorder.turn().unwrap() == Turn::Nothing {
        recorder.wait();
    }
    assert_eq!(*clock.taken.lock(), PAUSES);
    let problems = report.readiness().problems;
    assert!(!problems.iter().any(|problem| problem.contains("the lake")), "it has caught up: {problems:?}");
}
