//! Project: updates the lake to the epoch log, and deletes records that are no longer needed.

use crate::clock::Clock;
use crate::ingest::Turn;
use crate::letters::Letters;
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

/// Bytes of counts and ledgers waiting for the lake above which it is updated early.
const PENDING_BYTES_MAX: usize = 48 << 20;

/// Epochs waiting for the lake above which it is updated early: each names at least one file.
const PENDING_EPOCHS_MAX: usize = 256;

/// Bytes of counts and ledgers waiting for an unreachable lake above which no more epochs are committed.
const STALLED_BYTES_MAX: usize = 8 * PENDING_BYTES_MAX;

/// Bytes of a row of counts: the ad, the country, the clicks.
const COUNT_BYTES: usize = size_of::<u64>() + size_of::<Country>() + size_of::<i64>();

/// Epochs waiting for an unreachable lake above which no more are committed: half a day at ten seconds each.
const STALLED_EPOCHS_MAX: usize = 4_096;

/// Pause after a failure, in milliseconds. Doubles up to 64 times this value.
const PAUSE_MS: i64 = 100;

/// Shortest and longest single wait, in milliseconds.
const WAIT_MS: RangeInclusive<i64> = 10..=1_000;

/// An epoch that waits for the lake.
#[derive(Clone)]
pub struct Waiting {
    /// Its counts and files.
    pub pending: Arc<PendingEpoch>,
    /// Ledgers of the inputs that the epoch touched, by name.
    pub inputs: Arc<[(Arc<str>, Ledger)]>,
    /// The partition's progress at the end of the epoch.
    pub progress: Progress,
    /// The oldest record that was needed when the epoch was committed.
    pub oldest_needed: EpochNumber,
}

impl Waiting {
    /// What the lake needs of it.
    pub fn projection(&self) -> EpochProjection {
        EpochProjection {
            progress: self.progress,
            counts: Arc::clone(&self.pending.counts),
            staged: self.pending.staged.clone(),
            inputs: Arc::clone(&self.inputs),
            // Only the partition `reconcile` corrects.
            correction: None,
        }
    }
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Waiting>,
    /// Set when a caller wants the lake to be up to date now.
    hurry: bool,
    /// Set when the projector must end once the queue is empty.
    closing: bool,
    /// Set when the projector must give up at once.
    abandoned: bool,
    /// Set when anything has changed since the projector last looked.
    changed: bool,
    /// Set when the projector has ended for any reason. Waiting epochs are then not projected.
    dead: bool,
    /// The error with which it ended.
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
    /// The log from which records are deleted.
    log: EpochLog,
    /// The readers' view.
    hot: Arc<HotCounts>,
    /// The last epoch that the lake contains.
    lake_epoch: EpochNumber,
    /// The partition's progress in the last epoch that this process has projected.
    projected: Option<Progress>,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    members: Mutex<BTreeMap<u32, Member>>,
}

impl Shared {
    /// Changes the queue, and wakes the threads that wait for a change.
    fn change(&self, change: impl FnOnce(&mut Queue)) {
        let mut queue = self.queue.lock();
        change(&mut queue);
        queue.changed = true;
        self.changed.notify_all();
    }
}

/// A handle to the projector.
#[derive(Clone)]
pub struct Projector {
    shared: Arc<Shared>,
}

/// The dependencies of the projector.
pub struct ProjectorParts {
    /// The lake.
    pub lake: Arc<dyn LakeStore>,
    /// Sends dead letters on, if they are wanted elsewhere as well.
    pub letters: Option<Letters>,
    /// The report of the process.
    pub report: Arc<Report>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Runs the stores' I/O.
    pub runtime: tokio::runtime::Handle,
    /// A random token that makes the names of this projector's files unique.
    pub file_token: u128,
    /// Shortest time between commits to the lake.
    pub interval: Duration,
    /// Consecutive failures before giving up; `None` retries forever.
    pub attempts_max: Option<u32>,
}

impl Projector {
    /// A projector without partitions, and its work, which a thread or a caller does.
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

    /// Adds a partition, with the epochs that recovery found waiting.
    pub fn add(&self, log: EpochLog, hot: Arc<HotCounts>, lake_epoch: EpochNumber, waiting: Vec<Waiting>) {
        let member = Member { hot, lake_epoch, projected: None, log };
        self.shared.members.lock().insert(member.log.partition(), member);
        self.shared.change(|queue| queue.waiting.extend(waiting));
    }

    /// Removes a partition. Its next owner projects its waiting epochs.
    pub fn remove(&self, partition: u32) {
        self.shared.members.lock().remove(&partition);
        self.shared.queue.lock().waiting.retain(|waiting| waiting.progress.partition != partition);
    }

    /// The last epoch of a partition that the lake contains; `None` if the partition has left.
    pub fn lake_epoch(&self, partition: u32) -> Option<EpochNumber> {
        self.shared.members.lock().get(&partition).map(|member| member.lake_epoch)
    }

    /// Each partition's progress in the last epoch that this process has projected. `None` until every partition has
    /// projected one; its first epoch is the one that took possession of it.
    pub fn projected(&self) -> Option<Vec<Progress>> {
        let members = self.shared.members.lock();
        members.values().map(|member| member.projected).collect::<Option<Vec<_>>>().filter(|of| !of.is_empty())
    }

