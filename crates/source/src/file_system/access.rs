//! What tailing needs of a file system.

use std::ffi::OsString;
use std::io;
use std::path::Path;

/// What stands at a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A pipe, socket or device: never opened, since opening alone can block.
    Other,
}

/// Facts about a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FileStat {
    /// What it is.
    pub kind: FileKind,
    /// Device and inode. A hint only: an inode is used again once its file is gone and nobody holds it open.
    pub inode: (u64, u64),
    /// Its length in bytes.
    pub len: u64,
    /// How many names it has; 0 once it is deleted.
    pub links: u64,
    /// When it was last changed in any way, in nanoseconds of whatever clock the file system keeps: only compared for
    /// being the same.
    pub changed_ns: i64,
    /// When its content was last changed, in milliseconds since the Unix epoch by the clock of its file system; anybody
    /// may set it.
    pub modified_ms: i64,
}

/// The file system, as far as tailing needs it. Paths are followed through symbolic links.
pub trait FileSystem {
    /// Names in a folder, in any order.
    ///
    /// # Errors
    /// Whatever kept the folder from being read.
    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>>;

    /// Facts about what stands at a path.
    ///
    /// # Errors
    /// Not found, too many links, no permission and the like.
    fn stat(&self, path: &Path) -> io::Result<FileStat>;

    /// Opens a regular file for reading; must not block on anything else.
    ///
    /// # Errors
    /// Whatever kept it from being opened.
    fn open(&self, path: &Path) -> io::Result<Box<dyn TailFile>>;

    /// What tells of changes in folders, where the system has such a thing. Without it everything is looked at again.
    fn watch(&self) -> Option<Box<dyn FolderWatch>> {
        None
    }
}

/// Names a folder that is watched.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WatchId(pub i32);

/// What happened in a watched folder.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// The content or the attributes of an entry changed.
    Content(WatchId, OsString),
    /// An entry appeared, went away, or is another now.
    Entry(WatchId, OsString),
    /// The folder itself went away or moved; it is not watched any more.
    Folder(WatchId),
    /// Changes were lost: everything has to be looked at.
    Overflow,
}

/// Tells of changes in folders: a hint that saves looking at what stayed as it was. Changes of which it cannot know (by
/// other machines, through another name of a file, through a memory map) are found by looking now and then.
pub trait FolderWatch: Send {
    /// Watches what happens directly in a folder from now on; none where changes there could go unnoticed (network file
    /// systems) or no more folders can be watched.
    fn add(&mut self, folder: &Path) -> Option<WatchId>;

    /// Stops watching a folder.
    fn remove(&mut self, id: WatchId);

    /// Whether every change of the file at a path in a watched folder is told: not through a symbolic link, and not of
    /// a file that has other names.
    fn covers(&self, path: &Path, stat: &FileStat) -> bool;

    /// Whether a path is a symbolic link, wherever that leads.
    fn is_link(&self, path: &Path) -> bool;

    /// Appends what happened since the last call. Does not wait.
    fn changes(&mut self, changes: &mut Vec<Change>);
}

/// A file that is held open, and so lives on when its name is taken away.
pub trait TailFile: Send {
    /// Reads at an offset; 0 bytes mean its end.
    ///
    /// # Errors
    /// Whatever kept it from being read.
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Facts about it now.
    ///
    /// # Errors
    /// Whatever kept them from being read.
    fn stat(&self) -> io::Result<FileStat>;
}

/// Reads at an offset until the buffer is full or the file ends; says how many bytes there were.
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

/// The bytes from an offset on, at most `len` of them.
pub(crate) fn read_range(file: &mut dyn TailFile, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    read_range_into(file, offset, len, Vec::new())
}

/// The same, in the place of what a buffer held: one that was as long before costs nothing to prepare.
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
