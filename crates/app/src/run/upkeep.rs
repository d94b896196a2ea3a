//! Upkeep: rolls up, compacts, drops and vacuums what is in the lake, on a thread of its own.
//!
//! It works in rounds, some minutes apart, and stops at once when the process does: a round that is cut short is like a
//! crash, which upkeep survives. What fails is told and tried again in the next round; counting never waits for it.

use super::project::Projector;
use super::report::Report;
use crate::clock::{Clock, Randomness};
use crate::config::StoreConfig;
use adtally_model::{Error, Result};
use adtally_store::epoch_log::EpochLog;
use adtally_store::lake::{AsOf, Keep, Lake, RollUp};
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

/// What upkeep works with.
pub struct UpkeepParts {
    /// The log whose records name files.
    pub log: EpochLog,
    /// The log's id.
    pub log_id: u128,
    /// The lake.
    pub lake: Arc<Lake>,
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
}

/// Keeps the lake in order.
pub struct Upkeep {
    parts: UpkeepParts,
    stop: Arc<AtomicBool>,
    stopped: Arc<tokio::sync::Notify>,
}

/// A handle on the thread.
pub struct UpkeepThread {
    stop: Arc<AtomicBool>,
    stopped: Arc<tokio::sync::Notify>,
    thread: JoinHandle<()>,
}

impl UpkeepThread {
    /// Ends the thread, in the middle of a round if need be.
    pub fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.stopped.notify_one();
        if self.thread.join().is_err() {
            tracing::warn!("upkeep of the lake panicked; its message is above");
        }
    }
}

/// How long to keep what, by the settings.
pub fn keep(store: &StoreConfig) -> Keep {
    let ms = |span: Duration| span.as_millis() as i64;
    Keep {
        clicks_ms: ms(store.keep_clicks),
        minutes_ms: ms(store.keep_minutes),
        hours_ms: ms(store.keep_hours),
        letters_ms: ms(store.keep_dead_letters),
    }
}

impl Upkeep {
    /// Upkeep that has not begun.
    pub fn new(parts: UpkeepParts) -> Upkeep {
        Upkeep { parts, stop: Arc::default(), stopped: Arc::default() }
    }

    /// Goes on on a thread of its own.
    ///
    /// # Errors
    /// External when a thread cannot be started.
    pub fn start(self) -> Result<UpkeepThread> {
        let (stop, stopped) = (Arc::clone(&self.stop), Arc::clone(&self.stopped));
        let thread = std::thread::Builder::new()
            .name("upkeep".into())
            .stack_size(8 << 20)
            .spawn(move || self.run())
            .map_err(|e| Error::external("the upkeep thread cannot be started").because(e))?;
        Ok(UpkeepThread { stop, stopped, thread })
    }

    fn run(self) {
        let clock = &self.parts.clock;
        let interval_ms = self.parts.interval.as_millis() as i64;
        let mut due_ms = clock.monotonic_ms() + interval_ms.min(FIRST_ROUND_MS_MAX);
        let mut vacuum_ms = due_ms;
        while !self.stop.load(Ordering::Relaxed) {
            let now_ms = clock.monotonic_ms();
            if now_ms < due_ms {
                std::thread::sleep(POLL);
                continue;
            }
            let vacuum = now_ms >= vacuum_ms;
            let outcome = self.round(vacuum);
            if vacuum && outcome.is_ok() {
                vacuum_ms = now_ms + VACUUM_EVERY_MS;
            }
            self.tell(outcome);
            due_ms = clock.monotonic_ms() + interval_ms;
        }
    }

    /// Rolls up all that is final. What fails is told, and is tried again by the next run.
    pub fn roll_up_all(&self) {
        let Some(as_of) = self.as_of() else { return };
        self.tell(self.roll_up(&as_of));
    }

    fn tell(&self, outcome: Result<()>) {
        let problem = outcome.err().map(|error| {
            tracing::warn!("upkeep of the lake failed, trying again in the next round: {}", error.report());
            format!("upkeep of the lake fails: {}", error.report())
        });
        self.parts.report.upkeep_failing(problem);
    }

    fn as_of(&self) -> Option<AsOf> {
        let held = self.parts.projector.held()?;
        let (log_id, partition) = (self.parts.log_id, self.parts.log.partition());
        Some(AsOf { log_id, partition, epoch: held.epoch, final_ms: held.final_ms, clock_ms: held.clock_ms })
    }

    fn round(&self, vacuum: bool) -> Result<()> {
        let Some(as_of) = self.as_of() else { return Ok(()) };
        let (lake, tokens) = (&self.parts.lake, || self.parts.randomness.next_u128());
        self.roll_up(&as_of)?;
        if let Some(removed) =
            self.unless_stopped(lake.retain(&self.parts.keep, &as_of))?.filter(|&removed| removed > 0)
        {
            tracing::info!(files = removed, "files removed from lake tables: older than what is kept");
        }
        let mut compacted = 0;
        while compacted < COMPACTED_BYTES_MAX {
            let Some(Some(bytes)) = self.unless_stopped(lake.compact(&as_of, &tokens))? else { break };
            compacted += bytes;
        }
        if compacted > 0 {
            tracing::debug!(bytes = compacted, "lake files compacted");
        }
        if vacuum { self.vacuum(&as_of) } else { Ok(()) }
    }

    fn roll_up(&self, as_of: &AsOf) -> Result<()> {
        let tokens = || self.parts.randomness.next_u128();
        for roll_up in RollUp::ALL {
            while self.unless_stopped(self.parts.lake.roll_up(roll_up, as_of, &tokens))? == Some(true) {}
        }
        Ok(())
    }

    /// While the wall clock is in doubt, nobody can say how old a file is.
    fn vacuum(&self, as_of: &AsOf) -> Result<()> {
        let Some(now_ms) = self.parts.report.agreed_clock_ms() else { return Ok(()) };
        let named = self.parts.log.staged_paths();
        let vacuumed = self.unless_stopped(self.parts.lake.vacuum(as_of, now_ms, named))?;
        if let Some(vacuumed) = vacuumed.filter(|vacuumed| vacuumed.files > 0) {
            tracing::info!(files = vacuumed.files, bytes = vacuumed.bytes, "lake files deleted that nothing names");
        }
        Ok(())
    }

    /// Does something, unless the process stops before it is done.
    fn unless_stopped<T>(&self, work: impl Future<Output = Result<T>>) -> Result<Option<T>> {
        if self.stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        self.parts.runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.stopped.notified() => Ok(None),
                done = work => done.map(Some),
            }
        })
    }
}
