//! Produces records and moves the offsets of a group in transactions: each becomes visible whole, or not at all.
//!
//! A transactional id belongs to one process at a time: whoever takes it over ends the transactions of earlier owners, and
//! these are fenced from then on. The brokers fence a producer as well whose transaction took too long, for example because it
//! was suspended. The caller finds out which of the two it was: by the text that the last owner left with its offsets.
//!
//! After any error, a new value must be made, which takes the id over again. Whether the last transaction was committed is
//! then seen in the offsets of the group.

use crate::cluster::{Cluster, Quiet, REQUEST_TIMEOUT, TopicFacts};
use crate::consumer::native;
use crate::native::offsets_of;
use crate::producer::{BUFFERED_KIB, Produced, base_record, refused};
use adtally_model::{Error, Result};
use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use std::sync::Arc;
use std::time::Duration;

/// After how long the brokers end a transaction whose process is silent: longer than a broker takes to restart.
const TRANSACTION_MS: &str = "60000";

/// How long a request may take, less than a transaction.
const SOCKET_MS: &str = "20000";

/// How long a call waits for a commit. It can be repeated.
const STEP: Duration = Duration::from_secs(1);

/// How long a call waits until the offsets are part of a transaction. After that, the transaction has failed.
const OFFSETS_TIMEOUT: Duration = Duration::from_secs(5);

/// How long giving up a transaction may take. If it takes longer, the next owner of the id or the brokers end it.
const ABORT_TIMEOUT: Duration = Duration::from_secs(2);

/// What a group has committed about a partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GroupOffset {
    /// The partition.
    pub partition: u32,
    /// The next offset to read.
    pub next: u64,
    /// A text beside it, of at most a few hundred bytes.
    pub note: String,
}

/// Whether there is a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// There is none.
    Outside,
    /// Records are produced.
    Open,
    /// The offsets are part of it, and the commit has begun.
    Committing,
}

/// A producer into one topic, with transactions that include offsets of a group.
pub struct Transactions {
    inner: ThreadedProducer<Context>,
    /// Knows the offsets of the group, and never joins it.
    group: BaseConsumer<Quiet>,
    topic: String,
    cluster: Cluster,
    phase: Phase,
    told: Arc<Mutex<Told>>,
}

/// What the client has told.
#[derive(Default)]
struct Told {
    /// Why it does not get on at the moment.
    failure: Option<String>,
    /// Why a record will never be accepted.
    refused: Option<Error>,
}

struct Context {
    told: Arc<Mutex<Told>>,
    quiet: Quiet,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.quiet.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.quiet.error(error, reason);
        self.told.lock().failure = Some(reason.to_owned());
    }

    fn stats_raw(&self, _statistics: &[u8]) {}
}

impl ProducerContext for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, _tag: usize) {
        let mut told = self.told.lock();
        match result {
            Ok(_) => told.failure = None,
            Err((error, _)) => {
                let error = refused(error);
                // Other records fail with their transaction.
                if !error.is_retryable() {
                    told.refused.get_or_insert(error);
                }
            }
        }
    }
}

impl Transactions {
    /// A producer into a topic, for a group and a transactional id. Asks the brokers for nothing.
    ///
    /// # Errors
    /// A user error for wrong options.
    pub fn open(cluster: &Cluster, topic: &str, group: &str, transactional_id: &str) -> Result<Transactions> {
        let told: Arc<Mutex<Told>> = Arc::default();
        let context = Context { told: Arc::clone(&told), quiet: Quiet };
        let inner: ThreadedProducer<Context> = cluster
            .config(&[
                ("enable.idempotence", "true"),
                ("acks", "all"),
                ("compression.type", "zstd"),
                ("transaction.timeout.ms", TRANSACTION_MS),
                ("socket.timeout.ms", SOCKET_MS),
                ("queue.buffering.max.kbytes", BUFFERED_KIB),
                ("linger.ms", "5"),
                // The topic sets the limit.
                ("message.max.bytes", "33554432"),
            ])
            .set("transactional.id", transactional_id)
            .create_with_context(context)
            .map_err(Cluster::unusable)?;
        let group: BaseConsumer<Quiet> = cluster
            .config(&[
                ("enable.auto.commit", "false"),
                ("enable.auto.offset.store", "false"),
                // Offsets are those after all transactions that have begun to end.
                ("isolation.level", "read_committed"),
            ])
            .set("group.id", group)
            .create_with_context(Quiet)
            .map_err(Cluster::unusable)?;
        Ok(Transactions {
            inner,
            group,
            topic: topic.to_owned(),
            cluster: cluster.clone(),
            phase: Phase::Outside,
            told,
        })
    }

