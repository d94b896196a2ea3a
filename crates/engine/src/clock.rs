//! The only place that reads clocks and draws randomness; everything else is handed them.

#![expect(clippy::disallowed_methods, reason = "this is the place")]

/// What time it is.
pub trait Clock: Send + Sync {
    /// Milliseconds since the Unix epoch, UTC.
    fn wall_ms(&self) -> i64;

    /// Milliseconds since some moment, never running back. Time suspended counts.
    fn monotonic_ms(&self) -> i64;

    /// Lets time pass: pauses between attempts go through here, so that a simulated one takes none.
    fn sleep(&self, pause: std::time::Duration) {
        std::thread::sleep(pause);
    }
}

/// The system's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn wall_ms(&self) -> i64 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        now.tv_sec * 1_000 + now.tv_nsec / 1_000_000
    }

    fn monotonic_ms(&self) -> i64 {
        // Boot time rather than monotonic time: it counts while the machine sleeps, as the wall clock does.
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        now.tv_sec * 1_000 + now.tv_nsec / 1_000_000
    }
}

/// Where randomness comes from.
pub trait Randomness: Send + Sync {
    /// 128 random bits.
    fn next_u128(&self) -> u128;
}

/// The system's randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRandomness;

impl Randomness for SystemRandomness {
    fn next_u128(&self) -> u128 {
        let mut bytes = [0_u8; 16];
        let mut filled = 0;
        while filled < bytes.len() {
            // The system call cannot fail once the kernel's generator is seeded, and is only cut short by signals.
            if let Ok(more) = rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
                filled += more;
            }
        }
        u128::from_le_bytes(bytes)
    }
}
