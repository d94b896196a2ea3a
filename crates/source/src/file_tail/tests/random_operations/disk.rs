//! Files in memory: names, reused inodes, links, and what the tailer saw of them.

use super::Sight;
use super::content::{self, Line};
use crate::file_system::{Change, FileKind, FileStat, FileSystem, FolderWatch, TailFile, WatchId};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

/// The only folder.
pub(super) const FOLDER: &str = "/logs";

/// Maximum number of links that are followed in a row.
const LINKS_MAX: usize = 4;

/// A disk that the tailer, the writers and the oracle share.
#[derive(Clone, Default)]
pub(super) struct Disk(Arc<Mutex<State>>);

/// The content of the disk.
#[derive(Default)]
pub(super) struct State {
    pub(super) names: BTreeMap<String, Entry>,
    pub(super) nodes: BTreeMap<u64, Node>,
    pub(super) now_ms: i64,
    /// The names that the tailer's patterns match.
    pub(super) sight: Option<Sight>,
    /// Whether writers usually compress, and change compressed files.
    pub(super) compresses: bool,
    /// The resolution of times of change, in milliseconds; 0 makes each change differ.
    pub(super) grain_ms: i64,
    changes: i64,
    queues: BTreeMap<u32, Queue>,
    next_queue: u32,
    /// Number of the tailer's current run; `None` while it is stopped.
    pub(super) run: Option<u32>,
    /// Number of the current operation.
    pub(super) step: usize,
    /// Names that cannot be opened or read at present.
    pub(super) unreadable: BTreeSet<String>,
    /// Every whole line that was ever in a file.
    pub(super) lines: BTreeMap<Line, Fate>,
    /// Every text that was ever between two line endings.
    pub(super) pieces: BTreeSet<Vec<u8>>,
    /// Lines that are read and committed.
    pub(super) read: BTreeSet<Line>,
    /// Whether text that was not read and committed was ever removed.
    pub(super) destroyed: bool,
}

/// The target of a name.
#[derive(Clone)]
pub(super) enum Entry {
    Node(u64),
    Link(String),
}

/// A file.
#[derive(Default, Clone)]
pub(super) struct Node {
    pub(super) bytes: Vec<u8>,
    links: u64,
    handles: u64,
    changed_ns: i64,
    modified_ms: i64,
    /// The last length that the tailer saw, and in which run.
    seen: Option<(u32, u64)>,
    /// The run that last opened it.
    pub(super) opened: Option<u32>,
    /// The run that last saw it before it was cut, its length then, and the lines lost since.
    cut: Option<(u32, u64, Vec<Line>)>,
    /// Whether it was ever seen with NUL bytes in it.
    padded: bool,
    /// Whether the run loop has an input for it.
    pub(super) applied: bool,
    /// Whether the epoch log has an input for it.
    pub(super) known: bool,
}

/// The fate of a line.
#[derive(Clone, Debug, Default)]
pub(super) struct Fate {
    /// Whether it was ever in a file that the patterns match.
    pub(super) in_sight: bool,
    /// The operation that last removed it.
    pub(super) gone_at: usize,
    /// The run of the tailer that had seen it before it was removed, if that run was active then.
    pub(super) seen_by: Option<u32>,
}

#[derive(Default)]
struct Queue {
    folders: BTreeMap<WatchId, String>,
    next: i32,
    changes: Vec<Change>,
}

struct MemoryFile {
    disk: Disk,
    node: u64,
}

struct MemoryWatch {
    disk: Disk,
    queue: u32,
}

impl Disk {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("a disk")
    }
}

