//! The life cycle of an input, as a type that cannot represent impossible states.

/// The stage of an input in its life cycle.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// Its file is being read, and more text may follow.
    Reading {
        /// The length of its file when all readable text had been read.
        settled: Option<u64>,
    },
    /// Its file is completely read; the next look reports its end.
    Done(Done),
    /// Its file is gone or belongs to another input; it may be found elsewhere.
    Lost {
        /// When a look first noticed this, in monotonic milliseconds.
        since_ms: Option<i64>,
        /// Its stage before.
        before: Before,
    },
    /// Its file is gone or completely read.
    Ended {
        /// Whether only the epoch log knows it: its file was not seen in this run.
        unseen: bool,
    },
}

/// The stage of an input before it lost its file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Before {
    /// Another run read it. Its file was not seen in this run.
    OtherRun,
    /// It was being read.
    Reading,
    /// It was completely read; no look has reported that yet.
    Done(Done),
}

/// A completely read file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Done {
    /// Bytes of a compressed file that were read or given up; 0 for a plain file.
    pub(super) at: u64,
    /// What is left unread, except an incomplete last line.
    pub(super) rest: Rest,
}

/// What is left unread of a completely read file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Rest {
    /// Nothing.
    Nothing,
    /// The rest of an incomplete compressed file: a later run reads what is appended.
    Later,
    /// Bytes that cannot be decoded; the next look reports the gap.
    Lost(Box<Gap>),
}

/// Bytes that cannot be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Gap {
    /// The number of bytes.
    pub(super) bytes: u64,
    /// What happened, in words.
    pub(super) reason: String,
}

/// What a found file means for an input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Adopted {
    /// It continues as before.
    GoesOn,
    /// It was read by another run and is found again.
    Continued,
    /// It had ended and has more to read.
    Resumed,
}

/// Being read, and not at the end.
pub(super) const READING: Stage = Stage::Reading { settled: None };

impl Stage {
    /// Whether the input has a file and its end was not reported.
    pub(super) fn is_active(&self) -> bool {
        matches!(self, Stage::Reading { .. } | Stage::Done(_))
    }

    /// Whether the file is gone and the end was not reported.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self, Stage::Lost { .. })
    }

    /// Whether the end was reported.
    pub(super) fn is_ended(&self) -> bool {
        matches!(self, Stage::Ended { .. })
    }

    /// Whether only the epoch log knows the input: its file was not seen in this run.
    pub(super) fn is_unseen(&self) -> bool {
        matches!(self, Stage::Lost { before: Before::OtherRun, .. } | Stage::Ended { unseen: true })
    }

    /// The result for a completely read file whose end was not reported; also if the file was lost afterwards.
    pub(super) fn done(&self) -> Option<&Done> {
        match self {
            Stage::Done(done) | Stage::Lost { before: Before::Done(done), .. } => Some(done),
            _ => None,
        }
    }

    /// The file changed: there may be text to read.
    pub(super) fn unsettle(&mut self) {
        if let Stage::Reading { settled } = self {
            *settled = None;
        }
    }

    /// The file no longer belongs to the input.
    pub(super) fn detach(&mut self) {
        let before = match self.take() {
            Stage::Reading { .. } => Before::Reading,
            Stage::Done(done) => Before::Done(done),
            other => return *self = other,
        };
        *self = Stage::Lost { since_ms: None, before };
    }

    /// A look noticed that the file is lost.
    pub(super) fn note_lost(&mut self, now_ms: i64) {
        if let Stage::Lost { since_ms, .. } = self {
            since_ms.get_or_insert(now_ms);
        }
    }

    /// A file was found that continues the input. `more` says whether it has more text than is known.
    pub(super) fn adopt(&mut self, more: bool) -> Adopted {
        let (stage, adopted) = match self.take() {
            Stage::Done(mut done) | Stage::Lost { before: Before::Done(mut done), .. } => {
                // The text left for a later run was the rest of the previous file.
                done.rest = if done.rest == Rest::Later { Rest::Nothing } else { done.rest };
                (Stage::Done(done), Adopted::GoesOn)
            }
            Stage::Ended { .. } if !more => (Stage::Ended { unseen: false }, Adopted::GoesOn),
            Stage::Ended { .. } => (READING, Adopted::Resumed),
            Stage::Lost { before: Before::OtherRun, .. } => (READING, Adopted::Continued),
            Stage::Lost { before: Before::Reading, .. } | Stage::Reading { .. } => (READING, Adopted::GoesOn),
        };
        *self = stage;
        adopted
    }

    /// Takes the gap that is to be reported, so it is reported only once.
    pub(super) fn take_gap(&mut self) -> Option<Gap> {
        let (Stage::Done(done) | Stage::Lost { before: Before::Done(done), .. }) = self else { return None };
        let Rest::Lost(gap) = &mut done.rest else { return None };
        let gap = Gap { bytes: gap.bytes, reason: std::mem::take(&mut gap.reason) };
        done.rest = Rest::Nothing;
        Some(gap)
    }

    /// Takes the stage; the caller sets the next one.
    fn take(&mut self) -> Stage {
        std::mem::replace(self, READING)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(before: Before) -> Stage {
        Stage::Lost { since_ms: None, before }
    }

    fn done(rest: Rest) -> Done {
        Done { at: 7, rest }
    }

    #[test]
    fn files_are_lost_and_found() {
        let (unseen, ended) = (Stage::Ended { unseen: true }, Stage::Ended { unseen: false });
        let settled = Stage::Reading { settled: Some(7) };
        let read = || done(Rest::Nothing);
        for (stage, after_loss, after_adoption, adopted) in [
            (READING, lost(Before::Reading), READING, Adopted::GoesOn),
            (settled, lost(Before::Reading), READING, Adopted::GoesOn),
            (Stage::Done(read()), lost(Before::Done(read())), Stage::Done(read()), Adopted::GoesOn),
            (
                Stage::Done(done(Rest::Later)),
                lost(Before::Done(done(Rest::Later))),
                Stage::Done(read()),
                Adopted::GoesOn,
            ),
            (lost(Before::OtherRun), lost(Before::OtherRun), READING, Adopted::Continued),
            (unseen.clone(), unseen, READING, Adopted::Resumed),
            (ended.clone(), ended, READING, Adopted::Resumed),
        ] {
            let mut now = stage.clone();
            now.detach();
            assert_eq!(now, after_loss, "{stage:?} is lost");
            assert_eq!((now.adopt(true), now), (adopted, after_adoption.clone()), "{stage:?} is lost and found");
            let mut now = stage.clone();
            assert_eq!((now.adopt(true), now), (adopted, after_adoption), "{stage:?} gets another file");
        }
        let mut ended = Stage::Ended { unseen: true };
        assert_eq!((ended.adopt(false), ended), (Adopted::GoesOn, Stage::Ended { unseen: false }));
    }

    #[test]
    fn a_gap_is_told_once() {
        let gap = Gap { bytes: 3, reason: "why".into() };
        let mut stage = lost(Before::Done(done(Rest::Lost(Box::new(gap.clone())))));
        assert_eq!((stage.take_gap(), stage.take_gap()), (Some(gap), None));
        assert_eq!(stage, lost(Before::Done(done(Rest::Nothing))));
    }
}
