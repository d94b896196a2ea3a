//! Commit: encodes an epoch's files, stages them, creates the epoch's record, and shows the epoch to readers. The files
//! of one epoch are encoded while the epoch before it is recorded.

#[cfg(test)]
mod tests;
mod threads;

pub use threads::CommitThreads;

use crate::clock::{Clock, Randomness};
use crate::ingest::Turn;
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
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// First pause after a transient failure, in milliseconds. Doubles up to [`PAUSE_MS_MAX`], plus up to 25 % jitter.
const PAUSE_MS_MIN: u64 = 100;

/// Longest pause between attempts, in milliseconds: the process notices free disk space within this time.
const PAUSE_MS_MAX: u64 = 5_000;

/// How often to check whether the lake has caught up or the process is stopping, in milliseconds.
const POLL_MS: i64 = 50;

/// Commits epochs one after another.
pub struct Committer {
    /// Encodes an epoch's files.
    pub encoder: Encoder,
    /// Makes the epoch durable and shows it to readers.
    pub recorder: Recorder,
}

/// Sorts counts and encodes files: the expensive part of a commit. It has no effects outside this process.
pub struct Encoder {
    /// Encodes files in the lake's format.
    pub lake: Arc<dyn LakeStore>,
    /// Randomness for file names.
    pub randomness: Arc<dyn Randomness>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
}

/// An epoch whose files are ready to be staged.
pub struct EncodedEpoch {
    /// The epoch, without its windows and clicks, which were moved out.
    draft: EpochDraft,
    counts: Vec<MinuteCounts>,
    files: Vec<EncodedFile>,
    countries: Vec<Countries>,
    /// When the epoch was submitted, in milliseconds of monotonic time.
    began_ms: i64,
}

impl Encoder {
    /// Encodes one epoch, on at least two threads.
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
                    sign: 1,
                })
                .collect();
            let epoch = (draft.progress.partition, draft.progress.number);
            let files = self.lake.encode(&rows, &draft.dead_letters, epoch, token);
            (counts.join(), files)
        });
        let countries = countries_of(&draft.clicks);
        // The files now contain the clicks. The view of open epochs has its own reference to them.
        draft.clicks = Vec::new();
        let counts = counts.map_err(|_| Error::internal("sorting counts panicked; the message is above"))?;
        Ok(EncodedEpoch { draft, counts, files: files?, countries, began_ms })
    }
}

/// Stages an epoch's files, creates its record, and shows it to readers.
pub struct Recorder {
    parts: RecorderParts,
    /// The epoch that is being recorded.
    recording: Option<Recording>,
    /// Set while the current step waits to be retried.
    retry: Option<Retry>,
    /// Whether too many epochs wait for the lake. The report already shows it.
    is_room_awaited: bool,
}

/// An epoch on its way into the log.
struct Recording {
    encoded: EncodedEpoch,
    /// The next step.
    step: Step,
    staged: Vec<StagedFile>,
    base: Option<Base>,
    epoch: Option<Epoch>,
}

/// The steps of recording, in order.
#[derive(Clone, Copy)]
enum Step {
    /// Waits until the lake's queue has room for another epoch.
    Room,
    /// Stages the epoch's files.
    Stage,
    /// Reads the rows that a base record repeats.
    Base,
    /// Creates the epoch's record.
    Append,
}

impl Step {
    fn words(self) -> &'static str {
        match self {
            Step::Room => "waiting for the lake",
            Step::Stage => "staging files",
            Step::Base => "reading epoch records",
            Step::Append => "creating an epoch record",
        }
    }
}

/// A pause after a failure.
#[derive(Clone, Copy)]
struct Retry {
    /// Consecutive failures.
    attempt: u32,
    /// When to retry, in milliseconds of monotonic time.
    due_ms: i64,
}

/// Confirms that a source is still the one that was opened. What was read before is of that source then.
pub type Confirm = Arc<dyn Fn() -> Result<()> + Send + Sync>;

/// The dependencies of a recorder.
pub struct RecorderParts {
    /// The right to append to the log.
    pub writer: LogWriter,
    /// The last epoch that the lake was known to contain.
    pub lake_epoch: EpochNumber,
    /// Where files are staged.
    pub lake: Arc<dyn LakeStore>,
    /// The readers' view.
    pub hot: Arc<HotCounts>,
    /// The report of the process.
    pub report: Arc<Report>,
    /// Updates the lake.
    pub projector: Projector,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Randomness for jitter.
    pub randomness: Arc<dyn Randomness>,
    /// Runs the stores' I/O.
    pub runtime: tokio::runtime::Handle,
    /// Whether other processes may take the partition over.
    pub is_shared: bool,
    /// Confirms, before a record is created, that everything that was read came from the right source.
    pub confirm: Option<Confirm>,
    /// Failed attempts before giving up; `None` retries forever.
    pub attempts_max: Option<u32>,
    /// Set when the process must stop at once.
    pub abandon: Arc<AtomicBool>,
}

