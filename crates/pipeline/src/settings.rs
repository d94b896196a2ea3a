//! The settings that affect verdicts.

use adtally_model::settings::{Canonical, Clash, DAY, HOUR, SECOND, Span, Whole};
use serde::Deserialize;

/// Most live minutes in a partition: nearly three days, at about 10 KiB of fixed cost each. Lines of further minutes
/// are late (`too_many_minutes`).
pub const LIVE_MINUTES_MAX: usize = 4_096;

/// Consecutive accepted lines that must agree before an input's clock is believed.
pub const GUARD_LINES: u32 = 16;

/// `[time]`: times in milliseconds, as defined by the contract's section on time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub struct TimeSettings {
    /// How far ahead of the clock an event time may lie.
    #[serde(rename = "max_future_skew", deserialize_with = "Span::<0, DAY>::ms")]
    pub max_future_skew_ms: i64,
    /// How far an input's event time may jump at once.
    #[serde(rename = "max_jump", deserialize_with = "Span::<SECOND, DAY>::ms")]
    pub max_jump_ms: i64,
    /// How far an input's watermark stays behind its largest event time.
    #[serde(rename = "out_of_orderness", deserialize_with = "Span::<0, HOUR>::ms")]
    pub out_of_orderness_ms: i64,
    /// How long an input at its end may make no progress before it stops holding the partition.
    #[serde(rename = "idle_timeout", deserialize_with = "Span::<SECOND, DAY>::ms")]
    pub idle_timeout_ms: i64,
    /// How long a minute can still be revised after it closed.
    #[serde(rename = "allowed_lateness", deserialize_with = "Span::<0, { 2 * DAY }>::ms")]
    pub allowed_lateness_ms: i64,
    /// How long all inputs must be idle before the clock makes minutes final.
    #[serde(rename = "idle_finality", deserialize_with = "Span::<SECOND, { 7 * DAY }>::ms")]
    pub idle_finality_ms: i64,
    /// How long identities are kept after their minute ended.
    #[serde(rename = "dedup_horizon", deserialize_with = "Span::<0, { 2 * DAY }>::ms")]
    pub dedup_horizon_ms: i64,
    /// Number of identities above which inputs that are far behind are released.
    #[serde(deserialize_with = "Whole::<100_000, 4_000_000_000>::number")]
    pub dedup_capacity: usize,
    /// How far an input with a backlog may run ahead of the input furthest behind.
    #[serde(rename = "alignment", deserialize_with = "Span::<SECOND, DAY>::ms")]
    pub alignment_ms: i64,
}

impl Default for TimeSettings {
    fn default() -> Self {
        TimeSettings {
            max_future_skew_ms: 60_000,
            max_jump_ms: 600_000,
            out_of_orderness_ms: 5_000,
            idle_timeout_ms: 30_000,
            allowed_lateness_ms: 300_000,
            idle_finality_ms: 900_000,
            dedup_horizon_ms: 600_000,
            dedup_capacity: 24_000_000,
            alignment_ms: 60_000,
        }
    }
}

impl TimeSettings {
    /// Settings that contradict each other.
    pub fn clashes(&self) -> Vec<Clash> {
        let horizon = Clash {
            one: "time.dedup_horizon".into(),
            relation: "must not be less than",
            other: "time.allowed_lateness".into(),
            why: "a duplicate that arrives between the two would be counted again: raise dedup_horizon",
        };
        if self.dedup_horizon_ms < self.allowed_lateness_ms { vec![horizon] } else { Vec::new() }
    }

    /// The settings that affect verdicts: all of them.
    pub fn canonical(&self) -> Canonical {
        let TimeSettings {
            max_future_skew_ms,
            max_jump_ms,
            out_of_orderness_ms,
            idle_timeout_ms,
            allowed_lateness_ms,
            idle_finality_ms,
            dedup_horizon_ms,
            dedup_capacity,
            alignment_ms,
        } = self;
        let first = format!(
            "[{max_future_skew_ms}, {max_jump_ms}, {out_of_orderness_ms}, {idle_timeout_ms}, {allowed_lateness_ms}, \
             {idle_finality_ms}, {dedup_horizon_ms}, {dedup_capacity}, {alignment_ms}]"
        );
        Canonical { first, later: String::new() }
    }

    /// How long identities are kept after their minute became final.
    #[inline]
    pub(crate) fn held_after_final_ms(&self) -> i64 {
        self.dedup_horizon_ms - self.allowed_lateness_ms
    }
}
