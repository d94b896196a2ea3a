//! Upkeep: rolls up, compacts, drops and vacuums what is in the lake, on a thread of its own or turned by hand.
//!
//! It works in rounds, some minutes apart, and stops at once when the process does: a round that is cut short is like a
//! crash, which upkeep survives. What fails is told and tried again in the next round; counting never waits for it. A
//! bounded run does one round at its end.

use crate::clock::{Clock, Randomness};
use crate::ingest::Turn;
use crate::project::Projector;
use crate::report::Report;
use adtally_model::{EpochNumber, Error, Progress, Result};
use adtally_pipeline::ClockGuard;
use adtally_store::epoch_log::EpochLogs;
use adtally_store::lake::{Keep, LakeProgress, LakeStore, RollUp};
use futures::FutureExt;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// When the first round begins at the latest, so that a process that often starts does some, too.
const FIRST_ROUND_MS_MAX: i64 = 30_000;

/// Bytes of files that one round rewrites, about: less than what ten minutes bring at the mission rate, twice over.
const COMPACTED_BYTES_MAX: u64 = 768 << 20;

/// Time between vacuums: each lists all files.
const VACUUM_EVERY_MS: i64 = 3_600_000;

/// How often it is looked whether a round is due, or the process stops.
const POLL: Duration = Duration::from_millis(100);

/// What a round does beside rolling up and dropping.
struct Work {
    /// Bytes of files that it rewrites, about.
    compacted_bytes_max: u64,
    /// Whether it vacuums.
    vacuum: bool,
}

/// When there is what to do, by monotonic time in milliseconds.
struct Due {
    round_ms: i64,
    vacuum_ms: i64,
}

/// What upkeep works with.
pub struct UpkeepParts {
    /// The logs of all partitions, whose records name files.
    pub logs: EpochLogs,
    /// The lake.
    pub lake: Arc<dyn LakeStore>,
    /// Knows how far the lake is.
    pub projector: Projector,
    /// What the process tells of itself.
    pub report: Arc<Report>,
    /// When rounds are due.
    pub clock: Arc<dyn Clock>,
    /// File names.
    pub randomness: Arc<dyn Randomness>,
    /// Runs the stores' I/O.
    pub runtime: tokio::runtime::Handle,
    /// Time between rounds.
    pub interval: Duration,
    /// How long to keep what.
    pub keep: Keep,
    /// Whether the run leaves the larger files that it makes to the next one: see [`LakeProgress::fresh_from`].
    pub leaves_fresh: bool,
}

/// Keeps the lake in order.
pub struct Upkeep {
    parts: UpkeepParts,
    /// What time it is: a round may take longer than the run loop's last turn is old. It begins with the first partition.
    guard: Mutex<Option<ClockGuard>>,
    /// The epoch with which this process took each partition.
    taken_at: Mutex<BTreeMap<u32, EpochNumber>>,
    due: Mutex<Due>,
    stop: UpkeepStop,
}

/// Stops upkeep, in the middle of a round if need be.
#[derive(Clone, Default)]
pub struct UpkeepStop {
    is_set: Arc<AtomicBool>,
    changed: Arc<tokio::sync::Notify>,
}

impl UpkeepStop {
    /// Stops it for good.
    pub fn set(&self) {
        self.is_set.store(true, Ordering::Relaxed);
        self.changed.notify_one();
    }
}

/// A handle on the thread.
pub struct UpkeepThread {
    stop: UpkeepStop,
    thread: JoinHandle<()>,
}

impl UpkeepThread {
    /// Ends the thread, in the middle of a round if need be.
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

    /// What stops it.
    pub fn stop_handle(&self) -> UpkeepStop {
        self.stop.clone()
    }

    /// Goes on on a thread of its own.
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

    /// Does a round where one is due; finished once it was stopped.
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

    /// Does all that there is to do. What fails is told, and is tried again by the next run.
    pub fn do_all(&self) {
        self.tell(self.round(&Work { compacted_bytes_max: u64::MAX, vacuum: true }));
    }

    /// Rolls up all that is final, and leaves the rest. What fails is told.
    pub fn roll_up_all(&self) {
        self.tell(self.reached().map_or(Ok(()), |reached| self.roll_up(&reached)));
    }

    fn tell(&self, outcome: Result<()>) {
        let problem = outcome.err().map(|error| {
            tracing::warn!("upkeep of the lake failed, trying again in the next round: {}", error.report());
            format!("upkeep of the lake fails: {}", error.report())
        });
        self.parts.report.upkeep_failing(problem);
    }

    /// This process has taken a partition, whose state is that of its claim.
    pub fn took(&self, claimed: &Progress) {
        let clock = &self.parts.clock;
        let begin = || ClockGuard::new(clock.wall_ms(), clock.monotonic_ms(), claimed.clock_ms);
        self.guard.lock().get_or_insert_with(begin);
        self.taken_at.lock().insert(claimed.partition, claimed.number);
    }

    /// How far the lake is; `None` before this process has projected all of its partitions.
    fn reached(&self) -> Option<LakeProgress> {
        let partitions = self.parts.projector.projected()?;
        let mut reached = LakeProgress { partitions, ..LakeProgress::default() };
        reached.now_ms = reached.clock_ms();
        if self.parts.leaves_fresh {
            reached.fresh_from = self.taken_at.lock().iter().map(|(&partition, &epoch)| (partition, epoch)).collect();
        }
        Some(reached)
    }

    /// The same with the time that it is now; `None` while the wall clock is in doubt: files that leave a table then would be
    /// stamped with a wrong time, and be deleted too early.
    fn now(&self, reached: &LakeProgress) -> Option<LakeProgress> {
        let clock = &self.parts.clock;
        let reading = self.guard.lock().as_mut()?.read(clock.wall_ms(), clock.monotonic_ms());
        reading.agrees.then(|| LakeProgress { now_ms: reading.guarded_ms, ..reached.clone() })
    }

    /// Whether the least partition that has a log is this process's: its owner keeps the lake in order.
    fn is_keeper(&self, reached: &LakeProgress) -> Result<bool> {
        let partitions = self.unless_stopped(self.parts.logs.partitions())?;
        let least = partitions.and_then(|partitions| partitions.first().copied());
        Ok(reached.partitions.iter().any(|progress| Some(progress.partition) == least))
    }

    fn round(&self, work: &Work) -> Result<()> {
        let Some(reached) = self.reached() else { return Ok(()) };
        self.roll_up(&reached)?;
        if !self.is_keeper(&reached)? {
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

    /// Does something, unless the process stops before it is done.
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
