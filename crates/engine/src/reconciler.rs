//! Reconciliation inside a service: once a day, and on request. Corrections are shown to readers from the start on.

use crate::clock::{Clock, Randomness};
use crate::intake::{LineDecoder, backfill};
use crate::report::Report;
use crate::settings::Settings;
use adtally_model::reconcile::Reconciled;
use adtally_model::{EpochNumber, Error, IdentityKey, RECONCILE, Result};
use adtally_pipeline::ClockGuard;
use adtally_reconcile::{
    CorrectionParts, Corrections, LetterSelection, Readers, ReconcileOptions, ReconcileReport, Tell, Watch, reconcile,
    replay, revert,
};
use adtally_source::DecodeSettings;
use adtally_store::embedded::HotPartitions;
use adtally_store::epoch_log::{EpochLogs, Fingerprints};
use adtally_store::hot_counts::HotCounts;
use adtally_store::lake::Lake;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};

const DAY_MS: i64 = 86_400_000;

/// How often to check whether a run is due. The wall clock may be set at any time.
const POLL: Duration = Duration::from_secs(1);

/// Polls between two looks for the corrections of other processes: ten seconds.
const FOLLOW_POLLS: u32 = 10;

/// The shortest time after the start until a run that was missed, in milliseconds: reading comes first.
const AFTER_START_MS: i64 = 300_000;

/// Most requests that wait for a run.
const REQUESTS_MAX: usize = 8;

/// Most hours with damage that notes describe.
const NOTES_MAX: usize = 8;

/// Pause after a failed run, in milliseconds.
const PAUSE_MS: i64 = 600_000;

/// The dependencies of reconciliation.
pub struct ReconcilerParts {
    /// The logs of all partitions.
    pub logs: EpochLogs,
    /// The lake.
    pub lake: Arc<Lake>,
    /// Where corrections are shown to readers.
    pub shown: HotPartitions,
    /// The settings of the process.
    pub settings: Settings,
    /// The key of the identities.
    pub key: IdentityKey,
    /// The fingerprints that records contain.
    pub fingerprints: Fingerprints,
    /// The report of the process.
    pub report: Arc<Report>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness for names.
    pub randomness: Arc<dyn Randomness>,
    /// On a store that other processes use as well: whether this process maintains the lake now, and so does the daily runs.
    /// `None` if only this process commits corrections.
    pub keeper: Option<Arc<AtomicBool>>,
}

/// Reconciles, one run at a time.
pub struct Reconciler {
    parts: ReconcilerParts,
    /// The right to commit corrections; `None` before the first run, after a failure, and between runs on a shared store.
    corrections: Option<Corrections>,
    /// The state after the last epoch of corrections that is known here.
    state: Option<Reconciled>,
    /// The number of this epoch.
    shown: EpochNumber,
    /// Shown to readers once there are corrections.
    hot: Arc<HotCounts>,
    is_busy: Arc<AtomicBool>,
    /// The clock of corrections.
    guard: Arc<Mutex<ClockGuard>>,
}

/// What a client asks for.
#[derive(Clone, Debug)]
pub enum Asked {
    /// To recount, and to commit corrections.
    Reconcile(ReconcileOptions),
    /// To revert the run with this number.
    Revert(u64),
    /// To decode rejected lines again, by these settings, and to count their clicks.
    Replay(LetterSelection, Box<DecodeSettings>),
    /// To bring in the files at these paths, which are decoded by these settings.
    Backfill(Vec<String>, Box<DecodeSettings>),
}

/// What a run works with.
pub struct RunParts<'a> {
    /// The lake.
    pub lake: &'a Lake,
    /// The logs of all partitions.
    pub logs: &'a EpochLogs,
    /// Where to commit; without it, the run is a dry run.
    pub corrections: Option<&'a mut Corrections>,
    /// The settings of the process.
    pub settings: &'a Settings,
    /// The key of the identities.
    pub key: IdentityKey,
    /// The clock.
    pub clock: &'a Arc<dyn Clock>,
    /// Receives each line of a replay, and what becomes of it.
    pub tell: Tell<'a>,
    /// Receives what is done and what is to do: minutes, lines, or bytes.
    pub watch: Watch<'a>,
}

