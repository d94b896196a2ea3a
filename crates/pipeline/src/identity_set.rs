//! A set of identities with a layout in which many look-ups wait for memory together instead of one after another.
//!
//! Open addressing with linear probing (Knuth, TAOCP 3, 6.4, algorithm L) in one array of 16-byte slots. The leading
//! bits of an identity, which are uniform, determine its home. Slots are thus nearly in identity order, and a larger
//! array is filled from front to back. Arrays may have any length: the identities of the last ten minutes are most of a
//! partition's memory, and if their number is predicted, an array has a seventh fewer slots than the next power of two.

use adtally_model::Identity;

/// An empty slot. An identity of this value, one in 2^128, is stored as a neighbouring value.
const EMPTY: u128 = 0;

/// The stored value of an identity equal to [`EMPTY`]. It differs in the 112 bits that identify a click.
const IN_PLACE_OF_EMPTY: u128 = 1 << 64;

/// Slots of the smallest array.
const SLOTS_MIN: usize = 16;

/// Maximum load in eighths of the slots; the set grows beyond it. At this load, a look-up of an absent identity reads
/// 32 slots; averaged over the filling of the array, 4.
const LOAD_EIGHTHS_MAX: usize = 7;

/// If doubling the array gives at least one in this many of the expected slots, it grows to all of them. Otherwise it
/// is doubled, so that many small sets do not take the memory of a few large ones: a set that stops right after the
/// jump takes 73 bytes per identity, one that doubles at most 37.
const EXPECTED_SHARE: usize = 2;

/// Slots of the smallest page of a kernel.
const PAGE_SLOTS: usize = 4_096 / size_of::<u128>();

/// Identities to prefetch at a time: a core has about twenty reads in flight, and the slots still fit its first-level
/// cache.
pub(crate) const PREFETCH_MAX: usize = 64;

/// The result of a look-up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Found {
    /// The same click, as it was added.
    Held(Identity),
    /// Not found; it belongs into this slot.
    Absent(usize),
}

/// A set of identities in which no two identify the same click.
#[derive(Debug, Default)]
pub(crate) struct IdentitySet {
    slots: Vec<u128>,
    held: usize,
    /// The number of identities expected.
    expected: usize,
}

impl IdentitySet {
    /// An empty set with room for `capacity` identities.
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        let mut set = IdentitySet::default();
        if capacity > 0 {
            set.resize(slots_for(capacity));
        }
        set
    }

    /// Sets the number of identities expected.
    pub(crate) fn expect(&mut self, expected: usize) {
        self.expected = expected;
    }

    /// Number of identities.
    pub(crate) fn len(&self) -> usize {
        self.held
    }

    /// All identities, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Identity> + '_ {
        self.slots.iter().filter(|&&slot| slot != EMPTY).map(|&slot| Identity(slot))
    }

    /// The slot at which a look-up begins: the leading bits of the identity, as a fraction of the number of slots.
    #[inline]
    fn home(&self, identity: u128) -> usize {
        ((u128::from(Identity(identity).table_hash()) * self.slots.len() as u128) >> 64) as usize
    }

    /// The next slot; the first slot follows the last one.
    #[inline]
    fn behind(&self, at: usize) -> usize {
        if at + 1 == self.slots.len() { 0 } else { at + 1 }
    }

    /// Reads the slots where the look-ups of `identities` (at most [`PREFETCH_MAX`]) begin. Independent reads overlap,
    /// the more the fewer instructions lie between them; the look-ups then find these slots in the cache.
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
        // Without this, the compiler would remove the reads.
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

    /// Adds an identity for which [`IdentitySet::find`] has just returned the empty slot `at`.
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

    /// Adds an identity unless the set contains the same click.
    pub(crate) fn insert(&mut self, identity: Identity) {
        if let Found::Absent(at) = self.find(identity) {
            self.add(identity, at);
        }
    }

    /// The number of slots to grow to.
    fn grown(&self) -> usize {
        let doubled = (self.slots.len() * 2).max(SLOTS_MIN);
        let expected = slots_for(self.expected);
        if (expected / EXPECTED_SHARE..expected).contains(&doubled) { expected } else { doubled }
    }

    fn resize(&mut self, slots: usize) {
        let mut larger = vec![EMPTY; slots];
        // New memory is zero and is mapped on first access. Reading a page before writing it maps it twice, and the
        // second mapping interrupts every core; so each page is written here first.
        let empty = std::hint::black_box(EMPTY);
        larger.iter_mut().step_by(PAGE_SLOTS).for_each(|slot| *slot = empty);
        let old = std::mem::replace(&mut self.slots, larger);
        for identity in old {
            if identity != EMPTY {
                self.put(identity);
            }
        }
    }

    /// Writes into the first free slot from its home on. There is always one.
    fn put(&mut self, identity: u128) {
        let mut at = self.home(identity);
        while self.slots[at] != EMPTY {
            at = self.behind(at);
        }
        self.slots[at] = identity;
    }
}

/// Number of slots needed for `identities`.
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

    /// Identities near both ends of the array, so that probing wraps around.
    fn identity() -> impl Strategy<Value = Identity> {
        prop_oneof![
            any::<u128>().prop_map(Identity),
            (0_u128..40).prop_map(|low| Identity(low << 14)),
            (0_u128..40).prop_map(|low| Identity(u128::MAX - (low << 14))),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

        /// The set contains the same identities as a map by the 112 bits: the first one of each click.
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
