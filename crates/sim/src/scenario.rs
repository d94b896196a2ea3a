//! The scenario of a seed: settings, size of the workload, and rates of faults.

use crate::files::FOLDER;
use crate::machine::Luck;
use crate::random::Random;
use adtally_engine::{Bounds, Ending, EpochSettings, Settings, SourceSettings, StoreSettings};
use adtally_pipeline::TimeSettings;
use adtally_source::{DecodeSettings, TailSettings};
use adtally_store::lake::Keep;
use std::sync::Arc;
use std::time::Duration;

/// Up to this seed, workloads grow with the seed, so that the first failure is small.
const SMALL_SEEDS: u64 = 400;

/// One in this many scenarios has tiny epochs, to cover base records and collection.
const LONG_LOGS: u64 = 25;

/// Added to the seed of the bounds, so that the rest of a scenario does not depend on them.
const BOUNDS: u64 = 0x626f_756e_6473;

/// Everything decided before a simulation begins.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) settings: Settings,
    /// Servers that write logs.
    pub(crate) servers: u64,
    /// Lines that they write in total.
    pub(crate) lines: usize,
    /// Mean time between two lines of a server, in milliseconds.
    pub(crate) line_every_ms: i64,
    /// Rotations per thousand lines.
    pub(crate) rotations: u64,
    /// Whether rotation may also be by copying and truncating.
    pub(crate) copies_truncated: bool,
    /// Whether rotated logs may be deleted before they are read.
    pub(crate) deletes_unread: bool,
    /// Late lines per thousand.
    pub(crate) late: u64,
    pub(crate) luck: Luck,
    /// Power losses per thousand deaths.
    pub(crate) power_losses: u64,
    /// Steps per thousand at which a process is suspended and another takes over.
    pub(crate) zombies: u64,
    /// Steps per thousand at which a process is asked to stop.
    pub(crate) stops: u64,
    /// Of a thousand such requests, how many come during an outage.
    pub(crate) outages: u64,
    /// Steps per thousand at which the wall clock is set.
    pub(crate) clock_jumps: u64,
    /// Steps per thousand at which a process maintains the lake.
    pub(crate) upkeep: u64,
    /// Ends per thousand that are followed by more than a day without events.
    pub(crate) nights: u64,
    /// Starts per thousand of runs that end with their inputs.
    pub(crate) bounded: u64,
    /// Of a thousand such runs, how many make everything final.
    pub(crate) finals: u64,
}

impl Scenario {
    pub(crate) fn new(seed: u64, random: &mut Random) -> Scenario {
        let minute = 60_000;
        let allowed_lateness_ms = random.pick(&[0, minute, 2 * minute, 5 * minute]);
        let time = TimeSettings {
            out_of_orderness_ms: random.pick(&[0, 2_000, 5_000]),
            idle_timeout_ms: random.pick(&[5_000, 30_000]),
            allowed_lateness_ms,
            idle_finality_ms: random.pick(&[2 * minute, 5 * minute]),
            dedup_horizon_ms: allowed_lateness_ms + random.pick(&[0, minute, 5 * minute]),
            alignment_ms: random.pick(&[10_000, minute]),
            dedup_capacity: random.pick(&[3, 10, 24_000_000]),
            ..TimeSettings::default()
        };
        let is_long = random.below(LONG_LOGS) == 0;
        let size = 40 + seed.min(SMALL_SEEDS) as i64;
        let epoch = EpochSettings {
            interval: Duration::from_millis(random.pick(&[1_000, 5_000, 10_000])),
            lines_max: if is_long { 2 } else { random.pick(&[3, 10, 30, 1_000_000]) },
            bytes_max: random.pick(&[1_000, 1_000_000]),
            ..EpochSettings::default()
        };
        let discovery_interval = Duration::from_millis(random.pick(&[200, 1_000]));
        let decode = DecodeSettings { line_bytes_max: 1_024, ..DecodeSettings::default() };
        let tail = TailSettings { decode: Arc::new(decode), block_bytes: 2_048, ..TailSettings::default() };
        let source = SourceSettings { paths: vec![FOLDER.to_owned()], tail, discovery_interval };
        let sometimes = |random: &mut Random, often: u64| if random.chance(500) { often } else { 0 };
        let hot_minutes = random.pick(&[2, 60]);
        Scenario {
            servers: random.between(1, 5) as u64,
            lines: random.between(20, size) as usize,
            line_every_ms: random.pick(&[200, 1_000, 4_000]),
            rotations: random.pick(&[0, 10, 40]),
            copies_truncated: random.chance(300),
            deletes_unread: random.chance(100),
            late: random.pick(&[0, 30, 100]),
            luck: Luck {
                death: random.pick(&[10_000, 40_000, 80_000, 120_000]),
                failure: random.pick(&[0, 2, 20]),
                lost_reply: random.pick(&[0, 2, 20]),
                delay: random.pick(&[0, 0, 50]),
            },
            power_losses: random.pick(&[0, 300, 1_000]),
            zombies: sometimes(random, 20),
            stops: sometimes(random, 60),
            clock_jumps: if random.chance(250) { 5 } else { 0 },
            upkeep: random.pick(&[0, 20, 100]),
            nights: random.pick(&[0, 0, 200]),
            settings: Settings {
                time,
                source,
                epoch,
                store: StoreSettings {
                    hot_minutes,
                    lake_interval: Duration::ZERO,
                    upkeep_interval: Duration::ZERO,
                    keep: Keep {
                        clicks_ms: random.pick(&[60 * minute, 48 * 60 * minute]),
                        minutes_ms: 48 * 60 * minute,
                        hours_ms: 480 * 60 * minute,
                        letters_ms: 48 * 60 * minute,
                    },
                    // There is no data directory, because log and lake are simulated.
                    ..StoreSettings::default()
                },
                bounds: bounds(&mut Random::new(seed ^ BOUNDS)),
                ..Settings::default()
            },
            bounded: random.pick(&[0, 300, 600]),
            finals: random.pick(&[0, 300]),
            outages: random.pick(&[0, 500]),
        }
    }

    /// The ending of the next run.
    pub(crate) fn next_ending(&self, random: &mut Random) -> Ending {
        match random.chance(self.bounded) {
            true if random.chance(self.finals) => Ending::Final,
            true => Ending::UntilEnd,
            false => Ending::Never,
        }
    }
}

/// Bounds that few lines reach, in half of the scenarios.
fn bounds(random: &mut Random) -> Bounds {
    if random.chance(500) {
        return Bounds::default();
    }
    Bounds {
        held_bytes_max: random.pick(&[1, 300, 4_096, 24 << 20]),
        turn_blocks_max: random.pick(&[1, 2, 4_096]),
        epoch_pieces_max: random.pick(&[1, 5, 65_536]),
    }
}
