//! What a run is told: the settings of the rooms that it connects, and its own.

use adtally_model::IdentityKey;
use adtally_model::settings::{Clash, DAY, GIB, KIB, MINUTE, SECOND, Size, Span, Whole, identity_key, paths};
use adtally_pipeline::TimeSettings;
use adtally_source::TailSettings;
use adtally_store::backing::StoreUrl;
use adtally_store::lake::Keep;
use serde::Deserialize;
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
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
pub struct Settings {
    /// How time is judged.
    pub time: TimeSettings,
    /// What is read.
    #[serde(rename = "input")]
    pub source: SourceSettings,
    /// When epochs end.
    pub epoch: EpochSettings,
    /// Where results are kept, and for how long.
    pub store: StoreSettings,
    /// Key of the identities; the data directory makes one where there is none.
    #[serde(rename = "identity.key", deserialize_with = "identity_key")]
    pub identity_key: Option<IdentityKey>,
    /// What bounds memory.
    #[serde(skip)]
    pub bounds: Bounds,
}

impl Settings {
    /// Settings that contradict each other.
    pub fn clashes(&self) -> Vec<Clash> {
        [self.time.clashes(), self.source.tail.clashes()].concat()
    }

    /// A number that changes whenever a setting changes on which a line's verdict depends: how it is read and how time is
    /// judged. Where and how often results are written is not part of it.
    pub fn fingerprint(&self) -> u64 {
        let (decode, time) = (self.source.tail.decode.canonical(), self.time.canonical());
        let canonical = format!("adtally settings 1 {} {}{}{}", decode.first, time.first, decode.later, time.later);
        let mut hasher = SipHasher24::new();
        hasher.write(canonical.as_bytes());
        hasher.finish()
    }
}

/// `[input]`: what is read.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct SourceSettings {
    /// Files, folders and globs.
    #[serde(deserialize_with = "paths")]
    pub paths: Vec<String>,
    /// How they are read. Whether the run is bounded is decided by its ending.
    pub tail: TailSettings,
    /// How often paths are looked at.
    #[serde(deserialize_with = "Span::<10, MINUTE>::duration")]
    pub discovery_interval: Duration,
}

impl Default for SourceSettings {
    fn default() -> Self {
        SourceSettings {
            paths: Vec::new(),
            tail: TailSettings::default(),
            discovery_interval: Duration::from_millis(250),
        }
    }
}

/// `[epoch]`: when epochs end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub struct EpochSettings {
    /// Longest time between commits.
    #[serde(deserialize_with = "Span::<100, { 10 * MINUTE }>::duration")]
    pub interval: Duration,
    /// Most lines in an epoch.
    #[serde(rename = "max_lines", deserialize_with = "Whole::<1, 100_000_000>::number")]
    pub lines_max: u64,
    /// Most bytes of text in an epoch.
    #[serde(rename = "max_bytes", deserialize_with = "Size::<{ 64 * KIB }, { 4 * GIB }>::bytes")]
    pub bytes_max: u64,
    /// Whether commits wait for the disk.
    pub fsync: bool,
}

impl Default for EpochSettings {
    fn default() -> Self {
        EpochSettings { interval: Duration::from_secs(10), lines_max: 504_000, bytes_max: 128 << 20, fsync: true }
    }
}

/// `[store]`: where results are kept, and for how long.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct StoreSettings {
    /// Where everything is kept.
    pub data_dir: StoreUrl,
    /// Minutes of counts in memory.
    #[serde(deserialize_with = "Whole::<1, 10_080>::number")]
    pub hot_minutes: u32,
    /// How often the lake is brought up to date.
    #[serde(deserialize_with = "Span::<SECOND, DAY>::duration")]
    pub lake_interval: Duration,
    /// How often the lake is kept in order.
    #[serde(deserialize_with = "Span::<SECOND, DAY>::duration")]
    pub upkeep_interval: Duration,
    /// How long what is kept.
    pub keep: Keep,
}

impl Default for StoreSettings {
    fn default() -> Self {
        StoreSettings {
            data_dir: StoreUrl::of_folder("adtally-data"),
            hot_minutes: 60,
            lake_interval: Duration::from_secs(60),
            upkeep_interval: Duration::from_secs(600),
            keep: Keep::default(),
        }
    }
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
