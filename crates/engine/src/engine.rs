//! The parts of a process put together, without the threads that turn them: partitions that come and go, each with a source,
//! a log and a state, and what they share.

use crate::clock::{Clock, Randomness};
use crate::commit::{Committer, Encoder, Recorder, RecorderParts};
use crate::decode_pool::DecodePool;
use crate::ingest::{EpochSink, Ingest, IngestSettings, Parts, Turn};
use crate::options::RunOptions;
use crate::project::{Projector, ProjectorParts, Work};
use crate::recovery::Recovered;
use crate::report::Report;
use crate::upkeep::{Upkeep, UpkeepParts};
use adtally_model::{IdentityKey, Ledger, Result};
use adtally_pipeline::Partition;
use adtally_source::{DecodeSettings, Decoder, Progress as ReadProgress, Source};
use adtally_store::embedded::HotPartitions;
use adtally_store::epoch_log::{EpochLog, EpochLogs};
use adtally_store::hot_counts::HotCounts;
use adtally_store::lake::LakeStore;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// What a process stands on. All of it is passed in, so that a simulation can stand in for it.
pub struct Environment {
    /// The epoch logs of the deployment.
    pub logs: EpochLogs,
    /// The lake.
    pub lake: Arc<dyn LakeStore>,
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

/// A partition that this process has taken possession of.
pub struct Owned {
    /// Its log.
    pub log: EpochLog,
    /// Its state, and the right to append to its log.
    pub recovered: Recovered,
    /// Its counts, which hold the live minutes.
    pub hot: Arc<HotCounts>,
    /// Where its lines come from, going on where the state says.
    pub source: Box<dyn Source>,
}

/// What the caller drives beside the engine, on threads or by hand.
pub struct Workers {
    /// Brings the lake up to date.
    pub projecting: Work,
    /// Keeps the lake in order.
    pub upkeep: Arc<Upkeep>,
}

/// The engine of a process: it reads, judges and hands epochs over, one turn at a time.
pub struct Engine<S> {
    pub(crate) options: RunOptions,
    pub(crate) environment: Environment,
    pool: Arc<DecodePool>,
    hot: HotPartitions,
    pub(crate) projector: Projector,
    pub(crate) upkeep: Arc<Upkeep>,
    /// Makes committers give up.
    pub(crate) abandon: Arc<AtomicBool>,
    partitions: BTreeMap<u32, Member<S>>,
    /// Whether what a process may hold was shared out in the last turn.
    is_shared: bool,
}

/// A partition at work.
struct Member<S> {
    ingest: Ingest<S>,
    /// Lines that were read before it was taken up.
    read_before: u64,
    /// A bounded run of it is over.
    is_finished: bool,
}

impl<S: EpochSink> Engine<S> {
    /// An engine without partitions. Their counts are shown to readers in `hot`.
    ///
    /// # Errors
    /// A user error for bad settings, external when a thread cannot be started.
    pub fn new(
        options: &RunOptions,
        key: IdentityKey,
        hot: HotPartitions,
        environment: Environment,
    ) -> Result<(Engine<S>, Workers)> {
        let Environment { lake, clock, randomness, runtime, report, .. } = &environment;
        let RunOptions { settings, ending, attempts_max } = options;
        let (projector, projecting) = Projector::new(ProjectorParts {
            lake: Arc::clone(lake),
            report: Arc::clone(report),
            clock: Arc::clone(clock),
            runtime: runtime.clone(),
            file_token: randomness.next_u128(),
            interval: settings.store.lake_interval,
            attempts_max: ending.is_bounded().then_some(*attempts_max),
        });
        let upkeep = Arc::new(Upkeep::new(UpkeepParts {
            logs: environment.logs.clone(),
            lake: Arc::clone(lake),
            projector: projector.clone(),
            report: Arc::clone(report),
            clock: Arc::clone(clock),
            randomness: Arc::clone(randomness),
            runtime: runtime.clone(),
            interval: settings.store.upkeep_interval,
            keep: settings.store.keep,
            leaves_fresh: ending.is_bounded(),
        }));
        let decoder = Arc::new(Decoder::new(DecodeSettings::clone(&settings.source.tail.decode), key)?);
        let engine = Engine {
            options: options.clone(),
            pool: Arc::new(DecodePool::new(decoder, environment.decode_threads)?),
            environment,
            hot,
            projector,
            upkeep: Arc::clone(&upkeep),
            abandon: Arc::new(AtomicBool::new(false)),
            partitions: BTreeMap::new(),
            is_shared: false,
        };
        Ok((engine, Workers { projecting, upkeep }))
    }

