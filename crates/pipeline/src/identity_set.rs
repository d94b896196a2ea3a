//! A set of identities, laid out so that many look-ups wait for memory together instead of one after another.
//!
//! Open addressing with linear probing (Knuth, TAOCP 3, 6.4, algorithm L) in one array of 16-byte slots. The home of an
//! identity is given by its leading bits, which are uniform; so slots are nearly in the order of identities, and a larger
//! array is filled from front to back. Arrays are of any length: what is held for ten minutes is most of what a partition
//! has in memory, and where it is foreseen how many there will be, a seventh fewer slots do than the next power of two.

use adtally_model::Identity;

/// An empty slot. An identity of this value, one in 2^128, is held as its neighbour.
const EMPTY: u128 = 0;

/// What [`EMPTY`] is held as: another value of the 112 bits that name a click.
const IN_PLACE_OF_EMPTY: u128 = 1 << 64;

/// Slots of the smallest array.
const SLOTS_MIN: usize = 16;

/// The set grows when more than this share of its slots would be taken: at most so many eighths. With as many a look-up of
/// what is absent reads 32 slots, on average over the filling of the array 4.
const LOAD_EIGHTHS_MAX: usize = 7;

/// When the array must grow and would then have at least this share of the slots that are expected to be needed, it gets
/// them all. Below it, it is doubled, so that many sets that stay small do not take what a few large ones need: a set that
/// stops right behind the jump takes 73 bytes an identity, one that doubles at most 37.
const EXPECTED_SHARE: usize = 2;

/// Slots of the smallest page that a kernel hands out.
const PAGE_SLOTS: usize = 4_096 / size_of::<u128>();

/// Identities that are prefetched at a time: a core waits for some twenty reads at once, and their slots still fit its first
/// cache.
pub(crate) const PREFETCH_MAX: usize = 64;

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
    slots: Vec<u128>,
    held: usize,
    /// Identities that it is expected to come to hold.
    expected: usize,
}

impl IdentitySet {
    /// An empty set with room for so many.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        let mut set = IdentitySet::default();
        if capacity > 0 {
            set.resize(slots_for(capacity));
        }
        set
    }

    /// Changes how many it is expected to come to hold.
    pub(crate) fn expect(&mut self, expected: usize) {
        self.expected = expected;
    }

    /// Identities held.
    pub(crate) fn len(&self) -> usize {
        self.held
    }

    /// All of them, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Identity> + '_ {
        self.slots.iter().filter(|&&slot| slot != EMPTY).map(|&slot| Identity(slot))
    }

    /// The slot at which a look-up begins: the leading bits of the identity, taken for a fraction of the slots.
    #[inline]
    fn home(&self, identity: u128) -> usize {
        ((u128::from(Identity(identity).table_hash()) * self.slots.len() as u128) >> 64) as usize
    }

    /// The slot behind another; the first one is behind the last.
    #[inline]
    fn behind(&self, at: usize) -> usize {
        if at + 1 == self.slots.len() { 0 } else { at + 1 }
    }

    /// Reads the slots where the look-ups of some identities, [`PREFETCH_MAX`] at most, will begin. Reads that do not depend on
    /// each other overlap, the more the fewer instructions are between them; then the look-ups find these slots in the cache.
    #[inline]
    pub(crate) fn prefetch(&self, identities: &[Identity]) {
        if self.slots.is_empty() {
            return;
        }
        let mut homes = [0; PREFETCH_MAX];
        for (home, identity) in homes.iter_mut().zip(identities) {
            *home = self.home(identity.0);
        }
        let read = homes.iter().take(identities.len()).fold(0, |read, &home| read ^ self.slots[home] as u64);
        // Else nothing would be read.
        std::hint::black_box(read);
    }

    /// Looks a click up.
    #[inline]
    pub(crate) fn find(&self, identity: Identity) -> Found {
        if self.slots.is_empty() {
            return Found::Absent(0);
        }
        let identity = stored(identity);
        let mut at = self.home(identity);
        loop {
            let slot = self.slots[at];
            if slot == EMPTY {
                return Found::Absent(at);
            }
            if Identity(slot).same_click(Identity(identity)) {
                return Found::Held(Identity(slot));
            }
            at = self.behind(at);
        }
    }

    /// Adds an identity that [`IdentitySet::find`] has just found absent, `at` this slot.
    #[inline]
    pub(crate) fn add(&mut self, identity: Identity, at: usize) {
        let identity = stored(identity);
        if (self.held + 1) * 8 > self.slots.len() * LOAD_EIGHTHS_MAX {
            self.resize(self.grown());
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

    /// Slots to grow to.
    fn grown(&self) -> usize {
        let doubled = (self.slots.len() * 2).max(SLOTS_MIN);
        let expected = slots_for(self.expected);
        if (expected / EXPECTED_SHARE..expected).contains(&doubled) { expected } else { doubled }
    }

    fn resize(&mut self, slots: usize) {
        let mut larger = vec![EMPTY; slots];
        // What the kernel hands out is zero, and is first seen when it is touched. A page that is read before it is written
        // is mapped twice, the second time with an interruption of every core; so each is written to here.
        let empty = std::hint::black_box(EMPTY);
        larger.iter_mut().step_by(PAGE_SLOTS).for_each(|slot| *slot = empty);
        let old = std::mem::replace(&mut self.slots, larger);
        for identity in old {
            if identity != EMPTY {
                self.put(identity);
            }
        }
    }

    /// Writes into the first free slot from its home on; there is one.
    fn put(&mut self, identity: u128) {
        let mut at = self.home(identity);
        while self.slots[at] != EMPTY {
            at = self.behind(at);
        }
        self.slots[at] = identity;
    }
}

/// Slots that are enough for so many.
fn slots_for(identities: usize) -> usize {
    (identities * 8).div_ceil(LOAD_EIGHTHS_MAX).max(SLOTS_MIN)
}

#[inline]
fn stored(identity: Identity) -> u128 {
    if identity.0 == EMPTY { IN_PLACE_OF_EMPTY } else { identity.0 }
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
        fn the_first_of_each_click_is_held(
            identities in vec(identity(), 0..400), capacity in 0_usize..300, expecting: bool,
        ) {
            let mut set = IdentitySet::with_capacity(if expecting { 0 } else { capacity });
            set.expect(capacity);
            let mut expected: BTreeMap<u128, Identity> = BTreeMap::new();
            for &identity in &identities {
                let identity = Identity(stored(identity));
                let first = *expected.entry(identity.0 >> 16).or_insert(identity);
                set.prefetch(&[identity]);
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
        assert_eq!((set.find(Identity(0)), set.len()), (Found::Held(Identity(IN_PLACE_OF_EMPTY)), 1));
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

    #[test]
    fn a_set_grows_at_once_to_what_is_expected_of_it_and_doubles_below_and_beyond() {
        let expected = 10_000;
        let mut set = IdentitySet::default();
        set.expect(expected);
        let mut sizes = vec![0];
        for number in 0..3 * expected as u128 {
            set.insert(Identity((number * 0x9e37_79b9_7f4a_7c15) << 64 | 1));
            if sizes.last() != Some(&set.slots.len()) {
                sizes.push(set.slots.len());
            }
        }
        let slots = slots_for(expected);
        assert_eq!(sizes, [0, 16, 32, 64, 128, 256, 512, 1_024, 2_048, 4_096, slots, 2 * slots, 4 * slots]);
    }
}