impl Asked {
    /// A word for it in logs.
    const fn as_str(&self) -> &'static str {
        match self {
            Asked::Reconcile(_) => "reconcile",
            Asked::Revert(_) => "revert",
            Asked::Replay(..) => "replay",
            Asked::Backfill(..) => "backfill",
        }
    }

    /// Does it.
    ///
    /// # Errors
    /// As [`reconcile`], [`revert`], [`replay`] and [`backfill`].
    pub async fn run(&self, parts: RunParts<'_>) -> Result<ReconcileReport> {
        let RunParts { lake, logs, corrections, settings, key, clock, tell, watch } = parts;
        match self {
            Asked::Reconcile(options) => reconcile(lake, logs, corrections, options, watch).await,
            Asked::Revert(run) => match corrections {
                Some(corrections) => revert(lake, logs, corrections, *run, "command").await,
                None => Err(Error::user("a revert has no dry run")),
            },
            Asked::Replay(selection, decode) => {
                let decoder = LineDecoder::new(DecodeSettings::clone(decode), key)?;
                replay(lake, logs, corrections, selection, &decoder, "command", (tell, watch)).await
            }
            Asked::Backfill(paths, decode) => {
                let mut settings = settings.clone();
                settings.source.paths.clone_from(paths);
                settings.source.tail.decode = Arc::new(DecodeSettings::clone(decode));
                backfill((lake, logs, corrections), (&settings, key), clock, "command", watch).await
            }
        }
    }
}

/// A request for a run.
struct Request {
    asked: Asked,
    /// Receives the minutes done and the minutes to do.
    watch: Box<dyn Fn(u64, u64) + Send + Sync>,
    reply: oneshot::Sender<Result<ReconcileReport>>,
}

/// A handle to the thread that reconciles. Clones belong to the same thread.
#[derive(Clone)]
pub struct ReconcilerHandle {
    requests: mpsc::Sender<Request>,
    stop: Arc<Notify>,
    is_busy: Arc<AtomicBool>,
}

impl ReconcilerHandle {
    /// Does what is asked for. Waits for runs in progress. `watch` is called with the minutes done and the minutes to do.
    ///
    /// # Errors
    /// As [`reconcile`]; transient when the process stops before the end.
    pub async fn run(&self, asked: Asked, watch: Box<dyn Fn(u64, u64) + Send + Sync>) -> Result<ReconcileReport> {
        let (reply, answer) = oneshot::channel();
        let stopped = || {
            Error::transient(
                "the service stopped before the run ended: start it, and run the command again. What was committed is not \
                 counted twice",
            )
        };
        self.requests.send(Request { asked, watch, reply }).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// Whether a run is in progress, so that others wait.
    pub fn is_busy(&self) -> bool {
        self.is_busy.load(Ordering::Relaxed)
    }

    /// Stops the thread, if necessary during a run: it is like a crash, which reconciliation tolerates.
    pub fn stop(&self) {
        self.stop.notify_one();
    }
}

impl Reconciler {
    /// Shows existing corrections to readers.
    ///
    /// # Errors
    /// External when a store fails, corrupt when stored data is damaged.
    pub async fn open(parts: ReconcilerParts) -> Result<Reconciler> {
        let hot = Arc::new(HotCounts::new(parts.settings.store.hot_minutes));
        let guard = ClockGuard::new(parts.clock.wall_ms(), parts.clock.monotonic_ms(), 0);
        let guard = Arc::new(Mutex::new(guard));
        let is_busy = Arc::default();
        let mut reconciler = Reconciler { parts, corrections: None, state: None, shown: 0, hot, is_busy, guard };
        if reconciler.is_shared() {
            reconciler.follow().await?;
            return Ok(reconciler);
        }
        let ReconcilerParts { logs, lake, shown, .. } = &reconciler.parts;
        // If the log is lost, but the lake has corrections, the claim says so.
        if logs.partitions().await?.contains(&RECONCILE) || lake.epochs().await?.last(RECONCILE) > 0 {
            let corrected = lake.restated().await?;
            shown.restate(|restated| *restated = corrected);
            let corrections = reconciler.claim().await?;
            reconciler.know(&corrections);
            reconciler.corrections = Some(corrections);
        }
        Ok(reconciler)
    }

