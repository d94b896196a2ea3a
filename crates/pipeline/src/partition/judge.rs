//! Takes a batch of clicks through the stages, from its first line to the ledger.

use super::{Judged, Partition, Stopped};
use crate::clock_guard::ClockReading;
use crate::pending_batch::PendingBatch;
use crate::{frontier, future, lateness};
use adtally_model::Result;
use std::sync::Arc;

impl Partition {
    /// Judges lines of a batch until its end, until its input must wait, or until `lines_max` clicks are judged.
    ///
    /// # Errors
    /// An internal error when the input is unknown to the partition, or the batch does not begin at its position.
    pub fn judge(&mut self, batch: &mut PendingBatch, now: &ClockReading, lines_max: usize) -> Result<Judged> {
        let columns = Arc::clone(&batch.columns);
        let first = batch.row;
        let future_ms = future::limit_ms(now, self.settings.max_future_skew_ms);

        let allowance = self.allowance(batch, lines_max, now)?;
        let quota = batch.end_row.min(first.saturating_add(allowance.lines_max));
        let event_time_ms = &columns.event_time_ms[first..quota];
        let watermarks = self.inputs.watermarks_before(
            (batch.input, batch.time()),
            event_time_ms,
            future_ms,
            allowance.limit_ms,
            now,
            &self.settings,
        );
        let lines = lateness::time_lines(&columns, first, watermarks, future_ms, allowance.frontiers);
        let verdicts = self.held.deduplicate(&lines, self.progress.number);
        let newest_ms = self.windows.count_rows(&columns, &verdicts.counted);
        self.progress.newest_click_ms = self.progress.newest_click_ms.max(newest_ms);
        let counted = self.book(batch, &lines, verdicts, now)?;
        frontier::follow_watermark(&mut self.progress.frontiers, &self.inputs, &self.settings);
        self.expire();

        let end = lines.end();
        let stopped = match end {
            end if end == batch.end_row => Stopped::BatchEnd,
            end if end == quota => Stopped::Quota,
            _ => Stopped::Aligned,
        };
        Ok(Judged { counted, lines: end - first, stopped })
    }
}
