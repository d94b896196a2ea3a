//! Sums of clicks by ad, and the most clicked ads.

use super::ad_index::{self, AdIndex};
use hashbrown::HashTable;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Sums clicks by ad, over hot columns and over rows with ad ids.
#[derive(Default)]
pub struct AdSums<'a> {
    /// Maps indexes of `dense` to ads; `None` if `dense` is empty.
    ads: Option<&'a AdIndex>,
    pub(super) dense: Vec<i64>,
    others: HashTable<(u64, i64)>,
}

impl<'a> AdSums<'a> {
    /// An empty sum with a place for each of the first `numbers` ads of the index.
    pub(super) fn new(ads: &'a AdIndex, numbers: usize) -> Self {
        AdSums { ads: Some(ads), dense: vec![0; numbers], others: HashTable::new() }
    }

    /// Adds clicks of an ad by its id.
    pub fn add(&mut self, ad_id: u64, clicks: i64) {
        self.others
            .entry(ad_index::hash(ad_id), |row| row.0 == ad_id, |row| ad_index::hash(row.0))
            .and_modify(|row| row.1 += clicks)
            .or_insert((ad_id, clicks));
    }

    /// Passes on each sum that is not 0.
    pub fn each(&self, mut show: impl FnMut(u64, i64)) {
        if let Some(ads) = self.ads {
            let ads = ads.ads();
            for (number, &sum) in self.dense.iter().enumerate().filter(|&(_, &sum)| sum != 0) {
                show(ads.ad(number as u32), sum);
            }
        }
        self.others.iter().for_each(|&(ad, sum)| show(ad, sum));
    }

    /// The `limit` most clicked ads, ties by ascending ad. Ads whose clicks were all corrected away are omitted.
    pub fn top(mut self, limit: usize) -> Vec<(u64, u64)> {
        // Clicks by id are first added to the ad's dense sum, if it has one: only complete sums can be ranked.
        let mut best = Best::new(limit);
        if let Some(index) = self.ads {
            let dense = &mut self.dense;
            let place_of = |ad| index.number(ad).map(|number| number as usize);
            self.others.retain(|&mut (ad, sum)| match place_of(ad).and_then(|number| dense.get_mut(number)) {
                Some(place) => {
                    *place += sum;
                    false
                }
                None => true,
            });
            let ads = index.ads();
            for (number, &sum) in self.dense.iter().enumerate() {
                if sum >= best.bar {
                    best.offer(sum, ads.ad(number as u32));
                }
            }
        }
        for &(ad, sum) in &self.others {
            if sum >= best.bar {
                best.offer(sum, ad);
            }
        }
        best.finish()
    }
}

/// The best so far.
struct Best {
    limit: usize,
    heap: BinaryHeap<Reverse<(i64, Reverse<u64>)>>,
    /// The smallest sum that qualifies; never 0.
    bar: i64,
}

impl Best {
    fn new(limit: usize) -> Self {
        Best { limit, heap: BinaryHeap::with_capacity(limit + 1), bar: if limit == 0 { i64::MAX } else { 1 } }
    }

    fn offer(&mut self, sum: i64, ad: u64) {
        self.heap.push(Reverse((sum, Reverse(ad))));
        if self.heap.len() > self.limit {
            self.heap.pop();
        }
        if self.heap.len() == self.limit {
            self.bar = self.heap.peek().map_or(self.bar, |row| row.0.0).max(self.bar);
        }
    }

    fn finish(self) -> Vec<(u64, u64)> {
        let mut rows: Vec<(u64, u64)> =
            self.heap.into_iter().map(|Reverse((sum, Reverse(ad)))| (ad, sum.unsigned_abs())).collect();
        rows.sort_unstable_by_key(|&(ad, sum)| (Reverse(sum), ad));
        rows
    }
}
