//! The contents of an epoch that is ready to be committed.

use crate::tumbling_window::Windows;
use adtally_model::{CountedClicks, DeadLetter, EpochNumber, Identity, InputRow, Minute, MinuteIdentities, Progress};
use std::sync::Arc;

/// Everything that an epoch changes, before it is encoded and committed.
#[derive(Debug, Default)]
pub struct EpochDraft {
    /// The partition's progress at the end of the epoch.
    pub progress: Progress,
    /// The inputs that the epoch touched; all inputs if it is a base.
    pub inputs: Vec<Arc<InputRow>>,
    /// Clicks counted in the epoch, not yet sorted.
    pub windows: Windows,
    /// New identities.
    pub identities: Vec<MinuteIdentities>,
    /// The counted clicks.
    pub clicks: Vec<Arc<CountedClicks>>,
    /// Lines that were not counted but are kept.
    pub dead_letters: Vec<DeadLetter>,
    /// For a base: the identities of minutes begun more than 128 records before, with the epochs that began them.
    pub old_minutes: Vec<(Minute, EpochNumber, Vec<Identity>)>,
}
