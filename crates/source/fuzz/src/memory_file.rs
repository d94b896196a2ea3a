//! A file system with one file in memory.

use adtally_source::{FileKind, FileStat, FileSystem, TailFile};
use std::ffi::OsString;
use std::io::{Error, ErrorKind, Result};
use std::path::Path;
use std::sync::Arc;

/// The path of the file.
pub(crate) const PATH: &str = "/clicks.csv";

/// The file.
#[derive(Clone)]
pub(crate) struct MemoryFile(Arc<[u8]>);

impl MemoryFile {
    /// A file with this text.
    pub(crate) fn new(text: Vec<u8>) -> Self {
        MemoryFile(text.into())
    }

    fn facts(&self) -> FileStat {
        FileStat {
            kind: FileKind::File,
            inode: (1, 1),
            len: self.0.len() as u64,
            links: 1,
            changed_ns: 0,
            modified_ms: 0,
        }
    }
}

impl FileSystem for MemoryFile {
    fn list(&self, _folder: &Path) -> Result<Vec<OsString>> {
        Ok(vec![PATH.trim_start_matches('/').into()])
    }

    fn stat(&self, path: &Path) -> Result<FileStat> {
        if path == Path::new(PATH) { Ok(self.facts()) } else { Err(Error::from(ErrorKind::NotFound)) }
    }

    fn open(&self, path: &Path) -> Result<Box<dyn TailFile>> {
        if path == Path::new(PATH) { Ok(Box::new(self.clone())) } else { Err(Error::from(ErrorKind::NotFound)) }
    }
}

impl TailFile for MemoryFile {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<usize> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(self.0.len());
        let len = buffer.len().min(self.0.len() - start);
        buffer[..len].copy_from_slice(&self.0[start..start + len]);
        Ok(len)
    }

    fn stat(&self) -> Result<FileStat> {
        Ok(self.facts())
    }
}
