//! How files are tailed.

use crate::decode::DecodeSettings;
use adtally_model::settings::{Clash, HOUR, KIB, MIB, Size, Span};
use serde::Deserialize;
use std::sync::Arc;

/// Minimum text delivered at a time, in bytes: some ten lines, which share the cost of a block.
pub const BLOCK_BYTES_MIN: usize = 1024;

/// Bytes scanned in one call without delivering any (an unterminated line, text read before, padding): some ten
/// milliseconds, so that no file delays the others.
pub(super) const SCAN_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// How files are tailed. Skipped fields are not configurable.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(default)]
pub struct TailSettings {
    /// How lines are parsed. The format of each file is detected by the tailer.
    pub decode: Arc<DecodeSettings>,
    /// Text delivered at a time, in bytes; more only where a line is longer.
    #[serde(rename = "block", deserialize_with = "Size::<{ 64 * KIB }, { 64 * MIB }>::bytes")]
    pub block_bytes: usize,
    /// How long to wait for a renamed or deleted file before its input ends, in milliseconds.
    #[serde(rename = "rotate_wait", deserialize_with = "Span::<0, HOUR>::ms")]
    pub rotate_wait_ms: i64,
    /// How long an incomplete compressed file is assumed to be still being written, in milliseconds.
    #[serde(skip)]
    pub incomplete_wait_ms: i64,
    /// In a bounded run: an unterminated last row of CSV that has all its columns is a line if its file was last
    /// written at or before this time, in milliseconds of the wall clock; `None` means that it stays unread. RFC 4180
    /// lets the last row lack its line ending, but the row may still be being written.
    #[serde(skip)]
    pub last_rows_before_ms: Option<i64>,
    /// Whether each file is read only to the size that it had at the first look (`--until-end`).
    #[serde(skip)]
    pub bounded: bool,
    /// Maximum number of followed files; further files are reported but not read.
    #[serde(skip)]
    pub files_max: usize,
    /// Maximum number of open files; other files are opened again when they are read.
    #[serde(skip)]
    pub open_max: usize,
    /// Total memory of the decoders of compressed files, in bytes; the last started decoder may exceed it.
    #[serde(skip)]
    pub stream_bytes_max: usize,
}

impl TailSettings {
    /// Settings that contradict each other.
    pub fn clashes(&self) -> Vec<Clash> {
        let line = Clash {
            one: "input.max_line".into(),
            relation: "must not be more than",
            other: "input.block".into(),
            why: "a line must fit in a block: raise block",
        };
        let line = (self.decode.line_bytes_max > self.block_bytes).then_some(line);
        line.into_iter().chain(self.decode.clashes()).collect()
    }

    /// Text read at a time if a line is longer than a block, in bytes: a line of the maximum length fits, with its
    /// ending and a byte order mark.
    pub(super) fn long_block_bytes(&self) -> usize {
        self.block_bytes.max(2 * self.decode.line_bytes_max)
    }
}

impl Default for TailSettings {
    fn default() -> Self {
        TailSettings {
            decode: Arc::new(DecodeSettings::default()),
            block_bytes: 256 * 1024,
            rotate_wait_ms: 2_000,
            // Copies over slow networks stall now and then.
            incomplete_wait_ms: 60_000,
            last_rows_before_ms: None,
            bounded: false,
            files_max: 262_144,
            // Half of the usual limit of 1,024 handles per process.
            open_max: 512,
            // About 600 gzip decoders, or 50 zstd decoders of the usual level.
            stream_bytes_max: 128 << 20,
        }
    }
}