fn not_found() -> io::Error {
    io::Error::from(io::ErrorKind::NotFound)
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

impl State {
    /// The inode of a name.
    pub(super) fn find(&self, name: &str) -> Option<u64> {
        let mut name = name.to_owned();
        for _ in 0..LINKS_MAX {
            match self.names.get(&name)? {
                Entry::Node(node) => return Some(*node),
                Entry::Link(to) => name.clone_from(to),
            }
        }
        None
    }

    pub(super) fn bytes(&self, name: &str) -> Option<&[u8]> {
        Some(&self.nodes[&self.find(name)?].bytes)
    }

    /// Creates a file under a name and replaces any previous entry. The lowest free inode is used.
    pub(super) fn create(&mut self, name: &str, bytes: Vec<u8>, sees: impl Fn(&str) -> bool) -> u64 {
        let node = (1..).find(|node| !self.nodes.contains_key(node)).expect("a free inode");
        self.nodes.insert(node, Node::default());
        self.point(name, Entry::Node(node));
        self.change(node, |old| *old = bytes, sees);
        node
    }

    /// Changes the target of a name.
    pub(super) fn point(&mut self, name: &str, entry: Entry) {
        if let Entry::Node(node) = entry {
            self.nodes.get_mut(&node).expect("a file").links += 1;
            self.touch(node);
        }
        if let Some(Entry::Node(old)) = self.names.insert(name.to_owned(), entry) {
            self.unlink(old);
        }
        self.tell(name, Change::Entry);
    }

    pub(super) fn remove(&mut self, name: &str) {
        if let Some(Entry::Node(old)) = self.names.remove(name) {
            self.unlink(old);
        }
        self.tell(name, Change::Entry);
    }

    pub(super) fn rename(&mut self, from: &str, to: &str, sees: impl Fn(&str) -> bool) {
        let Some(entry) = self.names.remove(from) else { return };
        if let Entry::Node(node) = entry {
            self.touch(node);
        }
        if let Some(Entry::Node(old)) = self.names.insert(to.to_owned(), entry) {
            self.unlink(old);
        }
        self.tell(from, Change::Entry);
        self.tell(to, Change::Entry);
        if let Some(node) = self.find(to) {
            self.note_lines(node, &sees);
        }
    }

    /// Changes a file's content.
    pub(super) fn change(&mut self, node: u64, change: impl FnOnce(&mut Vec<u8>), sees: impl Fn(&str) -> bool) {
        let before = self.nodes[&node].clone();
        change(&mut self.nodes.get_mut(&node).expect("a file").bytes);
        self.touch(node);
        let now_ms = self.now_ms;
        self.nodes.get_mut(&node).expect("a file").modified_ms = now_ms;
        self.note_lines(node, &sees);
        let after = self.nodes[&node].bytes.clone();
        if !after.starts_with(&before.bytes) {
            let lost = self.note_loss(&before, &after);
            // Only the unchanged beginning still counts as seen.
            let same = before.bytes.iter().zip(&after).take_while(|(old, new)| old == new).count() as u64;
            let node = self.nodes.get_mut(&node).expect("a file");
            node.seen = node.seen.map(|(run, len)| (run, len.min(same))).filter(|_| same > 0);
            // A file that was cut while the tailer was stopped looks like another file with the same beginning.
            node.known &= self.run.is_some();
            if same > 0 {
                // Unless a look finds it shorter, it looks like a file that only grew.
                node.cut = before.seen.map(|(run, len)| (run, len, lost.clone()));
                lost.iter().for_each(|line| self.lines.get_mut(line).expect("a line").seen_by = None);
            } else {
                // A different text, as if it were another file.
                (node.opened, node.applied, node.known) = (None, false, false);
            }
        }
        let names: Vec<String> = self.names_of(node);
        names.iter().for_each(|name| self.tell(name, Change::Content));
    }

    /// Opens a file for a writer.
    pub(super) fn hold(&mut self, node: u64) {
        self.nodes.get_mut(&node).expect("a file").handles += 1;
    }

    pub(super) fn release(&mut self, node: u64) {
        self.nodes.get_mut(&node).expect("a file").handles -= 1;
        self.free(node);
    }

    pub(super) fn names_of(&self, node: u64) -> Vec<String> {
        let leads = |entry: &Entry| matches!(entry, Entry::Node(other) if *other == node);
        self.names.iter().filter(|(_, entry)| leads(entry)).map(|(name, _)| name.clone()).collect()
    }

    fn unlink(&mut self, node: u64) {
        let file = self.nodes.get_mut(&node).expect("a file");
        file.links -= 1;
        if file.links == 0 {
            let text = content::text(&file.bytes);
            self.destroyed |= content::pieces(&text).any(|piece| !self.read.contains(&Line::of(piece.text)));
        }
        self.touch(node);
        self.free(node);
    }

    fn free(&mut self, node: u64) {
        if self.nodes.get(&node).is_some_and(|node| node.links == 0 && node.handles == 0)
            && let Some(old) = self.nodes.remove(&node)
        {
            self.note_loss(&old, &[]);
        }
    }

    fn touch(&mut self, node: u64) {
        self.changes += 1;
        let changed_ns = match self.grain_ms {
            0 => self.changes,
            grain => self.now_ms / grain,
        };
        self.nodes.get_mut(&node).expect("a file").changed_ns = changed_ns;
    }

    fn note_lines(&mut self, node: u64, sees: &impl Fn(&str) -> bool) {
        let in_sight = self.names.keys().any(|name| sees(name) && self.find(name) == Some(node));
        let bytes = &self.nodes[&node].bytes;
        let text = content::text(bytes);
        for piece in content::pieces(&text) {
            if piece.ends {
                self.lines.entry(Line::of(piece.text)).or_default().in_sight |= in_sight;
            }
            self.pieces.insert(piece.text.to_vec());
        }
    }

    /// Records lines of `before` that are not in `after`; returns those that the tailer had seen.
    fn note_loss(&mut self, before: &Node, after: &[u8]) -> Vec<Line> {
        let mut lost = Vec::new();
        let (old, new) = (content::text(&before.bytes), content::text(after));
        let kept: BTreeSet<&[u8]> = content::pieces(&new).filter(|piece| piece.ends).map(|piece| piece.text).collect();
        let seen = before.seen.filter(|(run, _)| Some(*run) == self.run);
        let is_text = old == before.bytes;
        // The tailer cannot know that it was padding before it is read.
        self.destroyed |= before.bytes.get(after.len()..).is_some_and(|cut| cut.contains(&0));
        for piece in content::pieces(&old).filter(|piece| !kept.contains(piece.text)) {
            self.destroyed |= !self.read.contains(&Line::of(piece.text));
            let known = seen.filter(|(_, len)| !is_text || *len >= piece.end as u64);
            if let Some(fate) = self.lines.get_mut(&Line::of(piece.text)) {
                (fate.gone_at, fate.seen_by) = (self.step, known.map(|(run, _)| run));
                lost.extend(known.map(|_| Line::of(piece.text)));
            }
        }
        lost
    }

    fn sees(&self, name: &str) -> bool {
        self.sight.is_some_and(|sight| sight.sees(name))
    }

    fn tell(&mut self, name: &str, change: fn(WatchId, OsString) -> Change) {
        for queue in self.queues.values_mut() {
            let ids = queue.folders.iter().filter(|(_, folder)| *folder == FOLDER).map(|(id, _)| *id);
            let told: Vec<Change> = ids.map(|id| change(id, name.into())).collect();
            queue.changes.extend(told);
        }
    }

    fn stat(&mut self, node: u64) -> FileStat {
        let run = self.run;
        let node_number = node;
        let node = self.nodes.get_mut(&node).expect("a file");
        let len = node.bytes.len() as u64;
        // Reading and the first bytes both show how much text a padded file contains.
        node.padded |= node.bytes.contains(&0);
        if !node.padded || (node.applied && !node.bytes.contains(&0)) {
            node.seen = run.map(|run| (run, len));
        }
        if let Some((_, _, lost)) = node.cut.take().filter(|(by, before, _)| run == Some(*by) && len < *before) {
            lost.iter().for_each(|line| self.lines.get_mut(line).expect("a line").seen_by = run);
        }
        FileStat {
            kind: FileKind::File,
            inode: (1, node_number),
            len,
            links: node.links,
            changed_ns: node.changed_ns,
            modified_ms: node.modified_ms,
        }
    }
}

fn name_in_folder(path: &Path) -> io::Result<String> {
    let name = path.strip_prefix(FOLDER).map_err(|_| not_found())?;
    Ok(name.to_string_lossy().into_owned())
}

impl FileSystem for Disk {
    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        if folder != Path::new(FOLDER) {
            return Err(not_found());
        }
        Ok(self.state().names.keys().map(OsString::from).collect())
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        let name = name_in_folder(path)?;
        let mut state = self.state();
        if name.is_empty() {
            let (kind, inode) = (FileKind::Folder, (1, 0));
            return Ok(FileStat { kind, inode, len: 0, links: 2, changed_ns: state.changes, modified_ms: 0 });
        }
        let node = state.find(&name).ok_or_else(not_found)?;
        let seen = state.nodes[&node].seen;
        let stat = state.stat(node);
        if !state.sees(&name) {
            state.nodes.get_mut(&node).expect("a file").seen = seen;
        }
        Ok(stat)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn TailFile>> {
        let name = name_in_folder(path)?;
        let mut state = self.state();
        let node = state.find(&name).ok_or_else(not_found)?;
        if state.unreadable.contains(&name) {
            return Err(eio());
        }
        let run = if state.sees(&name) { state.run } else { None };
        let file = state.nodes.get_mut(&node).expect("a file");
        file.handles += 1;
        file.opened = run.or(file.opened);
        Ok(Box::new(MemoryFile { disk: self.clone(), node }))
    }

    fn watch(&self) -> Option<Box<dyn FolderWatch>> {
        let mut state = self.state();
        // Half of the runs have no watch.
        if state.step.is_multiple_of(2) {
            return None;
        }
        let queue = state.next_queue;
        state.next_queue += 1;
        state.queues.insert(queue, Queue::default());
        Some(Box::new(MemoryWatch { disk: self.clone(), queue }))
    }
}

impl TailFile for MemoryFile {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let state = self.disk.state();
        if state.names_of(self.node).iter().any(|name| state.unreadable.contains(name)) {
            return Err(eio());
        }
        let bytes = &state.nodes[&self.node].bytes;
        let rest = bytes.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }

    fn stat(&self) -> io::Result<FileStat> {
        let mut state = self.disk.state();
        let stat = state.stat(self.node);
        let run = state.run;
        let node = state.nodes.get_mut(&self.node).expect("a file");
        if node.opened.is_none() || node.opened != run {
            node.seen = None;
        }
        Ok(stat)
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        if let Ok(mut state) = self.disk.0.lock() {
            state.release(self.node);
        }
    }
}

