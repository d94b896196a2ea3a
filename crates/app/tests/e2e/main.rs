//! The product through its binary: what a user, an operator and an accountant see, and nothing from inside.
//!
//! What the tests stand on:
//!
//! - `site`: a folder with logs and data, the commands run in it, and a `run` that serves;
//! - `feed`: a writer of growing logs that rotates and compresses them;
//! - `expected`: the exact counts that `adtally generate --truth` promises.
//!
//! What they show:
//!
//! - `truth`: generated logs, plain and rotated under a running process, come out exactly, in every answer;
//! - `restarts`: the same after many kills at any moment;
//! - `questions`: both endpoints with every parameter against a recount, and minutes from open to closed to final;
//! - `partitions`: the same logs as a topic with three partitions, and as files;
//! - `problems`: every error that a client can make, once;
//! - `exits`: every exit code;
//! - `starting`: what answers while the state is recovered, and the death of the server;
//! - `streams`: standard input and output, and pipes, in place of files;
//! - `stderr`: JSON and nothing else where the log is JSON, and nothing that moves a cursor;
//! - `stopping`: signals at any moment, temporary folders, and nobody who reads what is said;
//! - `readme`: every command of the README works and prints what the README shows;
//! - `first_sight`: what a newcomer sees: the demo, what `run` says it found, bars on a terminal;
//! - `foreign`: files that are no logs, named and not read;
//! - `golden`: data directories of earlier formats go on;
//! - `commands`: inspect, config, count, completions, JSON, colours and pipes;
//! - `faults`: the faults of `docs/faults.md`, one after another;
//! - `files`: files that are poison, half, gone, compressed or of yesterday;
//! - `repair`: stored data that is damaged or lost, mended;
//! - `lake`: other programs read the lake and find the same sums;
//! - `upkeep`: sums of hours and days, few files, what is no longer kept;
//! - `verify`: what it finds, and what is no damage.

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
mod lake;
mod partitions;
mod problems;
mod questions;
mod readme;
mod repair;
mod restarts;
mod site;
mod starting;
mod stderr;
mod stopping;
mod streams;
mod truth;
mod upkeep;
mod verify;
