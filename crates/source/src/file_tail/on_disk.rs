//! The known facts about an input's file: its path, its last state, and the encoding of its text.

use super::unwritten::{self, Behind, NulScan};
use crate::file_system::{FileStat, TailFile};
use std::io;
use std::path::{Path, PathBuf};

/// The known facts about a file. There may be very many files, so rarely used fields are boxed.
#[derive(Debug, Default)]
pub(super) struct OnDisk {
    /// Its present place.
    pub(super) place: Place,
    /// Its last known state.
    pub(super) stat: Option<FileStat>,
    /// Whether it is plain or compressed text.
    pub(super) coding: Coding,
    /// Whether it was moved away from the path at which it was written.
    pub(super) rotated: bool,
    /// When it last grew or moved, in monotonic milliseconds.
    pub(super) changed_at_ms: i64,
    /// In a bounded run: the number of its bytes to be read.
    pub(super) limit: Option<u64>,
    /// Inode of a file that resembled this one but proved to be another file.
    pub(super) refused: Option<Box<(u64, u64)>>,
}

/// The place of a file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) enum Place {
    /// Its path is not known.
    #[default]
    Nowhere,
    /// A path that matches a pattern.
    Listed(PathBuf),
    /// A path that matches no pattern, found by searching the folder.
    Unlisted(PathBuf),
}

/// The encoding of the text in a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Coding {
    /// Plain text.
    Plain {
        /// The offset after which only NUL bytes follow up to the end of the file: the text ends there for now.
        unwritten_from: Option<u64>,
        /// How far these NUL bytes have been scanned.
        nul_scan: Option<Box<NulScan>>,
    },
    /// Compressed.
    Compressed {
        /// The approximate number of bytes of the file that contain the text up to the position.
        consumed: u64,
        /// Whether its stream was restarted because the file had changed in the meantime.
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

    /// Whether there is no path.
    pub(super) fn is_nowhere(&self) -> bool {
        *self == Place::Nowhere
    }
}

impl OnDisk {
    /// Whether it is compressed.
    pub(super) fn is_compressed(&self) -> bool {
        matches!(self.coding, Coding::Compressed { .. })
    }

    /// Its last known length.
    pub(super) fn len(&self) -> u64 {
        self.stat.map_or(0, |stat| stat.len)
    }

    /// Whether it is deleted: it no longer has a name.
    pub(super) fn is_deleted(&self) -> bool {
        self.stat.is_some_and(|stat| stat.links == 0)
    }

    /// Whether it is deleted and has no known path.
    pub(super) fn is_gone(&self) -> bool {
        self.place.is_nowhere() && self.is_deleted()
    }

    /// The offset after which only NUL bytes follow up to its end.
    pub(super) fn unwritten_from(&self) -> Option<u64> {
        match self.coding {
            Coding::Plain { unwritten_from, .. } => unwritten_from,
            Coding::Compressed { .. } => None,
        }
    }

    /// Sets the offset after which only NUL bytes follow, or `None` if no such offset is known.
    pub(super) fn set_unwritten_from(&mut self, from: Option<u64>) {
        if let Coding::Plain { unwritten_from, .. } = &mut self.coding {
            *unwritten_from = from;
        }
    }

    /// Forgets how far NUL bytes at its end have been scanned.
    pub(super) fn scan_anew(&mut self) {
        if let Coding::Plain { nul_scan, .. } = &mut self.coding {
            *nul_scan = None;
        }
    }

    /// Its length without the known NUL bytes at its end.
    pub(super) fn text_len(&self) -> u64 {
        self.unwritten_from().map_or(self.len(), |from| from.min(self.len()))
    }

    /// Looks for text after NUL bytes in it, see [`unwritten::behind`].
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

    /// Whether text may be hidden among the NUL bytes at its end: they were not scanned after the file was complete.
    pub(super) fn may_hide_text(&self) -> bool {
        let Coding::Plain { unwritten_from: Some(_), nul_scan } = &self.coding else { return false };
        !nul_scan.as_ref().is_some_and(|scan| scan.is_last(self.len()))
    }

    /// The number of bytes to be read, of the existing `len`.
    pub(super) fn end(&self, len: u64) -> u64 {
        self.limit.map_or(len, |limit| limit.min(len))
    }

    /// Forgets the file: it is gone, or another file has replaced it.
    pub(super) fn detach(&mut self) {
        (self.place, self.stat, self.rotated) = (Place::Nowhere, None, true);
        self.set_unwritten_from(None);
        self.scan_anew();
    }

    /// How long it has been unchanged, in milliseconds.
    pub(super) fn unchanged_ms(&self, now_ms: i64) -> i64 {
        now_ms.saturating_sub(self.changed_at_ms)
    }
}
