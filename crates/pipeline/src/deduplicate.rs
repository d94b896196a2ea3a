//! Stage: one set of identities per event minute. A copy always has the same minute, a look-up probes one set, and a
//! whole set expires at once.

use crate::identity_set::{Found, IdentitySet, PREFETCH_MAX};
use crate::lateness::{TimedLines, Timeliness};
use crate::settings::LIVE_MINUTES_MAX;
use crate::verdicts::{Outcome, Verdicts};
use adtally_model::{EpochNumber, Identity, Minute};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Range;

/// A minute is expected to grow to the current size of the minute before it plus 1/`EXPECTED_MORE`, for late lines of
/// that minute and for rising traffic.
const EXPECTED_MORE: usize = 8;

/// Number of preceding minutes used to predict the size of a minute.
const EXPECTED_BY: usize = 3;

/// The identities of one minute.
#[derive(Debug)]
struct MinuteSet {
    /// The epoch that counted its first click.
    begun: EpochNumber,
    table: IdentitySet,
    /// Identities added in the current epoch.
    added: Vec<Identity>,
}

/// The identities of all live minutes.
#[derive(Debug, Default)]
pub struct Deduplicate {
    sets: BTreeMap<Minute, MinuteSet>,
    held: usize,
    /// Identities added in the current epoch to minutes that have since expired.
    expired: BTreeMap<Minute, Vec<Identity>>,
}

impl Deduplicate {
    /// Restores a minute from a fold.
    pub(crate) fn restore(&mut self, minute: Minute, begun: EpochNumber, identities: &[Identity]) {
        let mut table = IdentitySet::with_capacity(with_more(identities.len()));
        for identities in identities.chunks(PREFETCH_MAX) {
            table.prefetch(identities);
            identities.iter().for_each(|&identity| table.insert(identity));
        }
        self.held += table.len();
        self.sets.insert(minute, MinuteSet { begun, table, added: Vec::new() });
    }

    /// Returns the verdicts of lines, and keeps the identities of counted lines. A minute that gets its first identity
    /// is recorded as begun in `epoch`.
    pub(crate) fn deduplicate(&mut self, lines: &TimedLines<'_>, epoch: EpochNumber) -> Verdicts {
        let rows = lines.first..lines.first + lines.timeliness.len();
        let mut verdicts = Verdicts { counted: Vec::with_capacity(rows.len()), not_counted: Vec::new() };
        for start in rows.clone().step_by(PREFETCH_MAX) {
            let rows = start..rows.end.min(start + PREFETCH_MAX);
            for (minute, run) in minute_runs(&lines.columns.event_time_ms, rows.clone()) {
                if let Some(set) = self.sets.get(&minute) {
                    set.table.prefetch(&lines.columns.identity[run]);
                }
            }
            for (minute, run) in minute_runs(&lines.columns.event_time_ms, rows) {
                self.deduplicate_run(minute, run, lines, epoch, &mut verdicts);
            }
        }
        verdicts
    }

    /// The verdicts of consecutive lines of one minute.
    fn deduplicate_run(
        &mut self,
        minute: Minute,
        rows: Range<usize>,
        lines: &TimedLines<'_>,
        epoch: EpochNumber,
        verdicts: &mut Verdicts,
    ) {
        let counted_before = verdicts.counted.len();
        let mut set = self.find(minute);
        for row in rows {
            let line = row - lines.first;
            let timeliness = lines.timeliness[line];
            if set.is_none() && timeliness == Timeliness::OnTime {
                set = self.begin(minute, lines.expired_ms[line], epoch);
            }
            let outcome = match (timeliness, &mut set) {
                (Timeliness::Future, _) => Outcome::Future,
                (Timeliness::Late | Timeliness::OnTime, Some(set)) => {
                    set.outcome(lines.columns.identity[row], timeliness)
                }
                (Timeliness::Expired, _) | (Timeliness::Late, None) => Outcome::Late,
                (Timeliness::OnTime, None) => Outcome::TooManyMinutes,
            };
            if outcome == Outcome::Counted {
                verdicts.counted.push(row as u32);
            } else {
                verdicts.not_counted.push((row as u32, outcome));
            }
        }
        self.held += verdicts.counted.len() - counted_before;
    }

    /// The set of a live minute.
    fn find(&mut self, minute: Minute) -> Option<&mut MinuteSet> {
        // Several inputs fill neighbouring minutes at the same time: the expected size grows with the minute before.
        let expected = self.expected_of(minute);
        let set = self.sets.get_mut(&minute)?;
        set.table.expect(expected);
        Some(set)
    }

