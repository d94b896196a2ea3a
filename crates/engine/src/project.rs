//! Project: brings the lake up to the epoch log, and deletes records that nobody needs any more.

use crate::clock::Clock;
use crate::ingest::Turn;
use crate::report::Report;
use adtally_model::{Country, EpochNumber, Error, Ledger, MinuteCounts, Progress, Result};
use adtally_pipeline::EpochDraft;
use adtally_store::epoch_log::EpochLog;
use adtally_store::fail_points;
use adtally_store::hot_counts::{HotCounts, PendingEpoch};
use adtally_store::lake::{EpochProjection, LakeStore};
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Bytes of counts and ledgers waiting for the lake beyond which it is brought up to date before its time.
const PENDING_BYTES_MAX: usize = 48 << 20;

/// Epochs waiting for the lake beyond which it is brought up to date before its time: each names at least one file.
const PENDING_EPOCHS_MAX: usize = 256;

/// Bytes of counts and ledgers waiting for a lake that cannot be reached beyond which no more epochs are committed.
const STALLED_BYTES_MAX: usize = 8 * PENDING_BYTES_MAX;

/// Bytes that a row of counts takes: the ad, the country, the clicks.
const COUNT_BYTES: usize = size_of::<u64>() + size_of::<Country>() + size_of::<i64>();

/// Epochs waiting for a lake that cannot be reached beyond which no more are committed: half a day at ten seconds each.
const STALLED_EPOCHS_MAX: usize = 4_096;

/// How long to wait after a failure, in milliseconds, doubled up to 64 times as long.
const PAUSE_MS: i64 = 100;

/// How long to wait at a time, in milliseconds.
const WAIT_MS: RangeInclusive<i64> = 10..=1_000;

/// An epoch that waits for the lake.
#[derive(Clone)]
pub struct Waiting {
    /// Its counts and files.
    pub pending: Arc<PendingEpoch>,
    /// Ledgers of the inputs that it touched, by name.
    pub inputs: Arc<[(Arc<str>, Ledger)]>,
    /// How far the partition had come at its end.
    pub progress: Progress,
    /// The least record that was needed when it was committed.
    pub oldest_needed: EpochNumber,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Waiting>,
    /// Somebody wants the lake to be up to date now.
    hurry: bool,
    /// The projector is to end once the queue is empty.
    closing: bool,
    /// Give up at once.
    abandoned: bool,
    /// Something has changed since the projector looked.
    changed: bool,
    /// The projector has ended, whatever the reason: nothing that waits will go anywhere.
    dead: bool,
    /// The error that it has ended with.
    error: Option<Error>,
}

impl Queue {
    fn bytes(&self) -> usize {
        let bytes = |waiting: &Waiting| {
            let rows: usize = waiting.pending.counts.iter().map(MinuteCounts::len).sum();
            rows * COUNT_BYTES + size_of_val(&*waiting.inputs)
        };
        self.waiting.iter().map(bytes).sum()
    }
}

/// A partition whose epochs are projected.
struct Member {
    /// The log whose records are deleted.
    log: EpochLog,
    /// Readers' view.
    hot: Arc<HotCounts>,
    /// The last epoch that the lake holds.
    lake_epoch: EpochNumber,
    /// How far the partition had come in the last epoch that this process has projected.
    projected: Option<Progress>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    members: Mutex<BTreeMap<u32, Member>>,
}

impl Shared {
    /// Changes the queue, and wakes who waits for that.
    fn change(&self, change: impl FnOnce(&mut Queue)) {
        let mut queue = self.queue.lock();
        change(&mut queue);
        queue.changed = true;
        self.changed.notify_all();
    }
}

/// A handle on the projector.
#[derive(Clone)]
pub struct Projector {
    shared: Arc<Shared>,
}

/// What the projector works with.
pub struct ProjectorParts {
    /// The lake.
    pub lake: Arc<dyn LakeStore>,
    /// What the process tells of itself.
    pub report: Arc<Report>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Runs the stores' I/O.
    pub runtime: tokio::runtime::Handle,
    /// Random: makes the names of the files it writes its own.
    pub file_token: u128,
    /// Shortest time between commits to the lake.
    pub interval: Duration,
    /// After how many failures in a row to give up; never where there is none.
    pub attempts_max: Option<u32>,
}

