//! How much text an input has, as far as is known, and what was lost of it.

/// The size of an input.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Size {
    /// The largest size seen, in bytes: of the text, or on disk while the file is compressed.
    pub(super) largest: u64,
    /// Text that was lost before it was read.
    pub(super) loss: Loss,
    /// Bytes on disk that were already read when it was found; `None` if it does not count for progress.
    pub(super) begun_at: Option<u64>,
}

/// Text that was known to be there and is not there any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Loss {
    /// None is known.
    #[default]
    None,
    /// The file was seen shorter than before, but not shorter than what was read. The next look settles it.
    Seen {
        /// Its shortest length so far.
        len: u64,
    },
    /// A gap was told.
    Told {
        /// The size once the gap is booked. Until then, the size is that before the loss.
        size: u64,
    },
}

impl Loss {
    /// Whether a gap was told that is not booked.
    pub(super) fn is_told(self) -> bool {
        matches!(self, Loss::Told { .. })
    }

    /// Whether the next look has to settle it.
    pub(super) fn is_seen(self) -> bool {
        matches!(self, Loss::Seen { .. })
    }
}

impl Size {
    /// The file was seen with a length shorter than the known one.
    pub(super) fn shrink(&mut self, known: u64, len: u64) {
        self.largest = known;
        self.loss = match self.loss {
            Loss::Seen { len: shortest } => Loss::Seen { len: shortest.min(len) },
            Loss::None => Loss::Seen { len },
            told @ Loss::Told { .. } => told,
        };
    }

    /// Forgets a loss that was seen and not told.
    pub(super) fn forget_seen_loss(&mut self) {
        if self.loss.is_seen() {
            self.loss = Loss::None;
        }
    }
}

/// The share of a length that a part has in a whole.
pub(super) fn share(len: u64, part: u64, whole: u64) -> u64 {
    u64::try_from(u128::from(len) * u128::from(part) / u128::from(whole.max(1))).unwrap_or(len)
}
