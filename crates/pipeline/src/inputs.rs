//! The inputs of a partition: which of them hold its watermark.

use crate::clock_guard::ClockReading;
use crate::settings::TimeSettings;
use crate::watermark;
use adtally_model::{InputId, InputRow, InputStatus, Ledger};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[cfg(test)]
mod tests;

/// One input and what is known of it in this process.
#[derive(Debug)]
pub struct Input {
    /// What the last epoch recorded of it; once it is touched, what the next one records. It is shared with whoever keeps
    /// what was recorded, until it changes.
    pub row: Arc<InputRow>,
    /// When it was last seen, by the guarded clock: see [`InputRow::seen_at_ms`].
    pub(crate) seen_at_ms: i64,
    /// When it was last seen at its end, by the guarded clock.
    pub at_end_at_ms: Option<i64>,
    /// What was found when it was last asked for lines.
    pub asked: Asked,
    /// Since when it cannot be read, by the guarded clock.
    unreadable_since_ms: Option<i64>,
    /// Whether it was last written so long before its end was first reached that it is idle without a wait.
    idle_at_once: bool,
    /// Whether it is at its end as long as its source tells nothing else: see [`Inputs::note_watched`].
    pub(crate) quiet: bool,
    /// Whether the next epoch must record it.
    touched: bool,
}

/// What was found when an input was last asked for lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// This process has not asked yet.
    NotYet,
    /// There is more to read.
    Backlog,
    /// It was at its end.
    AtEnd,
    /// It could not be opened or read: it may hold lines.
    Unreadable,
}

/// Another input that holds the watermark without having one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Blocker {
    /// It has lines to be read: it will have a watermark soon.
    WithBacklog,
    /// It is at its end, or it cannot be read: it will have one when more comes, or stop holding after `idle_timeout`.
    WithoutLines,
}

/// What inputs mean that cannot be read, where all have to be idle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unreadable {
    /// They are not idle.
    NotIdle,
    /// The others are what counts.
    LeftOut,
}

/// All inputs of a partition.
#[derive(Debug, Default)]
pub struct Inputs {
    /// Boxed: nodes of the map are half empty where inputs came one after another.
    inputs: BTreeMap<InputId, Box<Input>>,
    /// Those that have not ended: every rotated file leaves an ended one behind.
    active: BTreeSet<InputId>,
    /// Those of status [`InputStatus::Holding`] by their largest event time ([`watermark::NONE`] before there is one),
    /// so that questions about the least of them do not walk all.
    holding: BTreeSet<(i64, InputId)>,
    /// How many of these have no watermark and a backlog.
    backlogged: usize,
    /// When the source last watched the quiet ones, by the guarded clock.
    watched_at_ms: Option<i64>,
    /// Whether there are lines that no input can deliver just now: they hold the watermark like an input without one.
    lines_missing: bool,
}

/// The key of an input among those that hold, if its status says so.
fn holding_key(row: &InputRow) -> Option<(i64, InputId)> {
    (row.status == InputStatus::Holding).then(|| (row.time.largest_ms.unwrap_or(watermark::NONE), row.id))
}

/// Whether an input holds without a watermark and has lines to be read.
fn is_backlogged(input: &Input) -> bool {
    input.asked == Asked::Backlog && holding_key(&input.row).is_some_and(|(largest, _)| largest == watermark::NONE)
}

impl Input {
    /// An input as an epoch recorded it.
    pub(crate) fn new(row: Arc<InputRow>) -> Self {
        Input {
            seen_at_ms: row.seen_at_ms,
            row,
            at_end_at_ms: None,
            asked: Asked::NotYet,
            unreadable_since_ms: None,
            idle_at_once: false,
            quiet: false,
            touched: false,
        }
    }

    /// Whether the next epoch must record it.
    pub fn is_touched(&self) -> bool {
        self.touched
    }

    /// The next epoch must record it: its position goes on from where the last one left it.
    pub(crate) fn touch(&mut self) -> &mut InputRow {
        if !self.touched {
            self.touched = true;
            self.begin_position();
        }
        Arc::make_mut(&mut self.row)
    }