impl Recorder {
    fn partition(&self) -> u32 {
        self.parts.writer.log().partition()
    }

    /// A recorder without an epoch.
    pub fn new(parts: RecorderParts) -> Recorder {
        Recorder { parts, recording: None, retry: None, is_room_awaited: false }
    }

    /// Checks, on a shared store, that nobody has taken the partition over. A store that cannot be read is no answer.
    ///
    /// # Errors
    /// Fenced when another process owns the partition.
    pub fn check_owner(&self) -> Result<()> {
        let RecorderParts { writer, runtime, is_shared, .. } = &self.parts;
        match if *is_shared { runtime.block_on(writer.check_owner()) } else { Ok(()) } {
            Err(error) if error.is_retryable() => Ok(()),
            checked => checked,
        }
    }

    /// Records one epoch.
    ///
    /// # Errors
    /// Fenced, corrupt or internal: the process must stop.
    pub fn record(&mut self, encoded: EncodedEpoch) -> Result<()> {
        self.begin(encoded);
        loop {
            match self.turn()? {
                Turn::Finished => return Ok(()),
                Turn::Worked => {}
                Turn::Nothing => self.wait(),
            }
        }
    }

    /// Starts recording an epoch. The epoch before it must be recorded.
    pub fn begin(&mut self, encoded: EncodedEpoch) {
        self.recording = Some(Recording { encoded, step: Step::Room, staged: Vec::new(), base: None, epoch: None });
    }

    /// Whether there is no epoch to record.
    pub fn is_idle(&self) -> bool {
        self.recording.is_none()
    }

    /// Runs the next step of the current epoch. Returns finished once the epoch is recorded. A failed step is retried
    /// after a pause, unless the process is stopping.
    ///
    /// # Errors
    /// Fenced, corrupt or internal: the process must stop.
    pub fn turn(&mut self) -> Result<Turn> {
        let Some(mut recording) = self.recording.take() else { return Ok(Turn::Finished) };
        let turn = if self.pauses(recording.step)? { Turn::Nothing } else { self.advance(&mut recording)? };
        if turn != Turn::Finished {
            self.recording = Some(recording);
        }
        Ok(turn)
    }

    /// Waits briefly: for the lake, or for the next attempt.
    pub fn wait(&self) {
        let left_ms = self.retry.map_or(POLL_MS, |retry| retry.due_ms - self.parts.clock.monotonic_ms());
        self.parts.clock.sleep(Duration::from_millis(left_ms.clamp(1, POLL_MS) as u64));
    }

    fn advance(&mut self, recording: &mut Recording) -> Result<Turn> {
        let tried = match recording.step {
            Step::Room if !self.has_room()? => return Ok(Turn::Nothing),
            Step::Room => {
                fail_points::reach("before_stage");
                recording.step = Step::Stage;
                return Ok(Turn::Worked);
            }
            Step::Stage => self.stage(recording),
            Step::Base => self.read_base(recording),
            Step::Append => self.append(recording),
        };
        match tried {
            Ok(turn) => {
                self.retry = None;
                self.parts.report.store_mended(self.partition());
                Ok(turn)
            }
            Err(error) => self.fail(recording.step, error).map(|()| Turn::Nothing),
        }
    }

    fn stage(&mut self, recording: &mut Recording) -> Result<Turn> {
        let Recording { encoded: EncodedEpoch { draft, files, .. }, .. } = recording;
        if !files.is_empty() {
            self.parts.runtime.block_on(self.parts.lake.stage(files))?;
        }
        fail_points::reach("after_stage");
        recording.staged = std::mem::take(files).into_iter().map(|file| file.staged).collect();
        if draft.progress.number.is_multiple_of(BASE_EVERY) {
            recording.step = Step::Base;
        } else {
            self.complete(recording);
        }
        Ok(Turn::Worked)
    }

    fn read_base(&mut self, recording: &mut Recording) -> Result<Turn> {
        recording.base = Some(self.base(&recording.encoded.draft, &recording.encoded.counts)?);
        self.complete(recording);
        Ok(Turn::Worked)
    }

