//! A partition: the unit of state and of commit.

mod end_epoch;

use crate::clock_guard::ClockReading;
use crate::deduplicate::{Deduplicate, MinuteSet, Probe};
use crate::frontier::{self, NEVER};
use crate::identity_set::TOUCHED_MAX;
use crate::inputs::{Asked, Blocked, Input, Inputs};
use crate::pending_batch::PendingBatch;
use crate::settings::{LIVE_MINUTES_MAX, TimeSettings};
use crate::tumbling_window::Windows;
use crate::{future, watermark};
use adtally_model::dead_letter::CONFLICT_OF;
use adtally_model::{
    ClickColumns, CountedClicks, DeadLetter, EpochNumber, Error, Frontiers, InputId, InputRow, InputStatus, Ledger,
    Minute, PartitionState, Result, Verdict,
};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// How long an input that has ended is kept as a row of its own after it was last seen: 30 days.
const GONE_AFTER_MS: i64 = 30 * 24 * 3_600_000;

/// Live minutes up to which an input with a backlog may run ahead while another has no watermark and nothing to read, and
/// lines that it may add at a time: together they stay within the bound on live minutes.
const BLOCKED_MINUTES_MAX: usize = LIVE_MINUTES_MAX / 2;

/// Why judging stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stopped {
    /// The batch is used up.
    BatchEnd,
    /// As many lines as were asked for.
    Quota,
    /// The input has to wait: it is too far ahead of others, or an epoch must end before it may go on.
    Aligned,
}

/// What judging a batch brought.
#[derive(Debug)]
pub struct Judged {
    /// The clicks that were counted, if any: for readers of uncommitted clicks.
    pub counted: Option<Arc<CountedClicks>>,
    /// Lines judged.
    pub lines: usize,
    /// Why it stopped.
    pub stopped: Stopped,
}

/// How a bounded run ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunEnd {
    /// It does not: an epoch among others.
    GoesOn,
    /// All inputs are read: every minute that has a counted click is closed.
    Close,
    /// The same, and they become final.
    Finalise,
}

/// The state of a partition and the epoch under construction.
#[derive(Debug)]
pub struct Partition {
    settings: TimeSettings,
    inputs: Inputs,
    held: Deduplicate,
    frontiers: Frontiers,
    epoch_frontiers: Frontiers,
    gone: Ledger,
    ledger: Ledger,
    newest_click_ms: Option<i64>,
    largest_guarded_ms: Option<i64>,
    bounded: bool,
    unopened: bool,
    releases_unopened: bool,
    reopened_from_ms: Option<i64>,
    observed: end_epoch::Observed,
    number: EpochNumber,
    next_input: u64,
    windows: Windows,
    expired_identities: BTreeMap<Minute, Vec<adtally_model::Identity>>,
    clicks: Vec<Arc<CountedClicks>>,
    dead_letters: Vec<DeadLetter>,
    lines: u64,
    bytes: u64,
    before: Vec<i64>,
    forgotten: Vec<InputId>,
}

impl Partition {
    /// Goes on from a folded state; the next epoch follows it.
    pub fn new(settings: TimeSettings, state: PartitionState) -> Self {
        let mut held = Deduplicate::default();
        for (minute, folded) in &state.live {
            held.restore(*minute, folded.begun, &folded.identities);
        }
        let mut inputs = Inputs::default();
        for mut row in state.inputs.into_values() {
            if row.status == InputStatus::Unreadable {
                // Perhaps this process can read it.
                Arc::make_mut(&mut row).status = InputStatus::Holding;
            }
            inputs.insert(Input::new(row));
        }
        Partition {
            settings,
            inputs,
            held,
            frontiers: state.frontiers,
            epoch_frontiers: state.frontiers,
            gone: state.gone,
            ledger: state.ledger,
            newest_click_ms: state.newest_click_ms,
            largest_guarded_ms: state.largest_guarded_ms,
            bounded: false,
            unopened: false,
            releases_unopened: false,
            reopened_from_ms: state.reopened_from_ms,
            observed: end_epoch::Observed::default(),
            number: state.number + 1,
            next_input: state.next_input,
            windows: Windows::default(),
            expired_identities: BTreeMap::new(),
            clicks: Vec::new(),
            dead_letters: Vec::new(),
            lines: 0,
            bytes: 0,
            before: Vec::new(),
            forgotten: Vec::new(),
        }
    }

