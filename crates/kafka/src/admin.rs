//! Topics that a process makes for itself, and how far their partitions go.
//!
//! Only `adtally demo` makes a topic. The topics of a deployment belong to their owners.

use crate::cluster::{Cluster, Quiet, REQUEST_TIMEOUT, TopicFacts};
use adtally_model::{Error, Result};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication, TopicResult};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use std::time::Duration;

/// How long a request about the end of a partition may take.
const ENDS_TIMEOUT: Duration = Duration::from_secs(1);

/// As many replicas as the brokers give by default.
const DEFAULT_REPLICAS: i32 = -1;

impl Cluster {
    /// Creates a topic, with as many replicas as the brokers give by default. A topic of this name that exists is left as it
    /// is, so that the call can be repeated after it was not answered.
    ///
    /// # Errors
    /// A user error when the brokers refuse; transient when they do not answer.
    pub async fn create_topic(&self, topic: &str, partitions: u32) -> Result<()> {
        let partitions = i32::try_from(partitions).unwrap_or(i32::MAX);
        let wanted = NewTopic::new(topic, partitions, TopicReplication::Fixed(DEFAULT_REPLICAS));
        let admin = self.admin()?;
        let done = admin.create_topics([&wanted], &options()).await;
        self.judge(&format!("create the topic {topic}"), done, RDKafkaErrorCode::TopicAlreadyExists)
    }

    /// Deletes a topic. A topic that does not exist is no error.
    ///
    /// # Errors
    /// As [`Cluster::create_topic`].
    pub async fn delete_topic(&self, topic: &str) -> Result<()> {
        let admin = self.admin()?;
        let done = admin.delete_topics(&[topic], &options()).await;
        self.judge(&format!("delete the topic {topic}"), done, RDKafkaErrorCode::UnknownTopicOrPartition)
    }

    fn admin(&self) -> Result<AdminClient<Quiet>> {
        self.config(&[]).create_with_context(Quiet).map_err(Cluster::unusable)
    }

    /// What an answer means. `done_before` says that nothing was left to do.
    fn judge(&self, what: &str, answer: KafkaResult<Vec<TopicResult>>, done_before: RDKafkaErrorCode) -> Result<()> {
        use RDKafkaErrorCode::{
            AllBrokersDown, BrokerTransportFailure, NotController, OperationTimedOut, RequestTimedOut, Resolve,
        };
        let silent = || Error::transient(format!("the brokers at {} do not answer: cannot {what}", self.brokers()));
        let code = match answer {
            Ok(results) => match results.into_iter().find_map(TopicResult::err) {
                Some((_, code)) => code,
                None => return Ok(()),
            },
            Err(KafkaError::AdminOp(code)) => code,
            Err(error) => return Err(silent().because(error)),
        };
        match code {
            _ if code == done_before => Ok(()),
            AllBrokersDown | BrokerTransportFailure | NotController | OperationTimedOut | RequestTimedOut | Resolve => {
                Err(silent().because(KafkaError::AdminOp(code)))
            }
            _ => Err(Error::user(format!("the brokers at {} refuse to {what}: {code}", self.brokers()))),
        }
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT)).operation_timeout(Some(REQUEST_TIMEOUT))
}

/// Tells how far the partitions of a topic go.
pub struct TopicEnds {
    cluster: Cluster,
    consumer: BaseConsumer<Quiet>,
    topic: String,
}

impl TopicEnds {
    /// A client for a topic; connects to nothing yet.
    ///
    /// # Errors
    /// A user error for wrong options.
    pub fn open(cluster: &Cluster, topic: &str) -> Result<TopicEnds> {
        // It joins no group and reads no records.
        let consumer = cluster.config(&[]).create_with_context(Quiet).map_err(Cluster::unusable)?;
        Ok(TopicEnds { cluster: cluster.clone(), consumer, topic: topic.to_owned() })
    }

    /// The facts of the topic.
    ///
    /// # Errors
    /// A user error when there is no such topic; transient when the brokers do not answer.
    pub fn facts(&self) -> Result<TopicFacts> {
        self.cluster.describe(self.consumer.client(), &self.topic)
    }

    /// The offset after the last record of each of the first partitions.
    ///
    /// # Errors
    /// Transient when the brokers do not answer.
    pub fn ends(&self, partitions: u32) -> Result<Vec<u64>> {
        // Errors of the client that belong to no request.
        while self.consumer.poll(Duration::ZERO).is_some() {}
        let end = |partition: u32| {
            let native = i32::try_from(partition).unwrap_or(i32::MAX);
            let found = self.consumer.fetch_watermarks(&self.topic, native, ENDS_TIMEOUT);
            let (_, end) = found.map_err(|error| {
                let (topic, brokers) = (&self.topic, self.cluster.brokers());
                Error::transient(format!(
                    "the brokers at {brokers} do not answer about partition {partition} of {topic}"
                ))
                .because(error)
            })?;
            Ok(end.max(0).cast_unsigned())
        };
        (0..partitions).map(end).collect()
    }
}
