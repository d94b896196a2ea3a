//! Seeded simulation of the real run from start to end, with recovery, committers, projector, upkeep, epoch log and
//! tailer. One thread turns them in random order, with simulated clocks, disks, logs and randomness.
//!
//! - **Receives** a seed, and optionally a bug to plant.
//! - **Emits** an [`Outcome`]: what happened, and which guarantee was broken.
//! - **Promises** that a seed always replays exactly. After every recovery, at the end of every run and at the very end
//!   it checks that the log is one linear chain, that ledgers add up, that the lake agrees with the log, that every
//!   click is counted exactly once, that minutes never lose clicks that a client has seen, and that a run without an
//!   error has committed everything that it read.
//! - **Never** touches a real disk, clock or network, starts a thread of its own or sleeps.
//!
//! The lake is a model that implements its trait, because the libraries of the real lake have their own threads and
//! clocks.

mod disk;
mod files;
mod judge;
mod lake;
mod lake_files;
mod machine;
mod plant;
mod process;
mod random;
mod reconciler;
mod scenario;
mod servers;
mod slot;
mod store;
mod stream;
mod topics;
mod world;

pub use plant::Plant;
pub use stream::simulate_stream;
pub use world::{Outcome, simulate};
