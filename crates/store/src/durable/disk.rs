//! The blocking half of the durable store: the order in which files are written, synced, put in place and made visible.
//! All disk operations go through [`DiskIo`], which a simulation can implement.

use crate::fail_points::{self, RECORD_TEMPORARY_WRITTEN};
use hashbrown::HashSet;
use object_store::PutPayload;
use parking_lot::Mutex;
use rustix::fs::{Advice, fadvise};
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Most folders remembered as synced, to bound memory. Beyond it the set is cleared, at the cost of a sync per folder.
const SYNCED_FOLDERS_MAX: usize = 16_384;

/// Files that are not read soon leave the page cache once they are durable if they have at least this many bytes. A
/// backlog writes gigabytes of them, which would displace data that is queried; this way, successive files can use the
/// same pages. An epoch of ten seconds at the mission's rate, 2.5 MB of raw clicks, stays.
const BULK_BYTES: u64 = 4 << 20;

/// Numbers temporary files within the process.
static NEXT_TEMPORARY: AtomicU64 = AtomicU64::new(1);

/// The operations of a disk. Each method fails as the file system operation of the same name does.
#[allow(clippy::missing_errors_doc, reason = "said once, for all of them")]
pub trait DiskIo: Debug + Send + Sync {
    /// Whether a folder exists at this path.
    fn is_folder(&self, path: &FilePath) -> bool;

    /// Creates a folder and its missing parents.
    fn create_folders(&self, path: &FilePath) -> io::Result<()>;

    /// Creates a file with a new name; fails if the name exists.
    fn create_new(&self, path: &FilePath) -> io::Result<Box<dyn DiskFile>>;

    /// Gives a file an additional name; fails if the name exists.
    fn hard_link(&self, from: &FilePath, to: &FilePath) -> io::Result<()>;

    /// Renames a file, replacing any file of that name.
    fn rename(&self, from: &FilePath, to: &FilePath) -> io::Result<()>;

    /// Removes a name.
    fn remove(&self, path: &FilePath) -> io::Result<()>;

    /// Makes the content of a file, or the entries of a folder, durable.
    fn sync(&self, path: &FilePath) -> io::Result<()>;
}

/// A file that is being written.
#[allow(clippy::missing_errors_doc, reason = "as for the disk")]
pub trait DiskFile: Debug + Send {
    /// Writes all bytes at an offset.
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes the file's content durable.
    fn sync_all(&mut self) -> io::Result<()>;

    /// Lets the file's content leave the page cache. It must be durable.
    fn leave_cache(&mut self) {}
}

/// Options for putting a file in place.
#[derive(Clone, Copy, Debug, Default)]
pub struct Placing {
    /// Fails if the name exists.
    pub create: bool,
    /// The file is not expected to be read soon.
    pub not_read_soon: bool,
}

/// The disk of this machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct LocalDisk;

impl DiskIo for LocalDisk {
    fn is_folder(&self, path: &FilePath) -> bool {
        path.is_dir()
    }

    fn create_folders(&self, path: &FilePath) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn create_new(&self, path: &FilePath) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().write(true).create_new(true).open(path)?))
    }

    fn hard_link(&self, from: &FilePath, to: &FilePath) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn rename(&self, from: &FilePath, to: &FilePath) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &FilePath) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync(&self, path: &FilePath) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

impl DiskFile for File {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn sync_all(&mut self) -> io::Result<()> {
        File::sync_all(self)
    }

    fn leave_cache(&mut self) {
        // This is advice: if it is ignored, nothing is lost.
        let _ = fadvise(&*self, 0, None, Advice::DontNeed);
    }
}

/// A folder on a disk, and which of its content is known to be durable.
#[derive(Clone, Debug)]
pub struct Disk {
    io: Arc<dyn DiskIo>,
    root: Arc<PathBuf>,
    fsync: bool,
    /// Folders whose entry and content this process has synced.
    synced: Arc<Mutex<HashSet<PathBuf>>>,
    /// Paths that were put in place but could not be synced: they are visible, but a power loss may undo them. Nothing
    /// below them is read or listed before a sync succeeds.
    unsettled: Arc<Mutex<BTreeSet<PathBuf>>>,
    /// A path that cannot be synced, in tests.
    #[cfg(test)]
    pub(super) failing: Arc<Mutex<Option<PathBuf>>>,
}

impl Disk {
    /// An existing folder. With `fsync` off nothing is synced.
    pub fn new(io: Arc<dyn DiskIo>, root: PathBuf, fsync: bool) -> Disk {
        Disk {
            io,
            root: Arc::new(root),
            fsync,
            synced: Arc::default(),
            unsettled: Arc::default(),
            #[cfg(test)]
            failing: Arc::default(),
        }
    }

    /// The folder.
    pub fn root(&self) -> &FilePath {
        &self.root
    }

    /// Whether everything that is visible is durable.
    pub fn is_settled(&self) -> bool {
        self.unsettled.lock().is_empty()
    }

