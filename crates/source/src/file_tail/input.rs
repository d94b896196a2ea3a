//! What the tailer knows of one input.

use super::compressed::{Inflated, Inflater};
use super::fingerprint::Excerpt;
use super::{InputFacts, TailSettings};
use crate::block::Format;
use crate::file_system::{FileStat, TailFile};
use adtally_model::input::Fingerprint;
use adtally_model::{InputId, InputRow, InputStatus};
use std::collections::VecDeque;
use std::path::PathBuf;

/// Fingerprints kept of positions that are read and not yet committed: one a block, so of some ten thousand blocks.
const MARKS_MAX: usize = 65_536;

/// One lineage: a file and what it is rotated into.
pub(super) struct Input {
    pub(super) id: InputId,
    /// The path at which it was last seen.
    pub(super) name: String,
    pub(super) generation: u32,
    /// Whether its file, at the moment, is compressed.
    pub(super) compressed: bool,
    /// Where its file is listed now.
    pub(super) place: Option<PathBuf>,
    /// What its file looked like last.
    pub(super) stat: Option<FileStat>,
    /// Its file, while it is held open.
    pub(super) file: Option<OpenFile>,
    /// Up to where it was read, in bytes of text.
    pub(super) position: u64,
    /// First bytes of its text.
    pub(super) head: Excerpt,
    /// Bytes before the position.
    pub(super) tail: Excerpt,
    /// Tails at positions read but perhaps not committed, ascending.
    marks: VecDeque<(u64, u32, u64)>,
    /// Largest size that was seen: of its text, or on disk while it is compressed.
    pub(super) size: u64,
    /// While it is compressed: bytes on disk that were decoded.
    pub(super) consumed: u64,
    /// Length of its file when all that can be read of it had been read.
    pub(super) settled: Option<u64>,
    pub(super) stage: Stage,
    /// Whether it has left the path at which it was written.
    pub(super) rotated: bool,
    /// When its file last grew or moved, in monotonic milliseconds.
    pub(super) changed_at_ms: i64,
    /// In a bounded run: how many bytes of its file are to be read.
    pub(super) limit: Option<u64>,
    /// Read for good; [`Stage::Ended`] follows with the next look.
    pub(super) done: bool,
    /// Bytes that cannot be read and why, to be told with the next look.
    pub(super) gap: Option<(u64, String)>,
    pub(super) format: Option<Format>,
    /// A line longer than a block whose end has not been found yet.
    pub(super) overlong: Option<Overlong>,
    /// Inode of a file that looked like this input's and turned out not to be.
    pub(super) refused: Option<(u64, u64)>,
    /// Bytes on disk that were read already when it was found, and whether it counts for progress.
    pub(super) begun_at: Option<u64>,
    /// Whether it is known from the epoch log and has not been seen yet in this run.
    pub(super) restored: bool,
}

/// Where an input is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// It has a file.
    Active,
    /// Its file is gone or not its own any more; it may turn up elsewhere. Since when, once a look has seen it.
    Lost(Option<i64>),
    /// Gone, or read for good.
    Ended,
}

/// A file held open.
pub(super) struct OpenFile {
    pub(super) file: Box<dyn TailFile>,
    /// The text of a compressed file.
    pub(super) stream: Option<Stream>,
    /// Counts up with each use: the least is closed first.
    pub(super) used: u64,
}

/// Text of a compressed file on its way.
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
    /// Whether the text before the position was found to be what was read.
    pub(super) verified: bool,
}

/// A line that is longer than a block.
#[derive(Debug)]
pub(super) struct Overlong {
    /// Its first bytes.
    pub(super) first: Vec<u8>,
    /// Up to where it has been searched for its end.
    pub(super) scanned: u64,
    /// Bytes before that.
    pub(super) tail: Excerpt,
}

impl Input {
    /// A new one, at the beginning of its text.
    pub(super) fn new(id: InputId, name: String, generation: u32) -> Input {
        Input {
            id,
            name,
            generation,
            compressed: false,
            place: None,
            stat: None,
            file: None,
            position: 0,
            head: Excerpt::default(),
            tail: Excerpt::default(),
            marks: VecDeque::new(),
            size: 0,
            consumed: 0,
            settled: None,
            stage: Stage::Active,
            rotated: false,
            changed_at_ms: 0,
            limit: None,
            done: false,
            gap: None,
            format: None,
            overlong: None,
            refused: None,
            begun_at: None,
            restored: false,
        }
    }

