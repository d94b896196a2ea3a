//! Commit: encode an epoch's files; stage them, create its record, show it to readers. The files of one epoch are encoded
//! while the one before is recorded.

use crate::clock::{Clock, Randomness};
use crate::ingest::EpochSink;
use crate::line_notes::{Countries, countries_of};
use crate::project::Projector;
use crate::report::Report;
use adtally_model::epoch::{BASE_EVERY, fold_start};
use adtally_model::{
    Base, Epoch, EpochNumber, Error, LiveMinute, Minute, MinuteCounts, MinuteIdentities, Progress, Result, StagedFile,
};
use adtally_pipeline::EpochDraft;
use adtally_store::epoch_log::LogWriter;
use adtally_store::fail_points;
use adtally_store::hot_counts::{HotCounts, PendingEpoch};
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

/// How often it is looked whether the lake has caught up.
const LAKE_POLL: Duration = Duration::from_millis(50);

/// Commits epochs, one after another.
pub struct Committer {
    /// Makes an epoch's files.
    pub encoder: Encoder,
    /// Makes it durable and shows it.
    pub recorder: Recorder,
}

impl Committer {
    /// Commits one epoch.
    ///
    /// # Errors
    /// Fenced, corrupt or internal: the process must stop.
    pub fn commit(&mut self, draft: EpochDraft) -> Result<()> {
        self.recorder.record(self.encoder.encode(draft)?)
    }
}

/// Sorts counts and encodes files: the costly part of a commit, which touches nothing outside this process.
pub struct Encoder {
    /// Knows how files are encoded.
    pub lake: Arc<dyn LakeStore>,
    /// File names.
    pub randomness: Arc<dyn Randomness>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
}

/// An epoch whose files are ready to be staged.
pub struct EncodedEpoch {
    /// The epoch; its windows and its clicks are taken out.
    draft: EpochDraft,
    counts: Vec<MinuteCounts>,
    files: Vec<EncodedFile>,
    countries: Vec<Countries>,
    /// When it was handed over, by monotonic time.
    began_ms: i64,
}

impl Encoder {
    /// Encodes one epoch, on two threads and more.
    ///
    /// # Errors
    /// Internal when rows cannot be encoded.
    pub fn encode(&self, mut draft: EpochDraft) -> Result<EncodedEpoch> {
        let began_ms = self.clock.monotonic_ms();
        let windows = std::mem::take(&mut draft.windows);
        let token = self.randomness.next_u128();
        let (counts, files) = std::thread::scope(|scope| {
            let counts = scope.spawn(|| windows.finish());
            let rows: Vec<ClickRows<'_>> = draft
                .clicks
                .iter()
                .map(|part| ClickRows {
                    batch: &part.columns,
                    rows: &part.rows,
                    input_name: &part.input,
                    positions: part.positions,
                })
                .collect();
            let epoch = (draft.progress.partition, draft.progress.number);
            let files = self.lake.encode(&rows, &draft.dead_letters, epoch, token);
            (counts.join(), files)
        });
        let countries = countries_of(&draft.clicks);
        // They are in the files now; what shows them to readers as open holds them itself.
        draft.clicks = Vec::new();
        let counts = counts.map_err(|_| Error::internal("sorting counts panicked; the message is above"))?;
        Ok(EncodedEpoch { draft, counts, files: files?, countries, began_ms })
    }
}

/// Stages an epoch's files, creates its record, and shows it to readers.
pub struct Recorder {
    /// The right to append to the log.
    pub writer: LogWriter,
    /// The last epoch that the lake was known to hold.
    pub lake_epoch: EpochNumber,
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
    /// Jitter.
    pub randomness: Arc<dyn Randomness>,
    /// Runs the stores' I/O.
    pub runtime: tokio::runtime::Handle,
    /// After how many failed attempts to give up; never where there is none.
    pub attempts_max: Option<u32>,
    /// Set when the process has to stop at once.
    pub abandon: Arc<AtomicBool>,
}

impl Recorder {
    fn partition(&self) -> u32 {
        self.writer.log().partition()
    }

