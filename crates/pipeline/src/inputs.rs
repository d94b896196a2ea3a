//! The inputs of a partition: which of them hold its watermark.

use crate::settings::TimeSettings;
use crate::watermark;
use adtally_model::{InputId, InputRow, InputStatus};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// One input and what is known of it in this process.
#[derive(Debug)]
pub struct Input {
    /// What the next epoch records of it.
    pub row: InputRow,
    /// Its name, shared with dead letters and clicks.
    pub name: Arc<str>,
    /// When it was last seen at its end, by the guarded clock.
    pub at_end_at_ms: Option<i64>,
    /// Whether it is known to have more to read, or could not be asked.
    pub backlog: bool,
    /// Whether the next epoch must record it.
    pub touched: bool,
}

/// What another input without a watermark does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Blocked {
    /// It has lines to be read: it will have a watermark soon.
    ByBacklog,
    /// It is at its end: it will have one when more is written, or go idle.
    AtItsEnd,
}

/// All inputs of a partition.
#[derive(Debug, Default)]
pub struct Inputs {
    inputs: BTreeMap<InputId, Input>,
    /// Those that have not ended: every rotated file leaves an ended one behind.
    active: BTreeSet<InputId>,
}

impl Input {
    /// An input as an epoch recorded it, positioned at its end.
    pub(crate) fn new(mut row: InputRow) -> Self {
        row.position = row.position.next();
        Input { name: row.name.as_str().into(), row, at_end_at_ms: None, backlog: true, touched: false }
    }

    /// Its watermark, or [`watermark::NONE`].
    pub(crate) fn watermark(&self, settings: &TimeSettings) -> i64 {
        watermark::of(&self.row.time, settings)
    }

    /// Whether it was at its end within `idle_timeout`.
    pub(crate) fn at_end_lately(&self, now_ms: i64, settings: &TimeSettings) -> bool {
        self.at_end_at_ms.is_some_and(|at| now_ms - at <= settings.idle_timeout_ms)
    }

    /// Whether it is idle at a moment: at its end lately, and its watermark has stood still for `idle_timeout`.
    fn is_idle(&self, now_ms: i64, settings: &TimeSettings) -> bool {
        self.at_end_lately(now_ms, settings) && now_ms - self.row.time.advanced_at_ms >= settings.idle_timeout_ms
    }

    /// Whether it holds the partition's watermark, given the final frontier.
    pub(crate) fn holds(&self, final_ms: i64, settings: &TimeSettings) -> bool {
        let own = self.watermark(settings);
        self.row.status == InputStatus::Holding && (own == watermark::NONE || own >= final_ms)
    }
}

impl Inputs {
    /// Adds or replaces an input.
    pub(crate) fn insert(&mut self, input: Input) {
        if input.row.status == InputStatus::Ended {
            self.active.remove(&input.row.id);
        } else {
            self.active.insert(input.row.id);
        }
        self.inputs.insert(input.row.id, input);
    }

    /// An input has ended.
    pub(crate) fn end(&mut self, id: InputId) {
        if let Some(input) = self.inputs.get_mut(&id) {
            input.backlog = false;
            input.set_status(InputStatus::Ended);
            self.active.remove(&id);
        }
    }

    /// An input that had ended goes on.
    pub(crate) fn resume(&mut self, id: InputId) {
        if let Some(input) = self.inputs.get_mut(&id) {
            input.backlog = true;
            if input.row.status == InputStatus::Ended {
                input.set_status(InputStatus::Holding);
            }
            self.active.insert(id);
        }
    }

    /// Those that have not ended.
    pub(crate) fn active(&self) -> impl Iterator<Item = &Input> {
        self.active.iter().filter_map(|id| self.inputs.get(id))
    }

    /// One input.
    pub fn get(&self, id: InputId) -> Option<&Input> {
        self.inputs.get(&id)
    }

    /// One input, to be changed.
    pub(crate) fn get_mut(&mut self, id: InputId) -> Option<&mut Input> {
        self.inputs.get_mut(&id)
    }

    /// All of them, by number.
    pub fn iter(&self) -> impl Iterator<Item = &Input> {
        self.inputs.values()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Input> {
        self.inputs.values_mut()
    }

    /// Removes those that `gone` says, and returns them.
    pub(crate) fn remove_where(&mut self, gone: impl Fn(&Input) -> bool) -> Vec<Input> {
        let ids: Vec<InputId> = self.inputs.values().filter(|input| gone(input)).map(|input| input.row.id).collect();
        ids.iter().filter_map(|id| self.inputs.remove(id)).collect()
    }

    /// The least watermark over the inputs that hold: `None` while one of them has none, or none holds.
    pub(crate) fn least_watermark(&self, final_ms: i64, settings: &TimeSettings) -> Option<i64> {
        let least = self.holding(final_ms, settings, None).min()?;
        (least != watermark::NONE).then_some(least)
    }

    /// Watermarks of the inputs that hold, one left out.
    pub(crate) fn holding(
        &self,
        final_ms: i64,
        settings: &TimeSettings,
        but: Option<InputId>,
    ) -> impl Iterator<Item = i64> {
        self.active()
            .filter(move |input| Some(input.row.id) != but && input.holds(final_ms, settings))
            .map(|input| input.watermark(settings))
    }

    /// Whether an input other than `id` holds without a watermark: with a backlog, or at its end.
    pub(crate) fn blocked_by(&self, id: InputId) -> Option<Blocked> {
        let mut blocked = None;
        for input in self.active() {
            let blocks = input.row.status == InputStatus::Holding && input.row.time.largest_ms.is_none();
            if blocks && input.row.id != id {
                if input.backlog {
                    return Some(Blocked::ByBacklog);
                }
                blocked = Some(Blocked::AtItsEnd);
            }
        }
        blocked
    }

    /// Decides anew, at an epoch boundary, which inputs are idle or released.
    pub(crate) fn review(&mut self, now_ms: i64, partition_ms: i64, settings: &TimeSettings) {
        for id in &self.active {
            let Some(input) = self.inputs.get_mut(id) else { continue };
            let status = match input.row.status {
                InputStatus::Ended => InputStatus::Ended,
                InputStatus::Released if input.watermark(settings) < partition_ms => InputStatus::Released,
                _ if input.is_idle(now_ms, settings) => InputStatus::Idle,
                _ => InputStatus::Holding,
            };
            input.set_status(status);
        }
    }

    /// Whether none but idle and ended inputs are there, and at least one is idle.
    pub(crate) fn all_idle(&self) -> bool {
        let mut idle = false;
        for input in self.active() {
            match input.row.status {
                InputStatus::Idle => idle = true,
                InputStatus::Ended => {}
                InputStatus::Holding | InputStatus::Released => return false,
            }
        }
        idle
    }

    /// Whether there are inputs and all have ended.
    pub fn all_ended(&self) -> bool {
        !self.inputs.is_empty() && self.active.is_empty()
    }

    /// When the last of them went idle, while all are.
    pub(crate) fn idle_since_ms(&self, settings: &TimeSettings) -> Option<i64> {
        let idle = self.active().filter(|input| input.row.status == InputStatus::Idle);
        idle.map(|input| input.row.time.advanced_at_ms + settings.idle_timeout_ms).max()
    }
}

impl Input {
    /// Changes its status, to be recorded by the next epoch.
    pub(crate) fn set_status(&mut self, status: InputStatus) {
        if self.row.status != status {
            self.row.status = status;
            self.touched = true;
        }
    }
}
