//! The only module that reads clocks and draws randomness; all other code receives them as arguments.

#![expect(clippy::disallowed_methods, reason = "this is the place")]

/// Tells the time.
pub trait Clock: Send + Sync {
    /// Milliseconds since the Unix epoch, UTC.
    fn wall_ms(&self) -> i64;

    /// Milliseconds since an arbitrary moment. Never decreases. Includes time while the system is suspended.
    fn monotonic_ms(&self) -> i64;

    /// Pauses the thread. Pauses between attempts use this method, so that a simulated pause takes no time.
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
        // Boot time instead of monotonic time, because it includes suspended time, as the wall clock does.
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        now.tv_sec * 1_000 + now.tv_nsec / 1_000_000
    }
}

/// A source of random numbers.
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
            // The system call cannot fail once the kernel's generator is seeded; only signals cut it short.
            if let Ok(more) = rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
                filled += more;
            }
        }
        u128::from_le_bytes(bytes)
    }
}
