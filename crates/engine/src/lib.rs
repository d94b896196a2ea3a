//! The engine: the run loop, which passes clicks from one room to the next.
//!
//! `ingest` (tail, decode, judge) -> `commit` (stage files, create the epoch record) -> `project` (update the lake).
//! `upkeep` maintains the lake. `service` has one partition, of log files; `worker` has those that a group assigns to it; `lake_node` has none, and answers from the lake. Each of them is a state machine. `service` turns each on its own thread behind a
//! bounded queue; a simulation turns them step by step. `life_cycle` decides how a run ends, and `run` carries it out.
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
pub mod intake;
pub mod lake_node;
pub mod letters;
pub mod life_cycle;
pub mod line_notes;
pub mod options;
pub mod project;
pub mod reconciler;
pub mod recovery;
pub mod report;
pub mod run;
pub mod service;
pub mod settings;
pub mod start;
pub mod status;
pub mod upkeep;
pub mod worker;

pub use options::{ATTEMPTS_MAX, Ending, RunOptions};
pub use run::Summary;
pub use service::{Backing, Service};
pub use settings::{Bounds, EpochSettings, Settings, SourceSettings, StoreSettings};
pub use start::{LateQuestions, ServiceStart};
