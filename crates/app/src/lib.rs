//! Adtally: the command line and the configuration. Everything that the binary does, as a library.
//!
//! - **Receives** arguments, configuration files and the environment.
//! - **Emits** exit codes, reports on stdout and stderr, and a running [`Service`](adtally_engine::Service).
//! - **Promises** that an error says what is wrong, where, and what to do.
//! - **Never** decides verdicts, writes HTTP answers or contains the run loop.

pub mod cli;
pub mod commands;
pub mod config;
pub mod exit;
pub mod handles;
pub mod inspect;
mod limits;
mod pattern;
pub mod terminal;
