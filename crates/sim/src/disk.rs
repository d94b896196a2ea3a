//! A disk that keeps synced data. On a power loss, it may keep or lose any of the rest.

use crate::random::Random;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// A file, apart from its names.
#[derive(Clone, Debug, Default)]
struct Inode {
    /// The content that readers see.
    content: Vec<u8>,
    /// The content that was synced.
    durable: Vec<u8>,
}

/// A change of names that is not durable yet.
#[derive(Clone, Debug)]
enum Change {
    Link(String, u64),
    Unlink(String),
    Rename(String, String),
    Folder(String),
}

/// Names of files, and folders.
#[derive(Clone, Debug, Default)]
struct Names {
    files: BTreeMap<String, u64>,
    folders: BTreeSet<String>,
}

/// Files by path, as readers see them and as they are on the disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    inodes: BTreeMap<u64, Inode>,
    names: Names,
    durable_names: Names,
    /// Changes of names since their folder was last synced, in order.
    pending: Vec<Change>,
    next_inode: u64,
}

fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

impl Change {
    fn folder(&self) -> &str {
        match self {
            Change::Link(path, _) | Change::Unlink(path) | Change::Rename(path, _) | Change::Folder(path) => {
                folder_of(path)
            }
        }
    }

    fn apply(&self, names: &mut Names) {
        match self {
            Change::Link(path, inode) => drop(names.files.insert(path.clone(), *inode)),
            Change::Unlink(path) => drop(names.files.remove(path)),
            Change::Rename(from, to) => {
                if let Some(inode) = names.files.remove(from) {
                    names.files.insert(to.clone(), inode);
                }
            }
            Change::Folder(path) => drop(names.folders.insert(path.clone())),
        }
    }
}