    /// Runs once a day, and on request, on one thread of its own: counting and answers keep the other cores.
    ///
    /// # Errors
    /// External when a thread cannot be started.
    pub fn start(self) -> Result<(ReconcilerHandle, std::thread::JoinHandle<()>)> {
        let failed = |error| Error::external("the reconcile thread cannot be started").because(error);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (requests, queue) = mpsc::channel(REQUESTS_MAX);
        let handle = ReconcilerHandle { requests, stop: Arc::default(), is_busy: Arc::clone(&self.is_busy) };
        let stop = Arc::clone(&handle.stop);
        let dead = Dead(Arc::clone(&self.parts.report));
        let work = move || {
            // Dropped at the end, also after a panic.
            let _dead = dead;
            runtime.block_on(async {
                tokio::select! {
                    () = stop.notified() => {}
                    () = self.work(queue) => {}
                }
            });
        };
        // Deep queries need deep stacks.
        let thread = std::thread::Builder::new().name("reconcile".into()).stack_size(8 << 20).spawn(work);
        Ok((handle, thread.map_err(failed)?))
    }

    async fn claim(&self) -> Result<Corrections> {
        let ReconcilerParts { logs, lake, shown, fingerprints, clock, randomness, report, .. } = &self.parts;
        let (clock, randomness, guard) = (Arc::clone(clock), Arc::clone(randomness), Arc::clone(&self.guard));
        let corrections = Corrections::claim(CorrectionParts {
            logs: logs.clone(),
            lake: lake.clone(),
            readers: Some(Readers { hot: Arc::clone(&self.hot), shown: shown.clone() }),
            fingerprints: *fingerprints,
            random: Arc::new(move || randomness.next_u128()),
            now_ms: Arc::new(move || guard.lock().read(clock.wall_ms(), clock.monotonic_ms()).guarded_ms),
        })
        .await?;
        shown.add(RECONCILE, Arc::clone(&self.hot));
        report.corrected(*corrections.progress(), corrections.state());
        Ok(corrections)
    }

    async fn run(&mut self, asked: &Asked, watch: Watch<'_>) -> Result<ReconcileReport> {
        self.is_busy.store(true, Ordering::Relaxed);
        let done = self.run_alone(asked, watch).await;
        self.is_busy.store(false, Ordering::Relaxed);
        done
    }

    /// Notes the state of corrections.
    fn know(&mut self, corrections: &Corrections) {
        (self.state, self.shown) = (Some(corrections.state().clone()), corrections.progress().number);
    }

    async fn run_alone(&mut self, asked: &Asked, watch: Watch<'_>) -> Result<ReconcileReport> {
        if self.is_shared() {
            self.begin_shared();
        }
        // After an error the partition is claimed again, because it is not known what was committed.
        let mut corrections = match self.corrections.take() {
            Some(corrections) => corrections,
            None => self.claim().await?,
        };
        let ReconcilerParts { logs, lake, report, settings, key, clock, .. } = &self.parts;
        let parts = RunParts {
            lake,
            logs,
            corrections: Some(&mut corrections),
            settings,
            key: *key,
            clock,
            tell: &|_, _| {},
            watch,
        };
        let done = asked.run(parts).await?;
        tracing::info!(
            asked = asked.as_str(),
            run = done.run,
            minutes = done.minutes,
            rows = done.findings.values().map(|found| found.rows).sum::<u64>(),
            clicks = done.findings.values().map(|found| found.clicks).sum::<i64>(),
            damaged_hours = done.damaged_hours,
            "run of corrections ended"
        );
        report.corrected(*corrections.progress(), corrections.state());
        let is_complete = matches!(asked, Asked::Reconcile(options) if options.is_complete());
        report.reconciled(done.unsettled(NOTES_MAX), is_complete);
        self.know(&corrections);
        self.corrections = Some(corrections).filter(|_| !self.is_shared());
        Ok(done)
    }

