//! A worker: it reads the partitions of a topic that a group assigns to it, and gives them up when the group says so.
//!
//! A partition is taken over beside the run loop: its log is claimed and folded, and its topic is opened at the offset in
//! the log. Only then the run loop adds it. When the group revokes a partition, the epoch begun is committed if that takes
//! not long, and the partition is released. Nothing depends on what the group says: a partition that another process has
//! claimed is fenced, and is dropped here.

mod owned;
mod take_over;

pub use owned::OwnedPartitions;

use crate::clock::{Clock, Randomness};
use crate::commit::CommitThreads;
use crate::engine::{Engine, Environment, Workers};
use crate::ingest::{EpochSink, Turn};
use crate::letters::{LetterSink, Letters};
use crate::options::RunOptions;
use crate::reconciler::{Reconciler, ReconcilerHandle, ReconcilerParts, stop_reconciler};
use crate::report::Report;
use crate::run::{Run, Summary};
use crate::service::SetWhenDropped;
use crate::start::ServiceStart;
use crate::upkeep::UpkeepThread;
use adtally_model::settings::Clash;
use adtally_model::{Error, Frontiers, IdentityKey, Ledger, Minute, Progress, Result};
use adtally_source::{GroupEvent, Partitioner, RecordReader};
use adtally_store::backing::{Backing, Stores};
use adtally_store::embedded::{Embedded, HotPartitions};
use adtally_store::epoch_log::Fingerprints;
use adtally_store::hot_counts::HotCounts;
use adtally_store::sources::Topic;
use crossbeam_channel::Receiver;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use take_over::{FOLDS_MAX, TakeOver, Taken};
use tokio::sync::Semaphore;

/// How often to check whether a stopping run takes too long.
const DRAIN_POLL: Duration = Duration::from_millis(50);

/// Turns of the run loop between two reports about the group.
const TURNS_TOLD: u32 = 256;

/// How long the group may name this process as the owner of a partition that another process has taken over, in
/// milliseconds: members learn of a new assignment within the session timeout. After that, something else writes to the
/// same data.
const FENCED_MS_MAX: i64 = 60_000;

/// Pause before a partition that was fenced is taken over again, in milliseconds.
const FENCED_PAUSE_MS: i64 = 15_000;

/// The group that divides the partitions of a topic among processes.
pub trait Group: Send {
    /// The next event, if there is one. Does not wait.
    ///
    /// # Errors
    /// External when this process cannot be a member any more.
    fn next_event(&mut self) -> Result<Option<GroupEvent>>;

    /// Says that this process has given up a partition that was revoked.
    fn release(&mut self, partition: u32);

    /// Says how far a partition was committed: a hint for tools that show the lag.
    fn note_committed(&mut self, partition: u32, offset: u64);

    /// Why the group cannot be reached at the moment, if it cannot.
    fn failure(&self) -> Option<String>;
}

/// Opens the partitions of a topic.
pub trait TopicReader: Send + Sync {
    /// Asks the brokers about a partition, and waits for the answer.
    ///
    /// # Errors
    /// Transient when they do not answer.
    fn reach(&self, partition: u32) -> Result<()>;

    /// The offset at which to begin a partition that was never read. Waits for the brokers.
    ///
    /// # Errors
    /// A user error when there is no such offset; transient when the brokers do not answer.
    fn first_offset(&self, partition: u32) -> Result<u64>;

    /// Confirms that the topic is still the one that was opened: all records that were read before are of that topic. Waits for
    /// the brokers.
    ///
    /// # Errors
    /// Corrupt when the topic was deleted, made again, or given more partitions; transient when the brokers do not answer.
    fn confirm(&self) -> Result<()>;

    /// Reads a partition from an offset on. Waits for the brokers. Also returns the number of offsets that are lost, if that is
    /// accepted: reading then begins with the first that is left.
    ///
    /// # Errors
    /// Corrupt when the offset is lost or beyond the end; transient when the brokers do not answer.
    fn open(&self, partition: u32, next: u64) -> Result<(Box<dyn RecordReader>, u64)>;
}

/// What a worker reads.
pub struct WorkerSource {
    /// The topic, registered in the deployment.
    pub topic: Topic,
    /// The partitions of earlier sources of the deployment, which are all retired.
    pub retired: Vec<Progress>,
    /// How its producers choose partitions.
    pub partitioner: Partitioner,
    /// Opens its partitions.
    pub reader: Arc<dyn TopicReader>,
    /// Divides them.
    pub group: Box<dyn Group>,
    /// Takes dead letters, if they are wanted outside of the lake as well.
    pub letters: Option<Arc<dyn LetterSink>>,
}

