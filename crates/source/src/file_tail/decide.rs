//! Decisions about inputs, as pure functions of facts. Other files read the facts first and act on the decisions.

#[cfg(test)]
mod tests;

use super::compressed::Inflated;
use super::settings::TailSettings;
use super::stage::Stage;
use crate::file_system::FileStat;

/// What happened to a file that is no longer at its path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Missing {
    /// It has another path: its inode is there and cannot be reused while the file is open.
    Renamed,
    /// Its inode is at another path, but may belong to another file now: the content has to be compared.
    Unsure,
    /// It has no path, but is open and still read. This is its present state.
    HeldOpen(FileStat),
    /// It is gone.
    Lost,
    /// It is gone, and its input had already ended.
    Ended,
}

/// Decides what happened to a file that is no longer at its path. `elsewhere` says whether its inode is at another
/// path; `open` is set if the file is open, and contains its state if that is known.
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
    /// The previous state of the file.
    pub(super) known: FileStat,
    /// The present state of the file.
    pub(super) now: FileStat,
    /// Whether it is compressed.
    pub(super) compressed: bool,
    /// Whether it is open.
    pub(super) open: bool,
    /// The position up to which its text was read.
    pub(super) position: u64,
}

/// What a look at a file means for its input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Sighted {
    /// The file is unchanged.
    Same,
    /// The length or the time of the file changed.
    Changed,
    /// The file changed while it was closed, after its input had ended. Its inode may belong to another file now: the
    /// content has to be compared.
    Unsure,
    /// The file was truncated before the position, or at any length if it is compressed. It no longer belongs to the
    /// input.
    Cut,
}

/// Compares the present state of a file with its previous state.
pub(super) fn sighted(stage: &Stage, look: Sighting) -> Sighted {
    let kept = if look.compressed { look.known.len } else { look.position };
    match (look.now.len, look.now.changed_ns) {
        (len, _) if len < kept => Sighted::Cut,
        same if same == (look.known.len, look.known.changed_ns) => Sighted::Same,
        _ if stage.is_ended() && !look.open => Sighted::Unsure,
        _ => Sighted::Changed,
    }
}

/// Whether an ended input resumes because its file changed: the file has grown, or text may have replaced NUL bytes at
/// its end. `read` is the length of the text that was read or is known to stay unread.
pub(super) fn resumes(stage: &Stage, look: Sighting, read: u64, bounded: bool) -> bool {
    let is_longer = !look.compressed && look.now.len > read;
    stage.is_ended() && !bounded && (look.now.len > look.known.len || is_longer)
}

/// What the end of a plain text means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TextEnd {
    /// There is no more text until the file changes.
    Settled,
    /// Text may replace NUL bytes without changing length or time, so the end is read again.
    Unsure,
    /// The file is completely read.
    Done,
    /// The file is read except for an incomplete last line.
    HalfLine,
}

/// Decides what the end of a plain text means. `left` bytes are unread; they are part of one line.
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
    /// Whether every started member is complete.
    pub(super) whole: bool,
    /// Whether this point is before the input's position.
    pub(super) before_position: bool,
    /// Whether the file changed after the stream was started, and the stream may be restarted because of that.
    pub(super) may_restart: bool,
    /// How long the file has been unchanged, in milliseconds.
    pub(super) unchanged_ms: i64,
}

/// What to do where the text of a compressed file stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum StreamEnd {
    /// Decoding continues.
    Busy,
    /// The file may grow.
    Wait,
    /// It is another file: its complete text is shorter than the text that was read.
    Refuse,
    /// The file may have been overwritten in place: it is decoded again from the beginning.
    Restart,
    /// A later run reads the rest.
    Incomplete,
    /// The rest is lost.
    GiveUp,
    /// All complete lines were read.
    Complete,
}

/// Decides what to do where the text of a compressed file stops.
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

/// The facts about an input at the end of a look.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LookEnd {
    /// Whether its file is compressed.
    pub(super) compressed: bool,
    /// Whether its file was moved away from the path at which it was written.
    pub(super) rotated: bool,
    /// The length of its file.
    pub(super) len: u64,
    /// The part of that length that is to be read.
    pub(super) end: u64,
    /// How long its file has been unchanged, in milliseconds.
    pub(super) unchanged_ms: i64,
    /// Whether its file is gone with bytes that were neither read nor reported.
    pub(super) loses_text: bool,
    /// Whether its path cannot be examined, so its file may still be there.
    pub(super) hidden: bool,
    /// How long to wait for a file that is gone, in milliseconds.
    pub(super) gone_wait_ms: i64,
}

/// What happens to an input at the end of a look.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Settled {
    /// Nothing.
    Stays,
    /// Text was appended after the file was completely read.
    Resumes,
    /// It ends.
    Ends,
    /// It was rotated and read: it ends after a decision about its last line.
    EndsAfterLastLine,
    /// It is given up, together with its unread bytes.
    IsGivenUp,
}

/// Decides what happens to an input.
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

/// The state of the last line of an input that was rotated and read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum LastLine {
    /// It has to be read, or read again.
    Unread,
    /// All lines end with a newline.
    Whole,
    /// It has no newline. It becomes a gap when its file is gone.
    Half,
    /// It has no newline, and its file is gone.
    Lost,
}

/// Decides about the last line. `left` bytes of the text are unread; `half` of them are known to be an incomplete line.
/// `unsure` says that NUL bytes follow which were not scanned after the file was complete.
pub(super) fn last_line(left: u64, half: u64, unsure: bool, gone: bool) -> LastLine {
    match left {
        _ if left != half || unsure => LastLine::Unread,
        0 => LastLine::Whole,
        _ if gone => LastLine::Lost,
        _ => LastLine::Half,
    }
}

/// What a truncation removed from a file after the position.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cut {
    /// Complete lines, or NUL bytes that the writer had preallocated.
    MaybePadding,
    /// The rest of a line.
    Text,
    /// Everything: the file contains another text.
    All,
}

/// Decides what a truncation removed. `holds_text` says whether the file still contains the text that was read; `last`
/// is its last byte.
pub(super) fn cut(holds_text: bool, last: Option<u8>) -> Cut {
    match last {
        _ if !holds_text => Cut::All,
        None | Some(b'\n' | 0) => Cut::MaybePadding,
        Some(_) => Cut::Text,
    }
}