    /// Creates a file's folder. Makes durable its entry, the entries of its parents, and its content.
    pub(super) fn ensure_folder(&self, file: &FilePath) -> io::Result<()> {
        let Some(folder) = file.parent() else { return Ok(()) };
        if !self.fsync {
            return self.io.create_folders(folder);
        }
        // The lock is kept while syncing, so that no caller relies on a folder whose entry is not on the disk yet.
        let mut synced = self.synced.lock();
        if synced.contains(folder) && self.io.is_folder(folder) {
            return Ok(());
        }
        self.io.create_folders(folder)?;
        // The files of a process that died may not be on the disk yet, and must be there before any later file.
        self.io.sync(folder)?;
        let inside = folder.ancestors().take_while(|ancestor| *ancestor != self.root.as_path());
        for ancestor in inside {
            let Some(parent) = ancestor.parent() else { break };
            self.io.sync(parent)?;
        }
        if synced.len() >= SYNCED_FOLDERS_MAX {
            synced.clear();
        }
        synced.insert(folder.to_path_buf());
        Ok(())
    }

    /// Makes the entry of a file durable after it was put in place.
    pub(super) fn sync_entry(&self, file: &FilePath) -> io::Result<()> {
        match file.parent() {
            Some(folder) => self.sync_placed(folder),
            None => Ok(()),
        }
    }

    /// Makes a path durable that others can already see. If that fails, reads of it fail until a sync succeeds.
    pub(super) fn sync_placed(&self, path: &FilePath) -> io::Result<()> {
        let synced = self.sync(path);
        if synced.is_err() {
            self.unsettled.lock().insert(path.to_path_buf());
        }
        synced
    }

    /// Makes the content of a file, or the entries of a folder, durable.
    pub(super) fn sync(&self, path: &FilePath) -> io::Result<()> {
        if !self.fsync {
            return Ok(());
        }
        #[cfg(test)]
        if self.failing.lock().as_deref() == Some(path) {
            return Err(io::Error::other("the disk failed"));
        }
        self.io.sync(path)
    }

    /// Before a read or a listing: makes durable what could not be synced when put in place, here and below.
    ///
    /// # Errors
    /// The error of a sync that fails again.
    pub fn settle(&self, at: &FilePath) -> io::Result<()> {
        // The lock is kept while syncing, so that a failure that comes after the sync is not forgotten.
        let mut unsettled = self.unsettled.lock();
        let concerned: Vec<PathBuf> =
            unsettled.iter().filter(|path| at.starts_with(path) || path.starts_with(at)).cloned().collect();
        for path in concerned {
            match self.sync(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                // A path that no longer exists needs no sync.
                _ => unsettled.remove(&path),
            };
        }
        Ok(())
    }

    pub(super) fn create_temporary(&self, target: &FilePath) -> io::Result<(Box<dyn DiskFile>, PathBuf)> {
        self.ensure_folder(target)?;
        loop {
            let number = NEXT_TEMPORARY.fetch_add(1, Ordering::Relaxed);
            let mut name = target.as_os_str().to_owned();
            name.push(format!("#{}{number:06}", std::process::id()));
            let temporary = PathBuf::from(name);
            match self.io.create_new(&temporary) {
                Ok(file) => return Ok((file, temporary)),
                // An earlier process with the same id left it behind.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes a file that others see completely or not at all, and that is durable on success. After an error other
    /// than an existing name, the file may exist nevertheless.
    ///
    /// # Errors
    /// Already exists, or the error of the disk.
    pub fn put(&self, target: &FilePath, payload: &PutPayload, how: Placing) -> io::Result<()> {
        let (mut file, temporary) = self.create_temporary(target)?;
        let mut offset = 0;
        let written = payload.iter().try_for_each(|part| {
            file.write_all_at(part, offset)?;
            offset += part.len() as u64;
            Ok(())
        });
        match written {
            Ok(()) => {
                self.place(file.as_mut(), &temporary, target, how.create)?;
                // Only pages that are on the disk can leave the cache.
                if self.fsync && how.not_read_soon && offset >= BULK_BYTES {
                    file.leave_cache();
                }
                Ok(())
            }
            Err(error) => {
                self.discard(&temporary);
                Err(error)
            }
        }
    }

    /// Syncs a written file and puts it in place.
    pub(super) fn place(
        &self,
        file: &mut dyn DiskFile,
        temporary: &FilePath,
        target: &FilePath,
        create: bool,
    ) -> io::Result<()> {
        if self.fsync
            && let Err(error) = file.sync_all()
        {
            self.discard(temporary);
            return Err(error);
        }
        if create {
            fail_points::reach(RECORD_TEMPORARY_WRITTEN);
        }
        let placed = match create {
            true => self.io.hard_link(temporary, target),
            false => self.io.rename(temporary, target),
        };
        if create || placed.is_err() {
            self.discard(temporary);
        }
        // Syncs after an error too: this file may be in place nevertheless, or a file of another writer that failed to
        // sync. A reader that finds it must be able to rely on it.
        self.sync_entry(target)?;
        placed
    }

    /// Removes a temporary file. Errors are ignored: the sweep will remove it, and the object is not affected.
    pub(super) fn discard(&self, temporary: &FilePath) {
        let _ = self.io.remove(temporary);
    }
}
