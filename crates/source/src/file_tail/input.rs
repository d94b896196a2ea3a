//! What the tailer knows of one input.

use super::fingerprint::{Excerpt, HEAD_BYTES, hash};
use super::open_file::OpenFile;
use super::outcome::InputFacts;
use super::settings::TailSettings;
use super::unwritten::NulScan;
use crate::block::Format;
use crate::file_system::FileStat;
use adtally_model::input::Fingerprint;
use adtally_model::{InputId, InputRow, InputStatus};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

/// Fingerprints kept of positions that are read and not yet committed: one a block, so of some ten thousand blocks.
const MARKS_MAX: usize = 65_536;

/// How long after its last change a file is asked for more all the time, in milliseconds: many a log is written every few
/// seconds. After that, its changes are told by the look at the files, some hundred milliseconds later.
const WARM_MS: i64 = 10_000;

/// One lineage: a file and what it is rotated into. There may be very many that rest: what few of them have is boxed.
pub(super) struct Input {
    pub(super) id: InputId,
    /// The path at which it was last seen.
    pub(super) name: Arc<str>,
    pub(super) generation: u32,
    /// Whether its file, at the moment, is compressed.
    pub(super) compressed: bool,
    /// Where its file is listed now.
    pub(super) place: Option<PathBuf>,
    /// What its file looked like last.
    pub(super) stat: Option<FileStat>,
    /// Its file, while it is held open.
    pub(super) file: Option<Box<OpenFile>>,
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
    /// While it is compressed: about how many bytes on disk hold its text up to the position.
    pub(super) consumed: u64,
    /// Length of its file when all that can be read of it had been read.
    pub(super) settled: Option<u64>,
    pub(super) stage: Stage,
    /// Whether it has left the path at which it was written.
    pub(super) rotated: bool,
    /// When its file last grew or moved, in monotonic milliseconds.
    pub(super) changed_at_ms: i64,
    /// When it was read from, or asked for more, in monotonic milliseconds.
    pub(super) asked_at_ms: i64,
    /// In a bounded run: how many bytes of its file are to be read.
    pub(super) limit: Option<u64>,
    /// Read for good; [`Stage::Ended`] follows with the next look.
    pub(super) done: bool,
    /// While it is compressed and done: how many bytes of its file were read, or given up for lost.
    pub(super) done_at: u64,
    /// Its file was seen shorter than it was known to be, but not than what was read: how long.
    pub(super) cut: Option<u64>,
    /// Bytes that cannot be read and why, to be told with the next look.
    pub(super) gap: Option<Box<(u64, String)>>,
    /// A gap was told: the size once it is booked.
    pub(super) size_after_gap: Option<u64>,
    /// Bytes of a last line without end that is no whole object, once that is known.
    pub(super) half: u64,
    /// Whether a bounded run found its compressed file to stop in its midst.
    pub(super) incomplete: bool,
    /// Whether its stream was begun anew because the file had changed meanwhile.
    pub(super) restarted: bool,
    pub(super) format: Option<Format>,
    /// The header line under which its rows are read, or would be if it had none of its own.
    pub(super) csv_header: Option<Arc<[u8]>>,
    /// Whether a header was looked for where it was rotated from.
    pub(super) header_sought: bool,
    /// Where its text ends for now, if only NUL bytes follow up to the file's end.
    pub(super) unwritten_from: Option<u64>,
    /// How far these have been gone through.
    pub(super) nul_scan: Option<Box<NulScan>>,
    /// A line longer than a block whose end has not been found yet.
    pub(super) overlong: Option<Box<Overlong>>,
    /// Whether the search of its folder found it, under a name that no pattern matches.
    pub(super) unlisted: bool,
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
    pub(super) fn new(id: InputId, name: Arc<str>, generation: u32) -> Input {
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
            asked_at_ms: 0,
            limit: None,
            done: false,
            done_at: 0,
            cut: None,
            gap: None,
            size_after_gap: None,
            half: 0,
            incomplete: false,
            restarted: false,
            format: None,
            csv_header: None,
            header_sought: false,
            unwritten_from: None,
            nul_scan: None,
            overlong: None,
            unlisted: false,
            refused: None,
            begun_at: None,
            restored: false,
        }
    }

    /// One that the epoch log knows.
    pub(super) fn restored(row: &InputRow) -> Input {
        let Fingerprint { head_len, head_hash, tail_len, tail_hash } = row.fingerprint;
        Input {
            compressed: row.compressed,
            position: row.position.to,
            head: Excerpt::known(head_len, head_hash),
            tail: Excerpt::known(tail_len, tail_hash),
            size: row.size,
            csv_header: row.csv_header.clone(),
            stage: if row.status == InputStatus::Ended { Stage::Ended } else { Stage::Lost(None) },
            restored: true,
            ..Input::new(row.id, Arc::clone(&row.name), row.generation)
        }
    }

    /// It was found out, or not yet, how it is to be read.
    pub(super) fn set_format(&mut self, format: Option<Format>) {
        match &format {
            Some(Format::Csv(header)) => {
                if let Some(line) = header.usable() {
                    self.csv_header = Some(line.into());
                }
            }
            Some(Format::Ndjson) => self.csv_header = None,
            None => {}
        }
        self.format = format;
    }

    /// Length of its file as last seen, in bytes on disk.
    pub(super) fn len(&self) -> u64 {
        self.stat.map_or(0, |stat| stat.len)
    }

    /// About the memory that its decoder takes, in bytes; 0 where it has none.
    pub(super) fn stream_bytes(&self) -> usize {
        let stream = self.file.as_ref().and_then(|open| open.stream.as_ref());
        stream.map_or(0, |stream| stream.inflater.bytes() + stream.carry.capacity())
    }

    /// Whether its file has no name any more.
    pub(super) fn is_deleted(&self) -> bool {
        self.stat.is_some_and(|stat| stat.links == 0)
    }

    /// Length of its file without NUL bytes at its end, as far as these are known.
    pub(super) fn text_len(&self) -> u64 {
        self.unwritten_from.map_or(self.len(), |from| from.min(self.len()))
    }

    /// Notes what its file looks like. Where it was cut behind the position, text may be lost that was never read.
    pub(super) fn observe(&mut self, stat: FileStat) {
        let known = self.size.max(self.text_len());
        let is_told = self.size_after_gap.is_some();
        if !self.compressed && !is_told && (self.position..known).contains(&stat.len) {
            self.cut = Some(self.cut.map_or(stat.len, |shortest| shortest.min(stat.len)));
            self.size = known;
        }
        if self.stat.is_some_and(|known| known.len < stat.len) {
            // What it has grown by is taken for text until it is read.
            self.unwritten_from = None;
        }
        self.stat = Some(stat);
    }

    /// Whether its file has less text than was known to be there once; a copy of it may still be being made.
    pub(super) fn is_shorter(&self) -> bool {
        let there = !self.compressed && self.place.is_some() && self.stat.is_some() && self.size_after_gap.is_none();
        there && (self.position..self.size).contains(&self.text_len())
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

    /// Whether the text before a position is known.
    pub(super) fn has_mark(&self, position: u64) -> bool {
        self.marks.binary_search_by_key(&position, |mark| mark.0).is_ok()
    }

    /// Notes the text before a position of which it is not known.
    pub(super) fn mark(&mut self, position: u64, text: &[u8]) {
        if let Err(at) = self.marks.binary_search_by_key(&position, |mark| mark.0) {
            self.marks.insert(at, (position, text.len() as u32, hash(text)));
        }
    }

    /// Closes its file, which can be opened again. The search for a line's end goes on where it was, unless a stream has
    /// to begin anew.
    pub(super) fn close(&mut self) {
        self.file = None;
        if self.compressed {
            self.overlong = None;
        }
    }

    /// Its file was last seen with more text than was read of it, and is gone now, or cut.
    pub(super) fn count_seen(&mut self) {
        if !self.compressed && self.stage == Stage::Active {
            self.size = self.size.max(self.end(self.text_len()));
        }
    }

    /// Its file is not its own any more.
    pub(super) fn lose(&mut self) {
        self.place = None;
        self.stat = None;
        self.file = None;
        self.overlong = None;
        self.settled = None;
        self.cut = None;
        (self.unwritten_from, self.nul_scan) = (None, None);
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
        if position == self.position {
            self.marks = VecDeque::new();
        }
        let (tail_len, tail_hash) = match self.marks.front() {
            Some(&(at, len, hash)) if at == position => (len, hash),
            _ if position == self.position => (self.tail.len as u32, self.tail.hash),
            _ => (0, 0),
        };
        Fingerprint { head_len: self.head.len as u32, head_hash: self.head.hash, tail_len, tail_hash }
    }

    /// The size to be persisted with a position. While a compressed file is read it is what is left of it on disk;
    /// after its end it says that there is nothing beyond the position while the file has that length, so it is withheld
    /// where that is not so.
    fn size_at(&self, position: u64) -> u64 {
        let size = if self.stage == Stage::Active { self.size.max(self.end(self.text_len())) } else { self.size };
        let lags = position < self.position;
        if !self.compressed {
            size
        } else if self.stage == Stage::Ended || (self.done && self.gap.is_none()) {
            match self.stage {
                _ if lags || self.incomplete => 0,
                Stage::Ended => size,
                // What was appended since is not read.
                _ => self.done_at,
            }
        } else {
            let read = if lags { share(self.consumed, position, self.position) } else { self.consumed };
            size.saturating_sub(read)
        }
    }

    /// How many bytes of it are known and were not read.
    pub(super) fn unread(&self) -> u64 {
        match (self.compressed, self.stage) {
            (true, Stage::Ended) => self.half,
            (true, _) => self.size.saturating_sub(self.consumed),
            (false, _) => self.size.saturating_sub(self.position),
        }
    }

    /// Its file at the moment is compressed and has this length; what is read of it is known by length or by share.
    pub(super) fn begin_compressed(&mut self, len: u64) {
        self.consumed = match (self.compressed, self.stage) {
            (true, Stage::Ended) => 0,
            (true, _) => len.saturating_sub(self.unread()),
            (false, _) => share(len, self.position, self.size.max(self.position)),
        };
        (self.compressed, self.size) = (true, len);
    }

    /// The gap that was told is booked.
    pub(super) fn gap_booked(&mut self) {
        if let Some(size) = self.size_after_gap.take() {
            (self.size, self.half) = (size, 0);
        }
    }

    /// Gives back what is not needed of an input that has ended or rests: there may be many. The first bytes of a short
    /// file stay, since a copy of it may be shorter still.
    pub(super) fn slim(&mut self) {
        self.tail.bytes = Vec::new();
        if self.compressed || self.place.is_none() || self.head.len >= HEAD_BYTES {
            self.head.bytes = Vec::new();
        }
        self.marks.shrink_to_fit();
    }

    /// Whether it is at its end and stays so until its file changes.
    pub(super) fn is_quiet(&self, now_ms: i64) -> bool {
        let at_end = self.stage == Stage::Active && self.settled == Some(self.len());
        let plain = !self.compressed && self.place.is_some() && !self.rotated && self.overlong.is_none();
        at_end && plain && !self.done && now_ms.saturating_sub(self.changed_at_ms) >= WARM_MS
    }

    /// Whether a look may find something new about it although nothing changes.
    pub(super) fn is_unsettled(&self) -> bool {
        match self.stage {
            _ if self.cut.is_some() || self.is_shorter() => true,
            Stage::Active => self.done || self.gap.is_some() || (self.rotated && !self.compressed),
            Stage::Lost(_) => true,
            Stage::Ended => {
                let untold = self.unread() > 0 && self.size_after_gap.is_none();
                self.gap.is_some() || (self.place.is_none() && (self.file.is_some() || untold))
            }
        }
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
            csv_header: self.csv_header.clone(),
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

    /// Whether its file has stayed as it is for so long that nothing more is awaited; in a bounded run nothing ever is.
    pub(super) fn unchanged_for(&self, now_ms: i64, wait_ms: i64, settings: &TailSettings) -> bool {
        settings.bounded || now_ms.saturating_sub(self.changed_at_ms) >= wait_ms
    }
}

/// The share of a length that a part has in a whole.
fn share(len: u64, part: u64, whole: u64) -> u64 {
    u64::try_from(u128::from(len) * u128::from(part) / u128::from(whole.max(1))).unwrap_or(len)
}
