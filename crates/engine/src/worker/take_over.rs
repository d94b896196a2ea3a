//! Takes partitions over, beside the run loop.

use super::TopicReader;
use crate::clock::{Clock, Randomness};
use crate::commit::Confirm;
use crate::engine::Owned;
use crate::options::RunOptions;
use crate::recovery::{self, OlderMinutes, Recovered};
use crate::report::Report;
use crate::service::load_older;
use adtally_model::{ErrorKind, Frontiers, Position, Result};
use adtally_source::{KafkaPartition, Partitioner, RecordReader, Routing};
use adtally_store::epoch_log::{Beginning, EpochLog, EpochLogs, Fingerprints};
use adtally_store::hot_counts::HotCounts;
use adtally_store::lake::Lake;
use adtally_store::sources::Topic;
use crossbeam_channel::Sender;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Pause after a failed attempt. Doubles up to 32 times this value.
const PAUSE: Duration = Duration::from_millis(250);

/// Partitions that are folded at a time: each needs the memory of its live minutes twice.
pub(super) const FOLDS_MAX: usize = 2;

/// A partition that was taken over, or why it cannot be.
pub(super) struct Taken {
    /// Its number in the topic.
    pub(super) partition: u32,
    /// The assignment for which it was taken over.
    pub(super) token: u64,
    /// The partition, and older hot minutes to load.
    pub(super) outcome: Outcome,
}

/// A partition that was taken over, and older hot minutes to load; or why it cannot be.
type Outcome = Result<(Owned, Option<OlderMinutes>)>;

/// A partition that was claimed and folded.
struct Claimed {
    log: EpochLog,
    recovered: Recovered,
    hot: Arc<HotCounts>,
    older: Option<OlderMinutes>,
}

/// What taking over needs.
pub(super) struct TakeOver {
    pub(super) options: RunOptions,
    pub(super) fingerprints: Fingerprints,
    pub(super) logs: EpochLogs,
    pub(super) lake: Arc<Lake>,
    pub(super) topic: Topic,
    pub(super) partitioner: Partitioner,
    /// The first frontiers of a partition that was never read.
    pub(super) frontiers: Frontiers,
    pub(super) reader: Arc<dyn TopicReader>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) randomness: Arc<dyn Randomness>,
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) report: Arc<Report>,
    pub(super) sender: Sender<Taken>,
    /// Limits the partitions that are folded at a time.
    pub(super) folding: Semaphore,
    /// The next number of an assignment.
    pub(super) tokens: AtomicU64,
    /// The assignment for which each partition is taken over.
    pub(super) wanted: Mutex<BTreeMap<u32, u64>>,
    /// Set when the process must stop at once.
    pub(super) abandon: Arc<AtomicBool>,
}

impl TakeOver {
    /// Begins to take a partition over. The result arrives in the channel with the returned token.
    pub(super) fn begin(self: &Arc<Self>, partition: u32) -> u64 {
        let token = self.tokens.fetch_add(1, Ordering::Relaxed);
        self.wanted.lock().insert(partition, token);
        let this = Arc::clone(self);
        self.runtime.spawn(async move {
            if let Some(outcome) = this.until_done(partition, token).await {
                // The worker may have ended.
                let _ = this.sender.send(Taken { partition, token, outcome });
            }
        });
        token
    }

    /// Gives up taking a partition over: it belongs to another process now, which would be fenced.
    pub(super) fn forget(&self, partition: u32) {
        self.wanted.lock().remove(&partition);
    }

    fn is_wanted(&self, partition: u32, token: u64) -> bool {
        self.wanted.lock().get(&partition) == Some(&token) && !self.abandon.load(Ordering::Relaxed)
    }

    /// Shows older hot minutes once they are read from the lake.
    pub(super) fn load_older(&self, older: Option<OlderMinutes>, hot: Arc<HotCounts>) {
        if let Some(older) = older {
            self.runtime.spawn(load_older(older, hot, Arc::clone(&self.lake), Arc::clone(&self.abandon)));
        }
    }

    /// Takes a partition over, however often a step must be repeated. Returns `None` when it is not wanted any more.
    async fn until_done(self: &Arc<Self>, partition: u32, token: u64) -> Option<Outcome> {
        let outcome = self.take(partition, token).await;
        self.report.store_mended(self.topic.number_of(partition));
        outcome.transpose()
    }

