//! Ads by dense number: the n-th distinct ad seen gets number n.

use hashbrown::HashTable;
use parking_lot::{RwLock, RwLockReadGuard};

/// Ads that are numbered at once while readers wait: a third of a millisecond.
const AT_ONCE: usize = 4_096;

/// Maps ads to numbers and back. A number does not change during the life of an index.
#[derive(Debug, Default)]
pub struct AdIndex {
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    numbers: HashTable<(u64, u32)>,
    ads: Vec<u64>,
}

/// Fibonacci hashing (Knuth, TAOCP 3, 6.4), rotated so that the table's low and high bits are both mixed.
#[inline]
pub(super) fn hash(ad_id: u64) -> u64 {
    let mixed = ad_id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed.rotate_right(32)
}

impl AdIndex {
    /// The number of an ad; `None` if it has none.
    pub fn number(&self, ad_id: u64) -> Option<u32> {
        self.inner.read().numbers.find(hash(ad_id), |row| row.0 == ad_id).map(|row| row.1)
    }

    /// The number of ads in the index.
    pub fn len(&self) -> usize {
        self.inner.read().ads.len()
    }

    /// Whether the index is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Maps numbers to ads while the guard is held, which makes the writer wait.
    pub(super) fn ads(&self) -> Ads<'_> {
        Ads(self.inner.read())
    }

    /// The numbers of some ads. Ads without a number get one. Only one thread may call this.
    pub(super) fn intern(&self, ads: &[u64]) -> Vec<u32> {
        let mut numbers = Vec::with_capacity(ads.len());
        for chunk in ads.chunks(AT_ONCE) {
            let mut inner = self.inner.write();
            let Inner { numbers: table, ads: known } = &mut *inner;
            for &ad_id in chunk {
                let entry = table.entry(hash(ad_id), |row| row.0 == ad_id, |row| hash(row.0));
                let row = entry.or_insert_with(|| {
                    known.push(ad_id);
                    (ad_id, known.len() as u32 - 1)
                });
                numbers.push(row.get().1);
            }
        }
        numbers
    }
}

/// Ads by number.
pub(super) struct Ads<'a>(RwLockReadGuard<'a, Inner>);

impl Ads<'_> {
    /// The ad of a number that the index assigned.
    #[inline]
    pub(super) fn ad(&self, number: u32) -> u64 {
        self.0.ads[number as usize]
    }
}
