//! Hashes that identify a file by its content.

use siphasher::sip::SipHasher24;
use std::hash::Hasher;

/// First bytes of text that a fingerprint covers: several lines, so that two logs rarely have the same ones.
pub(super) const HEAD_BYTES: usize = 1024;

/// Bytes of text before the position that a fingerprint covers.
pub(super) const TAIL_BYTES: usize = 1024;

/// SipHash-2-4 with a fixed key: it is stored in the epoch log, so it must never change.
pub(super) fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = SipHasher24::new_with_key(b"adtally content1");
    hasher.write(bytes);
    hasher.finish()
}

/// A piece of a text: its first bytes, or the bytes before a position.
#[derive(Clone, Debug, Default)]
pub(super) struct Excerpt {
    /// The number of bytes that the hash covers.
    pub(super) len: usize,
    /// Hash of these bytes.
    pub(super) hash: u64,
    /// The bytes themselves, if they were read in this run.
    pub(super) bytes: Vec<u8>,
}

impl Excerpt {
    /// The excerpt of these bytes.
    pub(super) fn of(mut bytes: Vec<u8>) -> Excerpt {
        // There may be very many excerpts of short files.
        bytes.shrink_to_fit();
        Excerpt { len: bytes.len(), hash: hash(&bytes), bytes }
    }

    /// An excerpt of which only the hash is known.
    pub(super) fn known(len: u32, hash: u64) -> Excerpt {
        Excerpt { len: len as usize, hash, bytes: Vec::new() }
    }

    /// Whether a text begins with it.
    pub(super) fn begins(&self, text: &[u8]) -> bool {
        text.len() >= self.len && (self.len == 0 || hash(&text[..self.len]) == self.hash)
    }

    /// Whether a text ends with it.
    pub(super) fn ends(&self, text: &[u8]) -> bool {
        text.len() >= self.len && (self.len == 0 || hash(&text[text.len() - self.len..]) == self.hash)
    }

    /// Extends it by text that was read, keeping the last bytes.
    pub(super) fn push(&mut self, text: &[u8]) {
        push_tail(&mut self.bytes, text);
        self.len = self.bytes.len();
        self.hash = hash(&self.bytes);
    }
}

/// Appends to a window of the last [`TAIL_BYTES`] bytes.
pub(super) fn push_tail(tail: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.len() >= TAIL_BYTES {
        tail.clear();
        tail.extend_from_slice(&bytes[bytes.len() - TAIL_BYTES..]);
    } else {
        let keep = (TAIL_BYTES - bytes.len()).min(tail.len());
        tail.drain(..tail.len() - keep);
        tail.extend_from_slice(bytes);
    }
}

/// The first bytes of a plain file without trailing NUL bytes, which text may replace.
pub(super) fn without_padding(mut head: Vec<u8>) -> Vec<u8> {
    head.truncate(head.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1));
    head
}
