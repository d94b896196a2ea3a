//! The settings of ingest that the caller chooses, and the bounds of its memory.

use crate::options::Ending;
use crate::settings::{Bounds, Settings};
use adtally_pipeline::RunEnd;

/// The settings of ingest.
#[derive(Clone, Copy, Debug)]
pub struct IngestSettings {
    /// Longest time between commits, in milliseconds.
    pub epoch_interval_ms: i64,
    /// Most lines in an epoch.
    pub epoch_lines_max: u64,
    /// Most bytes of text in an epoch.
    pub epoch_bytes_max: u64,
    /// How often to look for files at the paths, in milliseconds.
    pub discovery_interval_ms: i64,
    /// Largest block read at a time, in bytes.
    pub block_bytes: usize,
    /// How the run ends once all inputs are read to their end; [`RunEnd::GoesOn`] tails forever.
    pub run_end: RunEnd,
    /// The bounds of memory.
    pub bounds: Bounds,
}

impl IngestSettings {
    /// The settings of a run with this ending.
    pub fn new(settings: &Settings, ending: Ending) -> IngestSettings {
        IngestSettings {
            epoch_interval_ms: settings.epoch.interval.as_millis() as i64,
            epoch_lines_max: settings.epoch.lines_max,
            epoch_bytes_max: settings.epoch.bytes_max,
            discovery_interval_ms: settings.source.discovery_interval.as_millis() as i64,
            block_bytes: settings.source.tail.block_bytes,
            run_end: ending.run_end(),
            bounds: settings.bounds,
        }
    }
}

impl IngestSettings {
    /// The settings of one of several partitions, which share the memory bounds of the process.
    #[must_use]
    pub fn shared_by(self, partitions: usize) -> IngestSettings {
        let share = |whole: usize| (whole / partitions.max(1)).max(1);
        let share_u64 = |whole: u64| (whole / partitions.max(1) as u64).max(1);
        IngestSettings {
            epoch_lines_max: share_u64(self.epoch_lines_max),
            epoch_bytes_max: share_u64(self.epoch_bytes_max),
            bounds: Bounds {
                held_bytes_max: share(self.bounds.held_bytes_max),
                turn_blocks_max: share(self.bounds.turn_blocks_max),
                epoch_pieces_max: share(self.bounds.epoch_pieces_max),
            },
            ..self
        }
    }
}