    /// What is recorded of it next; not a reason to record it.
    pub(crate) fn row_mut(&mut self) -> &mut InputRow {
        Arc::make_mut(&mut self.row)
    }

    /// Its position goes on from where the last epoch left it.
    fn begin_position(&mut self) {
        let next = self.row.position.next();
        if self.row.position != next {
            Arc::make_mut(&mut self.row).position = next;
        }
    }

    /// What an epoch records of it.
    fn record(&mut self) -> Arc<InputRow> {
        if !self.touched {
            self.begin_position();
        }
        if self.row.seen_at_ms != self.seen_at_ms {
            Arc::make_mut(&mut self.row).seen_at_ms = self.seen_at_ms;
        }
        Arc::clone(&self.row)
    }

    /// Notes what was found when it was asked for lines.
    pub(crate) fn note(&mut self, asked: Asked) {
        (self.asked, self.quiet) = (asked, false);
        if asked != Asked::Unreadable {
            self.unreadable_since_ms = None;
        }
        if asked == Asked::Backlog {
            self.idle_at_once = false;
        }
    }

    /// Notes that everything of it is judged and it is at its end; `modified_ms` is when it was last written, by the wall
    /// clock. One that was written long before its end was first reached will hardly be written now; if it is, the
    /// ordinary rule holds from then on. A clock that disagrees says nothing.
    pub(crate) fn note_at_end(&mut self, now: &ClockReading, modified_ms: Option<i64>, settings: &TimeSettings) {
        self.note(Asked::AtEnd);
        let is_old = |modified_ms: i64| now.wall_ms.saturating_sub(modified_ms) > settings.idle_timeout_ms;
        if self.at_end_at_ms.is_none() {
            self.idle_at_once = now.agrees && modified_ms.is_some_and(is_old);
        }
        self.at_end_at_ms = Some(now.guarded_ms);
        self.seen_at_ms = now.guarded_ms;
    }

    /// Notes that it could not be opened or read.
    pub(crate) fn note_unreadable(&mut self, now_ms: i64) {
        self.note(Asked::Unreadable);
        self.unreadable_since_ms.get_or_insert(now_ms);
    }

    /// Whether it could not be opened or read for `idle_timeout`.
    pub(crate) fn is_given_up(&self, now_ms: i64, settings: &TimeSettings) -> bool {
        self.unreadable_since_ms.is_some_and(|since| now_ms - since >= settings.idle_timeout_ms)
    }

    /// Its watermark, or [`watermark::NONE`].
    pub(crate) fn watermark(&self, settings: &TimeSettings) -> i64 {
        watermark::of(&self.row.time, settings)
    }

    /// Whether it was at its end within `idle_timeout`; `watched_ms` is when the quiet ones were last watched.
    fn at_end_lately(&self, now_ms: i64, watched_ms: Option<i64>, settings: &TimeSettings) -> bool {
        let at = self.at_end_at_ms.max(watched_ms.filter(|_| self.quiet));
        at.is_some_and(|at| now_ms - at <= settings.idle_timeout_ms)
    }

    /// Whether it is idle at a moment: at its end lately, and its watermark has stood still for `idle_timeout`, or its file
    /// has since before its end was first reached.
    fn is_idle(&self, now_ms: i64, watched_ms: Option<i64>, settings: &TimeSettings) -> bool {
        let stood_still = now_ms - self.row.time.advanced_at_ms >= settings.idle_timeout_ms;
        self.at_end_lately(now_ms, watched_ms, settings) && (stood_still || self.idle_at_once)
    }

    /// Whether it holds the partition's watermark, given the final frontier.
    pub(crate) fn holds(&self, final_ms: i64, settings: &TimeSettings) -> bool {
        let own = self.watermark(settings);
        self.row.status == InputStatus::Holding && (own == watermark::NONE || own >= final_ms)
    }

