//! The client of Kafka: topics, records at explicit offsets, membership in a consumer group, producers and transactions.
//!
//! - **Receives** the addresses of brokers, settings of librdkafka, and a clock.
//! - **Emits** the records of partitions, the partitions that the group assigns and revokes, and acknowledgements.
//! - **Promises** that a partition is read from the offset that was asked for, or not at all: lost offsets, a topic that was
//!   cut, made again or given more partitions are errors. Whatever the group says is a hint; the epoch log decides.
//! - **Never** commits an offset that anything depends on, except in a transaction with the records that were made of the
//!   records before it; creates a topic unless its caller says so; or interprets a line.
//!
//! Only `native` has unsafe code: for what librdkafka offers and its Rust binding does not.

pub mod admin;
pub mod cluster;
pub mod consumer;
pub mod group;
mod native;
pub mod producer;
pub mod transaction;

pub use admin::TopicEnds;
pub use cluster::{Cluster, TopicFacts};
pub use consumer::{Consumer, StartAt};
pub use group::Membership;
pub use producer::{Acknowledged, Produced, Producer};
pub use transaction::{GroupOffset, Transactions};
