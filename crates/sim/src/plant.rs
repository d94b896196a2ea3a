//! Bugs that can be planted, to see that the simulation finds them.

/// What is wrong on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Plant {
    /// Nothing.
    #[default]
    Nothing,
    /// The lake is told of an epoch before its record exists.
    LakeBeforeRecord,
    /// The content of records is not synced.
    ContentNotSynced,
    /// The entries of records in their folder are not synced.
    EntryNotSynced,
    /// A process takes over without creating a claim.
    ClaimForgotten,
    /// Recovery forgets the identities of the last epoch.
    IdentitiesForgotten,
    /// What a process had read counts as read, although it died before the commit.
    PositionBeforeCommit,
    /// An input that was not opened yet stops holding the watermark where too much is held.
    UnopenedReleased,
    /// Files that leave a table are stamped with the clock of the last epoch, which may be days old.
    TombstonesByOldClock,
    /// Vacuum asks the log of the first partition alone which files are named.
    VacuumOfOneLog,
    /// A drain that gives up says that what was handed over is committed.
    DrainSaysCommitted,
    /// A run that ends closes the projector before the last epochs are committed.
    ProjectorClosedEarly,
}

impl Plant {
    /// All bugs.
    pub const ALL: [Plant; 11] = [
        Plant::LakeBeforeRecord,
        Plant::ContentNotSynced,
        Plant::EntryNotSynced,
        Plant::ClaimForgotten,
        Plant::IdentitiesForgotten,
        Plant::PositionBeforeCommit,
        Plant::UnopenedReleased,
        Plant::TombstonesByOldClock,
        Plant::VacuumOfOneLog,
        Plant::DrainSaysCommitted,
        Plant::ProjectorClosedEarly,
    ];
}
