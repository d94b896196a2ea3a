//! Movement of frontiers: by lines within an epoch, by the clock only at its end.

use crate::inputs::Inputs;
use crate::settings::TimeSettings;
use adtally_model::{Frontiers, Minute, Watermark};

/// A time before every event.
pub(crate) const NEVER: i64 = i64::MIN;

/// The frontier's time, or [`NEVER`].
#[inline]
pub(crate) fn ms(frontier: Watermark) -> i64 {
    frontier.get().unwrap_or(NEVER)
}

/// Moves the partition's watermark to that of the holding inputs, and the other frontiers after it.
pub(crate) fn follow_watermark(frontiers: &mut Frontiers, inputs: &Inputs, settings: &TimeSettings) {
    let Some(least) = inputs.least_watermark(ms(frontiers.final_), settings) else { return };
    frontiers.watermark.advance(least);
    let watermark = ms(frontiers.watermark);
    frontiers.closed.advance(watermark);
    frontiers.final_.advance(watermark - settings.allowed_lateness_ms);
    follow_final(frontiers, settings);
}

/// Moves frontiers by the clock: the closed one and, if `largest_guarded_ms` is given, the final one up to that
/// minute's end. The limit ensures that a file added tomorrow is still counted.
pub(crate) fn follow_clock(
    frontiers: &mut Frontiers,
    now_ms: i64,
    largest_guarded_ms: Option<i64>,
    settings: &TimeSettings,
) {
    frontiers.closed.advance(now_ms);
    if let Some(largest) = largest_guarded_ms {
        frontiers.final_.advance(now_ms.min(Minute::of(largest).end_ms()));
        follow_final(frontiers, settings);
    }
}

/// Closes all minutes up to and including `minute`, and makes them final if `finalise` is set.
pub(crate) fn close_up_to(frontiers: &mut Frontiers, minute: Minute, finalise: bool, settings: &TimeSettings) {
    frontiers.closed.advance(minute.end_ms());
    if finalise {
        frontiers.final_.advance(minute.end_ms());
        follow_final(frontiers, settings);
    }
}

/// Closes everything final, and moves the expired frontier after the final one.
fn follow_final(frontiers: &mut Frontiers, settings: &TimeSettings) {
    let final_ms = ms(frontiers.final_);
    frontiers.closed.advance(final_ms);
    frontiers.expired.advance(final_ms - settings.held_after_final_ms());
}
