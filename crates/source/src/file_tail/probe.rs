//! What the beginning of a file shows about it.

use super::compressed::{Inflated, Inflater};
use super::fingerprint::{HEAD_BYTES, without_padding};
use crate::compression::{Compression, Magic, magic};
use crate::decode::foreign::Foreign;
use crate::file_system::{FileStat, TailFile, read_range};
use std::io;

/// What the beginning of a file shows about it.
#[derive(Debug)]
pub(super) struct Probe {
    pub(super) stat: FileStat,
    pub(super) compression: Option<Compression>,
    /// First bytes of its text.
    pub(super) head: Vec<u8>,
    /// Whether it is too short to decide what it is.
    pub(super) undecided: bool,
    /// If it is not a log, what it is: it is ignored until it changes.
    pub(super) foreign: Option<Foreign>,
    /// When this was first found, in monotonic milliseconds.
    pub(super) since_ms: i64,
}

impl Probe {
    /// The first bytes of the text.
    pub(super) fn head(&self) -> &[u8] {
        &self.head
    }

    /// Whether the file is compressed.
    pub(super) fn is_compressed(&self) -> bool {
        self.compression.is_some()
    }

    /// Whether waiting alone may help.
    pub(super) fn is_undecided(&self) -> bool {
        self.undecided
    }
}

/// Compression, first bytes of text, and whether these are too few to decide.
pub(super) fn probe_file(file: &mut dyn TailFile, last: bool) -> io::Result<(Option<Compression>, Vec<u8>, bool)> {
    let head = read_range(file, 0, HEAD_BYTES)?;
    match magic(&head) {
        Magic::Plain => Ok((None, without_padding(head), false)),
        Magic::Undecided => Ok((None, without_padding(head), !last)),
        Magic::Compressed(compression) => {
            let mut text = Vec::new();
            let last_step = Inflater::new(compression)?.inflate(file, u64::MAX, &mut text, HEAD_BYTES)?;
            // A file that is still being written shows too little text to decide which input it continues.
            let undecided = text.len() < HEAD_BYTES && last_step == Inflated::Starved && !last;
            Ok((Some(compression), text, undecided))
        }
    }
}
