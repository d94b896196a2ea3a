//! Tests of the binary: what users, operators and accountants see, and no internals.
//!
//! Tools:
//!
//! - `site`: a folder with logs and data, the commands run in it, and a `run` that serves;
//! - `feed`: a writer of growing logs that rotates and compresses them;
//! - `expected`: the exact counts of `adtally generate --truth`.
//!
//! Tests:
//!
//! - `truth`: generated logs, plain and rotated under a running process, give exact answers;
//! - `restarts`: the same after many kills at any moment;
//! - `questions`: both endpoints with every parameter against a recount, and minutes from open to closed to final;
//! - `partitions`: the same logs as a topic with three partitions, and as files;
//! - `problems`: every error that a client can cause, once;
//! - `exits`: every exit code;
//! - `starting`: answers during recovery, and the death of the server;
//! - `streams`: standard input and output, and pipes, in place of files;
//! - `stderr`: only JSON if the log is JSON, and nothing that moves a cursor;
//! - `stopping`: signals at any moment, temporary folders, and a stderr without a reader;
//! - `readme`: every command of the README works and prints what the README shows;
//! - `first_sight`: what a new user sees: the demo, the startup messages of `run`, progress bars on a terminal;
//! - `foreign`: files that are not logs are reported and not read;
//! - `golden`: data directories of earlier formats can be continued;
//! - `commands`: inspect, config, count, completions, JSON, colours and pipes;
//! - `faults`: the faults of `docs/faults.md`, one after another;
//! - `files`: files that are broken, incomplete, deleted, compressed or of yesterday;
//! - `repair`: repairs of damaged or lost data;
//! - `lake`: other programs read the lake and find the same sums;
//! - `upkeep`: sums of hours and days, compaction, retention;
//! - `reconcile`: late clicks are recovered once, and past answers can be asked for;
//! - `repaired_counts`: counts that were altered are repaired once, and damaged clicks are reported;
//! - `intake`: rejected lines that are decoded again, and files that are brought in later, count once;
//! - `spark`: the Spark job finds what `reconcile` finds;
//! - `verify`: the damage that it finds, and what is not damage;
//! - `scale_out`: agents, workers and nodes on a real Kafka and an S3, and their faults; other programs read the lake there.

#![cfg_attr(not(feature = "scale-out"), allow(dead_code, reason = "only tests on Kafka use some helpers"))]
#![allow(clippy::unwrap_used, reason = "helpers of tests may fail the test; clippy only knows the tests themselves")]

mod commands;
mod exits;
mod expected;
mod faults;
mod feed;
mod files;
mod first_sight;
mod foreign;
mod golden;
mod intake;
mod lake;
mod partitions;
mod problems;
mod questions;
mod readme;
mod reconcile;
mod repair;
mod repaired_counts;
mod restarts;
#[cfg(feature = "scale-out")]
mod scale_out;
mod site;
mod spark;
mod starting;
mod stderr;
mod stopping;
mod streams;
mod truth;
mod upkeep;
mod verify;
