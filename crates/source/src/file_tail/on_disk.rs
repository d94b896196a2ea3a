//! What is known of an input's file: where it is, what it looked like last, and how its bytes hold text.

use super::unwritten::{self, Behind, NulScan};
use crate::file_system::{FileStat, TailFile};
use std::io;
use std::path::{Path, PathBuf};

/// What is known of a file. There may be very many: what few of them have is boxed.
#[derive(Debug, Default)]
pub(super) struct OnDisk {
    /// Where it is now.
    pub(super) place: Place,
    /// What it looked like last.
    pub(super) stat: Option<FileStat>,
    /// Whether its bytes are text or compressed text.
    pub(super) coding: Coding,
    /// Whether it has left the path at which it was written.
    pub(super) rotated: bool,
    /// When it last grew or moved, in monotonic milliseconds.
    pub(super) changed_at_ms: i64,
    /// In a bounded run: how many of its bytes are to be read.
    pub(super) limit: Option<u64>,
    /// Inode of a file that looked like this one and turned out not to be.
    pub(super) refused: Option<Box<(u64, u64)>>,
}

/// Where a file is.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) enum Place {
    /// Nowhere to be seen.
    #[default]
    Nowhere,
    /// At a path that a pattern names.
    Listed(PathBuf),
    /// Where the search of its folder found it, under a name that no pattern matches.
    Unlisted(PathBuf),
}

/// How the bytes of a file hold text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Coding {
    /// As they are.
    Plain {
        /// The offset from which only NUL bytes follow, if they reach up to the file's end: the text ends there for now.
        unwritten_from: Option<u64>,
        /// How far these NUL bytes have been gone through.
        nul_scan: Option<Box<NulScan>>,
    },
    /// Compressed.
    Compressed {
        /// About how many bytes of the file hold the text up to the position.
        consumed: u64,
        /// Whether its stream was begun anew because the file had changed meanwhile.
        restarted: bool,
    },
}

impl Default for Coding {
    fn default() -> Coding {
        Coding::Plain { unwritten_from: None, nul_scan: None }
    }
}

impl Place {
    /// The path, if there is one.
    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Place::Nowhere => None,
            Place::Listed(path) | Place::Unlisted(path) => Some(path),
        }
    }

    /// Whether there is none.
    pub(super) fn is_nowhere(&self) -> bool {
        *self == Place::Nowhere
    }
}

impl OnDisk {
    /// Whether it is compressed.
    pub(super) fn is_compressed(&self) -> bool {
        matches!(self.coding, Coding::Compressed { .. })
    }

    /// Its length as last seen.
    pub(super) fn len(&self) -> u64 {
        self.stat.map_or(0, |stat| stat.len)
    }

    /// Whether it is deleted: it has no name any more.
    pub(super) fn is_deleted(&self) -> bool {
        self.stat.is_some_and(|stat| stat.links == 0)
    }

    /// Whether it is deleted and no path leads to it.
    pub(super) fn is_gone(&self) -> bool {
        self.place.is_nowhere() && self.is_deleted()
    }

    /// The offset from which only NUL bytes follow, if they reach up to its end.
    pub(super) fn unwritten_from(&self) -> Option<u64> {
        match self.coding {
            Coding::Plain { unwritten_from, .. } => unwritten_from,
            Coding::Compressed { .. } => None,
        }
    }

    /// Notes that only NUL bytes follow from an offset, or that nothing is known of any.
    pub(super) fn set_unwritten_from(&mut self, from: Option<u64>) {
        if let Coding::Plain { unwritten_from, .. } = &mut self.coding {
            *unwritten_from = from;
        }
    }

    /// Forgets how far NUL bytes at its end have been gone through.
    pub(super) fn scan_anew(&mut self) {
        if let Coding::Plain { nul_scan, .. } = &mut self.coding {
            *nul_scan = None;
        }
    }

    /// Its length without NUL bytes at its end, as far as these are known.
    pub(super) fn text_len(&self) -> u64 {
        self.unwritten_from().map_or(self.len(), |from| from.min(self.len()))
    }

    /// Looks for what stands behind NUL bytes in it, see [`unwritten::behind`].
    pub(super) fn behind(
        &mut self,
        file: &mut dyn TailFile,
        start: u64,
        end: u64,
        complete: bool,
    ) -> io::Result<Behind> {
        let Coding::Plain { nul_scan, .. } = &mut self.coding else { return Ok(Behind::Nothing) };
        unwritten::behind(nul_scan, file, start, end, complete)
    }

    /// Whether NUL bytes at its end were perhaps written behind where its writer would have gone on: they were not gone
    /// through since it is complete.
    pub(super) fn may_hide_text(&self) -> bool {
        let Coding::Plain { unwritten_from: Some(_), nul_scan } = &self.coding else { return false };
        !nul_scan.as_ref().is_some_and(|scan| scan.is_last(self.len()))
    }

    /// How many bytes of it are to be read, of the `len` that there are.
    pub(super) fn end(&self, len: u64) -> u64 {
        self.limit.map_or(len, |limit| limit.min(len))
    }

    /// Forgets the file: another one has taken its place, or it is gone.
    pub(super) fn detach(&mut self) {
        (self.place, self.stat, self.rotated) = (Place::Nowhere, None, true);
        self.set_unwritten_from(None);
        self.scan_anew();
    }

    /// How long it has stayed as it is, in milliseconds.
    pub(super) fn unchanged_ms(&self, now_ms: i64) -> i64 {
        now_ms.saturating_sub(self.changed_at_ms)
    }
}
