//! The engine: the run loop, which passes clicks from room to room.
//!
//! `ingest` (tail, decode, judge) -> `commit` (stage files, create the epoch record) -> `project` (update the lake).
//! `upkeep` maintains the lake. Each runs on its own threads with a bounded queue before it. `ingest` itself is a state
//! machine that a caller may also run step by step.
//!
//! - **Receives** settings, a clock and randomness.
//! - **Emits** epochs to the log, the hot counts and the lake, and the state of the process ([`status`]).
//! - **Promises** that data passes between rooms only here.
//! - **Never** decides verdicts, and knows neither HTTP nor the command line.

pub mod clock;
pub mod commit;
pub mod decode_pool;
pub mod engine;
pub mod files;
pub mod first_rejections;
pub mod ingest;
pub mod line_notes;
pub mod options;
pub mod project;
pub mod recovery;
pub mod report;
pub mod service;
pub mod settings;
pub mod start;
pub mod status;
pub mod upkeep;

pub use options::{ATTEMPTS_MAX, Ending, RunOptions};
pub use service::{Backing, Service, Summary};
pub use settings::{Bounds, EpochSettings, Settings, SourceSettings, StoreSettings};
pub use start::{LateQuestions, ServiceStart};
