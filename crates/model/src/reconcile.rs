//! Reconciliation: the partition of corrections, and what its records contain beside their counts.

use crate::ledger::thousands;
use crate::{EpochNumber, Minute};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The number of the partition `reconcile`. It reads no source: its epochs are corrections of the other partitions.
pub const RECONCILE: u32 = 65_535;

/// Why a correction was made. Every epoch of the partition `reconcile` has at most one cause.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Cause {
    /// A late line whose click was in no minute.
    Late,
    /// A line that was slightly ahead of the clock, and whose click was in no minute.
    Future,
    /// A click that was stored more than once.
    StoredTwice,
    /// A run of corrections that was reverted.
    Reverted,
    /// A count by minute that differed from the stored clicks. It is corrected in the table of minutes alone.
    Count,
    /// A count by hour that differed from the stored clicks. It is corrected in the table of hours alone.
    HourCount,
    /// A count by day that differed from the stored clicks. It is corrected in the table of days alone.
    DayCount,
    /// A rejected line that was decoded again.
    Replay,
    /// A line of a file that was brought in after its minutes were final.
    Backfill,
}

impl Cause {
    /// All causes.
    pub const ALL: [Cause; 9] = [
        Cause::Late,
        Cause::Future,
        Cause::StoredTwice,
        Cause::Reverted,
        Cause::Count,
        Cause::HourCount,
        Cause::DayCount,
        Cause::Replay,
        Cause::Backfill,
    ];

    /// The word used in answers and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Cause::Late => "late",
            Cause::Future => "future",
            Cause::StoredTwice => "stored_twice",
            Cause::Reverted => "reverted",
            Cause::Count => "count",
            Cause::HourCount => "hour_count",
            Cause::DayCount => "day_count",
            Cause::Replay => "replay",
            Cause::Backfill => "backfill",
        }
    }

    /// Whether a revert takes its corrections back. A repaired count stays: the next recount would repair it again.
    pub const fn is_revertible(self) -> bool {
        match self {
            Cause::Late | Cause::Future | Cause::StoredTwice | Cause::Replay | Cause::Backfill => true,
            Cause::Reverted | Cause::Count | Cause::HourCount | Cause::DayCount => false,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The reason for the counts and clicks of one epoch of the partition `reconcile`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Correction {
    /// The run that made it, from 1.
    pub run: u64,
    /// Why it was made.
    pub cause: Cause,
    /// Who started the run: `schedule` or `command`.
    pub made_by: String,
}

/// Sums of the corrections with one cause.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Corrected {
    /// Clicks added to `clicks`, with sign +1.
    pub recovered: u64,
    /// Rows added to `clicks` with sign -1.
    pub reversed: u64,
    /// The signed sum of the counts that changed.
    pub counts: i64,
}

/// Lines that were taken in after their minutes were final, by what became of them. A line that was taken in several times
/// counts each time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Intake {
    /// All of them.
    pub read: u64,
    /// Counted, as corrections.
    pub recovered: u64,
    /// Copies of clicks that were stored before.
    pub duplicate: u64,
    /// Not clicks, or too far ahead of the clock when they were read.
    pub rejected: u64,
    /// Of minutes whose raw clicks are no longer kept.
    pub expired: u64,
    /// Of minutes that are not final, or whose stored clicks are damaged. They can be taken in later.
    pub waiting: u64,
}

impl Intake {
    /// Whether `read = recovered + duplicate + rejected + expired + waiting`.
    ///
    /// ```
    /// # use adtally_model::reconcile::Intake;
    /// assert!(Intake { read: 3, recovered: 1, duplicate: 2, ..Intake::default() }.adds_up());
    /// assert!(!Intake { read: 1, ..Intake::default() }.adds_up());
    /// ```
    pub fn adds_up(&self) -> bool {
        self.read == self.recovered + self.duplicate + self.rejected + self.expired + self.waiting
    }

    /// Adds further lines.
    pub fn add(&mut self, more: &Intake) {
        self.read += more.read;
        self.recovered += more.recovered;
        self.duplicate += more.duplicate;
        self.rejected += more.rejected;
        self.expired += more.expired;
        self.waiting += more.waiting;
    }
}

impl fmt::Display for Intake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Intake { read, recovered, duplicate, rejected, expired, waiting } = self;
        write!(
            f,
            "{} read = {} recovered + {} duplicate + {} rejected + {} expired + {} waiting",
            thousands(*read),
            thousands(*recovered),
            thousands(*duplicate),
            thousands(*rejected),
            thousands(*expired),
            thousands(*waiting)
        )
    }
}

/// An epoch of a partition, and the log to which the partition's epochs belong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct EpochOf {
    /// The partition.
    pub partition: u32,
    /// Its log.
    pub log_id: u128,
    /// The epoch.
    pub number: EpochNumber,
}

/// Minutes that were recounted.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Recounted {
    /// The first minute.
    pub from: Minute,
    /// The minute after the last.
    pub to: Minute,
    /// The last epoch of each source partition in the recount, by partition.
    pub cut: Vec<EpochOf>,
}

