//! This room checks and rebuilds stored data with independent code.
//!
//! - **Receives** a data directory or a lake, and the parameters of a new log.
//! - **Emits** what was checked and what is wrong ([`Findings`]), and the state with which a lost epoch log is rebuilt.
//! - **Promises** that records, tables and SQL results are compared with each other.
//! - **Never** changes anything, and never imports the pipeline: a checker that shares code with what it checks shares
//!   its bugs.

mod rebuild;
mod verify;

pub use rebuild::{Rebuilt, rebuild};
pub use verify::{Findings, verify};
