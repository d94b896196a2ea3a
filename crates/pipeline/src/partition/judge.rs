//! The way of a batch of clicks through the stages, from its first line to the ledger.

use super::{Judged, Partition, Stopped};
use crate::clock_guard::ClockReading;
use crate::lateness::{self, LineFrontiers};
use crate::pending_batch::PendingBatch;
use crate::{frontier, future};
use adtally_model::{Error, Result};
use std::sync::Arc;

impl Partition {
    /// Judges lines of a batch until its end, until its input has to wait, or until `lines_max` clicks.
    ///
    /// # Errors
    /// An internal error when the batch does not begin where its input stands.
    pub fn judge(&mut self, batch: &mut PendingBatch, now: &ClockReading, lines_max: usize) -> Result<Judged> {
        let id = batch.input;
        let unknown = || Error::internal(format!("input {id} is not known to the partition"));
        let columns = Arc::clone(&batch.columns);

        let allowance = self.allowance(id, now).ok_or_else(unknown)?;
        let end = columns.len().min(batch.row.saturating_add(lines_max.min(allowance.lines_max)));
        let times = &columns.event_time_ms[batch.row..end];
        let future_ms = future::limit_ms(now, self.settings.max_future_skew_ms);

        let watermarks =
            self.inputs.watermarks_before(id, times, future_ms, allowance.limit_ms, now.guarded_ms, &self.settings);
        let watermarks = watermarks.ok_or_else(unknown)?;
        let frontiers = LineFrontiers::new(&self.progress.frontiers, allowance.watermark_max_ms, &self.settings);
        let lines = lateness::time_lines(&columns, batch.row, watermarks, future_ms, frontiers);
        let verdicts = self.held.deduplicate(&lines, self.progress.number);
        let newest_ms = self.windows.count_rows(&columns, &verdicts.counted);
        self.progress.newest_click_ms = self.progress.newest_click_ms.max(newest_ms);
        let judged = lines.rows();
        let counted = self.book(batch, judged.end, verdicts, now)?;

        frontier::follow_watermark(&mut self.progress.frontiers, &self.inputs, &self.settings);
        self.expire();
        let stopped = match judged.end {
            row if row == columns.len() => Stopped::BatchEnd,
            row if row == end => Stopped::Quota,
            _ => Stopped::Aligned,
        };
        Ok(Judged { counted, lines: judged.len(), stopped })
    }
}