impl FolderWatch for MemoryWatch {
    fn add(&mut self, folder: &Path) -> Option<WatchId> {
        let mut state = self.disk.state();
        let queue = state.queues.get_mut(&self.queue)?;
        queue.next += 1;
        let id = WatchId(queue.next);
        queue.folders.insert(id, folder.to_string_lossy().into_owned());
        Some(id)
    }

    fn remove(&mut self, id: WatchId) {
        if let Some(queue) = self.disk.state().queues.get_mut(&self.queue) {
            queue.folders.remove(&id);
        }
    }

    fn covers(&self, path: &Path, stat: &FileStat) -> bool {
        stat.links <= 1 && !self.is_link(path)
    }

    fn is_link(&self, path: &Path) -> bool {
        let name = name_in_folder(path).unwrap_or_default();
        matches!(self.disk.state().names.get(&name), Some(Entry::Link(_)))
    }

    fn changes(&mut self, changes: &mut Vec<Change>) {
        if let Some(queue) = self.disk.state().queues.get_mut(&self.queue) {
            changes.append(&mut queue.changes);
        }
    }
}

impl Drop for MemoryWatch {
    fn drop(&mut self) {
        if let Ok(mut state) = self.disk.0.lock() {
            state.queues.remove(&self.queue);
        }
    }
}
