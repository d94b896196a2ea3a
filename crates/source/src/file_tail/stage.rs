//! The life of an input, as a type: a combination of facts that cannot be is not one of its values.

/// Where an input is in its life.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// Its file is read, and more may come.
    Reading {
        /// Length of its file when all that can be read of it had been read.
        settled: Option<u64>,
    },
    /// Its file is read for good; the next look tells its end.
    Done(Done),
    /// Its file is gone or not its own any more; it may turn up elsewhere.
    Lost {
        /// Since when, in monotonic milliseconds, once a look has seen it.
        since_ms: Option<i64>,
        /// What it was until then.
        before: Before,
    },
    /// Gone, or read for good.
    Ended {
        /// Whether only the epoch log knows it: nothing was seen of its file in this run.
        unseen: bool,
    },
}

/// What an input was before it lost its file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Before {
    /// Followed by another run; nothing was seen of its file in this one.
    OtherRun,
    /// Read.
    Reading,
    /// Read for good, without a look since.
    Done(Done),
}

/// Why a file is read for good.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Done {
    /// Plain text was read up to where a bounded run ends.
    Text,
    /// The text of a compressed file was read to its end.
    Stream {
        /// Bytes of the file that were read.
        at: u64,
    },
    /// In a bounded run, a compressed file stops in its midst: a later run reads what is added.
    Incomplete {
        /// Length of the file.
        at: u64,
    },
    /// The rest of a compressed file cannot be decoded.
    Undecodable {
        /// Length of the file: up to there it is given up for lost.
        at: u64,
        /// To be told with the next look.
        gap: Box<Gap>,
    },
}

/// Bytes that cannot be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Gap {
    /// How many.
    pub(super) bytes: u64,
    /// What happened, for people.
    pub(super) reason: String,
}

/// What the adoption of a file means for an input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Adopted {
    /// It goes on as before.
    GoesOn,
    /// It was followed by another run and is found again.
    Continued,
    /// It had ended and has more to read.
    Resumed,
}

impl Stage {
    /// Whether it has a file that is, or was, read in this run and whose end was not told.
    pub(super) fn is_active(&self) -> bool {
        matches!(self, Stage::Reading { .. } | Stage::Done(_))
    }

    /// Whether its file is gone, and its end was not told.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self, Stage::Lost { .. })
    }

    /// Whether its end was told.
    pub(super) fn is_ended(&self) -> bool {
        matches!(self, Stage::Ended { .. })
    }

    /// Whether only the epoch log knows it: nothing was seen of its file in this run.
    pub(super) fn is_unseen(&self) -> bool {
        matches!(self, Stage::Lost { before: Before::OtherRun, .. } | Stage::Ended { unseen: true })
    }

    /// Why it is, or was when it lost its file, read for good; none where that is not so, or its end was told.
    pub(super) fn done(&self) -> Option<&Done> {
        match self {
            Stage::Done(done) | Stage::Lost { before: Before::Done(done), .. } => Some(done),
            _ => None,
        }
    }

    /// Forgets that all had been read of its file.
    pub(super) fn unsettle(&mut self) {
        if let Stage::Reading { settled } = self {
            *settled = None;
        }
    }

    /// Its file was lost.
    pub(super) fn lose(&mut self) {
        let before = match self.take() {
            Stage::Reading { .. } => Before::Reading,
            Stage::Done(done) => Before::Done(done),
            other => return *self = other,
        };
        *self = Stage::Lost { since_ms: None, before };
    }

    /// A look has seen that its file is lost.
    pub(super) fn note_lost(&mut self, now_ms: i64) {
        if let Stage::Lost { since_ms, .. } = self {
            since_ms.get_or_insert(now_ms);
        }
    }

    /// Takes the stage out of an input that gets another one at once.
    fn take(&mut self) -> Stage {
        std::mem::replace(self, Stage::Ended { unseen: false })
    }

    /// A file was found that continues it; it has more to read than is known of, or not.
    pub(super) fn adopt(&mut self, more: bool) -> Adopted {
        let reading = Stage::Reading { settled: None };
        let (stage, adopted) = match self.take() {
            Stage::Reading { .. } => (reading, Adopted::GoesOn),
            Stage::Lost { before: Before::Reading, .. } => (reading, Adopted::GoesOn),
            Stage::Lost { before: Before::OtherRun, .. } => (reading, Adopted::Continued),
            Stage::Done(done) | Stage::Lost { before: Before::Done(done), .. } => {
                // It is not the file any more that stopped in its midst.
                let done = if let Done::Incomplete { at } = done { Done::Stream { at } } else { done };
                (Stage::Done(done), Adopted::GoesOn)
            }
            Stage::Ended { .. } if more => (reading, Adopted::Resumed),
            Stage::Ended { .. } => (Stage::Ended { unseen: false }, Adopted::GoesOn),
        };
        *self = stage;
        adopted
    }

    /// Takes the gap that is to be told, if there is one; it is not told again.
    pub(super) fn take_gap(&mut self) -> Option<Gap> {
        let (Stage::Done(done) | Stage::Lost { before: Before::Done(done), .. }) = self else { return None };
        let at = done.at();
        match std::mem::replace(done, Done::Stream { at }) {
            Done::Undecodable { gap, .. } => Some(*gap),
            other => {
                *done = other;
                None
            }
        }
    }
}

impl Done {
    /// How many bytes of a compressed file were read, or given up for lost.
    pub(super) fn at(&self) -> u64 {
        match self {
            Done::Text => 0,
            Done::Stream { at } | Done::Incomplete { at } | Done::Undecodable { at, .. } => *at,
        }
    }
}
