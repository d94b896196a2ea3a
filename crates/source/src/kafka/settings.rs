//! `[kafka]`: the brokers, the topic, and how clicks are distributed over its partitions.

use super::Partitioner;
use adtally_model::settings::{Text, Texts};
use serde::Deserialize;

/// How to reach Kafka, and what to read or write there.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
pub struct KafkaSettings {
    /// Addresses of some brokers, `host:port` separated by commas; empty if Kafka is not used.
    #[serde(deserialize_with = "Text::<0, 4096>::owned")]
    pub brokers: String,
    /// The topic.
    #[serde(deserialize_with = "Text::<0, 249>::owned")]
    pub topic: String,
    /// The topic to which workers also send dead letters; empty if there is none.
    #[serde(deserialize_with = "Text::<0, 249>::owned")]
    pub dead_letter_topic: String,
    /// The consumer group of the workers.
    #[serde(deserialize_with = "Text::<0, 255>::owned")]
    pub group: String,
    /// How the producers of the topic choose the partition of an ad.
    pub partitioner: Partitioner,
    /// Settings of librdkafka, each as `name=value`: TLS, SASL and others.
    #[serde(deserialize_with = "Texts::<64, 4096>::owned")]
    pub options: Vec<String>,
}
