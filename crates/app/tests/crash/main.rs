//! Crashes: whatever a process was doing with its stores when it died, the next one counts every click once.
//!
//! - `oracle`: logs with every kind of line, and what they add up to, by code of its own.
//! - `faulty_store`: object stores that fail before or after an operation of our choice.
//! - `deployment`: processes over stores that outlive them, and what must be true of what is stored.
//! - `deaths`: a death before and after every single operation, at every stage of a log's life; two deaths in a row.
//! - `lost_data`: records or tables are gone.
//! - `lost_replies`: what was written is reported as failed, and the process lives on.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail the test; clippy only knows the tests themselves")]

mod deaths;
mod deployment;
mod faulty_store;
mod lost_data;
mod lost_replies;
mod oracle;
