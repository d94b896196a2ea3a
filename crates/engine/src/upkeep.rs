//! Upkeep: rolls up, compacts, deletes and vacuums lake data, on its own thread or turned by its caller.
//!
//! It works in rounds some minutes apart, and stops at once when the process stops. An interrupted round is like a
//! crash, which upkeep tolerates. Failures are reported and retried in the next round; counting never waits for upkeep.
//! A bounded run does one round at its end.

use crate::clock::{Clock, Randomness};
use crate::ingest::Turn;
use crate::project::Projector;
use crate::report::Report;
use adtally_model::{EpochNumber, Error, Progress, Result};
use adtally_pipeline::ClockGuard;
use adtally_store::epoch_log::EpochLogs;
use adtally_store::lake::{Keep, LakeProgress, LakeStore, RollUp};
use adtally_store::sources::Sources;
use futures::FutureExt;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Latest start of the first round, in milliseconds, so that a process that restarts often does some upkeep, too.
const FIRST_ROUND_MS_MAX: i64 = 30_000;

/// Approximate bytes of files that one round rewrites: less than twice what ten minutes add at the mission rate.
const COMPACTED_BYTES_MAX: u64 = 768 << 20;

/// Time between vacuums, in milliseconds: each lists all files.
const VACUUM_EVERY_MS: i64 = 3_600_000;

/// How often to check whether a round is due or the process is stopping.
const POLL: Duration = Duration::from_millis(100);

/// The work of a round beside rolling up and deleting.
struct Work {
    /// Approximate bytes of files to rewrite.
    compacted_bytes_max: u64,
    /// Whether to vacuum.
    vacuum: bool,
}

/// When the next work is due, in milliseconds of monotonic time.
struct Due {
    round_ms: i64,
    vacuum_ms: i64,
}

/// The dependencies of upkeep.
pub struct UpkeepParts {
    /// The logs of all partitions, whose records name files.
    pub logs: EpochLogs,
    /// The topics of the deployment, if other processes may own some of its partitions.
    pub sources: Option<Sources>,
    /// The lake.
    pub lake: Arc<dyn LakeStore>,
    /// Reports the progress of the lake.
    pub projector: Projector,
    /// The report of the process.
    pub report: Arc<Report>,
    /// The clock, which decides when rounds are due.
    pub clock: Arc<dyn Clock>,
    /// Randomness for file names.
    pub randomness: Arc<dyn Randomness>,
    /// Runs the stores' I/O.
    pub runtime: tokio::runtime::Handle,
    /// Time between rounds.
    pub interval: Duration,
    /// How long to keep each kind of data.
    pub keep: Keep,
    /// Set while this process maintains the lake of a deployment with other owners.
    pub keeper: Arc<AtomicBool>,
    /// Whether the run leaves the larger files that it writes to the next run: see [`LakeProgress::fresh_from`].
    pub leaves_fresh: bool,
}

/// Maintains the lake.
pub struct Upkeep {
    parts: UpkeepParts,
    /// A guarded clock, because a round may outlast the run loop's last reading. `None` before the first partition.
    guard: Mutex<Option<ClockGuard>>,
    /// The epoch with which this process took each partition.
    taken_at: Mutex<BTreeMap<u32, EpochNumber>>,
    due: Mutex<Due>,
    stop: UpkeepStop,
}

/// Stops upkeep, if necessary during a round.
#[derive(Clone, Default)]
pub struct UpkeepStop {
    is_set: Arc<AtomicBool>,
    changed: Arc<tokio::sync::Notify>,
}

impl UpkeepStop {
    /// Stops upkeep for good.
    pub fn set(&self) {
        self.is_set.store(true, Ordering::Relaxed);
        self.changed.notify_one();
    }
}

/// A handle to the thread.
pub struct UpkeepThread {
    stop: UpkeepStop,
    thread: JoinHandle<()>,
}

impl UpkeepThread {
    /// Ends the thread, if necessary during a round.
    pub fn stop(self) {
        self.stop.set();
        if self.thread.join().is_err() {
            tracing::warn!("upkeep of the lake panicked; its message is above");
        }
    }
}

