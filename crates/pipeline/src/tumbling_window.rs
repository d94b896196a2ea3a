//! Stage: clicks per (minute, ad, country) of one epoch.

use adtally_model::{Country, Minute, MinuteCounts};
use hashbrown::HashTable;
use std::collections::BTreeMap;

/// One row of a window under construction.
#[derive(Clone, Copy, Debug)]
struct Cell {
    ad_id: u64,
    country: Country,
    clicks: u32,
}

/// Clicks of one minute in one epoch, not yet sorted.
#[derive(Debug, Default)]
pub struct Window {
    cells: HashTable<Cell>,
}

/// The windows that an epoch touched.
#[derive(Debug, Default)]
pub struct Windows {
    windows: BTreeMap<Minute, Window>,
}

/// Spreads an ad and a country over 64 bits: a multiplicative hash, folded so that the high bits count (Knuth, TAOCP 3,
/// 6.4, by way of 128-bit multiplication).
#[inline]
fn hash(ad_id: u64, country: Country) -> u64 {
    let mixed = u128::from(ad_id ^ u64::from(country.rank()) << 56) * 0x9e37_79b9_7f4a_7c15;
    (mixed >> 64) as u64 ^ mixed as u64
}

impl Window {
    /// Counts one click.
    #[inline]
    pub(crate) fn add(&mut self, ad_id: u64, country: Country) {
        self.cells
            .entry(
                hash(ad_id, country),
                |cell| cell.ad_id == ad_id && cell.country == country,
                |cell| hash(cell.ad_id, cell.country),
            )
            .and_modify(|cell| cell.clicks += 1)
            .or_insert(Cell { ad_id, country, clicks: 1 });
    }

    /// Its rows in order.
    fn finish(self, minute: Minute) -> MinuteCounts {
        let mut cells: Vec<Cell> = self.cells.into_iter().collect();
        cells.sort_unstable_by_key(|cell| (cell.ad_id, cell.country));
        let mut counts = MinuteCounts::empty(minute);
        counts.ad_id.reserve_exact(cells.len());
        counts.country.reserve_exact(cells.len());
        counts.clicks.reserve_exact(cells.len());
        for cell in cells {
            counts.push(cell.ad_id, cell.country, cell.clicks);
        }
        counts
    }
}

impl Windows {
    /// The window of a minute.
    #[inline]
    pub(crate) fn window(&mut self, minute: Minute) -> &mut Window {
        self.windows.entry(minute).or_default()
    }

    /// Sorts what was counted: the costly part of an epoch's end, which may run on another thread.
    pub fn finish(self) -> Vec<MinuteCounts> {
        self.windows.into_iter().map(|(minute, window)| window.finish(minute)).collect()
    }
}
