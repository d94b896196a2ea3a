//! Commit: encode and stage an epoch's files, create its record, show it to readers.

use super::ingest::EpochSink;
use super::project::Projector;
use super::report::Report;
use crate::clock::{Clock, Randomness};
use adtally_model::epoch::fold_start;
use adtally_model::{Base, Epoch, Error, LiveMinute, MinuteCounts, MinuteIdentities, Result, StagedFile};
use adtally_pipeline::EpochDraft;
use adtally_pipeline::tumbling_window::Windows;
use adtally_store::epoch_log::LogWriter;
use adtally_store::fail_points;
use adtally_store::hot_counts::{HotCounts, PendingEpoch, Progress};
use adtally_store::lake::{ClickRows, EncodedFile, LakeStore};
use crossbeam_channel::{Sender, bounded};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// First pause after a failure that may pass; doubled up to [`PAUSE_MS_MAX`], plus up to a quarter at random.
const PAUSE_MS_MIN: u64 = 100;

/// Longest pause between attempts: a disk that has room again is noticed within it.
const PAUSE_MS_MAX: u64 = 5_000;

/// Commits epochs, one after another.
pub struct Committer {
    /// The right to append to the log.
    pub writer: LogWriter,
    /// Where files are staged.
    pub lake: Arc<dyn LakeStore>,
    /// Readers' view.
    pub hot: Arc<HotCounts>,
    /// What the process tells of itself.
    pub report: Arc<Report>,
    /// Brings the lake up to date.
    pub projector: Projector,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// File names and jitter.
    pub randomness: Arc<dyn Randomness>,
    /// Runs the stores' I/O.
    pub runtime: tokio::runtime::Handle,
    /// After how many failed attempts to give up; never where there is none.
    pub attempts_max: Option<u32>,
    /// Set when the process has to stop at once.
    pub abandon: Arc<AtomicBool>,
}

impl Committer {
    /// Commits one epoch.
    ///
    /// # Errors
    /// Fenced, corrupt or internal: the process must stop.
    pub fn commit(&mut self, mut draft: EpochDraft) -> Result<()> {
        self.retrying("waiting for the lake", |committer| committer.projector.has_room())?;
        let began = self.clock.monotonic_ms();
        let windows = std::mem::take(&mut draft.windows);
        let (counts, files) = encode(self.lake.as_ref(), &draft, windows, self.randomness.next_u128())?;
        let staged: Vec<StagedFile> = files.iter().map(|file| file.staged.clone()).collect();
        fail_points::reach("before_stage");
        if !files.is_empty() {
            self.retrying("staging files", |committer| committer.runtime.block_on(committer.lake.stage(&files)))?;
        }
        fail_points::reach("after_stage");
        let base = (draft.number.is_multiple_of(adtally_model::epoch::BASE_EVERY)).then(|| self.base(&draft, &counts));
        let oldest_needed = fold_start(draft.number).min(fold_start(self.projector.lake_epoch().max(1)));
        let epoch = Epoch {
            log_id: 0,
            partition: 0,
            number: draft.number,
            writer: 0,
            predecessor: 0,
            oldest_needed,
            claim: false,
            clock_ms: draft.clock_ms,
            frontiers: draft.frontiers,
            newest_click_ms: draft.newest_click_ms,
            largest_guarded_ms: draft.largest_guarded_ms,
            next_input: draft.next_input,
            all_ended: draft.all_ended,
            reopened_from_ms: draft.reopened_from_ms,
            inputs: draft.inputs.clone(),
            gone: draft.gone,
            ledger: draft.ledger,
            counts,
            identities: std::mem::take(&mut draft.identities),
            staged,
            config_fingerprint: 0,
            key_fingerprint: 0,
            base: base.map(Box::new),
        };
        let runtime = self.runtime.clone();
        fail_points::reach("before_record");
        self.retrying("creating an epoch record", |committer| {
            runtime.block_on(committer.writer.append(epoch.clone()))
        })?;
        fail_points::reach("after_record");
        self.show(&draft, epoch);
        self.report.committed(&draft, self.clock.monotonic_ms() - began);
        Ok(())
    }

    /// Lets readers and the projector see a committed epoch.
    fn show(&self, draft: &EpochDraft, epoch: Epoch) {
        let progress = Progress {
            epoch: draft.number,
            frontiers: draft.frontiers,
            newest_click_ms: draft.newest_click_ms,
            largest_guarded_ms: draft.largest_guarded_ms,
            all_ended: draft.all_ended,
            reopened_from_ms: draft.reopened_from_ms,
        };
        let pending = Arc::new(PendingEpoch { epoch: draft.number, counts: epoch.counts, staged: epoch.staged });
        self.hot.commit(progress, Arc::clone(&pending));
        self.projector.committed(draft, pending, epoch.oldest_needed);
    }

