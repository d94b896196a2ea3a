//! Verdicts, and the lines that are not counted.

use crate::{ClickRef, Country, Watermark};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// Most bytes of a line that a dead letter keeps. Of an invalid line, it keeps all bytes.
pub const PAYLOAD_BYTES_MAX: usize = 4 * 1024;

/// The verdict on a line. Each line gets exactly one: the first that applies, in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Not parsable: syntax, encoding, too long.
    Malformed,
    /// Parsable, but a field breaks the rules of a click.
    Invalid,
    /// Its event time is too far ahead of the clock.
    Future,
    /// A copy of a click whose identity is still known.
    Duplicate,
    /// Its minute is final, or was final for its own input, or cannot be kept in memory.
    Late,
    /// A new click in an open or revisable minute.
    Counted,
}

impl Verdict {
    /// The word used in answers, tables and metrics.
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

/// A line that the decoder rejected as malformed or invalid.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rejected {
    /// Where the line begins, in bytes after its block's `from`.
    pub line_start: u32,
    /// [`Verdict::Malformed`] or [`Verdict::Invalid`].
    pub verdict: Verdict,
    /// The field and its problem: `ad_id: missing`.
    pub reason: Cow<'static, str>,
    /// The line, unchanged, without the line ending; of a malformed line the first [`PAYLOAD_BYTES_MAX`] bytes.
    pub payload: Vec<u8>,
    /// The header of its CSV file, with which the line can be decoded again; `None` of a line of NDJSON.
    pub header: Option<Arc<[u8]>>,
}

/// The value of the column `verdict` for a dead letter that is a copy of another user's click.
pub const CONFLICT: &str = "conflict";

/// The beginning of such a dead letter's reason; the shared click id follows.
pub const CONFLICT_OF: &str = "another user_id or ip than that of the click counted under click_id ";

/// A line that was not counted, kept for reconciliation or repair.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// Why the line is not counted. Duplicates are kept only if their user or address differs from the counted click.
    pub verdict: Verdict,
    /// The reason in words.
    pub reason: Cow<'static, str>,
    /// The line, unchanged: of an invalid line all of it, otherwise the first [`PAYLOAD_BYTES_MAX`] bytes.
    pub payload: Vec<u8>,
    /// The header of its CSV file, if the line was rejected.
    pub header: Option<Arc<[u8]>>,
    /// Name of the input.
    pub input: Arc<str>,
    /// Where the line begins, as a byte offset into the input's uncompressed text.
    pub position: u64,
    /// When the line was judged, by the guarded clock.
    pub received_at_ms: i64,
    /// The click of the line; `None` for malformed and invalid lines.
    pub click: Option<JudgedClick>,
}

/// The complete click of a dead letter, however long its line. It shares no memory with its block, which may be large.
#[derive(Clone, Debug)]
pub struct JudgedClick {
    event_time_ms: i64,
    ad_id: u64,
    country: Country,
    ip: u128,
    user_id: Box<[u8]>,
    click_id: Box<[u8]>,
    /// The watermark of the click's input just before its line.
    pub watermark: Watermark,
}

impl JudgedClick {
    /// A click judged while its input's watermark was `watermark`.
    pub fn new(click: &ClickRef<'_>, watermark: Watermark) -> JudgedClick {
        let &ClickRef { event_time_ms, ad_id, country, ip, user_id, click_id } = click;
        JudgedClick { event_time_ms, ad_id, country, ip, user_id: user_id.into(), click_id: click_id.into(), watermark }
    }

    /// The click's fields.
    pub fn fields(&self) -> ClickRef<'_> {
        let &JudgedClick { event_time_ms, ad_id, country, ip, ref user_id, ref click_id, .. } = self;
        ClickRef { event_time_ms, ad_id, country, ip, user_id, click_id }
    }
}

impl DeadLetter {
    /// The value of the column `verdict`: the ledger's word, or [`CONFLICT`] for a duplicate.
    pub fn cause(&self) -> &'static str {
        if self.verdict == Verdict::Duplicate { CONFLICT } else { self.verdict.as_str() }
    }
}

/// The kind of a reason: its text without numbers. `json: expected a comma at byte 17` and the same at byte 18 are one
/// kind, and a wrong unit gives one kind for all times.
pub fn reason_kind(reason: &str) -> String {
    let mut kind = String::with_capacity(reason.len());
    let mut in_number = false;
    for letter in reason.chars() {
        let is_digit = letter.is_ascii_digit();
        if !is_digit {
            kind.push(letter);
        } else if !in_number {
            kind.push('#');
        }
        in_number = is_digit;
    }
    kind
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_that_differ_in_numbers_alone_are_of_one_kind() {
        let of = |time: u64, place: u64| format!("{time} is 1970-01-21 in ms, at byte {place}");
        assert_eq!(reason_kind(&of(1_767_225_600, 17)), reason_kind(&of(1_767_225_601_000, 9)));
        assert_ne!(reason_kind("ip: missing"), reason_kind("ip: not text"));
        assert_eq!(reason_kind("a 12 b3"), "a # b#");
    }
}
