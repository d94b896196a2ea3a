//! One input of a partition: its recorded row, and the state known only to this process.

use crate::clock_guard::ClockReading;
use crate::settings::TimeSettings;
use crate::watermark;
use adtally_model::{InputRow, InputStatus};
use std::sync::Arc;

/// One input, with its state in this process.
#[derive(Debug)]
pub struct Input {
    /// The last recorded row or, once the input is touched, the next one. Shared with other owners of the recorded row
    /// until it changes.
    pub row: Arc<InputRow>,
    /// When it was last seen, by the guarded clock: see [`InputRow::seen_at_ms`].
    pub(crate) seen_at_ms: i64,
    /// When the input was last seen at its end, by the guarded clock.
    pub at_end_at_ms: Option<i64>,
    /// The result of last asking it for lines.
    pub asked: Asked,
    /// Since when it has been unreadable, by the guarded clock.
    unreadable_since_ms: Option<i64>,
    /// Whether it is idle at once, because it was last written long before its end was first reached.
    idle_at_once: bool,
    /// Whether it stays at its end until its source reports news: see [`Inputs::note_watched`].
    pub(crate) quiet: bool,
    /// Whether the next epoch must record it.
    pub(super) touched: bool,
}

/// The result of asking an input for lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// This process has not asked yet.
    NotYet,
    /// There is more to read.
    Backlog,
    /// It was at its end.
    AtEnd,
    /// It could not be opened or read, so it may have lines.
    Unreadable,
}

impl Input {
    /// An input in the state recorded by an epoch.
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

    /// Marks it to be recorded by the next epoch. Its position continues from the last epoch.
    pub(crate) fn touch(&mut self) -> &mut InputRow {
        if !self.touched {
            self.touched = true;
            self.begin_position();
        }
        Arc::make_mut(&mut self.row)
    }

    /// Mutable access to the row, without marking it to be recorded.
    pub(crate) fn row_mut(&mut self) -> &mut InputRow {
        Arc::make_mut(&mut self.row)
    }

    /// Continues its position from the last epoch.
    fn begin_position(&mut self) {
        let next = self.row.position().next();
        if self.row.position() != next
            && let Some(file) = Arc::make_mut(&mut self.row).file_mut()
        {
            file.position = next;
        }
    }

    /// The row for an epoch to record.
    pub(super) fn record(&mut self) -> Arc<InputRow> {
        if !self.touched {
            self.begin_position();
        }
        if self.row.seen_at_ms != self.seen_at_ms {
            Arc::make_mut(&mut self.row).seen_at_ms = self.seen_at_ms;
        }
        Arc::clone(&self.row)
    }

    /// Notes the result of asking it for lines.
    pub(crate) fn note(&mut self, asked: Asked) {
        (self.asked, self.quiet) = (asked, false);
        if asked != Asked::Unreadable {
            self.unreadable_since_ms = None;
        }
        if asked == Asked::Backlog {
            self.idle_at_once = false;
        }
    }

    /// Notes that it is at its end and fully judged. `modified_ms` is its last write, by the wall clock. An input
    /// written long before its end was first reached is idle at once, because another write is unlikely; after another
    /// write the normal rule applies. `modified_ms` is ignored while the clocks disagree.
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

    /// Whether it has been unreadable for `idle_timeout`.
    pub(crate) fn is_given_up(&self, now_ms: i64, settings: &TimeSettings) -> bool {
        self.unreadable_since_ms.is_some_and(|since| now_ms - since >= settings.idle_timeout_ms)
    }

    /// Its watermark, or [`watermark::NONE`].
    pub(crate) fn watermark(&self, settings: &TimeSettings) -> i64 {
        watermark::of(&self.row.time, settings)
    }

    /// Whether it was at its end within `idle_timeout`. `watched_ms` is when the quiet inputs were last watched.
    pub(super) fn at_end_lately(&self, now_ms: i64, watched_ms: Option<i64>, settings: &TimeSettings) -> bool {
        let at = self.at_end_at_ms.max(watched_ms.filter(|_| self.quiet));
        at.is_some_and(|at| now_ms - at <= settings.idle_timeout_ms)
    }

    /// Whether it is idle at `now_ms`: it was at its end lately, and its watermark has not advanced for `idle_timeout`,
    /// or its file was already that old when its end was first reached.
    pub(super) fn is_idle(&self, now_ms: i64, watched_ms: Option<i64>, settings: &TimeSettings) -> bool {
        let stood_still = now_ms - self.row.time.advanced_at_ms >= settings.idle_timeout_ms;
        self.at_end_lately(now_ms, watched_ms, settings) && (stood_still || self.idle_at_once)
    }

    /// Whether it holds the partition's watermark, given the final frontier.
    pub(crate) fn holds(&self, final_ms: i64, settings: &TimeSettings) -> bool {
        let own = self.watermark(settings);
        self.row.status == InputStatus::Holding && (own == watermark::NONE || own >= final_ms)
    }

    /// Whether it has a watermark before `watermark_ms`.
    pub(super) fn lies_before(&self, watermark_ms: i64, settings: &TimeSettings) -> bool {
        let own = self.watermark(settings);
        own != watermark::NONE && own < watermark_ms
    }

    /// Changes its status. The next epoch records the change.
    pub(super) fn set_status(&mut self, status: InputStatus) {
        if self.row.status != status {
            self.touch().status = status;
        }
    }
}
