//! Judging: which verdict each line of a batch gets.

use super::*;

impl Partition {
    /// Judges lines of a batch until its end, until its input has to wait, or until `lines_max` clicks.
    ///
    /// # Errors
    /// An internal error when the batch does not begin where its input stands.
    pub fn judge(&mut self, batch: &mut PendingBatch, now: &ClockReading, lines_max: usize) -> Result<Judged> {
        let limit = self.alignment_limit(batch.input, now);
        let final_ms = frontier::ms(self.progress.frontiers.final_);
        let others = self.inputs.least_holding(final_ms, &self.settings, Some(batch.input));
        let unknown = || Error::internal(format!("input {} is not known to the partition", batch.input));
        let status = self.inputs.get(batch.input).ok_or_else(unknown)?.row.status;
        let blocked = status == InputStatus::Idle || self.inputs.blocked_by(batch.input).is_some();

        // Each line may open a minute.
        let lines_max = if blocked { lines_max.min(BLOCKED_MINUTES_MAX) } else { lines_max };
        let end = batch.columns.len().min(batch.row.saturating_add(lines_max));
        let times = &batch.columns.event_time_ms[batch.row..end];
        let future_ms = future::limit_ms(now, self.settings.max_future_skew_ms);
        let future_ms = future::any(times, future_ms).then_some(future_ms);
        let (settings, before) = (&self.settings, &mut self.before);
        let scanned = self.inputs.change(batch.input, |input| {
            let mut time = input.row.time;
            let rows = watermark::scan(&mut time, times, future_ms, limit, settings, before);
            if watermark::of(&time, settings) > input.watermark(settings) {
                time.advanced_at_ms = now.guarded_ms;
            }
            // A row that stays as it was recorded stays shared.
            if time != input.row.time {
                input.row_mut().time = time;
            }
            rows
        });
        let rows = scanned.ok_or_else(unknown)?;
        // While the input holds, the partition's watermark before a line is the lesser of its own and the others'.
        let cap = if status == InputStatus::Holding { others.unwrap_or(i64::MAX) } else { NEVER };
        let counted = self.judge_rows(batch, rows, future_ms, cap, now)?;

        let stopped = match batch.row {
            row if row == batch.columns.len() => Stopped::BatchEnd,
            row if row == end => Stopped::Quota,
            _ => Stopped::Aligned,
        };
        frontier::follow_watermark(&mut self.progress.frontiers, &self.inputs, &self.settings);
        self.expire();
        Ok(Judged { counted, lines: rows, stopped })
    }

