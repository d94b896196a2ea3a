//! Counts of long ranges: whole days and hours from the roll-ups, and minutes at the edges.

use super::Lake;
use super::counts::Selection;
use super::files::Epochs;
use super::schema::Table;
use super::upkeep::RollUp;
use adtally_model::{Minute, MinuteCounts, RECONCILE, Result};
use std::collections::BTreeMap;

impl Lake {
    /// Passes on the selected counts of `[from, to)` in the epochs up to `cut` that all tables contain, in pieces of
    /// bounded size. Each count is under the first minute of its day, hour or minute, and each click is counted once.
    ///
    /// # Errors
    /// User when an edge lies where only longer spans are kept; otherwise as [`Lake::counts`].
    pub async fn each_count(
        &self,
        (from, to): (Minute, Minute),
        cut: &Epochs,
        selection: Selection,
        mut show: impl FnMut(&MinuteCounts) + Send,
    ) -> Result<()> {
        let sources = cut.of_sources();
        match sources.iter().count() {
            0 => {}
            1 => self.each_count_of((from, to), &sources, selection, &mut show).await?,
            _ => self.each_count_of_several((from, to), &sources, selection, &mut show).await?,
        }
        match cut.last(RECONCILE) {
            0 => Ok(()),
            epoch => self.each_count_of((from, to), &Epochs::of(RECONCILE, epoch), selection, &mut show).await,
        }
    }

    async fn each_count_of_several(
        &self,
        (from, to): (Minute, Minute),
        cut: &Epochs,
        selection: Selection,
        mut show: impl FnMut(&MinuteCounts) + Send,
    ) -> Result<()> {
        for (is_rolled, cut) in self.rolled_alike(cut).await? {
            let mut from = from;
            if !is_rolled && let Some(kept) = self.kept_from(Table::ClicksByMinute).await? {
                // Minutes are deleted only once they are rolled up: these partitions began later.
                from = from.max(kept).min(to);
            }
            self.each_count_of((from, to), &cut, selection, &mut show).await?;
        }
        Ok(())
    }

    /// Groups the partitions whose hours and days are rolled up to the same ends, and says for each group whether it
    /// has any. So a partition that lags behind, or has no roll-ups yet, does not make others read their minutes.
    async fn rolled_alike(&self, cut: &Epochs) -> Result<Vec<(bool, Epochs)>> {
        let mut alike: BTreeMap<[Option<Minute>; 2], Epochs> = BTreeMap::new();
        for (partition, epoch) in cut.iter() {
            let mut ends = [None; 2];
            for (roll_up, end) in RollUp::ALL.into_iter().zip(&mut ends) {
                *end = self.rolled_up(roll_up, partition).await?;
            }
            alike.entry(ends).or_default().note(partition, epoch);
        }
        Ok(alike.into_iter().map(|(ends, cut)| (ends[0].is_some(), cut)).collect())
    }

    async fn each_count_of(
        &self,
        (from, to): (Minute, Minute),
        cut: &Epochs,
        selection: Selection,
        mut show: impl FnMut(&MinuteCounts) + Send,
    ) -> Result<()> {
        // The order matters: rows that one table has deleted are already in the next one.
        let minutes = self.count_reader(Table::ClicksByMinute, Some(cut), selection).await?;
        let hours = self.count_reader(Table::ClicksByHour, Some(cut), selection).await?;
        let days = self.count_reader(Table::ClicksByDay, Some(cut), selection).await?;
        let by_hour = whole(RollUp::Hour, (from, to), rolled(&hours.index, RollUp::Hour, cut).await?);
        let by_day = whole(RollUp::Day, by_hour, rolled(&days.index, RollUp::Day, cut).await?);
        let edges = [
            (Table::ClicksByMinute, &minutes, (from, by_hour.0)),
            (Table::ClicksByHour, &hours, (by_hour.0, by_day.0)),
        ];
        let back = [(Table::ClicksByDay, &days, by_day), (Table::ClicksByHour, &hours, (by_day.1, by_hour.1))];
        let parts = edges.into_iter().chain(back).chain([(Table::ClicksByMinute, &minutes, (by_hour.1, to))]);
        for (table, reader, (from, to)) in parts.filter(|(_, _, (from, to))| from < to) {
            reader.index.check_kept(table, from).await?;
            reader.each((from, to), &mut show).await?;
        }
        Ok(())
    }
}

async fn rolled(index: &super::files::FileIndex, roll_up: RollUp, cut: &Epochs) -> Result<Option<Minute>> {
    if cut.are_corrections() {
        // A correction is in all tables at once.
        return Ok(Some(Minute(i64::MAX)));
    }
    let mut end: Option<Minute> = None;
    for (partition, _) in cut.iter() {
        match index.rolled(roll_up, partition, cut).await? {
            None => return Ok(None),
            Some(found) => end = Some(end.map_or(found, |end| end.min(found))),
        }
    }
    Ok(end)
}

/// The whole rolled-up spans of a range, up to `end`; an empty range at the end of the range if there are none.
fn whole(roll_up: RollUp, (from, to): (Minute, Minute), end: Option<Minute>) -> (Minute, Minute) {
    let Some(end) = end else { return (to, to) };
    let (first, last) = (roll_up.ceil(from), roll_up.floor(to).min(end));
    if first < last { (first, last) } else { (to, to) }
}
