//! Takes partitions over, beside the run loop.

use super::TopicReader;
use crate::clock::{Clock, Randomness};
use crate::commit::Confirm;
use crate::engine::Owned;
use crate::options::RunOptions;
use crate::recovery::{self, OlderMinutes};
use crate::report::Report;
use crate::service::load_older;
use adtally_model::{ErrorKind, Frontiers, Position, Result};
use adtally_source::{KafkaPartition, Partitioner, Routing, Source};
use adtally_store::epoch_log::{Beginning, EpochLogs, Fingerprints};
use adtally_store::hot_counts::HotCounts;
use adtally_store::lake::Lake;
use adtally_store::sources::Topic;
use crossbeam_channel::Sender;
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
    pub(super) outcome: Result<(Owned, Option<OlderMinutes>)>,
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
    /// Set when the process must stop at once.
    pub(super) abandon: Arc<AtomicBool>,
}

impl TakeOver {
    /// Begins to take a partition over. The result arrives in the channel with the returned token.
    pub(super) fn begin(self: &Arc<Self>, partition: u32) -> u64 {
        let token = self.tokens.fetch_add(1, Ordering::Relaxed);
        let this = Arc::clone(self);
        self.runtime.spawn(async move {
            let outcome = this.until_done(partition).await;
            // The worker may have ended.
            let _ = this.sender.send(Taken { partition, token, outcome });
        });
        token
    }

    /// Shows older hot minutes once they are read from the lake.
    pub(super) fn load_older(&self, older: Option<OlderMinutes>, hot: Arc<HotCounts>) {
        if let Some(older) = older {
            self.runtime.spawn(load_older(older, hot, Arc::clone(&self.lake), Arc::clone(&self.abandon)));
        }
    }

    /// Tries again after errors that pass by themselves.
    async fn until_done(self: &Arc<Self>, partition: u32) -> Result<(Owned, Option<OlderMinutes>)> {
        let number = self.topic.number_of(partition);
        let mut pause = PAUSE;
        loop {
            match self.take(partition).await {
                Err(error)
                    if (error.is_retryable() || error.kind() == ErrorKind::Fenced)
                        && !self.abandon.load(Ordering::Relaxed) =>
                {
                    let problem =
                        format!("partition {partition} cannot be taken over, trying again: {}", error.report());
                    tracing::warn!("{problem}");
                    self.report.store_failing(number, problem);
                }
                done => {
                    self.report.store_mended(number);
                    return done;
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE * 32);
        }
    }

    async fn take(self: &Arc<Self>, partition: u32) -> Result<(Owned, Option<OlderMinutes>)> {
        // Never closed.
        let _folding = self.folding.acquire().await;
        let number = self.topic.number_of(partition);
        let log = self.logs.log(number);
        let source = match log.numbers().await?.is_empty() {
            true => Some(Position::at(self.blocking(move |reader| reader.first_offset(partition)).await?)),
            false => None,
        };
        let beginning = Beginning { topic: self.topic.source_of(number), source, frontiers: self.frontiers };
        let ids = (self.randomness.next_u128(), self.randomness.next_u128());
        let mut recovered =
            recovery::take_over_as(&log, self.lake.as_ref(), ids, self.fingerprints, &beginning).await?;
        let hot_minutes = self.options.settings.store.hot_minutes;
        let (hot, older) = recovery::warm(&mut recovered, hot_minutes, self.clock.wall_ms());
        let next = recovered.state.progress.source.map_or(0, |source| source.to);
        let (reader, lost) = self.blocking(move |reader| reader.open(partition, next)).await?;
        let routing = Routing { partitioner: self.partitioner, partition, partitions: self.topic.partitions };
        let name = format!("{}/{partition}", self.topic.name);
        let decode = Arc::clone(&self.options.settings.source.tail.decode);
        let source = KafkaPartition::new(reader, &name, routing, decode, &recovered.state, next).with_gap(lost);
        let source: Box<dyn Source> = Box::new(source);
        let reader = Arc::clone(&self.reader);
        let confirm: Confirm = Arc::new(move || reader.confirm());
        Ok((Owned { log, recovered, hot, source, confirm: Some(confirm) }, older))
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
