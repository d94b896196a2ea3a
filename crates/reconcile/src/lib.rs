//! This room checks, recounts and rebuilds stored data with independent code.
//!
//! - **Receives** a data directory or a lake, and the parameters of a new log.
//! - **Emits** what was checked and what is wrong ([`Findings`]), corrections of final minutes ([`ReconcileReport`]), and
//!   the state with which a lost epoch log is rebuilt.
//! - **Promises** that records, tables and SQL results are compared with each other, and that a correction is made once.
//! - **Never** changes anything but through the partition `reconcile`, and never imports the pipeline: a checker that
//!   shares code with what it checks shares its bugs.

mod compare;
mod corrections;
mod intake;
mod letters;
mod plan;
mod rebuild;
mod recount;
mod revert;
mod run;
#[cfg(test)]
mod tests;
mod verify;

pub use corrections::{CorrectionParts, Corrections, Readers, load_hot};
pub use intake::{Intaker, Origin, Outcome, REJECTED_SHOWN_MAX};
pub use letters::{
    Letter, LetterGroup, LetterSelection, REASONS_MAX, Redecode, Tell, Watch, letter_groups, letters, replay,
};
pub use rebuild::{Rebuilt, rebuild};
pub use revert::revert;
pub use run::{Corrected, DAMAGED_SHOWN_MAX, ReconcileOptions, ReconcileReport, reconcile};
pub use verify::{Findings, verify};
