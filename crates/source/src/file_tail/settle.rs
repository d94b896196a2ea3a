//! Inputs whose file is gone, was truncated, or is completely read.

use super::content::is_continued;
use super::decide::{self, Cut, LastLine, LookEnd, Settled};
use super::fingerprint::HEAD_BYTES;
use super::input::Input;
use super::outcome::Discovery;
use super::patterns::Listing;
use super::size::Loss;
use super::stage::{Done, Gap, READING, Rest, Stage};
use super::step::half_line;
use super::tailer::Tailer;
use crate::file_system::{FileSystem, TailFile, read_range};
use adtally_model::InputId;
use std::io;
use std::path::{Path, PathBuf};

/// How long a deleted file that is read to its end is held open, in milliseconds: its writer may still append to it,
/// but its space is only given back when it is closed.
const DELETED_KEEP_MS: i64 = 60_000;

impl Tailer {
    /// Reports ended inputs, and the bytes lost with them.
    pub(super) fn settle(&mut self, listing: &Listing, now_ms: i64, found: &mut Vec<Discovery>) {
        let gone_wait_ms = match self.settings.bounded {
            // A lost file may be at a path that cannot be examined at present, but the wait for it is limited.
            _ if listing.hides_something() => self.settings.incomplete_wait_ms,
            true => 0,
            false => self.settings.rotate_wait_ms,
        };
        let ids: Vec<InputId> = self.inputs.keys().copied().collect();
        for id in ids {
            let cut_off = self.settle_cut(id, now_ms);
            let Some(input) = self.inputs.get_mut(&id) else { continue };
            for Gap { bytes, reason } in cut_off.into_iter().chain(input.stage.take_gap()).filter(|gap| gap.bytes > 0) {
                found.push(Discovery::Gap { input: id, bytes, reason });
            }
            input.stage.note_lost(now_ms);
            if input.stage.is_ended() {
                keep_ended(input, self.listing.is_none(), now_ms);
            }
            let look_end = look_end(input, listing, gone_wait_ms, now_ms);
            match decide::settled(&input.stage, look_end, &self.settings, now_ms) {
                Settled::Stays => {}
                Settled::Resumes => {
                    input.stage = READING;
                    found.push(Discovery::Resumed { input: id });
                }
                Settled::Ends => end(input, self.settings.bounded, found),
                Settled::EndsAfterLastLine => self.end_rotated(id, found),
                Settled::IsGivenUp => self.give_up(id, found),
            }
        }
    }

    /// Finds out what a truncation removed from a file before it was read, and returns the gap if there is one. If the
    /// file now ends with a complete line, the removed bytes may have been only NUL bytes that the writer had
    /// preallocated.
    fn settle_cut(&mut self, id: InputId, now_ms: i64) -> Option<Gap> {
        let input = self.inputs.get_mut(&id)?;
        if !input.size.loss.is_seen()
            && input.is_shorter()
            && input.unchanged_for(now_ms, self.settings.incomplete_wait_ms, &self.settings)
        {
            input.size.loss = Loss::Seen { len: input.disk.text_len() };
        }
        let Loss::Seen { len } = input.size.loss else { return None };
        let (holds_text, last) = match look_at_cut(self.fs.as_ref(), input, len) {
            Ok(facts) => facts,
            Err(error) => {
                if error.kind() == io::ErrorKind::NotFound {
                    input.size.loss = Loss::None;
                }
                // Otherwise another look decides.
                return None;
            }
        };
        let (name, before) = (&input.name, input.size.largest);
        let what = format!("{name} was truncated from {before} to {len} bytes before it was read to its end");
        match decide::cut(holds_text, last) {
            Cut::MaybePadding => {
                (input.size.largest, input.size.loss) = (len, Loss::None);
                self.warnings.note(format!("{what}: the removed text, unless it was padding, is not read"));
                None
            }
            Cut::Text => {
                input.size.loss = Loss::Told { size: len };
                Some(Gap { bytes: before - len, reason: what })
            }
            Cut::All => {
                input.detach();
                input.disk.changed_at_ms = now_ms;
                None
            }
        }
    }

    /// Ends an input that was rotated and read, after a decision about an unterminated last line.
    fn end_rotated(&mut self, id: InputId, found: &mut Vec<Discovery>) {
        let Some(input) = self.inputs.get_mut(&id) else { return };
        let left = input.disk.text_len().saturating_sub(input.text.position);
        match decide::last_line(left, input.text.half, input.disk.may_hide_text(), input.disk.is_gone()) {
            LastLine::Unread => return input.stage.unsettle(),
            LastLine::Whole => {}
            LastLine::Half => self.warnings.hold(&input.name, half_line(input)),
            LastLine::Lost => {
                input.size.loss = Loss::Told { size: input.text.position };
                let reason = format!("{} was deleted, and its last line has no newline", input.name);
                found.push(Discovery::Gap { input: id, bytes: left, reason });
            }
        }
        end(input, false, found);
    }

