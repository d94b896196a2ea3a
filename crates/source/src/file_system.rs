//! All access to files goes through this module, so that a simulation can replace the disk.

mod access;
#[cfg(target_os = "linux")]
mod inotify;
mod local;

pub use access::{Change, FileKind, FileStat, FileSystem, FolderWatch, TailFile, WatchId};
pub(crate) use access::{read_full, read_range, read_range_into};
pub use local::LocalFiles;
