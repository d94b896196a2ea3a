//! What a caller decides of ingest, and what bounds its memory.

use crate::service::Ending;
use crate::settings::Settings;
use adtally_pipeline::RunEnd;

/// Text that is being decoded, judged or waits, beyond which only inputs that hold the others up are read: those without
/// a watermark, the one that the others wait for, and of many inputs some more, until 4 KiB for each of them are held. Each
/// adds one block, of 4 KiB where there are many, of 1 KiB once much waits for others, or a line.
const HELD_BYTES_MAX: usize = 24 << 20;

/// Inputs asked for a block before what is read is judged: each block takes a kilobyte more than its text. So many more are
/// asked that were at their end.
const TURN_BLOCKS_MAX: usize = 4_096;

/// Pieces of blocks whose clicks an epoch holds. Each takes a kilobyte more than its clicks, which is most where many files
/// bring a line each.
const EPOCH_PIECES_MAX: usize = 65_536;

/// What ingest needs to know.
#[derive(Clone, Copy, Debug)]
pub struct IngestSettings {
    /// Longest time between commits, in milliseconds.
    pub epoch_interval_ms: i64,
    /// Most lines in an epoch.
    pub epoch_lines_max: u64,
    /// Most bytes of text in an epoch.
    pub epoch_bytes_max: u64,
    /// How often paths are looked at, in milliseconds.
    pub discovery_interval_ms: i64,
    /// Largest block read at a time, in bytes.
    pub block_bytes: usize,
    /// How the run ends once all inputs are read to their end; [`RunEnd::GoesOn`] tails for ever.
    pub run_end: RunEnd,
    /// What bounds memory.
    pub bounds: Bounds,
}

/// What bounds the memory of reading and of an epoch. Nobody sets it; the simulation makes it small.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Text being decoded, judged or waiting, beyond which only inputs that hold the others up are read.
    pub held_bytes_max: usize,
    /// Inputs with a backlog, and inputs at their end, asked in a turn.
    pub turn_blocks_max: usize,
    /// Pieces of blocks whose clicks an epoch holds.
    pub epoch_pieces_max: usize,
}

impl IngestSettings {
    /// Those of a run that ends like this.
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
    /// Those of one of several partitions, which share what a process may hold.
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

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { held_bytes_max: HELD_BYTES_MAX, turn_blocks_max: TURN_BLOCKS_MAX, epoch_pieces_max: EPOCH_PIECES_MAX }
    }
}