impl Projector {
    /// A projector without partitions, and its work, to be done by a thread or by hand.
    pub fn new(parts: ProjectorParts) -> (Projector, Work) {
        let shared: Arc<Shared> = Arc::default();
        let ended = Ended(Arc::clone(&shared));
        let work = Work {
            parts,
            shared: Arc::clone(&shared),
            taken: None,
            due_ms: 0,
            again_ms: 0,
            failures: 0,
            _ended: ended,
        };
        (Projector { shared }, work)
    }

    /// A partition comes, with the epochs that recovery found waiting.
    pub fn add(&self, log: EpochLog, hot: Arc<HotCounts>, lake_epoch: EpochNumber, waiting: Vec<Waiting>) {
        let member = Member { hot, lake_epoch, projected: None, log };
        self.shared.members.lock().insert(member.log.partition(), member);
        self.shared.change(|queue| queue.waiting.extend(waiting));
    }

    /// A partition goes: its next owner projects what waits.
    pub fn remove(&self, partition: u32) {
        self.shared.members.lock().remove(&partition);
        self.shared.queue.lock().waiting.retain(|waiting| waiting.progress.partition != partition);
    }

    /// The last epoch of a partition that the lake holds; none where the partition has gone.
    pub fn lake_epoch(&self, partition: u32) -> Option<EpochNumber> {
        self.shared.members.lock().get(&partition).map(|member| member.lake_epoch)
    }

    /// How far each partition had come in the last epoch that this process has projected; none before the first of a
    /// partition, which is the one that took possession of it.
    pub fn projected(&self) -> Option<Vec<Progress>> {
        let members = self.shared.members.lock();
        members.values().map(|member| member.projected).collect::<Option<Vec<_>>>().filter(|of| !of.is_empty())
    }

    /// An epoch is committed and waits for the lake.
    pub fn committed(&self, draft: &EpochDraft, pending: Arc<PendingEpoch>, oldest_needed: EpochNumber) {
        if self.lake_epoch(draft.progress.partition).is_none() {
            // Its next owner projects it.
            return;
        }
        let inputs = draft.inputs.iter().map(|row| (Arc::clone(&row.origin), row.ledger)).collect();
        let waiting = Waiting { pending, progress: draft.progress, inputs, oldest_needed };
        self.shared.change(|queue| {
            queue.waiting.push(waiting);
            queue.hurry |= queue.bytes() > PENDING_BYTES_MAX || queue.waiting.len() > PENDING_EPOCHS_MAX;
        });
    }

    /// Whether another epoch may wait for the lake: a slow lake is no failure, however long it takes. One that fails ends
    /// the projector of a bounded run.
    ///
    /// # Errors
    /// Internal when the projector has ended by itself, transient when it was told to.
    pub fn has_room(&self) -> Result<bool> {
        let queue = self.shared.queue.lock();
        if queue.dead && queue.abandoned {
            return Err(Error::transient("waiting for the lake was cancelled, because the process is stopping"));
        }
        if queue.dead {
            return Err(Error::internal("the projector has ended early; its error is reported separately"));
        }
        Ok(queue.waiting.len() < STALLED_EPOCHS_MAX && queue.bytes() < STALLED_BYTES_MAX)
    }

    /// No more will come: the projector ends once the lake is up to date.
    pub fn close(&self) {
        self.shared.change(|queue| (queue.closing, queue.hurry) = (true, true));
    }

    /// The projector ends as soon as it can; the next start goes on from the log.
    pub fn abandon(&self) {
        self.shared.change(|queue| (queue.closing, queue.abandoned) = (true, true));
    }

    /// Whether the projector has ended although it was not told to.
    pub fn has_ended_early(&self) -> bool {
        let queue = self.shared.queue.lock();
        queue.dead && !queue.closing
    }

    /// What the projector has ended with; none where it has not. An error is told once.
    pub fn outcome(&self) -> Option<Result<()>> {
        let mut queue = self.shared.queue.lock();
        queue.dead.then(|| queue.error.take().map_or(Ok(()), Err))
    }

