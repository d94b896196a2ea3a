//! Decisions about inputs, as pure functions of facts that were read before. Other files read the facts and act.

#[cfg(test)]
mod tests;

use super::compressed::Inflated;
use super::settings::TailSettings;
use super::stage::Stage;
use crate::file_system::FileStat;

/// What became of a file that is not where it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Missing {
    /// It has another path: its inode is there, and cannot be used again while the file is held open.
    Renamed,
    /// Its inode is at another path, where another file may use it: only the content tells.
    Unsure,
    /// It is at no path, and is read on while it is held open. It looks like this now.
    HeldOpen(FileStat),
    /// It is gone.
    Lost,
    /// It is gone, after its input had ended.
    Ended,
}

/// Decides what became of a file that is not where it was, by whether its inode is `elsewhere` and by what it looks like if
/// it is held `open`, unless that cannot be told.
pub(super) fn missing(stage: &Stage, elsewhere: bool, open: Option<Option<FileStat>>) -> Missing {
    match (elsewhere, open) {
        (true, Some(_)) => Missing::Renamed,
        (true, None) => Missing::Unsure,
        (false, Some(Some(stat))) => Missing::HeldOpen(stat),
        (false, Some(None) | None) if stage.is_active() => Missing::Lost,
        (false, Some(None) | None) => Missing::Ended,
    }
}

/// A look at the file of an input.
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

/// What a look at a file means for its input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sighted {
    /// The file is as it was.
    Same,
    /// The file has another length or another time.
    Changed,
    /// The file changed after its input had ended and while it was closed. Its inode may belong to another file now: only
    /// the content tells.
    Unsure,
    /// The file was cut before the position, or it is compressed and was cut at all. It is not the input's any more.
    Cut,
}

/// Compares a file with what it looked like before.
pub(super) fn sighted(stage: &Stage, look: Sighting) -> Sighted {
    let kept = if look.compressed { look.known.len } else { look.position };
    match (look.now.len, look.now.changed_ns) {
        (len, _) if len < kept => Sighted::Cut,
        same if same == (look.known.len, look.known.changed_ns) => Sighted::Same,
        _ if stage.is_ended() && !look.open => Sighted::Unsure,
        _ => Sighted::Changed,
    }
}

/// Whether an input that had ended goes on, since its file changed: the file has grown, or NUL bytes at its end may have
/// been written. `read` is the length of its text that was read or is known not to be read.
pub(super) fn resumes(stage: &Stage, look: Sighting, read: u64, bounded: bool) -> bool {
    let is_longer = !look.compressed && look.now.len > read;
    stage.is_ended() && !bounded && (look.now.len > look.known.len || is_longer)
}

/// What the end of a plain text means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TextEnd {
    /// There is nothing more until the file changes.
    Settled,
    /// Text may replace NUL bytes without a change of length or time: the end is read again.
    Unsure,
    /// The file is read for good.
    Done,
    /// The file is read for good, but for half a line.
    HalfLine,
}

/// Decides at the end of a plain text of which `left` bytes are unread, all in one line.
pub(super) fn text_end(bounded: bool, left: u64, may_be_written: bool) -> TextEnd {
    match bounded {
        false if may_be_written => TextEnd::Unsure,
        false => TextEnd::Settled,
        true if left > 0 => TextEnd::HalfLine,
        true => TextEnd::Done,
    }
}

/// The point where the text of a compressed file stops.
#[derive(Clone, Copy, Debug)]
pub(super) struct StreamStop<'a> {
    /// How the last decoding ended.
    pub(super) last: &'a Inflated,
    /// Whether all members that were begun have ended.
    pub(super) whole: bool,
    /// Whether the input's position lies behind this point.
    pub(super) before_position: bool,
    /// Whether the file changed since the stream began, and the stream may begin anew for that.
    pub(super) may_restart: bool,
    /// How long the file has stayed as it is, in milliseconds.
    pub(super) unchanged_ms: i64,
}

/// What is done where the text of a compressed file stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum StreamEnd {
    /// Decoding goes on.
    Busy,
    /// The file may grow.
    Wait,
    /// The file is another one: it holds a whole text that is shorter than what was read.
    Refuse,
    /// The file was perhaps overwritten in place: it is decoded once more from its beginning.
    Restart,
    /// A later run reads the rest.
    Incomplete,
    /// The rest is lost.
    GiveUp,
    /// All whole lines were read.
    Complete,
}

