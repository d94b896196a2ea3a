//! The known size of an input's text, and how much of it was lost.

/// The size of an input.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Size {
    /// The largest known size in bytes: of the text, or on disk while the file is compressed.
    pub(super) largest: u64,
    /// Text that was lost before it was read.
    pub(super) loss: Loss,
    /// Bytes on disk that were already read when the input was found; `None` if it is not part of the progress.
    pub(super) begun_at: Option<u64>,
}

/// Known text that no longer exists.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Loss {
    /// No loss is known.
    #[default]
    None,
    /// The file became shorter, but not shorter than the text that was read. The next look decides about it.
    Seen {
        /// The shortest length so far.
        len: u64,
    },
    /// A gap was reported.
    Told {
        /// The size after the gap is booked. Until then, the size before the loss applies.
        size: u64,
    },
}

impl Loss {
    /// Whether a gap was reported but not booked yet.
    pub(super) fn is_told(self) -> bool {
        matches!(self, Loss::Told { .. })
    }

    /// Whether the next look has to decide about it.
    pub(super) fn is_seen(self) -> bool {
        matches!(self, Loss::Seen { .. })
    }
}

impl Size {
    /// The file became shorter than its known length.
    pub(super) fn shrink(&mut self, known: u64, len: u64) {
        self.largest = known;
        self.loss = match self.loss {
            Loss::Seen { len: shortest } => Loss::Seen { len: shortest.min(len) },
            Loss::None => Loss::Seen { len },
            told @ Loss::Told { .. } => told,
        };
    }

    /// Forgets a loss that was not reported yet.
    pub(super) fn forget_seen_loss(&mut self) {
        if self.loss.is_seen() {
            self.loss = Loss::None;
        }
    }
}

/// Scales a length by the ratio of a part to a whole.
pub(super) fn share(len: u64, part: u64, whole: u64) -> u64 {
    u64::try_from(u128::from(len) * u128::from(part) / u128::from(whole.max(1))).unwrap_or(len)
}
