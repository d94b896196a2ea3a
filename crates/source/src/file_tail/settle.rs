//! What becomes of inputs whose file is gone, was cut, or is read for good.

use super::content::is_continued;
use super::fingerprint::HEAD_BYTES;
use super::input::{Input, Stage};
use super::outcome::Discovery;
use super::patterns::Listing;
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
    /// Inputs that have ended, and what was lost with them.
    pub(super) fn settle(&mut self, listing: &Listing, now_ms: i64, found: &mut Vec<Discovery>) {
        let wait_ms = match self.settings.bounded {
            // What is lost may be behind a path that cannot be looked at just now; but such a path holds nobody for ever.
            _ if listing.hides_something() => self.settings.incomplete_wait_ms,
            true => 0,
            false => self.settings.rotate_wait_ms,
        };
        let ids: Vec<InputId> = self.inputs.keys().copied().collect();
        for id in ids {
            self.settle_cut(id, now_ms);
            let Some(input) = self.inputs.get_mut(&id) else { continue };
            if let Some((bytes, reason)) = input.gap.take().map(|gap| *gap)
                && bytes > 0
            {
                found.push(Discovery::Gap { input: id, bytes, reason });
            }
            match input.stage {
                // Something was appended after it was read to its end.
                Stage::Active if input.done && input.compressed && input.end(input.len()) > input.done_at => {
                    input.done = false;
                    found.push(Discovery::Resumed { input: id });
                }
                Stage::Active if input.done => end(input, self.settings.bounded, found),
                Stage::Active if self.settings.bounded => {}
                Stage::Active => {
                    let quiet = now_ms.saturating_sub(input.changed_at_ms) >= self.settings.rotate_wait_ms;
                    let read = input.settled == Some(input.len());
                    if input.rotated && !input.compressed && read && quiet {
                        self.end_rotated(id, found);
                    }
                }
                Stage::Lost(since) => {
                    let since = since.unwrap_or(now_ms);
                    input.stage = Stage::Lost(Some(since));
                    // While its folder cannot be looked at, the file may be right there.
                    if now_ms.saturating_sub(since) >= wait_ms && !listing.is_unknown(Path::new(&*input.name)) {
                        self.give_up(id, found);
                    }
                }
                Stage::Ended => {
                    if input.restored && self.listing.is_none() {
                        input.changed_at_ms = now_ms;
                    }
                    let kept = now_ms.saturating_sub(input.changed_at_ms);
                    let deleted = input.place.is_none() && input.is_deleted();
                    if deleted && kept >= DELETED_KEEP_MS {
                        input.file = None;
                    }
                    input.slim();
                    let gone = deleted || (input.place.is_none() && input.file.is_none());
                    let untold = input.unread() > 0 && input.size_after_gap.is_none();
                    if gone && untold && kept >= wait_ms && !listing.is_unknown(Path::new(&*input.name)) {
                        self.give_up(id, found);
                    }
                }
            }
        }
    }

    /// Tells of text that was cut off a file before it was read. Where the file now ends with a whole line, perhaps all
    /// that was cut off were NUL bytes which its writer had put there for what was to come.
    fn settle_cut(&mut self, id: InputId, now_ms: i64) {
        let Some(input) = self.inputs.get_mut(&id) else { return };
        if input.is_shorter() && input.unchanged_for(now_ms, self.settings.incomplete_wait_ms, &self.settings) {
            let len = input.text_len();
            input.cut.get_or_insert(len);
        }
        let Some(len) = input.cut else { return };
        match judge_cut(self.fs.as_ref(), input, len) {
            Ok((true, last)) => {
                input.cut = None;
                let (name, before) = (&input.name, input.size);
                let what = format!("{name} was cut from {before} to {len} bytes before it was read to its end");
                if matches!(last, None | Some(b'\n' | 0)) {
                    input.size = len;
                    self.troubles.note(format!("{what}: what stood there, unless it was padding, is not read"));
                } else {
                    // The size is that of before until the gap is booked.
                    input.size_after_gap = Some(len);
                    input.gap = Some(Box::new((before - len, what)));
                }
            }
            // Another text: it is not this input's file any more.
            Ok((false, _)) => {
                input.lose();
                input.changed_at_ms = now_ms;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => input.cut = None,
            // Another look will tell.
            Err(_) => {}
        }
    }

    /// Ends an input that was rotated and read, once its last line is judged, should that have no end.
    fn end_rotated(&mut self, id: InputId, found: &mut Vec<Discovery>) {
        let Some(input) = self.inputs.get_mut(&id) else { return };
        let left = input.text_len().saturating_sub(input.position);
        // NUL bytes at its end were perhaps written behind where its writer would have gone on.
        let unsure =
            input.unwritten_from.is_some() && !input.nul_scan.as_ref().is_some_and(|scan| scan.is_last(input.len()));
        if left != input.half || unsure {
            input.settled = None;
            return;
        }
        if left > 0 && input.place.is_none() && input.is_deleted() {
            input.size_after_gap = Some(input.position);
            let reason = format!("{} is deleted and its last line has no end", input.name);
            found.push(Discovery::Gap { input: id, bytes: left, reason });
        } else if left > 0 {
            // Should the file go away, it is a gap.
            self.troubles.hold(&input.name, half_line(input));
        }
        end(input, false, found);
    }

    /// An input that is gone for good.
    fn give_up(&mut self, id: InputId, found: &mut Vec<Discovery>) {
        let covered = self.is_covered(id);
        let Some(input) = self.inputs.get_mut(&id) else { return };
        let bytes = input.unread();
        if bytes > 0 && !covered {
            let reason = format!("{} is gone or was cut before it was read to its end", input.name);
            found.push(Discovery::Gap { input: id, bytes, reason });
        }
        // Should its file come back, there is something to read.
        let size = if input.compressed { 0 } else { input.position };
        if bytes > 0 && !covered {
            input.size_after_gap = Some(size);
        } else {
            input.size = size;
        }
        if input.stage != Stage::Ended {
            end(input, self.settings.bounded, found);
        }
    }

    /// Whether what was lost of an input is read all the same, since a copy of it is an input too (copytruncate).
    fn is_covered(&mut self, id: InputId) -> bool {
        let Some(lost) = self.inputs.get(&id).filter(|lost| !lost.compressed) else { return false };
        let copies = self.inputs.values().map(Box::as_ref).filter(|other| {
            let whole = other.place.is_some() && !other.compressed && other.id != id && other.size >= lost.size;
            whole && lost.head.len > 0 && (other.head.bytes.is_empty() || lost.head.begins(&other.head.bytes))
        });
        let places: Vec<PathBuf> = copies.filter_map(|copy| copy.place.clone()).collect();
        let Some(lost) = self.inputs.get(&id) else { return false };
        places.iter().any(|place| {
            self.fs.open(place).is_ok_and(|mut file| {
                let begins = read_range(file.as_mut(), 0, HEAD_BYTES).is_ok_and(|head| lost.head.begins(&head));
                let start = lost.position.saturating_sub(lost.tail.len as u64);
                begins && read_range(file.as_mut(), start, lost.tail.len).is_ok_and(|text| lost.tail.ends(&text))
            })
        })
    }
}

