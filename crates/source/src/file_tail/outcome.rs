//! What the tailer reports to its caller: changes of files, results of reads, and facts to persist.

use crate::block::Block;
use adtally_model::input::Fingerprint;
use adtally_model::{Error, FileLog, InputId, InputLog, InputRow, Position};
use std::sync::Arc;

/// The facts to persist about an input, so that it is recognized again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InputFacts {
    /// The input.
    pub input: InputId,
    /// The path at which it was last seen.
    pub name: Arc<str>,
    /// The fingerprint of its content at the requested position.
    pub fingerprint: Fingerprint,
    /// How often its path had begun anew when it was found.
    pub generation: u32,
    /// Whether its file is compressed. Positions refer to the text in any case.
    pub compressed: bool,
    /// The header line under which its rows are read, if it is CSV.
    pub csv_header: Option<Arc<[u8]>>,
    /// The largest known size of its text, in bytes. For a compressed file, bytes on disk: while it is being read,
    /// those that are left to read; after its end, its length, or 0 if not everything was read.
    pub size: u64,
}

impl InputFacts {
    /// The row of an input that was just found, of which nothing was read from this position on.
    pub fn new_row(&self, position: u64) -> InputRow {
        let file = FileLog {
            fingerprint: self.fingerprint,
            generation: self.generation,
            compressed: self.compressed,
            size: self.size,
            position: Position::at(position),
            csv_header: None,
        };
        let row = InputRow::new(self.input, self.name.clone(), self.generation);
        InputRow { log: InputLog::File(file), ..row }
    }

    /// Updates what a row says about its file. The position is the caller's.
    pub fn describe(&self, row: &mut InputRow) {
        row.name.clone_from(&self.name);
        let Some(file) = row.file_mut() else { return };
        file.fingerprint = self.fingerprint;
        file.size = self.size;
        file.compressed = self.compressed;
        file.csv_header.clone_from(&self.csv_header);
    }
}

/// A result of a look at the files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Discovery {
    /// A new input.
    Found {
        /// The facts to persist about it.
        facts: InputFacts,
        /// Offset in its text at which reading starts, in bytes.
        position: u64,
    },
    /// An input that the epoch log knew as not ended was found again; reading continues at its position.
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
    /// Bytes of an input that can never be read. Its end follows, unless it was reported before. The caller must answer
    /// with [`Tailer::gap_booked`](super::Tailer::gap_booked).
    Gap {
        /// The input.
        input: InputId,
        /// The number of bytes: of text, or of compressed bytes if the text is not known.
        bytes: u64,
        /// What happened.
        reason: String,
    },
    /// Offsets that a topic has lost before they were read.
    LostOffsets {
        /// The input of records without a stamp.
        input: InputId,
        /// Their number.
        offsets: u64,
    },
}

/// The result of a read.
#[derive(Debug)]
pub enum ReadOutcome<B = Block> {
    /// Complete lines.
    Block(B),
    /// Nothing yet, but the input is not at its end: it is skipping text that was read before, or searching for the end
    /// of a long line. Read again.
    Busy,
    /// Nothing more at present.
    AtEnd,
    /// Nothing more, unless the input is resumed. If there is a gap, only
    /// [`Tailer::discover`](super::Tailer::discover) reports the end.
    Ended,
    /// Its file cannot be read at present. The input does not count as idle.
    Unreadable(Error),
    /// It has to wait until fewer compressed files are being read. The input does not count as idle.
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

/// The progress of a run, in bytes on disk (compressed bytes for compressed files), relative to the bytes that existed
/// when each input was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Bytes to be read.
    pub total_bytes: u64,
    /// Bytes read.
    pub read_bytes: u64,
}

/// A path that may contain files to read and could not be examined so far.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unopened {
    /// Since when, in monotonic milliseconds.
    pub since_ms: i64,
    /// The path and the reason, in words.
    pub reason: String,
    /// Whether waiting alone does not help.
    pub is_lasting: bool,
}