    /// One that the epoch log knows.
    pub(super) fn restored(row: InputRow) -> Input {
        let Fingerprint { head_len, head_hash, tail_len, tail_hash } = row.fingerprint;
        Input {
            compressed: row.compressed,
            position: row.position.to,
            head: Excerpt::known(head_len, head_hash),
            tail: Excerpt::known(tail_len, tail_hash),
            size: row.size,
            stage: if row.status == InputStatus::Ended { Stage::Ended } else { Stage::Lost(None) },
            restored: true,
            ..Input::new(row.id, row.name, row.generation)
        }
    }

    /// Length of its file as last seen, in bytes on disk.
    pub(super) fn len(&self) -> u64 {
        self.stat.map_or(0, |stat| stat.len)
    }

    /// Whether its file has no name any more.
    pub(super) fn is_deleted(&self) -> bool {
        self.stat.is_some_and(|stat| stat.links == 0)
    }

    /// How many bytes of its file are to be read, of the `len` that there are.
    pub(super) fn end(&self, len: u64) -> u64 {
        self.limit.map_or(len, |limit| limit.min(len))
    }

    /// Notes that text up to an offset was read.
    pub(super) fn advance(&mut self, to: u64) {
        self.position = to;
        if self.marks.len() >= MARKS_MAX {
            self.marks.pop_front();
        }
        self.marks.push_back((to, self.tail.len as u32, self.tail.hash));
    }

    /// Its file is not its own any more.
    pub(super) fn lose(&mut self) {
        self.place = None;
        self.stat = None;
        self.file = None;
        self.overlong = None;
        self.settled = None;
        self.rotated = true;
        if self.stage == Stage::Active {
            self.stage = Stage::Lost(None);
        }
    }

    /// The fingerprint at a position that was read; marks before it are dropped.
    pub(super) fn fingerprint(&mut self, position: u64) -> Fingerprint {
        while self.marks.front().is_some_and(|mark| mark.0 < position) {
            self.marks.pop_front();
        }
        let (tail_len, tail_hash) = match self.marks.front() {
            Some(&(at, len, hash)) if at == position => (len, hash),
            _ if position == self.position => (self.tail.len as u32, self.tail.hash),
            _ => (0, 0),
        };
        Fingerprint { head_len: self.head.len as u32, head_hash: self.head.hash, tail_len, tail_hash }
    }

    /// The size to be persisted with a position. Of a compressed file it says that there is nothing beyond the position
    /// while the file has that length, so it is withheld where the position lags.
    fn size_at(&self, position: u64) -> u64 {
        match (self.compressed, self.stage) {
            (true, Stage::Ended) if position < self.position => 0,
            (_, Stage::Active) => self.size.max(self.end(self.len())),
            _ => self.size,
        }
    }

    /// How many bytes of it are known and were not read.
    pub(super) fn unread(&self) -> u64 {
        self.size.saturating_sub(if self.compressed { self.consumed } else { self.position })
    }

    /// What is to be persisted of it once everything up to `position` is committed.
    pub(super) fn facts(&mut self, position: u64) -> InputFacts {
        InputFacts {
            input: self.id,
            name: self.name.clone(),
            fingerprint: self.fingerprint(position),
            generation: self.generation,
            compressed: self.compressed,
            size: self.size_at(position),
        }
    }

    /// Bytes on disk: in all, and read, in this run; none where it takes no part.
    pub(super) fn progress(&self) -> Option<(u64, u64)> {
        let begun_at = self.begun_at?;
        let end = self.end(self.len().max(begun_at));
        let read = if self.done || self.stage == Stage::Ended {
            end
        } else if self.compressed {
            self.consumed
        } else {
            self.position
        };
        Some((end.saturating_sub(begun_at), read.min(end).saturating_sub(begun_at)))
    }

    /// Whether, in this state, it is worth a line's wait for more: compressed files are complete when they stay as
    /// they are for a while.
    pub(super) fn unchanged_for(&self, now_ms: i64, wait_ms: i64, settings: &TailSettings) -> bool {
        settings.bounded || now_ms.saturating_sub(self.changed_at_ms) >= wait_ms
    }
}
