//! The blocking half of the durable store: in which order files are written, synced, put in place and made known. What
//! it asks of the disk goes through [`DiskIo`], so that a simulation can stand in for it.

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

/// Folders remembered as synced; the set starts anew beyond it, which costs a sync a folder and bounds its memory.
const SYNCED_FOLDERS_MAX: usize = 16_384;

/// Files that are not read soon leave the page cache once they are durable if they have so many bytes: a backlog writes them
/// by the gigabyte, in place of what is asked for, and one after another can use the same pages. An epoch of ten seconds at
/// the mission's rate, 2.5 MB of raw clicks, stays.
const BULK_BYTES: u64 = 4 << 20;

/// Numbers temporary files within the process.
static NEXT_TEMPORARY: AtomicU64 = AtomicU64::new(1);

/// What is asked of a disk. Each method fails as the operation of the file system that bears its name.
#[allow(clippy::missing_errors_doc, reason = "said once, for all of them")]
pub trait DiskIo: Debug + Send + Sync {
    /// Whether a folder is there.
    fn is_folder(&self, path: &FilePath) -> bool;

    /// Creates a folder and those above it that are missing.
    fn create_folders(&self, path: &FilePath) -> io::Result<()>;

    /// Creates a file under a name that is not taken.
    fn create_new(&self, path: &FilePath) -> io::Result<Box<dyn DiskFile>>;

    /// Gives a file a further name, which must not be taken.
    fn hard_link(&self, from: &FilePath, to: &FilePath) -> io::Result<()>;

    /// Gives a file another name, in place of what bears it.
    fn rename(&self, from: &FilePath, to: &FilePath) -> io::Result<()>;

    /// Takes a name away.
    fn remove(&self, path: &FilePath) -> io::Result<()>;

    /// Makes the content of a file, or the entries of a folder, durable.
    fn sync(&self, path: &FilePath) -> io::Result<()>;
}

/// A file that is being written.
#[allow(clippy::missing_errors_doc, reason = "as for the disk")]
pub trait DiskFile: Debug + Send {
    /// Writes all bytes at an offset.
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes its content durable.
    fn sync_all(&mut self) -> io::Result<()>;

    /// Lets its content, which is durable, leave the page cache.
    fn leave_cache(&mut self) {}
}

/// How a file is put in place.
#[derive(Clone, Copy, Debug, Default)]
pub struct Placing {
    /// Its name must not be taken.
    pub create: bool,
    /// It is not expected to be read soon.
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
        // Advice: where it is not taken nothing is lost.
        let _ = fadvise(&*self, 0, None, Advice::DontNeed);
    }
}

/// A folder on a disk, and what of it is known to be durable.
#[derive(Clone, Debug)]
pub struct Disk {
    io: Arc<dyn DiskIo>,
    root: Arc<PathBuf>,
    fsync: bool,
    /// Folders whose own entries, and what was in them, were synced by this process.
    synced: Arc<Mutex<HashSet<PathBuf>>>,
    /// What was put in place and could not be synced then: it is seen in memory, and may be gone after a power loss.
    /// Nothing below is read or listed before a sync succeeds.
    unsettled: Arc<Mutex<BTreeSet<PathBuf>>>,
    /// What cannot be synced, in tests.
    #[cfg(test)]
    pub(super) failing: Arc<Mutex<Option<PathBuf>>>,
}

impl Disk {
    /// A folder that is there. With `fsync` off nothing is synced.
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

    /// Whether everything that is seen is durable.
    pub fn is_settled(&self) -> bool {
        self.unsettled.lock().is_empty()
    }

    /// Creates the folder of a file and makes its entry durable, those of the folders above it, and what is in it.
    pub(super) fn ensure_folder(&self, file: &FilePath) -> io::Result<()> {
        let Some(folder) = file.parent() else { return Ok(()) };
        if !self.fsync {
            return self.io.create_folders(folder);
        }
        // Held while syncing, so that nobody relies on a folder whose entry is not on the disk yet.
        let mut synced = self.synced.lock();
        if synced.contains(folder) && self.io.is_folder(folder) {
            return Ok(());
        }
        self.io.create_folders(folder)?;
        // What a process that died has put there may not be on the disk yet, and must be before what follows it is.
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

    /// Makes the entry of a file that was put in place durable.
    pub(super) fn sync_entry(&self, file: &FilePath) -> io::Result<()> {
        match file.parent() {
            Some(folder) => self.sync_placed(folder),
            None => Ok(()),
        }
    }

    /// Makes something that others see already durable: when that fails, nobody sees it before it succeeds.
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

    /// Before something is read or listed: makes durable what could not be when it was put in place, there and below.
    ///
    /// # Errors
    /// Whatever keeps it from being durable still.
    pub fn settle(&self, at: &FilePath) -> io::Result<()> {
        // Held while syncing, so that nobody forgets a failure that came after the sync.
        let mut unsettled = self.unsettled.lock();
        let concerned: Vec<PathBuf> =
            unsettled.iter().filter(|path| at.starts_with(path) || path.starts_with(at)).cloned().collect();
        for path in concerned {
            match self.sync(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                // What is gone needs no syncing.
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
                // Left behind by an earlier process of the same id.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes a file that others see whole or not at all, and that is durable when it succeeds. After an error that is not
    /// about its name it may be there all the same.
    ///
    /// # Errors
    /// Already exists, or whatever the disk says.
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
                // Only what is on the disk can leave.
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

    /// Syncs a file that is written and puts it in place.
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
        // Also after an error: it may be in place all the same, or another's is, who may have failed to sync. Who finds
        // it there must be able to rely on it.
        self.sync_entry(target)?;
        placed
    }

    /// Removes a temporary file; failing to leaves it for the sweep and says nothing about the object.
    pub(super) fn discard(&self, temporary: &FilePath) {
        let _ = self.io.remove(temporary);
    }
}
