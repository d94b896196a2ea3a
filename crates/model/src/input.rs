//! Inputs: the sources of lines, how far each was read, and its event time.

use crate::{Ledger, Position};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// Number of an input within its partition's epoch log, in discovery order, from 1. It is never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct InputId(pub u64);

impl fmt::Display for InputId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The unit that a source reads and pauses: a file or a Kafka partition. A file's lane has the number of its input.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LaneId(pub u64);

impl From<InputId> for LaneId {
    fn from(InputId(number): InputId) -> LaneId {
        LaneId(number)
    }
}

/// Hashes of a file's content that identify the file. Its path or inode alone never identifies it.
///
/// All lengths are bytes of uncompressed text; hashes are SipHash-2-4 with a fixed key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Number of first bytes covered by `head_hash`; grows with the file up to a bound.
    pub head_len: u32,
    /// Hash of the first `head_len` bytes.
    pub head_hash: u64,
    /// Number of bytes before the position covered by `tail_hash`.
    pub tail_len: u32,
    /// Hash of the `tail_len` bytes that end at the position. It reveals a file that was truncated and has grown again.
    pub tail_hash: u64,
}

/// The guarded event time of an input.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct InputTime {
    /// Its largest guarded event time; `None` until enough lines were accepted.
    pub largest_ms: Option<i64>,
    /// Number of consecutive accepted lines beyond the bound (or of accepted lines, before there is a largest).
    pub run: u32,
    /// The least event time of these lines; meaningless while `run` is 0.
    pub run_least_ms: i64,
    /// When its watermark last advanced, by the guarded clock.
    pub advanced_at_ms: i64,
}

/// Whether an input holds its partition's watermark.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InputStatus {
    /// It may still deliver lines, so the partition waits for it.
    #[default]
    Holding,
    /// At its end and its watermark has not advanced for `idle_timeout`.
    Idle,
    /// Removed, or completely read and finished.
    Ended,
    /// It is so far behind other inputs that the partition no longer waits for it (`dedup_capacity`).
    Released,
    /// It could not be opened or read for `idle_timeout`; a live run does not wait for it. Not part of format 1.
    Unreadable,
}

/// The record of one input in an epoch. There may be very many, so they are shared instead of copied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InputRow {
    /// Its number.
    pub id: InputId,
    /// Its display name: for a file, the path at which it was last seen.
    pub name: Arc<str>,
    /// Its permanent name in tables, see [`origin`]. (`origin`, position) identifies one line or one record. Not part
    /// of format 1.
    pub origin: Arc<str>,
    /// How it is read, and its file if it is one.
    pub log: InputLog,
    /// Its guarded event time.
    pub time: InputTime,
    /// Whether it holds the partition's watermark.
    pub status: InputStatus,
    /// Its lines by verdict, cumulative.
    pub ledger: Ledger,
    /// When it was last seen, by the guarded clock. Rows not seen for 30 days are summed into one.
    pub seen_at_ms: i64,
}

/// How an input is read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum InputLog {
    /// As a file, which has its own position.
    File(FileLog),
    /// In the records of a lane that several inputs share. [`Progress::source`](crate::Progress::source) is the
    /// position of that lane.
    Records,
}

/// A file, including the file that it is rotated into.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FileLog {
    /// Hashes that identify its content.
    pub fingerprint: Fingerprint,
    /// How often its path had begun anew (truncation, rotation) when the input was found.
    pub generation: u32,
    /// Whether the file is compressed. Positions are always in uncompressed text.
    pub compressed: bool,
    /// Uncompressed: the largest size seen, in bytes. Compressed, in bytes on disk: while it is read, the bytes left to
    /// read; after its end, the file's length, or 0 if not all was read.
    pub size: u64,
    /// The range read in the epoch.
    pub position: Position,
    /// The header line of a CSV log without its line ending, for a log that continues without it. Not part of format 1.
    pub csv_header: Option<Arc<[u8]>>,
}

impl InputRow {
    /// An unread file just found at a path that had begun anew `generation` times before.
    pub fn new(id: InputId, name: impl Into<Arc<str>>, generation: u32) -> InputRow {
        let name = name.into();
        let log = InputLog::File(FileLog { generation, ..FileLog::default() });
        InputRow { origin: origin(&name, generation), log, ..InputRow::of_records(id, name) }
    }

    /// An input whose first record was just read.
    pub fn of_records(id: InputId, name: impl Into<Arc<str>>) -> InputRow {
        let name = name.into();
        InputRow {
            id,
            origin: Arc::clone(&name),
            name,
            log: InputLog::Records,
            time: InputTime::default(),
            status: InputStatus::Holding,
            ledger: Ledger::default(),
            seen_at_ms: 0,
        }
    }

    /// The file of the input; `None` if it has none.
    pub fn file(&self) -> Option<&FileLog> {
        match &self.log {
            InputLog::File(file) => Some(file),
            InputLog::Records => None,
        }
    }

    /// Mutable access to the file.
    pub fn file_mut(&mut self) -> Option<&mut FileLog> {
        match &mut self.log {
            InputLog::File(file) => Some(file),
            InputLog::Records => None,
        }
    }

    /// The range of the file read in the epoch; empty if the input has no file.
    pub fn position(&self) -> Position {
        self.file().map_or(Position::at(0), |file| file.position)
    }
}

/// The permanent name of an input in tables: the path at which it was found, followed by `#N` if that path had begun
/// anew N times before. Unlike the path at which an input was last seen, it is unique to the input.
///
/// ```
/// # use adtally_model::input::origin;
/// assert_eq!(&*origin(&"a.log".into(), 0), "a.log");
/// assert_eq!(&*origin(&"a.log".into(), 2), "a.log#2");
/// ```
pub fn origin(path: &Arc<str>, generation: u32) -> Arc<str> {
    match generation {
        0 => Arc::clone(path),
        generation => format!("{path}#{generation}").into(),
    }
}
