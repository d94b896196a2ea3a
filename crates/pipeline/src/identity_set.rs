//! A set of identities, laid out so that many look-ups wait for memory together instead of one after another.
//!
//! Open addressing with linear probing (Knuth, TAOCP 3, 6.4, algorithm L) in one array of 16-byte slots. The home of an
//! identity is given by its leading bits, which are uniform; so slots are nearly in the order of identities, and a larger
//! array is filled from front to back.

use adtally_model::Identity;

/// An empty slot. An identity of this value, one in 2^128, is held as its neighbour.
const EMPTY: Identity = Identity(0);

/// What [`EMPTY`] is held as: another value of the 112 bits that name a click.
const IN_PLACE_OF_EMPTY: Identity = Identity(1 << 64);

/// Slots of the smallest array.
const SLOTS_MIN: usize = 16;

/// The set grows when more than this share of its slots would be taken: at most so many eighths.
const LOAD_EIGHTHS_MAX: usize = 6;

/// What a look-up found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Found {
    /// The same click, as it was added.
    Held(Identity),
    /// Nothing; it would stand in this slot.
    Absent(usize),
}

/// Identities, of which no two name the same click.
#[derive(Debug, Default)]
pub(crate) struct IdentitySet {
    /// A power of two of them, or none.
    slots: Vec<Identity>,
    held: usize,
}

impl IdentitySet {
    /// An empty set with room for so many.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        let mut set = IdentitySet::default();
        if capacity > 0 {
            set.resize((capacity * 8).div_ceil(LOAD_EIGHTHS_MAX).next_power_of_two().max(SLOTS_MIN));
        }
        set
    }

    /// Identities held.
    pub(crate) fn len(&self) -> usize {
        self.held
    }

    /// All of them, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Identity> + '_ {
        self.slots.iter().copied().filter(|&slot| slot != EMPTY)
    }

    #[inline]
    fn home(&self, identity: Identity) -> usize {
        // As many of the leading bits as it takes to number the slots, of which there are at least 16.
        (identity.table_hash() >> (64 - self.slots.len().trailing_zeros())) as usize
    }

    /// Reads the slot where a look-up will begin, and does nothing with it. Reads that do not depend on each other overlap:
    /// after this was called for each of a batch, their look-ups find their slots in the cache.
    #[inline]
    pub(crate) fn touch(&self, identity: Identity) -> u64 {
        if self.slots.is_empty() { 0 } else { self.slots[self.home(identity)].0 as u64 }
    }

    /// Looks a click up.
    #[inline]
    pub(crate) fn find(&self, identity: Identity) -> Found {
        let identity = stored(identity);
        if self.slots.is_empty() {
            return Found::Absent(0);
        }
        let last = self.slots.len() - 1;
        let mut at = self.home(identity);
        loop {
            let slot = self.slots[at];
            if slot == EMPTY {
                return Found::Absent(at);
            }
            if slot.same_click(identity) {
                return Found::Held(slot);
            }
            at = (at + 1) & last;
        }
    }

    /// Adds an identity that [`IdentitySet::find`] has just found absent, `at` this slot.
    #[inline]
    pub(crate) fn add(&mut self, identity: Identity, at: usize) {
        let identity = stored(identity);
        if (self.held + 1) * 8 > self.slots.len() * LOAD_EIGHTHS_MAX {
            self.resize((self.slots.len() * 2).max(SLOTS_MIN));
            self.put(identity);
        } else {
            self.slots[at] = identity;
        }
        self.held += 1;
    }

    /// Adds an identity unless the same click is held.
    pub(crate) fn insert(&mut self, identity: Identity) {
        if let Found::Absent(at) = self.find(identity) {
            self.add(identity, at);
        }
    }

    fn resize(&mut self, slots: usize) {
        let old = std::mem::replace(&mut self.slots, vec![EMPTY; slots]);
        for identity in old {
            if identity != EMPTY {
                self.put(identity);
            }
        }
    }

    /// Writes into the first free slot from its home on; there is one.
    fn put(&mut self, identity: Identity) {
        let last = self.slots.len() - 1;
        let mut at = self.home(identity);
        while self.slots[at] != EMPTY {
            at = (at + 1) & last;
        }
        self.slots[at] = identity;
    }
}

#[inline]
fn stored(identity: Identity) -> Identity {
    if identity == EMPTY { IN_PLACE_OF_EMPTY } else { identity }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Identities that crowd at both ends of the array, so that probing runs over its edge.
    fn identity() -> impl Strategy<Value = Identity> {
        prop_oneof![
            any::<u128>().prop_map(Identity),
            (0_u128..40).prop_map(|low| Identity(low << 14)),
            (0_u128..40).prop_map(|low| Identity(u128::MAX - (low << 14))),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        /// It holds what a map by the 112 bits holds, the first of each.
        #[test]
        fn the_first_of_each_click_is_held(identities in vec(identity(), 0..400), capacity in 0_usize..300) {
            let mut set = IdentitySet::with_capacity(capacity);
            let mut expected: BTreeMap<u128, Identity> = BTreeMap::new();
            for &identity in &identities {
                let identity = stored(identity);
                let first = *expected.entry(identity.0 >> 16).or_insert(identity);
                set.touch(identity);
                set.insert(identity);
                prop_assert_eq!(set.find(identity), Found::Held(first));
            }
            let mut held: Vec<Identity> = set.iter().collect();
            held.sort_unstable();
            prop_assert_eq!(held.len(), set.len());
            prop_assert_eq!(held, expected.into_values().collect::<Vec<_>>());
        }
    }

    #[test]
    fn the_identity_that_looks_like_nothing_is_held_all_the_same() {
        let mut set = IdentitySet::default();
        assert!(matches!(set.find(Identity(0)), Found::Absent(_)));
        set.insert(Identity(0));
        assert_eq!((set.find(Identity(0)), set.len()), (Found::Held(IN_PLACE_OF_EMPTY), 1));
    }

    #[test]
    fn room_that_was_asked_for_is_enough() {
        for capacity in [1, 12, 13, 1_000] {
            let mut set = IdentitySet::with_capacity(capacity);
            let slots = set.slots.len();
            for number in 0..capacity as u128 {
                set.insert(Identity(number << 100 | number << 16 | 1));
            }
            assert_eq!((set.len(), set.slots.len()), (capacity, slots));
        }
    }
}
