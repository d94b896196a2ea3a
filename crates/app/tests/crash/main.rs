//! Crashes: wherever a process dies in its use of the stores, the next one counts every click once.
//!
//! - `oracle`: logs with every kind of line, and their expected results, by independent code.
//! - `faulty_store`: object stores that fail before or after a chosen operation.
//! - `deployment`: processes over stores that outlive them, and checks of the stored data.
//! - `deaths`: a death before and after every single operation, at every stage of a log's life; two deaths in a row.
//! - `lost_data`: records or tables are lost.
//! - `lost_replies`: completed writes are reported as failed, and the process lives on.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail the test; clippy only knows the tests themselves")]

mod deaths;
mod deployment;
mod faulty_store;
mod lost_data;
mod lost_replies;
mod oracle;
