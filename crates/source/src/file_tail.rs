//! Tailing log files: which files there are, which input each belongs to, and their text in blocks of whole lines.
//!
//! A file is known by its content, never by path or inode alone. An input follows its file through renames, copies and
//! compression; a path that begins anew (truncation, rotation) becomes a new input. Files are held open while they are
//! read, so that a deleted or renamed one is read to its end first.
//!
//! One race remains: a file that is cut and has grown beyond the old position with the very same bytes before that
//! position cannot be told from one that only grew. And what is written between the last read and a truncation is lost
//! without a trace, as it is for every reader of files rotated by copytruncate.

pub(crate) mod compressed;
mod discover;
mod fingerprint;
mod handles;
mod identify;
mod input;
mod patterns;
mod read;
mod read_compressed;
mod search;
mod settle;
mod troubles;
mod unwritten;
mod watch;

#[cfg(test)]
mod tests;

use crate::block::Block;
use crate::decode::DecodeSettings;
use crate::file_system::FileSystem;
use adtally_model::input::Fingerprint;
use adtally_model::{Error, InputId, InputRow, Result};
use fingerprint::TAIL_BYTES;
use identify::Probe;
use input::Input;
use patterns::{Listing, Patterns};
pub use patterns::{Survey, survey};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use troubles::Troubles;
use watch::Watcher;

/// How files are tailed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TailSettings {
    /// How lines are to be read: the format of each file is found out here.
    pub decode: Arc<DecodeSettings>,
    /// Text delivered at a time, in bytes; more only where a line is longer.
    pub block_bytes: usize,
    /// How long a renamed or vanished file is waited for before its input ends, in milliseconds.
    pub rotate_wait_ms: i64,
    /// How long a compressed file that stops in its midst is taken for one that is still being written, in
    /// milliseconds.
    pub incomplete_wait_ms: i64,
    /// In a bounded run: an unterminated last row of CSV that has all its columns is a line if its file was last written
    /// at or before this time, in milliseconds of the wall clock; none means that it stays unread. RFC 4180 lets the last
    /// row lack its line ending, but a writer may be in its midst.
    pub last_rows_before_ms: Option<i64>,
    /// Whether each file is read only to the size that it had at the first look (`--until-end`).
    pub bounded: bool,
    /// Files that are followed at most; those beyond are reported, not read.
    pub files_max: usize,
    /// Files held open at most; those beyond are opened again when they are read.
    pub open_max: usize,
    /// Memory of the decoders of compressed files together, in bytes; the last that is begun may go over it.
    pub stream_bytes_max: usize,
}

impl TailSettings {
    /// Text read at a time where a line is longer than a block, in bytes: one of the longest length fits, with its ending
    /// and a byte order mark.
    fn long_block_bytes(&self) -> usize {
        self.block_bytes.max(2 * self.decode.line_bytes_max)
    }
}

impl Default for TailSettings {
    fn default() -> Self {
        TailSettings {
            decode: Arc::new(DecodeSettings::default()),
            // Large enough that the cost of a system call vanishes, small enough for a thousand inputs.
            block_bytes: 1024 * 1024,
            rotate_wait_ms: 2_000,
            // Copies over slow networks stall now and then.
            incomplete_wait_ms: 60_000,
            last_rows_before_ms: None,
            bounded: false,
            files_max: 262_144,
            // Half of the usual limit of 1,024 handles a process.
            open_max: 512,
            // Some 600 of gzip, or 50 of zstd's usual level.
            stream_bytes_max: 128 << 20,
        }
    }
}

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
    /// [`Tailer::gap_booked`].
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
pub enum ReadOutcome {
    /// Whole lines.
    Block(Block),
    /// Nothing yet, but the input is not at its end: it is on its way through text that was read before, or through a
    /// line without end. Read again.
    Busy,
    /// Nothing more for the moment.
    AtEnd,
    /// Nothing more ever, unless the input is resumed. Where there is a gap, only [`Tailer::discover`] tells the end.
    Ended,
    /// Its file cannot be read just now; that is not idleness.
    Unreadable(Error),
    /// It has to wait until fewer compressed files are being read; that is not idleness either.
    Waits,
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

/// Follows files and reads them.
pub struct Tailer {
    fs: Box<dyn FileSystem + Send>,
    settings: TailSettings,
    patterns: Patterns,
    /// Boxed: nodes of the map are half empty where inputs came one after another.
    inputs: BTreeMap<InputId, Box<Input>>,
    next_input: u64,
    /// The generation last used at each path.
    generations: HashMap<PathBuf, u32>,
    /// The header line of CSV last read at each path: what is written there later may go on without one.
    headers: HashMap<PathBuf, Arc<[u8]>>,
    /// Files that belong to no input yet and have to wait.
    waiting: BTreeMap<PathBuf, Probe>,
    troubles: Troubles,
    /// Counts uses of open files.
    uses: u64,
    /// Inputs whose files are open, and perhaps some whose are not any more.
    opened: BTreeSet<InputId>,
    /// Inputs that are being decoded, and perhaps some that are not any more.
    streaming: BTreeSet<InputId>,
    /// What is watched.
    watcher: Watcher,
    /// Which input's file is at a path, by the path's hash, as of the last look.
    places: HashMap<u64, InputId>,
    /// When everything was last looked at, in monotonic milliseconds.
    looked_at_ms: i64,
    /// Whether everything has to be looked at again as soon as may be.
    look_wanted: bool,
    /// Whether time alone may change something about an input: each look has to settle it.
    unsettled: bool,
    /// Inputs whose files changed and that were not asked for yet.
    woken: Vec<InputId>,
    /// What the last look could not look at; a bounded run takes no new files after the first, but those that this kept
    /// from it.
    listing: Option<Listing>,
    /// What could not be looked at since some look before the last, by path.
    unopened: BTreeMap<PathBuf, Unopened>,
    /// Inputs whose file may be behind what could not be looked at.
    unreachable: Vec<InputId>,
    /// Room for text to be read, used before.
    spare: Vec<Vec<u8>>,
}

/// Least text delivered at a time, in bytes: some ten lines, so that the cost of a block is shared.
pub const BLOCK_BYTES_MIN: usize = 1024;

/// Buffers kept for further text: as many as are read ahead at a time.
const SPARE_MAX: usize = 16;

impl std::fmt::Debug for Tailer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tailer")
            .field("patterns", &self.patterns)
            .field("inputs", &self.inputs.len())
            .finish_non_exhaustive()
    }
}

