//! Bugs that can be planted to verify that the simulation finds them.

/// An intended bug.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Plant {
    /// No bug.
    #[default]
    Nothing,
    /// An epoch is projected into the lake before its record exists.
    LakeBeforeRecord,
    /// The content of records is not synced.
    ContentNotSynced,
    /// The directory entries of records are not synced.
    EntryNotSynced,
    /// A process takes over without creating a claim.
    ClaimForgotten,
    /// Recovery forgets the identities of the last epoch.
    IdentitiesForgotten,
    /// Lines that a process had read count as read, although it died before the commit.
    PositionBeforeCommit,
    /// An input that was not opened yet stops holding the watermark when too much is in memory.
    UnopenedReleased,
    /// Files that leave a table are stamped with the clock of the last epoch, which may be days old.
    TombstonesByOldClock,
    /// Vacuum reads the named files only from the first partition's log.
    VacuumOfOneLog,
    /// A drain that gives up reports submitted epochs as committed.
    DrainSaysCommitted,
    /// A run that ends closes the projector before the last epochs are committed.
    ProjectorClosedEarly,
    /// A recount does not read the clicks that earlier corrections recovered.
    CorrectionsNotReadBack,
}

impl Plant {
    /// All bugs.
    pub const ALL: [Plant; 12] = [
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
        Plant::CorrectionsNotReadBack,
    ];
}
