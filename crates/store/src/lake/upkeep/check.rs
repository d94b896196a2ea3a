//! Checks roll-ups: sums every span again from its source.

use super::roll_up::{ROWS_MAX, RollUp, gather, within_ads};
use crate::lake::Lake;
use crate::lake::counts::Selection;
use crate::lake::files::{Epochs, FileIndex};
use adtally_model::fold::merge_all;
use adtally_model::{Minute, MinuteCounts, Result};
use std::collections::BTreeMap;

/// The result of checking a roll-up.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RolledUp {
    /// The end of the rolled-up spans; `None` before the first.
    pub end: Option<Minute>,
    /// Spans whose sums differ.
    pub differing: Vec<Minute>,
}

impl Lake {
    /// Recomputes the spans that are rolled up in every source partition of `cut`, as far as their source is kept, and
    /// compares.
    ///
    /// # Errors
    /// External when the store fails, corrupt when a file is damaged.
    pub async fn check_rolled_up(&self, roll_up: RollUp, cut: &Epochs) -> Result<RolledUp> {
        let source = self.count_reader(roll_up.source(), Some(cut), Selection::default()).await?;
        let target = self.count_reader(roll_up.table(), Some(cut), Selection::default()).await?;
        let mut end: Option<Minute> = None;
        for (partition, _) in cut.of_sources().iter() {
            let Some(rolled) = target.index.rolled(roll_up, partition, cut).await? else {
                return Ok(RolledUp::default());
            };
            end = Some(end.map_or(rolled, |end| end.min(rolled)));
        }
        let Some(end) = end else { return Ok(RolledUp::default()) };
        let mut found = RolledUp { end: Some(end), differing: Vec::new() };
        let least =
            |index: &FileIndex| index.files.iter().filter_map(|file| file.bounds.time_ms).map(|(at, _)| at).min();
        let Some(least) = least(&source.index).into_iter().chain(least(&target.index)).min() else { return Ok(found) };
        let mut begin = roll_up.floor(Minute::of(least));
        if let Some(kept) = source.index.kept_from(roll_up.source()).await? {
            begin = begin.max(roll_up.ceil(kept));
        }
        let mut from_ad = 0;
        while begin < end {
            let sums = gather(&source, roll_up, (begin, end), from_ad, ROWS_MAX).await?;
            let mut rolled: BTreeMap<Minute, Vec<MinuteCounts>> = BTreeMap::new();
            let mut take = |counts: &MinuteCounts| {
                let counts = within_ads(counts.clone(), counts.minute, from_ad, sums.next_ad);
                rolled.entry(counts.minute).or_default().push(counts);
            };
            target.each((begin, sums.end), &mut take).await?;
            let mut rolled: BTreeMap<Minute, MinuteCounts> =
                rolled.into_iter().map(|(span, parts)| (span, merge_all(span, parts))).collect();
            for (span, sum) in &sums.spans {
                if rolled.remove(span).unwrap_or(MinuteCounts::empty(*span)) != *sum {
                    found.differing.push(*span);
                }
            }
            found.differing.extend(rolled.into_iter().filter(|(_, counts)| !counts.is_empty()).map(|(span, _)| span));
            match sums.next_ad {
                Some(next) => from_ad = next,
                None => (begin, from_ad) = (sums.end, 0),
            }
        }
        Ok(found)
    }

    /// The minute from which a table has all rows; `None` while nothing was deleted.
    ///
    /// # Errors
    /// External when the store fails.
    pub async fn kept_from(&self, table: super::Table) -> Result<Option<Minute>> {
        self.table(table).files().await?.kept_from(table).await
    }
}
