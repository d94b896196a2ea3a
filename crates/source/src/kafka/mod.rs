//! A partition of a Kafka topic as a source: its records, one after another, from an explicit offset.
//!
//! `record` defines what a record of Adtally's agent looks like. `partitioner` says which partition an ad belongs to, and
//! `routed_lines` which one each line of a decoded block. `partition` turns records into blocks. The client of Kafka is passed in as a [`RecordReader`]: it starts threads and
//! does I/O, and is replaced in tests.

pub mod group;
pub mod partition;
pub mod partitioner;
pub mod record;
pub mod routed_lines;
pub mod settings;
#[cfg(test)]
mod tests;

pub use group::GroupEvent;
pub use partition::{KafkaPartition, Polled, RawRecord, RecordReader};
pub use partitioner::{Partitioner, Routing};
pub use record::Stamp;
pub use routed_lines::{RoutedLine, RoutedLines};
pub use settings::KafkaSettings;
