//! The engine: the run loop in which clicks cross from room to room.
//!
//! `ingest` (tail, decode, judge) -> `commit` (stage, create the epoch record) -> `project` (bring the lake up to date).
//! `upkeep` keeps the lake in order. Each is a thread with a bounded queue before it; `ingest` itself is a state machine
//! that a caller may turn by hand.
//!
//! - **Receives** settings, a clock and randomness.
//! - **Emits** epochs to the log, the hot counts and the lake, and what it tells of itself ([`status`]).
//! - **Promises** that clicks cross from room to room only here.
//! - **Never** judges a line, and knows neither HTTP nor a command line.

pub mod assembly;
pub mod clock;
pub mod commit;
pub mod decode_pool;
pub mod first_rejections;
pub mod ingest;
pub mod line_notes;
pub mod project;
pub mod recovery;
pub mod report;
pub mod service;
pub mod settings;
pub mod start;
pub mod status;
pub mod upkeep;

pub use service::{ATTEMPTS_MAX, Backing, Ending, RunOptions, Service, Summary};
pub use settings::{EpochSettings, Settings, SourceSettings, StoreSettings};
pub use start::{LateQuestions, ServiceStart};
