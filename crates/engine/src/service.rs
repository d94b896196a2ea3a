//! The whole job on one machine: stores, recovery and threads, and how they start and stop.

use crate::clock::{Clock, Randomness};
use crate::commit::CommitThreads;
use crate::engine::{Engine, Environment, Owned, Workers};
use crate::files::file_source;
use crate::ingest::Turn;
use crate::options::RunOptions;
use crate::reconciler::{Reconciler, ReconcilerHandle, ReconcilerParts, stop_reconciler};
use crate::recovery::{self, OlderMinutes};
use crate::report::Report;
use crate::run::{Run, Summary};
use crate::settings::Settings;
use crate::start::ServiceStart;
use crate::upkeep::UpkeepThread;
use adtally_model::settings::Clash;
use adtally_model::{Error, Ledger, PartitionState, RECONCILE, Result};
use adtally_source::{LocalFiles, Progress as ReadProgress};
pub use adtally_store::backing::{Backing, EMBEDDED, Stores};
use adtally_store::data_dir::DataDir;
use adtally_store::durable::DurableLocal;
use adtally_store::embedded::{Embedded, HotPartitions};
use adtally_store::epoch_log::Fingerprints;
use adtally_store::hot_counts::HotCounts;
use adtally_store::lake::Lake;
use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often to check whether a stopping run takes too long.
const DRAIN_POLL: Duration = Duration::from_millis(50);

/// Turns of the run loop between two progress reports; the second bound applies while nothing is read: about a minute.
const TURNS_TOLD: u32 = 64;
const TURNS_TOLD_QUIET: u32 = 2_048;

/// Pause after a failure to read older minutes. Doubles up to 64 times this value.
const LOAD_PAUSE: Duration = Duration::from_secs(1);

/// The started job.
pub struct Service {
    run: Run<CommitThreads>,
    hot: HotPartitions,
    lake: Arc<Lake>,
    report: Arc<Report>,
    projector_thread: JoinHandle<()>,
    /// Maintains the lake at intervals. A bounded run does so at its end instead.
    upkeep_thread: Option<UpkeepThread>,
    /// Reconciles. A bounded run does not.
    reconciler: Option<(ReconcilerHandle, JoinHandle<()>)>,
    /// Locked until the end; `None` on a shared store.
    _data_dir: Option<DataDir>,
}

impl Service {
    /// Takes the data directory, recovers the state, and starts everything but reading.
    ///
    /// # Errors
    /// A user error for invalid settings, fenced for a data directory in use, corrupt when stored data is damaged.
    pub fn start(
        options: &RunOptions,
        clock: Arc<dyn Clock>,
        randomness: Arc<dyn Randomness>,
        runtime: &tokio::runtime::Handle,
    ) -> Result<Service> {
        let start = ServiceStart::new(options, clock, Arc::default());
        Self::start_watched(options, &start, randomness, runtime)
    }

    /// Like [`Service::start`], with a report that others can read. They cannot stop the start.
    ///
    /// # Errors
    /// As [`Service::start`].
    pub fn start_watched(
        options: &RunOptions,
        start: &ServiceStart,
        randomness: Arc<dyn Randomness>,
        runtime: &tokio::runtime::Handle,
    ) -> Result<Service> {
        Self::begin(options, start, randomness, runtime)?.ok_or_else(nobody_stopped_it)
    }

    /// Like [`Service::start_watched`]; returns `None` if asked to stop before the state was recovered.
    ///
    /// # Errors
    /// As [`Service::start`].
    pub fn begin(
        options: &RunOptions,
        start: &ServiceStart,
        randomness: Arc<dyn Randomness>,
        runtime: &tokio::runtime::Handle,
    ) -> Result<Option<Service>> {
        let Settings { time, epoch, store, .. } = &options.settings;
        Clash::refuse(&time.clashes())?;
        let url = &store.data_dir;
        if url.folder().is_some_and(|folder| !folder.exists()) {
            // An error in the arguments must not leave a data directory behind. If a data directory exists, a path may
            // be known from an earlier run although it has no files now.
            let nothing_read = PartitionState::default();
            let files = Box::new(LocalFiles);
            file_source(&options.settings, options.ending, files, &nothing_read, start.clock().as_ref())?;
        }
        let data_dir = url.locked_folder().map(DataDir::own).transpose()?;
        let backing = Backing::for_owner(url, epoch.fsync)?;
        match &data_dir {
            Some(data_dir) => sweep(data_dir.path(), start.clock().wall_ms())?,
            None => {
                let probing = start.unless_stopped(backing.probe(randomness.next_u128()));
                let Some(()) = runtime.block_on(probing)? else { return Ok(None) };
            }
        }
        Self::begin_on(options, data_dir, &backing, start, randomness, runtime)
    }

