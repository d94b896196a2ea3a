//! The tailer: its state about files and inputs.

use super::input::Input;
use super::outcome::Unopened;
use super::patterns::{Listing, Patterns};
use super::probe::Probe;
use super::settings::TailSettings;
use super::warnings::Warnings;
use super::watch::Watcher;
use crate::file_system::FileSystem;
use adtally_model::{InputId, InputRow, Result};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Follows files and reads them.
pub struct Tailer {
    pub(super) fs: Box<dyn FileSystem + Send>,
    pub(super) settings: TailSettings,
    pub(super) patterns: Patterns,
    /// Boxed: map nodes are half empty if inputs are added in ascending order.
    pub(super) inputs: BTreeMap<InputId, Box<Input>>,
    pub(super) next_input: u64,
    /// The generation last used at each path.
    pub(super) generations: HashMap<PathBuf, u32>,
    /// The CSV header line last read at each path: later text at the path may have no header.
    pub(super) headers: HashMap<PathBuf, Arc<[u8]>>,
    /// Files that belong to no input yet and have to wait.
    pub(super) waiting: BTreeMap<PathBuf, Probe>,
    pub(super) warnings: Warnings,
    /// Counts uses of open files.
    pub(super) uses: u64,
    /// Inputs whose files are open; may include inputs whose files were closed since.
    pub(super) opened: BTreeSet<InputId>,
    /// Inputs that are being decoded; may include inputs that no longer are.
    pub(super) streaming: BTreeSet<InputId>,
    /// Watched folders and files.
    pub(super) watcher: Watcher,
    /// Which input's file is at a path, by the path's hash, as of the last look.
    pub(super) places: HashMap<u64, InputId>,
    /// When everything was last examined, in monotonic milliseconds.
    pub(super) looked_at_ms: i64,
    /// Whether everything has to be examined again as soon as possible.
    pub(super) look_wanted: bool,
    /// Whether time alone may change something about an input: each look has to settle it.
    pub(super) unsettled: bool,
    /// Inputs whose files changed and that were not returned yet.
    pub(super) woken: Vec<InputId>,
    /// The paths that the last look could not examine. After its first look, a bounded run takes new files only from
    /// there.
    pub(super) listing: Option<Listing>,
    /// What could not be examined so far, by path.
    pub(super) unopened: BTreeMap<PathBuf, Unopened>,
    /// Inputs whose file may be at a path that could not be examined.
    pub(super) unreachable: Vec<InputId>,
    /// Used text buffers, kept for reuse.
    pub(super) spare: Vec<Vec<u8>>,
}

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
    /// not hidden) and globs. `known` are the inputs of the epoch log, `next_input` is the number of the next new one.
    ///
    /// # Errors
    /// A user error when a named file does not exist, a glob is not valid, or a bounded run has nothing to read.
    pub fn new(
        fs: Box<dyn FileSystem + Send>,
        settings: TailSettings,
        patterns: &[String],
        known: Vec<Arc<InputRow>>,
        next_input: u64,
    ) -> Result<Tailer> {
        let watcher = Watcher::new(fs.as_ref());
        let patterns = {
            let known = known.iter().map(|row| Path::new(&*row.name)).collect();
            Patterns::new(fs.as_ref(), patterns, &known, settings.bounded, settings.files_max)?
        };
        let mut generations: HashMap<PathBuf, u32> = HashMap::new();
        let mut headers = HashMap::new();
        let mut newest: HashMap<&str, u32> = HashMap::new();
        for (row, file) in known.iter().filter_map(|row| Some((row, row.file()?))) {
            // The path at which its log is written, whatever the present name of its file.
            let path =
                row.origin.rsplit_once('#').filter(|_| file.generation > 0).map_or(&*row.origin, |(path, _)| path);
            let newer = newest.get(path).is_none_or(|&generation| generation <= file.generation);
            if let Some(header) = file.csv_header.as_ref().filter(|_| newer) {
                newest.insert(path, file.generation);
                headers.insert(PathBuf::from(path), header.clone());
            }
            let generation = generations.entry(PathBuf::from(&*row.name)).or_insert(file.generation);
            *generation = file.generation.max(*generation);
        }
        let next_input = known.iter().map(|row| row.id.0 + 1).max().unwrap_or(1).max(next_input);
        let restored = |row: Arc<InputRow>| Some((row.id, Box::new(Input::restored(&row, row.file()?))));
        let inputs = known.into_iter().filter_map(restored).collect();
        Ok(Tailer {
            fs,
            settings,
            patterns,
            inputs,
            next_input,
            generations,
            headers,
            waiting: BTreeMap::new(),
            warnings: Warnings::default(),
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
}
