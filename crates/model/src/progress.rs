//! Progress: how far a partition has come.

use crate::{EpochNumber, Frontiers, Ledger, Minute, MinuteState, Position};

/// The partition of a topic that a partition reads. It never changes: copies of a click are in one partition of a topic
/// only as long as the topic has as many partitions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TopicPartition {
    /// The id of the topic, which a later topic of the same name does not have.
    pub topic_id: u128,
    /// The number of the partition in the topic.
    pub partition: u32,
    /// The number of partitions of the topic.
    pub partitions: u32,
}

/// The progress of a partition at the end of an epoch: all of its state that does not belong to one input or one
/// minute. Every epoch records it, and the next epoch continues from it.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Progress {
    /// Identifies the partition's log: a random number made by its first record; 0 before that.
    pub log_id: u128,
    /// The partition.
    pub partition: u32,
    /// Number of the epoch; 0 before the first.
    pub number: EpochNumber,
    /// The range of the source read in the epoch, if the source has one position for all inputs, such as a Kafka
    /// partition. `None` for files, because each file has its own position.
    pub source: Option<Position>,
    /// The partition of a topic that is its source; `None` for files.
    pub topic: Option<TopicPartition>,
    /// Whether it is retired: nothing is read any more, and all its minutes are final. Its successors read another topic.
    pub is_retired: bool,
    /// The guarded clock, in milliseconds since the Unix epoch.
    pub clock_ms: i64,
    /// The watermark, and the closed, final and expired frontiers.
    pub frontiers: Frontiers,
    /// Event time of the newest click counted so far.
    pub newest_click_ms: Option<i64>,
    /// Largest guarded event time of any input so far; `None` before enough lines were accepted.
    pub largest_guarded_ms: Option<i64>,
    /// The number of the next input discovered.
    pub next_input: u64,
    /// Whether every input had ended.
    pub all_ended: bool,
    /// Least watermark of the holding inputs with a backlog. Closed minutes beyond it are open again.
    pub reopened_from_ms: Option<i64>,
    /// Sum over the inputs gone for 30 days.
    pub gone: Ledger,
    /// The partition's lines by verdict, cumulative.
    pub ledger: Ledger,
}

impl Progress {
    /// The exclusive end of "the last M minutes"; `None` before any click is in a closed minute.
    pub fn to(&self) -> Option<Minute> {
        if self.all_ended {
            // A single click far ahead of all others does not move the last minutes away from them.
            self.largest_guarded_ms.or(self.newest_click_ms).map(|largest| Minute::of(largest).next())
        } else {
            self.newest_click_ms.and(self.frontiers.closed.get()).map(Minute::of)
        }
    }

    /// The state of a minute.
    pub fn state_of(&self, minute: Minute) -> MinuteState {
        self.frontiers.state_of(minute, self.reopened_from_ms)
    }
}