    /// The run ends with its inputs: while one of them cannot be read, nothing becomes final.
    pub fn set_bounded(&mut self) {
        self.bounded = true;
    }

    /// A bug, for the simulation to find: inputs that have no watermark are released as well.
    #[doc(hidden)]
    pub fn release_unopened(&mut self) {
        self.releases_unopened = true;
    }

    /// How long an input may stand still or fail before the partition goes on without it, in milliseconds.
    pub fn idle_timeout_ms(&self) -> i64 {
        self.settings.idle_timeout_ms
    }

    /// The inputs.
    pub fn inputs(&self) -> &Inputs {
        &self.inputs
    }

    /// Progress so far, uncommitted lines included.
    pub fn frontiers(&self) -> &Frontiers {
        &self.frontiers
    }

    /// The partition's lines by verdict so far, uncommitted ones included.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Identities held, and live minutes.
    pub fn held(&self) -> (usize, usize) {
        (self.held.held(), self.held.minutes())
    }

    /// Lines and bytes of the epoch so far.
    pub fn epoch_size(&self) -> (u64, u64) {
        (self.lines, self.bytes)
    }

    /// Pieces of blocks whose clicks the epoch holds so far.
    pub fn epoch_pieces(&self) -> usize {
        self.clicks.len()
    }

    /// Event time of the newest click counted.
    pub fn newest_click_ms(&self) -> Option<i64> {
        self.newest_click_ms
    }

    /// Whether the watermark has passed a minute's end since the epoch began.
    pub fn passed_a_minute(&self) -> bool {
        let minute = |frontiers: &Frontiers| frontiers.watermark.get().map(Minute::of);
        minute(&self.frontiers) != minute(&self.epoch_frontiers)
    }

    /// An input appears, or comes back after it was gone. Takes effect now: call it at an epoch boundary only.
    pub fn add_input(&mut self, mut row: InputRow, now: &ClockReading) {
        row.time.advanced_at_ms = now.guarded_ms;
        row.seen_at_ms = now.guarded_ms;
        self.next_input = self.next_input.max(row.id.0 + 1);
        let mut input = Input::new(Arc::new(row));
        input.touch();
        input.asked = Asked::Backlog;
        self.inputs.insert(input);
    }

    /// An input goes on after it had ended, or was found again.
    pub fn resume_input(&mut self, id: InputId) {
        self.inputs.resume(id);
    }

    /// An input has ended: it holds nothing any more.
    pub fn end_input(&mut self, id: InputId) {
        self.inputs.end(id);
    }

    /// What the source knows of an input changed: its name, fingerprint and size.
    pub fn describe_input(&mut self, id: InputId, describe: impl FnOnce(&mut InputRow)) {
        self.inputs.change(id, |input| {
            let before = Arc::clone(&input.row.name);
            describe(input.row_mut());
            if input.row.name != before {
                input.touch();
            }
        });
    }

    /// Bytes of an input can never be read.
    pub fn book_gap(&mut self, id: InputId, bytes: u64) {
        let booked = self.inputs.change(id, |input| {
            input.touch().ledger.gap_bytes += bytes;
        });
        if booked.is_some() {
            self.ledger.gap_bytes += bytes;
        }
    }

    /// An input was seen at its end, everything before it judged; `modified_ms` is when it was last written, in
    /// milliseconds of the wall clock, where that is known.
    pub fn note_at_end(&mut self, id: InputId, modified_ms: Option<i64>, now: &ClockReading) {
        self.inputs.change(id, |input| input.note_at_end(now, modified_ms, &self.settings));
    }

    /// An input that was found at its end will be so until its source tells of something new: it need not be noted at its
    /// end again while [`Partition::note_watched`] is called.
    pub fn note_quiet(&mut self, id: InputId) {
        self.inputs.change(id, |input| input.quiet = input.asked == Asked::AtEnd);
    }

    /// The source watches the quiet inputs: they are at their end now.
    pub fn note_watched(&mut self, now: &ClockReading) {
        self.inputs.note_watched(now.guarded_ms);
    }

    /// An input has more to read, or waits for its turn to be opened.
    pub fn note_backlog(&mut self, id: InputId) {
        self.inputs.change(id, |input| input.note(Asked::Backlog));
    }

    /// An input could not be opened or read just now. After `idle_timeout` a live run does not wait for it any more.
    pub fn note_unreadable(&mut self, id: InputId, now: &ClockReading) {
        self.inputs.change(id, |input| input.note_unreadable(now.guarded_ms));
    }

