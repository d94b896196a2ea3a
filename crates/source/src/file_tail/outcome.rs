//! What the tailer tells its caller: what happened to files, what a read brought, and what is to be persisted.

use crate::block::Block;
use adtally_model::input::Fingerprint;
use adtally_model::{Error, InputId};
use std::sync::Arc;

/// What is to be persisted of an input, for it to be known again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InputFacts {
    /// The input.
    pub input: InputId,
    /// The path at which it was last seen.
    pub name: Arc<str>,
    /// By what its content is known again, as of the position asked for.
    pub fingerprint: Fingerprint,
    /// How often its path had begun anew when it was found.
    pub generation: u32,
    /// Whether its file is compressed; positions are of the text all the same.
    pub compressed: bool,
    /// The header line under which its rows are read, if it is CSV.
    pub csv_header: Option<Arc<[u8]>>,
    /// The largest size seen, in bytes, of its text. Of a compressed file, on disk: what is left to be read of it, and once
    /// it has ended its length, 0 where not all was read.
    pub size: u64,
}

/// What a look at the files found out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Discovery {
    /// A new input.
    Found {
        /// What is to be persisted of it.
        facts: InputFacts,
        /// Offset in its text at which reading starts, in bytes.
        position: u64,
    },
    /// An input that the epoch log knew as not ended was found again; reading goes on at its position.
    Continued {
        /// The input.
        input: InputId,
    },
    /// An input's file has another name now.
    Renamed {
        /// The input.
        input: InputId,
        /// The new name.
        name: Arc<str>,
    },
    /// An input that had ended has more to read.
    Resumed {
        /// The input.
        input: InputId,
    },
    /// An input is gone or read for good.
    Ended {
        /// The input.
        input: InputId,
    },
    /// Bytes of an input that can never be read; its end follows, if that was not told before. To be answered with
    /// [`Tailer::gap_booked`](super::Tailer::gap_booked).
    Gap {
        /// The input.
        input: InputId,
        /// How many: of text, or of compressed bytes where the text is not known.
        bytes: u64,
        /// What happened.
        reason: String,
    },
}

/// What a read brought.
#[derive(Debug)]
pub enum ReadOutcome<B = Block> {
    /// Whole lines.
    Block(B),
    /// Nothing yet, but the input is not at its end: it is on its way through text that was read before, or through a
    /// line without end. Read again.
    Busy,
    /// Nothing more for the moment.
    AtEnd,
    /// Nothing more ever, unless the input is resumed. Where there is a gap, only
    /// [`Tailer::discover`](super::Tailer::discover) tells the end.
    Ended,
    /// Its file cannot be read just now; that is not idleness.
    Unreadable(Error),
    /// It has to wait until fewer compressed files are being read; that is not idleness either.
    Waits,
}

impl<B> ReadOutcome<B> {
    /// The same with another kind of block.
    pub fn map<C>(self, block: impl FnOnce(B) -> C) -> ReadOutcome<C> {
        match self {
            ReadOutcome::Block(read) => ReadOutcome::Block(block(read)),
            ReadOutcome::Busy => ReadOutcome::Busy,
            ReadOutcome::AtEnd => ReadOutcome::AtEnd,
            ReadOutcome::Ended => ReadOutcome::Ended,
            ReadOutcome::Unreadable(error) => ReadOutcome::Unreadable(error),
            ReadOutcome::Waits => ReadOutcome::Waits,
        }
    }
}

/// How far a run has come, in bytes on disk (compressed ones for compressed files), of what there was to read when each
/// input was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Bytes to be read.
    pub total_bytes: u64,
    /// Bytes read.
    pub read_bytes: u64,
}

/// Something that may hold files to be read and could not be looked at so far.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unopened {
    /// Since when, in monotonic milliseconds.
    pub since_ms: i64,
    /// What and why, for people.
    pub reason: String,
    /// Whether waiting alone will not help.
    pub is_lasting: bool,
}
