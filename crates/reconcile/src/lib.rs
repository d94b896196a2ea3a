//! The room that checks what the others wrote, by a path of its own.
//!
//! - **Receives** a data directory, or a lake, and what a new log is written under.
//! - **Emits** what was checked and what is wrong ([`Findings`]), and the state that a lost epoch log is written anew from.
//! - **Promises** that what is stored is compared as records, tables and SQL tell it.
//! - **Never** imports the pipeline: a checker that shares code with what it checks shares its faults. It changes nothing.

mod rebuild;
mod verify;

pub use rebuild::{Rebuilt, rebuild};
pub use verify::{Findings, verify};