    /// The facts of the topic.
    ///
    /// # Errors
    /// A user error when there is no such topic; transient when the brokers do not answer.
    pub fn facts(&self) -> Result<TopicFacts> {
        self.cluster.describe(self.inner.client(), &self.topic)
    }

    /// The facts of the topic; `None` if the broker that was asked does not know it.
    ///
    /// # Errors
    /// A user error when it cannot be used; transient when the brokers do not answer.
    pub fn look(&self) -> Result<Option<TopicFacts>> {
        self.cluster.look(self.inner.client(), &self.topic)
    }

    /// Whether the topic with this number of partitions never had a record.
    ///
    /// # Errors
    /// Transient when the brokers do not answer.
    pub fn is_empty(&self, partitions: u32) -> Result<bool> {
        for partition in 0..partitions {
            let asked = self.group.fetch_watermarks(&self.topic, native(partition), REQUEST_TIMEOUT);
            let (_, end) = asked.map_err(|error| {
                let topic = &self.topic;
                Error::transient(format!("the brokers do not answer about partition {partition} of {topic}"))
                    .because(error)
            })?;
            if end > 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Takes the transactional id over. Transactions of earlier owners have ended then.
    ///
    /// # Errors
    /// Transient when it takes longer: call again. A user error when it is not allowed.
    pub fn take_over(&self) -> Result<()> {
        let taken = self.inner.init_transactions(STEP);
        taken.map_err(|error| self.failed("the transactional id cannot be taken over", &error))
    }

    /// What the group has committed about the first `partitions` partitions of a topic.
    ///
    /// # Errors
    /// Transient when the brokers do not answer; a user error when it is not allowed.
    pub fn committed(&self, source: &str, partitions: u32) -> Result<Vec<GroupOffset>> {
        let mut asked = TopicPartitionList::with_capacity(partitions as usize);
        for partition in 0..partitions {
            asked.add_partition(source, native(partition));
        }
        let what = format!("the offsets of the group for {source} cannot be read");
        let answered =
            self.group.committed_offsets(asked, REQUEST_TIMEOUT).map_err(|error| self.failed(&what, &error))?;
        let mut committed = Vec::new();
        for offset in offsets_of(&answered) {
            if let Some(code) = offset.error {
                return Err(self.failed(&what, &KafkaError::OffsetFetch(code)));
            }
            // Negative numbers mean that there is none.
            if let (Ok(partition), Ok(next)) = (u32::try_from(offset.partition), u64::try_from(offset.offset)) {
                let note = String::from_utf8_lossy(&offset.note).into_owned();
                committed.push(GroupOffset { partition, next, note });
            }
        }
        Ok(committed)
    }

    /// Hands a record to the client, in a transaction. Returns whether it was taken; if its buffer is full, try again later.
    ///
    /// # Errors
    /// As [`Transactions::commit`].
    pub fn send(&mut self, record: Produced<'_>) -> Result<bool> {
        self.begin()?;
        match self.inner.send(base_record(&self.topic, record)) {
            Ok(()) => Ok(true),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => Ok(false),
            Err((error @ KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge), _)) => {
                Err(refused(&error))
            }
            Err((error, _)) => Err(self.failed("a record cannot be produced", &error)),
        }
    }

    /// Commits the records that were sent, and offsets of a topic in the group. Returns whether it is done; otherwise call it
    /// again with the same offsets.
    ///
    /// # Errors
    /// Fenced when another process has taken the id over, or the transaction took too long; a user error for a record that will
    /// never be accepted, or when something is not allowed; otherwise transient: it may have been committed or not.
    pub fn commit(&mut self, source: &str, offsets: &[GroupOffset]) -> Result<bool> {
        self.begin()?;
        if self.phase == Phase::Open {
            let wrong = |error| Error::internal("an offset cannot be committed").because(error);
            let mut list = TopicPartitionList::with_capacity(offsets.len());
            for offset in offsets {
                let mut element = list.add_partition(source, native(offset.partition));
                element.set_offset(Offset::Offset(offset.next.cast_signed())).map_err(wrong)?;
                element.set_metadata(&offset.note);
            }
            let group = self.group.group_metadata().ok_or_else(|| Error::internal("the consumer has no group"))?;
            match self.inner.send_offsets_to_transaction(&list, &group, OFFSETS_TIMEOUT) {
                Ok(()) => self.phase = Phase::Committing,
                Err(error) => return self.goes_on("the offsets cannot be committed", &error),
            }
        }
        match self.inner.commit_transaction(STEP) {
            Ok(()) => {
                self.phase = Phase::Outside;
                self.told.lock().failure = None;
                // Errors of a client that reads nothing. The queue would grow.
                while self.group.poll(Duration::ZERO).is_some() {}
                Ok(true)
            }
            Err(error) => self.goes_on("a transaction cannot be committed", &error),
        }
    }

    /// Gives up the transaction, if there is one.
    pub fn abort(&mut self) {
        if self.phase != Phase::Outside
            && let Err(error) = self.inner.abort_transaction(ABORT_TIMEOUT)
        {
            tracing::debug!("a transaction is left to the brokers: {error}");
        }
    }

    /// Why the client does not get on at the moment, if it does not.
    pub fn failure(&self) -> Option<String> {
        self.told.lock().failure.clone()
    }

    fn begin(&mut self) -> Result<()> {
        if self.phase == Phase::Outside {
            let begun = self.inner.begin_transaction();
            begun.map_err(|error| self.failed("a transaction cannot be begun", &error))?;
            self.phase = Phase::Open;
        }
        Ok(())
    }

    /// What an error of a call that can be repeated means.
    fn goes_on(&self, what: &str, error: &KafkaError) -> Result<bool> {
        let can_be_repeated = match error {
            KafkaError::Flush(code) => *code == RDKafkaErrorCode::OperationTimedOut,
            KafkaError::Transaction(inner) => inner.is_retriable(),
            _ => false,
        };
        if !can_be_repeated || self.inner.client().fatal_error().is_some() {
            return Err(self.failed(what, error));
        }
        self.told.lock().failure.get_or_insert_with(|| error.to_string());
        Ok(false)
    }

    /// What an error means.
    fn failed(&self, what: &str, error: &KafkaError) -> Error {
        if let Some((code, why)) = self.inner.client().fatal_error() {
            return fatal(code, &format!("{what}: {why}"));
        }
        if let Some(refused) = self.told.lock().refused.take() {
            return refused;
        }
        let what = format!("{what}: {error}");
        if error.rdkafka_error_code().is_some_and(is_denied) { Error::user(what) } else { Error::transient(what) }
    }
}

/// The error of a client that can do nothing more.
fn fatal(code: RDKafkaErrorCode, why: &str) -> Error {
    use RDKafkaErrorCode::{
        Fenced, InvalidProducerEpoch, InvalidTransactionTimeout, ProducerFenced, UnsupportedFeature, UnsupportedVersion,
    };
    match code {
        Fenced | InvalidProducerEpoch | ProducerFenced => Error::fenced(format!(
            "another process has taken the transactional id over, or a transaction took too long: {why}"
        )),
        InvalidTransactionTimeout | UnsupportedFeature | UnsupportedVersion => Error::user(why),
        code if is_denied(code) => Error::user(why),
        _ => Error::transient(why),
    }
}

/// Whether the brokers do not allow something.
fn is_denied(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::TransactionalIdAuthorizationFailed
            | RDKafkaErrorCode::InvalidGroupId
            | RDKafkaErrorCode::OffsetMetadataTooLarge
    )
}