    /// Whether an input could not be opened or read for `idle_timeout`.
    pub fn is_given_up(&self, id: InputId, now: &ClockReading) -> bool {
        self.inputs.get(id).is_some_and(|input| input.is_given_up(now.guarded_ms, &self.settings))
    }

    /// Sets whether files are there that could not be opened, so that they are no inputs yet. From the next epoch on they
    /// hold the watermark like inputs that have none.
    pub fn note_unopened(&mut self, unopened: bool) {
        self.unopened = unopened;
    }

    /// The least watermark over the inputs that hold and have one: whoever has it is the one that others wait for.
    pub fn least_holding_watermark(&self) -> Option<i64> {
        self.inputs.least_with_watermark(frontier::ms(self.frontiers.final_), &self.settings, None)
    }

    /// Where an input's watermark must not be beyond for its next line to be judged.
    fn alignment_limit(&self, id: InputId, now: &ClockReading) -> i64 {
        let Some(input) = self.inputs.get(id) else { return i64::MAX };
        let final_ms = frontier::ms(self.frontiers.final_);
        // While no frontier moves nothing expires, and what is held is bounded. An idle input moves none until an epoch
        // has ended, where it holds again.
        let many_minutes = self.held.minutes() >= BLOCKED_MINUTES_MAX;
        if input.row.status == InputStatus::Idle && many_minutes {
            return watermark::NONE;
        }
        if self.inputs.at_end_lately(id, now.guarded_ms, &self.settings) {
            return i64::MAX;
        }
        match self.inputs.blocked_by(id) {
            Some(Blocked::ByBacklog) => return watermark::NONE,
            Some(Blocked::Otherwise) if many_minutes || self.is_full() => return watermark::NONE,
            Some(Blocked::Otherwise) | None => {}
        }
        let least = self.inputs.least_with_watermark(final_ms, &self.settings, Some(id));
        least.map_or(i64::MAX, |least| least.saturating_add(self.settings.alignment_ms))
    }

    /// Whether every input with a backlog has to wait for lines that none of them can deliver.
    pub fn is_stuck(&self) -> bool {
        self.inputs.lines_are_missing() && (self.held.minutes() >= BLOCKED_MINUTES_MAX || self.is_full())
    }

    /// Whether as many identities are held as should be.
    fn is_full(&self) -> bool {
        self.held.held() >= self.settings.dedup_capacity
    }

    /// Judges lines of a batch until its end, until its input has to wait, or until `lines_max` clicks.
    ///
    /// # Errors
    /// An internal error when the batch does not begin where its input stands.
    pub fn judge(&mut self, batch: &mut PendingBatch, now: &ClockReading, lines_max: usize) -> Result<Judged> {
        let limit = self.alignment_limit(batch.input, now);
        let final_ms = frontier::ms(self.frontiers.final_);
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
        frontier::follow_watermark(&mut self.frontiers, &self.inputs, &self.settings);
        self.expire();
        Ok(Judged { counted, lines: rows, stopped })
    }

    /// Forgets minutes behind the expired frontier, keeping what the epoch has yet to record.
    fn expire(&mut self) {
        for (minute, added) in self.held.expire(frontier::ms(self.frontiers.expired)) {
            self.expired_identities.entry(minute).or_default().extend(added);
        }
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
            (frontier::ms(self.frontiers.final_), frontier::ms(self.frontiers.expired));
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
        (!self.held.is_full()).then(|| self.held.begin(minute, self.number))
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
                if self.newest_click_ms.is_none_or(|newest| newest < event_time) {
                    self.newest_click_ms = Some(event_time);
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
        self.ledger += tally;
        self.lines += tally.read;
        self.bytes += bytes;
        self.largest_guarded_ms = self.largest_guarded_ms.max(largest);
        Ok(())
    }

    /// Whether an input with a backlog has to wait for others now.
    pub fn must_wait(&self, id: InputId, now: &ClockReading) -> bool {
        let limit = self.alignment_limit(id, now);
        self.inputs.get(id).is_some_and(|input| input.watermark(&self.settings) > limit)
    }

    /// The watermark of an input, if it has one.
    pub fn watermark_of(&self, id: InputId) -> Option<i64> {
        let watermark = self.inputs.get(id)?.watermark(&self.settings);
        (watermark != watermark::NONE).then_some(watermark)
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
