//! How far the text of an input was read, and by what it is known again.

use super::fingerprint::{Excerpt, hash};
use adtally_model::dead_letter::PAYLOAD_BYTES_MAX;
use adtally_model::input::Fingerprint;
use std::collections::VecDeque;

/// Fingerprints kept of positions that are read and not yet committed: one a block, so of some ten thousand blocks.
const MARKS_MAX: usize = 65_536;

/// The text of an input, as far as it was read.
#[derive(Debug, Default)]
pub(super) struct Text {
    /// Up to where it was read, in bytes.
    pub(super) position: u64,
    /// Its first bytes.
    pub(super) head: Excerpt,
    /// Bytes before the position.
    pub(super) tail: Excerpt,
    /// Tails at positions read but perhaps not committed, ascending.
    marks: VecDeque<(u64, u32, u64)>,
    /// A line longer than a block whose end has not been found yet.
    pub(super) overlong: Option<Box<Overlong>>,
    /// Bytes of a last line without end that is no whole object, once that is known.
    pub(super) half: u64,
}

/// A line that is longer than a block.
#[derive(Debug)]
pub(super) struct Overlong {
    /// Its first bytes.
    pub(super) first: Vec<u8>,
    /// Up to where it has been searched for its end.
    pub(super) scanned: u64,
    /// Bytes before that.
    pub(super) tail: Excerpt,
}

impl Overlong {
    /// A line that begins at an offset with a text in which it does not end.
    pub(super) fn new(from: u64, text: &[u8]) -> Overlong {
        let mut tail = Excerpt::default();
        tail.push(text);
        let first = text[..PAYLOAD_BYTES_MAX.min(text.len())].to_vec();
        Overlong { first, scanned: from + text.len() as u64, tail }
    }
}

impl Text {
    /// A text of which the epoch log knows a position and the fingerprint there.
    pub(super) fn known(position: u64, fingerprint: &Fingerprint) -> Text {
        let Fingerprint { head_len, head_hash, tail_len, tail_hash } = *fingerprint;
        Text {
            position,
            head: Excerpt::known(head_len, head_hash),
            tail: Excerpt::known(tail_len, tail_hash),
            ..Text::default()
        }
    }

    /// Notes that text up to an offset was read.
    pub(super) fn advance(&mut self, to: u64) {
        self.position = to;
        if self.marks.len() >= MARKS_MAX {
            self.marks.pop_front();
        }
        self.marks.push_back((to, self.tail.len as u32, self.tail.hash));
    }

    /// Whether the text before a position is known.
    pub(super) fn has_mark(&self, position: u64) -> bool {
        self.marks.binary_search_by_key(&position, |mark| mark.0).is_ok()
    }

    /// Notes the text before a position of which it is not known.
    pub(super) fn mark(&mut self, position: u64, text: &[u8]) {
        if let Err(at) = self.marks.binary_search_by_key(&position, |mark| mark.0) {
            self.marks.insert(at, (position, text.len() as u32, hash(text)));
        }
    }

    /// The fingerprint at a position that was read; marks before it are dropped.
    pub(super) fn fingerprint(&mut self, position: u64) -> Fingerprint {
        while self.marks.front().is_some_and(|mark| mark.0 < position) {
            self.marks.pop_front();
        }
        if position == self.position {
            self.marks = VecDeque::new();
        }
        let (tail_len, tail_hash) = match self.marks.front() {
            Some(&(at, len, hash)) if at == position => (len, hash),
            _ if position == self.position => (self.tail.len as u32, self.tail.hash),
            _ => (0, 0),
        };
        Fingerprint { head_len: self.head.len as u32, head_hash: self.head.hash, tail_len, tail_hash }
    }

    /// Releases bytes that can be read again: those before the position, and if `head` is set, the first ones.
    pub(super) fn release_buffers(&mut self, head: bool) {
        self.tail.bytes = Vec::new();
        if head {
            self.head.bytes = Vec::new();
        }
        self.marks.shrink_to_fit();
    }
}
