//! Retention: removes files from a table when all their rows are too old; vacuum deletes them later.
//!
//! Age is relative to the lake's final frontier, or to its guarded clock if that is earlier. So data that is read years
//! after it was logged is kept as long as if it had been read at once, and no wrong clock deletes anything.

use super::{Change, KEPT_FROM, LakeProgress, RollUp};
use crate::lake::files::FileEntry;
use crate::lake::{Lake, Table};
use adtally_model::settings::{DAY, Span};
use adtally_model::time::MINUTE_MS;
use adtally_model::{Minute, Result};
use deltalake_core::protocol::DeltaOperation;
use serde::Deserialize;

/// Maximum files removed from one table in one commit; the next call removes more.
const FILES_MAX: usize = 10_000;

/// The longest retention time, in milliseconds: a hundred years.
const KEPT_MAX: i64 = 36_500 * DAY;

/// How long rows are kept, in milliseconds. Days are kept forever.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub struct Keep {
    /// Raw clicks.
    #[serde(rename = "keep_clicks", deserialize_with = "Span::<DAY, KEPT_MAX>::ms")]
    pub clicks_ms: i64,
    /// Counts by minute: longer than the longest range in memory, which is rebuilt from them.
    #[serde(rename = "keep_minutes", deserialize_with = "Span::<{ 8 * DAY }, KEPT_MAX>::ms")]
    pub minutes_ms: i64,
    /// Counts by hour.
    #[serde(rename = "keep_hours", deserialize_with = "Span::<{ 8 * DAY }, KEPT_MAX>::ms")]
    pub hours_ms: i64,
    /// Dead letters and the ledger.
    #[serde(rename = "keep_dead_letters", deserialize_with = "Span::<DAY, KEPT_MAX>::ms")]
    pub letters_ms: i64,
}

impl Default for Keep {
    fn default() -> Self {
        Keep { clicks_ms: 30 * DAY, minutes_ms: 35 * DAY, hours_ms: 400 * DAY, letters_ms: 400 * DAY }
    }
}

impl Lake {
    /// Removes files whose rows are too old; counts only once they are rolled up. Returns the number of removed files.
    ///
    /// # Errors
    /// External when the store fails.
    pub async fn retain(&self, keep: &Keep, reached: &LakeProgress) -> Result<u64> {
        let Some(final_ms) = reached.final_ms() else { return Ok(0) };
        let now_ms = final_ms.min(reached.clock_ms());
        let mut removed = 0;
        for (table, kept_ms) in [
            (Table::Clicks, keep.clicks_ms),
            (Table::ClicksByMinute, keep.minutes_ms),
            (Table::ClicksByHour, keep.hours_ms),
            (Table::DeadLetters, keep.letters_ms),
            (Table::Ledger, keep.letters_ms),
        ] {
            let from = RollUp::Hour.floor(Minute::of(now_ms.saturating_sub(kept_ms)));
            let sums = match table {
                Table::ClicksByMinute => Some(RollUp::Hour),
                Table::ClicksByHour => Some(RollUp::Day),
                _ => None,
            };
            let from = match sums {
                None => from,
                Some(sums) => match self.rolled_up_in_all(sums, reached).await? {
                    None => continue,
                    // Only whole spans are removed, so that a query that begins with a span can use its sum.
                    Some(end) => sums.floor(from).min(end),
                },
            };
            removed += self.remove_before(table, from, reached).await?;
        }
        Ok(removed)
    }

    /// The end of the spans that are rolled up in every partition with rows; `None` while one of them has no roll-ups.
    async fn rolled_up_in_all(&self, roll_up: RollUp, reached: &LakeProgress) -> Result<Option<Minute>> {
        let mut least: Option<Minute> = None;
        let source = self.table(roll_up.source()).files().await?;
        let has_rows = |partition| source.files.iter().any(|file| file.bounds.reaches(partition, 0));
        for progress in reached.partitions.iter().filter(|progress| has_rows(progress.partition)) {
            let Some(end) = self.rolled_up(roll_up, progress.partition).await? else { return Ok(None) };
            least = Some(least.map_or(end, |least| least.min(end)));
        }
        Ok(least)
    }

    /// Removes the files whose rows are all before `from`, and records that rows are complete only from then on.
    async fn remove_before(&self, table: Table, from: Minute, reached: &LakeProgress) -> Result<u64> {
        let table = self.table(table);
        let index = table.files().await?;
        let held = self.held_with_corrections(reached).await?;
        let goes = |file: &&FileEntry| {
            let old = file.bounds.time_ms.is_some_and(|(_, end)| end <= from.start_ms());
            // The newest ledger is needed to know which epochs all tables contain.
            let is_newest = |(partition, epoch)| file.bounds.reaches(partition, epoch);
            let needed = table.table == Table::Ledger && held.iter().any(is_newest);
            old && !needed && held.surely_hold(&file.bounds)
        };
        let removes: Vec<&FileEntry> = index.files.iter().filter(goes).take(FILES_MAX).collect();
        if removes.is_empty() {
            return Ok(0);
        }
        let before = index.kept_from(table.table).await?.map(|minute| minute.0 * MINUTE_MS);
        let after = from.start_ms().max(before.unwrap_or(i64::MIN));
        let files = removes.len() as u64;
        // If the mark does not change, it cannot show whether this was done; the files can.
        let (mark, also) = match before == Some(after) {
            true => (None, vec![(KEPT_FROM.to_owned(), after)]),
            false => (Some((KEPT_FROM.to_owned(), before, after)), Vec::new()),
        };
        let operation = DeltaOperation::Delete { predicate: None };
        let change = Change { mark, also, adds: Vec::new(), removes, operation, at_ms: reached.now_ms };
        Ok(if table.change(&change).await? { files } else { 0 })
    }
}
