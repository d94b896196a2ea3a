//! NUL bytes in plain files: what was preallocated and is not written yet, and what a writer left before its text.
//!
//! Whether NUL bytes will be written in place is not to be known. They are taken for a file's end as long as nothing
//! stands behind them, and are gone through to find that out; once something does, they belong to no line.

use super::settings::SCAN_BYTES_MAX;
use crate::decode::nul_bytes;
use crate::file_system::{TailFile, read_range};
use std::io;

/// Bytes gone through at a time.
const PIECE_BYTES: usize = 256 * 1024;

/// How far NUL bytes have been gone through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct NulScan {
    /// Where they begin.
    start: u64,
    /// Up to where there are only NUL bytes.
    to: u64,
    /// Whether this goes through them once more, from their beginning, since the file is complete.
    last: bool,
}

impl NulScan {
    /// Whether a file of this length, complete, holds nothing but NUL bytes from their beginning on.
    pub(super) fn is_last(&self, len: u64) -> bool {
        self.last && self.to >= len
    }
}

/// What stands behind NUL bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Behind {
    /// Text, from this offset on.
    Text(u64),
    /// Nothing up to the file's end.
    Nothing,
    /// That is not known yet: it is a long way.
    Unknown,
}

/// Looks for what stands behind the NUL bytes that begin at `start`, at most [`SCAN_BYTES_MAX`] at a time. Those that
/// were gone through before (`known`) are not gone through again while a writer may go on at their beginning; a
/// complete file is gone through from there once more.
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
