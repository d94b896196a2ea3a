//! Progress: how far a partition has come.

use crate::{EpochNumber, Frontiers, Ledger, Minute, MinuteState, Position};

/// How far a partition has come at the end of an epoch: all of its state that does not belong to one input or one minute.
/// Every epoch records it, and the next one goes on from it.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Progress {
    /// Names the partition's log: random, made by its first record; 0 before there is one.
    pub log_id: u128,
    /// The partition.
    pub partition: u32,
    /// The epoch; 0 before the first.
    pub number: EpochNumber,
    /// What was read of the source in the epoch, where it has one position for all inputs, such as a Kafka partition. A
    /// partition that reads files has none: each input has its own.
    pub source: Option<Position>,
    /// The guarded clock, in milliseconds since the Unix epoch.
    pub clock_ms: i64,
    /// The watermark, and where minutes are closed, final and expired.
    pub frontiers: Frontiers,
    /// Event time of the newest click counted so far.
    pub newest_click_ms: Option<i64>,
    /// Largest guarded event time of any input so far; none before enough lines were accepted.
    pub largest_guarded_ms: Option<i64>,
    /// The number that the next input discovered will get.
    pub next_input: u64,
    /// Whether every input had ended.
    pub all_ended: bool,
    /// Least watermark among the holding inputs with a backlog, which reopens closed minutes beyond it.
    pub reopened_from_ms: Option<i64>,
    /// Sum over the inputs that are gone for 30 days.
    pub gone: Ledger,
    /// The partition's lines by verdict, cumulative.
    pub ledger: Ledger,
}

impl Progress {
    /// The minute before which "the last M minutes" end; `None` before any click is closed.
    pub fn to(&self) -> Option<Minute> {
        if self.all_ended {
            // One click far ahead of all others does not draw the last minutes away from them.
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
