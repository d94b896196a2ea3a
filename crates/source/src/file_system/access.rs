//! The operations that tailing needs from a file system.

use std::ffi::OsString;
use std::io;
use std::path::Path;

/// The kind of a path's target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A pipe, socket or device: never opened, since opening it can block.
    Other,
}

/// Facts about a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileStat {
    /// Its kind.
    pub kind: FileKind,
    /// Device and inode. Only a hint: an inode is reused once its file is deleted and closed by all processes.
    pub inode: (u64, u64),
    /// Its length in bytes.
    pub len: u64,
    /// The number of its names; 0 once it is deleted.
    pub links: u64,
    /// When it was last changed in any way, in nanoseconds by the clock of its file system; compared only for equality.
    pub changed_ns: i64,
    /// When its content was last changed, in milliseconds since the Unix epoch by the clock of its file system; any
    /// program may set it.
    pub modified_ms: i64,
}

/// The file system, as far as tailing needs it. Paths are followed through symbolic links.
pub trait FileSystem {
    /// Names in a folder, in any order.
    ///
    /// # Errors
    /// The folder could not be read.
    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>>;

    /// Facts about a path's target.
    ///
    /// # Errors
    /// Not found, too many links, no permission and the like.
    fn stat(&self, path: &Path) -> io::Result<FileStat>;

    /// Opens a regular file for reading; must not block on anything else.
    ///
    /// # Errors
    /// The file could not be opened.
    fn open(&self, path: &Path) -> io::Result<Box<dyn TailFile>>;

    /// A watch on changes in folders, if the system supports it. Without one, everything is examined again.
    fn watch(&self) -> Option<Box<dyn FolderWatch>> {
        None
    }
}

/// Identifies a watched folder.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WatchId(pub i32);

/// A change in a watched folder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// The content or the attributes of an entry changed.
    Content(WatchId, OsString),
    /// An entry was added, removed or replaced.
    Entry(WatchId, OsString),
    /// The folder itself was removed or moved; it is no longer watched.
    Folder(WatchId),
    /// Changes were lost: everything has to be examined.
    Overflow,
}

/// Reports changes in folders, a hint that avoids examining unchanged files. It cannot detect some changes (by other
/// machines, through another name of a file, through a memory map); an occasional look finds these.
pub trait FolderWatch: Send {
    /// Watches the direct content of a folder from now on. `None` if changes there could be missed (network file
    /// systems) or no more folders can be watched.
    fn add(&mut self, folder: &Path) -> Option<WatchId>;

    /// Stops watching a folder.
    fn remove(&mut self, id: WatchId);

    /// Whether every change of the file at a path in a watched folder is reported: not through a symbolic link, and not
    /// if the file has other names.
    fn covers(&self, path: &Path, stat: &FileStat) -> bool;

    /// Whether a path is a symbolic link, whatever its target.
    fn is_link(&self, path: &Path) -> bool;

    /// Appends the changes since the last call. Does not wait.
    fn changes(&mut self, changes: &mut Vec<Change>);
}

/// An open file, which stays readable after its name is removed.
pub trait TailFile: Send {
    /// Reads at an offset; 0 bytes mean the end of the file.
    ///
    /// # Errors
    /// The file could not be read.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Present facts about the file.
    ///
    /// # Errors
    /// The facts could not be read.
    fn stat(&self) -> io::Result<FileStat>;
}

/// Reads at an offset until the buffer is full or the file ends; returns the number of bytes read.
pub(crate) fn read_full(file: &mut dyn TailFile, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match file.read_at(offset + len as u64, &mut buffer[len..]) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

/// At most `len` bytes from an offset.
pub(crate) fn read_range(file: &mut dyn TailFile, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    read_range_into(file, offset, len, Vec::new())
}

/// Like `read_range`, but replaces the content of a buffer: a buffer that was as long before costs nothing to prepare.
pub(crate) fn read_range_into(
    file: &mut dyn TailFile,
    offset: u64,
    len: usize,
    mut buffer: Vec<u8>,
) -> io::Result<Vec<u8>> {
    buffer.resize(len, 0);
    let len = read_full(file, offset, &mut buffer)?;
    buffer.truncate(len);
    Ok(buffer)
}