    /// What a base record repeats: all inputs, and the live minutes that began long ago.
    fn base(&self, draft: &EpochDraft, counts: &[MinuteCounts]) -> Base {
        let snapshot = self.hot.snapshot();
        let minutes = draft.old_minutes.iter().map(|(minute, begun, identities)| {
            let before = snapshot.minute_counts(*minute).unwrap_or_else(|| MinuteCounts::empty(*minute));
            let counts = match counts.iter().find(|counts| counts.minute == *minute) {
                Some(more) => before.merge(more),
                None => before,
            };
            let identities = MinuteIdentities { minute: *minute, identities: identities.clone() };
            LiveMinute { begun: *begun, identities, counts }
        });
        Base { minutes: minutes.collect(), inputs: draft.inputs.clone() }
    }

    /// Calls until it succeeds or fails for good, with growing pauses.
    fn retrying<T>(&mut self, what: &str, mut call: impl FnMut(&mut Self) -> Result<T>) -> Result<T> {
        let mut pause_ms = PAUSE_MS_MIN;
        for attempt in 1.. {
            match call(self) {
                Ok(value) => {
                    self.report.store_mended();
                    return Ok(value);
                }
                Err(error) if error.is_retryable() && self.attempts_max.is_none_or(|max| attempt < max) => {
                    tracing::warn!(attempt, "{what} failed, trying again: {}", error.report());
                    self.report.store_failing(format!("{what} fails, trying again: {}", error.report()));
                }
                Err(error) => return Err(error),
            }
            let jitter = self.randomness.next_u128() as u64 % (pause_ms / 4 + 1);
            let mut left_ms = pause_ms + jitter;
            while left_ms > 0 {
                if self.abandon.load(Ordering::Relaxed) {
                    return Err(Error::transient(format!("{what} was given up because the process stops")));
                }
                let step = left_ms.min(50);
                self.clock.sleep(Duration::from_millis(step));
                left_ms -= step;
            }
            pause_ms = (pause_ms * 2).min(PAUSE_MS_MAX);
        }
        Err(Error::internal("attempts ran out"))
    }
}

/// Sorts counts and encodes files, on two threads: the costly part of a commit.
fn encode(
    lake: &dyn LakeStore,
    draft: &EpochDraft,
    windows: Windows,
    token: u128,
) -> Result<(Vec<MinuteCounts>, Vec<EncodedFile>)> {
    let (counts, files) = std::thread::scope(|scope| {
        let counts = scope.spawn(|| windows.finish());
        let rows: Vec<ClickRows<'_>> = draft
            .clicks
            .iter()
            .map(|part| ClickRows { batch: &part.columns, rows: &part.rows, input_name: &part.input, from: part.from })
            .collect();
        let files = lake.encode(&rows, &draft.dead_letters, draft.number, token);
        (counts.join(), files)
    });
    let counts = counts.map_err(|_| Error::internal("sorting counts panicked; the message is above"))?;
    Ok((counts, files?))
}

/// Says that the thread is no longer busy, also when it ends by a panic: then the next draft finds it gone.
struct Done(Arc<AtomicBool>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// A committer on a thread of its own: one epoch is committed while the next is built.
pub struct CommitThread {
    busy: Arc<AtomicBool>,
    drafts: Option<Sender<EpochDraft>>,
    thread: Option<JoinHandle<Result<Committer>>>,
}

impl CommitThread {
    /// Starts it.
    ///
    /// # Errors
    /// External when a thread cannot be started.
    pub fn start(mut committer: Committer) -> Result<Self> {
        // No slots: a draft is handed over when the one before is committed.
        let (drafts, queue) = bounded::<EpochDraft>(0);
        let busy = Arc::new(AtomicBool::new(false));
        let done = Done(Arc::clone(&busy));
        let work = move || {
            for draft in queue {
                committer.commit(draft)?;
                done.0.store(false, Ordering::Release);
            }
            Ok(committer)
        };
        let thread = std::thread::Builder::new()
            .name("commit".into())
            .stack_size(8 << 20)
            .spawn(work)
            .map_err(|e| Error::external("the commit thread cannot be started").because(e))?;
        Ok(CommitThread { busy, drafts: Some(drafts), thread: Some(thread) })
    }

    /// Waits until everything handed over is committed.
    ///
    /// # Errors
    /// What stopped the committer.
    pub fn finish(mut self) -> Result<Committer> {
        self.drafts = None;
        self.join()
    }

    fn join(&mut self) -> Result<Committer> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(Error::internal("the commit thread panicked; its message is above")),
            None => Err(Error::internal("the commit thread has ended before")),
        }
    }
}

impl EpochSink for CommitThread {
    fn is_ready(&self) -> bool {
        !self.busy.load(Ordering::Acquire)
    }

    fn submit(&mut self, draft: EpochDraft) -> Result<()> {
        // Before the thread can be done with it.
        self.busy.store(true, Ordering::Release);
        let sent = self.drafts.as_ref().is_some_and(|drafts| drafts.send(draft).is_ok());
        if sent {
            return Ok(());
        }
        self.drafts = None;
        self.join().map(|_| ()).and(Err(Error::internal("the commit thread has ended early")))
    }
}
