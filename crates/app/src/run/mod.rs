//! The run loop: where clicks cross from room to room.
//!
//! `ingest` (tail, decode, judge) -> `commit` (stage, create the epoch record) -> `project` (bring the lake up to date).
//! `upkeep` keeps the lake in order.
//! Each is a thread with a bounded queue before it; `ingest` itself is a state machine that a caller may turn by hand.

pub mod commit;
pub mod decode_pool;
pub mod first_rejections;
pub mod ingest;
pub mod line_notes;
pub mod project;
pub mod recovery;
pub mod report;
pub mod service;
pub mod start;
pub mod upkeep;

pub use service::{ATTEMPTS_MAX, Backing, Ending, RunOptions, Service, Summary};
pub use start::{LateQuestions, ServiceStart};
