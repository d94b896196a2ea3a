//! Stage: one set of identities per event minute. A copy can only fall in its own minute, a look-up probes one set,
//! and a whole set expires at once.

use crate::identity_set::{Found, IdentitySet, PREFETCH_MAX};
use crate::lateness::{TimedLines, Timeliness};
use crate::settings::LIVE_MINUTES_MAX;
use crate::verdicts::{Outcome, Verdicts};
use adtally_model::{EpochNumber, Identity, Minute};
use std::collections::BTreeMap;
use std::ops::Range;

/// A minute is expected to come to hold this share more than the one before it holds so far: late lines of that one, and
/// traffic that rises.
const EXPECTED_MORE: usize = 8;

/// Minutes by which it is foreseen what the next comes to hold.
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
    /// Identities added in the current epoch to minutes that have expired since.
    expired: BTreeMap<Minute, Vec<Identity>>,
}

impl Deduplicate {
    /// Takes back what a fold brought.
    pub(crate) fn restore(&mut self, minute: Minute, begun: EpochNumber, identities: &[Identity]) {
        let mut table = IdentitySet::with_capacity(with_more(identities.len()));
        for identities in identities.chunks(PREFETCH_MAX) {
            table.prefetch(identities);
            identities.iter().for_each(|&identity| table.insert(identity));
        }
        self.held += table.len();
        self.sets.insert(minute, MinuteSet { begun, table, added: Vec::new() });
    }

    /// The verdicts of lines, whose identities are held from now on where they are counted. Minutes that get their first
    /// identity are begun in `epoch`.
    pub(crate) fn deduplicate(&mut self, lines: &TimedLines<'_>, epoch: EpochNumber) -> Verdicts {
        let columns = lines.columns;
        let rows = lines.rows();
        let mut verdicts = Verdicts::with_capacity(rows.len());
        for start in rows.clone().step_by(PREFETCH_MAX) {
            let rows = start..rows.end.min(start + PREFETCH_MAX);
            for (minute, run) in minute_runs(&columns.event_time_ms, rows.clone()) {
                if let Some(set) = self.sets.get(&minute) {
                    set.table.prefetch(&columns.identity[run]);
                }
            }
            for (minute, run) in minute_runs(&columns.event_time_ms, rows) {
                let held_from = self.hold(minute, run.clone(), lines, epoch, &mut verdicts);
                self.probe(minute, held_from..run.end, lines, &mut verdicts);
            }
        }
        verdicts
    }

    /// Gives lines their verdict whose minute is not held and may not or cannot be. Returns the first row of the others.
    fn hold(
        &mut self,
        minute: Minute,
        rows: Range<usize>,
        lines: &TimedLines<'_>,
        epoch: EpochNumber,
        verdicts: &mut Verdicts,
    ) -> usize {
        let end = rows.end;
        for row in rows {
            if self.sets.contains_key(&minute) {
                return row;
            }
            let outcome = match lines.timeliness(row) {
                Timeliness::OnTime if self.begin(minute, lines.expired_ms(row), epoch) => return row,
                Timeliness::OnTime => Outcome::TooManyMinutes,
                Timeliness::Late | Timeliness::Expired => Outcome::Late,
                Timeliness::Future => Outcome::Future,
            };
            verdicts.push(row, outcome);
        }
        end
    }

    /// Looks up the lines of a minute that is held, and adds what is new.
    fn probe(&mut self, minute: Minute, rows: Range<usize>, lines: &TimedLines<'_>, verdicts: &mut Verdicts) {
        let expected = self.expected_of(minute);
        let Some(set) = self.sets.get_mut(&minute) else { return };
        // Several inputs fill neighbouring minutes side by side: what is expected grows with the minute before.
        set.table.expect(expected);
        let before = set.table.len();
        for row in rows {
            verdicts.push(row, set.outcome(lines.columns.identity[row], lines.timeliness(row)));
        }
        self.held += set.table.len() - before;
    }

    /// Begins a minute that is not held; says whether there was room. Where there is none, what is behind the expired
    /// frontier is forgotten first.
    fn begin(&mut self, minute: Minute, expired_ms: i64, epoch: EpochNumber) -> bool {
        if self.is_full() {
            self.expire(expired_ms);
        }
        let fits = !self.is_full();
        if fits {
            self.sets.insert(minute, MinuteSet { begun: epoch, table: IdentitySet::default(), added: Vec::new() });
        }
        fits
    }

    /// Whether no further minute fits.
    fn is_full(&self) -> bool {
        self.sets.len() >= LIVE_MINUTES_MAX
    }

    /// Identities that a minute is expected to come to hold, by the live minutes right before it: of many inputs side by
    /// side the nearest of them is still being filled.
    fn expected_of(&self, minute: Minute) -> usize {
        let before = self.sets.range(..minute).rev().take(EXPECTED_BY);
        before.map(|(_, set)| with_more(set.table.len())).max().unwrap_or(0)
    }

    /// Forgets the minutes that end at or before `expired_ms`, keeping what the epoch has yet to record.
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

    /// Identities held.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Identities that would stay if the minutes up to `expired_ms` were forgotten.
    pub(crate) fn held_after(&self, expired_ms: i64) -> usize {
        self.sets.iter().filter(|(minute, _)| minute.end_ms() > expired_ms).map(|(_, set)| set.table.len()).sum()
    }

    /// Live minutes.
    pub fn minutes(&self) -> usize {
        self.sets.len()
    }

    /// Takes out what the current epoch added, by minute.
    pub(crate) fn drain_added(&mut self) -> BTreeMap<Minute, Vec<Identity>> {
        let mut added = std::mem::take(&mut self.expired);
        for (&minute, set) in self.sets.iter_mut().filter(|(_, set)| !set.added.is_empty()) {
            added.entry(minute).or_default().append(&mut set.added);
        }
        added
    }

    /// Minutes begun before an epoch, with all their identities.
    pub(crate) fn begun_before(&self, epoch: EpochNumber) -> Vec<(Minute, EpochNumber, Vec<Identity>)> {
        self.sets
            .iter()
            .filter(|(_, set)| set.begun < epoch)
            .map(|(&minute, set)| (minute, set.begun, set.table.iter().collect()))
            .collect()
    }
}

/// A number of identities and an eighth more.
fn with_more(identities: usize) -> usize {
    identities + identities / EXPECTED_MORE
}

/// Rows that follow one another and are of one minute.
fn minute_runs(event_time_ms: &[i64], rows: Range<usize>) -> impl Iterator<Item = (Minute, Range<usize>)> {
    let mut start = rows.start;
    std::iter::from_fn(move || {
        let times = &event_time_ms[start..rows.end];
        let minute = Minute::of(*times.first()?);
        let end = start + times.iter().take_while(|&&time| minute.contains(time)).count();
        let run = start..end;
        start = end;
        Some((minute, run))
    })
}

impl MinuteSet {
    /// Looks the identity of a line up, and adds it when it is new and comes in time.
    #[inline]
    fn outcome(&mut self, identity: Identity, timeliness: Timeliness) -> Outcome {
        match timeliness {
            Timeliness::Future => return Outcome::Future,
            Timeliness::Expired => return Outcome::Late,
            Timeliness::Late | Timeliness::OnTime => {}
        }
        match self.table.find(identity) {
            Found::Held(first) => Outcome::of_copy(first, identity),
            Found::Absent(at) if timeliness == Timeliness::OnTime => {
                self.table.add(identity, at);
                self.added.push(identity);
                Outcome::Counted
            }
            Found::Absent(_) => Outcome::Late,
        }
    }
}
