//! Reads partitions at explicit offsets, apart from any group.
//!
//! One consumer reads all partitions of a process. It joins no group: a member's assignment, together with seeks and pauses,
//! loses explicit offsets (librdkafka issues 2190, 5345, 5591). Each partition has a queue of its own, which librdkafka fills
//! up to a bound, so a partition that is not read needs bounded memory and holds up no other.
//!
//! A watcher asks the brokers about each partition's first and last offset, and about the topic. Only so is it known that a
//! partition that delivers nothing is at its end, and not out of reach, and that the topic is still the same.

use crate::cluster::{Cluster, Quiet, REQUEST_TIMEOUT, TopicFacts, grown, made_again};
use crate::native::{Event, PartitionQueue};
use adtally_model::{Error, Result};
use adtally_source::{Polled, RawRecord, RecordReader};
use parking_lot::Mutex;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// A clock that returns monotonic milliseconds.
pub type MonotonicMs = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Time between two questions about the offsets of the partitions.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Every this many questions about offsets, the topic is examined.
const TOPIC_EVERY: u32 = 5;

/// How often the watcher looks whether it must end.
const POLL: Duration = Duration::from_millis(50);

/// For how long the brokers must say that there is no such topic until it counts as deleted, in milliseconds: metadata reaches
/// all brokers within seconds.
pub const MISSING_MS: i64 = 15_000;

/// For how long an answer about a partition counts, in milliseconds. After that, the partition is out of reach.
const ANSWER_MS: i64 = 10_000;

/// Bytes of records in the queues of all partitions. One fetch of a partition may exceed it.
const QUEUED_KIB: u32 = 96 << 10;

/// Where to begin a partition that was never read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StartAt {
    /// With its first record.
    Earliest,
    /// With this offset.
    Offset(u64),
    /// With the first record of this time or later, by its timestamp in Kafka, in milliseconds since the Unix epoch.
    Time(i64),
}

/// A consumer of one topic.
pub struct Consumer {
    shared: Arc<Shared>,
    watcher: Option<JoinHandle<()>>,
}

struct Shared {
    cluster: Cluster,
    consumer: Arc<BaseConsumer<Quiet>>,
    topic: String,
    facts: TopicFacts,
    clock: MonotonicMs,
    partitions: Mutex<BTreeMap<u32, Watched>>,
    /// Why the topic cannot be read any more.
    broken: Mutex<Option<String>>,
    /// Since when the brokers say that there is no such topic, in monotonic milliseconds.
    missing_since_ms: Mutex<Option<i64>>,
    /// Whether the reason is that the topic has more partitions.
    grown: AtomicBool,
    /// Why the last question was not answered.
    failure: Mutex<Option<String>>,
    /// Whether the topic must be examined before anything else is delivered.
    suspect: AtomicBool,
    stop: AtomicBool,
}

/// What the brokers last said about a partition.
#[derive(Clone, Copy, Debug, Default)]
struct Watched {
    /// Its first offset.
    first: u64,
    /// The offset after its last record: its high watermark or, while a transaction is open, the end of what is stable.
    end: u64,
    /// When they said so, in monotonic milliseconds; `None` if they have not yet.
    at_ms: Option<i64>,
}

