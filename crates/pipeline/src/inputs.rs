//! The inputs of a partition: which of them hold its watermark.

use crate::clock_guard::ClockReading;
use crate::settings::TimeSettings;
use crate::watermark;
use adtally_model::{InputId, InputRow, InputStatus, Ledger, RecordTime};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

mod input;
#[cfg(test)]
mod tests;

pub(crate) use input::{Asked, Input};

/// Another input that holds the watermark although it has none itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Blocker {
    /// It has lines to read, so it will soon have a watermark.
    WithBacklog,
    /// It is at its end or unreadable: it gets a watermark with its next lines, or stops holding after `idle_timeout`.
    WithoutLines,
}

/// How unreadable inputs count when all inputs must be idle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Unreadable {
    /// They count as not idle.
    NotIdle,
    /// They are ignored.
    LeftOut,
}

/// All inputs of a partition.
#[derive(Debug, Default)]
pub struct Inputs {
    /// Boxed, because nodes of the map are half empty when inputs are added in order.
    inputs: BTreeMap<InputId, Box<Input>>,
    /// Inputs that have not ended. Every rotated file leaves an ended one behind.
    active: BTreeSet<InputId>,
    /// Inputs of status [`InputStatus::Holding`] by largest event time ([`watermark::NONE`] before there is one), to
    /// find the least without visiting all inputs.
    holding: BTreeSet<(i64, InputId)>,
    /// Number of holding inputs without a watermark that have a backlog.
    backlogged: usize,
    /// When the source last watched the quiet inputs, by the guarded clock.
    watched_at_ms: Option<i64>,
    /// Whether there are lines that no input can deliver now. They hold the watermark like an input without one.
    lines_missing: bool,
    /// The lane that all inputs share; `None` if each input has its own.
    shared_lane: Option<SharedLane>,
}

/// A lane with the lines of all inputs, such as a Kafka partition.
#[derive(Clone, Copy, Debug)]
struct SharedLane {
    /// The result of the last request for lines.
    asked: Asked,
    /// Since when it has continuously been at its end, by the guarded clock.
    at_end_since_ms: Option<i64>,
}

/// The key of an input in `holding`, if it has that status.
fn holding_key(row: &InputRow) -> Option<(i64, InputId)> {
    (row.status == InputStatus::Holding).then(|| (row.time.largest_ms.unwrap_or(watermark::NONE), row.id))
}

