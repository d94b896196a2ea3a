//! Where results live.
//!
//! - **Receives** epochs to commit, files to stage, questions.
//! - **Emits** recovered state, Delta tables that anyone can read, answers.
//! - **Promises** that creating an epoch record is the commit and everything else a projection of the log, redone
//!   idempotently; that answers about closed minutes come from committed epochs only and are exact.
//! - **Never** judges a line, reads a clock, or acknowledges what is not durable.

pub mod backing;
pub mod data_dir;
pub mod durable;
pub mod embedded;
pub mod epoch_log;
pub mod fail_points;
pub mod hot_counts;
pub mod lake;
pub mod questions;