    /// Gives up an input whose file is gone.
    fn give_up(&mut self, id: InputId, found: &mut Vec<Discovery>) {
        let covered = self.is_covered(id);
        let Some(input) = self.inputs.get_mut(&id) else { return };
        let bytes = input.unread();
        // If its file reappears, there is more to read.
        let size = if input.disk.is_compressed() { 0 } else { input.text.position };
        if bytes > 0 && !covered {
            let reason = format!("{} was deleted or truncated before it was read to its end", input.name);
            found.push(Discovery::Gap { input: id, bytes, reason });
            input.size.loss = Loss::Told { size };
        } else {
            input.size.largest = size;
        }
        if !input.stage.is_ended() {
            end(input, self.settings.bounded, found);
        }
    }

    /// Whether the lost text of an input is still read, because a copy of its file is also an input (copytruncate).
    fn is_covered(&mut self, id: InputId) -> bool {
        let Some(lost) = self.inputs.get(&id).filter(|lost| !lost.disk.is_compressed()) else { return false };
        let copies = self.inputs.values().map(Box::as_ref).filter(|other| {
            let is_there = !other.disk.place.is_nowhere() && !other.disk.is_compressed() && other.id != id;
            let (head, other_head) = (&lost.text.head, &other.text.head.bytes);
            let alike = head.len > 0 && (other_head.is_empty() || head.begins(other_head));
            is_there && other.size.largest >= lost.size.largest && alike
        });
        let places: Vec<PathBuf> = copies.filter_map(|copy| copy.disk.place.path()).map(Path::to_owned).collect();
        let Some(lost) = self.inputs.get(&id).map(|lost| &lost.text) else { return false };
        places.iter().any(|place| {
            self.fs.open(place).is_ok_and(|mut file| {
                let begins = read_range(file.as_mut(), 0, HEAD_BYTES).is_ok_and(|head| lost.head.begins(&head));
                let start = lost.position.saturating_sub(lost.tail.len as u64);
                begins && read_range(file.as_mut(), start, lost.tail.len).is_ok_and(|text| lost.tail.ends(&text))
            })
        })
    }
}

/// Whether a truncated file still belongs to an input, and its last byte before `len`.
fn look_at_cut(fs: &dyn FileSystem, input: &mut Input, len: u64) -> io::Result<(bool, Option<u8>)> {
    let look = |file: &mut dyn TailFile, input: &mut Input| -> io::Result<(bool, Option<u8>)> {
        Ok((is_continued(file, input)?, last_byte(file, len)?))
    };
    match (input.file.take(), input.disk.place.path()) {
        (Some(mut open), _) => {
            let facts = look(open.file.as_mut(), input);
            input.file = Some(open);
            facts
        }
        (None, Some(place)) => look(fs.open(place)?.as_mut(), input),
        (None, None) => Err(io::ErrorKind::NotFound.into()),
    }
}

/// The last byte of a file before `len`.
fn last_byte(file: &mut dyn TailFile, len: u64) -> io::Result<Option<u8>> {
    Ok(read_range(file, len.saturating_sub(1), len.min(1) as usize)?.first().copied())
}

/// The facts about an input at the end of a look.
fn look_end(input: &Input, listing: &Listing, gone_wait_ms: i64, now_ms: i64) -> LookEnd {
    let disk = &input.disk;
    let is_gone = disk.is_gone() || (disk.place.is_nowhere() && input.file.is_none());
    LookEnd {
        compressed: disk.is_compressed(),
        rotated: disk.rotated,
        len: disk.len(),
        end: disk.end(disk.len()),
        unchanged_ms: disk.unchanged_ms(now_ms),
        loses_text: is_gone && input.has_untold(),
        hidden: !input.stage.is_active() && listing.is_unknown(Path::new(&*input.name)),
        gone_wait_ms,
    }
}

/// Releases memory that an ended input does not need.
fn keep_ended(input: &mut Input, is_first_look: bool, now_ms: i64) {
    if is_first_look && input.stage.is_unseen() {
        input.disk.changed_at_ms = now_ms;
    }
    if input.disk.is_gone() && input.disk.unchanged_ms(now_ms) >= DELETED_KEEP_MS {
        input.file = None;
    }
    input.release_buffers();
}

/// Ends an input.
fn end(input: &mut Input, bounded: bool, found: &mut Vec<Discovery>) {
    if input.disk.is_compressed() {
        match (&input.stage, input.stage.done()) {
            // The input was not completely read.
            (_, Some(Done { rest: Rest::Later, .. })) => input.size.largest = 0,
            (Stage::Done(done), _) => input.size.largest = done.at,
            _ => {}
        }
    }
    input.stage = Stage::Ended { unseen: false };
    input.text.overlong = None;
    // A file that may still be written, or renamed, stays open so that its text is not missed.
    let disk = &input.disk;
    let may_grow = !bounded && !disk.is_compressed() && (disk.place.is_nowhere() || !disk.rotated);
    if !may_grow || disk.stat.is_none() {
        input.file = None;
    }
    if let Some(open) = &mut input.file {
        open.stream = None;
    }
    found.push(Discovery::Ended { input: input.id });
}