impl Consumer {
    /// A consumer of a topic for a process that reads at most `partitions` partitions. `group` only names it to the brokers.
    ///
    /// # Errors
    /// A user error when there is no such topic or the options are wrong; transient when the brokers do not answer.
    pub fn open(cluster: &Cluster, topic: &str, group: &str, clock: MonotonicMs) -> Result<Consumer> {
        let open = |queued_kib: &str| {
            cluster
                .config(&[
                    ("enable.auto.commit", "false"),
                    ("enable.auto.offset.store", "false"),
                    ("auto.offset.reset", "error"),
                    ("enable.partition.eof", "true"),
                    ("check.crcs", "true"),
                    ("isolation.level", "read_committed"),
                    ("queued.max.messages.kbytes", queued_kib),
                    ("queued.min.messages", "100000"),
                    ("fetch.message.max.bytes", "2097152"),
                    // One fetch is outstanding at a broker: a partition that was just added waits for it.
                    ("fetch.wait.max.ms", "100"),
                    ("fetch.queue.backoff.ms", "10"),
                ])
                .set("group.id", group)
                .create_with_context::<_, BaseConsumer<Quiet>>(Quiet)
                .map_err(Cluster::unusable)
        };
        let facts = cluster.describe(open("1024")?.client(), topic)?;
        let each_kib = (QUEUED_KIB / facts.partitions.max(1)).clamp(1 << 10, 16 << 10);
        let shared = Arc::new(Shared {
            cluster: cluster.clone(),
            consumer: Arc::new(open(&each_kib.to_string())?),
            topic: topic.to_owned(),
            facts,
            clock,
            partitions: Mutex::default(),
            broken: Mutex::default(),
            missing_since_ms: Mutex::default(),
            grown: AtomicBool::new(false),
            failure: Mutex::default(),
            suspect: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let watched = Arc::clone(&shared);
        let watcher = std::thread::Builder::new()
            .name("kafka-watch".into())
            .spawn(move || watched.watch())
            .map_err(|error| Error::external("the thread `kafka-watch` cannot be started").because(error))?;
        Ok(Consumer { shared, watcher: Some(watcher) })
    }

    /// The facts of the topic.
    pub fn facts(&self) -> TopicFacts {
        self.shared.facts
    }

    /// Confirms that the topic is still the one that was opened. A topic that is made again has another id, so all records that
    /// were delivered before are of that topic.
    ///
    /// # Errors
    /// Corrupt when the topic was deleted, made again, or given more partitions; transient when the brokers do not answer.
    pub fn confirm(&self) -> Result<()> {
        self.shared.examine()
    }

    /// Asks the brokers about a partition.
    ///
    /// # Errors
    /// Transient when they do not answer.
    pub fn reach(&self, partition: u32) -> Result<()> {
        self.shared.offsets(partition).map(drop)
    }

    /// Whether the topic cannot be read any more only because it has more partitions than when it was opened.
    pub fn has_grown(&self) -> bool {
        self.shared.grown.load(Ordering::Relaxed)
    }

    /// The end of a partition: the offset after its last record or, while a transaction is open, the end of what is stable.
    ///
    /// # Errors
    /// Transient when the brokers do not answer.
    pub fn end_of(&self, partition: u32) -> Result<u64> {
        Ok(self.shared.offsets(partition)?.1)
    }

    /// Where a partition begins that was never read.
    ///
    /// # Errors
    /// A user error when the partition does not have the offset; transient when the brokers do not answer.
    pub fn first_offset(&self, partition: u32, start: StartAt) -> Result<u64> {
        let shared = &self.shared;
        let (first, end) = shared.offsets(partition)?;
        match start {
            StartAt::Earliest => Ok(first),
            StartAt::Offset(offset) if (first..=end).contains(&offset) => Ok(offset),
            StartAt::Offset(offset) => Err(Error::user(format!(
                "partition {partition} of {} has the offsets from {first} to {end}, and not {offset}",
                shared.topic
            ))),
            StartAt::Time(ms) => {
                let mut asked = TopicPartitionList::new();
                let wrong = |error| Error::internal("a time cannot be asked for").because(error);
                asked.add_partition_offset(&shared.topic, native(partition), Offset::Offset(ms)).map_err(wrong)?;
                let failed = |error| shared.no_answer(partition).because(error);
                let found = shared.consumer.offsets_for_times(asked, REQUEST_TIMEOUT).map_err(failed)?;
                let found = found.elements().first().map(|element| element.offset());
                // There is no record of that time or later: begin with the next one.
                Ok(match found {
                    Some(Offset::Offset(offset)) => offset.max(0).cast_unsigned(),
                    _ => end,
                })
            }
        }
    }

    /// Reads a partition from an offset on. `accept_loss` begins with the first offset that is left if some are lost; the
    /// second value is the number of the lost offsets.
    ///
    /// # Errors
    /// Corrupt when the offset is lost, or is beyond the end of the partition; transient when the brokers do not answer.
    pub fn read(&self, partition: u32, next: u64, accept_loss: bool) -> Result<(Reader, u64)> {
        let shared = &self.shared;
        let (first, end) = shared.offsets(partition)?;
        let from = match shared.check(partition, next, (first, end)) {
            Err(_) if accept_loss && next < first => first,
            checked => checked.map(|()| next)?,
        };
        let failed =
            |what: &str| Error::external(format!("partition {partition} of {} cannot be {what}", shared.topic));
        let queue = PartitionQueue::split(&shared.consumer, &shared.topic, native(partition))
            .ok_or_else(|| failed("opened"))?;
        let at_ms = Some((shared.clock)());
        shared.partitions.lock().insert(partition, Watched { first, end, at_ms });
        let mut added = TopicPartitionList::new();
        let at = Offset::Offset(from.cast_signed());
        added
            .add_partition_offset(&shared.topic, native(partition), at)
            .map_err(|error| failed("named").because(error))?;
        shared.consumer.incremental_assign(&added).map_err(|error| failed("assigned").because(error))?;
        let reader = Reader { shared: Arc::clone(shared), queue, partition, next: from, end: None, failure: None };
        Ok((reader, from - next.min(from)))
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(watcher) = self.watcher.take() {
            let _ = watcher.join();
        }
    }
}

/// The number of a partition for librdkafka.
pub(crate) fn native(partition: u32) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}

impl Shared {
    fn no_answer(&self, partition: u32) -> Error {
        Error::transient(format!(
            "the brokers at {} do not answer about partition {partition} of {}",
            self.cluster.brokers(),
            self.topic
        ))
    }

