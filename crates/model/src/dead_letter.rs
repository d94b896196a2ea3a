//! Verdicts, and the lines that are not counted.

use crate::{ClickRef, Country, Watermark};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

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

/// The word in the column `verdict` of a dead letter that is a copy of another user's click.
pub const CONFLICT: &str = "conflict";

/// How the reason of such a dead letter begins; the click id that both bear follows to its end.
pub const CONFLICT_OF: &str = "another user_id or ip than that of the click counted under click_id ";

/// A line that is kept for reconciliation or repair instead of being counted.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// Why it is not counted. Of duplicates only those are kept that differ in user or address from the click that was
    /// counted.
    pub verdict: Verdict,
    /// In words, for a person.
    pub reason: Cow<'static, str>,
    /// The line's first [`PAYLOAD_BYTES_MAX`] bytes as they came.
    pub payload: Vec<u8>,
    /// Name of the input.
    pub input: Arc<str>,
    /// Where the line begins, in bytes of the input's uncompressed text.
    pub position: u64,
    /// When it was judged, by the guarded clock.
    pub received_at_ms: i64,
    /// Its click, where the line is one: of all letters but malformed and invalid ones.
    pub click: Option<JudgedClick>,
}

/// The click of a dead letter, whole however long its line was. It shares nothing with its block, which may be large.
#[derive(Clone, Debug)]
pub struct JudgedClick {
    event_time_ms: i64,
    ad_id: u64,
    country: Country,
    ip: u128,
    user_id: Box<[u8]>,
    click_id: Box<[u8]>,
    /// The watermark of its input right before its line.
    pub watermark: Watermark,
}

impl JudgedClick {
    /// A click that was judged when its input's watermark was `watermark`.
    pub fn new(click: &ClickRef<'_>, watermark: Watermark) -> JudgedClick {
        let &ClickRef { event_time_ms, ad_id, country, ip, user_id, click_id } = click;
        JudgedClick { event_time_ms, ad_id, country, ip, user_id: user_id.into(), click_id: click_id.into(), watermark }
    }

    /// Its fields.
    pub fn fields(&self) -> ClickRef<'_> {
        let &JudgedClick { event_time_ms, ad_id, country, ip, ref user_id, ref click_id, .. } = self;
        ClickRef { event_time_ms, ad_id, country, ip, user_id, click_id }
    }
}

impl DeadLetter {
    /// The word in the column `verdict`: that of the ledger, and [`CONFLICT`] for a duplicate.
    pub fn cause(&self) -> &'static str {
        if self.verdict == Verdict::Duplicate { CONFLICT } else { self.verdict.as_str() }
    }
}

/// What lines have in common that are turned down for the same reason: its text with each number left out. `json: expected
/// a comma at byte 17` is the same as at byte 18, and one wrong unit makes one reason of all times.
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