    /// Whether it has a watermark and that lies before another.
    fn lies_before(&self, watermark_ms: i64, settings: &TimeSettings) -> bool {
        let own = self.watermark(settings);
        own != watermark::NONE && own < watermark_ms
    }

    /// Changes its status, to be recorded by the next epoch.
    fn set_status(&mut self, status: InputStatus) {
        if self.row.status != status {
            self.touch().status = status;
        }
    }
}

impl Inputs {
    /// Adds or replaces an input.
    pub(crate) fn insert(&mut self, input: Input) {
        let id = input.row.id;
        self.remove(id);
        self.holding.extend(holding_key(&input.row));
        self.backlogged += usize::from(is_backlogged(&input));
        if input.row.status != InputStatus::Ended {
            self.active.insert(id);
        }
        self.inputs.insert(id, Box::new(input));
    }

    fn remove(&mut self, id: InputId) -> Option<Input> {
        let input = self.inputs.remove(&id)?;
        self.active.remove(&id);
        self.backlogged -= usize::from(is_backlogged(&input));
        if let Some(key) = holding_key(&input.row) {
            self.holding.remove(&key);
        }
        Some(*input)
    }

    /// Changes an input in any way, its status and its event time included.
    pub(crate) fn change<T>(&mut self, id: InputId, change: impl FnOnce(&mut Input) -> T) -> Option<T> {
        let input = self.inputs.get_mut(&id)?;
        let before = holding_key(&input.row);
        self.backlogged -= usize::from(is_backlogged(input));
        let result = change(input);
        self.backlogged += usize::from(is_backlogged(input));
        let after = holding_key(&input.row);
        if before != after {
            if let Some(key) = before {
                self.holding.remove(&key);
            }
            self.holding.extend(after);
        }
        if input.row.status == InputStatus::Ended {
            self.active.remove(&id);
        } else {
            self.active.insert(id);
        }
        Some(result)
    }

    /// Lets lines move the guarded event time of an input, up to the first before which its watermark is beyond `limit_ms`.
    /// Returns its watermark before each of them; see [`watermark::scan`].
    pub(crate) fn watermarks_before(
        &mut self,
        id: InputId,
        event_time_ms: &[i64],
        future_ms: i64,
        limit_ms: i64,
        now: &ClockReading,
        settings: &TimeSettings,
    ) -> Vec<i64> {
        let watermarks = self.change(id, |input| {
            let mut time = input.row.time;
            let watermarks = watermark::scan(&mut time, event_time_ms, future_ms, limit_ms, settings);
            if watermark::of(&time, settings) > input.watermark(settings) {
                time.advanced_at_ms = now.guarded_ms;
            }
            // A row that stays as it was recorded stays shared.
            if time != input.row.time {
                input.row_mut().time = time;
            }
            watermarks
        });
        watermarks.unwrap_or_default()
    }

    /// The source watches the inputs that are quiet and would have told of anything new: they are at their end now.
    pub(crate) fn note_watched(&mut self, now_ms: i64) {
        self.watched_at_ms = Some(now_ms);
    }

    /// Whether an input was at its end within `idle_timeout`.
    pub(crate) fn at_end_lately(&self, id: InputId, now_ms: i64, settings: &TimeSettings) -> bool {
        self.get(id).is_some_and(|input| input.at_end_lately(now_ms, self.watched_at_ms, settings))
    }

    /// An input has ended.
    pub(crate) fn end(&mut self, id: InputId) {
        self.change(id, |input| {
            input.note(Asked::AtEnd);
            input.set_status(InputStatus::Ended);
        });
    }

    /// An input that had ended goes on.
    pub(crate) fn resume(&mut self, id: InputId) {
        self.change(id, |input| {
            input.note(Asked::Backlog);
            if input.row.status == InputStatus::Ended {
                input.set_status(InputStatus::Holding);
            }
        });
    }

    /// Those that have not ended.
    pub(crate) fn active(&self) -> impl Iterator<Item = &Input> {
        self.active.iter().filter_map(|id| self.inputs.get(id).map(Box::as_ref))
    }