    /// Queues a committed epoch for the lake.
    pub fn committed(&self, draft: &EpochDraft, pending: Arc<PendingEpoch>, oldest_needed: EpochNumber) {
        // Without a member, the next owner projects the epoch.
        let Some(lake_epoch) = self.lake_epoch(draft.progress.partition) else { return };
        let inputs = draft.inputs.iter().map(|row| (Arc::clone(&row.origin), row.ledger)).collect();
        let waiting = Waiting { pending, progress: draft.progress, inputs, oldest_needed };
        self.shared.change(|queue| {
            // An earlier owner of the same process may say so after its successor found the epoch in the log.
            let Progress { partition, number, .. } = waiting.progress;
            let is_known = |of: &Waiting| of.progress.partition == partition && of.progress.number >= number;
            if lake_epoch >= number || queue.waiting.iter().any(is_known) {
                return;
            }
            queue.waiting.push(waiting);
            queue.hurry |= queue.bytes() > PENDING_BYTES_MAX || queue.waiting.len() > PENDING_EPOCHS_MAX;
        });
    }

    /// Whether the queue has room for another epoch. A slow lake is no failure, however long it takes. In a bounded
    /// run, a failing lake ends the projector.
    ///
    /// # Errors
    /// Internal when the projector has ended early, transient when it was abandoned.
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

    /// Ends the projector once the lake is up to date. No more epochs may follow.
    pub fn close(&self) {
        self.shared.change(|queue| (queue.closing, queue.hurry) = (true, true));
    }

    /// Ends the projector as soon as possible. The next start continues from the log.
    pub fn abandon(&self) {
        self.shared.change(|queue| (queue.closing, queue.abandoned) = (true, true));
    }

    /// Whether the projector has ended without a request.
    pub fn has_ended_early(&self) -> bool {
        let queue = self.shared.queue.lock();
        queue.dead && !queue.closing
    }

    /// The projector's outcome; `None` until it has ended. An error is returned only once.
    pub fn outcome(&self) -> Option<Result<()>> {
        let mut queue = self.shared.queue.lock();
        queue.dead.then(|| queue.error.take().map_or(Ok(()), Err))
    }

    /// Waits briefly for the projector to end.
    pub fn wait_for_end(&self) {
        let mut queue = self.shared.queue.lock();
        let moment = Duration::from_millis(*WAIT_MS.end() as u64);
        self.shared.changed.wait_while_for(&mut queue, |queue| !queue.dead, moment);
    }
}

/// The work of the projector, done by its thread or by its caller.
pub struct Work {
    parts: ProjectorParts,
    shared: Arc<Shared>,
    /// The epochs to project next. New commits may be queued meanwhile.
    taken: Option<Vec<Waiting>>,
    /// When the lake is due, and when to retry after a failure, in milliseconds of monotonic time.
    due_ms: i64,
    again_ms: i64,
    /// Consecutive failures.
    failures: u32,
    _ended: Ended,
}

/// Marks the projector as ended, also after a panic, so that nothing waits for it in vain.
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
    /// Continues on its own thread.
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

    /// Takes the waiting epochs when the lake is due, or projects the epochs taken. Returns finished once the projector
    /// is closed and nothing waits, once it is abandoned, and after an error ([`Projector::outcome`]).
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
        // Due at once: this pause replaces the interval between commits.
        let pause_ms = PAUSE_MS << (self.failures - 1).min(6);
        (self.due_ms, self.again_ms) = (0, self.parts.clock.monotonic_ms() + pause_ms);
        Ok(())
    }

    /// Waits until the lake is due or something changes.
    fn wait(&self) {
        let mut queue = self.shared.queue.lock();
        let left_ms = match queue.waiting.is_empty() {
            true => *WAIT_MS.end(),
            false => self.due_ms.max(self.again_ms) - self.parts.clock.monotonic_ms(),
        };
        let wait = Duration::from_millis(left_ms.clamp(*WAIT_MS.start(), *WAIT_MS.end()) as u64);
        self.shared.changed.wait_while_for(&mut queue, |queue| !queue.changed, wait);
    }

    /// Updates the lake to each partition's last epoch in `waiting`, and deletes records that are no longer needed.
    fn project(&self, waiting: &[Waiting]) -> Result<()> {
        let mut waiting: Vec<&Waiting> = waiting.iter().collect();
        // Groups the epochs by partition.
        waiting.sort_by_key(|waiting| (waiting.progress.partition, waiting.progress.number));
        let epochs: Vec<EpochProjection> = waiting.iter().map(|waiting| waiting.projection()).collect();
        if epochs.is_empty() {
            return Ok(());
        }
        let parts = &self.parts;
        if let Some(letters) = &parts.letters {
            letters.send(&parts.runtime, &epochs)?;
        }
        fail_points::reach("before_projection");
        parts.runtime.block_on(parts.lake.project(&epochs, parts.file_token))?;
        fail_points::reach("after_projection");
        let of_partitions = waiting.chunk_by(|one, next| one.progress.partition == next.progress.partition);
        let last: Vec<&Waiting> = of_partitions.filter_map(|of_partition| of_partition.last().copied()).collect();
        for waiting in &last {
            let Progress { partition, number, .. } = waiting.progress;
            let mut members = self.shared.members.lock();
            let Some(member) = members.get_mut(&partition) else { continue };
            // The partition may have left and returned meanwhile.
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

    /// Deletes a partition's records that are no longer needed. The newest projected record says which, so that its
    /// readers find all records that it names. Remaining records are deleted the next time.
    fn collect(&self, partition: u32, oldest_needed: EpochNumber) {
        let Some(log) = self.shared.members.lock().get(&partition).map(|member| member.log.clone()) else { return };
        let parts = &self.parts;
        match parts.runtime.block_on(log.collect(oldest_needed)) {
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
        // It was asked to end: nothing is wrong.
        projector.abandon();
        assert!(!projector.has_ended_early());
        assert!(projector.has_room().unwrap_err().is_retryable());
    }
}
