//! Inputs: where lines come from, how far each was read and what its clock says.

use crate::{Ledger, Position};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

/// Number of an input within its partition's epoch log, in the order of discovery, from 1. It is never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct InputId(pub u64);

impl fmt::Display for InputId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What a source reads and pauses as a whole: a file, or a Kafka partition. A file's number is that of its input.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LaneId(pub u64);

impl From<InputId> for LaneId {
    fn from(InputId(number): InputId) -> LaneId {
        LaneId(number)
    }
}

/// By what a file is known again: hashes of its content, never its path or inode alone.
///
/// All lengths are bytes of uncompressed text; hashes are SipHash-2-4 with a fixed key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Fingerprint {
    /// How many of the first bytes `head_hash` covers; grows with the file up to a bound.
    pub head_len: u32,
    /// Hash of the first `head_len` bytes.
    pub head_hash: u64,
    /// How many of the last bytes before the position `tail_hash` covers.
    pub tail_len: u32,
    /// Hash of the `tail_len` bytes that end at the position: a file that was cut and has grown again differs here.
    pub tail_hash: u64,
}

/// The guarded event time of an input.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct InputTime {
    /// Its largest guarded event time; none until enough lines were accepted.
    pub largest_ms: Option<i64>,
    /// Accepted lines in a row that lie beyond the bound (or, before there is a largest, accepted lines).
    pub run: u32,
    /// The least event time of that run; of no meaning while `run` is 0.
    pub run_least_ms: i64,
    /// When its watermark last advanced, by the guarded clock.
    pub advanced_at_ms: i64,
}

/// Whether an input holds its partition's watermark.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InputStatus {
    /// It may still deliver lines: the partition waits for it.
    #[default]
    Holding,
    /// At its end and its watermark has not advanced for `idle_timeout`.
    Idle,
    /// Gone, or fully read for good.
    Ended,
    /// It lies so far behind others that the partition does not wait for it any more (`dedup_capacity`).
    Released,
    /// It could not be opened or read for `idle_timeout`: a live run does not wait for it. Not part of format 1.
    Unreadable,
}

/// What an epoch says of one input. There may be very many, so that whoever keeps one shares it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InputRow {
    /// Its number.
    pub id: InputId,
    /// Its name for people: of a file the path at which it was last seen.
    pub name: Arc<str>,
    /// What tables call it for life, see [`origin`]; (`origin`, position) leads to one line, or one record. Not part of
    /// format 1.
    pub origin: Arc<str>,
    /// How it is read.
    pub log: InputLog,
    /// Its guarded event time.
    pub time: InputTime,
    /// Whether it holds the partition.
    pub status: InputStatus,
    /// Its lines by verdict, cumulative.
    pub ledger: Ledger,
    /// When it was last seen, by the guarded clock; rows unseen for 30 days are summed into one.
    pub seen_at_ms: i64,
}

/// How an input is read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum InputLog {
    /// It is a file, which has a position of its own.
    File(FileLog),
    /// It comes in the records of a lane that inputs share. What was read of that is in
    /// [`Progress::source`](crate::Progress::source).
    Records,
}

/// A file, and what it is rotated into.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FileLog {
    /// By what its content is known again.
    pub fingerprint: Fingerprint,
    /// How often its path had begun anew when it was found (truncation, rotation).
    pub generation: u32,
    /// Whether its file is compressed; positions are of the text all the same.
    pub compressed: bool,
    /// The largest size seen, in bytes, of its text. Of a compressed file, on disk: what is left to be read of it, and once
    /// it has ended its length, 0 where not all was read.
    pub size: u64,
    /// What was read of it in the epoch.
    pub position: Position,
    /// The header line of a CSV log without its line ending, kept for a log that goes on without one. Not part of format 1.
    pub csv_header: Option<Arc<[u8]>>,
}

impl InputRow {
    /// A file that was just found at a path which had begun anew `generation` times before; nothing of it is read.
    pub fn new(id: InputId, name: impl Into<Arc<str>>, generation: u32) -> InputRow {
        let name = name.into();
        let log = InputLog::File(FileLog { generation, ..FileLog::default() });
        InputRow { origin: origin(&name, generation), log, ..InputRow::of_records(id, name) }
    }

    /// An input of which the first record was just read.
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

    /// What is known of its file; none where it has none.
    pub fn file(&self) -> Option<&FileLog> {
        match &self.log {
            InputLog::File(file) => Some(file),
            InputLog::Records => None,
        }
    }

    /// The same, to be changed.
    pub fn file_mut(&mut self) -> Option<&mut FileLog> {
        match &mut self.log {
            InputLog::File(file) => Some(file),
            InputLog::Records => None,
        }
    }

    /// What was read of its file in the epoch; nothing where it has none.
    pub fn position(&self) -> Position {
        self.file().map_or(Position::at(0), |file| file.position)
    }
}

/// What tables call an input: the path at which it was found, followed by `#N` where that path had begun anew N times
/// before. Unlike the path at which it was last seen, no other input ever has it.
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
