//! Everything that a run connects, put together and not started. A service starts threads with it; a simulation turns the
//! parts by hand.

use crate::clock::{Clock, Randomness};
use crate::commit::{Committer, Encoder, Recorder};
use crate::decode_pool::DecodePool;
use crate::ingest::{IngestSettings, Parts};
use crate::project::{Projector, ProjectorParts, Work};
use crate::recovery::Recovered;
use crate::report::Report;
use crate::service::{Ending, RunOptions};
use crate::settings::Settings;
use crate::upkeep::{Upkeep, UpkeepParts};
use adtally_model::{IdentityKey, InputRow, Result};
use adtally_pipeline::Partition;
use adtally_source::{DecodeSettings, Decoder, FileSystem, TailSettings, Tailer};
use adtally_store::epoch_log::EpochLog;
use adtally_store::hot_counts::HotCounts;
use adtally_store::lake::LakeStore;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// What a run stands on. All of it is passed in, so that a simulation can stand in for it.
pub struct Environment {
    /// The epoch log.
    pub log: EpochLog,
    /// The lake.
    pub lake: Arc<dyn LakeStore>,
    /// Where the files are that are read.
    pub files: Box<dyn FileSystem + Send>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Ids, file names and jitter.
    pub randomness: Arc<dyn Randomness>,
    /// Runs the stores' I/O.
    pub runtime: tokio::runtime::Handle,
    /// Threads that decode; with none, lines are decoded where they are read.
    pub decode_threads: usize,
    /// What the process tells of itself.
    pub report: Arc<Report>,
}

/// The parts of a run.
pub struct Assembly {
    /// What ingest is made of, once there is a sink for its epochs.
    pub reading: Parts,
    /// Commits epochs.
    pub committer: Committer,
    /// A handle on the work of the projector.
    pub projector: Projector,
    /// The work of the projector.
    pub projecting: Work,
    /// Keeps the lake in order.
    pub upkeep: Upkeep,
    /// Makes the committer give up.
    pub abandon: Arc<AtomicBool>,
}

impl Assembly {
    /// Puts a run together that goes on where recovery found it; `hot` holds the live minutes. The report says from now on
    /// that the state is recovered.
    ///
    /// # Errors
    /// A user error for bad settings, external when a thread cannot be started.
    pub fn new(
        options: &RunOptions,
        key: IdentityKey,
        recovered: Recovered,
        hot: Arc<HotCounts>,
        environment: Environment,
    ) -> Result<Assembly> {
        let RunOptions { settings, ending, attempts_max } = options;
        let Environment { log, lake, files, clock, randomness, runtime, decode_threads, report } = environment;
        let Recovered { writer, state, lake_epoch, waiting } = recovered;
        let attempts_max = ending.is_bounded().then_some(*attempts_max);
        let abandon = Arc::new(AtomicBool::new(false));
        let (projector, projecting) = Projector::new(
            ProjectorParts {
                log: log.clone(),
                lake: Arc::clone(&lake),
                hot: Arc::clone(&hot),
                report: Arc::clone(&report),
                clock: Arc::clone(&clock),
                runtime: runtime.clone(),
                file_token: randomness.next_u128(),
                interval: settings.store.lake_interval,
                attempts_max,
            },
            lake_epoch,
            waiting,
        );
        let upkeep = Upkeep::new(UpkeepParts {
            log,
            lake: Arc::clone(&lake),
            projector: projector.clone(),
            report: Arc::clone(&report),
            clock: Arc::clone(&clock),
            randomness: Arc::clone(&randomness),
            runtime: runtime.clone(),
            interval: settings.store.upkeep_interval,
            keep: settings.store.keep,
            fresh_from: ending.is_bounded().then_some(state.progress.number),
            last_clock_ms: state.progress.clock_ms,
        });
        let encoder =
            Encoder { lake: Arc::clone(&lake), randomness: Arc::clone(&randomness), clock: Arc::clone(&clock) };
        let recorder = Recorder {
            writer,
            lake,
            hot: Arc::clone(&hot),
            report: Arc::clone(&report),
            projector: projector.clone(),
            clock: Arc::clone(&clock),
            randomness,
            runtime,
            attempts_max,
            abandon: Arc::clone(&abandon),
        };
        let known = state.inputs.values().cloned().collect();
        let tailer = tailer(settings, *ending, files, known, state.progress.next_input, clock.as_ref())?;
        let decoder = Arc::new(Decoder::new(DecodeSettings::clone(&settings.source.tail.decode), key)?);
        report.recovered(&state);
        let reading = Parts {
            settings: IngestSettings::new(settings, *ending),
            clock,
            tailer,
            pool: DecodePool::new(decoder, decode_threads)?,
            last_clock_ms: state.progress.clock_ms,
            number: state.progress.number + 1,
            partition: Partition::new(settings.time, state),
            hot,
            report,
        };
        Ok(Assembly { reading, committer: Committer { encoder, recorder }, projector, projecting, upkeep, abandon })
    }
}

/// What follows the files, going on where these rows say.
///
/// # Errors
/// A user error for bad settings or paths that lead nowhere.
pub(crate) fn tailer(
    settings: &Settings,
    ending: Ending,
    files: Box<dyn FileSystem + Send>,
    known: Vec<Arc<InputRow>>,
    next_input: u64,
    clock: &dyn Clock,
) -> Result<Tailer> {
    let last_rows_before_ms = match ending {
        Ending::Scratch => Some(i64::MAX),
        Ending::Final => Some(clock.wall_ms() - settings.time.idle_timeout_ms),
        Ending::UntilEnd | Ending::Never => None,
    };
    let source = &settings.source;
    let tail = TailSettings { bounded: ending.is_bounded(), last_rows_before_ms, ..source.tail.clone() };
    Tailer::new(files, tail, &source.paths, known, next_input)
}
