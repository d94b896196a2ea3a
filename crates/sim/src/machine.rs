//! The machine that runs processes: its clocks, its faults, and the trace of events.

use crate::random::Random;
use adtally_engine::clock::{Clock, Randomness};
use parking_lot::Mutex;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

/// Start of each simulation: 2026-01-01T00:00:00Z.
pub(crate) const BEGIN_MS: i64 = 1_767_225_600_000;

/// Panic payload of a death at a crash point. It unwinds past all code under test, up to the world.
pub(crate) struct Death;

/// The rates of faults, per thousand operations unless noted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Luck {
    /// Deaths per million crash points.
    pub(crate) death: u64,
    /// Operations that fail without effect.
    pub(crate) failure: u64,
    /// Operations that succeed but are reported as failed.
    pub(crate) lost_reply: u64,
    /// Object writes that are reported as failed and take effect later.
    pub(crate) delay: u64,
}

/// A fault of every operation for a while.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outage {
    /// Operations fail without effect.
    Fails,
    /// Operations succeed but are reported as failed.
    LosesReplies,
}

/// Counters of faults.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// Crash points passed.
    pub(crate) points: u64,
    /// Deaths at crash points.
    pub(crate) deaths: u64,
    /// Failed operations.
    pub(crate) failures: u64,
}

struct State {
    random: Random,
    true_ms: i64,
    /// Error of the wall clock, in milliseconds.
    skew_ms: i64,
    luck: Luck,
    /// An outage, and its end.
    outage: Option<(Outage, i64)>,
    tally: Tally,
    /// A hash of all events, in order.
    trace: u64,
    /// Whether to print events to stdout.
    tells: bool,
}

/// Clones share one machine.
#[derive(Clone)]
pub(crate) struct Machine(Arc<Mutex<State>>);

impl Machine {
    pub(crate) fn new(random: Random, tells: bool) -> Machine {
        Machine(Arc::new(Mutex::new(State {
            random,
            true_ms: BEGIN_MS,
            skew_ms: 0,
            luck: Luck::default(),
            outage: None,
            tally: Tally::default(),
            trace: 0,
            tells,
        })))
    }

    /// The true time, which no simulated process can read exactly.
    pub(crate) fn true_ms(&self) -> i64 {
        self.0.lock().true_ms
    }

    /// Advances time.
    pub(crate) fn advance(&self, ms: i64) {
        self.0.lock().true_ms += ms;
    }

    /// Sets the error of the wall clock.
    pub(crate) fn set_skew(&self, skew_ms: i64) {
        self.0.lock().skew_ms = skew_ms;
    }

    /// Sets the rates of faults, and ends an outage.
    pub(crate) fn set_luck(&self, luck: Luck) {
        let mut state = self.0.lock();
        (state.luck, state.outage) = (luck, None);
    }

    /// Begins an outage of all operations.
    pub(crate) fn break_down(&self, outage: Outage, ms: i64) {
        self.note("breaks down for", &format!("{ms} ms: {outage:?}"));
        let mut state = self.0.lock();
        state.outage = Some((outage, state.true_ms + ms));
    }

    pub(crate) fn tally(&self) -> Tally {
        self.0.lock().tally
    }

    pub(crate) fn trace(&self) -> u64 {
        self.0.lock().trace
    }

    /// Records an event.
    pub(crate) fn note(&self, what: &str, detail: &dyn std::fmt::Display) {
        let mut state = self.0.lock();
        let text = format!("{what} {detail}");
        for byte in text.bytes() {
            // FNV-1a.
            state.trace = (state.trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        let at = state.true_ms - BEGIN_MS;
        if state.tells {
            println!("{at:>9} ms  {text}");
        }
    }

    /// A place where a process may die. `rarity` divides the rate at places that are passed very often.
    pub(crate) fn crash_point(&self, place: &'static str, rarity: u64) {
        let mut state = self.0.lock();
        state.tally.points += 1;
        let death = state.luck.death;
        if death == 0 || state.random.below(1_000_000 * rarity) >= death {
            return;
        }
        state.tally.deaths += 1;
        drop(state);
        self.note("dies at", &place);
        resume_unwind(Box::new(Death));
    }

    /// Whether an operation fails without effect.
    pub(crate) fn fails(&self, what: &'static str, rarity: u64) -> bool {
        self.happens(what, rarity, Some(Outage::Fails), |luck| luck.failure)
    }

    /// Whether an operation that succeeded is reported as failed.
    pub(crate) fn loses_reply(&self, what: &'static str, rarity: u64) -> bool {
        self.happens(what, rarity, Some(Outage::LosesReplies), |luck| luck.lost_reply)
    }

    /// Whether an object write takes longer than its writer waits.
    pub(crate) fn delays(&self) -> bool {
        self.happens("in time", 1, None, |luck| luck.delay)
    }

    fn happens(&self, what: &'static str, rarity: u64, by: Option<Outage>, of: impl Fn(&Luck) -> u64) -> bool {
        let mut state = self.0.lock();
        let per_mille = of(&state.luck);
        let is_out = state.outage.is_some_and(|(outage, until_ms)| by == Some(outage) && state.true_ms < until_ms);
        if !is_out && (per_mille == 0 || state.random.below(1_000 * rarity) >= per_mille) {
            return false;
        }
        state.tally.failures += 1;
        drop(state);
        self.note("fails", &what);
        true
    }
}

impl Clock for Machine {
    fn wall_ms(&self) -> i64 {
        let state = self.0.lock();
        state.true_ms + state.skew_ms
    }

    fn monotonic_ms(&self) -> i64 {
        self.true_ms() - BEGIN_MS
    }

    fn sleep(&self, pause: Duration) {
        self.advance(pause.as_millis() as i64);
    }
}

impl Randomness for Machine {
    fn next_u128(&self) -> u128 {
        let mut state = self.0.lock();
        u128::from(state.random.next()) << 64 | u128::from(state.random.next())
    }
}
