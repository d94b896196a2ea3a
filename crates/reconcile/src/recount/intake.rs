//! Finds out which of some clicks are not stored yet.

use super::{RECOVERED, Recount, between, failed, numbers, query, without_tables};
use crate::compare::union;
use crate::recount::{Level, Slice};
use adtally_model::{ClickColumns, Error, Minute, Result};
use arrow::array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use datafusion::logical_expr::Expr;
use std::sync::Arc;

/// Most ranges of hours in the condition of one query.
const RANGES_MAX: usize = 64;

impl Recount<'_> {
    /// The rows of `clicks` of which neither the table `clicks` nor an earlier one of these rows has the identity.
    pub(crate) async fn unknown(&self, clicks: &ClickColumns, rows: &[usize]) -> Result<Vec<usize>> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        // Only the hours of the clicks are read: in others, stored clicks can be damaged.
        let hour_of = |row: usize| Level::Hour.floor(Minute::of(clicks.event_time_ms[row]));
        let hours =
            rows.iter().map(|&row| Slice { from: hour_of(row), to: Minute(hour_of(row).0 + Level::Hour.minutes()) });
        let mut found = Vec::new();
        for ranges in union(hours, 0).chunks(RANGES_MAX) {
            let (first, last) = (ranges[0].from, ranges[ranges.len() - 1].to);
            let rows: Vec<usize> = rows.iter().copied().filter(|&row| (first..last).contains(&hour_of(row))).collect();
            found.extend(self.unknown_of(clicks, &rows, ranges).await?);
        }
        found.sort_unstable();
        Ok(found)
    }

    /// The same, of clicks of some ranges of hours.
    async fn unknown_of(&self, clicks: &ClickColumns, rows: &[usize], ranges: &[Slice]) -> Result<Vec<usize>> {
        let within = ranges.iter().map(|range| between("click_timestamp", range.from, range.to)).reduce(Expr::or);
        let views = without_tables(&self.session);
        let stored = self.session.table("clicks").await.map_err(failed)?;
        let stored = within.map_or(Ok(stored.clone()), |within| stored.filter(within)).map_err(failed)?;
        views.register_table("clicks", stored.into_view()).map_err(failed)?;
        views.register_batch("dead_letters", letters(clicks, rows)?).map_err(failed)?;
        let mut found: Vec<usize> = Vec::new();
        for batch in &query(&views, RECOVERED).await? {
            let position = batch.project(&[batch.schema().index_of("position").map_err(odd)?]).map_err(odd)?;
            found.extend(numbers(&[position])?.iter().filter_map(|row| usize::try_from(row[0]).ok()));
        }
        Ok(found)
    }
}

fn odd(error: arrow::error::ArrowError) -> Error {
    Error::internal("the clicks to take in do not fit a table: please report this").because(error)
}

/// The rows as late dead letters, whose position is the row.
fn letters(clicks: &ClickColumns, rows: &[usize]) -> Result<RecordBatch> {
    let click = || rows.iter().map(|&row| clicks.get(row));
    let text = |texts: Vec<Option<String>>| -> ArrayRef { Arc::new(StringArray::from(texts)) };
    let long = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let times = || {
        let us = click().map(|click| click.event_time_ms * 1_000);
        Arc::new(TimestampMicrosecondArray::from_iter_values(us).with_timezone("UTC")) as ArrayRef
    };
    let of_text = |bytes: &[u8]| Some(String::from_utf8_lossy(bytes).into_owned());
    let columns: [(&str, ArrayRef); 12] = [
        ("verdict", text(vec![Some("late".to_owned()); rows.len()])),
        ("input", text(vec![Some(String::new()); rows.len()])),
        ("position", Arc::new(Int64Array::from_iter_values(rows.iter().map(|&row| long(row as u64))))),
        ("received_at", times()),
        ("click_timestamp", times()),
        ("partition", Arc::new(Int32Array::from(vec![0; rows.len()]))),
        ("epoch", Arc::new(Int64Array::from(vec![0; rows.len()]))),
        ("ad_id", Arc::new(Int64Array::from_iter_values(click().map(|click| long(click.ad_id))))),
        ("user_id", text(click().map(|click| of_text(click.user_id)).collect())),
        ("ip", text(click().map(|click| Some(adtally_model::ip::format(click.ip).to_string())).collect())),
        ("country", text(click().map(|click| Some(click.country.as_str().to_owned())).collect())),
        ("click_id", text(click().map(|click| of_text(click.click_id).filter(|id| !id.is_empty())).collect())),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).map_err(odd)
}
