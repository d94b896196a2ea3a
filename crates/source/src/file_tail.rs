//! Tailing log files: which files there are, which input each belongs to, and their text in blocks of whole lines.
//!
//! A file is known by its content, never by path or inode alone. An input follows its file through renames, copies and
//! compression; a path that begins anew (truncation, rotation) becomes a new input. Files are held open while they are
//! read, so that a deleted or renamed one is read to its end first.
//!
//! Imports go in one direction: from this file to the files that act (`discover`, `identify`, `search`, `adopt`,
//! `settle`, `read`), then to `decide`, which makes decisions from facts alone, and to the facts about an `input`: its
//! `stage`, its file `on_disk`, its `text`, `layout` and `size`.
//!
//! One race remains: a file that is cut and has grown beyond the old position with the very same bytes before that
//! position cannot be told from one that only grew. And what is written between the last read and a truncation is lost
//! without a trace, as it is for every reader of files rotated by copytruncate.

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

/// Buffers kept for further text: as many as are read ahead at a time.
const SPARE_MAX: usize = 16;

impl Tailer {
    /// Looks at the paths: new files, renames, truncation, deletion, growth. Meant to be called a few times a second:
    /// where folders are watched, only what changed is looked at, and where there are very many files, all of them are
    /// not looked at each time. What it returns takes effect in the caller at an epoch boundary.
    ///
    /// # Errors
    /// None at present: what is wrong with files is kept as [`Tailer::warnings`].
    pub fn discover(&mut self, now_ms: i64) -> Result<Vec<Discovery>> {
        Ok(self.look_where_needed(now_ms))
    }

    /// Looks at all the paths, whatever is known of them.
    ///
    /// # Errors
    /// As [`Tailer::discover`].
    pub fn discover_all(&mut self, now_ms: i64) -> Result<Vec<Discovery>> {
        Ok(self.look(now_ms))
    }

    /// Whether an input at its end needs not be asked again before [`Tailer::take_woken`] names it: nothing is known to
    /// come, nor does time change anything about it.
    pub fn is_quiet(&self, input: InputId, now_ms: i64) -> bool {
        self.inputs.get(&input).is_some_and(|input| input.is_quiet(now_ms))
    }

    /// The inputs whose files changed since the last call, and where paths cannot be looked at, those that may have.
    pub fn take_woken(&mut self) -> Vec<InputId> {
        std::mem::take(&mut self.woken)
    }

    /// Gives back what is not needed of an input that is quiet or waits for others: there may be very many.
    pub fn rest(&mut self, input: InputId) {
        if let Some(input) = self.inputs.get_mut(&input) {
            input.release_buffers();
        }
    }

    /// Reads the next block of whole lines of an input.
    ///
    /// # Errors
    /// An internal error when there is no such input. What is wrong with its file is an outcome.
    pub fn read(&mut self, input: InputId, now_ms: i64) -> Result<ReadOutcome> {
        if !self.inputs.contains_key(&input) {
            return Err(Error::internal(format!("input {input} is read but was never found")));
        }
        Ok(self.read_input(input, now_ms))
    }

    /// Changes how much text is delivered at a time: less where many inputs are read at the same time. Where a line is
    /// longer, more is read.
    pub fn set_block_bytes(&mut self, bytes: usize) {
        self.settings.block_bytes = bytes.max(BLOCK_BYTES_MIN);
    }

    /// Takes back the text of a block that is done with, as room for further text.
    pub fn recycle(&mut self, text: Vec<u8>) {
        if self.spare.len() < SPARE_MAX {
            self.spare.push(text);
        }
    }

    /// What is to be persisted of an input once everything up to `position` is committed. Where that is within a block,
    /// `before` is the block's text before it: by that the file is known again. Positions asked for must not go back.
    pub fn facts(&mut self, input: InputId, position: u64, before: Option<&[u8]>) -> Option<InputFacts> {
        let input = self.inputs.get_mut(&input)?;
        if let Some(text) = before {
            input.text.mark(position, &text[text.len().saturating_sub(TAIL_BYTES)..]);
        }
        content::mark_within_block(input, self.fs.as_ref(), position);
        Some(input.facts(position))
    }

    /// A gap that was told of an input is booked: what is persisted from now on no longer has it.
    pub fn gap_booked(&mut self, input: InputId) {
        if let Some(input) = self.inputs.get_mut(&input) {
            input.gap_booked();
        }
    }

    /// What could not be looked at in the last look, nor since: files and folders, each of which may hold lines of
    /// inputs that are not known yet.
    pub fn unopened(&self) -> impl Iterator<Item = &Unopened> {
        self.unopened.values()
    }

    /// Inputs that have no file, as far as is known, which may be among what could not be looked at in the last look.
    pub fn unreachable(&self) -> &[InputId] {
        &self.unreachable
    }

    /// When an input's file was last written, as far as is known, in milliseconds since the Unix epoch.
    pub fn modified_ms(&self, input: InputId) -> Option<i64> {
        Some(self.inputs.get(&input)?.disk.stat?.modified_ms)
    }

    /// Whether an input's file is there, or may be, as of the last look. As long as it is, the input must stay known to
    /// the epoch log: else its file would be taken for a new one.
    pub fn is_listed(&self, input: InputId) -> bool {
        let (Some(input), Some(listing)) = (self.inputs.get(&input), &self.listing) else { return true };
        !input.disk.place.is_nowhere() || listing.is_unknown(Path::new(&*input.name))
    }

    /// Forgets an input that has ended and is not listed, when the epoch log has summed it up. Should its file come
    /// back after that, it is a new input.
    pub fn forget(&mut self, input: InputId) {
        let ended = |input: &Input| input.stage.is_ended() && input.disk.place.is_nowhere();
        if self.inputs.get(&input).map(Box::as_ref).is_some_and(ended) {
            self.inputs.remove(&input);
        }
    }

    /// The number that the next new input will get.
    pub fn next_input(&self) -> u64 {
        self.next_input
    }

    /// How far the run has come.
    pub fn progress(&self) -> Progress {
        let mut sum = Progress::default();
        for (total, read) in self.inputs.values().map(Box::as_ref).filter_map(Input::progress) {
            sum.total_bytes += total;
            sum.read_bytes += read;
        }
        sum
    }

    /// What is wrong with files at the moment and stops nothing: unreadable ones, links in a loop and the like.
    pub fn warnings(&self) -> Vec<String> {
        self.warnings.all()
    }

    /// Those of the warnings that were not returned here before, for the log.
    pub fn new_warnings(&mut self) -> Vec<String> {
        self.warnings.news()
    }
}
