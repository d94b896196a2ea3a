//! What an epoch hands over to be committed.

use crate::tumbling_window::Windows;
use adtally_model::{
    CountedClicks, DeadLetter, EpochNumber, Frontiers, Identity, InputRow, Ledger, Minute, MinuteIdentities,
};
use std::sync::Arc;

/// Everything that an epoch changes, before it is encoded and committed.
#[derive(Debug, Default)]
pub struct EpochDraft {
    /// Its number.
    pub number: EpochNumber,
    /// The guarded clock at its end.
    pub clock_ms: i64,
    /// Progress at its end.
    pub frontiers: Frontiers,
    /// Event time of the newest click counted.
    pub newest_click_ms: Option<i64>,
    /// Largest guarded event time of any input.
    pub largest_guarded_ms: Option<i64>,
    /// The number that the next input discovered will get.
    pub next_input: u64,
    /// Whether all inputs have ended.
    pub all_ended: bool,
    /// Least watermark among the holding inputs with a backlog.
    pub reopened_from_ms: Option<i64>,
    /// The inputs that it touched; all of them when it is a base.
    pub inputs: Vec<Arc<InputRow>>,
    /// Sum over inputs that are gone.
    pub gone: Ledger,
    /// The partition's lines by verdict.
    pub ledger: Ledger,
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
