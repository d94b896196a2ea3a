//! The interface to the client of Kafka.

use adtally_model::Result;

/// A record on its way to Kafka.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The partition.
    pub partition: u32,
    /// The key; only of a record with a single line.
    pub key: Option<String>,
    /// Whole lines; empty for a record that only carries a stamp.
    pub text: Vec<u8>,
    /// The name of the log.
    pub input: std::sync::Arc<str>,
    /// The log's watermark before the first line, in milliseconds since the Unix epoch.
    pub watermark_ms: Option<i64>,
    /// The number of the record among those of the log in this partition, from 1 after each start of the agent.
    pub sequence: u64,
    /// The header line of a CSV log.
    pub csv_header: Option<std::sync::Arc<[u8]>>,
    /// The bytes of the log that could never be read, if there are any; only in one partition.
    pub gap_bytes: Option<u64>,
    /// Identifies the record in its acknowledgement.
    pub tag: u64,
}

/// What became of a record.
#[derive(Debug)]
pub struct Outcome {
    /// The record.
    pub tag: u64,
    /// Whether it is safe.
    pub result: Result<()>,
}

/// Produces records. The records of a partition are stored in the order in which they were sent.
pub trait Produce: Send {
    /// Takes a record. Returns whether it was taken; otherwise the caller tries again later. Does not wait.
    ///
    /// # Errors
    /// A user error for a record that will never be accepted; external when the producer cannot go on.
    fn send(&mut self, record: &Outgoing) -> Result<bool>;

    /// The next outcome, if there is one. Does not wait.
    fn outcome(&mut self) -> Option<Outcome>;

    /// Why records cannot be delivered at the moment, if they cannot.
    fn failure(&self) -> Option<String>;
}