    /// One input.
    pub fn get(&self, id: InputId) -> Option<&Input> {
        self.inputs.get(&id).map(Box::as_ref)
    }

    /// All of them, by number.
    pub fn iter(&self) -> impl Iterator<Item = &Input> {
        self.inputs.values().map(Box::as_ref)
    }

    /// What an epoch records of those that were touched, or of all; a new epoch begins, in which none is.
    pub(crate) fn record(&mut self, all: bool) -> Vec<Arc<InputRow>> {
        let recorded = self.inputs.values_mut().filter(|input| all || input.touched);
        let rows = recorded.map(|input| {
            let row = input.record();
            input.touched = false;
            row
        });
        rows.collect()
    }

    /// Removes those that `gone` says, and returns the sum of their ledgers and who they were.
    pub(crate) fn remove_where(&mut self, gone: impl Fn(&Input) -> bool) -> (Ledger, Vec<InputId>) {
        let ids: Vec<InputId> = self.inputs.values().filter(|input| gone(input)).map(|input| input.row.id).collect();
        let mut sum = Ledger::default();
        for &id in &ids {
            if let Some(input) = self.remove(id) {
                sum += &input.row.ledger;
            }
        }
        (sum, ids)
    }

    /// The least watermark over the inputs that hold: `None` while one of them has none, or none holds.
    pub(crate) fn least_watermark(&self, final_ms: i64, settings: &TimeSettings) -> Option<i64> {
        let least = self.least_holding(final_ms, settings, None)?;
        (least != watermark::NONE).then_some(least)
    }

    /// The least watermark over the inputs that hold, one left out: [`watermark::NONE`] where one has none.
    pub(crate) fn least_holding(&self, final_ms: i64, settings: &TimeSettings, but: Option<InputId>) -> Option<i64> {
        match self.without_watermark(but).next() {
            _ if self.lines_missing => Some(watermark::NONE),
            Some(_) => Some(watermark::NONE),
            None => self.least_with_watermark(final_ms, settings, but),
        }
    }

    /// The least watermark over the inputs that hold and have one, one left out.
    pub(crate) fn least_with_watermark(
        &self,
        final_ms: i64,
        settings: &TimeSettings,
        but: Option<InputId>,
    ) -> Option<i64> {
        let from = (final_ms.saturating_add(settings.out_of_orderness_ms).max(watermark::NONE + 1), InputId(0));
        let (largest, _) = self.holding.range(from..).find(|(_, id)| Some(*id) != but)?;
        Some(largest - settings.out_of_orderness_ms)
    }

    /// The largest watermark over the inputs that hold and, being at their ends, wait for nobody.
    pub(crate) fn most_watermark_at_end(&self, now_ms: i64, settings: &TimeSettings) -> Option<i64> {
        let with_watermark = self.holding.iter().rev().take_while(|(largest, _)| *largest != watermark::NONE);
        let mut at_end = with_watermark.filter(|(_, id)| self.at_end_lately(*id, now_ms, settings));
        at_end.next().map(|(largest, _)| largest - settings.out_of_orderness_ms)
    }

    /// Sets whether there are lines that no input can deliver just now.
    pub(crate) fn set_lines_missing(&mut self, lines_missing: bool) {
        self.lines_missing = lines_missing;
    }

    /// Whether there are lines that no input can deliver just now.
    pub(crate) fn lines_are_missing(&self) -> bool {
        self.lines_missing
    }

    /// Whether there are inputs of status [`InputStatus::Unreadable`].
    pub(crate) fn has_unreadable(&self) -> bool {
        self.active().any(|input| input.row.status == InputStatus::Unreadable)
    }

    fn without_watermark(&self, but: Option<InputId>) -> impl Iterator<Item = InputId> {
        let none = (watermark::NONE, InputId(0))..=(watermark::NONE, InputId(u64::MAX));
        self.holding.range(none).map(|(_, id)| *id).filter(move |id| Some(*id) != but)
    }