    /// The first offset of a partition, and the one after its last.
    fn offsets(&self, partition: u32) -> Result<(u64, u64)> {
        match self.consumer.fetch_watermarks(&self.topic, native(partition), REQUEST_TIMEOUT) {
            Ok((first, end)) => Ok((first.max(0).cast_unsigned(), end.max(0).cast_unsigned())),
            Err(error) => Err(self.no_answer(partition).because(error)),
        }
    }

    /// Checks that the next offset to read is there.
    fn check(&self, partition: u32, next: u64, (first, end): (u64, u64)) -> Result<()> {
        let topic = &self.topic;
        if next < first {
            return Err(Error::corrupt(format!(
                "partition {partition} of {topic} begins at offset {first}, and the next to read is {next}: {} offsets are \
                 lost. Their clicks can only come from the logs: restart with --accept-loss, which goes on without them, and bring \
                 the logs in with `adtally backfill`. Raise the topic's retention",
                first - next
            )));
        }
        if next > end {
            return Err(Error::corrupt(format!(
                "partition {partition} of {topic} ends at offset {end}, and was read up to {next} before: the topic was cut or \
                 restored, and its offsets now have other records. Produce into a new topic, and count it into another URL"
            )));
        }
        Ok(())
    }

    /// The error if the topic is not the one that was opened.
    fn check_topic(&self) -> Result<()> {
        match &*self.broken.lock() {
            Some(broken) => Err(Error::corrupt(broken.clone())),
            None => Ok(()),
        }
    }

    /// Asks for the facts of the topic, and compares them.
    fn examine(&self) -> Result<()> {
        let unclear = |error: Error| {
            *self.failure.lock() = Some(error.report());
            Err(error)
        };
        let found = match self.cluster.look(self.consumer.client(), &self.topic) {
            Ok(found) => found,
            // Permissions come and go as brokers do. Nothing is lost.
            Err(error) => return unclear(Error::transient("the topic cannot be examined").because(error)),
        };
        let broken = match found {
            Some(facts) if facts == self.facts => None,
            Some(facts) if facts.id == self.facts.id => {
                self.grown.store(facts.partitions > self.facts.partitions, Ordering::Relaxed);
                Some(grown(&self.topic, self.facts.partitions, facts.partitions))
            }
            Some(_) => Some(made_again(&self.topic)),
            None => {
                let (topic, now_ms) = (&self.topic, (self.clock)());
                let since_ms = *self.missing_since_ms.lock().get_or_insert(now_ms);
                if now_ms - since_ms < MISSING_MS {
                    // A broker that has just started may not know it yet.
                    self.suspect.store(true, Ordering::Relaxed);
                    return unclear(Error::transient(format!(
                        "the brokers do not know the topic {topic} at the moment"
                    )));
                }
                Some(format!("the topic {topic} was deleted: what was not read of it is lost"))
            }
        };
        *self.missing_since_ms.lock() = None;
        self.suspect.store(false, Ordering::Relaxed);
        if let Some(broken) = broken {
            self.broken.lock().get_or_insert(broken);
        }
        self.check_topic()
    }

    fn watch(&self) {
        let mut rounds = 0_u32;
        while !self.stop.load(Ordering::Relaxed) {
            if self.suspect.load(Ordering::Relaxed) || rounds.is_multiple_of(TOPIC_EVERY) {
                // What is wrong is noted, and told by the readers.
                let _ = self.examine();
            }
            rounds = rounds.wrapping_add(1);
            let partitions: Vec<u32> = self.partitions.lock().keys().copied().collect();
            for partition in partitions {
                if self.stop.load(Ordering::Relaxed) {
                    return;
                }
                match self.offsets(partition) {
                    Ok((first, end)) => {
                        let at_ms = Some((self.clock)());
                        if let Some(watched) = self.partitions.lock().get_mut(&partition) {
                            *watched = Watched { first, end, at_ms };
                        }
                        *self.failure.lock() = None;
                    }
                    Err(error) => {
                        *self.failure.lock() = Some(error.report());
                        break;
                    }
                }
            }
            // Errors and logs of the client that belong to no partition.
            while let Some(told) = self.consumer.poll(Duration::ZERO) {
                if let Err(error) = told {
                    tracing::debug!("the client of Kafka reports: {error}");
                }
            }
            let mut waited = Duration::ZERO;
            let is_missing = self.missing_since_ms.lock().is_some();
            let hurries = || !is_missing && self.suspect.load(Ordering::Relaxed);
            while waited < WATCH_EVERY && !self.stop.load(Ordering::Relaxed) && !hurries() {
                std::thread::sleep(POLL);
                waited += POLL;
            }
        }
    }
}

/// Reads one partition.
pub struct Reader {
    shared: Arc<Shared>,
    queue: PartitionQueue<Quiet>,
    partition: u32,
    /// The offset after the last record.
    next: u64,
    /// The end of the partition, when it was last reached.
    end: Option<u64>,
    /// The last error of the partition, until a record comes.
    failure: Option<String>,
}

impl Reader {
    fn watched(&self) -> Watched {
        self.shared.partitions.lock().get(&self.partition).copied().unwrap_or_default()
    }

