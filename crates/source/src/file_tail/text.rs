//! How far the text of an input was read, and how the text is recognized again.

use super::fingerprint::{Excerpt, hash};
use adtally_model::dead_letter::PAYLOAD_BYTES_MAX;
use adtally_model::input::Fingerprint;
use std::collections::VecDeque;

/// Maximum fingerprints of uncommitted positions: one per block, so enough for some ten thousand blocks.
const MARKS_MAX: usize = 65_536;

/// The text of an input that was read.
#[derive(Debug, Default)]
pub(super) struct Text {
    /// The position up to which it was read, in bytes.
    pub(super) position: u64,
    /// Its first bytes.
    pub(super) head: Excerpt,
    /// Bytes before the position.
    pub(super) tail: Excerpt,
    /// Tails at positions that may not be committed yet, ascending.
    marks: VecDeque<(u64, u32, u64)>,
    /// A line longer than a block whose end was not found yet.
    pub(super) overlong: Option<Box<Overlong>>,
    /// The length of a last line without newline that is known to be incomplete, in bytes.
    pub(super) half: u64,
}

/// A line that is longer than a block.
#[derive(Debug)]
pub(super) struct Overlong {
    /// Its first bytes.
    pub(super) first: Vec<u8>,
    /// The position up to which its end was searched for.
    pub(super) scanned: u64,
    /// Bytes before that position.
    pub(super) tail: Excerpt,
}

impl Overlong {
    /// A line that starts at `from`; `text` is its beginning and does not contain its end.
    pub(super) fn new(from: u64, text: &[u8]) -> Overlong {
        let mut tail = Excerpt::default();
        tail.push(text);
        let first = text[..PAYLOAD_BYTES_MAX.min(text.len())].to_vec();
        Overlong { first, scanned: from + text.len() as u64, tail }
    }
}

impl Text {
    /// A text whose position and fingerprint are known from the epoch log.
    pub(super) fn known(position: u64, fingerprint: &Fingerprint) -> Text {
        let Fingerprint { head_len, head_hash, tail_len, tail_hash } = *fingerprint;
        Text {
            position,
            head: Excerpt::known(head_len, head_hash),
            tail: Excerpt::known(tail_len, tail_hash),
            ..Text::default()
        }
    }

    /// Moves the position to an offset.
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

    /// Notes the text before a position, if it is not known yet.
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
