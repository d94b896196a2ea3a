//! Tests of the pipeline against a naive oracle that shares no code with it.
//!
//! - `oracle`: verdicts and counts exactly as in the contract, one line at a time, keeping everything in memory.
//! - `driver`: feeds generated lines in random batches, epochs, interleavings and crashes.
//! - `exactness`: properties over random streams.
//! - `boundaries`: lines inside, at and beyond every boundary of time.
//! - `clockwork`: idleness, ends, the clock, finality, capacity.
//! - `conflicts`: copies that differ from the counted click.
//! - `guard`: crashes at every line of the guard against wrong clocks, and more minutes than fit in memory.
//! - `quiet`: inputs that are quiet, gone or far behind.
//! - `opening`: inputs that wait to be opened, and inputs that cannot be opened.

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
