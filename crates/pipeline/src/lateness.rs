//! Stage: whether a line is on time, by the frontiers just before it.

use crate::frontier::{self, NEVER};
use crate::settings::TimeSettings;
use crate::watermark;
use adtally_model::{ClickColumns, Frontiers, Minute, Watermark};

/// Whether a line is on time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Timeliness {
    /// It may be counted.
    OnTime,
    /// Late, unless its identity is known: then it is a duplicate.
    Late,
    /// The identities of its minute are forgotten, so it is late in any case.
    Expired,
    /// Its event time is too far ahead of the clock.
    Future,
}

/// The frontiers of a partition while lines of one input move them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LineFrontiers {
    /// The final frontier before the first line.
    final_ms: i64,
    /// The expired frontier before the first line.
    expired_ms: i64,
    /// Limit up to which the input moves the partition's watermark; [`NEVER`] if it does not move it.
    watermark_max_ms: i64,
    allowed_lateness_ms: i64,
    held_after_final_ms: i64,
}

/// Consecutive lines of a batch, with the results of timing each.
#[derive(Debug)]
pub(crate) struct TimedLines<'a> {
    /// The batch.
    pub(crate) columns: &'a ClickColumns,
    /// The row of the first line.
    pub(crate) first: usize,
    /// Whether each line is on time.
    pub(crate) timeliness: Vec<Timeliness>,
    /// The expired frontier before each line.
    pub(crate) expired_ms: Vec<i64>,
    /// The watermark of the input before each line; [`watermark::NONE`] if there is none.
    watermarks: Vec<i64>,
}

impl TimedLines<'_> {
    /// The row after the last line.
    pub(crate) fn end(&self) -> usize {
        self.first + self.timeliness.len()
    }

    /// The watermark of the input before the line in `row`.
    pub(crate) fn watermark(&self, row: usize) -> Watermark {
        match self.watermarks[row - self.first] {
            watermark::NONE => Watermark::NONE,
            ms => Watermark::at(ms),
        }
    }
}

impl LineFrontiers {
    /// The frontiers of a partition whose watermark an input's lines may move up to `watermark_max_ms`.
    pub(crate) fn new(frontiers: &Frontiers, watermark_max_ms: i64, settings: &TimeSettings) -> Self {
        LineFrontiers {
            final_ms: frontier::ms(frontiers.final_),
            expired_ms: frontier::ms(frontiers.expired),
            watermark_max_ms,
            allowed_lateness_ms: settings.allowed_lateness_ms,
            held_after_final_ms: settings.held_after_final_ms(),
        }
    }

    /// The final and the expired frontier before a line, from the watermark of its input before it.
    #[inline]
    fn before(&self, watermark_ms: i64) -> (i64, i64) {
        // An input behind the final frontier holds nothing until it has caught up.
        let partition_ms = if watermark_ms < self.final_ms { NEVER } else { watermark_ms.min(self.watermark_max_ms) };
        if partition_ms == NEVER {
            return (self.final_ms, self.expired_ms);
        }
        let final_ms = self.final_ms.max(partition_ms - self.allowed_lateness_ms);
        (final_ms, self.expired_ms.max(final_ms - self.held_after_final_ms))
    }

    /// Whether a line is on time, and the expired frontier before it.
    #[inline]
    fn time_line(&self, event_time_ms: i64, future_ms: i64, watermark_ms: i64) -> (Timeliness, i64) {
        let (final_ms, expired_ms) = self.before(watermark_ms);
        let end_ms = Minute::of(event_time_ms).end_ms();
        let is_late_for_input = watermark_ms != watermark::NONE && end_ms + self.allowed_lateness_ms <= watermark_ms;
        let timeliness = if event_time_ms > future_ms {
            Timeliness::Future
        } else if end_ms <= expired_ms {
            Timeliness::Expired
        } else if is_late_for_input || end_ms <= final_ms {
            Timeliness::Late
        } else {
            Timeliness::OnTime
        };
        (timeliness, expired_ms)
    }
}

/// Decides which lines of a batch, from row `first` on, are on time. `watermarks` are the input's before each line.
pub(crate) fn time_lines(
    columns: &ClickColumns,
    first: usize,
    watermarks: Vec<i64>,
    future_ms: i64,
    frontiers: LineFrontiers,
) -> TimedLines<'_> {
    let event_time_ms = columns.event_time_ms[first..].iter();
    let (timeliness, expired_ms) = event_time_ms
        .zip(&watermarks)
        .map(|(&event_time_ms, &watermark_ms)| frontiers.time_line(event_time_ms, future_ms, watermark_ms))
        .unzip();
    TimedLines { columns, first, timeliness, expired_ms, watermarks }
}