    async fn take(self: &Arc<Self>, partition: u32, token: u64) -> Result<Option<(Owned, Option<OlderMinutes>)>> {
        let of = (partition, token);
        // A claim is a record: while the brokers cannot be asked, none is made.
        let reaching = || self.blocking(move |reader| reader.reach(partition));
        let Some(()) = self.patiently(of, reaching).await? else { return Ok(None) };
        let claiming = || self.claim(partition, token);
        let Some((claimed, next)) = self.patiently(of, claiming).await?.flatten() else { return Ok(None) };
        let opening = || self.blocking(move |reader| reader.open(partition, next));
        let Some(opened) = self.patiently(of, opening).await? else { return Ok(None) };
        Ok(Some(self.complete(partition, claimed, opened, next)))
    }

    /// Repeats a step until it succeeds or fails for good. Returns `None` when the partition is not wanted any more.
    async fn patiently<T, F>(&self, (partition, token): (u32, u64), step: impl Fn() -> F) -> Result<Option<T>>
    where
        F: Future<Output = Result<T>>,
    {
        let mut pause = PAUSE;
        while self.is_wanted(partition, token) {
            match step().await {
                Err(error) if error.is_retryable() || error.kind() == ErrorKind::Fenced => {
                    let problem =
                        format!("partition {partition} cannot be taken over, trying again: {}", error.report());
                    tracing::warn!("{problem}");
                    self.report.store_failing(self.topic.number_of(partition), problem);
                }
                done => return done.map(Some),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE * 32);
        }
        Ok(None)
    }

    /// Claims and folds a partition. Also returns the next offset to read. `None` if it is not wanted any more.
    async fn claim(&self, partition: u32, token: u64) -> Result<Option<(Claimed, u64)>> {
        // Never closed.
        let _folding = self.folding.acquire().await;
        let number = self.topic.number_of(partition);
        let log = self.logs.log(number);
        let source = match log.numbers().await?.is_empty() {
            true => Some(Position::at(self.blocking(move |reader| reader.first_offset(partition)).await?)),
            false => None,
        };
        if !self.is_wanted(partition, token) {
            return Ok(None);
        }
        // If another process has claimed it meanwhile, it may belong there.
        let topic = self.topic.source_of(number);
        let beginning = Beginning { topic, source, frontiers: self.frontiers, gives_way: true };
        let ids = (self.randomness.next_u128(), self.randomness.next_u128());
        let mut recovered =
            recovery::take_over_as(&log, self.lake.as_ref(), ids, self.fingerprints, &beginning).await?;
        let hot_minutes = self.options.settings.store.hot_minutes;
        let (hot, older) = recovery::warm(&mut recovered, hot_minutes, self.clock.wall_ms());
        let next = recovered.state.progress.source.map_or(0, |source| source.to);
        Ok(Some((Claimed { log, recovered, hot, older }, next)))
    }

    /// A claimed partition with its source.
    fn complete(
        self: &Arc<Self>,
        partition: u32,
        claimed: Claimed,
        (reader, lost): (Box<dyn RecordReader>, u64),
        next: u64,
    ) -> (Owned, Option<OlderMinutes>) {
        let Claimed { log, recovered, hot, older } = claimed;
        let routing = Routing { partitioner: self.partitioner, partition, partitions: self.topic.partitions };
        let name = format!("{}/{partition}", self.topic.name);
        let decode = Arc::clone(&self.options.settings.source.tail.decode);
        let source = KafkaPartition::new(reader, &name, routing, decode, &recovered.state, next).with_gap(lost);
        let reader = Arc::clone(&self.reader);
        let confirm: Confirm = Arc::new(move || reader.confirm());
        (Owned { log, recovered, hot, source: Box::new(source), confirm: Some(confirm) }, older)
    }

    /// Calls the client of the brokers, which waits for them.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn TopicReader) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let reader = Arc::clone(&self.reader);
        let done = self.runtime.spawn_blocking(move || work(reader.as_ref())).await;
        done.map_err(|error| adtally_model::Error::internal("the client of Kafka panicked").because(error))?
    }
}