impl Disk {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.names);
        self.pending.push(change);
    }

    fn inode(&self, path: &str) -> io::Result<u64> {
        self.names.files.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Adds a folder that always exists.
    pub(crate) fn begin(&mut self, folder: &str) {
        self.names.folders.insert(folder.to_owned());
        self.durable_names.folders.insert(folder.to_owned());
    }

    /// Creates a folder and its parents.
    pub(crate) fn create_folders(&mut self, path: &str) {
        let ends = path.match_indices('/').map(|(at, _)| at).filter(|&at| at > 0).chain([path.len()]);
        for folder in ends.map(|end| path[..end].to_owned()) {
            if !self.names.folders.contains(&folder) {
                self.change(Change::Folder(folder));
            }
        }
    }

    /// Whether a folder exists.
    pub(crate) fn is_folder(&self, path: &str) -> bool {
        self.names.folders.contains(path)
    }

    /// Creates an empty file under a new name in an existing folder.
    pub(crate) fn create_new(&mut self, path: &str) -> io::Result<()> {
        if !self.is_folder(folder_of(path)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if self.names.files.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.next_inode += 1;
        self.inodes.insert(self.next_inode, Inode::default());
        self.change(Change::Link(path.to_owned(), self.next_inode));
        Ok(())
    }

    /// Appends to a file. There is no offset, because nothing here writes elsewhere.
    pub(crate) fn append(&mut self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let inode = self.inode(path)?;
        if let Some(inode) = self.inodes.get_mut(&inode) {
            inode.content.extend_from_slice(bytes);
        }
        Ok(())
    }

    /// Makes the content of a file durable.
    pub(crate) fn sync_file(&mut self, path: &str) -> io::Result<()> {
        let inode = self.inode(path)?;
        if let Some(inode) = self.inodes.get_mut(&inode) {
            inode.durable.clone_from(&inode.content);
        }
        Ok(())
    }

    /// Adds another name to a file. The name must be new.
    pub(crate) fn hard_link(&mut self, from: &str, to: &str) -> io::Result<()> {
        let inode = self.inode(from)?;
        if self.names.files.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.change(Change::Link(to.to_owned(), inode));
        Ok(())
    }

    /// Renames a file, replacing any file of the new name.
    pub(crate) fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.inode(from)?;
        self.change(Change::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    /// Removes a name.
    pub(crate) fn remove(&mut self, path: &str) -> io::Result<()> {
        self.inode(path)?;
        self.change(Change::Unlink(path.to_owned()));
        Ok(())
    }

    /// Makes the names in a folder durable.
    pub(crate) fn sync_folder(&mut self, folder: &str) {
        let (synced, left) =
            std::mem::take(&mut self.pending).into_iter().partition(|change| change.folder() == folder);
        self.pending = left;
        let synced: Vec<Change> = synced;
        for change in synced {
            change.apply(&mut self.durable_names);
        }
    }

    /// Creates a complete durable file, unless its name is taken: a delayed write.
    pub(crate) fn put_late(&mut self, path: &str, bytes: &[u8]) {
        if self.is_folder(folder_of(path)) && self.create_new(path).is_ok() {
            let written = self.append(path, bytes).and_then(|()| self.sync_file(path));
            debug_assert!(written.is_ok(), "it was just created");
            self.sync_folder(folder_of(path));
        }
    }

    /// The content of a file.
    pub(crate) fn read(&self, path: &str) -> io::Result<&[u8]> {
        let inode = self.inode(path)?;
        Ok(self.inodes.get(&inode).map_or(&[], |inode| &inode.content))
    }

    /// Files below a folder: path and size, by path.
    pub(crate) fn list<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = (&'a str, usize)> {
        let below = move |path: &str| path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
        let files = self.names.files.iter().filter(move |(path, _)| folder.is_empty() || below(path));
        files.map(|(path, inode)| (path.as_str(), self.inodes.get(inode).map_or(0, |inode| inode.content.len())))
    }

    /// Loses power: keeps or loses each pending name; keeps a part, zeros or all of unsynced content.
    pub(crate) fn lose_power(&mut self, random: &mut Random) {
        for change in std::mem::take(&mut self.pending) {
            if random.chance(500) {
                change.apply(&mut self.durable_names);
            }
        }
        // Files in a lost folder are lost with it.
        let Names { files, folders } = &mut self.durable_names;
        let is_there = |folders: &BTreeSet<String>, path: &str| {
            let mut above = path.match_indices('/').map(|(at, _)| &path[..at]).filter(|folder| !folder.is_empty());
            above.all(|folder| folders.contains(folder))
        };
        let whole = folders.clone();
        folders.retain(|folder| is_there(&whole, folder));
        files.retain(|path, _| is_there(folders, path));
        self.names.clone_from(&self.durable_names);
        let named: Vec<u64> = self.names.files.values().copied().collect();
        self.inodes.retain(|number, _| named.contains(number));
        for inode in self.inodes.values_mut().filter(|inode| inode.content != inode.durable) {
            match random.below(4) {
                0 => inode.content.clone_from(&inode.durable),
                1 => inode.content.truncate(random.below(inode.content.len() as u64 + 1) as usize),
                2 => inode.content.fill(0),
                _ => {}
            }
            inode.durable.clone_from(&inode.content);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The content under the name after a power loss, if any, by seed.
    fn after_power_loss(seed: u64, prepare: impl Fn(&mut Disk)) -> Option<Vec<u8>> {
        let mut disk = Disk::default();
        prepare(&mut disk);
        disk.lose_power(&mut Random::new(seed));
        disk.read("a/b").ok().map(<[u8]>::to_vec)
    }

    #[test]
    fn what_is_synced_stays_and_the_rest_may_not() {
        let whole = Some(b"content".to_vec());
        let write = |disk: &mut Disk| {
            disk.create_folders("a");
            disk.sync_folder("");
            disk.create_new("a/b").unwrap();
            disk.append("a/b", b"content").unwrap();
        };
        let mut found = Vec::new();
        for seed in 0..64 {
            let synced = after_power_loss(seed, |disk| {
                write(disk);
                disk.sync_file("a/b").unwrap();
                disk.sync_folder("a");
            });
            assert_eq!(synced, whole);
            let named_only = after_power_loss(seed, |disk| {
                write(disk);
                disk.sync_folder("a");
            });
            assert!(named_only.is_some());
            found.push(named_only);
            found.push(after_power_loss(seed, |disk| {
                write(disk);
                disk.sync_file("a/b").unwrap();
            }));
        }
        for outcome in [None, Some(Vec::new()), Some(vec![0; 7]), Some(b"con".to_vec()), whole] {
            assert!(found.contains(&outcome), "{outcome:?}");
        }
    }
}
