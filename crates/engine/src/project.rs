//! Project: brings the lake up to the epoch log, and deletes records that nobody needs any more.

use crate::clock::Clock;
use crate::report::Report;
use adtally_model::{Country, EpochNumber, Error, Ledger, MinuteCounts, Progress, Result};
use adtally_pipeline::EpochDraft;
use adtally_store::epoch_log::EpochLog;
use adtally_store::fail_points;
use adtally_store::hot_counts::{HotCounts, PendingEpoch};
use adtally_store::lake::{EpochProjection, LakeStore};
use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;
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

/// How long to wait after a failure, doubled up to 64 times as long.
const PAUSE: Duration = Duration::from_millis(100);

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
    /// The thread is to end once the queue is empty.
    closing: bool,
    /// Give up at once.
    abandoned: bool,
    /// The thread has ended, whatever the reason: nothing that waits will go anywhere.
    dead: bool,
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

/// A handle on the projector thread.
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
        (Projector { shared: Arc::clone(&shared) }, Work { parts, shared })
    }

    /// A partition comes, with the epochs that recovery found waiting.
    pub fn add(&self, log: EpochLog, hot: Arc<HotCounts>, lake_epoch: EpochNumber, waiting: Vec<Waiting>) {
        let member = Member { hot, lake_epoch, projected: None, log };
        self.shared.members.lock().insert(member.log.partition(), member);
        self.shared.queue.lock().waiting.extend(waiting);
        self.shared.changed.notify_all();
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
        let mut queue = self.shared.queue.lock();
        queue.waiting.push(waiting);
        queue.hurry |= queue.bytes() > PENDING_BYTES_MAX || queue.waiting.len() > PENDING_EPOCHS_MAX;
        self.shared.changed.notify_all();
    }

    /// Whether another epoch may wait for the lake: a slow lake is no failure, however long it takes. One that fails ends
    /// the thread of a bounded run.
    ///
    /// # Errors
    /// Internal when the thread has ended.
    pub fn has_room(&self) -> Result<bool> {
        let queue = self.shared.queue.lock();
        if queue.dead {
            return Err(Error::internal("the projector has ended early; its error is reported separately"));
        }
        Ok(queue.waiting.len() < STALLED_EPOCHS_MAX && queue.bytes() < STALLED_BYTES_MAX)
    }

    /// No more will come: the thread ends once the lake is up to date.
    pub fn close(&self) {
        let mut queue = self.shared.queue.lock();
        (queue.closing, queue.hurry) = (true, true);
        self.shared.changed.notify_all();
    }

    /// The thread ends as soon as it can; the next start goes on from the log.
    pub fn abandon(&self) {
        let mut queue = self.shared.queue.lock();
        (queue.closing, queue.abandoned) = (true, true);
        self.shared.changed.notify_all();
    }
}

/// The work of the projector, done by its thread or by hand.
pub struct Work {
    parts: ProjectorParts,
    shared: Arc<Shared>,
}

/// Says that the thread has ended, also by a panic: who waits for the lake must hear of it.
struct Ended(Arc<Shared>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.queue.lock().dead = true;
    }
}

impl Work {
    /// Goes on on a thread of its own.
    ///
    /// # Errors
    /// External when a thread cannot be started.
    pub fn start(self) -> Result<JoinHandle<Result<()>>> {
        let ended = Ended(Arc::clone(&self.shared));
        let work = move || {
            let _ended = ended;
            self.run()
        };
        std::thread::Builder::new()
            .name("project".into())
            .stack_size(8 << 20)
            .spawn(work)
            .map_err(|e| Error::external("the projector thread cannot be started").because(e))
    }

    fn run(self) -> Result<()> {
        let mut last_ms: Option<i64> = None;
        let mut pause = PAUSE;
        let mut failures = 0;
        loop {
            let Some(waiting) = self.next(last_ms) else { return Ok(()) };
            last_ms = Some(self.parts.clock.monotonic_ms());
            match self.project(&waiting) {
                Ok(()) => {
                    (pause, failures) = (PAUSE, 0);
                    self.parts.report.lake_mended();
                }
                Err(error) if error.is_retryable() && self.parts.attempts_max.is_none_or(|max| failures + 1 < max) => {
                    failures += 1;
                    tracing::warn!("bringing the lake up to date failed, trying again: {}", error.report());
                    self.parts
                        .report
                        .lake_failing(format!("the lake cannot be brought up to date: {}", error.report()));
                    let mut queue = self.shared.queue.lock();
                    self.shared.changed.wait_while_for(&mut queue, |queue| !queue.abandoned, pause);
                    // Due at once: the pause is this one, not the interval between commits.
                    last_ms = None;
                    pause = (pause * 2).min(PAUSE * 64);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits until the lake is due; `None` when the thread is to end.
    fn next(&self, last_ms: Option<i64>) -> Option<Vec<Waiting>> {
        let mut queue = self.shared.queue.lock();
        loop {
            if queue.abandoned || (queue.closing && queue.waiting.is_empty()) {
                return None;
            }
            let age = last_ms.map(|last| self.parts.clock.monotonic_ms() - last);
            let interval = self.parts.interval.as_millis() as i64;
            let due = queue.hurry || age.is_none_or(|age| age >= interval);
            if due && !queue.waiting.is_empty() {
                queue.hurry = queue.closing;
                return Some(queue.waiting.clone());
            }
            let wait = age.map_or(interval, |age| interval - age).clamp(10, 1_000);
            self.shared.changed.wait_for(&mut queue, Duration::from_millis(wait as u64));
        }
    }

    /// The epochs that wait for the lake.
    pub fn waiting(&self) -> Vec<Waiting> {
        self.shared.queue.lock().waiting.clone()
    }

    /// Brings the lake up to the last of these epochs of each partition, and deletes records that nobody needs any more.
    ///
    /// # Errors
    /// As [`LakeStore::project`].
    pub fn project(&self, waiting: &[Waiting]) -> Result<()> {
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
        assert!(!projector.has_room().unwrap_err().is_retryable());
    }
}
