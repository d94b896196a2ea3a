//! `[agent]`: how lines are packed into records.

use adtally_model::settings::{KIB, SECOND, Size, Span, Text};
use serde::Deserialize;
use std::time::Duration;

/// Settings of an agent.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct AgentSettings {
    /// Its name, which makes the names of its logs unique; empty means the name of the machine.
    #[serde(deserialize_with = "Text::<0, 128>::owned")]
    pub name: String,
    /// Text after which a record is complete, in bytes.
    #[serde(deserialize_with = "Size::<KIB, { 512 * KIB }>::bytes")]
    pub record_size: usize,
    /// How long a line waits for others.
    #[serde(deserialize_with = "Span::<1, { 10 * SECOND }>::duration")]
    pub linger: Duration,
    /// Whether each line becomes a record of its own, with its `ad_id` as key.
    pub single_lines: bool,
}

impl Default for AgentSettings {
    fn default() -> Self {
        AgentSettings {
            name: String::new(),
            record_size: 64 << 10,
            linger: Duration::from_millis(100),
            single_lines: false,
        }
    }
}