impl Tailer {
    /// Prepares to follow the files that `patterns` name: files, folders (every regular file directly in them that is
    /// not hidden) and globs. `known` are the inputs of the epoch log, `next_input` the number of the next new one.
    ///
    /// # Errors
    /// A user error when a named file is not there, a glob is not valid, or a bounded run has nothing to read.
    pub fn new(
        fs: Box<dyn FileSystem + Send>,
        settings: TailSettings,
        patterns: &[String],
        known: Vec<Arc<InputRow>>,
        next_input: u64,
    ) -> Result<Tailer> {
        settings.decode.validate()?;
        let watcher = Watcher::new(fs.as_ref());
        let patterns = {
            let known = known.iter().map(|row| Path::new(&*row.name)).collect();
            Patterns::new(fs.as_ref(), patterns, &known, settings.bounded, settings.files_max)?
        };
        let mut generations: HashMap<PathBuf, u32> = HashMap::new();
        let mut headers = HashMap::new();
        let mut newest: HashMap<&str, u32> = HashMap::new();
        for row in &known {
            // Where its log is written, whatever its file is called by now.
            let path =
                row.origin.rsplit_once('#').filter(|_| row.generation > 0).map_or(&*row.origin, |(path, _)| path);
            let newer = newest.get(path).is_none_or(|&generation| generation <= row.generation);
            if let Some(header) = row.csv_header.as_ref().filter(|_| newer) {
                newest.insert(path, row.generation);
                headers.insert(PathBuf::from(path), header.clone());
            }
            let generation = generations.entry(PathBuf::from(&*row.name)).or_insert(row.generation);
            *generation = row.generation.max(*generation);
        }
        let next_input = known.iter().map(|row| row.id.0 + 1).max().unwrap_or(1).max(next_input);
        let inputs = known.into_iter().map(|row| (row.id, Box::new(Input::restored(&row)))).collect();
        Ok(Tailer {
            fs,
            settings,
            patterns,
            inputs,
            next_input,
            generations,
            headers,
            waiting: BTreeMap::new(),
            troubles: Troubles::default(),
            uses: 0,
            opened: BTreeSet::new(),
            streaming: BTreeSet::new(),
            watcher,
            places: HashMap::new(),
            looked_at_ms: 0,
            look_wanted: true,
            unsettled: false,
            woken: Vec::new(),
            listing: None,
            unopened: BTreeMap::new(),
            unreachable: Vec::new(),
            spare: Vec::new(),
        })
    }

    /// Looks at the paths: new files, renames, truncation, deletion, growth. Meant to be called a few times a second:
    /// where folders are watched, only what changed is looked at, and where there are very many files, all of them are not
    /// looked at each time. What it returns takes effect in the caller at an epoch boundary.
    ///
    /// # Errors
    /// None at present: troubles with files are kept as [`Tailer::warnings`].
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
            input.slim();
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
            input.mark(position, &text[text.len().saturating_sub(TAIL_BYTES)..]);
        }
        read::mark_within_block(input, self.fs.as_ref(), position);
        Some(input.facts(position))
    }

    /// A gap that was told of an input is booked: what is persisted from now on no longer has it.
    pub fn gap_booked(&mut self, input: InputId) {
        if let Some(input) = self.inputs.get_mut(&input) {
            input.gap_booked();
        }
    }

    /// What could not be looked at in the last look, nor since: files and folders, each of which may hold lines of inputs
    /// that are not known yet.
    pub fn unopened(&self) -> impl Iterator<Item = &Unopened> {
        self.unopened.values()
    }

    /// Inputs that have no file, as far as is known, which may be among what could not be looked at in the last look.
    pub fn unreachable(&self) -> &[InputId] {
        &self.unreachable
    }

    /// When an input's file was last written, as far as is known, in milliseconds since the Unix epoch.
    pub fn modified_ms(&self, input: InputId) -> Option<i64> {
        Some(self.inputs.get(&input)?.stat?.modified_ms)
    }

    /// Whether an input's file is there, or may be, as of the last look. As long as it is, the input must stay known to
    /// the epoch log: else its file would be taken for a new one.
    pub fn is_listed(&self, input: InputId) -> bool {
        let (Some(input), Some(listing)) = (self.inputs.get(&input), &self.listing) else { return true };
        input.place.is_some() || listing.is_unknown(Path::new(&*input.name))
    }

    /// Forgets an input that has ended and is not listed, when the epoch log has summed it up. Should its file come back
    /// after that, it is a new input.
    pub fn forget(&mut self, input: InputId) {
        let ended = |input: &Input| input.stage == input::Stage::Ended && input.place.is_none();
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
        self.troubles.all()
    }

    /// Those of the warnings that were not returned here before, for the log.
    pub fn new_warnings(&mut self) -> Vec<String> {
        self.troubles.news()
    }
}