/// Whether an input holds without a watermark and has lines to read.
fn is_backlogged(input: &Input) -> bool {
    input.asked == Asked::Backlog && holding_key(&input.row).is_some_and(|(largest, _)| largest == watermark::NONE)
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
        let mut input = Box::new(input);
        input.quiet |= self.shared_lane.is_some();
        self.inputs.insert(id, input);
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

    /// Changes an input in any way, including its status and event time.
    pub(crate) fn change<T>(&mut self, id: InputId, change: impl FnOnce(&mut Input) -> T) -> Option<T> {
        let input = self.inputs.get_mut(&id)?;
        let before = holding_key(&input.row);
        self.backlogged -= usize::from(is_backlogged(input));
        let result = change(input);
        input.quiet |= self.shared_lane.is_some();
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

    /// Moves the guarded event time of an input by lines, up to the first line before which its watermark is beyond
    /// `limit_ms`. Returns its watermark before each line; see [`watermark::scan`].
    pub(crate) fn watermarks_before(
        &mut self,
        (id, by): (InputId, RecordTime),
        event_time_ms: &[i64],
        future_ms: i64,
        limit_ms: i64,
        now: &ClockReading,
        settings: &TimeSettings,
    ) -> Vec<i64> {
        let watermarks = self.change(id, |input| {
            let mut time = input.row.time;
            let watermarks = match by {
                RecordTime::Guarded => watermark::scan(&mut time, event_time_ms, future_ms, limit_ms, settings),
                RecordTime::Stamped(stamp_ms) => {
                    watermark::take(&mut time, stamp_ms, future_ms, settings);
                    vec![watermark::of(&time, settings); event_time_ms.len()]
                }
            };
            if watermark::of(&time, settings) > input.watermark(settings) {
                time.advanced_at_ms = now.guarded_ms;
            }
            // A row that is unchanged since it was recorded remains shared.
            if time != input.row.time {
                input.row_mut().time = time;
            }
            watermarks
        });
        watermarks.unwrap_or_default()
    }

    /// The source watches the quiet inputs and would have reported any news: they are at their end now.
    pub(crate) fn note_watched(&mut self, now_ms: i64) {
        self.watched_at_ms = Some(now_ms);
    }

    /// Declares that all inputs share one lane.
    pub(crate) fn share_lane(&mut self) {
        self.shared_lane = Some(SharedLane { asked: Asked::NotYet, at_end_since_ms: None });
        self.inputs.values_mut().for_each(|input| input.quiet = true);
    }

    /// Notes the result of asking the shared lane for lines. If it is at its end, so are all inputs.
    pub(crate) fn note_shared_lane(&mut self, asked: Asked, now_ms: i64) {
        let since = self.shared_lane.and_then(|lane| lane.at_end_since_ms);
        let is_at_end = asked == Asked::AtEnd;
        let at_end_since_ms = is_at_end.then(|| since.unwrap_or(now_ms));
        self.shared_lane = Some(SharedLane { asked, at_end_since_ms });
        if is_at_end {
            self.watched_at_ms = Some(now_ms);
        }
    }

    /// The result of last asking an input, or the shared lane, for lines.
    fn asked(&self, input: &Input) -> Asked {
        self.shared_lane.map_or(input.asked, |lane| lane.asked)
    }

    /// Whether an input was at its end within `idle_timeout`.
    pub(crate) fn at_end_lately(&self, id: InputId, now_ms: i64, settings: &TimeSettings) -> bool {
        self.get(id).is_some_and(|input| input.at_end_lately(now_ms, self.watched_at_ms, settings))
    }

    /// Marks an input as ended.
    pub(crate) fn end(&mut self, id: InputId) {
        self.change(id, |input| {
            input.note(Asked::AtEnd);
            input.set_status(InputStatus::Ended);
        });
    }

    /// Marks an ended input as continuing.
    pub(crate) fn resume(&mut self, id: InputId) {
        self.change(id, |input| {
            input.note(Asked::Backlog);
            if input.row.status == InputStatus::Ended {
                input.set_status(InputStatus::Holding);
            }
        });
    }

    /// Inputs that have not ended.
    pub(crate) fn active(&self) -> impl Iterator<Item = &Input> {
        self.active.iter().filter_map(|id| self.inputs.get(id).map(Box::as_ref))
    }

    /// One input.
    pub fn get(&self, id: InputId) -> Option<&Input> {
        self.inputs.get(&id).map(Box::as_ref)
    }

    /// All inputs, by number.
    pub fn iter(&self) -> impl Iterator<Item = &Input> {
        self.inputs.values().map(Box::as_ref)
    }

    /// The rows for an epoch to record: of touched inputs, or of `all`. Then begins a new epoch without touched inputs.
    pub(crate) fn record(&mut self, all: bool) -> Vec<Arc<InputRow>> {
        let recorded = self.inputs.values_mut().filter(|input| all || input.touched);
        let rows = recorded.map(|input| {
            let row = input.record();
            input.touched = false;
            row
        });
        rows.collect()
    }

    /// Removes the inputs for which `gone` is true. Returns the sum of their ledgers, and their numbers.
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

    /// The least watermark of the holding inputs; `None` if one of them has no watermark, or if no input holds.
    pub(crate) fn least_watermark(&self, final_ms: i64, settings: &TimeSettings) -> Option<i64> {
        let least = self.least_holding(final_ms, settings, None)?;
        (least != watermark::NONE).then_some(least)
    }

    /// The least watermark of the holding inputs except `but`; [`watermark::NONE`] if one of them has no watermark.
    pub(crate) fn least_holding(&self, final_ms: i64, settings: &TimeSettings, but: Option<InputId>) -> Option<i64> {
        match self.without_watermark(but).next() {
            _ if self.lines_missing => Some(watermark::NONE),
            Some(_) => Some(watermark::NONE),
            None => self.least_with_watermark(final_ms, settings, but),
        }
    }

    /// The least watermark of the holding inputs that have one, except `but`.
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

    /// The largest watermark of the holding inputs that never wait: those at their end, and all that share a lane.
    pub(crate) fn most_watermark_unaligned(&self, now_ms: i64, settings: &TimeSettings) -> Option<i64> {
        let with_watermark = self.holding.iter().rev().take_while(|(largest, _)| *largest != watermark::NONE);
        let is_unaligned = |id| self.shared_lane.is_some() || self.at_end_lately(id, now_ms, settings);
        let mut unaligned = with_watermark.filter(|(_, id)| is_unaligned(*id));
        unaligned.next().map(|(largest, _)| largest - settings.out_of_orderness_ms)
    }

    /// Sets whether there are lines that no input can deliver now.
    pub(crate) fn set_lines_missing(&mut self, lines_missing: bool) {
        self.lines_missing = lines_missing;
    }

    /// Whether there are lines that no input can deliver now.
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

    /// The blocker other than `id`: an input that holds without a watermark.
    pub(crate) fn blocker_of(&self, id: InputId) -> Option<Blocker> {
        let own = self.get(id).is_some_and(is_backlogged);
        if self.backlogged > usize::from(own) {
            return Some(Blocker::WithBacklog);
        }
        (self.lines_missing || self.without_watermark(Some(id)).next().is_some()).then_some(Blocker::WithoutLines)
    }

    /// Decides again, at an epoch boundary, which inputs are idle, released or given up as unreadable.
    pub(crate) fn review(&mut self, now_ms: i64, partition_ms: i64, settings: &TimeSettings) {
        let watched = self.watched_at_ms;
        // With very many inputs, most are idle and stay idle.
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

    /// Releases the inputs that hold the partition at `watermark_ms`, which is not [`watermark::NONE`].
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

    /// Since when all inputs that have not ended are idle; a released input must be quiet, too. If all have ended,
    /// since the last advance of any of them. `None` if an input is not idle, or if there is none. Unreadable inputs
    /// are not idle; `unreadable` may leave them out, unless there are no other inputs.
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
            None if self.inputs.is_empty() => {
                let at_end_since_ms = self.shared_lane?.at_end_since_ms?;
                Some(at_end_since_ms.saturating_add(settings.idle_timeout_ms)).filter(|&since| since <= now_ms)
            }
            None if self.active.is_empty() => self.iter().map(since).max(),
            None => None,
        }
    }

    /// Whether there are inputs and all have ended.
    pub fn all_ended(&self) -> bool {
        !self.inputs.is_empty() && self.active.is_empty()
    }

    /// The least watermark of the holding inputs known to have a backlog. The value `before` still counts until each
    /// input was asked once.
    pub(crate) fn reopened_from_ms(&self, before: Option<i64>, final_ms: i64, settings: &TimeSettings) -> Option<i64> {
        let unasked = self.active().any(|input| self.asked(input) == Asked::NotYet);
        let behind = self
            .active()
            .filter(|input| {
                matches!(self.asked(input), Asked::Backlog | Asked::Unreadable) && input.holds(final_ms, settings)
            })
            .map(|input| input.watermark(settings))
            .filter(|&watermark| watermark != watermark::NONE);
        behind.chain(before.filter(|_| unasked)).min()
    }
}
