//! Verdicts, and the lines that are not counted.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

/// Bytes of a line that a dead letter keeps.
pub const PAYLOAD_BYTES_MAX: usize = 4 * 1024;

/// What became of a line. Each line gets exactly one, the first that applies in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Not parsable: syntax, encoding, too long.
    Malformed,
    /// Parsable, but a field breaks the rules of a click.
    Invalid,
    /// Its event time is too far ahead of the clock.
    Future,
    /// A copy of a click that is held.
    Duplicate,
    /// Its minute is final, or was for its own input, or cannot be held.
    Late,
    /// A new click in an open or revisable minute.
    Counted,
}

impl Verdict {
    /// The word that answers, tables and metrics use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Verdict::Malformed => "malformed",
            Verdict::Invalid => "invalid",
            Verdict::Future => "future",
            Verdict::Duplicate => "duplicate",
            Verdict::Late => "late",
            Verdict::Counted => "counted",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A line that the decoder turned down: malformed or invalid.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rejected {
    /// Where the line begins, in bytes after the `from` of its block.
    pub line_start: u32,
    /// [`Verdict::Malformed`] or [`Verdict::Invalid`].
    pub verdict: Verdict,
    /// The field and what is wrong with it: `ad_id: missing`.
    pub reason: Cow<'static, str>,
    /// The line's first [`PAYLOAD_BYTES_MAX`] bytes as they came, without the line ending.
    pub payload: Vec<u8>,
}

/// A line that is kept for reconciliation or repair instead of being counted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeadLetter {
    /// Why it is not counted.
    pub verdict: Verdict,
    /// In words, for a person.
    pub reason: Cow<'static, str>,
    /// The line's first [`PAYLOAD_BYTES_MAX`] bytes as they came.
    pub payload: Vec<u8>,
    /// Name of the input.
    pub input: std::sync::Arc<str>,
    /// Where the line begins, in bytes of the input's uncompressed text.
    pub position: u64,
    /// When it was judged, by the guarded clock.
    pub received_at_ms: i64,
    /// Its event time, where it could be read.
    pub event_time_ms: Option<i64>,
}