    /// Begins a minute, if there is room. If there is none, minutes behind the expired frontier are forgotten first.
    fn begin(&mut self, minute: Minute, expired_ms: i64, epoch: EpochNumber) -> Option<&mut MinuteSet> {
        if self.is_full() {
            self.expire(expired_ms);
        }
        if self.is_full() {
            return None;
        }
        let mut table = IdentitySet::default();
        table.expect(self.expected_of(minute));
        Some(self.sets.entry(minute).or_insert(MinuteSet { begun: epoch, table, added: Vec::new() }))
    }

    /// Whether there is no room for another minute.
    fn is_full(&self) -> bool {
        self.sets.len() >= LIVE_MINUTES_MAX
    }

    /// The expected number of identities of a minute, from the live minutes just before it. With many parallel inputs,
    /// the nearest of them is still being filled.
    fn expected_of(&self, minute: Minute) -> usize {
        let before = self.sets.range(..minute).rev().take(EXPECTED_BY);
        before.map(|(_, set)| with_more(set.table.len())).max().unwrap_or(0)
    }

    /// Forgets the minutes that end at or before `expired_ms`. Keeps the identities that the epoch must still record.
    pub(crate) fn expire(&mut self, expired_ms: i64) {
        while let Some(entry) = self.sets.first_entry() {
            if entry.key().end_ms() > expired_ms {
                break;
            }
            let (minute, set) = entry.remove_entry();
            self.held -= set.table.len();
            if !set.added.is_empty() {
                self.expired.entry(minute).or_default().extend(set.added);
            }
        }
    }

    /// Number of identities in memory.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Number of identities left if the minutes up to `expired_ms` were forgotten.
    pub(crate) fn held_after(&self, expired_ms: i64) -> usize {
        self.sets.iter().filter(|(minute, _)| minute.end_ms() > expired_ms).map(|(_, set)| set.table.len()).sum()
    }

    /// Number of live minutes.
    pub fn minutes(&self) -> usize {
        self.sets.len()
    }

    /// Takes out the identities added in the current epoch, by minute.
    pub(crate) fn drain_added(&mut self) -> BTreeMap<Minute, Vec<Identity>> {
        let mut added = std::mem::take(&mut self.expired);
        for (&minute, set) in self.sets.iter_mut().filter(|(_, set)| !set.added.is_empty()) {
            let new = std::mem::take(&mut set.added);
            match added.entry(minute) {
                Entry::Vacant(entry) => {
                    entry.insert(new);
                }
                Entry::Occupied(mut entry) => entry.get_mut().extend(new),
            }
        }
        added
    }

    /// Minutes begun before `epoch`, with all their identities.
    pub(crate) fn begun_before(&self, epoch: EpochNumber) -> Vec<(Minute, EpochNumber, Vec<Identity>)> {
        self.sets
            .iter()
            .filter(|(_, set)| set.begun < epoch)
            .map(|(&minute, set)| (minute, set.begun, set.table.iter().collect()))
            .collect()
    }
}

/// The number of identities plus an eighth.
fn with_more(identities: usize) -> usize {
    identities + identities / EXPECTED_MORE
}

/// Splits rows into runs of consecutive rows of the same minute.
fn minute_runs(event_time_ms: &[i64], rows: Range<usize>) -> impl Iterator<Item = (Minute, Range<usize>)> {
    let mut start = rows.start;
    std::iter::from_fn(move || {
        let event_time_ms = &event_time_ms[start..rows.end];
        let minute = Minute::of(*event_time_ms.first()?);
        let run = start..start + event_time_ms.iter().take_while(|&&time| minute.contains(time)).count();
        start = run.end;
        Some((minute, run))
    })
}

impl MinuteSet {
    /// Looks up an identity, and adds it if it is new and on time.
    #[inline]
    fn outcome(&mut self, identity: Identity, timeliness: Timeliness) -> Outcome {
        match self.table.find(identity) {
            Found::Held(first) if first.differs_in_user(identity) => Outcome::Conflict,
            Found::Held(first) if first.conflicts(identity) => Outcome::DifferingDuplicate,
            Found::Held(_) => Outcome::Duplicate,
            Found::Absent(at) if timeliness == Timeliness::OnTime => {
                self.table.add(identity, at);
                self.added.push(identity);
                Outcome::Counted
            }
            Found::Absent(_) => Outcome::Late,
        }
    }
}
