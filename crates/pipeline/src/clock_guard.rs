//! A clock that may move frontiers: it never runs back, and stays near monotonic time.

/// Maximum distance of the guarded clock from the monotonic time elapsed since the start, in milliseconds.
const APART_MS_MAX: i64 = 60_000;

/// A reading of the clocks, in milliseconds since the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClockReading {
    /// The guarded clock, which decides about frontiers and idleness.
    pub guarded_ms: i64,
    /// The wall clock, unchanged.
    pub wall_ms: i64,
    /// Whether the two clocks agree. While they do not, the clock moves no frontier.
    pub agrees: bool,
}

/// Guards the wall clock.
///
/// ```
/// # use adtally_pipeline::ClockGuard;
/// let mut guard = ClockGuard::new(1_000_000, 0, 0);
/// assert_eq!(guard.read(1_010_000, 10_000).guarded_ms, 1_010_000);
/// // A day ahead: held back to monotonic time and a minute.
/// let ahead = guard.read(86_400_000 + 1_020_000, 20_000);
/// assert_eq!((ahead.guarded_ms, ahead.agrees), (1_080_000, false));
/// // A day back: it stands still, and then goes on a minute behind monotonic time.
/// let back = guard.read(1_030_000 - 86_400_000, 30_000);
/// assert_eq!((back.guarded_ms, back.agrees), (1_080_000, false));
/// let later = guard.read(1_230_000 - 86_400_000, 230_000);
/// assert_eq!((later.guarded_ms, later.agrees), (1_170_000, false));
/// ```
#[derive(Clone, Debug)]
pub struct ClockGuard {
    start_ms: i64,
    start_monotonic_ms: i64,
    last_ms: i64,
}

impl ClockGuard {
    /// Starts at the later of the wall clock and the last epoch's clock.
    pub fn new(wall_ms: i64, monotonic_ms: i64, last_epoch_ms: i64) -> Self {
        let start_ms = wall_ms.max(last_epoch_ms);
        ClockGuard { start_ms, start_monotonic_ms: monotonic_ms, last_ms: start_ms }
    }

    /// Reads the clocks.
    pub fn read(&mut self, wall_ms: i64, monotonic_ms: i64) -> ClockReading {
        let elapsed = monotonic_ms.saturating_sub(self.start_monotonic_ms).max(0);
        let expected = self.start_ms.saturating_add(elapsed);
        let (least, most) = (expected.saturating_sub(APART_MS_MAX), expected.saturating_add(APART_MS_MAX));
        self.last_ms = wall_ms.clamp(least, most).max(self.last_ms);
        let agrees = (least..=most).contains(&wall_ms);
        ClockReading { guarded_ms: self.last_ms, wall_ms, agrees }
    }
}
