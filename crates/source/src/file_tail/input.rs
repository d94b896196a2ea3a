//! What the tailer knows of one input.

use super::fingerprint::HEAD_BYTES;
use super::layout::{Header, Layout};
use super::on_disk::{Coding, OnDisk};
use super::open_file::OpenFile;
use super::outcome::InputFacts;
use super::settings::TailSettings;
use super::size::{Loss, Size, share};
use super::stage::{Before, Done, READING, Rest, Stage};
use super::text::Text;
use crate::file_system::FileStat;
use adtally_model::{FileLog, InputId, InputRow, InputStatus};
use std::sync::Arc;

/// How long after its last change a file is asked for more all the time, in milliseconds: many a log is written every
/// few seconds. After that, its changes are told by the look at the files, some hundred milliseconds later.
const WARM_MS: i64 = 10_000;

/// Memory of an input without what it points to, in bytes: 117 MB for 262,144 inputs.
const INPUT_BYTES_MAX: usize = 448;

const _: () = assert!(size_of::<Input>() <= INPUT_BYTES_MAX);

/// One lineage: a file and what it is rotated into. There may be very many that rest: what few of them have is boxed.
pub(super) struct Input {
    /// By what the epoch log knows it.
    pub(super) id: InputId,
    /// The path at which it was last seen.
    pub(super) name: Arc<str>,
    /// How often its path had begun anew when it was found.
    pub(super) generation: u32,
    /// Where it is in its life.
    pub(super) stage: Stage,
    /// What is known of its file.
    pub(super) disk: OnDisk,
    /// Its file, while it is held open.
    pub(super) file: Option<Box<OpenFile>>,
    /// What was read of it.
    pub(super) text: Text,
    /// How its lines are to be read.
    pub(super) layout: Layout,
    /// How much there is of it.
    pub(super) size: Size,
}

impl Input {
    /// A new one, at the beginning of its text.
    pub(super) fn new(id: InputId, name: Arc<str>, generation: u32) -> Input {
        Input {
            id,
            name,
            generation,
            stage: READING,
            disk: OnDisk::default(),
            file: None,
            text: Text::default(),
            layout: Layout::default(),
            size: Size::default(),
        }
    }

    /// One that the epoch log knows.
    pub(super) fn restored(row: &InputRow, file: &FileLog) -> Input {
        let mut input = Input::new(row.id, Arc::clone(&row.name), file.generation);
        input.stage = match row.status {
            InputStatus::Ended => Stage::Ended { unseen: true },
            _ => Stage::Lost { since_ms: None, before: Before::OtherRun },
        };
        if file.compressed {
            input.disk.coding = Coding::Compressed { consumed: 0, restarted: false };
        }
        input.text = Text::known(file.position.to, &file.fingerprint);
        input.layout.header = Header::of(file.csv_header.clone());
        input.size.largest = file.size;
        input
    }

    /// About the memory that its decoder takes, in bytes; 0 where it has none.
    pub(super) fn stream_bytes(&self) -> usize {
        let stream = self.file.as_ref().and_then(|open| open.stream.as_ref());
        stream.map_or(0, |stream| stream.inflater.bytes() + stream.carry.capacity())
    }

    /// Notes what its file looks like. Where it was cut behind the position, text may be lost that was never read.
    pub(super) fn observe(&mut self, stat: FileStat) {
        let known = self.size.largest.max(self.disk.text_len());
        let is_told = self.size.loss.is_told();
        if !self.disk.is_compressed() && !is_told && (self.text.position..known).contains(&stat.len) {
            self.size.shrink(known, stat.len);
        }
        if self.disk.stat.is_some_and(|known| known.len < stat.len) {
            // What it has grown by is taken for text until it is read.
            self.disk.set_unwritten_from(None);
        }
        self.disk.stat = Some(stat);
    }

    /// Whether its file has less text than was known to be there once; a copy of it may still be being made.
    pub(super) fn is_shorter(&self) -> bool {
        let there = !self.disk.is_compressed() && !self.disk.place.is_nowhere() && self.disk.stat.is_some();
        let range = self.text.position..self.size.largest;
        there && !self.size.loss.is_told() && range.contains(&self.disk.text_len())
    }

    /// Closes its file, which can be opened again. The search for a line's end goes on where it was, unless a stream
    /// has to begin anew.
    pub(super) fn close(&mut self) {
        self.file = None;
        if self.disk.is_compressed() {
            self.text.overlong = None;
        }
    }

    /// The length of its text that is to be read, as far as is known.
    fn largest(&self) -> u64 {
        if self.stage.is_active() {
            self.size.largest.max(self.disk.end(self.disk.text_len()))
        } else {
            self.size.largest
        }
    }

    /// Its file was last seen with more text than was read of it, and is gone now, or cut.
    pub(super) fn count_seen(&mut self) {
        if !self.disk.is_compressed() {
            self.size.largest = self.largest();
        }
    }

    /// Its file belongs to it no more.
    pub(super) fn detach(&mut self) {
        self.disk.detach();
        self.file = None;
        self.text.overlong = None;
        self.size.forget_seen_loss();
        self.stage.detach();
    }

