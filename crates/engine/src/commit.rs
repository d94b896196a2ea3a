//! Commit: encode an epoch's files; stage them, create its record, show it to readers. The files of one epoch are encoded
//! while the one before is recorded.

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

/// First pause after a failure that may pass; doubled up to [`PAUSE_MS_MAX`], plus up to a quarter at random.
const PAUSE_MS_MIN: u64 = 100;

/// Longest pause between attempts: a disk that has room again is noticed within it.
const PAUSE_MS_MAX: u64 = 5_000;

/// How often, in milliseconds, it is looked whether the lake has caught up, or the process stops.
const POLL_MS: i64 = 50;

/// Commits epochs, one after another.
pub struct Committer {
    /// Makes an epoch's files.
    pub encoder: Encoder,
    /// Makes it durable and shows it.
    pub recorder: Recorder,
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
    parts: RecorderParts,
    /// The epoch that is being recorded.
    recording: Option<Recording>,
    /// Its step has failed.
    retry: Option<Retry>,
    /// Too many epochs wait for the lake, which was told.
    is_room_awaited: bool,
}

/// An epoch on its way into the log.
struct Recording {
    encoded: EncodedEpoch,
    /// What is tried next.
    step: Step,
    staged: Vec<StagedFile>,
    base: Option<Base>,
    epoch: Option<Epoch>,
}

/// The steps of recording.
#[derive(Clone, Copy)]
enum Step {
    /// It waits until another epoch may wait for the lake.
    Room,
    /// Its files are staged.
    Stage,
    /// What a base record repeats is read.
    Base,
    /// Its record is created.
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
    /// Failures in a row.
    attempt: u32,
    /// When to try again, by monotonic time in milliseconds.
    due_ms: i64,
}

/// What a recorder works with.
pub struct RecorderParts {
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
        self.parts.writer.log().partition()
    }

    /// A recorder that has nothing to record.
    pub fn new(parts: RecorderParts) -> Recorder {
        Recorder { parts, recording: None, retry: None, is_room_awaited: false }
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

    /// Takes up an epoch to be recorded; the one before is.
    pub fn begin(&mut self, encoded: EncodedEpoch) {
        self.recording = Some(Recording { encoded, step: Step::Room, staged: Vec::new(), base: None, epoch: None });
    }

    /// Whether nothing is left to be recorded.
    pub fn is_idle(&self) -> bool {
        self.recording.is_none()
    }

    /// Tries the next step of the epoch that was taken up; finished once it is recorded. A step that fails is tried again
    /// after a pause, unless the process stops.
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

    /// Waits a moment: for the lake, or for the next attempt.
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

    /// Makes the record, which stays the same however often its creation is tried.
    fn complete(&mut self, recording: &mut Recording) {
        let EncodedEpoch { draft, counts, .. } = &mut recording.encoded;
        let Progress { partition, number, .. } = draft.progress;
        // What a partition that has gone lacks in the lake is its next owner's concern.
        let lake_epoch = self.parts.projector.lake_epoch(partition).unwrap_or(self.parts.lake_epoch);
        self.parts.lake_epoch = lake_epoch;
        recording.epoch = Some(Epoch {
            progress: draft.progress,
            writer: 0,
            predecessor: 0,
            oldest_needed: fold_start(number).min(fold_start(lake_epoch.max(1))),
            claim: false,
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
        let RecorderParts { writer, runtime, .. } = &mut self.parts;
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

    /// Lets readers and the projector see a committed epoch.
    fn show(&self, draft: &EpochDraft, epoch: Epoch) {
        let pending =
            Arc::new(PendingEpoch { epoch: draft.progress.number, counts: epoch.counts.into(), staged: epoch.staged });
        self.parts.hot.commit(draft.progress, Arc::clone(&pending));
        self.parts.projector.committed(draft, pending, epoch.oldest_needed);
    }

    /// What a base record repeats: all inputs, and the live minutes that began long ago. Their identities are the
    /// pipeline's; their clicks are what the log's records and this epoch have counted.
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

    /// Whether another epoch may wait for the lake. That nothing else is committed meanwhile is told.
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

    /// Whether it is too early to try a step again.
    fn pauses(&self, step: Step) -> Result<bool> {
        let Some(retry) = self.retry else { return Ok(false) };
        if self.parts.abandon.load(Ordering::Relaxed) {
            let what = step.words();
            return Err(Error::transient(format!("{what} was cancelled, because the process is stopping")));
        }
        Ok(self.parts.clock.monotonic_ms() < retry.due_ms)
    }

    /// A step has failed: it is tried again after a pause that grows, or that was the last time.
    fn fail(&mut self, step: Step, error: Error) -> Result<()> {
        let attempt = self.retry.map_or(1, |retry| retry.attempt + 1);
        if !error.is_retryable() || self.parts.attempts_max.is_some_and(|max| attempt >= max) {
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