/// A started worker.
pub struct Worker {
    run: Run<CommitThreads>,
    group: Box<dyn Group>,
    topic: Topic,
    take_over: Arc<TakeOver>,
    taken: Receiver<Taken>,
    /// The partitions that the group has assigned, by their numbers in the topic.
    assigned: BTreeMap<u32, Assigned>,
    /// Partitions that are being given up: their last epochs are being committed.
    releasing: Vec<(u32, JoinHandle<()>)>,
    owned: Arc<OwnedPartitions>,
    report: Arc<Report>,
    clock: Arc<dyn Clock>,
    projector_thread: JoinHandle<()>,
    upkeep_thread: UpkeepThread,
    /// Shows corrections, and does the daily runs while this process maintains the lake.
    reconciler: (ReconcilerHandle, JoinHandle<()>),
    told: Option<String>,
}

/// A partition that the group has assigned.
struct Assigned {
    /// Distinguishes assignments of the same partition.
    token: u64,
    /// When it was last taken over, in milliseconds of monotonic time.
    taken_ms: i64,
    /// When it was first fenced since it was last here for long, in milliseconds of monotonic time.
    fenced_since_ms: Option<i64>,
    /// When to take it over again after it was fenced.
    again_ms: Option<i64>,
    /// The offset that was last passed on to the group.
    committed: u64,
}

impl Worker {
    /// Opens the stores and starts everything but reading. Returns `None` if asked to stop before.
    ///
    /// # Errors
    /// A user error for invalid settings or a store of another topic; corrupt when stored data is damaged.
    pub fn begin(
        options: &RunOptions,
        (backing, key): (&Backing, IdentityKey),
        source: WorkerSource,
        start: &ServiceStart,
        randomness: &Arc<dyn Randomness>,
        runtime: &tokio::runtime::Handle,
    ) -> Result<Option<Worker>> {
        let settings = &options.settings;
        Clash::refuse(&settings.clashes())?;
        let Some(stores) = runtime.block_on(start.unless_stopped(backing.open()))? else { return Ok(None) };
        let Stores { logs, lake, .. } = stores;
        let Some(()) = runtime.block_on(start.unless_stopped(lake.add_columns()))? else { return Ok(None) };
        let WorkerSource { topic, retired, partitioner, reader, group, letters } = source;
        let frontiers = frontiers_after(&retired);
        let lake = Arc::new(lake);
        let (clock, report) = (Arc::clone(start.clock()), Arc::clone(&start.report));
        let hot = HotPartitions::default();
        show_retired(&hot, &retired);
        let owned = Arc::new(OwnedPartitions::new(topic.numbers().collect()));
        let fingerprints = Fingerprints { config: settings.fingerprint(), key: key.fingerprint() };
        let keeper: Arc<AtomicBool> = Arc::default();
        let opening = Reconciler::open(ReconcilerParts {
            logs: logs.clone(),
            lake: Arc::clone(&lake),
            shown: hot.clone(),
            settings: settings.clone(),
            key,
            fingerprints,
            report: Arc::clone(&report),
            clock: Arc::clone(&clock),
            randomness: Arc::clone(randomness),
            keeper: Some(Arc::clone(&keeper)),
        });
        let Some(reconciler) = runtime.block_on(start.unless_stopped(opening))? else { return Ok(None) };
        start.questions.open(owned.questions(Embedded::new(hot.clone(), Arc::clone(&lake))));
        let environment = Environment {
            logs: logs.clone(),
            lake: lake.clone(),
            clock: Arc::clone(&clock),
            randomness: Arc::clone(randomness),
            runtime: runtime.clone(),
            decode_threads: std::thread::available_parallelism().map_or(1, NonZero::get),
            report: Arc::clone(&report),
            sources: Some(backing.sources()),
            keeper,
            letters: letters.map(|sink| Letters::new(Arc::clone(&lake), sink)),
        };
        let (mut engine, Workers { projecting, upkeep }) = Engine::new(options, key, hot.clone(), environment)?;
        engine.survive_fencing();
        let (sender, taken) = crossbeam_channel::unbounded();
        let take_over = Arc::new(TakeOver {
            options: options.clone(),
            fingerprints,
            logs,
            lake: Arc::clone(&lake),
            topic: topic.clone(),
            partitioner,
            frontiers,
            reader,
            clock: Arc::clone(&clock),
            randomness: Arc::clone(randomness),
            runtime: runtime.clone(),
            report: Arc::clone(&report),
            sender,
            folding: Semaphore::new(FOLDS_MAX),
            tokens: AtomicU64::new(1),
            wanted: Mutex::default(),
            abandon: Arc::clone(&engine.abandon),
        });
        let run = Run::new(engine);
        report.assigned();
        Ok(Some(Worker {
            run,
            group,
            topic,
            take_over,
            taken,
            assigned: BTreeMap::new(),
            releasing: Vec::new(),
            owned,
            report,
            clock,
            projector_thread: projecting.start()?,
            upkeep_thread: upkeep.start()?,
            reconciler: reconciler.start()?,
            told: None,
        }))
    }

