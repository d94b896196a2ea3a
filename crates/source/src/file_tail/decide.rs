//! Decisions about inputs: pure functions of facts that were read before. What they decide is done elsewhere.

use super::compressed::Inflated;
use super::settings::TailSettings;
use super::stage::Stage;
use crate::file_system::FileStat;

/// What a look saw of an input's file, and what was known of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sighting {
    /// What the file looked like before.
    pub(super) known: FileStat,
    /// What it looks like now.
    pub(super) now: FileStat,
    /// Whether it is compressed.
    pub(super) compressed: bool,
    /// Whether it is held open.
    pub(super) open: bool,
    /// Up to where its text was read.
    pub(super) position: u64,
}

/// What such a sighting means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sighted {
    /// The file is as it was.
    Same,
    /// It has another length or another time.
    Changed,
    /// It changed while nobody held it open, after its input had ended: only its content tells whether it still is the
    /// same file, since its inode may have been used again.
    Unsure,
    /// It was cut before what was read, or a compressed one was cut at all: the file is not the input's any more.
    Cut,
}

/// What a look saw of an input's file.
pub(super) fn sighted(stage: &Stage, facts: Sighting) -> Sighted {
    let Sighting { known, now, .. } = facts;
    let kept = if facts.compressed { known.len } else { facts.position };
    if now.len < kept {
        Sighted::Cut
    } else if now.len == known.len && now.changed_ns == known.changed_ns {
        Sighted::Same
    } else if stage.is_ended() && !facts.open {
        Sighted::Unsure
    } else {
        Sighted::Changed
    }
}

/// Whether an input that had ended goes on, now that its file has changed: it has grown, or NUL bytes at its end may have
/// been written. `read` is how much of its text was read, or known and told to be lost.
pub(super) fn resumes(stage: &Stage, facts: Sighting, read: u64, bounded: bool) -> bool {
    let has_grown = facts.now.len > facts.known.len;
    let is_longer = !facts.compressed && facts.now.len > read;
    stage.is_ended() && !bounded && (has_grown || is_longer)
}

/// What reaching the end of a plain text means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TextEnd {
    /// The file is at its end until it changes.
    Settled,
    /// It is at its end, and may change without showing it: it is read again.
    Unsure,
    /// It is read for good.
    Done,
    /// So it is, and half a line stays unread.
    HalfLine,
}

/// At the end of a plain text of which so many bytes are left, half a line. Text in the place of NUL bytes
/// (`may_be_written`) changes the length by nothing, and may not change the time either.
pub(super) fn text_end(bounded: bool, left: u64, may_be_written: bool) -> TextEnd {
    match bounded {
        false if may_be_written => TextEnd::Unsure,
        false => TextEnd::Settled,
        true if left > 0 => TextEnd::HalfLine,
        true => TextEnd::Done,
    }
}

/// What is known where the text of a compressed file stops.
#[derive(Clone, Copy, Debug)]
pub(super) struct StreamStop<'a> {
    /// How the last decoding ended.
    pub(super) last: &'a Inflated,
    /// Whether all members that were begun have ended.
    pub(super) whole: bool,
    /// Whether the text stops before the input's position.
    pub(super) before_position: bool,
    /// Whether the file was changed since the stream began, and the stream may begin anew for that.
    pub(super) may_restart: bool,
    /// How long the file has stayed as it is, in milliseconds.
    pub(super) unchanged_ms: i64,
    /// How long more is awaited; in a bounded run nothing is.
    pub(super) settings: &'a TailSettings,
}

/// What is done where the text of a compressed file stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum StreamEnd {
    /// Decode on.
    Busy,
    /// Wait for the file to grow.
    Wait,
    /// Take the file for another's: a whole text that is shorter than what was read is another one, whatever follows it.
    Refuse,
    /// Decode once more from the beginning: perhaps the file was overwritten in place.
    Restart,
    /// Leave the rest to a later run.
    Incomplete,
    /// Give the rest up for lost.
    GiveUp,
    /// All was read, but for a last line without end.
    Complete,
}

