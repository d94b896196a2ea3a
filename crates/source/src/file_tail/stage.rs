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
    /// Followed by another run. Nothing was seen of its file in this one.
    OtherRun,
    /// Read.
    Reading,
    /// Read for good, without a look since.
    Done(Done),
}

/// A file that was read for good.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Done {
    /// Bytes of a compressed file that were read, or given up for lost; 0 of a plain one.
    pub(super) at: u64,
    /// What is left of it, but for half a line.
    pub(super) rest: Rest,
}

/// What is left of a file that was read for good.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Rest {
    /// Nothing.
    Nothing,
    /// The rest of a compressed file that stops in its midst: a later run reads what is added.
    Later,
    /// What cannot be decoded; the next look tells the gap.
    Lost(Box<Gap>),
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

/// Read, and not at the end.
pub(super) const READING: Stage = Stage::Reading { settled: None };

impl Stage {
    /// Whether the input has a file, and its end was not told.
    pub(super) fn is_active(&self) -> bool {
        matches!(self, Stage::Reading { .. } | Stage::Done(_))
    }

    /// Whether the file is gone, and the end was not told.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self, Stage::Lost { .. })
    }

    /// Whether the end was told.
    pub(super) fn is_ended(&self) -> bool {
        matches!(self, Stage::Ended { .. })
    }

    /// Whether only the epoch log knows the input: nothing was seen of its file in this run.
    pub(super) fn is_unseen(&self) -> bool {
        matches!(self, Stage::Lost { before: Before::OtherRun, .. } | Stage::Ended { unseen: true })
    }

    /// How the file was read for good, where it was and the end was not told; also if it was lost after that.
    pub(super) fn done(&self) -> Option<&Done> {
        match self {
            Stage::Done(done) | Stage::Lost { before: Before::Done(done), .. } => Some(done),
            _ => None,
        }
    }

    /// The file changed: there may be something to read.
    pub(super) fn unsettle(&mut self) {
        if let Stage::Reading { settled } = self {
            *settled = None;
        }
    }

    /// The file is not the input's any more.
    pub(super) fn detach(&mut self) {
        let before = match self.take() {
            Stage::Reading { .. } => Before::Reading,
            Stage::Done(done) => Before::Done(done),
            other => return *self = other,
        };
        *self = Stage::Lost { since_ms: None, before };
    }

    /// A look saw that the file is lost.
    pub(super) fn note_lost(&mut self, now_ms: i64) {
        if let Stage::Lost { since_ms, .. } = self {
            since_ms.get_or_insert(now_ms);
        }
    }

    /// A file was found that continues the input, with more text than is known or not.
    pub(super) fn adopt(&mut self, more: bool) -> Adopted {
        let (stage, adopted) = match self.take() {
            Stage::Done(mut done) | Stage::Lost { before: Before::Done(mut done), .. } => {
                // What a later run reads was the rest of the file before.
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

    /// Takes out the gap that is to be told, so that it is not told again.
    pub(super) fn take_gap(&mut self) -> Option<Gap> {
        let (Stage::Done(done) | Stage::Lost { before: Before::Done(done), .. }) = self else { return None };
        let Rest::Lost(gap) = &mut done.rest else { return None };
        let gap = Gap { bytes: gap.bytes, reason: std::mem::take(&mut gap.reason) };
        done.rest = Rest::Nothing;
        Some(gap)
    }

    /// Takes out the stage; the caller puts the next one in its place.
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
