//! The settings that verdicts depend on.

use adtally_model::{Error, Result};

/// Live minutes that a partition holds at most: nearly three days apart, at some 10 KiB of fixed cost each. Lines of
/// further minutes are late (`too_many_minutes`).
pub const LIVE_MINUTES_MAX: usize = 4_096;

/// Accepted lines in a row that must agree before an input's clock is believed.
pub const GUARD_LINES: u32 = 16;

/// Times in milliseconds; their meaning is that of the contract's section on time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimeSettings {
    /// How far ahead of the clock an event time may lie.
    pub max_future_skew_ms: i64,
    /// How far an input's event time may jump at once.
    pub max_jump_ms: i64,
    /// How far behind an input's largest event time its watermark stays.
    pub out_of_orderness_ms: i64,
    /// How long an input at its end may stand still before it stops holding the partition.
    pub idle_timeout_ms: i64,
    /// How long after it closed a minute can still be revised.
    pub allowed_lateness_ms: i64,
    /// How long all inputs must be idle before the clock makes minutes final.
    pub idle_finality_ms: i64,
    /// How long identities are held after their minute ended.
    pub dedup_horizon_ms: i64,
    /// Identities held before inputs that lie far behind are released.
    pub dedup_capacity: usize,
    /// How far ahead of the least input one with a backlog may run.
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
    /// Checks what must hold between them.
    ///
    /// # Errors
    /// A user error that names the settings.
    pub fn check(&self) -> Result<()> {
        if self.dedup_horizon_ms < self.allowed_lateness_ms {
            return Err(Error::user(format!(
                "dedup_horizon ({} ms) must be at least allowed_lateness ({} ms): otherwise a duplicate that arrives \
                 between the two would be counted again",
                self.dedup_horizon_ms, self.allowed_lateness_ms
            )));
        }
        Ok(())
    }

    /// How long identities are held after their minute became final.
    #[inline]
    pub(crate) fn held_after_final_ms(&self) -> i64 {
        self.dedup_horizon_ms - self.allowed_lateness_ms
    }
}