impl Upkeep {
    /// Upkeep that has not begun.
    pub fn new(parts: UpkeepParts) -> Upkeep {
        let first_ms = parts.clock.monotonic_ms() + (parts.interval.as_millis() as i64).min(FIRST_ROUND_MS_MAX);
        Upkeep {
            parts,
            guard: Mutex::default(),
            taken_at: Mutex::default(),
            due: Mutex::new(Due { round_ms: first_ms, vacuum_ms: first_ms }),
            stop: UpkeepStop::default(),
        }
    }

    /// A handle that stops it.
    pub fn stop_handle(&self) -> UpkeepStop {
        self.stop.clone()
    }

    /// Continues on its own thread.
    ///
    /// # Errors
    /// External when a thread cannot be started.
    pub fn start(self: Arc<Self>) -> Result<UpkeepThread> {
        let stop = self.stop.clone();
        let thread = std::thread::Builder::new()
            .name("upkeep".into())
            .stack_size(8 << 20)
            .spawn(move || {
                loop {
                    match self.turn() {
                        Turn::Finished => return,
                        Turn::Worked => {}
                        Turn::Nothing => std::thread::sleep(POLL),
                    }
                }
            })
            .map_err(|e| Error::external("the upkeep thread cannot be started").because(e))?;
        Ok(UpkeepThread { stop, thread })
    }

    /// Does a round if one is due. Returns finished once it was stopped.
    pub fn turn(&self) -> Turn {
        if self.stop.is_set.load(Ordering::Relaxed) {
            return Turn::Finished;
        }
        let now_ms = self.parts.clock.monotonic_ms();
        let mut due = self.due.lock();
        if now_ms < due.round_ms {
            return Turn::Nothing;
        }
        let work = Work { compacted_bytes_max: COMPACTED_BYTES_MAX, vacuum: now_ms >= due.vacuum_ms };
        let outcome = self.round(&work);
        if work.vacuum && outcome.is_ok() {
            due.vacuum_ms = now_ms + VACUUM_EVERY_MS;
        }
        self.tell(outcome);
        due.round_ms = self.parts.clock.monotonic_ms() + self.parts.interval.as_millis() as i64;
        Turn::Worked
    }

    /// Does all outstanding work. Failures are reported, and the next run retries them.
    pub fn do_all(&self) {
        self.tell(self.round(&Work { compacted_bytes_max: u64::MAX, vacuum: true }));
    }

    /// Rolls up all final minutes, and does nothing else. Failures are reported.
    pub fn roll_up_all(&self) {
        self.tell(self.reached().and_then(|reached| reached.map_or(Ok(()), |reached| self.roll_up(&reached))));
    }

    fn tell(&self, outcome: Result<()>) {
        let problem = outcome.err().map(|error| {
            tracing::warn!("upkeep of the lake failed, trying again in the next round: {}", error.report());
            format!("upkeep of the lake fails: {}", error.report())
        });
        self.parts.report.upkeep_failing(problem);
    }

    /// Records that this process has taken a partition, with the state of its claim.
    pub fn took(&self, claimed: &Progress) {
        let clock = &self.parts.clock;
        let begin = || ClockGuard::new(clock.wall_ms(), clock.monotonic_ms(), claimed.clock_ms);
        self.guard.lock().get_or_insert_with(begin);
        self.taken_at.lock().insert(claimed.partition, claimed.number);
    }

    /// The progress of the lake; `None` until this process has projected all of its partitions.
    fn reached(&self) -> Result<Option<LakeProgress>> {
        let Some(mut partitions) = self.parts.projector.projected() else { return Ok(None) };
        if let Some(sources) = &self.parts.sources {
            let Some(all) = self.unless_stopped(self.with_others(sources, &partitions))? else { return Ok(None) };
            partitions = all;
        }
        let mut reached = LakeProgress { partitions, ..LakeProgress::default() };
        reached.now_ms = reached.clock_ms();
        if self.parts.leaves_fresh {
            reached.fresh_from = self.taken_at.lock().iter().map(|(&partition, &epoch)| (partition, epoch)).collect();
        }
        Ok(Some(reached))
    }

