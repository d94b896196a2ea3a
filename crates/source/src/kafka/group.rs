//! What a consumer group says about the partitions of a topic.

/// Partitions that move to this process or away from it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GroupEvent {
    /// These partitions now belong to this process.
    Assigned(Vec<u32>),
    /// These partitions will belong to another process once this one has released them.
    Revoked(Vec<u32>),
    /// These partitions may belong to another process already.
    Lost(Vec<u32>),
}
