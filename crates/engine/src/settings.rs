//! What a run is told: the settings of the rooms that it connects, and its own.

use adtally_model::IdentityKey;
use adtally_pipeline::TimeSettings;
use adtally_source::{DecodeSettings, NULL_VALUES, TailSettings};
use adtally_store::backing::StoreUrl;
use adtally_store::lake::Keep;
use siphasher::sip::SipHasher24;
use std::hash::Hasher;
use std::time::Duration;

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

/// All settings of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// How time is judged.
    pub time: TimeSettings,
    /// What is read.
    pub source: SourceSettings,
    /// When epochs end.
    pub epoch: EpochSettings,
    /// Where results are kept, and for how long.
    pub store: StoreSettings,
    /// Key of the identities; the data directory makes one where there is none.
    pub identity_key: Option<IdentityKey>,
    /// What bounds memory.
    pub bounds: Bounds,
}

impl Settings {
    /// A number that changes whenever a setting changes on which a line's verdict depends: how it is read and how time is
    /// judged. Where and how often results are written is not part of it.
    pub fn fingerprint(&self) -> u64 {
        let DecodeSettings { format, fields, timestamp_unit, null_values, line_bytes_max, csv_delimiter } =
            &*self.source.tail.decode;
        let time = &self.time;
        // Debug texts of our own plain types: lengths are unambiguous because texts are quoted and escaped.
        let mut canonical = format!(
            "adtally settings 1 {format:?} {} {timestamp_unit:?} {line_bytes_max} {:?} {:?}",
            u32::from(*csv_delimiter),
            [&fields.click_timestamp, &fields.ad_id, &fields.user_id, &fields.ip, &fields.country, &fields.click_id],
            [
                time.max_future_skew_ms,
                time.max_jump_ms,
                time.out_of_orderness_ms,
                time.idle_timeout_ms,
                time.allowed_lateness_ms,
                time.idle_finality_ms,
                time.dedup_horizon_ms,
                time.dedup_capacity as i64,
                time.alignment_ms,
            ],
        );
        // Settings that came later are left out while they have their defaults: the number of those who never set them
        // stays as it was.
        if *null_values != NULL_VALUES {
            canonical += &format!(" {null_values:?}");
        }
        let mut hasher = SipHasher24::new();
        hasher.write(canonical.as_bytes());
        hasher.finish()
    }
}

/// What is read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SourceSettings {
    /// Files, folders and globs.
    pub paths: Vec<String>,
    /// How they are read. Whether the run is bounded is decided by its ending.
    pub tail: TailSettings,
    /// How often paths are looked at.
    pub discovery_interval: Duration,
}

/// When epochs end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EpochSettings {
    /// Longest time between commits.
    pub interval: Duration,
    /// Most lines in an epoch.
    pub lines_max: u64,
    /// Most bytes of text in an epoch.
    pub bytes_max: u64,
    /// Whether commits wait for the disk.
    pub fsync: bool,
}

/// Where results are kept, and for how long.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreSettings {
    /// Where everything is kept.
    pub data_dir: StoreUrl,
    /// Minutes of counts in memory.
    pub hot_minutes: u32,
    /// How often the lake is brought up to date.
    pub lake_interval: Duration,
    /// How often the lake is kept in order.
    pub upkeep_interval: Duration,
    /// How long what is kept.
    pub keep: Keep,
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

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { held_bytes_max: HELD_BYTES_MAX, turn_blocks_max: TURN_BLOCKS_MAX, epoch_pieces_max: EPOCH_PIECES_MAX }
    }
}