    fn unreachable(&self) -> Error {
        let why = self.failure.clone().or_else(|| self.shared.failure.lock().clone()).unwrap_or_default();
        Error::transient(format!(
            "partition {} of {} cannot be read at the moment: {why}",
            self.partition, self.shared.topic
        ))
    }

    /// What an error of the partition means.
    fn judge(&mut self, code: RDKafkaErrorCode, reason: String) -> Result<Polled> {
        use RDKafkaErrorCode::{
            AutoOffsetReset, OffsetOutOfRange, UnknownPartition, UnknownTopic, UnknownTopicId, UnknownTopicOrPartition,
        };
        match code {
            AutoOffsetReset | OffsetOutOfRange => {
                let (first, end) = match self.shared.offsets(self.partition) {
                    Ok(offsets) => offsets,
                    Err(error) => return Ok(Polled::Unreachable(error)),
                };
                self.shared.check(self.partition, self.next, (first, end))?;
                Err(Error::corrupt(format!(
                    "partition {} of {} cannot be read from offset {} on, although it has the offsets from {first} to {end}: \
                     {reason}",
                    self.partition, self.shared.topic, self.next
                )))
            }
            UnknownPartition | UnknownTopic | UnknownTopicId | UnknownTopicOrPartition => {
                self.shared.suspect.store(true, Ordering::Relaxed);
                self.failure = Some(reason);
                Ok(Polled::Unreachable(self.unreachable()))
            }
            _ => {
                self.failure = Some(format!("{code}: {reason}"));
                Ok(Polled::Nothing)
            }
        }
    }
}

impl RecordReader for Reader {
    fn poll(&mut self, take: &mut dyn FnMut(RawRecord<'_>)) -> Result<Polled> {
        self.shared.check_topic()?;
        if self.shared.suspect.load(Ordering::Relaxed) {
            return Ok(Polled::Unreachable(self.unreachable()));
        }
        loop {
            let mut next = self.next;
            let event = self.queue.poll(&mut |record| {
                next = record.offset + 1;
                take(record);
            });
            match event {
                Event::Record => {
                    (self.next, self.failure) = (next, None);
                    return Ok(Polled::Record);
                }
                Event::End(offset) => {
                    self.end = Some(offset.max(0).cast_unsigned());
                    self.failure = None;
                }
                Event::Failed(code, reason) => return self.judge(code, reason),
                Event::Nothing => break,
            }
        }
        let watched = self.watched();
        let is_current = watched.at_ms.is_some_and(|at_ms| (self.shared.clock)() - at_ms <= ANSWER_MS);
        if !is_current {
            return Ok(Polled::Unreachable(self.unreachable()));
        }
        // The offsets up to an end that was reached have no more records, even if they are gone by now.
        if self.passed() < watched.first {
            self.shared.check(self.partition, self.passed(), (watched.first, watched.end))?;
        }
        // While records come often, the client does not say that the end is reached.
        Ok(if self.passed() >= watched.end { Polled::AtEnd } else { Polled::Nothing })
    }

    fn lag(&self) -> Option<u64> {
        let watched = self.watched();
        watched.at_ms.map(|_| watched.end.saturating_sub(self.passed()))
    }

    fn passed(&self) -> u64 {
        self.next.max(self.end.unwrap_or_default())
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.partitions.lock().remove(&self.partition);
        let mut removed = TopicPartitionList::new();
        removed.add_partition(&self.shared.topic, native(self.partition));
        if let Err(error) = self.shared.consumer.incremental_unassign(&removed) {
            tracing::debug!(partition = self.partition, "a partition could not be given back to the client: {error}");
        }
    }
}