    /// The size to be persisted with a position. While a compressed file is read it is what is left of it on disk;
    /// after its end it says that there is nothing beyond the position while the file has that length, so it is
    /// withheld where that is not so.
    fn size_at(&self, position: u64) -> u64 {
        let size = self.largest();
        let Coding::Compressed { consumed, .. } = self.disk.coding else { return size };
        let lags = position < self.text.position;
        let at_end = match self.stage.done() {
            Some(Done { rest: Rest::Later, .. }) => 0,
            // What was appended since is not read.
            Some(Done { rest: Rest::Nothing, at }) => *at,
            None if self.stage.is_ended() => size,
            None | Some(Done { rest: Rest::Lost(_), .. }) => {
                let read = if lags { share(consumed, position, self.text.position) } else { consumed };
                return size.saturating_sub(read);
            }
        };
        if lags { 0 } else { at_end }
    }

    /// How many bytes of it are known and were not read.
    pub(super) fn unread(&self) -> u64 {
        match self.disk.coding {
            Coding::Compressed { .. } if self.stage.is_ended() => self.text.half,
            Coding::Compressed { consumed, .. } => self.size.largest.saturating_sub(consumed),
            Coding::Plain { .. } => self.size.largest.saturating_sub(self.text.position),
        }
    }

    /// Whether bytes are known that were not read, without a gap that was told.
    pub(super) fn has_untold(&self) -> bool {
        self.unread() > 0 && !self.size.loss.is_told()
    }

    /// Its file at the moment is compressed and has this length; what is read of it is known by length or by share.
    pub(super) fn begin_compressed(&mut self, len: u64) {
        let consumed = match self.disk.coding {
            Coding::Compressed { .. } if self.stage.is_ended() => 0,
            Coding::Compressed { .. } => len.saturating_sub(self.unread()),
            Coding::Plain { .. } => share(len, self.text.position, self.size.largest.max(self.text.position)),
        };
        self.disk.coding = Coding::Compressed { consumed, restarted: false };
        self.size.largest = len;
    }

    /// The gap that was told is booked.
    pub(super) fn gap_booked(&mut self) {
        if let Loss::Told { size } = self.size.loss {
            (self.size.largest, self.size.loss, self.text.half) = (size, Loss::None, 0);
        }
    }

    /// Gives back what is not needed of an input that has ended or rests: there may be many. The first bytes of a short
    /// file stay, since a copy of it may be shorter still.
    pub(super) fn release_buffers(&mut self) {
        let is_short = self.text.head.len < HEAD_BYTES;
        self.text.release_buffers(self.disk.is_compressed() || self.disk.place.is_nowhere() || !is_short);
    }

    /// Whether it is at its end and stays so until its file changes.
    pub(super) fn is_quiet(&self, now_ms: i64) -> bool {
        let at_end = self.stage == Stage::Reading { settled: Some(self.disk.len()) };
        let plain = !self.disk.is_compressed() && self.text.overlong.is_none();
        let at_home = !self.disk.place.is_nowhere() && !self.disk.rotated;
        at_end && plain && at_home && self.disk.unchanged_ms(now_ms) >= WARM_MS
    }

    /// Whether a look may find something new about it although nothing changes.
    pub(super) fn is_unsettled(&self) -> bool {
        match self.stage {
            _ if self.size.loss.is_seen() || self.is_shorter() => true,
            Stage::Reading { .. } => self.disk.rotated && !self.disk.is_compressed(),
            Stage::Done(_) | Stage::Lost { .. } => true,
            Stage::Ended { .. } => self.disk.place.is_nowhere() && (self.file.is_some() || self.has_untold()),
        }
    }

    /// What is to be persisted of it once everything up to `position` is committed.
    pub(super) fn facts(&mut self, position: u64) -> InputFacts {
        InputFacts {
            input: self.id,
            name: self.name.clone(),
            fingerprint: self.text.fingerprint(position),
            generation: self.generation,
            compressed: self.disk.is_compressed(),
            size: self.size_at(position),
            csv_header: self.layout.header.line().cloned(),
        }
    }

    /// Bytes on disk: in all, and read, in this run; none where it takes no part.
    pub(super) fn progress(&self) -> Option<(u64, u64)> {
        let begun_at = self.size.begun_at?;
        let end = self.disk.end(self.disk.len().max(begun_at));
        let read = match (&self.stage, &self.disk.coding) {
            (Stage::Done(_) | Stage::Ended { .. }, _) => end,
            (_, Coding::Compressed { consumed, .. }) => *consumed,
            (_, Coding::Plain { .. }) => self.text.position,
        };
        Some((end.saturating_sub(begun_at), read.min(end).saturating_sub(begun_at)))
    }

    /// Whether its file has stayed as it is for so long that nothing more is awaited; in a bounded run nothing ever is.
    pub(super) fn unchanged_for(&self, now_ms: i64, wait_ms: i64, settings: &TailSettings) -> bool {
        settings.bounded || self.disk.unchanged_ms(now_ms) >= wait_ms
    }
}
