//! An open file, and the text stream of a compressed one.

use super::compressed::{Inflated, Inflater};
use super::fingerprint::push_tail;
use crate::compression::Compression;
use crate::file_system::TailFile;
use std::io;

/// An open file.
pub(super) struct OpenFile {
    pub(super) file: Box<dyn TailFile>,
    /// The text of a compressed file.
    pub(super) stream: Option<Box<Stream>>,
    /// A counter value that grows with each use: the file with the smallest value is closed first.
    pub(super) used: u64,
    /// When it last delivered something, in monotonic milliseconds.
    pub(super) used_at_ms: i64,
}

/// The text stream of a compressed file.
pub(super) struct Stream {
    pub(super) inflater: Inflater,
    /// Text not delivered yet.
    pub(super) carry: Vec<u8>,
    /// Offset in the text at which it begins.
    pub(super) carry_at: u64,
    /// Text right before it.
    pub(super) before: Vec<u8>,
    /// The first bytes of the text, until head and format are known.
    pub(super) prefix: Vec<u8>,
    /// How the last decoding ended.
    pub(super) last: Inflated,
    /// Whether the text before the position was verified against the text that was read.
    pub(super) verified: bool,
    /// When the file had last changed as the stream began, in nanoseconds by the clock of its file system.
    pub(super) begun_ns: i64,
    /// Whether it has to be restarted.
    pub(super) outdated: bool,
}

impl Stream {
    /// A stream at the beginning of a file.
    pub(super) fn new(compression: Compression, begun_ns: i64) -> io::Result<Stream> {
        Ok(Stream {
            inflater: Inflater::new(compression)?,
            carry: Vec::new(),
            carry_at: 0,
            before: Vec::new(),
            prefix: Vec::new(),
            last: Inflated::Full,
            verified: false,
            begun_ns,
            outdated: false,
        })
    }

    /// Decodes until `carry` contains `len` bytes or no more text follows.
    pub(super) fn pull(
        &mut self,
        file: &mut dyn TailFile,
        limit: u64,
        len: usize,
        prefix_len: usize,
    ) -> io::Result<()> {
        if matches!(self.last, Inflated::Corrupt(_)) {
            return Ok(());
        }
        let (had, at) = (self.carry.len(), self.carry_at + self.carry.len() as u64);
        self.last = self.inflater.inflate(file, limit, &mut self.carry, len)?;
        if at == self.prefix.len() as u64 && self.prefix.len() < prefix_len {
            let new = &self.carry[had..];
            self.prefix.extend_from_slice(&new[..new.len().min(prefix_len - self.prefix.len())]);
        }
        Ok(())
    }

    /// Offset in the text up to which it is decoded.
    pub(super) fn end(&self) -> u64 {
        self.carry_at + self.carry.len() as u64
    }

    /// Drops the first bytes of `carry`.
    pub(super) fn pass(&mut self, len: usize) {
        push_tail(&mut self.before, &self.carry[..len]);
        self.carry.drain(..len);
        self.carry_at += len as u64;
    }
}