    /// Records one epoch.
    ///
    /// # Errors
    /// Fenced, corrupt or internal: the process must stop.
    pub fn record(&mut self, encoded: EncodedEpoch) -> Result<()> {
        let EncodedEpoch { mut draft, counts, files, countries, began_ms } = encoded;
        self.wait_for_lake()?;
        let staged: Vec<StagedFile> = files.iter().map(|file| file.staged.clone()).collect();
        fail_points::reach("before_stage");
        if !files.is_empty() {
            self.retrying("staging files", |recorder| recorder.runtime.block_on(recorder.lake.stage(&files)))?;
        }
        drop(files);
        fail_points::reach("after_stage");
        let Progress { partition, number, .. } = draft.progress;
        let base = match number.is_multiple_of(BASE_EVERY) {
            true => Some(self.retrying("reading epoch records", |recorder| recorder.base(&draft, &counts))?),
            false => None,
        };
        // What a partition that has gone lacks in the lake is its next owner's concern.
        self.lake_epoch = self.projector.lake_epoch(partition).unwrap_or(self.lake_epoch);
        let oldest_needed = fold_start(number).min(fold_start(self.lake_epoch.max(1)));
        let mut epoch = Epoch {
            progress: draft.progress,
            writer: 0,
            predecessor: 0,
            oldest_needed,
            claim: false,
            inputs: draft.inputs.clone(),
            counts,
            identities: std::mem::take(&mut draft.identities),
            staged,
            config_fingerprint: 0,
            key_fingerprint: 0,
            base: base.map(Box::new),
        };
        let runtime = self.runtime.clone();
        fail_points::reach("before_record");
        self.retrying("creating an epoch record", |recorder| {
            runtime.block_on(recorder.writer.append(&mut epoch)).map(drop)
        })?;
        fail_points::reach("after_record");
        self.show(&draft, epoch);
        self.report.committed(&draft, &countries, self.clock.monotonic_ms() - began_ms);
        Ok(())
    }

    /// Lets readers and the projector see a committed epoch.
    fn show(&self, draft: &EpochDraft, epoch: Epoch) {
        let pending =
            Arc::new(PendingEpoch { epoch: draft.progress.number, counts: epoch.counts.into(), staged: epoch.staged });
        self.hot.commit(draft.progress, Arc::clone(&pending));
        self.projector.committed(draft, pending, epoch.oldest_needed);
    }

    /// What a base record repeats: all inputs, and the live minutes that began long ago. Their identities are the
    /// pipeline's; their clicks are what the log's records and this epoch have counted.
    fn base(&self, draft: &EpochDraft, counts: &[MinuteCounts]) -> Result<Base> {
        let old: Vec<Minute> = draft.old_minutes.iter().map(|(minute, ..)| *minute).collect();
        let before = self.runtime.block_on(self.writer.log().counts_of(&old, self.writer.head()))?;
        let minutes = draft.old_minutes.iter().zip(before).map(|((minute, begun, identities), before)| {
            let counts = match counts.iter().find(|counts| counts.minute == *minute) {
                Some(more) => before.merge(more),
                None => before,
            };
            let identities = MinuteIdentities { minute: *minute, identities: identities.clone() };
            LiveMinute { begun: *begun, identities, counts }
        });
        Ok(Base { minutes: minutes.collect(), inputs: draft.inputs.clone() })
    }

    /// Waits until another epoch may wait for the lake. That nothing else is committed meanwhile is told.
    fn wait_for_lake(&self) -> Result<()> {
        let mut waited = false;
        while !self.projector.has_room()? {
            if !waited {
                tracing::warn!("too many epochs wait for the lake: reading is paused");
                self.report
                    .store_failing(self.partition(), "too many epochs wait for the lake: reading is paused".to_owned());
                waited = true;
            }
            if self.abandon.load(Ordering::Relaxed) {
                return Err(Error::transient("waiting for the lake was cancelled, because the process is stopping"));
            }
            self.clock.sleep(LAKE_POLL);
        }
        if waited {
            self.report.store_mended(self.partition());
        }
        Ok(())
    }