    /// Waits a moment for the projector to end.
    pub fn wait_for_end(&self) {
        let mut queue = self.shared.queue.lock();
        let moment = Duration::from_millis(*WAIT_MS.end() as u64);
        self.shared.changed.wait_while_for(&mut queue, |queue| !queue.dead, moment);
    }
}

/// The work of the projector, done by its thread or by hand.
pub struct Work {
    parts: ProjectorParts,
    shared: Arc<Shared>,
    /// What is projected next: commits may come meanwhile.
    taken: Option<Vec<Waiting>>,
    /// When the lake is due, and when to try again after a failure, by monotonic time in milliseconds.
    due_ms: i64,
    again_ms: i64,
    /// Failures in a row.
    failures: u32,
    _ended: Ended,
}

/// Says that the projector has ended, also by a panic: who waits for the lake must hear of it.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.change(|queue| {
            if !queue.dead {
                let error = Error::internal("the projector panicked; its message is above");
                (queue.dead, queue.error) = (true, Some(error));
            }
        });
    }
}

impl Work {
    /// Goes on on a thread of its own.
    ///
    /// # Errors
    /// External when a thread cannot be started.
    pub fn start(mut self) -> Result<JoinHandle<()>> {
        let work = move || {
            loop {
                match self.turn() {
                    Turn::Finished => return,
                    Turn::Worked => {}
                    Turn::Nothing => self.wait(),
                }
            }
        };
        std::thread::Builder::new()
            .name("project".into())
            .stack_size(8 << 20)
            .spawn(work)
            .map_err(|e| Error::external("the projector thread cannot be started").because(e))
    }

    /// Takes up what waits for the lake, where that is due, or projects what was taken up. Finished once it was closed and
    /// nothing waits, once it was abandoned, and after an error ([`Projector::outcome`]).
    pub fn turn(&mut self) -> Turn {
        let turn = match self.taken.take() {
            None => Ok(self.take_up()),
            Some(waiting) => self.try_to_project(&waiting).map(|()| Turn::Worked),
        };
        let error = match turn {
            Ok(Turn::Finished) => None,
            Ok(turn) => return turn,
            Err(error) => Some(error),
        };
        self.shared.change(|queue| (queue.dead, queue.error) = (true, error));
        Turn::Finished
    }

    fn take_up(&mut self) -> Turn {
        let now_ms = self.parts.clock.monotonic_ms();
        let mut queue = self.shared.queue.lock();
        queue.changed = false;
        if queue.abandoned || (queue.closing && queue.waiting.is_empty()) {
            return Turn::Finished;
        }
        let is_due = now_ms >= self.again_ms && (queue.hurry || now_ms >= self.due_ms);
        if !is_due || queue.waiting.is_empty() {
            return Turn::Nothing;
        }
        queue.hurry = queue.closing;
        self.taken = Some(queue.waiting.clone());
        self.due_ms = now_ms + self.parts.interval.as_millis() as i64;
        Turn::Worked
    }

    fn try_to_project(&mut self, waiting: &[Waiting]) -> Result<()> {
        let Err(error) = self.project(waiting) else {
            self.failures = 0;
            self.parts.report.lake_mended();
            return Ok(());
        };
        self.failures += 1;
        if !error.is_retryable() || self.parts.attempts_max.is_some_and(|max| self.failures >= max) {
            return Err(error);
        }
        tracing::warn!("bringing the lake up to date failed, trying again: {}", error.report());
        self.parts.report.lake_failing(format!("the lake cannot be brought up to date: {}", error.report()));
        // Due at once: the pause is this one, not the interval between commits.
        let pause_ms = PAUSE_MS << (self.failures - 1).min(6);
        (self.due_ms, self.again_ms) = (0, self.parts.clock.monotonic_ms() + pause_ms);
        Ok(())
    }