    /// Judges `rows` rows from the cursor on, books them and moves the cursor.
    fn judge_rows(
        &mut self,
        batch: &mut PendingBatch,
        rows: usize,
        future_ms: Option<i64>,
        cap: i64,
        now: &ClockReading,
    ) -> Result<Option<Arc<CountedClicks>>> {
        let mut tally = Ledger::default();
        let first = batch.row;
        let mut counted: Vec<u32> = Vec::with_capacity(rows);
        let mut kept: Vec<(usize, Verdict, Cow<'static, str>)> = Vec::new();
        let late = |row, reason| (row, Verdict::Late, Cow::Borrowed(reason));
        let name = self.inputs.get(batch.input).map(|input| Arc::clone(&input.row.origin)).unwrap_or_else(|| "".into());
        let columns = Arc::clone(&batch.columns);
        let (final_before, expired_before) =
            (frontier::ms(self.progress.frontiers.final_), frontier::ms(self.progress.frontiers.expired));
        let (lateness, held_after) = (self.settings.allowed_lateness_ms, self.settings.held_after_final_ms());
        let mut current: Option<(Minute, MinuteSet, usize)> = None;
        for row in first..first + rows {
            if (row - first).is_multiple_of(TOUCHED_MAX) {
                let rows = row..(row + TOUCHED_MAX).min(first + rows);
                touch(&self.held, current.as_ref().map(|(minute, set, _)| (*minute, set)), &columns, rows);
            }
            let event_time = columns.event_time_ms[row];
            if future_ms.is_some_and(|limit| event_time > limit) {
                tally.book(Verdict::Future, 1);
                self.dead_letters.push(batch.dead_letter(row, Verdict::Future, FUTURE.into(), &name, now));
                continue;
            }
            let minute = Minute::of(event_time);
            let own = self.before[row - first];
            // An input behind the final frontier holds nothing until it has caught up.
            let partition = if own < final_before { NEVER } else { own.min(cap) };
            let final_ms = if partition == NEVER { final_before } else { final_before.max(partition - lateness) };
            let expired_ms =
                if partition == NEVER { expired_before } else { expired_before.max(final_ms - held_after) };
            let end = minute.end_ms();
            let is_late = (own != watermark::NONE && end + lateness <= own) || end <= final_ms;
            if end <= expired_ms {
                tally.book(Verdict::Late, 1);
                kept.push(late(row, LATE_FINAL));
                continue;
            }
            if current.as_ref().is_none_or(|(of, ..)| *of != minute) {
                if let Some((of, set, added)) = current.take() {
                    self.held.put(of, set, added);
                }
                let set = self.set_of(minute, expired_ms, is_late);
                match set {
                    Some(set) => current = Some((minute, set, 0)),
                    None => {
                        tally.book(Verdict::Late, 1);
                        kept.push(late(row, if is_late { LATE_FINAL } else { LATE_TOO_MANY }));
                        continue;
                    }
                }
            }
            let Some((_, set, added)) = &mut current else { continue };
            match set.probe(columns.identity[row], !is_late) {
                Probe::Held(first) => {
                    let identity = columns.identity[row];
                    tally.book(Verdict::Duplicate, 1);
                    tally.conflicting_duplicates += u64::from(first.conflicts(identity));
                    if first.differs_in_user(identity) {
                        kept.push((row, Verdict::Duplicate, conflict(columns.click_id(row)).into()));
                    }
                }
                Probe::New => {
                    *added += 1;
                    counted.push(row as u32);
                }
                Probe::Absent => {
                    tally.book(Verdict::Late, 1);
                    kept.push(late(row, LATE_FINAL));
                }
            }
        }
        if let Some((of, set, added)) = current {
            self.held.put(of, set, added);
        }
        for (row, verdict, reason) in kept {
            self.dead_letters.push(batch.dead_letter(row, verdict, reason, &name, now));
        }
        tally.book(Verdict::Counted, counted.len() as u64);
        self.count(&columns, &counted);
        batch.row += rows;
        self.reject(batch, &mut tally, &name, now);
        if batch.row == batch.columns.len() {
            tally.nul_bytes = std::mem::take(&mut batch.nul_bytes);
        }
        self.book(batch, first, &tally)?;
        if counted.is_empty() {
            return Ok(None);
        }
        let counted = Arc::new(CountedClicks { columns, rows: counted, input: name, from: batch.from });
        self.clicks.push(Arc::clone(&counted));
        Ok(Some(counted))
    }

    /// Takes the set of a minute out for probing; `None` where the minute is not held and may not, or cannot, be.
    fn set_of(&mut self, minute: Minute, expired_ms: i64, is_late: bool) -> Option<MinuteSet> {
        if let Some(set) = self.held.take(minute) {
            return Some(set);
        }
        if is_late {
            return None;
        }
        if self.held.is_full() {
            for (minute, added) in self.held.expire(expired_ms) {
                self.expired_identities.entry(minute).or_default().extend(added);
            }
        }
        (!self.held.is_full()).then(|| self.held.begin(minute, self.progress.number))
    }

    fn count(&mut self, columns: &ClickColumns, rows: &[u32]) {
        let mut at = 0;
        while at < rows.len() {
            let minute = Minute::of(columns.event_time_ms[rows[at] as usize]);
            let window = self.windows.window(minute);
            while let Some(&row) = rows.get(at) {
                let row = row as usize;
                let event_time = columns.event_time_ms[row];
                if Minute::of(event_time) != minute {
                    break;
                }
                window.add(columns.ad_id[row], columns.country[row]);
                if self.progress.newest_click_ms.is_none_or(|newest| newest < event_time) {
                    self.progress.newest_click_ms = Some(event_time);
                }
                at += 1;
            }
        }
    }

    /// Books the rejected lines that lie before the cursor.
    fn reject(&mut self, batch: &mut PendingBatch, tally: &mut Ledger, name: &Arc<str>, now: &ClockReading) {
        let upto = batch.position_at(batch.row);
        while let Some(rejected) = batch.rejected.get_mut(batch.rejected_row) {
            let position = batch.from + u64::from(rejected.line_start);
            if position >= upto {
                break;
            }
            tally.book(rejected.verdict, 1);
            self.dead_letters.push(DeadLetter {
                verdict: rejected.verdict,
                reason: std::mem::take(&mut rejected.reason),
                payload: std::mem::take(&mut rejected.payload),
                input: Arc::clone(name),
                position,
                received_at_ms: now.guarded_ms,
                event_time_ms: None,
            });
            batch.rejected_row += 1;
        }
    }

    fn book(&mut self, batch: &PendingBatch, first: usize, tally: &Ledger) -> Result<()> {
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

/// Reads the slots where the identities of these rows, [`TOUCHED_MAX`] at most, will be looked up; see
/// [`MinuteSet::touch`].
fn touch(held: &Deduplicate, current: Option<(Minute, &MinuteSet)>, columns: &ClickColumns, rows: Range<usize>) {
    let (mut first, mut read) = (rows.start, 0);
    while first < rows.end {
        let minute = Minute::of(columns.event_time_ms[first]);
        let times = &columns.event_time_ms[first..rows.end];
        let same = times.iter().take_while(|&&time| Minute::of(time) == minute).count();
        let set = current.filter(|(of, _)| *of == minute).map(|(_, set)| set).or_else(|| held.get(minute));
        if let Some(set) = set {
            read ^= set.touch(&columns.identity[first..first + same]);
        }
        first += same;
    }
    // Else nothing would be read.
    std::hint::black_box(read);
}

/// Why a copy is kept. The id comes last: it is the client's, and may hold anything.
fn conflict(click_id: &[u8]) -> String {
    format!("{CONFLICT_OF}{}", String::from_utf8_lossy(click_id))
}

const FUTURE: &str = "click_timestamp: ahead of the clock by more than max_future_skew";

const LATE_FINAL: &str = "its minute is final";

const LATE_TOO_MANY: &str = "too_many_minutes: its minute cannot be held beside 4096 others";