/// Whether a file that was cut still is an input's, and the last byte of what it holds up to a length.
fn judge_cut(fs: &dyn FileSystem, input: &mut Input, len: u64) -> io::Result<(bool, Option<u8>)> {
    let judge = |file: &mut dyn TailFile, input: &mut Input| -> io::Result<(bool, Option<u8>)> {
        Ok((is_continued(file, input)?, last_byte(file, len)?))
    };
    match (input.file.take(), input.place.clone()) {
        (Some(mut open), _) => {
            let judged = judge(open.file.as_mut(), input);
            input.file = Some(open);
            judged
        }
        (None, Some(place)) => judge(fs.open(&place)?.as_mut(), input),
        (None, None) => Err(io::ErrorKind::NotFound.into()),
    }
}

/// The last byte of what a file holds up to a length.
fn last_byte(file: &mut dyn TailFile, len: u64) -> io::Result<Option<u8>> {
    Ok(read_range(file, len.saturating_sub(1), len.min(1) as usize)?.first().copied())
}

fn end(input: &mut Input, bounded: bool, found: &mut Vec<Discovery>) {
    if input.compressed && input.stage == Stage::Active {
        input.size = if input.incomplete { 0 } else { input.done_at };
    }
    input.stage = Stage::Ended;
    input.done = false;
    input.overlong = None;
    // One that is still being written, or may be under another name, is held so that nothing more of it is missed.
    let may_grow = !bounded && !input.compressed && (input.place.is_none() || !input.rotated);
    if !may_grow || input.stat.is_none() {
        input.file = None;
    }
    if let Some(open) = &mut input.file {
        open.stream = None;
    }
    found.push(Discovery::Ended { input: input.id });
}
