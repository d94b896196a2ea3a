//! Packs lines into records, and sends these in order.

use super::*;

/// How long after a watermark has passed the end of a minute the partitions without new lines are told, in milliseconds.
const TELL_AFTER_MS: i64 = 1_000;

/// A byte that makes a line malformed in every format: it is not UTF-8.
pub(crate) const NOT_UTF8: u8 = 0xff;

impl<P: Produce> Agent<P> {
    /// Puts the lines of a block into buffers, in order, and ends records that are complete.
    pub(super) fn pack(
        &mut self,
        id: InputId,
        batch: &DecodedBatch,
        is_overlong: bool,
        header: Option<Arc<[u8]>>,
        now: Now,
    ) -> Result<()> {
        let reading = self.guard.read(now.wall_ms, now.monotonic_ms);
        let future_ms = reading.guarded_ms.max(reading.wall_ms).saturating_add(self.time.max_future_skew_ms);
        if let Some(input) = self.inputs.get_mut(&id) {
            if input.csv_header != header && !input.buffers.is_empty() {
                self.end_records(id, |_, _| true)?;
            }
            let Some(input) = self.inputs.get_mut(&id) else { return Ok(()) };
            input.csv_header = header;
            input.note_place();
        }
        let routing = (self.partitioner, self.partitions);
        for line in RoutedLines::new(&batch.text, &batch.clicks, &batch.rejected, routing) {
            let RoutedLine { text, partition, click, .. } = line;
            let place = batch.from + u64::from(line.start);
            let Some(input) = self.inputs.get_mut(&id) else { return Ok(()) };
            let before = mark_of(&input.time, &self.time);
            let buffer = input.buffers.entry(partition).or_insert_with(|| Buffer {
                first: place,
                watermark_ms: before,
                since_ms: now.monotonic_ms,
                ..Buffer::default()
            });
            let length = buffer.text.len();
            buffer.text.extend_from_slice(text);
            if is_overlong {
                // Its end is not here. What is here must not pass for a whole line.
                buffer.text.push(NOT_UTF8);
            }
            buffer.text.push(b'\n');
            buffer.key = click.map(|(ad, _)| ad).filter(|_| self.settings.single_lines);
            let is_full = buffer.text.len() >= self.settings.record_size || self.settings.single_lines;
            self.held_bytes += buffer.text.len() - length;
            input.ledger.book(line.rejected.unwrap_or(Verdict::Counted), 1);
            input.read_to = place;
            self.lines += 1;
            if let Some((_, at_ms)) = click.filter(|&(_, at_ms)| at_ms <= future_ms) {
                watermark::observe(&mut input.time, at_ms, &self.time);
            }
            let after = mark_of(&input.time, &self.time);
            let passed = minute(before) != minute(after);
            if passed {
                input.tell_at_ms = Some(now.monotonic_ms + TELL_AFTER_MS);
            }
            if passed || is_full {
                self.end_records(id, |of, _| passed || of == partition)?;
            }
        }
        if let Some(input) = self.inputs.get_mut(&id) {
            input.read_to = batch.to;
            input.ledger.nul_bytes += batch.nul_bytes;
        }
        self.is_changed = true;
        Ok(())
    }

    /// Ends the records of a log for which `is_due` is true.
    pub(super) fn end_records(&mut self, id: InputId, mut is_due: impl FnMut(u32, &Buffer) -> bool) -> Result<()> {
        let Some(input) = self.inputs.get_mut(&id) else { return Ok(()) };
        let due: Vec<(u32, Buffer)> =
            input.buffers.extract_if(.., |&partition, buffer| is_due(partition, buffer)).collect();
        for (partition, buffer) in due {
            let Buffer { text, key, first, watermark_ms, .. } = buffer;
            self.outgo(id, partition, (text, key.map(|ad| ad.to_string())), (first, watermark_ms))?;
        }
        Ok(())
    }

