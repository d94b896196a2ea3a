//! Counts in columns, sorted by the dense numbers of their ads. Adding them to an array of sums accesses both in order.

use super::ad_index::AdIndex;
use adtally_model::{Country, Minute, MinuteCounts};

/// Counts of one minute, by ad number and country. Four bytes are enough for the clicks of nearly every row; larger
/// counts take several rows.
#[derive(Clone, Debug, Default)]
pub(super) struct MinuteColumns {
    pub(super) ad: Vec<u32>,
    pub(super) country: Vec<Country>,
    pub(super) clicks: Vec<i32>,
}

/// Summed counts of several minutes, by ad number.
#[derive(Debug, Default)]
pub(super) struct SpanColumns {
    pub(super) ad: Vec<u32>,
    pub(super) clicks: Vec<i32>,
}

impl MinuteColumns {
    fn with_capacity(rows: usize) -> Self {
        let (ad, country, clicks) = (Vec::with_capacity(rows), Vec::with_capacity(rows), Vec::with_capacity(rows));
        MinuteColumns { ad, country, clicks }
    }

    /// From counts that are sorted by ad.
    pub(super) fn of(counts: &MinuteCounts, index: &AdIndex) -> Self {
        // Rows of one ad stay together, in the order of their countries.
        let (mut ads, mut starts, mut at) = (Vec::new(), Vec::new(), 0);
        for rows in counts.ad_id.chunk_by(|a, b| a == b) {
            ads.push(rows[0]);
            starts.push(at);
            at += rows.len();
        }
        starts.push(at);
        let numbers = index.intern(&ads);
        let mut order: Vec<u64> =
            (0_u64..).zip(&numbers).map(|(group, &number)| u64::from(number) << 32 | group).collect();
        // The sort is stable: groups of one number stay in order.
        radsort::sort_by_key(&mut order, |&key| (key >> 32) as u32);
        let mut columns = MinuteColumns::with_capacity(counts.len());
        for key in order {
            let group = key as u32 as usize;
            for row in starts[group]..starts[group + 1] {
                columns.push((key >> 32) as u32, counts.country[row], counts.clicks[row]);
            }
        }
        columns
    }

    fn push(&mut self, ad: u32, country: Country, clicks: i64) {
        for clicks in pieces(clicks) {
            self.ad.push(ad);
            self.country.push(country);
            self.clicks.push(clicks);
        }
    }

    /// The sum of both.
    pub(super) fn merge(&self, other: &MinuteColumns) -> MinuteColumns {
        let mut sum = MinuteColumns::with_capacity(self.ad.len() + other.ad.len());
        let mut at = 0;
        for row in 0..other.ad.len() {
            let key = (other.ad[row], other.country[row]);
            while at < self.ad.len() && (self.ad[at], self.country[at]) < key {
                sum.push(self.ad[at], self.country[at], self.clicks[at].into());
                at += 1;
            }
            let same = at < self.ad.len() && (self.ad[at], self.country[at]) == key;
            let before = if same { i64::from(self.clicks[at]) } else { 0 };
            sum.push(key.0, key.1, before + i64::from(other.clicks[row]));
            at += usize::from(same);
        }
        sum.ad.extend_from_slice(&self.ad[at..]);
        sum.country.extend_from_slice(&self.country[at..]);
        sum.clicks.extend_from_slice(&self.clicks[at..]);
        sum
    }

    /// Adds the clicks to an array of sums by ad number.
    pub(super) fn add_to(&self, sums: &mut [i64], country: Option<Country>) {
        match country {
            None => add(&self.ad, &self.clicks, sums),
            Some(country) => {
                for ((&ad, &here), &clicks) in self.ad.iter().zip(&self.country).zip(&self.clicks) {
                    // Without a branch, since the CPU could not predict the next country.
                    sums[ad as usize] += i64::from(clicks) * i64::from(here == country);
                }
            }
        }
    }

    /// Clicks of one ad.
    pub(super) fn of_ad(&self, ad: u32, country: Option<Country>) -> i64 {
        let start = self.ad.partition_point(|&here| here < ad);
        let rows = (start..self.ad.len()).take_while(|&row| self.ad[row] == ad);
        let rows = rows.filter(|&row| country.is_none_or(|country| self.country[row] == country));
        rows.map(|row| i64::from(self.clicks[row])).sum()
    }

    /// Converts to counts sorted by ad.
    pub(super) fn counts(&self, minute: Minute, index: &AdIndex) -> MinuteCounts {
        let ads = index.ads();
        let mut rows: Vec<(u64, Country, i64)> =
            (0..self.ad.len()).map(|row| (ads.ad(self.ad[row]), self.country[row], self.clicks[row].into())).collect();
        drop(ads);
        rows.sort_unstable();
        let mut counts = MinuteCounts::empty(minute);
        for same in rows.chunk_by(|one, next| (one.0, one.1) == (next.0, next.1)) {
            let clicks = same.iter().map(|row| row.2).sum();
            if clicks != 0 {
                counts.push(same[0].0, same[0].1, clicks);
            }
        }
        counts
    }
}

impl SpanColumns {
    /// The sum of some minutes over `ads` ads.
    pub(super) fn of<'a>(minutes: impl Iterator<Item = &'a MinuteColumns>, ads: usize) -> SpanColumns {
        let mut sums = vec![0; ads];
        minutes.for_each(|minute| minute.add_to(&mut sums, None));
        let mut span = SpanColumns::default();
        for (ad, &clicks) in (0..).zip(&sums) {
            for clicks in pieces(clicks) {
                span.ad.push(ad);
                span.clicks.push(clicks);
            }
        }
        span.ad.shrink_to_fit();
        span.clicks.shrink_to_fit();
        span
    }

    /// Adds the sums to an array of sums by ad number.
    pub(super) fn add_to(&self, sums: &mut [i64]) {
        add(&self.ad, &self.clicks, sums);
    }
}

/// 32-bit numbers whose sum is `clicks`: nearly always one; none for 0.
fn pieces(clicks: i64) -> impl Iterator<Item = i32> {
    let mut left = clicks;
    std::iter::from_fn(move || {
        let piece = left.clamp(i32::MIN.into(), i32::MAX.into());
        left -= piece;
        i32::try_from(piece).ok().filter(|&piece| piece != 0)
    })
}

fn add(ads: &[u32], clicks: &[i32], sums: &mut [i64]) {
    for (&ad, &clicks) in ads.iter().zip(clicks) {
        sums[ad as usize] += i64::from(clicks);
    }
}
