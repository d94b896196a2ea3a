//! Log files in memory: inodes and names. Servers change them, and the tailer reads them.

use crate::machine::Machine;
use adtally_engine::clock::Clock;
use adtally_source::{FileKind, FileStat, FileSystem, TailFile};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

/// The tailed folder.
pub(crate) const FOLDER: &str = "/logs";

#[derive(Debug)]
struct Node {
    inode: u64,
    content: Vec<u8>,
    links: u64,
    changed_ns: i64,
    /// Time of the last write, by the machine's wall clock.
    modified_ms: i64,
}

/// A handle to a file, which stays valid if its name changes or is removed.
#[derive(Clone, Debug)]
pub(crate) struct FileHandle(Arc<Mutex<Node>>);

#[derive(Debug, Default)]
struct Tree {
    names: BTreeMap<PathBuf, FileHandle>,
    /// All inodes ever used. Those without an owner are reused.
    inodes: Vec<Weak<Mutex<Node>>>,
    changes: i64,
}

/// Clones share the same files.
#[derive(Clone)]
pub(crate) struct Files {
    tree: Arc<Mutex<Tree>>,
    machine: Machine,
}

impl Files {
    pub(crate) fn new(machine: Machine) -> Files {
        Files { tree: Arc::default(), machine }
    }

    /// Creates an empty file, replacing any file of the same name.
    pub(crate) fn create(&self, path: &Path) -> FileHandle {
        self.machine.note("log created", &path.display());
        let mut tree = self.tree.lock();
        let free = tree.inodes.iter().position(|held| held.strong_count() == 0);
        let at = free.unwrap_or(tree.inodes.len());
        tree.changes += 1;
        let node = Node {
            inode: at as u64 + 1,
            content: Vec::new(),
            links: 1,
            changed_ns: tree.changes,
            modified_ms: self.machine.wall_ms(),
        };
        let handle = FileHandle(Arc::new(Mutex::new(node)));
        let held = Arc::downgrade(&handle.0);
        match tree.inodes.get_mut(at) {
            Some(slot) => *slot = held,
            None => tree.inodes.push(held),
        }
        if let Some(before) = tree.names.insert(path.to_owned(), handle.clone()) {
            before.0.lock().links -= 1;
        }
        handle
    }

    fn change(&self, file: &FileHandle, change: impl FnOnce(&mut Node)) {
        let changes = {
            let mut tree = self.tree.lock();
            tree.changes += 1;
            tree.changes
        };
        let mut node = file.0.lock();
        change(&mut node);
        node.changed_ns = changes;
    }

    pub(crate) fn append(&self, file: &FileHandle, bytes: &[u8]) {
        let now_ms = self.machine.wall_ms();
        self.change(file, |node| {
            node.content.extend_from_slice(bytes);
            node.modified_ms = now_ms;
        });
    }

    pub(crate) fn truncate(&self, file: &FileHandle) {
        self.machine.note("log truncated at", &file.len());
        let now_ms = self.machine.wall_ms();
        self.change(file, |node| {
            node.content.clear();
            node.modified_ms = now_ms;
        });
    }

    pub(crate) fn rename(&self, from: &Path, to: &Path) {
        self.machine.note("log renamed to", &to.display());
        let moved = self.tree.lock().names.remove(from);
        if let Some(file) = moved {
            self.change(&file, |_| ());
            self.tree.lock().names.insert(to.to_owned(), file);
        }
    }

    pub(crate) fn remove(&self, path: &Path) {
        self.machine.note("log removed", &path.display());
        let removed = self.tree.lock().names.remove(path);
        if let Some(file) = removed {
            self.change(&file, |node| node.links -= 1);
        }
    }
}

impl FileHandle {
    pub(crate) fn content(&self) -> Vec<u8> {
        self.0.lock().content.clone()
    }

    pub(crate) fn len(&self) -> u64 {
        self.0.lock().content.len() as u64
    }

    fn stat(&self) -> FileStat {
        let node = self.0.lock();
        FileStat {
            kind: FileKind::File,
            inode: (1, node.inode),
            len: node.content.len() as u64,
            links: node.links,
            changed_ns: node.changed_ns,
            modified_ms: node.modified_ms,
        }
    }
}

fn unreadable() -> io::Error {
    io::Error::other("the mount does not answer")
}

impl FileSystem for Files {
    fn list(&self, _: &Path) -> io::Result<Vec<OsString>> {
        self.machine.crash_point("look at the folder", 50);
        if self.machine.fails("look at the folder", 1) {
            return Err(unreadable());
        }
        let tree = self.tree.lock();
        let names = tree.names.keys().filter_map(|path| Some(path.strip_prefix(FOLDER).ok()?.as_os_str().to_owned()));
        Ok(names.collect())
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        if path == Path::new(FOLDER) {
            return Ok(FileStat {
                kind: FileKind::Folder,
                inode: (1, 0),
                len: 0,
                links: 2,
                changed_ns: 0,
                modified_ms: 0,
            });
        }
        self.tree.lock().names.get(path).map(FileHandle::stat).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn TailFile>> {
        if self.machine.fails("open a log", 1) {
            return Err(unreadable());
        }
        let found = self.tree.lock().names.get(path).cloned();
        let file = found.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(Box::new(OpenLog { file, machine: self.machine.clone() }))
    }
}

/// A log that a process has open.
struct OpenLog {
    file: FileHandle,
    machine: Machine,
}

impl TailFile for OpenLog {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.machine.crash_point("read a log", 50);
        if self.machine.fails("read a log", 1) {
            return Err(unreadable());
        }
        let node = self.file.0.lock();
        let rest = node.content.get(offset as usize..).unwrap_or_default();
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn stat(&self) -> io::Result<FileStat> {
        Ok(self.file.stat())
    }
}
