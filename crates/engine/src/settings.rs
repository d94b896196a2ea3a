//! The settings of a run: those of the rooms that it connects, and its own.

use adtally_model::IdentityKey;
use adtally_model::settings::{
    Clash, DAY, GIB, HOUR, KIB, MINUTE, SECOND, Size, Span, Whole, identity_key, paths, time_of_day,
};
use adtally_pipeline::TimeSettings;
use adtally_source::TailSettings;
use adtally_store::backing::StoreUrl;
use adtally_store::lake::Keep;
use serde::Deserialize;
use siphasher::sip::SipHasher24;
use std::hash::Hasher;
use std::time::Duration;

/// Bytes of text being decoded, judged or waiting, above which only inputs that hold the others up are read: those
/// without a watermark and the one with the least watermark. Of many inputs some more are read, up to 4 KiB per input.
/// Each adds one block (4 KiB with many inputs, 1 KiB once much text waits for others) or one line.
const HELD_BYTES_MAX: usize = 24 << 20;

/// Inputs to ask for a block before the text is judged: each block takes a kilobyte more than its text. The same number
/// of inputs at their end is asked as well.
const TURN_BLOCKS_MAX: usize = 4_096;

/// Pieces of blocks whose clicks an epoch keeps. Each takes a kilobyte more than its clicks, which is the larger part
/// when many files have one line each.
const EPOCH_PIECES_MAX: usize = 65_536;

/// All settings of a run.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
pub struct Settings {
    /// The rules of event time.
    pub time: TimeSettings,
    /// The inputs.
    #[serde(rename = "input")]
    pub source: SourceSettings,
    /// When epochs end.
    pub epoch: EpochSettings,
    /// Where to keep results, and for how long.
    pub store: StoreSettings,
    /// When to reconcile.
    pub reconcile: ReconcileSettings,
    /// The key of the identities. If there is none, the data directory creates one.
    #[serde(rename = "identity.key", deserialize_with = "identity_key")]
    pub identity_key: Option<IdentityKey>,
    /// The bounds of memory.
    #[serde(skip)]
    pub bounds: Bounds,
}

impl Settings {
    /// Settings that contradict each other.
    pub fn clashes(&self) -> Vec<Clash> {
        [self.time.clashes(), self.source.tail.clashes()].concat()
    }

    /// A number that changes whenever a setting changes that affects verdicts: how lines are read and how time is
    /// judged. It does not cover where and how often results are written.
    pub fn fingerprint(&self) -> u64 {
        let (decode, time) = (self.source.tail.decode.canonical(), self.time.canonical());
        let canonical = format!("adtally settings 1 {} {}{}{}", decode.first, time.first, decode.later, time.later);
        let mut hasher = SipHasher24::new();
        hasher.write(canonical.as_bytes());
        hasher.finish()
    }
}

/// `[input]`: the inputs.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct SourceSettings {
    /// Files, folders and globs.
    #[serde(deserialize_with = "paths")]
    pub paths: Vec<String>,
    /// How to read them. The ending decides whether the run is bounded.
    pub tail: TailSettings,
    /// How often to look for files at the paths.
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
    /// Whether commits wait until data is on disk (fsync).
    pub fsync: bool,
}

impl Default for EpochSettings {
    fn default() -> Self {
        EpochSettings { interval: Duration::from_secs(10), lines_max: 504_000, bytes_max: 128 << 20, fsync: true }
    }
}

/// `[store]`: where to keep results, and for how long.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct StoreSettings {
    /// The place of all stored data.
    pub data_dir: StoreUrl,
    /// Minutes of counts to keep in memory.
    #[serde(deserialize_with = "Whole::<1, 10_080>::number")]
    pub hot_minutes: u32,
    /// How often to update the lake.
    #[serde(deserialize_with = "Span::<SECOND, DAY>::duration")]
    pub lake_interval: Duration,
    /// How often to maintain the lake.
    #[serde(deserialize_with = "Span::<SECOND, DAY>::duration")]
    pub upkeep_interval: Duration,
    /// How long to keep each kind of data.
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

/// `[reconcile]`: when to reconcile.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub struct ReconcileSettings {
    /// Whether a service reconciles once a day.
    pub daily: bool,
    /// The time of day, UTC, in milliseconds.
    #[serde(rename = "at", deserialize_with = "time_of_day")]
    pub at_ms: i64,
}

impl Default for ReconcileSettings {
    fn default() -> Self {
        ReconcileSettings { daily: true, at_ms: 2 * HOUR + 30 * MINUTE }
    }
}

/// The bounds of memory for reading and for an epoch. Users cannot set them; the simulation reduces them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Bytes of text being decoded, judged or waiting, above which only inputs that hold the others up are read.
    pub held_bytes_max: usize,
    /// Inputs with a backlog to ask in a turn; also inputs at their end to ask in a turn.
    pub turn_blocks_max: usize,
    /// Pieces of blocks whose clicks an epoch keeps.
    pub epoch_pieces_max: usize,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { held_bytes_max: HELD_BYTES_MAX, turn_blocks_max: TURN_BLOCKS_MAX, epoch_pieces_max: EPOCH_PIECES_MAX }
    }
}