    /// Calls until it succeeds or fails for good, with growing pauses.
    fn retrying<T>(&mut self, what: &str, mut call: impl FnMut(&mut Self) -> Result<T>) -> Result<T> {
        let mut pause_ms = PAUSE_MS_MIN;
        for attempt in 1.. {
            match call(self) {
                Ok(value) => {
                    self.report.store_mended(self.partition());
                    return Ok(value);
                }
                Err(error) if error.is_retryable() && self.attempts_max.is_none_or(|max| attempt < max) => {
                    tracing::warn!(attempt, "{what} failed, trying again: {}", error.report());
                    let problem = format!("{what} fails, trying again: {}", error.report());
                    self.report.store_failing(self.partition(), problem);
                }
                Err(error) => return Err(error),
            }
            let jitter = self.randomness.next_u128() as u64 % (pause_ms / 4 + 1);
            let mut left_ms = pause_ms + jitter;
            while left_ms > 0 {
                if self.abandon.load(Ordering::Relaxed) {
                    return Err(Error::transient(format!("{what} was cancelled, because the process is stopping")));
                }
                let step = left_ms.min(50);
                self.clock.sleep(Duration::from_millis(step));
                left_ms -= step;
            }
            pause_ms = (pause_ms * 2).min(PAUSE_MS_MAX);
        }
        Err(Error::internal("all attempts failed"))
    }
}

/// Says that the encoder is no longer busy, also when it ends by a panic: then the next draft finds it gone.
struct Done(Arc<AtomicBool>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// A committer on threads of its own: while one epoch is built, the one before is encoded and the one before that is
/// recorded.
pub struct CommitThreads {
    busy: Arc<AtomicBool>,
    drafts: Option<Sender<EpochDraft>>,
    encoding: Option<JoinHandle<Result<Encoder>>>,
    recording: Option<JoinHandle<Result<Recorder>>>,
}

impl CommitThreads {
    /// Starts them.
    ///
    /// # Errors
    /// External when a thread cannot be started.
    pub fn start(committer: Committer) -> Result<Self> {
        let Committer { encoder, mut recorder } = committer;
        // No slots: an epoch is handed on when the one before is done with, so that there are three at most.
        let (drafts, queue) = bounded::<EpochDraft>(0);
        let (encoded, ready) = bounded::<EncodedEpoch>(0);
        let busy = Arc::new(AtomicBool::new(false));
        let done = Done(Arc::clone(&busy));
        let encoding = start_thread("encode", move || {
            for draft in queue {
                // A recorder that is gone has said why; it is asked for that when this thread has ended.
                if encoded.send(encoder.encode(draft)?).is_err() {
                    break;
                }
                done.0.store(false, Ordering::Release);
            }
            Ok(encoder)
        })?;
        let recording = start_thread("record", move || {
            for epoch in ready {
                recorder.record(epoch)?;
            }
            Ok(recorder)
        })?;
        Ok(CommitThreads { busy, drafts: Some(drafts), encoding: Some(encoding), recording: Some(recording) })
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
        // The encoder ends first: by itself, or because the recorder has.
        let encoder = join(self.encoding.take(), "encoder");
        let recorder = join(self.recording.take(), "recorder")?;
        Ok(Committer { encoder: encoder?, recorder })
    }
}

fn start_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<JoinHandle<Result<T>>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(8 << 20)
        .spawn(work)
        .map_err(|e| Error::external(format!("the thread `{name}` cannot be started")).because(e))
}

fn join<T>(thread: Option<JoinHandle<Result<T>>>, name: &str) -> Result<T> {
    match thread.map(JoinHandle::join) {
        Some(Ok(result)) => result,
        Some(Err(_)) => Err(Error::internal(format!("the {name} panicked; its message is above"))),
        None => Err(Error::internal(format!("the {name} has already ended"))),
    }
}

impl EpochSink for CommitThreads {
    fn is_ready(&self) -> bool {
        !self.busy.load(Ordering::Acquire)
    }