    /// Sends a record, after those that wait already.
    pub(super) fn outgo(
        &mut self,
        id: InputId,
        partition: u32,
        (text, key): (Vec<u8>, Option<String>),
        (first, watermark_ms): (u64, Option<i64>),
    ) -> Result<()> {
        let Some(input) = self.inputs.get_mut(&id) else { return Ok(()) };
        let home = gap_home(&input.name, self.partitions);
        let told = input.told.entry(partition).or_default();
        told.sequence += 1;
        told.watermark_ms = watermark_ms;
        let tag = self.next_tag;
        self.next_tag += 1;
        self.held_bytes += RECORD_BYTES;
        self.sent.insert(tag, Sent { input: id, first, bytes: text.len() + RECORD_BYTES });
        let record = Outgoing {
            partition,
            key,
            text,
            input: Arc::clone(&input.name),
            watermark_ms,
            sequence: told.sequence,
            csv_header: input.csv_header.clone(),
            gap_bytes: Some(input.ledger.gap_bytes).filter(|&gap| gap > 0 && partition == home),
            tag,
        };
        input.note_sent(first);
        self.outbox.push_back(record);
        self.send_outbox().map(drop)
    }

    pub(super) fn send_outbox(&mut self) -> Result<bool> {
        let mut worked = false;
        while let Some(record) = self.outbox.front() {
            if !self.producer.send(record)? {
                break;
            }
            self.outbox.pop_front();
            worked = true;
        }
        Ok(worked)
    }

    /// Ends records whose first line has waited long enough. When much is held, all records end.
    pub(super) fn send_due(&mut self, now: Now) -> Result<()> {
        let before_ms = now.monotonic_ms - self.settings.linger.as_millis() as i64;
        let is_full = self.held_bytes >= HELD_BYTES_MAX;
        let waiting = self.inputs.iter().filter(|(_, input)| !input.buffers.is_empty());
        let ids: Vec<InputId> = waiting.map(|(&id, _)| id).collect();
        for id in &ids {
            self.end_records(*id, |_, buffer| is_full || buffer.since_ms <= before_ms)?;
        }
        Ok(())
    }

    /// Tells one partition of each log with a new gap how large its gaps are in all. Later records to it repeat this.
    pub(super) fn tell_gaps(&mut self) -> Result<()> {
        let due: Vec<InputId> = self.inputs.iter().filter(|(_, input)| input.tells_gap).map(|(&id, _)| id).collect();
        for id in due {
            let Some(input) = self.inputs.get_mut(&id) else { continue };
            input.tells_gap = false;
            let (mark, read_to, home) =
                (mark_of(&input.time, &self.time), input.read_to, gap_home(&input.name, self.partitions));
            self.end_records(id, |of, _| of == home)?;
            self.outgo(id, home, (Vec::new(), None), (read_to, mark))?;
        }
        Ok(())
    }

    /// Tells the partitions that got no line lately that the watermark of a log has passed the end of a minute.
    pub(super) fn tell_partitions(&mut self, now: Now) -> Result<()> {
        if !self.outbox.is_empty() {
            // Later stamps say more.
            return Ok(());
        }
        let is_due = |input: &Input| input.tell_at_ms.is_some_and(|at_ms| at_ms <= now.monotonic_ms);
        let due: Vec<InputId> = self.inputs.iter().filter(|(_, input)| is_due(input)).map(|(&id, _)| id).collect();
        for id in due {
            let Some(input) = self.inputs.get_mut(&id) else { continue };
            input.tell_at_ms = None;
            let (mark, read_to) = (mark_of(&input.time, &self.time), input.read_to);
            // Also those that never had a line of the log: without its watermark, none of their minutes would be final.
            let told = |partition| input.told.get(&partition).and_then(|told| told.watermark_ms);
            let behind: Vec<u32> =
                (0..self.partitions).filter(|&partition| minute(told(partition)) < minute(mark)).collect();
            for partition in behind {
                // Lines of this partition that wait were read before.
                self.end_records(id, |of, _| of == partition)?;
                self.outgo(id, partition, (Vec::new(), None), (read_to, mark))?;
            }
        }
        Ok(())
    }
}

/// The partition that is told the gaps of a log.
pub(crate) fn gap_home(input: &str, partitions: u32) -> u32 {
    Partitioner::Murmur2.partition(input.as_bytes(), partitions)
}

/// The watermark of a log.
pub(crate) fn mark_of(time: &adtally_model::InputTime, settings: &TimeSettings) -> Option<i64> {
    time.largest_ms.map(|largest| largest - settings.out_of_orderness_ms)
}

/// The minute of a watermark.
pub(crate) fn minute(watermark_ms: Option<i64>) -> Option<Minute> {
    watermark_ms.map(Minute::of)
}
