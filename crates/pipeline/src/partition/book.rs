//! Stage: the ledger. What was decided about the lines of a batch is booked here, and nowhere else.

use super::Partition;
use crate::clock_guard::ClockReading;
use crate::pending_batch::PendingBatch;
use crate::verdicts::Verdicts;
use adtally_model::{CountedClicks, Error, Ledger, Result, Verdict};
use std::sync::Arc;

impl Partition {
    /// Books the lines of a batch before row `end`, the rejected ones among them, and moves the cursor there.
    /// Returns the clicks that were counted, if any.
    ///
    /// # Errors
    /// An internal error when the batch does not begin where its input stands.
    pub(super) fn book(
        &mut self,
        batch: &mut PendingBatch,
        end: usize,
        verdicts: Verdicts,
        now: &ClockReading,
    ) -> Result<Option<Arc<CountedClicks>>> {
        let origin = self.inputs.get(batch.input).map(|input| Arc::clone(&input.row.origin)).unwrap_or_default();
        let mut tally = Ledger::default();
        tally.book(Verdict::Counted, verdicts.counted.len() as u64);
        for (row, outcome) in verdicts.not_counted {
            tally.book(outcome.verdict(), 1);
            tally.conflicting_duplicates += u64::from(outcome.differs());
            self.dead_letters.extend(batch.dead_letter(row as usize, outcome, &origin, now));
        }
        let first = std::mem::replace(&mut batch.row, end);
        while let Some(letter) = batch.next_rejected(&origin, now) {
            tally.book(letter.verdict, 1);
            self.dead_letters.push(letter);
        }
        if end == batch.columns.len() {
            tally.nul_bytes = std::mem::take(&mut batch.nul_bytes);
        }
        self.book_lines(batch, first, &tally)?;
        if verdicts.counted.is_empty() {
            return Ok(None);
        }
        let columns = Arc::clone(&batch.columns);
        let counted = Arc::new(CountedClicks { columns, rows: verdicts.counted, input: origin, from: batch.from });
        self.clicks.push(Arc::clone(&counted));
        Ok(Some(counted))
    }

    /// Adds the lines from row `first` to the cursor to the ledgers of their input and of the partition.
    fn book_lines(&mut self, batch: &PendingBatch, first: usize, tally: &Ledger) -> Result<()> {
        let from = if first == 0 { batch.from } else { batch.position_at(first) };
        let to = batch.position_at(batch.row);
        let booked = self.inputs.change(batch.input, |input| {
            // A batch that stopped before its first click has still got past the rejected lines before it.
            let from = if first == 0 { input.row.position.to.max(from).min(to) } else { from };
            if to > from {
                let row = input.touch();
                row.position.advance(from, to)?;
                row.ledger += tally;
            }
            Ok::<_, Error>((to - from, input.row.time.largest_ms))
        });
        let Some((bytes, largest)) = booked.transpose()? else { return Ok(()) };
        self.progress.ledger += tally;
        self.lines += tally.read;
        self.bytes += bytes;
        self.progress.largest_guarded_ms = self.progress.largest_guarded_ms.max(largest);
        Ok(())
    }
}
