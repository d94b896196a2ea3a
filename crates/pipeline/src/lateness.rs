//! Stage: whether a line comes in time, by the frontiers right before it.

use crate::frontier::{self, NEVER};
use crate::settings::TimeSettings;
use crate::watermark;
use adtally_model::{ClickColumns, Frontiers, Minute};
use std::ops::Range;

/// Whether a line comes in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Timeliness {
    /// It may be counted.
    OnTime,
    /// Late, unless its identity is held: then it is a duplicate.
    Late,
    /// The identities of its minute are forgotten: late in any case.
    Expired,
    /// Its event time is too far ahead of the clock.
    Future,
}

/// The frontiers of a partition while the lines of one input move them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LineFrontiers {
    /// The final frontier before the first line.
    final_ms: i64,
    /// The expired frontier before the first line.
    expired_ms: i64,
    /// Up to where the input moves the partition's watermark; [`NEVER`] where it does not.
    watermark_max_ms: i64,
    allowed_lateness_ms: i64,
    held_after_final_ms: i64,
}

/// Lines of a batch, and whether each comes in time.
#[derive(Debug)]
pub(crate) struct TimedLines<'a> {
    /// The batch.
    pub(crate) columns: &'a ClickColumns,
    /// The row of the first line.
    first: usize,
    /// The watermark of the input before each line.
    watermarks: Vec<i64>,
    timeliness: Vec<Timeliness>,
    frontiers: LineFrontiers,
}

impl LineFrontiers {
    /// Those of a partition before it judges lines of an input that moves its watermark up to `watermark_max_ms`.
    pub(crate) fn new(frontiers: &Frontiers, watermark_max_ms: i64, settings: &TimeSettings) -> Self {
        LineFrontiers {
            final_ms: frontier::ms(frontiers.final_),
            expired_ms: frontier::ms(frontiers.expired),
            watermark_max_ms,
            allowed_lateness_ms: settings.allowed_lateness_ms,
            held_after_final_ms: settings.held_after_final_ms(),
        }
    }

    /// The final and the expired frontier before a line, by the watermark of its input before it.
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

    #[inline]
    fn timeliness(&self, event_time_ms: i64, watermark_ms: i64) -> Timeliness {
        let (final_ms, expired_ms) = self.before(watermark_ms);
        let end_ms = Minute::of(event_time_ms).end_ms();
        let is_late_for_input = watermark_ms != watermark::NONE && end_ms + self.allowed_lateness_ms <= watermark_ms;
        if end_ms <= expired_ms {
            Timeliness::Expired
        } else if is_late_for_input || end_ms <= final_ms {
            Timeliness::Late
        } else {
            Timeliness::OnTime
        }
    }
}

/// Decides which lines of a batch, from a row on, come in time; `watermarks` are those of their input before each.
pub(crate) fn time_lines(
    columns: &ClickColumns,
    first: usize,
    watermarks: Vec<i64>,
    future_ms: i64,
    frontiers: LineFrontiers,
) -> TimedLines<'_> {
    let of = |(&event_time, &watermark): (&i64, &i64)| {
        if event_time > future_ms { Timeliness::Future } else { frontiers.timeliness(event_time, watermark) }
    };
    let timeliness = columns.event_time_ms[first..].iter().zip(&watermarks).map(of).collect();
    TimedLines { columns, first, watermarks, timeliness, frontiers }
}

impl TimedLines<'_> {
    /// The rows of the lines.
    pub(crate) fn rows(&self) -> Range<usize> {
        self.first..self.first + self.timeliness.len()
    }

    /// Whether the line of a row comes in time.
    #[inline]
    pub(crate) fn timeliness(&self, row: usize) -> Timeliness {
        self.timeliness[row - self.first]
    }

    /// The expired frontier before the line of a row.
    pub(crate) fn expired_ms(&self, row: usize) -> i64 {
        self.frontiers.before(self.watermarks[row - self.first]).1
    }
}