/// The state of the partition `reconcile`. Each of its records repeats all of it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Reconciled {
    /// The number of runs so far.
    pub runs: u64,
    /// All corrections so far, by cause.
    pub corrected: BTreeMap<Cause, Corrected>,
    /// The minutes that were recounted, ascending, without overlaps.
    pub recounted: Vec<Recounted>,
    /// Ranges of whole days, each `[from, to)`, whose minutes were recounted, but not yet their hours and days.
    pub uncompared: Vec<(Minute, Minute)>,
    /// Minutes before this one had no clicks and no dead letters to recount at the last complete run.
    pub since: Option<Minute>,
    /// When the last complete run over all minutes ended, in milliseconds since the Unix epoch.
    pub completed_ms: Option<i64>,
    /// The runs that were reverted, each with the run that reverts it. The latter may not be complete.
    pub reverted: BTreeMap<u64, u64>,
    /// All lines that were taken in so far. Records contain it beside the rest.
    #[serde(skip)]
    pub intake: Intake,
}

/// What a record of the partition `reconcile` contains beside counts and files.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ReconcileRecord {
    /// The reason for its counts and clicks; `None` if it has none.
    pub correction: Option<Correction>,
    /// The state after it.
    pub state: Reconciled,
}

impl Reconciled {
    /// All corrections, whatever their cause.
    pub fn total(&self) -> Corrected {
        self.corrected.values().fold(Corrected::default(), |sum, of| Corrected {
            recovered: sum.recovered + of.recovered,
            reversed: sum.reversed + of.reversed,
            counts: sum.counts + of.counts,
        })
    }

    /// The end of the first contiguous range of recounted minutes: every earlier minute that has kept clicks is recounted.
    /// `None` before the first recount.
    pub fn reconciled_to(&self) -> Option<Minute> {
        let mut ranges = self.recounted.iter();
        // A minute before the first range may still be due.
        let first = ranges.next().filter(|first| self.since.is_some_and(|since| first.from <= since))?;
        let to = ranges.fold((first.to, true), |(to, joins), range| match joins && range.from == to {
            true => (range.to, true),
            false => (to, false),
        });
        Some(to.0)
    }

    /// Whether minutes were left out, because their stored clicks are damaged.
    pub fn has_gaps(&self) -> bool {
        let first = self.recounted.first();
        self.since.zip(first).is_some_and(|(since, first)| since < first.from)
            || self.recounted.windows(2).any(|ranges| ranges[0].to < ranges[1].from)
    }

    /// The newest epochs at which minutes were recounted.
    pub fn last_cut(&self) -> Vec<EpochOf> {
        let cuts = self.recounted.iter().map(|range| &range.cut);
        cuts.max_by_key(|cut| cut.iter().map(|of| of.number).sum::<u64>()).cloned().unwrap_or_default()
    }

    /// Adds an epoch's corrections to the sums of their cause.
    pub fn add(&mut self, cause: Cause, more: Corrected) {
        let sum = self.corrected.entry(cause).or_default();
        sum.recovered += more.recovered;
        sum.reversed += more.reversed;
        sum.counts += more.counts;
    }

    /// Records that the minutes of `new` were recounted. This replaces earlier recounts of these minutes.
    ///
    /// ```
    /// # use adtally_model::reconcile::{EpochOf, Recounted, Reconciled};
    /// # use adtally_model::Minute;
    /// let at = |from, to, number| {
    ///     let cut = vec![EpochOf { partition: 0, log_id: 7, number }];
    ///     Recounted { from: Minute(from), to: Minute(to), cut }
    /// };
    /// let mut state = Reconciled::default();
    /// state.recount(at(0, 10, 1));
    /// state.recount(at(10, 20, 1));
    /// assert_eq!(state.recounted, [at(0, 20, 1)]);
    /// state.recount(at(5, 7, 2));
    /// assert_eq!(state.recounted, [at(0, 5, 1), at(5, 7, 2), at(7, 20, 1)]);
    /// ```
    pub fn recount(&mut self, new: Recounted) {
        let mut ranges: Vec<Recounted> = Vec::with_capacity(self.recounted.len() + 2);
        for old in std::mem::take(&mut self.recounted) {
            let before = Recounted { to: old.to.min(new.from), ..old.clone() };
            let after = Recounted { from: old.from.max(new.to), ..old };
            ranges.extend([before, after].into_iter().filter(|range| range.from < range.to));
        }
        ranges.push(new);
        ranges.sort_unstable_by_key(|range| range.from);
        for range in ranges {
            match self.recounted.last_mut() {
                Some(last) if last.to == range.from && last.cut == range.cut => last.to = range.to,
                _ => self.recounted.push(range),
            }
        }
    }

    /// Forgets recounts of minutes before `from`, whose raw clicks are no longer kept.
    pub fn forget_before(&mut self, from: Minute) {
        self.recounted.retain_mut(|range| {
            range.from = range.from.max(from);
            range.from < range.to
        });
    }
}