    /// The progress of all source partitions of the deployment, those of other processes as far as the lake has it.
    async fn with_others(&self, sources: &Sources, own: &[Progress]) -> Result<Vec<Progress>> {
        let mut all = Vec::new();
        for partition in sources.partitions().await? {
            if let Some(own) = own.iter().find(|own| own.partition == partition) {
                all.push(*own);
                continue;
            }
            let log = self.parts.logs.log(partition);
            let mut progress = Progress { partition, ..Progress::default() };
            if let Some(newest) = log.newest().await? {
                let held = self.parts.lake.held(newest.progress.log_id, partition).await?.by_all();
                match log.read(held).await? {
                    Some((epoch, _)) => progress = epoch.progress,
                    // Its log has gone on in the meantime: the next round sees more.
                    None if held > 0 => return Err(Error::transient("an epoch record was deleted while it was read")),
                    // Nothing of it is in the lake: nothing is final.
                    None => {}
                }
            }
            all.push(progress);
        }
        Ok(all)
    }

    /// The same progress with the current time. `None` while the wall clock is in doubt: files removed from a table
    /// would then get a wrong time stamp and be deleted too early.
    fn now(&self, reached: &LakeProgress) -> Option<LakeProgress> {
        let clock = &self.parts.clock;
        let reading = self.guard.lock().as_mut()?.read(clock.wall_ms(), clock.monotonic_ms());
        reading.agrees.then(|| LakeProgress { now_ms: reading.guarded_ms, ..reached.clone() })
    }

    /// Whether this process owns the lowest partition that has a log: its owner maintains the lake.
    fn is_keeper(&self, reached: &LakeProgress) -> Result<bool> {
        let partitions = self.unless_stopped(self.parts.logs.partitions())?;
        let is_retired = |partition: &u32| {
            reached.partitions.iter().any(|progress| progress.partition == *partition && progress.is_retired)
        };
        let least = partitions.into_iter().flatten().find(|partition| !is_retired(partition));
        Ok(least.is_some_and(|least| self.parts.projector.lake_epoch(least).is_some()))
    }

    fn round(&self, work: &Work) -> Result<()> {
        let reached = self.reached()?;
        let is_keeper = reached.as_ref().map_or(Ok(false), |reached| self.is_keeper(reached))?;
        self.parts.keeper.store(is_keeper, Ordering::Relaxed);
        let Some(reached) = reached else { return Ok(()) };
        // An embedded process, and a simulated one, rolls up whatever it owns.
        if is_keeper || self.parts.sources.is_none() {
            self.roll_up(&reached)?;
        }
        if !is_keeper {
            return Ok(());
        }
        let (lake, tokens) = (&self.parts.lake, || self.parts.randomness.next_u128());
        if let Some(now) = self.now(&reached)
            && let Some(removed) = self.unless_stopped(lake.retain(&self.parts.keep, &now))?
            && removed > 0
        {
            tracing::info!(files = removed, "files with expired rows removed from lake tables");
        }
        let mut compacted = 0;
        while compacted < work.compacted_bytes_max
            && let Some(now) = self.now(&reached)
        {
            let Some(Some(bytes)) = self.unless_stopped(lake.compact(&now, &tokens))? else { break };
            compacted += bytes;
        }
        if compacted > 0 {
            tracing::debug!(bytes = compacted, "lake files compacted");
        }
        match self.now(&reached) {
            Some(now) if work.vacuum => self.vacuum(&now),
            _ => Ok(()),
        }
    }

    fn roll_up(&self, reached: &LakeProgress) -> Result<()> {
        let tokens = || self.parts.randomness.next_u128();
        for roll_up in RollUp::ALL {
            while self.unless_stopped(self.parts.lake.roll_up(roll_up, reached, &tokens))? == Some(true) {}
        }
        Ok(())
    }

    fn vacuum(&self, reached: &LakeProgress) -> Result<()> {
        let named = self.parts.logs.staged_paths().boxed();
        let vacuumed = self.unless_stopped(self.parts.lake.vacuum(reached, named))?;
        if let Some(vacuumed) = vacuumed.filter(|vacuumed| vacuumed.files > 0) {
            tracing::info!(files = vacuumed.files, bytes = vacuumed.bytes, "unreferenced lake files deleted");
        }
        Ok(())
    }

    /// Runs `work`. Returns `None` if the process stops before it is done.
    fn unless_stopped<T>(&self, work: impl Future<Output = Result<T>>) -> Result<Option<T>> {
        if self.stop.is_set.load(Ordering::Relaxed) {
            return Ok(None);
        }
        self.parts.runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.stop.changed.notified() => Ok(None),
                done = work => done.map(Some),
            }
        })
    }
}
