//! Ads by dense number: the n-th distinct ad seen gets number n.

use super::MinuteColumns;
use adtally_model::{Minute, MinuteCounts};
use hashbrown::HashTable;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Ads in one block of the index; blocks are never changed once full.
const BLOCK: usize = 1 << 16;

/// From number to ad, for readers: cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct AdIndex {
    full: Arc<Vec<Arc<Vec<u64>>>>,
    last: Arc<Vec<u64>>,
}

impl AdIndex {
    /// The ad with a number.
    #[inline]
    pub fn ad(&self, number: u32) -> u64 {
        let number = number as usize;
        match self.full.get(number / BLOCK) {
            Some(block) => block[number % BLOCK],
            None => self.last[number % BLOCK],
        }
    }

    /// Ads in it.
    pub fn len(&self) -> usize {
        self.full.len() * BLOCK + self.last.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// From ad to number, for the writer.
#[derive(Debug, Default)]
pub(super) struct Interner {
    numbers: HashTable<u32>,
    full: Arc<Vec<Arc<Vec<u64>>>>,
    last: Vec<u64>,
}

/// Fibonacci hashing (Knuth, TAOCP 3, 6.4), rotated so that the table's low and high bits are both mixed.
#[inline]
pub(super) fn hash(ad_id: u64) -> u64 {
    let mixed = ad_id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed.rotate_right(32)
}

impl Interner {
    pub(super) fn len(&self) -> usize {
        self.full.len() * BLOCK + self.last.len()
    }

    fn ad(full: &[Arc<Vec<u64>>], last: &[u64], number: u32) -> u64 {
        let number = number as usize;
        full.get(number / BLOCK).map_or_else(|| last[number % BLOCK], |block| block[number % BLOCK])
    }

    /// The number of an ad, a new one if it was not seen before.
    pub(super) fn intern(&mut self, ad_id: u64) -> u32 {
        let (full, last) = (&self.full, &self.last);
        let found = self.numbers.find(hash(ad_id), |&number| Self::ad(full, last, number) == ad_id);
        if let Some(&number) = found {
            return number;
        }
        let number = self.len() as u32;
        self.last.push(ad_id);
        let (full, last) = (&self.full, &self.last);
        self.numbers.insert_unique(hash(ad_id), number, |&number| hash(Self::ad(full, last, number)));
        if self.last.len() == BLOCK {
            Arc::make_mut(&mut self.full).push(Arc::new(std::mem::take(&mut self.last)));
        }
        number
    }

    /// The index as it is now.
    pub(super) fn index(&self) -> AdIndex {
        AdIndex { full: Arc::clone(&self.full), last: Arc::new(self.last.clone()) }
    }

    /// Adds the counts of a minute to its columns.
    pub(super) fn add_counts(&mut self, minutes: &mut BTreeMap<Minute, Arc<MinuteColumns>>, counts: &MinuteCounts) {
        let old = minutes.get(&counts.minute).map(Arc::clone).unwrap_or_default();
        let capacity = old.ad.len() + counts.len();
        let mut new = MinuteColumns {
            ad: Vec::with_capacity(capacity),
            country: Vec::with_capacity(capacity),
            clicks: Vec::with_capacity(capacity),
        };
        let mut at = 0;
        for (ad_id, country, clicks) in counts.rows() {
            while at < old.ad.len() {
                let here = (Self::ad(&self.full, &self.last, old.ad[at]), old.country[at]);
                if here >= (ad_id, country) {
                    break;
                }
                new.push_row(old.ad[at], &old, at);
                at += 1;
            }
            let number = self.intern(ad_id);
            let same = at < old.ad.len() && old.ad[at] == number && old.country[at] == country;
            new.ad.push(number);
            new.country.push(country);
            new.clicks.push(if same { clicks.saturating_add(old.clicks[at]) } else { clicks });
            at += usize::from(same);
        }
        for row in at..old.ad.len() {
            new.push_row(old.ad[row], &old, row);
        }
        minutes.insert(counts.minute, Arc::new(new));
    }

    /// Numbers anew only the ads that minutes still name.
    pub(super) fn rebuild(&mut self, minutes: &mut BTreeMap<Minute, Arc<MinuteColumns>>) {
        let old = std::mem::take(self);
        for columns in minutes.values_mut() {
            let mut new = MinuteColumns::default();
            for row in 0..columns.ad.len() {
                let number = self.intern(Self::ad(&old.full, &old.last, columns.ad[row]));
                new.push_row(number, columns, row);
            }
            *columns = Arc::new(new);
        }
    }
}

impl MinuteColumns {
    fn push_row(&mut self, ad: u32, from: &MinuteColumns, row: usize) {
        self.ad.push(ad);
        self.country.push(from.country[row]);
        self.clicks.push(from.clicks[row]);
    }
}
