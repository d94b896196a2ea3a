//! Stage: lines whose event time is too far ahead of the clock.

use crate::ClockReading;

/// The event time beyond which a line is `future`: the later of the guarded and the wall clock, plus the allowed skew.
pub(crate) fn limit_ms(now: &ClockReading, max_future_skew_ms: i64) -> i64 {
    now.guarded_ms.max(now.wall_ms).saturating_add(max_future_skew_ms)
}
