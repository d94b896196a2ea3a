//! Assembles the parts of a process, without the threads that run them: partitions that are added and removed, each
//! with a source, a log and a state, and the parts that they share.

use crate::clock::{Clock, Randomness};
use crate::commit::{Committer, Confirm, Encoder, Recorder, RecorderParts};
use crate::decode_pool::DecodePool;
use crate::ingest::{EpochSink, Ingest, IngestSettings, Parts, Turn};
use crate::letters::Letters;
use crate::options::RunOptions;
use crate::project::{Projector, ProjectorParts, Work};
use crate::recovery::Recovered;
use crate::report::Report;
use crate::upkeep::{Upkeep, UpkeepParts};
use adtally_model::{Error, ErrorKind, IdentityKey, Ledger, Result};
use adtally_pipeline::Partition;
use adtally_source::{DecodeSettings, Decoder, Progress as ReadProgress, Source};
use adtally_store::embedded::HotPartitions;
use adtally_store::epoch_log::{EpochLog, EpochLogs};
use adtally_store::hot_counts::HotCounts;
use adtally_store::lake::LakeStore;
use adtally_store::sources::Sources;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// The dependencies of a process. All are passed in, so that a simulation can replace them.
pub struct Environment {
    /// The epoch logs of the deployment.
    pub logs: EpochLogs,
    /// The lake.
    pub lake: Arc<dyn LakeStore>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness for ids, file names and jitter.
    pub randomness: Arc<dyn Randomness>,
    /// Runs the stores' I/O.
    pub runtime: tokio::runtime::Handle,
    /// Decoding threads; with 0, lines are decoded on the thread that reads them.
    pub decode_threads: usize,
    /// The report of the process.
    pub report: Arc<Report>,
    /// The topics of the deployment, if other processes may own some of its partitions.
    pub sources: Option<Sources>,
    /// Set while this process maintains the lake.
    pub keeper: Arc<AtomicBool>,
    /// Sends dead letters on, if they are wanted elsewhere as well.
    pub letters: Option<Letters>,
}

/// A partition that this process owns.
pub struct Owned {
    /// Its log.
    pub log: EpochLog,
    /// Its state, and the right to append to its log.
    pub recovered: Recovered,
    /// Its counts, including the live minutes.
    pub hot: Arc<HotCounts>,
    /// The source of its lines, which continues at the state's positions.
    pub source: Box<dyn Source>,
    /// Confirms before each commit that the source is still the same; `None` if it cannot change.
    pub confirm: Option<Confirm>,
}

/// The workers that the caller runs beside the engine, on threads or by hand.
pub struct Workers {
    /// Updates the lake.
    pub projecting: Work,
    /// Maintains the lake.
    pub upkeep: Arc<Upkeep>,
}

/// The engine of a process: reads lines, judges them and submits epochs, one turn at a time.
pub struct Engine<S> {
    pub(crate) options: RunOptions,
    pub(crate) environment: Environment,
    pool: Arc<DecodePool>,
    hot: HotPartitions,
    pub(crate) projector: Projector,
    pub(crate) upkeep: Arc<Upkeep>,
    /// Makes committers give up when set.
    pub(crate) abandon: Arc<AtomicBool>,
    partitions: BTreeMap<u32, Member<S>>,
    /// Whether the memory bounds were shared among partitions in the last turn.
    is_shared: bool,
    /// If this process goes on without partitions that others took over: those, until they are taken from here.
    fenced: Option<Vec<(u32, Error)>>,
}

/// A running partition.
struct Member<S> {
    ingest: Ingest<S>,
    /// Lines read before this process added the partition.
    read_before: u64,
    /// Whether the partition's bounded run has finished.
    is_finished: bool,
}

