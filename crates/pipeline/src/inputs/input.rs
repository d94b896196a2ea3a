//! One input of a partition: what is recorded of it, and what this process found out.

use crate::clock_guard::ClockReading;
use crate::settings::TimeSettings;
use crate::watermark;
use adtally_model::{InputRow, InputStatus};
use std::sync::Arc;

/// One input and what is known of it in this process.
#[derive(Debug)]
pub struct Input {
    /// What the last epoch recorded of it; once it is touched, what the next one records. It is shared with whoever keeps
    /// what was recorded, until it changes.
    pub row: Arc<InputRow>,
    /// When it was last seen, by the guarded clock: see [`InputRow::seen_at_ms`].
    pub(crate) seen_at_ms: i64,
    /// When it was last seen at its end, by the guarded clock.
    pub at_end_at_ms: Option<i64>,
    /// What was found when it was last asked for lines.
    pub asked: Asked,
    /// Since when it cannot be read, by the guarded clock.
    unreadable_since_ms: Option<i64>,
    /// Whether it was last written so long before its end was first reached that it is idle without a wait.
    idle_at_once: bool,
    /// Whether it is at its end as long as its source tells nothing else: see [`Inputs::note_watched`].
    pub(crate) quiet: bool,
    /// Whether the next epoch must record it.
    pub(super) touched: bool,
}

/// What was found when an input was last asked for lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// This process has not asked yet.
    NotYet,
    /// There is more to read.
    Backlog,
    /// It was at its end.
    AtEnd,
    /// It could not be opened or read: it may hold lines.
    Unreadable,
}

impl Input {
    /// An input as an epoch recorded it.
    pub(crate) fn new(row: Arc<InputRow>) -> Self {
        Input {
            seen_at_ms: row.seen_at_ms,
            row,
            at_end_at_ms: None,
            asked: Asked::NotYet,
            unreadable_since_ms: None,
            idle_at_once: false,
            quiet: false,
            touched: false,
        }
    }

    /// Whether the next epoch must record it.
    pub fn is_touched(&self) -> bool {
        self.touched
    }

    /// The next epoch must record it: its position goes on from where the last one left it.
    pub(crate) fn touch(&mut self) -> &mut InputRow {
        if !self.touched {
            self.touched = true;
            self.begin_position();
        }
        Arc::make_mut(&mut self.row)
    }

    /// What is recorded of it next; not a reason to record it.
    pub(crate) fn row_mut(&mut self) -> &mut InputRow {
        Arc::make_mut(&mut self.row)
    }

    /// Its position goes on from where the last epoch left it.
    fn begin_position(&mut self) {
        let next = self.row.position().next();
        if self.row.position() != next
            && let Some(file) = Arc::make_mut(&mut self.row).file_mut()
        {
            file.position = next;
        }
    }

    /// What an epoch records of it.
    pub(super) fn record(&mut self) -> Arc<InputRow> {
        if !self.touched {
            self.begin_position();
        }
        if self.row.seen_at_ms != self.seen_at_ms {
            Arc::make_mut(&mut self.row).seen_at_ms = self.seen_at_ms;
        }
        Arc::clone(&self.row)
    }

    /// Notes what was found when it was asked for lines.
    pub(crate) fn note(&mut self, asked: Asked) {
        (self.asked, self.quiet) = (asked, false);
        if asked != Asked::Unreadable {
            self.unreadable_since_ms = None;
        }
        if asked == Asked::Backlog {
            self.idle_at_once = false;
        }
    }

    /// Notes that everything of it is judged and it is at its end; `modified_ms` is when it was last written, by the wall
    /// clock. One that was written long before its end was first reached will hardly be written now; if it is, the
    /// ordinary rule holds from then on. A clock that disagrees says nothing.
    pub(crate) fn note_at_end(&mut self, now: &ClockReading, modified_ms: Option<i64>, settings: &TimeSettings) {
        self.note(Asked::AtEnd);
        let is_old = |modified_ms: i64| now.wall_ms.saturating_sub(modified_ms) > settings.idle_timeout_ms;
        if self.at_end_at_ms.is_none() {
            self.idle_at_once = now.agrees && modified_ms.is_some_and(is_old);
        }
        self.at_end_at_ms = Some(now.guarded_ms);
        self.seen_at_ms = now.guarded_ms;
    }

    /// Notes that it could not be opened or read.
    pub(crate) fn note_unreadable(&mut self, now_ms: i64) {
        self.note(Asked::Unreadable);
        self.unreadable_since_ms.get_or_insert(now_ms);
    }

    /// Whether it could not be opened or read for `idle_timeout`.
    pub(crate) fn is_given_up(&self, now_ms: i64, settings: &TimeSettings) -> bool {
        self.unreadable_since_ms.is_some_and(|since| now_ms - since >= settings.idle_timeout_ms)
    }

    /// Its watermark, or [`watermark::NONE`].
    pub(crate) fn watermark(&self, settings: &TimeSettings) -> i64 {
        watermark::of(&self.row.time, settings)
    }

    /// Whether it was at its end within `idle_timeout`; `watched_ms` is when the quiet ones were last watched.
    pub(super) fn at_end_lately(&self, now_ms: i64, watched_ms: Option<i64>, settings: &TimeSettings) -> bool {
        let at = self.at_end_at_ms.max(watched_ms.filter(|_| self.quiet));
        at.is_some_and(|at| now_ms - at <= settings.idle_timeout_ms)
    }

    /// Whether it is idle at a moment: at its end lately, and its watermark has stood still for `idle_timeout`, or its file
    /// has since before its end was first reached.
    pub(super) fn is_idle(&self, now_ms: i64, watched_ms: Option<i64>, settings: &TimeSettings) -> bool {
        let stood_still = now_ms - self.row.time.advanced_at_ms >= settings.idle_timeout_ms;
        self.at_end_lately(now_ms, watched_ms, settings) && (stood_still || self.idle_at_once)
    }

    /// Whether it holds the partition's watermark, given the final frontier.
    pub(crate) fn holds(&self, final_ms: i64, settings: &TimeSettings) -> bool {
        let own = self.watermark(settings);
        self.row.status == InputStatus::Holding && (own == watermark::NONE || own >= final_ms)
    }

    /// Whether it has a watermark and that lies before another.
    pub(super) fn lies_before(&self, watermark_ms: i64, settings: &TimeSettings) -> bool {
        let own = self.watermark(settings);
        own != watermark::NONE && own < watermark_ms
    }

    /// Changes its status, to be recorded by the next epoch.
    pub(super) fn set_status(&mut self, status: InputStatus) {
        if self.row.status != status {
            self.touch().status = status;
        }
    }
}