/// At the point where the text of a compressed file stops.
pub(super) fn stream_end(facts: StreamStop<'_>) -> StreamEnd {
    let settings = facts.settings;
    let has_waited = |wait_ms: i64| settings.bounded || facts.unchanged_ms >= wait_ms;
    match facts.last {
        Inflated::Full | Inflated::Paused => StreamEnd::Busy,
        Inflated::Corrupt(_) if facts.before_position && facts.whole => StreamEnd::Refuse,
        Inflated::Corrupt(_) if facts.may_restart => StreamEnd::Restart,
        Inflated::Corrupt(_) => StreamEnd::GiveUp,
        Inflated::End if facts.before_position => StreamEnd::Refuse,
        Inflated::End if has_waited(settings.rotate_wait_ms) => StreamEnd::Complete,
        Inflated::Starved if settings.bounded => StreamEnd::Incomplete,
        Inflated::Starved if has_waited(settings.incomplete_wait_ms) => StreamEnd::GiveUp,
        Inflated::End | Inflated::Starved => StreamEnd::Wait,
    }
}

/// What is known of an input when a look settles what has become of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Standing {
    /// Whether its file is compressed.
    pub(super) compressed: bool,
    /// Whether it has left the path at which it was written.
    pub(super) rotated: bool,
    /// The length of its file.
    pub(super) len: u64,
    /// How much of that is to be read.
    pub(super) end: u64,
    /// When its file last grew or moved, in monotonic milliseconds.
    pub(super) changed_at_ms: i64,
    /// Whether its file is neither listed nor held open, or is deleted, and bytes are lost with it of which nobody was told.
    pub(super) loses_text: bool,
    /// Whether its path cannot be looked at, so that its file may be right there.
    pub(super) hidden: bool,
}

/// How long a look waits, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For more in a file that was rotated.
    pub(super) rotated_ms: i64,
    /// For a file that is gone.
    pub(super) gone_ms: i64,
    /// Whether the run is bounded.
    pub(super) bounded: bool,
}

/// What becomes of an input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Settled {
    /// It stays as it is.
    Stays,
    /// Something was appended after it was read for good.
    Resumes,
    /// It ends.
    Ends,
    /// It was rotated and read: it ends once its last line is judged.
    EndsAfterLastLine,
    /// It is given up, with what was not read of it.
    IsGivenUp,
}

/// What has become of an input.
pub(super) fn settled(stage: &Stage, facts: Standing, patience: Patience, now_ms: i64) -> Settled {
    let unchanged_ms = now_ms.saturating_sub(facts.changed_at_ms);
    match stage {
        Stage::Done(done) if facts.compressed && facts.end > done.at() => Settled::Resumes,
        Stage::Done(_) => Settled::Ends,
        Stage::Reading { settled } => {
            let is_read = *settled == Some(facts.len) && unchanged_ms >= patience.rotated_ms;
            let may_end = facts.rotated && !facts.compressed && !patience.bounded;
            if is_read && may_end { Settled::EndsAfterLastLine } else { Settled::Stays }
        }
        Stage::Lost { since_ms, .. } => {
            let lost_ms = now_ms.saturating_sub(since_ms.unwrap_or(now_ms));
            if lost_ms >= patience.gone_ms && !facts.hidden { Settled::IsGivenUp } else { Settled::Stays }
        }
        Stage::Ended { .. } => {
            let is_over = facts.loses_text && unchanged_ms >= patience.gone_ms;
            if is_over && !facts.hidden { Settled::IsGivenUp } else { Settled::Stays }
        }
    }
}

/// What becomes of the last line of an input that was rotated and read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LastLine {
    /// It has to be read, or read again.
    Unread,
    /// There is none without end.
    None,
    /// It has no end: should the file go away, it is a gap.
    Half,
    /// It has no end, and its file is gone.
    Lost,
}

/// The last line of an input that was rotated and read: `left` bytes are left of its text, of which `half` were judged to
/// be half a line. NUL bytes may follow that were not gone through since it is complete (`unsure`).
pub(super) fn last_line(left: u64, half: u64, unsure: bool, gone: bool) -> LastLine {
    match left {
        _ if left != half || unsure => LastLine::Unread,
        0 => LastLine::None,
        _ if gone => LastLine::Lost,
        _ => LastLine::Half,
    }
}

/// What was cut off a file behind what was read of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cut {
    /// Lines, or NUL bytes that its writer had put there for what was to come: it now ends with a whole line.
    MaybePadding,
    /// The rest of a line.
    Text,
    /// It holds another text.
    OtherText,
}

/// What was cut off a file that still holds the text that was read, or not, and whose last byte is given.
pub(super) fn cut(still_its_own: bool, last: Option<u8>) -> Cut {
    match last {
        _ if !still_its_own => Cut::OtherText,
        None | Some(b'\n' | 0) => Cut::MaybePadding,
        Some(_) => Cut::Text,
    }
}
