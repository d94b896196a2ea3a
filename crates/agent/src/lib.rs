//! The agent: it tails log files as an embedded process does, and produces their lines to a topic.
//!
//! `agent` reads, guards the times of each log, and packs lines into records. `input` is the state of one log. `journal`
//! keeps how far each log is safe in Kafka. `produce` is the interface to the client of Kafka. `repartition` is an agent
//! that reads a topic, with a contract of its own.
//!
//! - **Receives** settings, log files, a clock, and a producer.
//! - **Emits** records of whole lines of one log for one partition, stamped with the log's watermark before the first line.
//! - **Promises** that each line is produced at least once, in the order of its log within its partition; that a position
//!   moves only when everything before it was acknowledged; that stamps are those that an embedded process would compute; and
//!   that memory is bounded however long the brokers are away.
//! - **Never** drops, changes or counts a line, or decides a verdict.

pub mod agent;
mod input;
pub mod journal;
pub mod produce;
pub mod repartition;
pub mod settings;
#[cfg(test)]
mod tests;

pub use agent::{Agent, AgentParts, Turn};
pub use journal::{AGENT, Journal};
pub use produce::{Outcome, Outgoing, Produce};
pub use settings::AgentSettings;