    /// Takes a partition up; `sink` makes of its committer where its epochs go.
    ///
    /// # Errors
    /// What `sink` fails with.
    pub fn add(&mut self, owned: Owned, sink: impl FnOnce(Committer) -> Result<S>) -> Result<()> {
        let Owned { log, recovered: Recovered { writer, state, lake_epoch, waiting }, hot, source } = owned;
        let Environment { lake, clock, randomness, runtime, report, .. } = &self.environment;
        let RunOptions { settings, ending, attempts_max } = &self.options;
        let encoder = Encoder { lake: Arc::clone(lake), randomness: Arc::clone(randomness), clock: Arc::clone(clock) };
        let recorder = Recorder::new(RecorderParts {
            writer,
            lake_epoch,
            lake: Arc::clone(lake),
            hot: Arc::clone(&hot),
            report: Arc::clone(report),
            projector: self.projector.clone(),
            clock: Arc::clone(clock),
            randomness: Arc::clone(randomness),
            runtime: runtime.clone(),
            attempts_max: ending.is_bounded().then_some(*attempts_max),
            abandon: Arc::clone(&self.abandon),
        });
        let sink = sink(Committer { encoder, recorder })?;
        let partition = state.progress.partition;
        self.upkeep.took(&state.progress);
        self.projector.add(log, Arc::clone(&hot), lake_epoch, waiting);
        self.hot.add(partition, Arc::clone(&hot));
        report.recovered(&state);
        let read_before = state.progress.ledger.read;
        let parts = Parts {
            settings: IngestSettings::new(settings, *ending),
            clock: Arc::clone(clock),
            source,
            pool: Arc::clone(&self.pool),
            last_clock_ms: state.progress.clock_ms,
            number: state.progress.number + 1,
            partition: Partition::new(settings.time, state),
            hot,
            report: Arc::clone(report),
        };
        let ingest = Ingest::new(parts, sink);
        self.partitions.insert(partition, Member { ingest, read_before, is_finished: false });
        Ok(())
    }

    /// Gives a partition up, without its last epoch; what was handed over before is still with its sink.
    pub fn remove(&mut self, partition: u32) -> Option<S> {
        let member = self.partitions.remove(&partition)?;
        self.hot.remove(partition);
        self.projector.remove(partition);
        self.environment.report.left(partition);
        Some(member.ingest.into_sink())
    }

    /// Turns every partition once.
    ///
    /// # Errors
    /// What must stop the process.
    pub fn turn(&mut self) -> Result<Turn> {
        self.share();
        let mut worked = false;
        for member in self.partitions.values_mut().filter(|member| !member.is_finished) {
            match member.ingest.turn()? {
                Turn::Worked => worked = true,
                Turn::Nothing => {}
                Turn::Finished => member.is_finished = true,
            }
        }
        let is_over = !self.partitions.is_empty() && self.partitions.values().all(|member| member.is_finished);
        Ok(match (is_over, worked) {
            (true, _) => Turn::Finished,
            (false, true) => Turn::Worked,
            (false, false) => Turn::Nothing,
        })
    }

    /// Shares out what the process may hold.
    fn share(&mut self) {
        let count = self.partitions.len();
        if count < 2 && !self.is_shared {
            return;
        }
        self.is_shared = count > 1;
        let held = |member: &Member<S>| member.ingest.partition().held().0;
        let total: usize = self.partitions.values().map(held).sum();
        let settings = IngestSettings::new(&self.options.settings, self.options.ending).shared_by(count);
        for member in self.partitions.values_mut() {
            let elsewhere = total - held(member);
            member.ingest.share(settings, elsewhere);
        }
    }

    /// Stops in good order: hands over the epochs begun.
    ///
    /// # Errors
    /// What stopped a committer.
    pub fn stop(&mut self) -> Result<()> {
        self.partitions.values_mut().try_for_each(|member| member.ingest.stop())
    }

    /// Waits a moment for decoders or for lines to come.
    pub fn wait(&self) {
        self.pool.wait(Duration::from_millis(5));
    }

    /// Gives the sinks back, and all else up.
    pub fn into_sinks(self) -> Vec<S> {
        self.partitions.into_values().map(|member| member.ingest.into_sink()).collect()
    }

    /// Lines of its partitions that were read before it took them up.
    pub fn read_before(&self) -> u64 {
        self.partitions.values().map(|member| member.read_before).sum()
    }

    /// What a bounded run left unread, and why.
    pub fn unread(&self) -> Vec<String> {
        let left = |member: &Member<S>| [member.ingest.unread(), &member.ingest.source().foreign()].concat();
        self.partitions.values().flat_map(left).collect()
    }

    /// The partitions' states.
    pub fn partitions(&self) -> impl Iterator<Item = &Partition> {
        self.partitions.values().map(|member| member.ingest.partition())
    }

    /// The same, to be changed: for a simulation that plants bugs.
    #[doc(hidden)]
    pub fn partitions_mut(&mut self) -> impl Iterator<Item = &mut Partition> {
        self.partitions.values_mut().map(|member| member.ingest.partition_mut())
    }

    /// All lines by verdict so far, uncommitted ones included.
    pub fn ledger(&self) -> Ledger {
        let mut sum = Ledger::default();
        self.partitions().for_each(|partition| sum += partition.ledger());
        sum
    }

    /// Lets the report say what is read at the moment, and tells how far reading is.
    pub fn report_reading(&self) -> ReadProgress {
        let mut sum = ReadProgress::default();
        for member in self.partitions.values() {
            member.ingest.report_reading();
            let progress = member.ingest.source().progress();
            sum.total_bytes += progress.total_bytes;
            sum.read_bytes += progress.read_bytes;
        }
        sum
    }
}