    /// Waits until the lake is due, or until something changes.
    fn wait(&self) {
        let mut queue = self.shared.queue.lock();
        let left_ms = match queue.waiting.is_empty() {
            true => *WAIT_MS.end(),
            false => self.due_ms.max(self.again_ms) - self.parts.clock.monotonic_ms(),
        };
        let wait = Duration::from_millis(left_ms.clamp(*WAIT_MS.start(), *WAIT_MS.end()) as u64);
        self.shared.changed.wait_while_for(&mut queue, |queue| !queue.changed, wait);
    }

    /// Brings the lake up to the last of these epochs of each partition, and deletes records that nobody needs any more.
    fn project(&self, waiting: &[Waiting]) -> Result<()> {
        let mut waiting: Vec<&Waiting> = waiting.iter().collect();
        // The epochs of a partition stand together.
        waiting.sort_by_key(|waiting| (waiting.progress.partition, waiting.progress.number));
        let epochs: Vec<EpochProjection> = waiting
            .iter()
            .map(|waiting| EpochProjection {
                progress: waiting.progress,
                counts: Arc::clone(&waiting.pending.counts),
                staged: waiting.pending.staged.clone(),
                inputs: Arc::clone(&waiting.inputs),
            })
            .collect();
        if epochs.is_empty() {
            return Ok(());
        }
        let parts = &self.parts;
        fail_points::reach("before_projection");
        parts.runtime.block_on(parts.lake.project(&epochs, parts.file_token))?;
        fail_points::reach("after_projection");
        let of_partitions = waiting.chunk_by(|one, next| one.progress.partition == next.progress.partition);
        let last: Vec<&Waiting> = of_partitions.filter_map(|of_partition| of_partition.last().copied()).collect();
        for waiting in &last {
            let Progress { partition, number, .. } = waiting.progress;
            let mut members = self.shared.members.lock();
            let Some(member) = members.get_mut(&partition) else { continue };
            // A partition may have gone and come back meanwhile.
            if number >= member.lake_epoch {
                member.hot.projected(number);
                parts.report.lake_holds(partition, number);
                (member.lake_epoch, member.projected) = (number, Some(waiting.progress));
            }
        }
        let is_projected = |waiting: &Waiting| {
            let of_partition = last.iter().find(|last| last.progress.partition == waiting.progress.partition);
            of_partition.is_some_and(|last| waiting.progress.number <= last.progress.number)
        };
        self.shared.queue.lock().waiting.retain(|waiting| !is_projected(waiting));
        fail_points::reach("before_collect");
        last.iter().for_each(|waiting| self.collect(waiting.progress.partition, waiting.oldest_needed));
        Ok(())
    }

    /// Deletes a partition's records that nobody needs any more, by what the newest projected record itself says, so that
    /// whoever reads it finds all that it names. What is left over is deleted the next time.
    fn collect(&self, partition: u32, oldest_needed: EpochNumber) {
        let Some(log) = self.shared.members.lock().get(&partition).map(|member| member.log.clone()) else { return };
        let parts = &self.parts;
        match parts.runtime.block_on(log.collect(oldest_needed, parts.clock.wall_ms())) {
            Ok(0) => {}
            Ok(deleted) => tracing::debug!(partition, deleted, oldest_needed, "old epoch records deleted"),
            Err(error) => tracing::warn!(partition, "old epoch records could not be deleted: {}", error.report()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_a_projector_that_has_died_hears_of_it() {
        let shared: Arc<Shared> = Arc::default();
        let projector = Projector { shared: Arc::clone(&shared) };
        assert!(projector.has_room().unwrap());
        let pending = PendingEpoch { epoch: 1, counts: Arc::default(), staged: Vec::new() };
        let waiting = Waiting {
            pending: Arc::new(pending),
            progress: Progress::default(),
            inputs: Arc::default(),
            oldest_needed: 1,
        };
        shared.queue.lock().waiting = vec![waiting; STALLED_EPOCHS_MAX];
        assert!(!projector.has_room().unwrap());
        drop(Ended(shared));
        assert!(projector.has_ended_early());
        assert!(!projector.has_room().unwrap_err().is_retryable());
        // It was told to: nothing is wrong.
        projector.abandon();
        assert!(!projector.has_ended_early());
        assert!(projector.has_room().unwrap_err().is_retryable());
    }
}
