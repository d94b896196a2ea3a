//! Writes how far each log is safe into the journal.

use super::*;

/// Time between two journal entries, in milliseconds. After a crash, so much is sent again.
const JOURNAL_EVERY_MS: i64 = 2_000;

/// How long the row of an ended log is kept after its last entry, in milliseconds: 30 days.
const GONE_AFTER_MS: i64 = 30 * 24 * 3_600_000;

impl<P: Produce> Agent<P> {
    pub(super) fn write_if_due(&mut self, now: Now) -> Result<()> {
        if self.is_changed && now.monotonic_ms - self.journaled_at_ms >= JOURNAL_EVERY_MS {
            self.write(now)?;
        }
        Ok(())
    }

    /// Writes a journal entry with the logs that have moved.
    pub(super) fn write(&mut self, now: Now) -> Result<()> {
        let clock_ms = self.guard.read(now.wall_ms, now.monotonic_ms).guarded_ms;
        let mut changed = Vec::new();
        for (&id, input) in &mut self.inputs {
            let place = input.safe_place();
            let status = if input.ended && input.is_safe() { InputStatus::Ended } else { InputStatus::Holding };
            let gap_bytes = input.ledger.gap_bytes;
            let ledger = Ledger { gap_bytes, ..place.ledger };
            let position = input.row.position();
            let is_changed = place.offset != position.to
                || status != input.row.status
                || ledger != input.row.ledger
                || input.row.seen_at_ms == 0;
            if !is_changed {
                continue;
            }
            let facts = self.source.facts(id, place.offset, None);
            let row = Arc::make_mut(&mut input.row);
            if let Some(facts) = &facts {
                facts.describe(row);
            }
            if let Some(file) = row.file_mut() {
                file.position = Position { from: position.to, to: place.offset.max(position.to) };
            }
            (row.time, row.ledger, row.status, row.seen_at_ms) = (place.time, ledger, status, clock_ms);
            changed.push(Arc::clone(&input.row));
        }
        let gone = if self.journal.next_is_base() { self.forget(clock_ms) } else { Ledger::default() };
        let inputs = &self.inputs;
        let all = || {
            let row = |input: &Input| {
                let is_changed = changed.iter().any(|row| row.id == input.row.id);
                if is_changed { Arc::clone(&input.row) } else { settled(&input.row) }
            };
            inputs.values().map(row).collect()
        };
        self.journal.write(&changed, gone, clock_ms, all)?;
        for row in changed {
            if let Some(input) = self.inputs.get_mut(&row.id) {
                input.row = settled(&row);
            }
        }
        (self.is_changed, self.journaled_at_ms) = (false, now.monotonic_ms);
        Ok(())
    }

    /// Forgets logs that ended long ago and whose files are gone. Returns the sum of their ledgers.
    pub(super) fn forget(&mut self, clock_ms: i64) -> Ledger {
        let source = &self.source;
        let gone = self.inputs.extract_if(.., |&id, input| {
            let is_old = clock_ms - input.row.seen_at_ms > GONE_AFTER_MS;
            input.row.status == InputStatus::Ended && is_old && !source.is_listed(id)
        });
        let gone: Vec<(InputId, Input)> = gone.collect();
        let mut sum = Ledger::default();
        for (id, input) in gone {
            sum += &input.row.ledger;
            self.source.forget(id);
        }
        sum
    }
}

/// A row whose range begins where it ends: nothing was read since.
fn settled(row: &Arc<InputRow>) -> Arc<InputRow> {
    let mut row = Arc::clone(row);
    let next = row.position().next();
    if row.position() != next
        && let Some(file) = Arc::make_mut(&mut row).file_mut()
    {
        file.position = next;
    }
    row
}
