//! Decisions as tables: facts, stage, and the expected decision.

use super::super::stage::{Before, Done, READING, Rest};
use super::*;
use crate::file_system::FileKind;

const SETTLED: Stage = Stage::Reading { settled: Some(100) };
const ENDED: Stage = Stage::Ended { unseen: false };

fn stat(len: u64, changed_ns: i64) -> FileStat {
    FileStat { kind: FileKind::File, inode: (1, 1), len, links: 1, changed_ns, modified_ms: 0 }
}

/// A file of 100 bytes of which 80 were read.
const PLAIN: (bool, bool) = (false, true);
const CLOSED: (bool, bool) = (false, false);
const COMPRESSED: (bool, bool) = (true, true);

fn sighting((compressed, open): (bool, bool), len: u64, changed_ns: i64) -> Sighting {
    Sighting { known: stat(100, 1), now: stat(len, changed_ns), compressed, open, position: 80 }
}

#[test]
fn files_are_missing() {
    let stat = stat(100, 1);
    for (stage, elsewhere, open, expected) in [
        (READING, true, Some(Some(stat)), Missing::Renamed),
        (READING, true, None, Missing::Unsure),
        (ENDED, true, None, Missing::Unsure),
        (READING, false, Some(Some(stat)), Missing::HeldOpen(stat)),
        (ENDED, false, Some(Some(stat)), Missing::HeldOpen(stat)),
        (READING, false, Some(None), Missing::Lost),
        (READING, false, None, Missing::Lost),
        (ENDED, false, None, Missing::Ended),
    ] {
        assert_eq!(missing(&stage, elsewhere, open), expected, "{stage:?} {elsewhere} {open:?}");
    }
}

#[test]
fn looks_at_a_file() {
    for (stage, file, len, changed_ns, expected) in [
        (READING, PLAIN, 100, 1, Sighted::Same),
        (READING, PLAIN, 100, 2, Sighted::Changed),
        (READING, PLAIN, 101, 1, Sighted::Changed),
        (READING, PLAIN, 80, 2, Sighted::Changed),
        (READING, PLAIN, 79, 2, Sighted::Cut),
        (READING, CLOSED, 101, 2, Sighted::Changed),
        (READING, COMPRESSED, 101, 2, Sighted::Changed),
        (READING, COMPRESSED, 99, 2, Sighted::Cut),
        (ENDED, PLAIN, 101, 2, Sighted::Changed),
        (ENDED, CLOSED, 100, 1, Sighted::Same),
        (ENDED, CLOSED, 101, 2, Sighted::Unsure),
        (ENDED, CLOSED, 79, 2, Sighted::Cut),
    ] {
        assert_eq!(sighted(&stage, sighting(file, len, changed_ns)), expected, "{stage:?} {file:?} {len} {changed_ns}");
    }
}

#[test]
fn ended_inputs_resume() {
    for (stage, file, len, read, bounded, expected) in [
        (ENDED, PLAIN, 101, 100, false, true),
        (ENDED, PLAIN, 100, 100, false, false),
        // Text replaced NUL bytes at its end.
        (ENDED, PLAIN, 100, 90, false, true),
        (ENDED, PLAIN, 101, 100, true, false),
        (ENDED, COMPRESSED, 100, 90, false, false),
        (ENDED, COMPRESSED, 101, 100, false, true),
        (READING, PLAIN, 101, 100, false, false),
    ] {
        assert_eq!(resumes(&stage, sighting(file, len, 2), read, bounded), expected, "{stage:?} {file:?} {len} {read}");
    }
}

#[test]
fn plain_texts_end() {
    for (bounded, left, may_be_written, expected) in [
        (false, 0, false, TextEnd::Settled),
        (false, 5, false, TextEnd::Settled),
        (false, 0, true, TextEnd::Unsure),
        (true, 0, true, TextEnd::Done),
        (true, 5, false, TextEnd::HalfLine),
    ] {
        assert_eq!(text_end(bounded, left, may_be_written), expected, "{bounded} {left} {may_be_written}");
    }
}

