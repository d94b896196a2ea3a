//! Tails log files: finds the files, assigns each to an input, and delivers their text in blocks of whole lines.
//!
//! A file is identified by its content, never by path or inode alone. An input follows its file through renames, copies
//! and compression; a path that begins anew (truncation, rotation) becomes a new input. Files stay open while they are
//! read, so that a deleted or renamed file is read to its end first.
//!
//! Imports go in one direction: from this file to the files that act (`discover`, `identify`, `search`, `adopt`,
//! `settle`, `read`), then to `decide`, which makes decisions from facts alone, and to the facts about an `input`: its
//! `stage`, its file `on_disk`, its `text`, `layout` and `size`.
//!
//! One race remains: if a file is truncated and then grows beyond the old position with the same bytes before that
//! position, it looks like a file that only grew. Also, text that is written between the last read and a truncation is
//! lost without a trace, as for every reader of files rotated by copytruncate.

mod adopt;
mod compressed;
mod content;
mod decide;
mod discover;
mod fingerprint;
mod handles;
mod headers;
mod identify;
mod input;
mod layout;
mod on_disk;
mod open_file;
mod outcome;
mod patterns;
mod probe;
mod read;
mod read_compressed;
mod read_plain;
mod search;
mod settings;
mod settle;
mod size;
mod stage;
mod step;
mod tailer;
mod text;
mod unwritten;
mod warnings;
mod watch;

#[cfg(test)]
mod tests;

pub use outcome::{Discovery, InputFacts, Progress, ReadOutcome, Unopened};
pub use patterns::{Survey, survey};
pub use settings::{BLOCK_BYTES_MIN, TailSettings};
pub use tailer::Tailer;

use adtally_model::{Error, InputId, Result};
use fingerprint::TAIL_BYTES;
use input::Input;
use std::path::Path;

/// Buffers kept for reuse: as many as blocks are read ahead at a time.
const SPARE_MAX: usize = 16;

impl Tailer {
    /// Examines the paths: new files, renames, truncation, deletion, growth. Call it a few times a second: in watched
    /// folders only changes are examined, and very many files are not all examined in each call. The results take
    /// effect in the caller at an epoch boundary.
    ///
    /// # Errors
    /// None at present: problems with files are kept as [`Tailer::warnings`].
    pub fn discover(&mut self, now_ms: i64) -> Result<Vec<Discovery>> {
        Ok(self.look_where_needed(now_ms))
    }

    /// Examines all paths, whatever is known of them.
    ///
    /// # Errors
    /// As [`Tailer::discover`].
    pub fn discover_all(&mut self, now_ms: i64) -> Result<Vec<Discovery>> {
        Ok(self.look(now_ms))
    }

    /// Whether an input at its end need not be read again until [`Tailer::take_woken`] returns it: no more text is
    /// expected, and time alone does not change that.
    pub fn is_quiet(&self, input: InputId, now_ms: i64) -> bool {
        self.inputs.get(&input).is_some_and(|input| input.is_quiet(now_ms))
    }

    /// The inputs whose files changed since the last call, and those whose paths cannot be examined.
    pub fn take_woken(&mut self) -> Vec<InputId> {
        std::mem::take(&mut self.woken)
    }

    /// Releases what a quiet or waiting input does not need: there may be very many such inputs.
    pub fn rest(&mut self, input: InputId) {
        if let Some(input) = self.inputs.get_mut(&input) {
            input.release_buffers();
        }
    }

    /// Reads the next block of whole lines of an input.
    ///
    /// # Errors
    /// An internal error when the input does not exist. Problems with its file are outcomes, not errors.
    pub fn read(&mut self, input: InputId, now_ms: i64) -> Result<ReadOutcome> {
        if !self.inputs.contains_key(&input) {
            return Err(Error::internal(format!("input {input} is read but was never found")));
        }
        Ok(self.read_input(input, now_ms))
    }

    /// Sets the maximum text per block, in bytes: less if many inputs are read at the same time. A longer line may
    /// exceed it.
    pub fn set_block_bytes(&mut self, bytes: usize) {
        self.settings.block_bytes = bytes.max(BLOCK_BYTES_MIN);
    }

    /// Takes back the text buffer of a processed block for reuse.
    pub fn recycle(&mut self, text: Vec<u8>) {
        if self.spare.len() < SPARE_MAX {
            self.spare.push(text);
        }
    }

    /// The facts to persist about an input once everything up to `position` is committed. Positions must not decrease.
    /// Within a block, `before` is the block's text before the position, which identifies the file later.
    pub fn facts(&mut self, input: InputId, position: u64, before: Option<&[u8]>) -> Option<InputFacts> {
        let input = self.inputs.get_mut(&input)?;
        if let Some(text) = before {
            input.text.mark(position, &text[text.len().saturating_sub(TAIL_BYTES)..]);
        }
        content::mark_within_block(input, self.fs.as_ref(), position);
        Some(input.facts(position))
    }

    /// A reported gap of an input is booked: facts persisted from now on no longer include it.
    pub fn gap_booked(&mut self, input: InputId) {
        if let Some(input) = self.inputs.get_mut(&input) {
            input.gap_booked();
        }
    }

    /// Files and folders that could not be examined in the last look, nor since. Each may contain lines of unknown
    /// inputs.
    pub fn unopened(&self) -> impl Iterator<Item = &Unopened> {
        self.unopened.values()
    }

    /// Inputs without a known file, whose file may be at a path that the last look could not examine.
    pub fn unreachable(&self) -> &[InputId] {
        &self.unreachable
    }

    /// When an input's file was last written, in milliseconds since the Unix epoch; `None` if unknown.
    pub fn modified_ms(&self, input: InputId) -> Option<i64> {
        Some(self.inputs.get(&input)?.disk.stat?.modified_ms)
    }

    /// Whether an input's file exists, or may exist, as of the last look. As long as it does, the epoch log must keep
    /// the input: otherwise its file would be taken for a new one.
    pub fn is_listed(&self, input: InputId) -> bool {
        let (Some(input), Some(listing)) = (self.inputs.get(&input), &self.listing) else { return true };
        !input.disk.place.is_nowhere() || listing.is_unknown(Path::new(&*input.name))
    }

    /// Forgets an input that has ended and is not listed, once the epoch log has compacted it. If its file reappears
    /// later, it becomes a new input.
    pub fn forget(&mut self, input: InputId) {
        let ended = |input: &Input| input.stage.is_ended() && input.disk.place.is_nowhere();
        if self.inputs.get(&input).map(Box::as_ref).is_some_and(ended) {
            self.inputs.remove(&input);
        }
    }

    /// The number of the next new input.
    pub fn next_input(&self) -> u64 {
        self.next_input
    }

    /// The progress of the run.
    pub fn progress(&self) -> Progress {
        let mut sum = Progress::default();
        for (total, read) in self.inputs.values().map(Box::as_ref).filter_map(Input::progress) {
            sum.total_bytes += total;
            sum.read_bytes += read;
        }
        sum
    }

    /// Present problems with files that stop nothing: unreadable files, link loops and the like.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.all()
    }

    /// The warnings that this method has not returned before, for the log.
    pub fn new_warnings(&mut self) -> Vec<String> {
        self.warnings.news()
    }
}
