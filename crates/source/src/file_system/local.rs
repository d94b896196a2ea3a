//! The files of this machine.

use super::access::{FileKind, FileStat, FileSystem, TailFile};
#[cfg(target_os = "linux")]
use super::{access::FolderWatch, inotify};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// The file system of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct LocalFiles;

struct LocalFile(File);

fn stat_of(data: &fs::Metadata) -> FileStat {
    let kind = if data.is_file() {
        FileKind::File
    } else if data.is_dir() {
        FileKind::Folder
    } else {
        FileKind::Other
    };
    let changed_ns = data.ctime().wrapping_mul(1_000_000_000).wrapping_add(data.ctime_nsec());
    let modified_ms = data.mtime().saturating_mul(1_000).saturating_add(data.mtime_nsec() / 1_000_000);
    FileStat { kind, inode: (data.dev(), data.ino()), len: data.len(), links: data.nlink(), changed_ns, modified_ms }
}

impl FileSystem for LocalFiles {
    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect()
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        Ok(stat_of(&fs::metadata(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn TailFile>> {
        // Non-blocking: a pipe may have replaced the file since it was examined.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(Box::new(LocalFile(file)))
    }

    #[cfg(target_os = "linux")]
    fn watch(&self) -> Option<Box<dyn FolderWatch>> {
        inotify::Inotify::new().map(|watch| Box::new(watch) as Box<dyn FolderWatch>)
    }
}

impl TailFile for LocalFile {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn stat(&self) -> io::Result<FileStat> {
        Ok(stat_of(&self.0.metadata()?))
    }
}
