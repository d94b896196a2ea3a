//! Produces records in order, and says when they are safe.
//!
//! The producer is idempotent, waits for all in-sync replicas, and never gives up by itself. An error that does not pass by
//! itself is returned to the caller: later records of the partition may then already be in Kafka, so the caller sends again
//! from the first record that was not acknowledged.

use crate::cluster::{Cluster, Quiet, TopicFacts};
use adtally_model::{Error, Result};
use parking_lot::Mutex;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Most bytes of records that wait in the client. What does not fit waits at the caller.
pub(crate) const BUFFERED_KIB: &str = "65536";

/// A record to produce.
#[derive(Clone, Copy, Debug)]
pub struct Produced<'a> {
    /// The partition.
    pub partition: u32,
    /// The key, if it has one.
    pub key: Option<&'a [u8]>,
    /// The value.
    pub value: &'a [u8],
    /// The headers.
    pub headers: &'a [(&'a str, &'a [u8])],
    /// A number by which the caller recognises the acknowledgement.
    pub tag: u64,
}

/// What became of a record.
#[derive(Debug)]
pub struct Acknowledged {
    /// The number that the caller gave it.
    pub tag: u64,
    /// Whether it is safe in Kafka.
    pub outcome: Result<()>,
}

/// A producer into one topic.
pub struct Producer {
    inner: ThreadedProducer<Context>,
    topic: String,
    cluster: Cluster,
    acknowledged: Arc<Mutex<VecDeque<Acknowledged>>>,
    failure: Arc<Mutex<Option<String>>>,
}

struct Context {
    acknowledged: Arc<Mutex<VecDeque<Acknowledged>>>,
    failure: Arc<Mutex<Option<String>>>,
    quiet: Quiet,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.quiet.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.quiet.error(error, reason);
        *self.failure.lock() = Some(reason.to_owned());
    }

    fn stats_raw(&self, _statistics: &[u8]) {}
}

impl ProducerContext for Context {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, tag: usize) {
        let outcome = match result {
            Ok(_) => {
                *self.failure.lock() = None;
                Ok(())
            }
            Err((error, _)) => Err(refused(error)),
        };
        self.acknowledged.lock().push_back(Acknowledged { tag: tag as u64, outcome });
    }
}

/// The error of a record that was not accepted.
pub(crate) fn refused(error: &KafkaError) -> Error {
    let code = error.rdkafka_error_code();
    let what = format!("a record was not accepted by Kafka: {error}");
    match code {
        Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize) => Error::user(format!(
            "{what}. It is larger than the topic's max.message.bytes: raise that, or lower input.max_line and agent.record_size"
        )),
        Some(
            RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::InvalidTopic,
        ) => Error::user(what),
        _ => Error::transient(what),
    }
}

/// A record as the client takes it.
pub(crate) fn base_record<'a>(topic: &'a str, record: Produced<'a>) -> BaseRecord<'a, [u8], [u8], usize> {
    let mut base = BaseRecord::<[u8], [u8], usize>::with_opaque_to(topic, record.tag as usize)
        .partition(i32::try_from(record.partition).unwrap_or(i32::MAX))
        .payload(record.value);
    if !record.headers.is_empty() {
        let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
        for &(key, value) in record.headers {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        base = base.headers(headers);
    }
    if let Some(key) = record.key {
        base = base.key(key);
    }
    base
}

impl Producer {
    /// A producer into a topic.
    ///
    /// # Errors
    /// A user error when there is no such topic or the options are wrong.
    pub fn open(cluster: &Cluster, topic: &str) -> Result<Producer> {
        let (acknowledged, failure): (Arc<Mutex<VecDeque<_>>>, Arc<Mutex<_>>) = Default::default();
        let context = Context { acknowledged: Arc::clone(&acknowledged), failure: Arc::clone(&failure), quiet: Quiet };
        let inner: ThreadedProducer<Context> = cluster
            .config(&[
                ("enable.idempotence", "true"),
                ("acks", "all"),
                ("compression.type", "zstd"),
                // No time-out: a record waits until the brokers are back.
                ("message.timeout.ms", "0"),
                ("queue.buffering.max.kbytes", BUFFERED_KIB),
                ("linger.ms", "5"),
                // The topic sets the limit.
                ("message.max.bytes", "33554432"),
            ])
            .create_with_context(context)
            .map_err(Cluster::unusable)?;
        Ok(Producer { inner, topic: topic.to_owned(), cluster: cluster.clone(), acknowledged, failure })
    }

    /// The facts of the topic.
    ///
    /// # Errors
    /// A user error when there is no such topic; transient when the brokers do not answer.
    pub fn facts(&self) -> Result<TopicFacts> {
        self.cluster.describe(self.inner.client(), &self.topic)
    }

    /// Hands a record to the client. Returns whether it was taken; if its buffer is full, try again later.
    ///
    /// # Errors
    /// A user error for a record that is too large; otherwise external.
    pub fn send(&self, record: Produced<'_>) -> Result<bool> {
        match self.inner.send(base_record(&self.topic, record)) {
            Ok(()) => Ok(true),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => Ok(false),
            Err((error, _)) => Err(refused(&error)),
        }
    }

    /// The next acknowledgement, if there is one.
    pub fn acknowledged(&self) -> Option<Acknowledged> {
        self.acknowledged.lock().pop_front()
    }

    /// Why records cannot be delivered at the moment, if they cannot.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().clone()
    }

    /// Whether the client can never deliver anything again, and why.
    pub fn fatal(&self) -> Option<String> {
        self.inner.client().fatal_error().map(|(code, why)| format!("{code}: {why}"))
    }

    /// Waits until all records are acknowledged, at most so long.
    pub fn flush(&self, timeout: Duration) {
        let _ = self.inner.flush(timeout);
    }
}
