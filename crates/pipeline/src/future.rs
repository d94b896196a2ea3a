//! Stage: lines whose event time is too far ahead of the clock.

use crate::ClockReading;

/// The event time beyond which a line is `future`: the later of the guarded and the wall clock, and the skew.
pub(crate) fn limit_ms(now: &ClockReading, max_future_skew_ms: i64) -> i64 {
    now.guarded_ms.max(now.wall_ms).saturating_add(max_future_skew_ms)
}

/// Whether any of the event times lies beyond the limit: the common answer is no, by one pass over a column.
pub(crate) fn any(event_time_ms: &[i64], limit_ms: i64) -> bool {
    event_time_ms.iter().fold(i64::MIN, |most, &time| most.max(time)) > limit_ms
}
