//! Stage: the guarded event time of an input, and its watermark.

use crate::settings::{GUARD_LINES, TimeSettings};
use adtally_model::InputTime;

/// Represents "no watermark yet" in columns of watermarks.
pub(crate) const NONE: i64 = i64::MIN;

/// The watermark of an input, or [`NONE`].
#[inline]
pub(crate) fn of(time: &InputTime, settings: &TimeSettings) -> i64 {
    time.largest_ms.map_or(NONE, |largest| largest - settings.out_of_orderness_ms)
}

/// Moves an input's largest event time by one accepted line, guarded against wrong clocks: the first value, and every
/// jump of more than `max_jump`, needs [`GUARD_LINES`] lines.
#[inline]
pub fn observe(time: &mut InputTime, event_time_ms: i64, settings: &TimeSettings) {
    if let Some(largest) = time.largest_ms
        && event_time_ms <= largest.saturating_add(settings.max_jump_ms)
    {
        time.run = 0;
        if event_time_ms > largest {
            time.largest_ms = Some(event_time_ms);
        }
        return;
    }
    time.run_least_ms = if time.run == 0 { event_time_ms } else { time.run_least_ms.min(event_time_ms) };
    time.run += 1;
    if time.run == GUARD_LINES {
        time.largest_ms = Some(time.run_least_ms);
        time.run = 0;
    }
}

/// The input's watermark before each line ([`NONE`] if there is none), up to the first line before which it is beyond
/// `limit_ms`. These lines move the input's time. Lines beyond `future_ms` are rejected and do not move it.
pub(crate) fn scan(
    time: &mut InputTime,
    event_time_ms: &[i64],
    future_ms: i64,
    limit_ms: i64,
    settings: &TimeSettings,
) -> Vec<i64> {
    let mut before = Vec::with_capacity(event_time_ms.len());
    for &event_time in event_time_ms {
        let watermark = of(time, settings);
        if watermark > limit_ms {
            break;
        }
        before.push(watermark);
        if event_time <= future_ms {
            observe(time, event_time, settings);
        }
    }
    before
}

/// Moves an input's time to the watermark stamped on its lines, but not beyond `limit_ms`.
pub(crate) fn take(time: &mut InputTime, stamp_ms: Option<i64>, limit_ms: i64, settings: &TimeSettings) {
    let largest = stamp_ms.map(|watermark| watermark.saturating_add(settings.out_of_orderness_ms).min(limit_ms));
    time.largest_ms = time.largest_ms.max(largest);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(times: &[i64], expected: Option<i64>) {
        let mut time = InputTime::default();
        for &at in times {
            observe(&mut time, at, &TimeSettings::default());
        }
        assert_eq!(time.largest_ms, expected, "{times:?}");
    }

    #[test]
    fn sixteen_lines_make_a_clock() {
        let hour = 3_600_000;
        let steady: Vec<i64> = (0..15).map(|line| hour + line).collect();
        check(&steady, None);
        let mut first_far_ahead = vec![20 * hour];
        first_far_ahead.extend(&steady);
        check(&first_far_ahead, Some(hour));
        let mut one_far = vec![hour; 16];
        one_far.push(21 * hour);
        check(&one_far, Some(hour));
        let mut fifteen_far = vec![hour; 16];
        fifteen_far.extend([21 * hour; 15]);
        check(&fifteen_far, Some(hour));
        fifteen_far.push(20 * hour);
        check(&fifteen_far, Some(20 * hour));
        let mut interrupted = vec![hour; 16];
        interrupted.extend([21 * hour; 15]);
        interrupted.push(hour);
        interrupted.extend([21 * hour; 15]);
        check(&interrupted, Some(hour));
        let mut within = vec![hour; 16];
        within.push(hour + 600_000);
        check(&within, Some(hour + 600_000));
        within.push(hour + 1_200_001);
        check(&within, Some(hour + 600_000));
    }
}