    async fn work(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut due_ms = self.first_due_ms();
        let mut polls = 0_u32;
        loop {
            tokio::select! {
                request = requests.recv() => {
                    let Some(Request { asked, watch, reply }) = request else { return };
                    let done = self.run(&asked, &*watch).await;
                    // The client may have left.
                    let _ = reply.send(done);
                }
                () = tokio::time::sleep(POLL) => {
                    polls = polls.wrapping_add(1);
                    if self.is_shared() && polls.is_multiple_of(FOLLOW_POLLS) {
                        self.try_to_follow().await;
                    }
                    due_ms = self.run_if_due(due_ms).await;
                }
            }
        }
    }

    /// The time of day, UTC, of the daily run, in milliseconds; `None` runs on request only.
    fn daily_at_ms(&self) -> Option<i64> {
        let settings = &self.parts.settings.reconcile;
        settings.daily.then_some(settings.at_ms)
    }

    /// When the first daily run is due: a run that was missed is made up soon after the start.
    fn first_due_ms(&self) -> Option<i64> {
        let began_ms = self.parts.clock.wall_ms();
        let due_ms = self.due_after_last_ms(began_ms)?;
        Some(due_ms.max(began_ms + AFTER_START_MS))
    }

    /// When the run after the last one is due; `now_ms` if there was none.
    fn due_after_last_ms(&self, now_ms: i64) -> Option<i64> {
        let daily_at_ms = self.daily_at_ms()?;
        // If the last run left minutes out, an operator must see again why.
        let state = self.state.as_ref().filter(|state| !state.has_gaps());
        let last_ms = state.and_then(|state| state.completed_ms);
        Some(last_ms.map_or(now_ms, |last_ms| next_after(last_ms, daily_at_ms)))
    }

    /// Does the daily run if it is due. Returns when the next one is due.
    async fn run_if_due(&mut self, due_ms: Option<i64>) -> Option<i64> {
        let now_ms = self.parts.clock.wall_ms();
        let due_ms = due_ms?;
        if now_ms < due_ms {
            // If the clock was set back, the next run is at most a day away.
            return Some(due_ms.min(now_ms + DAY_MS));
        }
        if self.is_shared() {
            match self.shared_due_ms(now_ms).await {
                Some(due_ms) if due_ms <= now_ms => {}
                later => return later,
            }
        }
        let asked = Asked::Reconcile(ReconcileOptions::all("schedule"));
        match self.run(&asked, &|_, _| {}).await {
            Ok(_) => Some(next_after(self.parts.clock.wall_ms(), self.daily_at_ms()?)),
            Err(error) => {
                let failed = format!(
                    "the daily recount failed and is tried again in {} minutes: {}",
                    PAUSE_MS / 60_000,
                    error.report()
                );
                tracing::warn!("{failed}");
                self.parts.report.reconcile_failing(failed);
                Some(self.parts.clock.wall_ms() + PAUSE_MS)
            }
        }
    }
}

/// Stops the thread of a reconciler, and waits for its end.
pub(crate) fn stop_reconciler((handle, thread): (ReconcilerHandle, std::thread::JoinHandle<()>)) {
    handle.stop();
    if thread.join().is_err() {
        tracing::warn!("reconciliation panicked; its message is above");
    }
}

/// Notes in the report that the thread died.
struct Dead(Arc<Report>);

impl Drop for Dead {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let failed = "the thread that reconciles died because of a defect, and nothing is recounted any more: restart the \
                          service, and report this";
            self.0.reconcile_failing(failed.to_owned());
        }
    }
}

/// The first moment after `ms` with this time of day, in milliseconds.
fn next_after(ms: i64, of_day_ms: i64) -> i64 {
    let today = ms - ms.rem_euclid(DAY_MS) + of_day_ms;
    if today > ms { today } else { today + DAY_MS }
}

mod shared;
#[cfg(test)]
mod tests;