    /// Like [`Service::start`] on other object stores. The data directory then has only the lock and the identity key.
    ///
    /// # Errors
    /// As [`Service::start`].
    pub fn start_on(
        options: &RunOptions,
        data_dir: DataDir,
        backing: &Backing,
        clock: Arc<dyn Clock>,
        randomness: Arc<dyn Randomness>,
        runtime: &tokio::runtime::Handle,
    ) -> Result<Service> {
        let start = ServiceStart::new(options, clock, Arc::default());
        Self::begin_on(options, Some(data_dir), backing, &start, randomness, runtime)?.ok_or_else(nobody_stopped_it)
    }

    fn begin_on(
        options: &RunOptions,
        data_dir: Option<DataDir>,
        backing: &Backing,
        start: &ServiceStart,
        randomness: Arc<dyn Randomness>,
        runtime: &tokio::runtime::Handle,
    ) -> Result<Option<Service>> {
        let settings = &options.settings;
        let (report, clock) = (Arc::clone(&start.report), Arc::clone(start.clock()));
        Clash::refuse(&settings.time.clashes())?;
        let Some(stores) = runtime.block_on(start.unless_stopped(backing.open()))? else { return Ok(None) };
        let Stores { logs, lake, log_is_empty } = stores;
        let log = logs.log(EMBEDDED);
        report.reads(log.progress());
        let key = match (settings.identity_key, &data_dir) {
            (Some(key), _) => key,
            (None, Some(data_dir)) => data_dir.identity_key(randomness.next_u128().to_be_bytes(), log_is_empty)?,
            (None, None) => settings.store.data_dir.shared_key(None)?,
        };
        let lake = Arc::new(lake);
        let fingerprints = Fingerprints { config: settings.fingerprint(), key: key.fingerprint() };
        let (writer, fresh) = (randomness.next_u128(), randomness.next_u128());
        let bounded = options.ending.is_bounded();
        // A bounded run answers no queries. It keeps only the live minutes, which base records repeat.
        let hot_minutes = if bounded { 0 } else { settings.store.hot_minutes };
        let recovering = recovery::take_over(&log, lake.as_ref(), writer, fresh, fingerprints);
        let Some(mut recovered) = runtime.block_on(start.unless_stopped(recovering))? else { return Ok(None) };
        // Only the owner changes tables.
        let Some(()) = runtime.block_on(start.unless_stopped(lake.add_columns()))? else { return Ok(None) };
        let (hot, older) = recovery::warm(&mut recovered, hot_minutes, clock.wall_ms());
        let shown = HotPartitions::of(EMBEDDED, Arc::clone(&hot));
        let keeper: Arc<AtomicBool> = Arc::default();
        let reconciler = if bounded {
            let log = logs.log(RECONCILE);
            let folding = start.unless_stopped(log.fold());
            let Some(corrections) = runtime.block_on(folding)? else { return Ok(None) };
            corrections.iter().for_each(|state| report.recovered(state));
            None
        } else {
            let opening = Reconciler::open(ReconcilerParts {
                logs: logs.clone(),
                lake: Arc::clone(&lake),
                shown: shown.clone(),
                settings: settings.clone(),
                key,
                fingerprints,
                report: Arc::clone(&report),
                clock: Arc::clone(&clock),
                randomness: Arc::clone(&randomness),
                keeper: settings.store.data_dir.is_shared().then(|| Arc::clone(&keeper)),
            });
            let Some(reconciler) = runtime.block_on(start.unless_stopped(opening))? else { return Ok(None) };
            Some(reconciler)
        };
        start.questions.open(Embedded::new(shown.clone(), Arc::clone(&lake)));
        let environment = Environment {
            logs,
            lake: lake.clone(),
            clock: Arc::clone(&clock),
            randomness,
            runtime: runtime.clone(),
            decode_threads: std::thread::available_parallelism().map_or(1, NonZero::get),
            report: Arc::clone(&report),
            sources: None,
            keeper,
            letters: None,
        };
        let source = file_source(settings, options.ending, Box::new(LocalFiles), &recovered.state, clock.as_ref())?;
        let (mut engine, Workers { projecting, upkeep }) = Engine::new(options, key, shown.clone(), environment)?;
        let abandon = Arc::clone(&engine.abandon);
        engine.add(Owned { log, recovered, hot: Arc::clone(&hot), source, confirm: None }, CommitThreads::start)?;
        let projector_thread = projecting.start()?;
        let upkeep_thread = if bounded { None } else { Some(upkeep.start()?) };
        let reconciler = reconciler.map(Reconciler::start).transpose()?;
        // A bounded run answers no queries.
        if let Some(older) = older.filter(|_| !bounded) {
            runtime.spawn(load_older(older, Arc::clone(&hot), lake.clone(), abandon));
        }
        Ok(Some(Service {
            run: Run::new(engine),
            hot: shown,
            lake,
            report,
            projector_thread,
            upkeep_thread,
            reconciler,
            _data_dir: data_dir,
        }))
    }

