//! What an epoch hands over to be committed.

use crate::tumbling_window::Windows;
use adtally_model::{CountedClicks, DeadLetter, EpochNumber, Identity, InputRow, Minute, MinuteIdentities, Progress};
use std::sync::Arc;

/// Everything that an epoch changes, before it is encoded and committed.
#[derive(Debug, Default)]
pub struct EpochDraft {
    /// How far the partition has come at its end.
    pub progress: Progress,
    /// The inputs that it touched; all of them when it is a base.
    pub inputs: Vec<Arc<InputRow>>,
    /// Clicks counted in it, to be sorted.
    pub windows: Windows,
    /// New identities.
    pub identities: Vec<MinuteIdentities>,
    /// The clicks themselves.
    pub clicks: Vec<Arc<CountedClicks>>,
    /// Lines that were not counted but are kept.
    pub dead_letters: Vec<DeadLetter>,
    /// For a base: the identities of minutes begun more than 128 records before, with the epoch that began them.
    pub old_minutes: Vec<(Minute, EpochNumber, Vec<Identity>)>,
}
