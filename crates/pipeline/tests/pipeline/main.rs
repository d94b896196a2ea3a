//! The pipeline against a naive oracle that shares no code with it.
//!
//! - `oracle`: verdicts and counts by the letter of the contract, one line at a time, holding everything.
//! - `driver`: feeds generated lines in random batches, epochs, interleavings and crashes.
//! - `exactness`: properties over random streams.
//! - `boundaries`: lines inside, at and beyond every boundary of time.
//! - `clockwork`: idleness, ends, the clock, finality, capacity.
//! - `conflicts`: copies that differ from the click that was counted.
//! - `guard`: crashes at every line of the guard against bad clocks, and more minutes than are held.
//! - `quiet`: inputs that are quiet, gone or far behind.
//! - `opening`: inputs that wait to be opened, and those that cannot be.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod boundaries;
mod clockwork;
mod conflicts;
mod driver;
mod exactness;
mod guard;
mod opening;
mod oracle;
mod quiet;
