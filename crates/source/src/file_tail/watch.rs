//! The known state of folders and files since the last look, so that only changes are examined again.
//!
//! A watched folder is listed once; after that, its changes are reported. Because a change may be missed (see
//! [`FolderWatch`]), each round also examines some covered files, all of them in turn. Files that no watch covers are
//! examined in every round.

use crate::file_system::{Change, FileStat, FileSystem, FolderWatch, TailFile, WatchId};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::io::{self, ErrorKind};
use std::ops::Bound;
use std::path::{Path, PathBuf};

/// Covered files examined in each round anyway: some 2,000 per second, 100,000 in a minute, at about 1 % of a core.
const ROUND_FILES: usize = 512;

/// Maximum uncovered files that are examined in each round. With more, each round examines everything.
const UNCOVERED_MAX: usize = 1_024;

/// Maximum number of watched folders; `fs.inotify.max_user_watches` is at least 8,192.
const FOLDERS_MAX: usize = 4_096;

/// A watched folder.
struct Folder {
    id: WatchId,
    /// Device and inode when it was listed: another folder may take its path.
    inode: (u64, u64),
    /// Its entries, with facts if they are known to be up to date.
    entries: BTreeMap<OsString, Option<FileStat>>,
    /// Whether the last look at everything visited it.
    visited: bool,
}

/// Files and folders as they were last seen.
pub(super) struct Watcher {
    watch: Option<Box<dyn FolderWatch>>,
    folders: BTreeMap<PathBuf, Folder>,
    by_id: HashMap<WatchId, PathBuf>,
    /// Files whose changes no folder watch reports, and their last known state.
    uncovered: BTreeMap<PathBuf, Option<FileStat>>,
    /// Whether a requested path cannot be watched.
    incomplete: bool,
    /// The covered file after which the next turn begins.
    turn: Option<(PathBuf, OsString)>,
    changes: Vec<Change>,
}

/// The result of a round.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Round {
    /// Files whose content or attributes changed, with their present state.
    pub(super) changed: Vec<(PathBuf, FileStat)>,
    /// Whether everything has to be examined: an entry was added, removed or replaced.
    pub(super) look: bool,
}

impl Watcher {
    pub(super) fn new(fs: &dyn FileSystem) -> Watcher {
        Watcher {
            watch: fs.watch(),
            folders: BTreeMap::new(),
            by_id: HashMap::new(),
            uncovered: BTreeMap::new(),
            incomplete: false,
            turn: None,
            changes: Vec::new(),
        }
    }

    /// Begins a look at everything.
    pub(super) fn begin_look(&mut self) {
        self.take_changes(&mut BTreeSet::new());
        self.folders.values_mut().for_each(|folder| folder.visited = false);
        self.uncovered.clear();
        self.incomplete = self.watch.is_none();
    }

    /// Ends a look at everything: folders that it did not visit are no longer watched.
    pub(super) fn end_look(&mut self) {
        let left: Vec<PathBuf> =
            self.folders.iter().filter(|(_, folder)| !folder.visited).map(|(path, _)| path.clone()).collect();
        left.iter().for_each(|path| self.forget(path));
        self.incomplete |= self.uncovered.len() > UNCOVERED_MAX;
        if self.incomplete {
            // They are not needed before the next look.
            self.uncovered.clear();
        }
    }

    /// Whether a round finds all changes; otherwise each round has to examine everything.
    pub(super) fn is_complete(&self) -> bool {
        !self.incomplete
    }

    /// Examines reported changes, uncovered files, and some of the others.
    pub(super) fn round(&mut self, fs: &dyn FileSystem) -> Round {
        let mut round = Round::default();
        let mut suspects = BTreeSet::new();
        round.look = self.take_changes(&mut suspects);
        self.take_turn(&mut suspects);
        for (folder, name) in suspects {
            let path = folder.join(&name);
            // Files that were never requested are ignored; uncovered files follow below.
            let known = self.folders.get(&folder).and_then(|folder| *folder.entries.get(&name)?);
            let Some(known) = known else { continue };
            let now = fs.stat(&path).ok();
            round.compare(path, Some(known), now);
            if let Some(entry) = self.folders.get_mut(&folder).and_then(|folder| folder.entries.get_mut(&name)) {
                *entry = now.filter(|_| !round.look);
            }
        }
        for (path, known) in &mut self.uncovered {
            let now = fs.stat(path).ok();
            round.compare(path.clone(), *known, now);
            *known = now;
        }
        // A folder's watch does not report the renaming of its parent folders.
        let is_other = |path: &Path, folder: &Folder| fs.stat(path).ok().is_none_or(|now| now.inode != folder.inode);
        let others: Vec<PathBuf> =
            self.folders.iter().filter(|(path, folder)| is_other(path, folder)).map(|(path, _)| path.clone()).collect();
        round.look |= !others.is_empty();
        others.iter().for_each(|path| self.forget(path));
        round
    }

    /// Takes reported changes: collects entries that may have changed; returns whether some were added or removed.
    fn take_changes(&mut self, suspects: &mut BTreeSet<(PathBuf, OsString)>) -> bool {
        let Some(watch) = &mut self.watch else { return true };
        let mut changes = std::mem::take(&mut self.changes);
        watch.changes(&mut changes);
        let mut look = false;
        for change in changes.drain(..) {
            match change {
                Change::Content(id, name) => {
                    if let Some(path) = self.by_id.get(&id) {
                        suspects.insert((path.clone(), name));
                    }
                }
                Change::Entry(id, name) => {
                    let path = self.by_id.get(&id);
                    if let Some(folder) = path.and_then(|path| self.folders.get_mut(path)) {
                        // Assumed to exist until a look finds the opposite.
                        folder.entries.insert(name, None);
                        look = true;
                    }
                }
                Change::Folder(id) => {
                    if let Some(path) = self.by_id.get(&id).cloned() {
                        self.forget(&path);
                        look = true;
                    }
                }
                Change::Overflow => {
                    let all: Vec<PathBuf> = self.folders.keys().cloned().collect();
                    all.iter().for_each(|path| self.forget(path));
                    look = true;
                }
            }
        }
        self.changes = changes;
        if look {
            // The look examines the state of suspects.
            for (path, name) in suspects.iter() {
                if let Some(entry) = self.folders.get_mut(path).and_then(|folder| folder.entries.get_mut(name)) {
                    *entry = None;
                }
            }
        }
        look
    }

