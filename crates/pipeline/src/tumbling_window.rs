//! Stage: clicks per (minute, ad, country) of one epoch.
//!
//! While an epoch is built, each click is only appended, as a number for sorting. At the epoch's end the numbers are
//! radix-sorted, and runs of equal numbers are counted. This accesses memory in order; a table of counts would miss the
//! caches with every click.

use adtally_model::{ClickColumns, Country, Minute, MinuteCounts};
use std::collections::BTreeMap;

/// Ads below this fit into one number with their country. Larger ads are sorted by comparison.
const PACKED_ADS: u64 = 1 << 56;

/// Clicks of one minute in one epoch, in order of arrival.
#[derive(Debug, Default)]
pub struct Window {
    /// `ad << 8 | country` of each click.
    packed: Vec<u64>,
    /// Clicks whose ad is too large for `packed`.
    wide: Vec<(u64, Country)>,
}

/// The windows that an epoch touched.
#[derive(Debug, Default)]
pub struct Windows {
    windows: BTreeMap<Minute, Window>,
}

impl Window {
    /// Counts one click.
    #[inline]
    fn add(&mut self, ad_id: u64, country: Country) {
        if ad_id < PACKED_ADS {
            self.packed.push(ad_id << 8 | u64::from(country.rank()));
        } else {
            self.wide.push((ad_id, country));
        }
    }

    /// The sorted rows.
    fn finish(mut self, minute: Minute) -> MinuteCounts {
        radsort::sort(&mut self.packed);
        self.wide.sort_unstable();
        let mut counts = MinuteCounts::empty(minute);
        let rows = self.packed.chunk_by(|a, b| a == b).count() + self.wide.chunk_by(|a, b| a == b).count();
        counts.ad_id.reserve_exact(rows);
        counts.country.reserve_exact(rows);
        counts.clicks.reserve_exact(rows);
        for run in self.packed.chunk_by(|a, b| a == b) {
            let country = Country::from_rank(run[0] as u8).unwrap_or(Country::UNKNOWN);
            counts.push(run[0] >> 8, country, run.len() as i64);
        }
        for run in self.wide.chunk_by(|a, b| a == b) {
            counts.push(run[0].0, run[0].1, run.len() as i64);
        }
        counts
    }
}

impl Windows {
    /// Counts the clicks in `rows` of a batch. Returns the event time of the newest one.
    pub(crate) fn count_rows(&mut self, columns: &ClickColumns, mut rows: &[u32]) -> Option<i64> {
        let time = |row: u32| columns.event_time_ms[row as usize];
        let mut newest = None;
        while let Some(&first) = rows.first() {
            let minute = Minute::of(time(first));
            let window = self.windows.entry(minute).or_default();
            let run = rows.iter().take_while(|&&row| minute.contains(time(row))).count();
            let (of_minute, others) = rows.split_at(run);
            for &row in of_minute {
                window.add(columns.ad_id[row as usize], columns.country[row as usize]);
                newest = newest.max(Some(time(row)));
            }
            rows = others;
        }
        newest
    }

    /// Sorts the counted clicks: the expensive part of an epoch's end, which may run on another thread.
    pub fn finish(self) -> Vec<MinuteCounts> {
        self.windows.into_iter().map(|(minute, window)| window.finish(minute)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

        /// Windows count small and large ads like a map that counts one by one.
        #[test]
        fn clicks_are_counted(clicks in vec((prop_oneof![0_u64..50, PACKED_ADS - 2..PACKED_ADS + 2, Just(i64::MAX as u64)], 0_u8..4), 0..3_000)) {
            let mut window = Window::default();
            let mut expected: BTreeMap<(u64, Country), i64> = BTreeMap::new();
            for &(ad, rank) in &clicks {
                let country = Country::from_rank(rank).unwrap_or(Country::UNKNOWN);
                window.add(ad, country);
                *expected.entry((ad, country)).or_default() += 1;
            }
            let counts = window.finish(Minute(5));
            let found: Vec<((u64, Country), i64)> = counts.rows().map(|(ad, country, clicks)| ((ad, country), clicks)).collect();
            prop_assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
        }
    }
}