    /// The report of the process.
    pub fn report(&self) -> Arc<Report> {
        Arc::clone(&self.report)
    }

    /// Reads until `stop` is set, then commits everything and updates the lake. Leaves the group at the end, so that others
    /// take over at once. Calls `watch` from time to time.
    ///
    /// # Errors
    /// The error that must stop the process.
    pub fn run(self, stop: &AtomicBool, mut watch: impl FnMut(&Ledger)) -> Result<Summary> {
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

    fn turn_until_over(mut self, stop: &AtomicBool, watch: &mut impl FnMut(&Ledger)) -> Result<Summary> {
        let mut turns = 0_u32;
        let mut failure = None;
        loop {
            let is_asked = stop.load(Ordering::Relaxed) || failure.is_some();
            if !is_asked && let Err(error) = self.follow_group() {
                // What was read until now is committed before the process ends.
                tracing::error!("{}", error.report());
                failure = Some(error);
                continue;
            }
            match self.run.turn(is_asked) {
                Turn::Finished => break,
                Turn::Worked => {}
                Turn::Nothing => self.run.wait(),
            }
            self.drop_fenced();
            turns = turns.wrapping_add(1);
            if turns.is_multiple_of(TURNS_TOLD) {
                self.tell_group();
                if let Some(engine) = self.run.engine() {
                    engine.report_reading();
                    watch(&engine.ledger());
                }
            }
        }
        self.upkeep_thread.stop();
        stop_reconciler(self.reconciler);
        // The run's outcome includes the projector's.
        let _ = self.projector_thread.join();
        // Leaves the group: its partitions are committed.
        drop(self.group);
        let summary = self.run.take_summary();
        failure.map_or(summary, Err)
    }

    /// Does what the group says, and adds the partitions that were taken over.
    fn follow_group(&mut self) -> Result<()> {
        while let Some(event) = self.group.next_event()? {
            match event {
                GroupEvent::Assigned(partitions) => {
                    tracing::info!(?partitions, "partitions assigned");
                    partitions.into_iter().for_each(|partition| self.assign(partition));
                }
                GroupEvent::Revoked(partitions) => {
                    tracing::info!(?partitions, "partitions revoked");
                    for partition in partitions {
                        self.release(partition)?;
                    }
                }
                GroupEvent::Lost(partitions) => {
                    tracing::warn!(?partitions, "partitions lost: another member of the group may have them");
                    partitions.into_iter().for_each(|partition| self.lose(partition));
                }
            }
        }
        while let Ok(taken) = self.taken.try_recv() {
            self.add(taken)?;
        }
        let group = &mut self.group;
        self.releasing.retain(|(partition, thread)| {
            let is_done = thread.is_finished();
            if is_done {
                group.release(*partition);
            }
            !is_done
        });
        self.take_fenced_again()
    }

    fn assign(&mut self, partition: u32) {
        let token = self.take_over.begin(partition);
        let assigned = Assigned { token, taken_ms: 0, fenced_since_ms: None, again_ms: None, committed: 0 };
        self.assigned.insert(partition, assigned);
    }

    /// Adds a partition that was taken over, unless it was given up in the meantime.
    fn add(&mut self, taken: Taken) -> Result<()> {
        let Taken { partition, token, outcome } = taken;
        let Some(assigned) = self.assigned.get_mut(&partition).filter(|assigned| assigned.token == token) else {
            return Ok(());
        };
        assigned.taken_ms = self.clock.monotonic_ms();
        let (owned, older) = outcome?;
        let number = self.topic.number_of(partition);
        let hot = Arc::clone(&owned.hot);
        if let Some(engine) = self.run.engine_mut() {
            engine.add(owned, CommitThreads::start)?;
            self.owned.add(number);
            tracing::info!(partition, "partition taken over");
            self.take_over.load_older(older, hot);
        }
        Ok(())
    }

    /// Ends the epoch of a revoked partition, and releases the partition once the epoch is committed.
    fn release(&mut self, partition: u32) -> Result<()> {
        self.take_over.forget(partition);
        self.assigned.remove(&partition);
        let number = self.topic.number_of(partition);
        self.owned.remove(number);
        let Some(engine) = self.run.engine_mut() else { return Ok(()) };
        let sink = match engine.release(number) {
            Ok(sink) => sink,
            Err(error) if error.kind() == adtally_model::ErrorKind::Fenced => None,
            Err(error) => return Err(error),
        };
        let Some(mut sink) = sink else {
            self.group.release(partition);
            return Ok(());
        };
        let finish = move || {
            if let Err(error) = sink.finish() {
                tracing::warn!(
                    partition,
                    "the last epoch of a revoked partition was not committed: {}",
                    error.report()
                );
            }
        };
        let thread = std::thread::Builder::new().name("release".into()).spawn(finish);
        let thread = thread.map_err(|error| Error::external("a thread cannot be started").because(error))?;
        self.releasing.push((partition, thread));
        Ok(())
    }

    /// Drops a partition with everything that is not committed.
    fn lose(&mut self, partition: u32) {
        self.take_over.forget(partition);
        self.assigned.remove(&partition);
        let number = self.topic.number_of(partition);
        self.owned.remove(number);
        if let Some(engine) = self.run.engine_mut() {
            drop(engine.remove(number));
        }
    }

    /// Forgets partitions that others took over. If the group still says that they belong here, they are taken over again
    /// after a while.
    fn drop_fenced(&mut self) {
        let Some(engine) = self.run.engine_mut() else { return };
        let now_ms = self.clock.monotonic_ms();
        for (number, error) in engine.take_fenced() {
            self.owned.remove(number);
            tracing::warn!(number, "partition dropped: {}", error.report());
            let assigned = number.checked_sub(self.topic.first).and_then(|partition| self.assigned.get_mut(&partition));
            if let Some(assigned) = assigned {
                if now_ms - assigned.taken_ms > FENCED_MS_MAX {
                    assigned.fenced_since_ms = None;
                }
                assigned.fenced_since_ms.get_or_insert(now_ms);
                assigned.again_ms = Some(now_ms + FENCED_PAUSE_MS);
            }
        }
    }

    /// Takes partitions over again that were fenced and still belong here.
    ///
    /// # Errors
    /// Fenced when this has gone on for too long.
    fn take_fenced_again(&mut self) -> Result<()> {
        let now_ms = self.clock.monotonic_ms();
        for (&partition, assigned) in &mut self.assigned {
            if assigned.again_ms.is_none_or(|again_ms| now_ms < again_ms) {
                continue;
            }
            if assigned.fenced_since_ms.is_some_and(|since_ms| now_ms - since_ms > FENCED_MS_MAX) {
                return Err(Error::fenced(format!(
                    "the group gives partition {partition} to this process, and another process takes it over again and again: two \
                     groups, or a group and another command, write to the same data"
                )));
            }
            assigned.again_ms = None;
            assigned.token = self.take_over.begin(partition);
        }
        Ok(())
    }

    /// Passes committed offsets on to the group, and notes whether the group can be reached.
    fn tell_group(&mut self) {
        for (&partition, assigned) in &mut self.assigned {
            let committed = self.report.committed_offset(self.topic.number_of(partition));
            if let Some(offset) = committed.filter(|&offset| offset > assigned.committed) {
                assigned.committed = offset;
                self.group.note_committed(partition, offset);
            }
        }
        let failure = self.group.failure();
        if failure != self.told {
            self.report.group_failing(failure.as_ref().map(|why| format!("the group cannot be reached: {why}")));
            self.told = failure;
        }
    }
}

/// Where the frontiers of new partitions begin: behind all that retired partitions have counted.
fn frontiers_after(retired: &[Progress]) -> Frontiers {
    let mut frontiers = Frontiers::default();
    for newest_ms in retired.iter().filter_map(|progress| progress.newest_click_ms) {
        let end_ms = Minute::of(newest_ms).end_ms();
        for frontier in [&mut frontiers.closed, &mut frontiers.final_, &mut frontiers.expired] {
            frontier.advance(end_ms);
        }
    }
    frontiers
}

/// Shows the counts of retired partitions, which the lake has.
fn show_retired(hot: &HotPartitions, retired: &[Progress]) {
    for progress in retired {
        let counts = HotCounts::new(0);
        let from = progress.newest_click_ms.map(|newest_ms| Minute::of(newest_ms).next());
        counts.restore(*progress, from, &[], progress.number, Vec::new());
        hot.add(progress.partition, Arc::new(counts));
    }
}