    fn submit(&mut self, draft: EpochDraft) -> Result<()> {
        // The encoder would hear of it only when it hands this epoch on, and we with the next one.
        let is_recording = self.recording.as_ref().is_some_and(|recording| !recording.is_finished());
        // Before the thread can be done with it.
        self.busy.store(true, Ordering::Release);
        let sent = is_recording && self.drafts.as_ref().is_some_and(|drafts| drafts.send(draft).is_ok());
        if sent {
            return Ok(());
        }
        self.drafts = None;
        self.join().map(|_| ()).and(Err(Error::internal("the committer has ended early")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemRandomness;
    use crate::project::{ProjectorParts, Waiting, Work};
    use crate::status::Status;
    use adtally_model::{PartitionState, Progress};
    use adtally_pipeline::TimeSettings;
    use adtally_store::epoch_log::{EpochLog, Fingerprints};
    use adtally_store::lake::Lake;
    use object_store::memory::InMemory;
    use parking_lot::Mutex;

    /// Pauses after which the lake has caught up: far more than a bounded run has attempts.
    const PAUSES: u32 = 1_000;

    /// A clock whose pauses take no time, and let the lake catch up in the end.
    #[derive(Default)]
    struct Pauses {
        taken: Mutex<u32>,
        lake: Mutex<Option<Work>>,
    }

    impl Clock for Pauses {
        fn wall_ms(&self) -> i64 {
            0
        }

        fn monotonic_ms(&self) -> i64 {
            i64::from(*self.taken.lock())
        }

        fn sleep(&self, _: Duration) {
            *self.taken.lock() += 1;
            if *self.taken.lock() == PAUSES
                && let Some(lake) = self.lake.lock().take()
            {
                lake.project(&lake.waiting()).unwrap();
            }
        }
    }

    /// While a lake is slow, epochs wait for it within bounds, as long as it takes: nothing has failed.
    #[test]
    fn fault_31_a_bounded_run_waits_for_a_slow_lake() {
        let runtime = tokio::runtime::Builder::new_multi_thread().thread_stack_size(8 << 20).build().unwrap();
        let store = Arc::new(InMemory::new());
        let log = EpochLog::new(store.clone(), 0);
        let fingerprints = Fingerprints { config: 1, key: 2 };
        let (writer, state) = runtime.block_on(log.claim(1, 7, fingerprints)).unwrap();
        let lake = Arc::new(runtime.block_on(Lake::open(store)).unwrap());
        let clock = Arc::new(Pauses::default());
        let hot = Arc::new(HotCounts::new(60));
        let report = Report::new(TimeSettings::default(), &PartitionState::default(), clock.clone());
        let parts = ProjectorParts {
            lake: lake.clone(),
            report: Arc::clone(&report),
            clock: clock.clone(),
            runtime: runtime.handle().clone(),
            file_token: 1,
            interval: Duration::ZERO,
            attempts_max: Some(2),
        };
        let waiting = |epoch| Waiting {
            pending: Arc::new(PendingEpoch { epoch, counts: Arc::default(), staged: Vec::new() }),
            progress: Progress { log_id: state.progress.log_id, number: epoch, ..Progress::default() },
            inputs: Arc::default(),
            oldest_needed: 1,
        };
        // As many as may wait.
        let (projector, work) = Projector::new(parts);
        projector.add(log, Arc::clone(&hot), 0, (1..=4_096).map(waiting).collect());
        assert!(!projector.has_room().unwrap());
        *clock.lake.lock() = Some(work);
        let recorder = Recorder {
            writer,
            lake_epoch: 0,
            lake,
            hot,
            report: Arc::clone(&report),
            projector,
            clock: clock.clone(),
            randomness: Arc::new(SystemRandomness),
            runtime: runtime.handle().clone(),
            attempts_max: Some(2),
            abandon: Arc::default(),
        };
        recorder.wait_for_lake().unwrap();
        assert_eq!(*clock.taken.lock(), PAUSES);
        let problems = report.readiness().problems;
        assert!(!problems.iter().any(|problem| problem.contains("the lake")), "it has caught up: {problems:?}");
    }
}