#[test]
fn streams_stop() {
    let corrupt = Inflated::Corrupt("why".into());
    let stop = |last| StreamStop { last, whole: false, before_position: false, may_restart: false, unchanged_ms: 0 };
    let before = |last| StreamStop { before_position: true, ..stop(last) };
    let after = |last, unchanged_ms| StreamStop { unchanged_ms, ..stop(last) };
    for (stop, live, bounded) in [
        (stop(&Inflated::Full), StreamEnd::Busy, StreamEnd::Busy),
        (before(&Inflated::Paused), StreamEnd::Busy, StreamEnd::Busy),
        (stop(&Inflated::End), StreamEnd::Wait, StreamEnd::Complete),
        (after(&Inflated::End, 2_000), StreamEnd::Complete, StreamEnd::Complete),
        (before(&Inflated::End), StreamEnd::Refuse, StreamEnd::Refuse),
        (stop(&Inflated::Starved), StreamEnd::Wait, StreamEnd::Incomplete),
        (after(&Inflated::Starved, 2_000), StreamEnd::Wait, StreamEnd::Incomplete),
        (after(&Inflated::Starved, 60_000), StreamEnd::GiveUp, StreamEnd::Incomplete),
        (stop(&corrupt), StreamEnd::GiveUp, StreamEnd::GiveUp),
        (before(&corrupt), StreamEnd::GiveUp, StreamEnd::GiveUp),
        (StreamStop { may_restart: true, ..before(&corrupt) }, StreamEnd::Restart, StreamEnd::Restart),
        (StreamStop { whole: true, may_restart: true, ..stop(&corrupt) }, StreamEnd::Restart, StreamEnd::Restart),
        (StreamStop { whole: true, may_restart: true, ..before(&corrupt) }, StreamEnd::Refuse, StreamEnd::Refuse),
    ] {
        let settings = TailSettings::default();
        assert_eq!(stream_end(stop, &settings), live, "{stop:?}");
        assert_eq!(stream_end(stop, &TailSettings { bounded: true, ..settings }), bounded, "bounded: {stop:?}");
    }
}

#[test]
fn looks_end() {
    let lost = |since_ms| Stage::Lost { since_ms: Some(since_ms), before: Before::Reading };
    let done = |at| Stage::Done(Done { at, rest: Rest::Nothing });
    let at_end = LookEnd { len: 100, end: 100, gone_wait_ms: 2_000, ..LookEnd::default() };
    let rotated = LookEnd { rotated: true, unchanged_ms: 2_000, ..at_end };
    let compressed = LookEnd { compressed: true, ..rotated };
    let gone = LookEnd { loses_text: true, ..rotated };
    for (stage, look, live, bounded) in [
        (READING, rotated, Settled::Stays, Settled::Stays),
        (SETTLED, at_end, Settled::Stays, Settled::Stays),
        (SETTLED, rotated, Settled::EndsAfterLastLine, Settled::Stays),
        (SETTLED, LookEnd { unchanged_ms: 1_999, ..rotated }, Settled::Stays, Settled::Stays),
        (SETTLED, LookEnd { len: 101, ..rotated }, Settled::Stays, Settled::Stays),
        (SETTLED, compressed, Settled::Stays, Settled::Stays),
        (done(0), at_end, Settled::Ends, Settled::Ends),
        (done(100), compressed, Settled::Ends, Settled::Ends),
        (done(99), compressed, Settled::Resumes, Settled::Resumes),
        (lost(8_001), at_end, Settled::Stays, Settled::Stays),
        (lost(8_000), at_end, Settled::IsGivenUp, Settled::IsGivenUp),
        (lost(8_000), LookEnd { hidden: true, ..at_end }, Settled::Stays, Settled::Stays),
        (ENDED, rotated, Settled::Stays, Settled::Stays),
        (ENDED, gone, Settled::IsGivenUp, Settled::IsGivenUp),
        (ENDED, LookEnd { hidden: true, ..gone }, Settled::Stays, Settled::Stays),
        (ENDED, LookEnd { unchanged_ms: 1_999, ..gone }, Settled::Stays, Settled::Stays),
    ] {
        let settings = TailSettings::default();
        assert_eq!(settled(&stage, look, &settings, 10_000), live, "{stage:?} {look:?}");
        let settings = TailSettings { bounded: true, ..settings };
        assert_eq!(settled(&stage, look, &settings, 10_000), bounded, "bounded: {stage:?} {look:?}");
    }
}

#[test]
fn last_lines_are_whole_or_not() {
    for (left, half, unsure, gone, expected) in [
        (0, 0, false, false, LastLine::Whole),
        (0, 0, false, true, LastLine::Whole),
        (0, 0, true, false, LastLine::Unread),
        (7, 0, false, true, LastLine::Unread),
        (7, 7, false, false, LastLine::Half),
        (7, 7, false, true, LastLine::Lost),
        (7, 7, true, true, LastLine::Unread),
    ] {
        assert_eq!(last_line(left, half, unsure, gone), expected, "{left} {half} {unsure} {gone}");
    }
}

#[test]
fn files_are_cut() {
    for (holds_text, last, expected) in [
        (true, Some(b'\n'), Cut::MaybePadding),
        (true, Some(0), Cut::MaybePadding),
        (true, None, Cut::MaybePadding),
        (true, Some(b'x'), Cut::Text),
        (false, Some(b'\n'), Cut::All),
    ] {
        assert_eq!(cut(holds_text, last), expected, "{holds_text} {last:?}");
    }
}
