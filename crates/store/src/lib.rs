//! The stores of results.
//!
//! - **Receives** epochs to commit, files to stage, questions.
//! - **Emits** recovered state, Delta tables that any reader can read, and answers.
//! - **Promises** that creating an epoch record is the commit and everything else is a projection of the log, which can
//!   be repeated safely; that answers about closed minutes come only from committed epochs and are exact.
//! - **Never** decides verdicts, reads a clock, or acknowledges what is not durable.

pub mod backing;
pub mod data_dir;
pub mod durable;
pub mod embedded;
pub mod epoch_log;
pub mod fail_points;
pub mod hot_counts;
pub mod lake;
pub mod questions;
