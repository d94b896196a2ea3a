//! Tests of when a service reconciles, and of the clock of its corrections.

use super::*;
use crate::clock::SystemRandomness;
use crate::status::Status;
use adtally_model::PartitionState;
use adtally_pipeline::TimeSettings;
use object_store::memory::InMemory;
use std::sync::atomic::AtomicI64;

const HOUR_MS: i64 = 3_600_000;

/// Noon.
const START_MS: i64 = 20_000 * DAY_MS + 12 * HOUR_MS;

/// A clock that is set by hand.
struct SetClock {
    wall_ms: AtomicI64,
    monotonic_ms: AtomicI64,
}

impl SetClock {
    fn pass(&self, ms: i64) {
        self.wall_ms.fetch_add(ms, Ordering::Relaxed);
        self.monotonic_ms.fetch_add(ms, Ordering::Relaxed);
    }
}

impl Clock for SetClock {
    fn wall_ms(&self) -> i64 {
        self.wall_ms.load(Ordering::Relaxed)
    }

    fn monotonic_ms(&self) -> i64 {
        self.monotonic_ms.load(Ordering::Relaxed)
    }
}

/// A service without partitions, which may be started several times.
struct Rig {
    store: Arc<InMemory>,
    clock: Arc<SetClock>,
    settings: Settings,
    /// See [`ReconcilerParts::keeper`].
    keeper: Option<Arc<AtomicBool>>,
}

impl Rig {
    fn new() -> Rig {
        let clock = Arc::new(SetClock { wall_ms: START_MS.into(), monotonic_ms: 0.into() });
        Rig { store: Arc::new(InMemory::new()), clock, settings: Settings::default(), keeper: None }
    }

    async fn open(&self) -> Reconciler {
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let parts = ReconcilerParts {
            logs: EpochLogs::new(self.store.clone()),
            lake: Arc::new(Lake::open(self.store.clone()).await.unwrap()),
            shown: HotPartitions::default(),
            settings: self.settings.clone(),
            key: IdentityKey::new([0; 16]),
            fingerprints: Fingerprints { config: 1, key: 2 },
            report: Report::new(TimeSettings::default(), &PartitionState::default(), Arc::clone(&clock)),
            clock,
            randomness: Arc::new(SystemRandomness),
            keeper: self.keeper.clone(),
        };
        Reconciler::open(parts).await.unwrap()
    }

    /// The number of runs so far.
    async fn runs(&self) -> u64 {
        let state = EpochLogs::new(self.store.clone()).log(RECONCILE).fold().await.unwrap();
        state.and_then(|state| state.reconcile).map_or(0, |record| record.state.runs)
    }
}

/// Runs a test on a thread whose stack is deep enough for unoptimised SQL planning.
fn run(test: impl Future<Output = ()> + Send + 'static) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_stack_size(8 << 20)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async { tokio::spawn(test).await.unwrap() });
}

#[test]
fn a_run_is_due_once_a_day() {
    let check = |ms, of_day_ms, expected| assert_eq!(next_after(ms, of_day_ms), expected, "{ms} {of_day_ms}");
    check(0, 9_000_000, 9_000_000);
    check(9_000_000, 9_000_000, 9_000_000 + DAY_MS);
    check(DAY_MS - 1, 0, DAY_MS);
    check(10 * DAY_MS + 1, 1, 11 * DAY_MS + 1);
    check(-1, 5, 5);
}

