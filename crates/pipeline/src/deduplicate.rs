//! Stage: one set of identities per event minute. A copy can only fall in its own minute, a look-up probes one set,
//! and a whole set expires at once.

use crate::identity_set::{Found, IdentitySet, TOUCHED_MAX};
use crate::settings::LIVE_MINUTES_MAX;
use adtally_model::{EpochNumber, Identity, Minute};
use std::collections::BTreeMap;

/// A minute is expected to come to hold this share more than the one before it holds so far: late lines of that one, and
/// traffic that rises.
const EXPECTED_MORE: usize = 8;

/// Minutes by which it is foreseen what the next comes to hold.
const EXPECTED_BY: usize = 3;

/// What became of an identity.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Probe {
    /// It is held, as it was added.
    Held(Identity),
    /// It was not held and is now.
    New,
    /// It is not held and was not to be added.
    Absent,
}

/// The identities of one minute.
#[derive(Debug)]
pub(crate) struct MinuteSet {
    /// The epoch that counted its first click.
    pub(crate) begun: EpochNumber,
    table: IdentitySet,
    /// Identities added in the current epoch.
    added: Vec<Identity>,
}

/// The identities of all live minutes.
#[derive(Debug, Default)]
pub struct Deduplicate {
    sets: BTreeMap<Minute, MinuteSet>,
    held: usize,
}

impl Deduplicate {
    /// Takes back what a fold brought.
    pub(crate) fn restore(&mut self, minute: Minute, begun: EpochNumber, identities: &[Identity]) {
        let mut table = IdentitySet::with_capacity(with_more(identities.len()));
        for identities in identities.chunks(TOUCHED_MAX) {
            // Else nothing would be read.
            std::hint::black_box(table.touch(identities));
            identities.iter().for_each(|&identity| table.insert(identity));
        }
        self.held += table.len();
        self.sets.insert(minute, MinuteSet { begun, table, added: Vec::new() });
    }

    /// Whether a further minute fits.
    pub(crate) fn is_full(&self) -> bool {
        self.sets.len() >= LIVE_MINUTES_MAX
    }

    /// The set of a minute, taken out so that a run of lines of that minute probes it without a look-up; give it
    /// back with [`Deduplicate::put`].
    #[inline]
    pub(crate) fn take(&mut self, minute: Minute) -> Option<MinuteSet> {
        let mut set = self.sets.remove(&minute)?;
        // Several inputs fill neighbouring minutes side by side: what is expected grows with the minute before.
        set.table.expect(self.expected_of(minute));
        Some(set)
    }

    /// An empty set for a minute that is not held, begun in an epoch; hand it in with [`Deduplicate::put`].
    pub(crate) fn begin(&self, minute: Minute, begun: EpochNumber) -> MinuteSet {
        let mut table = IdentitySet::default();
        table.expect(self.expected_of(minute));
        MinuteSet { begun, table, added: Vec::new() }
    }

    /// The set of a minute, for touching.
    #[inline]
    pub(crate) fn get(&self, minute: Minute) -> Option<&MinuteSet> {
        self.sets.get(&minute)
    }

    /// Gives a set back.
    pub(crate) fn put(&mut self, minute: Minute, set: MinuteSet, added: usize) {
        self.held += added;
        self.sets.insert(minute, set);
    }

    /// Identities that a minute is expected to come to hold, by the live minutes right before it: of many inputs side by
    /// side the nearest of them is still being filled.
    fn expected_of(&self, minute: Minute) -> usize {
        let before = self.sets.range(..minute).rev().take(EXPECTED_BY);
        before.map(|(_, set)| with_more(set.table.len())).max().unwrap_or(0)
    }

    /// Forgets the minutes that end at or before `expired_ms`, except what the current epoch added to them, which
    /// is returned.
    pub(crate) fn expire(&mut self, expired_ms: i64) -> Vec<(Minute, Vec<Identity>)> {
        let mut added = Vec::new();
        while let Some(entry) = self.sets.first_entry() {
            if entry.key().end_ms() > expired_ms {
                break;
            }
            let (minute, set) = entry.remove_entry();
            self.held -= set.table.len();
            if !set.added.is_empty() {
                added.push((minute, set.added));
            }
        }
        added
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

    /// Takes out what the current epoch added, by minute in ascending order.
    pub(crate) fn drain_added(&mut self) -> Vec<(Minute, Vec<Identity>)> {
        self.sets
            .iter_mut()
            .filter(|(_, set)| !set.added.is_empty())
            .map(|(&minute, set)| (minute, std::mem::take(&mut set.added)))
            .collect()
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

impl MinuteSet {
    /// See [`IdentitySet::touch`].
    #[inline]
    pub(crate) fn touch(&self, identities: &[Identity]) -> u64 {
        self.table.touch(identities)
    }

    /// Looks an identity up and adds it when it is new and `add` is set.
    #[inline]
    pub(crate) fn probe(&mut self, identity: Identity, add: bool) -> Probe {
        match self.table.find(identity) {
            Found::Held(first) => Probe::Held(first),
            Found::Absent(at) if add => {
                self.table.add(identity, at);
                self.added.push(identity);
                Probe::New
            }
            Found::Absent(_) => Probe::Absent,
        }
    }
}