    /// Answers queries.
    pub fn questions(&self) -> Arc<Embedded> {
        Arc::new(Embedded::new(self.hot.clone(), Arc::clone(&self.lake)))
    }

    /// The lake, for SQL during the run.
    pub fn lake(&self) -> Arc<Lake> {
        Arc::clone(&self.lake)
    }

    /// Reconciles on request; `None` in a bounded run.
    pub fn reconciler(&self) -> Option<ReconcilerHandle> {
        self.reconciler.as_ref().map(|(handle, _)| handle.clone())
    }

    /// The report of the process.
    pub fn report(&self) -> Arc<Report> {
        Arc::clone(&self.report)
    }

    /// Reads until the inputs end or `stop` is set, then commits everything and updates the lake. Calls `watch` from
    /// time to time with the reading progress.
    ///
    /// # Errors
    /// The error that must stop the process.
    pub fn run(self, stop: &AtomicBool, mut watch: impl FnMut(&ReadProgress, &Ledger)) -> Result<Summary> {
        self.report.started();
        let ended = AtomicBool::new(false);
        let mut timer = self.run.drain_timer();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(Ordering::Relaxed) && timer.turn(stop.load(Ordering::Relaxed)) != Turn::Finished {
                    std::thread::sleep(DRAIN_POLL);
                }
            });
            let _ended = SetWhenDropped(&ended);
            self.turn_until_over(stop, &mut watch)
        })
    }

    fn turn_until_over(mut self, stop: &AtomicBool, watch: &mut impl FnMut(&ReadProgress, &Ledger)) -> Result<Summary> {
        let (mut turns, mut told) = (0_u32, u64::MAX);
        loop {
            match self.run.turn(stop.load(Ordering::Relaxed)) {
                Turn::Finished => break,
                Turn::Worked => {}
                Turn::Nothing => self.run.wait(),
            }
            let Some(engine) = self.run.engine() else { continue };
            turns = turns.wrapping_add(1);
            // Reports about many quiet inputs are rarer, because adding up their state is expensive.
            let ledger = engine.ledger();
            let is_reading = ledger.read != told;
            if turns.is_multiple_of(if is_reading { TURNS_TOLD } else { TURNS_TOLD_QUIET }) {
                told = ledger.read;
                watch(&engine.report_reading(), &ledger);
            }
        }
        if let Some(thread) = self.upkeep_thread {
            thread.stop();
        }
        if let Some(reconciler) = self.reconciler {
            stop_reconciler(reconciler);
        }
        // The run's outcome includes the projector's.
        let _ = self.projector_thread.join();
        self.run.take_summary()
    }
}

/// The error of a start that was stopped although it cannot be.
fn nobody_stopped_it() -> Error {
    Error::internal("the start was stopped, although nothing can stop it")
}

/// Sets a flag when dropped, also after a panic, so that no thread waits for the flag in vain.
pub(crate) struct SetWhenDropped<'a>(pub(crate) &'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Reads the hot minutes that are no longer live, and retries until it succeeds.
pub(crate) async fn load_older(
    mut older: OlderMinutes,
    hot: Arc<HotCounts>,
    lake: Arc<Lake>,
    abandon: Arc<AtomicBool>,
) {
    let mut pause = LOAD_PAUSE;
    while let Err(error) = older.load(&hot, lake.as_ref()).await {
        tracing::warn!("hot minutes cannot be loaded; the lake answers for them: {}", error.report());
        if !error.is_retryable() || abandon.load(Ordering::Relaxed) {
            return;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LOAD_PAUSE * 64);
    }
}

/// Removes temporary files left by a crash. Only the owner writes, and it has not begun.
fn sweep(data_dir: &Path, now_ms: i64) -> Result<()> {
    let now = std::time::SystemTime::UNIX_EPOCH + Duration::from_millis(now_ms.max(0) as u64);
    let swept = DurableLocal::open(data_dir, true)?.sweep(now)?;
    if swept > 0 {
        tracing::info!(swept, "temporary files of an interrupted process removed");
    }
    Ok(())
}