/// Decides where the text of a compressed file stops.
pub(super) fn stream_end(stop: StreamStop<'_>, settings: &TailSettings) -> StreamEnd {
    let has_waited = |wait_ms: i64| settings.bounded || stop.unchanged_ms >= wait_ms;
    match stop.last {
        Inflated::Full | Inflated::Paused => StreamEnd::Busy,
        Inflated::Corrupt(_) if stop.before_position && stop.whole => StreamEnd::Refuse,
        Inflated::Corrupt(_) if stop.may_restart => StreamEnd::Restart,
        Inflated::Corrupt(_) => StreamEnd::GiveUp,
        Inflated::End if stop.before_position => StreamEnd::Refuse,
        Inflated::End if has_waited(settings.rotate_wait_ms) => StreamEnd::Complete,
        Inflated::Starved if settings.bounded => StreamEnd::Incomplete,
        Inflated::Starved if has_waited(settings.incomplete_wait_ms) => StreamEnd::GiveUp,
        Inflated::End | Inflated::Starved => StreamEnd::Wait,
    }
}

/// What is known of an input at the end of a look.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LookEnd {
    /// Whether its file is compressed.
    pub(super) compressed: bool,
    /// Whether its file has left the path at which it was written.
    pub(super) rotated: bool,
    /// The length of its file.
    pub(super) len: u64,
    /// How much of that is to be read.
    pub(super) end: u64,
    /// How long its file has stayed as it is, in milliseconds.
    pub(super) unchanged_ms: i64,
    /// Whether its file is gone with bytes that were not read and not told.
    pub(super) loses_text: bool,
    /// Whether its path cannot be looked at: its file may be there.
    pub(super) hidden: bool,
    /// How long a file that is gone is waited for, in milliseconds.
    pub(super) gone_wait_ms: i64,
}

/// What becomes of an input at the end of a look.
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

/// Decides what becomes of an input.
pub(super) fn settled(stage: &Stage, look: LookEnd, settings: &TailSettings, now_ms: i64) -> Settled {
    let is_given_up = |gone_ms: i64| gone_ms >= look.gone_wait_ms && !look.hidden;
    let may_end = look.rotated && !look.compressed && !settings.bounded;
    match stage {
        Stage::Done(done) if look.compressed && look.end > done.at => Settled::Resumes,
        Stage::Done(_) => Settled::Ends,
        Stage::Reading { settled: Some(len) }
            if may_end && *len == look.len && look.unchanged_ms >= settings.rotate_wait_ms =>
        {
            Settled::EndsAfterLastLine
        }
        Stage::Lost { since_ms: Some(since_ms), .. } if is_given_up(now_ms.saturating_sub(*since_ms)) => {
            Settled::IsGivenUp
        }
        Stage::Ended { .. } if look.loses_text && is_given_up(look.unchanged_ms) => Settled::IsGivenUp,
        Stage::Reading { .. } | Stage::Lost { .. } | Stage::Ended { .. } => Settled::Stays,
    }
}

/// What becomes of the last line of an input that was rotated and read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LastLine {
    /// It has to be read, or read again.
    Unread,
    /// All lines have an end.
    Whole,
    /// It has no end. It is a gap once its file is gone.
    Half,
    /// It has no end, and its file is gone.
    Lost,
}

/// Decides on the last line: `left` bytes of the text are unread, of which `half` are known to be half a line. `unsure` says
/// that NUL bytes follow which were not gone through since the file is complete.
pub(super) fn last_line(left: u64, half: u64, unsure: bool, gone: bool) -> LastLine {
    match left {
        _ if left != half || unsure => LastLine::Unread,
        0 => LastLine::Whole,
        _ if gone => LastLine::Lost,
        _ => LastLine::Half,
    }
}

/// What was cut off a file behind the position.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cut {
    /// Whole lines, or NUL bytes that its writer had put there for what was to come.
    MaybePadding,
    /// The rest of a line.
    Text,
    /// All: the file holds another text.
    All,
}

/// Decides what was cut off a file, by whether it holds the text that was read and by its last byte.
pub(super) fn cut(holds_text: bool, last: Option<u8>) -> Cut {
    match last {
        _ if !holds_text => Cut::All,
        None | Some(b'\n' | 0) => Cut::MaybePadding,
        Some(_) => Cut::Text,
    }
}