    /// Adds the files whose turn it is.
    fn take_turn(&mut self, suspects: &mut BTreeSet<(PathBuf, OsString)>) {
        let (mut folder_at, mut name_at) = match self.turn.take() {
            Some((folder, name)) => (Bound::Included(folder), Bound::Excluded(name)),
            None => (Bound::Unbounded, Bound::Unbounded),
        };
        let mut left = ROUND_FILES;
        while left > 0 {
            let Some((path, folder)) = self.folders.range((folder_at.clone(), Bound::Unbounded)).next() else { return };
            let name_from = match &folder_at {
                Bound::Included(at) if at == path => std::mem::replace(&mut name_at, Bound::Unbounded),
                _ => Bound::Unbounded,
            };
            let mut last: Option<&OsString> = None;
            for (name, _) in folder.entries.range::<OsString, _>((name_from, Bound::Unbounded)).take(left) {
                suspects.insert((path.clone(), name.clone()));
                last = Some(name);
                left -= 1;
            }
            match last {
                Some(name) if left == 0 => self.turn = Some((path.clone(), name.clone())),
                _ => {}
            }
            folder_at = Bound::Excluded(path.clone());
        }
    }

    fn forget(&mut self, path: &Path) {
        if let Some(folder) = self.folders.remove(path) {
            self.by_id.remove(&folder.id);
            if let Some(watch) = &mut self.watch {
                watch.remove(folder.id);
            }
        }
    }

    /// Lists a folder, from the known state if it is watched.
    fn list(&mut self, fs: &dyn FileSystem, path: &Path) -> io::Result<Vec<OsString>> {
        if let Some(folder) = self.folders.get_mut(path) {
            folder.visited = true;
            return Ok(folder.entries.keys().cloned().collect());
        }
        let room = self.folders.len() < FOLDERS_MAX;
        // It is watched before it is listed, so that no change is missed.
        let id = self.watch.as_mut().filter(|_| room).and_then(|watch| watch.add(path));
        let names = fs.list(path);
        match (&names, id, fs.stat(path)) {
            (Ok(names), Some(id), Ok(stat)) if !self.by_id.contains_key(&id) => {
                let entries = names.iter().map(|name| (name.clone(), None)).collect();
                self.folders.insert(path.to_owned(), Folder { id, inode: stat.inode, entries, visited: true });
                self.by_id.insert(id, path.to_owned());
            }
            // It does not exist, or it is already watched under another path.
            _ => self.incomplete = true,
        }
        names
    }

    /// Facts about a path, from the known state if its folder is watched.
    fn stat(&mut self, fs: &dyn FileSystem, path: &Path) -> io::Result<FileStat> {
        let (folder, name) = (folder_of(path), path.file_name().unwrap_or(OsStr::new("")));
        let entry = self.folders.get_mut(folder).and_then(|folder| folder.entries.get_mut(name));
        let Some(entry) = entry else {
            let stat = fs.stat(path);
            self.uncovered.insert(path.to_owned(), stat.as_ref().ok().copied());
            return stat;
        };
        if let Some(stat) = entry {
            return Ok(*stat);
        }
        match fs.stat(path) {
            Ok(stat) => {
                if self.watch.as_ref().is_some_and(|watch| watch.covers(path, &stat)) {
                    *entry = Some(stat);
                } else {
                    self.uncovered.insert(path.to_owned(), Some(stat));
                }
                Ok(stat)
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if self.watch.as_ref().is_some_and(|watch| watch.is_link(path)) {
                    // The target of a broken link may appear later.
                    self.uncovered.insert(path.to_owned(), None);
                } else if let Some(folder) = self.folders.get_mut(folder) {
                    folder.entries.remove(name);
                }
                Err(error)
            }
            Err(error) => {
                self.uncovered.insert(path.to_owned(), None);
                Err(error)
            }
        }
    }
}

impl Round {
    /// Compares the known state of a file with its present state.
    fn compare(&mut self, path: PathBuf, known: Option<FileStat>, now: Option<FileStat>) {
        match (known, now) {
            (Some(known), Some(now)) if known == now => {}
            (Some(known), Some(now)) if (known.kind, known.inode, known.links) == (now.kind, now.inode, now.links) => {
                self.changed.push((path, now));
            }
            (None, None) => {}
            _ => self.look = true,
        }
    }
}

/// The folder of a path, as the patterns name it.
fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

/// The file system during a look: watched folders and files that did not change are not read again.
pub(super) struct View<'a> {
    fs: &'a dyn FileSystem,
    watcher: RefCell<&'a mut Watcher>,
}

impl<'a> View<'a> {
    pub(super) fn new(fs: &'a dyn FileSystem, watcher: &'a mut Watcher) -> View<'a> {
        View { fs, watcher: RefCell::new(watcher) }
    }
}

impl FileSystem for View<'_> {
    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        self.watcher.borrow_mut().list(self.fs, folder)
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        self.watcher.borrow_mut().stat(self.fs, path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn TailFile>> {
        self.fs.open(path)
    }
}
