//! Seeded simulation: the real run loop, recovery, committer, projector, upkeep, epoch log and tailer, turned by hand in a
//! world
//! of simulated clocks, disks, logs and luck.
//!
//! - **Receives** a seed, and perhaps a bug to plant.
//! - **Emits** an [`Outcome`]: what happened, and what did not hold.
//! - **Promises** that a seed always plays the same; that after every recovery and at the end the log is one linear
//!   chain, ledgers add up, the lake is what the log says, every click is counted exactly once, and a client's minutes
//!   never lose what they were told to have.
//! - **Never** touches a real disk, clock or network, starts a thread of its own or sleeps.
//!
//! The lake is a model behind its trait, since the libraries of the real one have threads and clocks of their own.

mod disk;
mod files;
mod judge;
mod lake;
mod lake_files;
mod machine;
mod plant;
mod process;
mod random;
mod scenario;
mod servers;
mod store;
mod world;

pub use plant::Plant;
pub use world::{Outcome, simulate};
