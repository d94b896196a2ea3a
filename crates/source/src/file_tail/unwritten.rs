//! NUL bytes in plain files: preallocated space that is not written yet, or a gap that a writer left before its text.
//!
//! It cannot be known whether text will replace NUL bytes. As long as no text follows them, they count as the end of
//! the file and are scanned for text. Once text follows, they belong to no line.

use super::settings::SCAN_BYTES_MAX;
use crate::decode::nul_bytes;
use crate::file_system::{TailFile, read_range};
use std::io;

/// Bytes scanned at a time.
const PIECE_BYTES: usize = 256 * 1024;

/// How far NUL bytes have been scanned.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct NulScan {
    /// The offset of the first NUL byte.
    start: u64,
    /// The offset up to which there are only NUL bytes.
    to: u64,
    /// Whether this is the final scan from their beginning, after the file was complete.
    last: bool,
}

impl NulScan {
    /// Whether the final scan found only NUL bytes up to this length of the file.
    pub(super) fn is_last(&self, len: u64) -> bool {
        self.last && self.to >= len
    }
}

/// What follows NUL bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Behind {
    /// Text, from this offset on.
    Text(u64),
    /// Nothing before the end of the file.
    Nothing,
    /// Not known yet: the run of NUL bytes is long.
    Unknown,
}

/// Searches for text after the NUL bytes that begin at `start`, scanning at most [`SCAN_BYTES_MAX`] per call. While a
/// writer may still replace them from their beginning, bytes that were already scanned (`known`) are not scanned again.
/// A complete file is scanned once more from `start`.
pub(super) fn behind(
    known: &mut Option<Box<NulScan>>,
    file: &mut dyn TailFile,
    start: u64,
    end: u64,
    complete: bool,
) -> io::Result<Behind> {
    let mut scan = match known.as_deref().copied() {
        Some(scan) if scan.start == start && (scan.last || !complete) && scan.to <= end => scan,
        _ => NulScan { start, to: start, last: complete },
    };
    let stop = scan.to.saturating_add(SCAN_BYTES_MAX);
    while scan.to < end && scan.to < stop {
        let want = (end - scan.to).min(PIECE_BYTES as u64) as usize;
        let piece = read_range(file, scan.to, want)?;
        if piece.is_empty() {
            break;
        }
        let nul = nul_bytes::leading(&piece);
        scan.to += nul as u64;
        if nul < piece.len() {
            *known = None;
            return Ok(Behind::Text(scan.to));
        }
    }
    *known = Some(Box::new(scan));
    Ok(if scan.to >= stop && scan.to < end { Behind::Unknown } else { Behind::Nothing })
}
