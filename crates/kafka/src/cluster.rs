//! A cluster of brokers: how its clients are configured, and its topics.

use crate::native::describe_topic;
use adtally_model::{Error, Result};
use adtally_source::KafkaSettings;
use rdkafka::ClientConfig;
use rdkafka::client::{Client, ClientContext};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use std::time::Duration;

/// How long a request for metadata or offsets may take.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Settings of every client. Users can override them.
const DEFAULTS: [(&str, &str); 6] = [
    ("client.id", "adtally"),
    // Topics are made by their owners, with as many partitions as they need.
    ("allow.auto.create.topics", "false"),
    ("socket.keepalive.enable", "true"),
    // A broker that restarts is found again within a second or two.
    ("reconnect.backoff.ms", "50"),
    ("reconnect.backoff.max.ms", "1000"),
    ("topic.metadata.refresh.interval.ms", "30000"),
];

/// Settings that Adtally depends on.
const FIXED: [&str; 12] = [
    "bootstrap.servers",
    "metadata.broker.list",
    "group.id",
    "enable.auto.commit",
    "enable.auto.offset.store",
    "auto.offset.reset",
    "partition.assignment.strategy",
    "enable.idempotence",
    "enable.partition.eof",
    "isolation.level",
    "transactional.id",
    "acks",
];

/// A cluster, and the settings of its clients.
#[derive(Clone, Debug)]
pub struct Cluster {
    settings: KafkaSettings,
}

/// What never changes about a topic: if it does, it is another topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TopicFacts {
    /// Its id, which a topic of the same name that is made later does not have.
    pub id: [u8; 16],
    /// The number of its partitions.
    pub partitions: u32,
}

impl Cluster {
    /// A cluster; connects to nothing.
    ///
    /// # Errors
    /// A user error for missing addresses and for options that are malformed or fixed.
    pub fn new(settings: &KafkaSettings) -> Result<Cluster> {
        if settings.brokers.is_empty() {
            return Err(Error::user("no brokers are given: name some with --brokers HOST:PORT, or set kafka.brokers"));
        }
        for option in &settings.options {
            let Some((name, _)) = option.split_once('=') else {
                // The value may be a password without its name.
                return Err(Error::user("an option of kafka.options is not of the form name=value"));
            };
            if FIXED.contains(&name.trim()) {
                return Err(Error::user(format!(
                    "kafka.options: {name} cannot be set, because Adtally depends on its value"
                )));
            }
        }
        Ok(Cluster { settings: settings.clone() })
    }

    /// The addresses, for messages.
    pub fn brokers(&self) -> &str {
        &self.settings.brokers
    }

    /// The configuration of a client: defaults, what this kind of client needs, and the user's options.
    pub(crate) fn config(&self, own: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        // What matters is logged by the callers.
        config.set_log_level(RDKafkaLogLevel::Error);
        for (name, value) in DEFAULTS.iter().chain(own) {
            config.set(*name, *value);
        }
        for (name, value) in self.settings.options.iter().filter_map(|option| option.split_once('=')) {
            config.set(name.trim(), value.trim());
        }
        config.set("bootstrap.servers", &self.settings.brokers);
        config
    }

    /// The error of a client that cannot be made.
    pub(crate) fn unusable(error: KafkaError) -> Error {
        match &error {
            // The error has the value, which may be a password.
            KafkaError::ClientConfig(_, why, name, _) => Error::user(format!("kafka.options: {name}: {why}")),
            _ => Error::user("the client of Kafka cannot be made: check kafka.options").because(error),
        }
    }

    /// Asks for the facts of a topic.
    ///
    /// # Errors
    /// A user error when there is no such topic; transient when the brokers do not answer.
    pub(crate) fn describe<C: ClientContext>(&self, client: &Client<C>, topic: &str) -> Result<TopicFacts> {
        self.look(client, topic)?.ok_or_else(|| {
            Error::user(format!(
                "the topic {topic} does not exist at {}: create it, with as many partitions as you will ever need",
                self.brokers()
            ))
        })
    }

    /// Asks for the facts of a topic; `None` if the broker does not know it.
    ///
    /// # Errors
    /// A user error when it cannot be used; transient when the brokers do not answer.
    pub(crate) fn look<C: ClientContext>(&self, client: &Client<C>, topic: &str) -> Result<Option<TopicFacts>> {
        match describe_topic(client, topic, REQUEST_TIMEOUT.as_millis() as i32) {
            Ok((id, partitions)) => {
                Ok(Some(TopicFacts { id, partitions: u32::try_from(partitions).unwrap_or(u32::MAX) }))
            }
            Err(Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic)) => Ok(None),
            Err(Some(code @ (RDKafkaErrorCode::InvalidTopic | RDKafkaErrorCode::TopicAuthorizationFailed))) => {
                Err(Error::user(format!("the topic {topic} cannot be used: {code}")))
            }
            Err(code) => {
                let why = code.map_or_else(|| "no answer".to_owned(), |code| code.to_string());
                Err(Error::transient(format!(
                    "the brokers at {} do not answer about the topic {topic}: {why}",
                    self.brokers()
                )))
            }
        }
    }
}

/// What to do about a topic with more partitions.
pub(crate) fn grown(topic: &str, before: u32, now: u32) -> String {
    format!(
        "the topic {topic} had {before} partitions and now has {now}: the copies of a click before and after the change are in \
         different partitions, and would be counted twice. Make a new topic with {now} partitions, bring this one into it with \
         `adtally repartition`, and count the new one into another URL"
    )
}

/// What to do about a topic that was made again.
pub(crate) fn made_again(topic: &str) -> String {
    format!(
        "the topic {topic} was deleted and made again: its offsets have other records, and what was not read of the old topic is \
         lost. Count the new topic into another URL, or bring the logs in with `adtally backfill`"
    )
}

/// A context that logs nothing by itself: callers decide what an error means.
#[derive(Clone, Debug, Default)]
pub(crate) struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(?level, facility, "{message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, "{reason}");
    }

    fn stats_raw(&self, _statistics: &[u8]) {}
}

impl rdkafka::consumer::ConsumerContext for Quiet {}
