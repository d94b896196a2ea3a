//! Adtally: configuration, wiring and the run loop. Everything the binary does, as a library.
//!
//! - **Receives** arguments, configuration, a clock and randomness.
//! - **Emits** exit codes, reports on stdout and stderr, and a running job.
//! - **Promises** that clicks cross from room to room only here, in [`run`].
//! - **Never** judges a line or words an HTTP answer itself.

pub mod cli;
pub mod clock;
pub mod commands;
pub mod config;
pub mod exit;
pub mod generate;
pub mod handles;
pub mod inspect;
mod limits;
pub mod run;
pub mod terminal;
pub mod wiring;
