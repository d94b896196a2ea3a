//! Stage: the ledger. The only place that books the verdicts on a batch's lines.

use super::Partition;
use crate::clock_guard::ClockReading;
use crate::lateness::TimedLines;
use crate::pending_batch::{Lines, PendingBatch};
use crate::verdicts::Verdicts;
use adtally_model::{CountedClicks, Error, Ledger, Position, Result, Verdict};
use std::sync::Arc;

impl Partition {
    /// Books these lines of a batch, including the rejected ones, and moves the cursor past them. Returns the counted
    /// clicks, if any.
    ///
    /// # Errors
    /// An internal error when the batch does not begin at its input's position.
    pub(super) fn book(
        &mut self,
        batch: &mut PendingBatch,
        lines: &TimedLines<'_>,
        verdicts: Verdicts,
        now: &ClockReading,
    ) -> Result<Option<Arc<CountedClicks>>> {
        let Verdicts { counted, not_counted } = verdicts;
        let end = lines.end();
        let origin = self.inputs.get(batch.input).map(|input| Arc::clone(&input.row.origin)).unwrap_or_default();
        let mut tally = Ledger::default();
        tally.book(Verdict::Counted, counted.len() as u64);
        for (row, outcome) in not_counted {
            let (verdict, row) = (outcome.verdict(), row as usize);
            tally.book(verdict, 1);
            tally.conflicting_duplicates += u64::from(outcome.differs());
            if let Some(reason) = outcome.reason(batch.columns.click_id(row)) {
                self.dead_letters.push(batch.dead_letter(row, verdict, reason, (&origin, lines.watermark(row)), now));
            }
        }
        batch.row = end;
        while let Some(letter) = batch.next_rejected(&origin, now) {
            tally.book(letter.verdict, 1);
            self.dead_letters.push(letter);
        }
        if end == batch.end_row {
            tally.nul_bytes = std::mem::take(&mut batch.nul_bytes);
        }
        let to = batch.text_at(end);
        let from = std::mem::replace(&mut batch.booked_to, to);
        if let Lines::Record(record) = batch.lines {
            let source = self.progress.source.get_or_insert(Position::at(record.position.from));
            source.advance(record.position.from, record.position.to)?;
        }
        let booked = self.inputs.change(batch.input, |input| {
            if to > from {
                let row = input.touch();
                if let (Lines::Text { from: begin, .. }, Some(file)) = (batch.lines, row.file_mut()) {
                    file.position.advance(begin + from, begin + to)?;
                }
                row.ledger += &tally;
            }
            Ok::<_, Error>(input.row.time.largest_ms)
        });
        let largest_ms = booked.transpose()?.flatten();
        self.progress.largest_guarded_ms = self.progress.largest_guarded_ms.max(largest_ms);
        self.progress.ledger += &tally;
        self.lines += tally.read;
        self.bytes += to - from;
        if counted.is_empty() {
            return Ok(None);
        }
        let columns = Arc::clone(&batch.columns);
        let counted = Arc::new(CountedClicks { columns, rows: counted, input: origin, positions: batch.positions() });
        self.clicks.push(Arc::clone(&counted));
        Ok(Some(counted))
    }
}