    /// What other than `id` holds without a watermark.
    pub(crate) fn blocker_of(&self, id: InputId) -> Option<Blocker> {
        let own = self.get(id).is_some_and(is_backlogged);
        if self.backlogged > usize::from(own) {
            return Some(Blocker::WithBacklog);
        }
        (self.lines_missing || self.without_watermark(Some(id)).next().is_some()).then_some(Blocker::WithoutLines)
    }

    /// Decides anew, at an epoch boundary, which inputs are idle, released or given up as unreadable.
    pub(crate) fn review(&mut self, now_ms: i64, partition_ms: i64, settings: &TimeSettings) {
        let watched = self.watched_at_ms;
        // Of very many inputs most are idle and stay so.
        let stays = |input: &&Input| {
            input.row.status == InputStatus::Idle && input.quiet && input.is_idle(now_ms, watched, settings)
        };
        let ids: Vec<InputId> = self.active().filter(|input| !stays(input)).map(|input| input.row.id).collect();
        for id in ids {
            self.change(id, |input| {
                let status = match input.row.status {
                    InputStatus::Ended => InputStatus::Ended,
                    _ if input.is_given_up(now_ms, settings) => InputStatus::Unreadable,
                    InputStatus::Released if input.lies_before(partition_ms, settings) => InputStatus::Released,
                    _ if input.is_idle(now_ms, watched, settings) => InputStatus::Idle,
                    _ => InputStatus::Holding,
                };
                input.set_status(status);
            });
        }
    }

    /// The inputs that hold the partition at `watermark_ms`, which is not [`watermark::NONE`], hold it no more.
    pub(crate) fn release(&mut self, watermark_ms: i64, final_ms: i64, settings: &TimeSettings) {
        let ids: Vec<InputId> = self
            .active()
            .filter(|input| input.holds(final_ms, settings) && input.watermark(settings) == watermark_ms)
            .map(|input| input.row.id)
            .collect();
        for id in ids {
            self.change(id, |input| input.set_status(InputStatus::Released));
        }
    }

    /// Since when every input that has not ended is idle, a released one included if it is quiet; where all have ended,
    /// since the last of them did not advance any more. `None` while one is not idle, or there is none. Those that cannot
    /// be read are not idle; they are left out of account where `unreadable` says so, unless there are no others.
    pub(crate) fn all_idle_since_ms(
        &self,
        now_ms: i64,
        unreadable: Unreadable,
        settings: &TimeSettings,
    ) -> Option<i64> {
        let idle = |input: &Input| match input.row.status {
            InputStatus::Idle | InputStatus::Ended => true,
            InputStatus::Released => input.is_idle(now_ms, self.watched_at_ms, settings),
            InputStatus::Unreadable => unreadable == Unreadable::LeftOut,
            InputStatus::Holding => false,
        };
        let is_left_out = |input: &Input| input.row.status == InputStatus::Unreadable;
        let since = |input: &Input| input.row.time.advanced_at_ms.saturating_add(settings.idle_timeout_ms);
        if self.lines_missing || !self.active().all(idle) {
            return None;
        }
        match self.active().filter(|input| !is_left_out(input)).map(since).max() {
            Some(last) => Some(last),
            None if self.active.is_empty() => self.iter().map(since).max(),
            None => None,
        }
    }

    /// Whether there are inputs and all have ended.
    pub fn all_ended(&self) -> bool {
        !self.inputs.is_empty() && self.active.is_empty()
    }

    /// The least watermark of the holding inputs that are known to have a backlog; what was known `before` stands
    /// until each input was asked once.
    pub(crate) fn reopened_from_ms(&self, before: Option<i64>, final_ms: i64, settings: &TimeSettings) -> Option<i64> {
        let unasked = self.active().any(|input| input.asked == Asked::NotYet);
        let behind = self
            .active()
            .filter(|input| {
                matches!(input.asked, Asked::Backlog | Asked::Unreadable) && input.holds(final_ms, settings)
            })
            .map(|input| input.watermark(settings))
            .filter(|&watermark| watermark != watermark::NONE);
        behind.chain(before.filter(|_| unasked)).min()
    }
}