    /// Builds the record. It stays the same however often its creation is retried.
    fn complete(&mut self, recording: &mut Recording) {
        let EncodedEpoch { draft, counts, .. } = &mut recording.encoded;
        let Progress { partition, number, .. } = draft.progress;
        // If the partition has left this process, its next owner projects the missing epochs.
        let lake_epoch = self.parts.projector.lake_epoch(partition).unwrap_or(self.parts.lake_epoch);
        self.parts.lake_epoch = lake_epoch;
        recording.epoch = Some(Epoch {
            progress: draft.progress,
            writer: 0,
            predecessor: 0,
            oldest_needed: fold_start(number).min(fold_start(lake_epoch.max(1))),
            claim: false,
            reconcile: None,
            inputs: draft.inputs.clone(),
            counts: std::mem::take(counts),
            identities: std::mem::take(&mut draft.identities),
            staged: std::mem::take(&mut recording.staged),
            config_fingerprint: 0,
            key_fingerprint: 0,
            base: recording.base.take().map(Box::new),
        });
        fail_points::reach("before_record");
        recording.step = Step::Append;
    }

    fn append(&mut self, recording: &mut Recording) -> Result<Turn> {
        let RecorderParts { writer, runtime, confirm, .. } = &mut self.parts;
        if let Some(confirm) = confirm {
            confirm()?;
        }
        if let Some(epoch) = &mut recording.epoch {
            runtime.block_on(writer.append(epoch))?;
        }
        fail_points::reach("after_record");
        let EncodedEpoch { draft, countries, began_ms, .. } = &recording.encoded;
        if let Some(epoch) = recording.epoch.take() {
            self.show(draft, epoch);
        }
        self.parts.report.committed(draft, countries, self.parts.clock.monotonic_ms() - began_ms);
        Ok(Turn::Finished)
    }

    /// Shows a committed epoch to readers and to the projector.
    fn show(&self, draft: &EpochDraft, epoch: Epoch) {
        let pending =
            Arc::new(PendingEpoch { epoch: draft.progress.number, counts: epoch.counts.into(), staged: epoch.staged });
        self.parts.hot.commit(draft.progress, Arc::clone(&pending));
        self.parts.projector.committed(draft, pending, epoch.oldest_needed);
    }

    /// The contents of a base record: all inputs, and the live minutes that began long ago. The identities come from
    /// the pipeline. The clicks are the ones counted by the log's records and by this epoch.
    fn base(&self, draft: &EpochDraft, counts: &[MinuteCounts]) -> Result<Base> {
        let old: Vec<Minute> = draft.old_minutes.iter().map(|(minute, ..)| *minute).collect();
        let before = self.parts.runtime.block_on(self.parts.writer.log().counts_of(&old, self.parts.writer.head()))?;
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

    /// Whether the lake's queue has room for another epoch. While it has none, the report says that commits wait.
    fn has_room(&mut self) -> Result<bool> {
        let has_room = self.parts.projector.has_room()?;
        if !has_room && !self.is_room_awaited {
            tracing::warn!("too many epochs wait for the lake: reading is paused");
            let problem = "too many epochs wait for the lake: reading is paused".to_owned();
            self.parts.report.store_failing(self.partition(), problem);
        }
        if !has_room && self.parts.abandon.load(Ordering::Relaxed) {
            return Err(Error::transient("waiting for the lake was cancelled, because the process is stopping"));
        }
        if has_room && self.is_room_awaited {
            self.parts.report.store_mended(self.partition());
        }
        self.is_room_awaited = !has_room;
        Ok(has_room)
    }

    /// Whether it is too early to retry a step.
    fn pauses(&self, step: Step) -> Result<bool> {
        let Some(retry) = self.retry else { return Ok(false) };
        if self.parts.abandon.load(Ordering::Relaxed) {
            let what = step.words();
            return Err(Error::transient(format!("{what} was cancelled, because the process is stopping")));
        }
        Ok(self.parts.clock.monotonic_ms() < retry.due_ms)
    }

    /// Schedules a retry of a failed step after a growing pause, or returns the error when no attempts are left.
    fn fail(&mut self, step: Step, error: Error) -> Result<()> {
        let attempt = self.retry.map_or(1, |retry| retry.attempt + 1);
        if !error.is_retryable() || self.parts.attempts_max.is_some_and(|max| attempt >= max) {
            self.parts.report.store_mended(self.partition());
            return Err(error);
        }
        let what = step.words();
        tracing::warn!(attempt, "{what} failed, trying again: {}", error.report());
        let problem = format!("{what} fails, trying again: {}", error.report());
        self.parts.report.store_failing(self.partition(), problem);
        let pause_ms = (PAUSE_MS_MIN << (attempt - 1).min(16)).min(PAUSE_MS_MAX);
        let jitter_ms = self.parts.randomness.next_u128() as u64 % (pause_ms / 4 + 1);
        let due_ms = self.parts.clock.monotonic_ms() + (pause_ms + jitter_ms) as i64;
        self.retry = Some(Retry { attempt, due_ms });
        Ok(())
    }
}
