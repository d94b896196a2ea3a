//! The end of an epoch: when it is due, what it contains, and how discoveries take effect.

use super::*;
use adtally_pipeline::Gap;

impl<S: EpochSink> Ingest<S> {
    /// Most lines in the epoch. The first epochs of a process are smaller: a process that is killed again and again during
    /// a backlog must get on in each of its short lives.
    pub(super) fn epoch_lines_max(&self) -> u64 {
        let most = match self.lanes.len() {
            0..CROWD => self.settings.epoch_lines_max,
            _ => (self.settings.epoch_lines_max / 3).max(1),
        };
        most.min(self.lines_submitted.max(FIRST_EPOCH_LINES))
    }

    pub(super) fn end_epoch_if_due(&mut self, monotonic: i64, worked: bool) -> Result<bool> {
        let age = monotonic - self.epoch_began_ms;
        let (lines, bytes) = self.partition.epoch_size();
        let full = lines >= self.epoch_lines_max()
            || bytes >= self.settings.epoch_bytes_max
            || self.partition.epoch_pieces() >= self.settings.bounds.epoch_pieces_max;
        let backlog = self.lanes.values().any(|lane| lane.asked_ms.is_none());
        let passed = self.partition.passed_a_minute() && (!backlog || age >= BACKLOG_EPOCH_MS);
        let stalled = !worked
            && self.lanes.values().any(|lane| !lane.batches.is_empty())
            && monotonic - self.stalled_at_ms >= STALL_EPOCH_MS;
        let discovered = !self.discovered.is_empty() || !self.found.is_empty();
        let due = full || passed || stalled || age >= self.settings.epoch_interval_ms || discovered;
        if !due || !(full || self.sink.is_ready()) {
            return Ok(false);
        }
        if stalled {
            self.stalled_at_ms = monotonic;
        }
        self.end_epoch(RunEnd::GoesOn)?;
        if self.lanes.len() >= CROWD {
            adtally_allocator::give_back_freed_memory();
        }
        Ok(full || discovered)
    }

    /// Ends the epoch, then applies the discoveries.
    pub(super) fn end_epoch(&mut self, run_end: RunEnd) -> Result<()> {
        let (now, _) = self.now();
        if run_end != RunEnd::GoesOn {
            self.apply_discovered(&now);
        }
        self.note_listed(&now);
        self.book_told_gaps();
        let touched: Vec<(InputId, u64)> = self
            .partition
            .inputs()
            .iter()
            .filter(|input| input.is_touched())
            .map(|input| (input.row.id, input.row.position().to))
            .collect();
        for (id, position) in touched {
            let front = self.lanes.get(&id.into()).and_then(|lane| lane.batches.front());
            let before = front.and_then(|batch| batch.text_before(position));
            if let Some(facts) = self.source.facts(id, position, before) {
                self.partition.describe_input(id, |row| facts.describe(row));
            }
        }
        let (lines, _) = self.partition.epoch_size();
        if let Some(draft) = self.partition.end_epoch(&now, run_end)? {
            self.lines_submitted += lines;
            self.number = draft.progress.number + 1;
            self.sink.submit(draft)?;
        }
        for id in self.partition.take_forgotten() {
            self.source.forget(id);
        }
        // Submitting may have taken long. Inputs that appear now have not been waiting all that time.
        let (now, monotonic) = self.now();
        self.epoch_began_ms = monotonic;
        if run_end == RunEnd::GoesOn {
            self.apply_discovered(&now);
        }
        self.report.holds(&self.partition);
        Ok(())
    }

    /// Books the gaps that records tell of, in the epoch that has these records at the latest.
    fn book_told_gaps(&mut self) {
        for discovery in self.source.take_gaps() {
            match discovery {
                Discovery::Gap { input, bytes, reason } if self.partition.inputs().get(input).is_some() => {
                    self.book_gap(input, bytes, &reason);
                }
                // The input becomes known after this epoch, and its records wait for that.
                other => self.discovered.push(other),
            }
        }
    }

    fn book_gap(&mut self, id: InputId, bytes: u64, reason: &str) {
        tracing::error!(id = id.0, bytes, reason, "bytes can never be read: a gap in the ledger");
        self.partition.book_gap(id, Gap::Bytes(bytes));
        self.source.gap_booked(id);
    }

    /// Keeps inputs that ended long ago but whose files still exist: they are not gone.
    pub(super) fn note_listed(&mut self, now: &ClockReading) {
        for id in self.partition.long_unseen(now) {
            if self.source.is_listed(id) {
                self.partition.note_seen(id, now);
            }
        }
    }

    pub(super) fn apply_discovered(&mut self, now: &ClockReading) {
        for (input, name) in std::mem::take(&mut self.found) {
            self.partition.add_input(InputRow::of_records(input, name), now);
        }
        for discovery in std::mem::take(&mut self.discovered) {
            match discovery {
                Discovery::Found { facts, position } => {
                    tracing::debug!(input = &*facts.name, id = facts.input.0, position, "input found");
                    let lane = facts.input.into();
                    self.lanes.insert(lane, Lane::of(lane));
                    self.partition.add_input(facts.new_row(position), now);
                }
                Discovery::Continued { input: id } | Discovery::Resumed { input: id } => {
                    tracing::debug!(id = id.0, "input continues");
                    if self.source.shared_lane().is_none() {
                        let lane = id.into();
                        self.quiet.remove(&lane);
                        let lane = self.lanes.entry(lane).or_insert_with(|| Lane::of(lane));
                        (lane.ended, lane.asked_ms) = (false, None);
                    }
                    self.partition.resume_input(id);
                }
                Discovery::Renamed { input: id, name } => {
                    tracing::debug!(input = &*name, id = id.0, "input renamed");
                    self.partition.describe_input(id, |row| row.name = name);
                }
                Discovery::Ended { input: id } => {
                    let lane = id.into();
                    self.quiet.remove(&lane);
                    if self.left.contains(&lane) {
                        continue;
                    }
                    // Pending lines are judged first; then `settle_ended` reports this end again.
                    match self.lanes.get_mut(&lane).filter(|lane| lane.input == Some(id)) {
                        Some(lane) if !lane.is_drained() => lane.ended = true,
                        found => {
                            if found.is_some() {
                                self.lanes.remove(&lane);
                            }
                            self.partition.end_input(id);
                        }
                    }
                }
                Discovery::Gap { input: id, bytes, reason } => self.book_gap(id, bytes, &reason),
                Discovery::LostOffsets { input: id, offsets } => {
                    tracing::error!(id = id.0, offsets, "the topic has lost offsets that were not read: a gap");
                    self.partition.book_gap(id, Gap::Offsets(offsets));
                    self.source.gap_booked(id);
                }
            }
        }
    }
}
