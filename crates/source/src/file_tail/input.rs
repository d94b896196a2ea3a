//! The state of one input in the tailer.

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

/// How long after its last change a file is polled continuously, in milliseconds: many logs are written every few
/// seconds. Later changes are detected by the look at the files, some hundred milliseconds after they happen.
const WARM_MS: i64 = 10_000;

/// Memory of an input without the data it points to, in bytes: 117 MB for 262,144 inputs.
const INPUT_BYTES_MAX: usize = 448;

const _: () = assert!(size_of::<Input>() <= INPUT_BYTES_MAX);

/// One lineage: a file and its rotated versions. There may be very many idle inputs, so rarely used data is boxed.
pub(super) struct Input {
    /// Its id in the epoch log.
    pub(super) id: InputId,
    /// The path at which it was last seen.
    pub(super) name: Arc<str>,
    /// How often its path had begun anew when it was found.
    pub(super) generation: u32,
    /// Its stage in its life cycle.
    pub(super) stage: Stage,
    /// The known facts about its file.
    pub(super) disk: OnDisk,
    /// Its file, while it is open.
    pub(super) file: Option<Box<OpenFile>>,
    /// Its text that was read.
    pub(super) text: Text,
    /// How its lines are parsed.
    pub(super) layout: Layout,
    /// Its known size.
    pub(super) size: Size,
}

impl Input {
    /// A new input, at the beginning of its text.
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

    /// An input that the epoch log knows.
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

    /// The approximate memory of its decoder, in bytes; 0 without a decoder.
    pub(super) fn stream_bytes(&self) -> usize {
        let stream = self.file.as_ref().and_then(|open| open.stream.as_ref());
        stream.map_or(0, |stream| stream.inflater.bytes() + stream.carry.capacity())
    }

    /// Notes the state of its file. If it was truncated after the position, unread text may be lost.
    pub(super) fn observe(&mut self, stat: FileStat) {
        let known = self.size.largest.max(self.disk.text_len());
        let is_told = self.size.loss.is_told();
        if !self.disk.is_compressed() && !is_told && (self.text.position..known).contains(&stat.len) {
            self.size.shrink(known, stat.len);
        }
        if self.disk.stat.is_some_and(|known| known.len < stat.len) {
            // The new bytes count as text until they are read.
            self.disk.set_unwritten_from(None);
        }
        self.disk.stat = Some(stat);
    }

    /// Whether its file has less text than was once known; the file may be an unfinished copy.
    pub(super) fn is_shorter(&self) -> bool {
        let there = !self.disk.is_compressed() && !self.disk.place.is_nowhere() && self.disk.stat.is_some();
        let range = self.text.position..self.size.largest;
        there && !self.size.loss.is_told() && range.contains(&self.disk.text_len())
    }

    /// Closes its file, which can be opened again. The search for the end of a line continues where it was, unless a
    /// stream has to start again.
    pub(super) fn close(&mut self) {
        self.file = None;
        if self.disk.is_compressed() {
            self.text.overlong = None;
        }
    }

    /// The known length of its text to be read.
    fn largest(&self) -> u64 {
        if self.stage.is_active() {
            self.size.largest.max(self.disk.end(self.disk.text_len()))
        } else {
            self.size.largest
        }
    }

    /// Keeps the last known length of its text before its file is lost or truncated.
    pub(super) fn count_seen(&mut self) {
        if !self.disk.is_compressed() {
            self.size.largest = self.largest();
        }
    }

    /// Detaches its file, which no longer belongs to it.
    pub(super) fn detach(&mut self) {
        self.disk.detach();
        self.file = None;
        self.text.overlong = None;
        self.size.forget_seen_loss();
        self.stage.detach();
    }

    /// The size to persist with a position. While a compressed file is read, it is the number of its bytes left on
    /// disk. After its end, it is its length, which means that a file of that length has no text after the position;
    /// otherwise it is 0.
    fn size_at(&self, position: u64) -> u64 {
        let size = self.largest();
        let Coding::Compressed { consumed, .. } = self.disk.coding else { return size };
        let lags = position < self.text.position;
        let at_end = match self.stage.done() {
            Some(Done { rest: Rest::Later, .. }) => 0,
            // Bytes that were appended since are not read.
            Some(Done { rest: Rest::Nothing, at }) => *at,
            None if self.stage.is_ended() => size,
            None | Some(Done { rest: Rest::Lost(_), .. }) => {
                let read = if lags { share(consumed, position, self.text.position) } else { consumed };
                return size.saturating_sub(read);
            }
        };
        if lags { 0 } else { at_end }
    }

    /// The number of its known bytes that were not read.
    pub(super) fn unread(&self) -> u64 {
        match self.disk.coding {
            Coding::Compressed { .. } if self.stage.is_ended() => self.text.half,
            Coding::Compressed { consumed, .. } => self.size.largest.saturating_sub(consumed),
            Coding::Plain { .. } => self.size.largest.saturating_sub(self.text.position),
        }
    }

    /// Whether there are known unread bytes for which no gap was reported.
    pub(super) fn has_untold(&self) -> bool {
        self.unread() > 0 && !self.size.loss.is_told()
    }

    /// Switches to a compressed file of this length; the bytes already read are estimated by length or by ratio.
    pub(super) fn begin_compressed(&mut self, len: u64) {
        let consumed = match self.disk.coding {
            Coding::Compressed { .. } if self.stage.is_ended() => 0,
            Coding::Compressed { .. } => len.saturating_sub(self.unread()),
            Coding::Plain { .. } => share(len, self.text.position, self.size.largest.max(self.text.position)),
        };
        self.disk.coding = Coding::Compressed { consumed, restarted: false };
        self.size.largest = len;
    }

    /// The reported gap is booked.
    pub(super) fn gap_booked(&mut self) {
        if let Loss::Told { size } = self.size.loss {
            (self.size.largest, self.size.loss, self.text.half) = (size, Loss::None, 0);
        }
    }

    /// Releases what an ended or idle input does not need: there may be many. The first bytes of a short file stay,
    /// since a copy of it may be shorter still.
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

    /// Whether a look may find something new about it although its file is unchanged.
    pub(super) fn is_unsettled(&self) -> bool {
        match self.stage {
            _ if self.size.loss.is_seen() || self.is_shorter() => true,
            Stage::Reading { .. } => self.disk.rotated && !self.disk.is_compressed(),
            Stage::Done(_) | Stage::Lost { .. } => true,
            Stage::Ended { .. } => self.disk.place.is_nowhere() && (self.file.is_some() || self.has_untold()),
        }
    }

    /// The facts to persist about it once everything up to `position` is committed.
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

    /// Total bytes on disk and bytes read, both for this run; `None` if it is not part of the progress.
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

    /// Whether its file has been unchanged for so long that no more text is expected; always true in a bounded run.
    pub(super) fn unchanged_for(&self, now_ms: i64, wait_ms: i64, settings: &TailSettings) -> bool {
        settings.bounded || self.disk.unchanged_ms(now_ms) >= wait_ms
    }
}