#[test]
fn a_service_runs_daily_and_makes_up_for_a_run_that_it_missed() {
    run(async {
        let rig = Rig::new();
        let mut reconciler = rig.open().await;
        let due_ms = reconciler.first_due_ms();
        assert_eq!(due_ms, Some(START_MS + AFTER_START_MS), "a new service does not wait for the night");
        rig.clock.pass(AFTER_START_MS - 1);
        assert_eq!((reconciler.run_if_due(due_ms).await, rig.runs().await), (due_ms, 0));
        rig.clock.pass(1);
        let night_ms = 20_001 * DAY_MS + 2 * HOUR_MS + HOUR_MS / 2;
        assert_eq!((reconciler.run_if_due(due_ms).await, rig.runs().await), (Some(night_ms), 1));
        rig.clock.pass(HOUR_MS);
        assert_eq!((reconciler.run_if_due(Some(night_ms)).await, rig.runs().await), (Some(night_ms), 1));
        drop(reconciler);

        // Started again on the same day, it waits for the night; after two days, it is late.
        let reconciler = rig.open().await;
        assert_eq!(reconciler.first_due_ms(), Some(night_ms));
        drop(reconciler);
        rig.clock.pass(2 * DAY_MS);
        let reconciler = rig.open().await;
        assert_eq!(reconciler.first_due_ms(), Some(rig.clock.wall_ms() + AFTER_START_MS));
    });
}

#[test]
fn a_service_that_is_told_not_to_run_daily_does_not() {
    run(async {
        let mut rig = Rig::new();
        rig.settings.reconcile.daily = false;
        let mut reconciler = rig.open().await;
        assert_eq!(reconciler.first_due_ms(), None);
        assert_eq!((reconciler.run_if_due(None).await, rig.runs().await), (None, 0));
    });
}

/// A wall clock that jumps for a moment does not give corrections a time in the future: later ones would seem as late.
#[test]
fn corrections_have_times_of_a_guarded_clock() {
    run(async {
        let rig = Rig::new();
        let mut reconciler = rig.open().await;
        rig.clock.wall_ms.fetch_add(3_650 * DAY_MS, Ordering::Relaxed);
        rig.clock.monotonic_ms.fetch_add(1_000, Ordering::Relaxed);
        let asked = Asked::Reconcile(ReconcileOptions::all("command"));
        reconciler.run(&asked, &|_, _| {}).await.unwrap();
        let committed_ms = reconciler.corrections.as_ref().unwrap().progress().clock_ms;
        assert!((START_MS..START_MS + 120_000).contains(&committed_ms), "{committed_ms}");
    });
}

/// Of several processes on one store, the one that maintains the lake does the daily run, and the others show it.
#[test]
fn one_of_several_processes_runs_daily() {
    run(async {
        let mut rig = Rig::new();
        rig.keeper = Some(Arc::new(AtomicBool::new(true)));
        let mut first = rig.open().await;
        rig.keeper = Some(Arc::new(AtomicBool::new(false)));
        let mut second = rig.open().await;
        let due_ms = first.first_due_ms();
        assert_eq!(second.first_due_ms(), due_ms);
        rig.clock.pass(AFTER_START_MS);
        let again_ms = second.run_if_due(due_ms).await;
        assert_eq!(rig.runs().await, 0, "the other one keeps the lake");
        let night_ms = 20_001 * DAY_MS + 2 * HOUR_MS + HOUR_MS / 2;
        assert_eq!((first.run_if_due(due_ms).await, rig.runs().await), (Some(night_ms), 1));
        second.follow().await.unwrap();
        assert_eq!((second.shown, second.parts.report.ledger().corrections.unwrap().runs), (first.shown, 1));

        // The first process dies, and the second one keeps the lake: today's run is done.
        drop(first);
        second.parts.keeper.as_ref().unwrap().store(true, Ordering::Relaxed);
        rig.clock.pass(HOUR_MS);
        assert_eq!((second.run_if_due(again_ms).await, rig.runs().await), (Some(night_ms), 1));
        rig.clock.pass(night_ms - rig.clock.wall_ms());
        assert_eq!((second.run_if_due(Some(night_ms)).await, rig.runs().await), (Some(night_ms + DAY_MS), 2));
        // A run by request claims the partition again, whoever had it.
        let asked = Asked::Reconcile(ReconcileOptions::all("command"));
        rig.open().await.run(&asked, &|_, _| {}).await.unwrap();
        second.run(&asked, &|_, _| {}).await.unwrap();
        assert_eq!(rig.runs().await, 4);
    });
}