impl<S: EpochSink> Engine<S> {
    /// An engine without partitions. Partitions added later show their counts in `hot`.
    ///
    /// # Errors
    /// A user error for invalid settings, external when a thread cannot be started.
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
            letters: environment.letters.clone(),
            report: Arc::clone(report),
            clock: Arc::clone(clock),
            runtime: runtime.clone(),
            file_token: randomness.next_u128(),
            interval: settings.store.lake_interval,
            attempts_max: ending.is_bounded().then_some(*attempts_max),
        });
        let upkeep = Arc::new(Upkeep::new(UpkeepParts {
            logs: environment.logs.clone(),
            sources: environment.sources.clone(),
            lake: Arc::clone(lake),
            projector: projector.clone(),
            report: Arc::clone(report),
            clock: Arc::clone(clock),
            randomness: Arc::clone(randomness),
            runtime: runtime.clone(),
            interval: settings.store.upkeep_interval,
            keep: settings.store.keep,
            keeper: Arc::clone(&environment.keeper),
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
            fenced: None,
        };
        Ok((engine, Workers { projecting, upkeep }))
    }

    /// Adds a partition. `sink` turns the partition's committer into its epoch sink.
    ///
    /// # Errors
    /// The error of `sink`.
    pub fn add(&mut self, owned: Owned, sink: impl FnOnce(Committer) -> Result<S>) -> Result<()> {
        let Owned { log, recovered: Recovered { writer, state, lake_epoch, waiting }, hot, source, confirm } = owned;
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
            is_shared: settings.store.data_dir.is_shared(),
            confirm,
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

    /// From now on, partitions that other processes take over are removed, and the others go on.
    pub fn survive_fencing(&mut self) {
        self.fenced.get_or_insert_default();
    }

    /// The partitions that other processes took over since the last call, and how that was noticed.
    pub fn take_fenced(&mut self) -> Vec<(u32, Error)> {
        self.fenced.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Ends the current epoch of a partition and removes it. Its epochs are with the returned sink.
    ///
    /// # Errors
    /// The error that stopped the committer.
    pub fn release(&mut self, partition: u32) -> Result<Option<S>> {
        let stopped = self.partitions.get_mut(&partition).map_or(Ok(()), |member| member.ingest.stop());
        let sink = self.remove(partition);
        stopped.map(|()| sink)
    }

    /// Whether a partition is here.
    pub fn has(&self, partition: u32) -> bool {
        self.partitions.contains_key(&partition)
    }

    /// Removes a partition without ending its current epoch. Epochs submitted before are still with the returned sink.
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
    /// The error that must stop the process.
    pub fn turn(&mut self) -> Result<Turn> {
        self.share();
        let mut worked = false;
        let mut lost = Vec::new();
        for (&partition, member) in self.partitions.iter_mut().filter(|(_, member)| !member.is_finished) {
            match member.ingest.turn() {
                Ok(Turn::Worked) => worked = true,
                Ok(Turn::Nothing) => {}
                Ok(Turn::Finished) => member.is_finished = true,
                Err(error) if error.kind() == ErrorKind::Fenced && self.fenced.is_some() => {
                    lost.push((partition, error))
                }
                Err(error) => return Err(error),
            }
        }
        for (partition, error) in lost {
            // Its committer has stopped.
            drop(self.remove(partition));
            self.fenced.get_or_insert_default().push((partition, error));
        }
        let is_over = !self.partitions.is_empty() && self.partitions.values().all(|member| member.is_finished);
        Ok(match (is_over, worked) {
            (true, _) => Turn::Finished,
            (false, true) => Turn::Worked,
            (false, false) => Turn::Nothing,
        })
    }

    /// Divides the memory bounds of the process among its partitions.
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

    /// Submits the epochs begun, for an orderly stop.
    ///
    /// # Errors
    /// The error that stopped a committer.
    pub fn stop(&mut self) -> Result<()> {
        self.partitions.values_mut().try_for_each(|member| member.ingest.stop())
    }

    /// Waits briefly for decoders or for new lines.
    pub fn wait(&self) {
        self.pool.wait(Duration::from_millis(5));
    }

    /// Drops everything but the sinks, and returns these.
    pub fn into_sinks(self) -> Vec<S> {
        self.partitions.into_values().map(|member| member.ingest.into_sink()).collect()
    }

    /// Lines of its partitions that were read before this process added them.
    pub fn read_before(&self) -> u64 {
        self.partitions.values().map(|member| member.read_before).sum()
    }

    /// What a bounded run left unread, with the reasons.
    pub fn unread(&self) -> Vec<String> {
        let left = |member: &Member<S>| [member.ingest.unread(), &member.ingest.source().foreign()].concat();
        self.partitions.values().flat_map(left).collect()
    }

    /// The partitions' states.
    pub fn partitions(&self) -> impl Iterator<Item = &Partition> {
        self.partitions.values().map(|member| member.ingest.partition())
    }

    /// Mutable access to the states, for a simulation that plants bugs.
    #[doc(hidden)]
    pub fn partitions_mut(&mut self) -> impl Iterator<Item = &mut Partition> {
        self.partitions.values_mut().map(|member| member.ingest.partition_mut())
    }

    /// All lines so far by verdict, uncommitted ones included.
    pub fn ledger(&self) -> Ledger {
        let mut sum = Ledger::default();
        self.partitions().for_each(|partition| sum += partition.ledger());
        sum
    }

    /// Updates the report with the current reading, and returns the reading progress.
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
