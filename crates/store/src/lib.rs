//! The stores of results.
//!
//! - **Receives** epochs to commit, files to stage, questions.
//! - **Emits** recovered state, Delta tables that any reader can open, and answers.
//! - **Promises** that creating an epoch record is the commit and everything else is a repeatable projection of the
//!   log; that answers about closed minutes come only from committed epochs and are exact.
//! - **Never** decides verdicts, reads a clock, or acknowledges data that is not durable.

pub mod backing;
pub mod data_dir;
pub mod durable;
pub mod embedded;
pub mod epoch_log;
pub mod fail_points;
pub mod hot_counts;
pub mod lake;
mod probe;
pub mod questions;
mod remote;
pub mod sources;
