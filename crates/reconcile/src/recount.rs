//! The recount: compares the stored clicks with the counts and the dead letters, in SQL that shares no code with the
//! pipeline. The queries are the files in `recount/sql`, which other engines can run as well.

mod intake;
mod letters;
mod levels;
mod rows;
mod slices;
mod xxhash64;

pub(crate) use letters::Letters;
pub(crate) use levels::{Level, Rolled};
pub(crate) use slices::{Hours, Slice, slices};

use crate::compare::union;
use adtally_model::reconcile::{Cause, EpochOf};
use adtally_model::time::rfc3339;
use adtally_model::{ClickColumns, ClickRef, Error, ErrorKind, Identity, Minute, MinuteCounts, RECONCILE, Result};
use adtally_store::lake::{Epochs, Lake, Table};
use arrow::array::{Array, RecordBatch};
use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::error::DataFusionError;
use datafusion::functions::datetime::expr_fn::date_trunc;
use datafusion::functions::math::expr_fn::abs;
use datafusion::functions_aggregate::count::count_all;
use datafusion::functions_aggregate::expr_fn::{min, sum};
use datafusion::logical_expr::{Expr, ScalarUDF, cast};
use datafusion::prelude::{DataFrame, SessionContext, col, lit};
use datafusion::scalar::ScalarValue;
use futures::StreamExt;
use futures::stream::BoxStream;
use rows::{Row, counts_of, differences, numbers, rows_of};
use std::collections::BTreeMap;
use std::fmt;

const RECOVERED: &str = include_str!("recount/sql/recovered.sql");
const STORED_TWICE: &str = include_str!("recount/sql/stored_twice.sql");
const COUNTS: &str = include_str!("recount/sql/counts.sql");
const SUMS: &str = include_str!("recount/sql/sums.sql");
const REVERT: &str = include_str!("recount/sql/revert.sql");
const DAMAGED: &str = include_str!("recount/sql/damaged.sql");

/// Memory that the queries may use. A slice of [`slices::ROWS_MAX`] rows takes about a third of it.
const MEMORY_BYTES_MAX: usize = 1 << 30;

/// How many rows of `clicks` a dead letter counts as when minutes are divided into slices. Recovered clicks are in memory.
const LETTER_ROWS: u64 = 8;

/// Clicks of one correction, as a block of lines.
#[derive(Debug, Default)]
pub(crate) struct FoundClicks {
    pub(crate) columns: ClickColumns,
    /// Input and position of each row.
    pub(crate) lines: Vec<(String, u64)>,
}

/// Of each span, under its first minute: the sum of its clicks, and their sum weighted with a hash of ad and country.
pub(crate) type Sums = BTreeMap<Minute, [i64; 2]>;

/// The corrections that a slice of minutes needs.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Clicks to add, by cause.
    pub(crate) recovered: BTreeMap<Cause, FoundClicks>,
    /// Rows to reverse.
    pub(crate) stored_twice: FoundClicks,
    /// What the counts by minute lack, compared with the stored clicks.
    pub(crate) counts: Vec<MinuteCounts>,
}

/// An hour whose clicks are not those that the ledger says were stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Damaged {
    pub(crate) hour: Minute,
    what: Damage,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Damage {
    /// Rows of an epoch too many, or missing if it is negative. If it is 0, they are other rows.
    Rows { partition: u32, epoch: u64, rows: i64 },
    /// A file is missing or damaged, for this reason.
    Unreadable(String),
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hour = rfc3339(self.hour.start_ms());
        match &self.what {
            Damage::Unreadable(reason) => write!(f, "`clicks` cannot be read in the hour {hour}: {reason}"),
            Damage::Rows { partition, epoch, rows } => {
                let what = match *rows {
                    0 => "rows that are not those that were stored".to_owned(),
                    missing @ ..0 => format!("{} rows too few", missing.unsigned_abs()),
                    more => format!("{more} rows too many"),
                };
                write!(f, "`clicks` has {what} in the hour {hour}, of epoch {epoch} of partition {partition}")
            }
        }
    }
}

/// The tables at one vector of epochs.
pub(crate) struct Recount<'a> {
    lake: &'a Lake,
    session: SessionContext,
    rolled: Rolled,
}

impl<'a> Recount<'a> {
    /// Opens the tables at `cut`, which includes the partition `reconcile`. `rolled` was read before `cut` was chosen.
    pub(crate) async fn open(lake: &'a Lake, cut: &Epochs, rolled: Rolled) -> Result<Recount<'a>> {
        Ok(Recount { lake, session: lake.session_at(cut, MEMORY_BYTES_MAX).await?, rolled })
    }

    /// Clicks and unsettled dead letters by hour of event time in `[from, to)`.
    pub(crate) async fn hours(&self, from: Minute, to: Minute) -> Result<Hours> {
        let mut hours: Hours = self.lake.click_rows_by_hour().await?;
        hours.retain(|&hour, _| hour.0 + 60 > from.0 && hour < to);
        let letters = self.rows("dead_letters", "click_timestamp", from, to).await?.filter(is_unsettled());
        let hour = date_trunc(lit("hour"), col("click_timestamp"));
        let by_hour = letters.and_then(|rows| rows.aggregate(vec![hour], vec![count_all()])).map_err(failed)?;
        for row in numbers(&by_hour.collect().await.map_err(failed)?)? {
            *hours.entry(rows::minute_of(row[0])).or_default() += LETTER_ROWS * row[1].unsigned_abs();
        }
        Ok(hours)
    }

    /// The minutes of `[from, to)` for which a source partition has counts or dead letters after `cut`.
    pub(crate) async fn changed(&self, from: Minute, to: Minute, cut: &Epochs) -> Result<Vec<Minute>> {
        let mut minutes = Vec::new();
        for (table, time, condition) in
            [("clicks_by_minute", "minute", lit(true)), ("dead_letters", "click_timestamp", is_unsettled())]
        {
            let is_source = col("partition").not_eq(lit(i64::from(RECONCILE)));
            let changed = self.rows(table, time, from, to).await?.filter(is_source.and(beyond(cut)).and(condition));
            let minute = date_trunc(lit("minute"), col(time)).alias("minute");
            let found = changed.and_then(|rows| rows.select(vec![minute])).and_then(|rows| rows.distinct());
            let found = found.map_err(failed)?.collect().await.map_err(failed)?;
            minutes.extend(numbers(&found)?.into_iter().map(|row| rows::minute_of(row[0])));
        }
        minutes.sort_unstable();
        minutes.dedup();
        Ok(minutes)
    }

    /// Checks that `clicks` is whole in some hours, `[from, to)`.
    pub(crate) async fn damaged(&self, from: Minute, to: Minute) -> Result<Vec<Damaged>> {
        match self.damaged_rows(from, to).await {
            Err(error) if error.kind() == ErrorKind::Corrupt => {}
            found => return found,
        }
        // A file cannot be read. A file has the clicks of one hour.
        let (mut damaged, mut at) = (Vec::new(), from);
        for hour in self.lake.click_rows_by_hour().await?.into_keys().filter(|hour| (from..to).contains(hour)) {
            if at < hour {
                damaged.extend(self.damaged_rows(at, hour).await?);
            }
            at = Minute(hour.0 + Level::Hour.minutes());
            match self.damaged_rows(hour, at).await {
                Ok(rows) => damaged.extend(rows),
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    damaged.push(Damaged { hour, what: Damage::Unreadable(error.report()) });
                }
                Err(error) => return Err(error),
            }
        }
        if at < to {
            damaged.extend(self.damaged_rows(at, to).await?);
        }
        Ok(damaged)
    }

    async fn damaged_rows(&self, from: Minute, to: Minute) -> Result<Vec<Damaged>> {
        let views = self.views(&[("clicks", &["click_timestamp"])], from, to).await?;
        let ledger = self.session.table("ledger").await.map_err(failed)?;
        let ledger = ledger.filter(between("event_hour", from, to).or(col("event_hour").is_null()));
        let ledger = ledger.and_then(|rows| rows.with_column("event_hour", plain("event_hour"))).map_err(failed)?;
        views.register_table("ledger", ledger.into_view()).map_err(failed)?;
        let rows = numbers(&query(&views, DAMAGED).await?)?;
        let damaged = |row: Vec<i64>| Damaged {
            hour: rows::minute_of(row[0]),
            what: Damage::Rows {
                partition: u32::try_from(row[1]).unwrap_or_default(),
                epoch: row[2].unsigned_abs(),
                rows: row[3],
            },
        };
        Ok(rows.into_iter().map(damaged).collect())
    }

    /// The corrections that the minutes `[from, to)` need.
    ///
    /// # Errors
    /// External when a store fails, or [when fewer minutes may do](is_out_of_memory).
    pub(crate) async fn find(&self, from: Minute, to: Minute) -> Result<Found> {
        let letters: (&str, &[&str]) = ("dead_letters", &["click_timestamp", "received_at"]);
        let views = self.views(&[("clicks", &["click_timestamp"]), letters], from, to).await?;
        let mut found = Found::default();
        for row in rows_of(&query(&views, RECOVERED).await?)? {
            let cause = if row.cause.as_deref() == Some("future") { Cause::Future } else { Cause::Late };
            found.recovered.entry(cause).or_default().add(row);
        }
        rows_of(&query(&views, STORED_TWICE).await?)?.into_iter().for_each(|row| found.stored_twice.add(row));
        found.counts = self.differences(Level::Minute, from, to, None).await?;
        Ok(found)
    }

    /// The sums of the stored clicks of `[from, to)` by the spans of a level.
    pub(crate) async fn stored_sums(&self, level: Level, from: Minute, to: Minute) -> Result<Sums> {
        self.sums(self.stored(level, from, to, None).await?).await
    }

    /// The sums of the counts of `[from, to)` by the spans of a level, as readers sum them.
    pub(crate) async fn counted_sums(&self, level: Level, from: Minute, to: Minute) -> Result<Sums> {
        self.sums(self.counted(level, from, to, None).await?).await
    }

    async fn sums(&self, counts: DataFrame) -> Result<Sums> {
        let views = without_tables(&self.session);
        views.register_table("counts", counts.into_view()).map_err(failed)?;
        let rows = numbers(&query(&views, SUMS).await?)?;
        Ok(rows.into_iter().map(|row| (rows::minute_of(row[0]), [row[1], row[2]])).collect())
    }

    /// What the counts of `[from, to)` lack, compared with the stored clicks, under the first minute of each span. With a
    /// part of the ads and the number of parts, only what that part lacks.
    pub(crate) async fn differences(
        &self,
        level: Level,
        from: Minute,
        to: Minute,
        ads: Option<(u64, u64)>,
    ) -> Result<Vec<MinuteCounts>> {
        differences(&query(&self.both_sides(level, from, to, ads).await?, COUNTS).await?)
    }

    /// A session with what is stored and what is counted.
    async fn both_sides(
        &self,
        level: Level,
        from: Minute,
        to: Minute,
        ads: Option<(u64, u64)>,
    ) -> Result<SessionContext> {
        let ads = ads.map(|(part, parts)| (col("ad_id") % lit(parts.cast_signed())).eq(lit(part.cast_signed())));
        let views = without_tables(&self.session);
        let stored = self.stored(level, from, to, ads.clone()).await?;
        let counted = self.counted(level, from, to, ads).await?;
        for (view, rows) in [("stored", stored), ("counted", counted)] {
            views.register_table(view, rows.into_view()).map_err(failed)?;
        }
        Ok(views)
    }

    /// The number of dead letters of `[from, to)`, read after `cut`, that could be clicks to recover.
    pub(crate) async fn letters(&self, from: Minute, to: Minute, cut: &[EpochOf]) -> Result<u64> {
        self.count_letters(from, to, cut, is_unsettled()).await
    }

    /// The number of those whose fields are not stored.
    pub(crate) async fn letters_without_fields(&self, from: Minute, to: Minute, cut: &[EpochOf]) -> Result<u64> {
        self.count_letters(from, to, cut, is_without_fields()).await
    }

    async fn count_letters(&self, from: Minute, to: Minute, cut: &[EpochOf], are: Expr) -> Result<u64> {
        let cut = cut.iter().map(|of| (of.partition, of.number)).collect();
        let letters = self.rows("dead_letters", "click_timestamp", from, to).await?;
        let letters = letters.filter(are.and(beyond(&cut))).map_err(failed)?;
        Ok(letters.count().await.map_err(failed)? as u64)
    }

    /// The first hour from a minute on of which the ledger says that clicks were stored.
    pub(crate) async fn first_hour(&self, from: Minute) -> Result<Option<Minute>> {
        let hours = self.rows("ledger", "event_hour", from, Minute(i64::MAX)).await?;
        let first = hours.aggregate(Vec::new(), vec![min(col("event_hour"))]).map_err(failed)?;
        let first = first.collect().await.map_err(failed)?;
        let is_some = first.first().is_some_and(|batch| batch.num_rows() > 0 && batch.column(0).is_valid(0));
        Ok(if is_some { numbers(&first)?.first().map(|row| rows::minute_of(row[0])) } else { None })
    }

    /// The rows of `[from, to)` of a table.
    async fn rows(&self, table: &str, time: &str, from: Minute, to: Minute) -> Result<DataFrame> {
        self.session.table(table).await.and_then(|rows| rows.filter(between(time, from, to))).map_err(failed)
    }

    /// A session whose tables have the rows of `[from, to)` alone. The tables are given with their times, first that of their
    /// clicks.
    async fn views(&self, tables: &[(&str, &[&str])], from: Minute, to: Minute) -> Result<SessionContext> {
        let views = without_tables(&self.session);
        for &(table, times) in tables {
            let mut rows = self.rows(table, times[0], from, to).await?;
            for time in times {
                rows = rows.with_column(time, plain(time)).map_err(failed)?;
            }
            views.register_table(table, rows.into_view()).map_err(failed)?;
        }
        Ok(views)
    }
}

/// A session with the memory and the settings of another one, and without its tables.
fn without_tables(session: &SessionContext) -> SessionContext {
    let session = SessionContext::new_with_config_rt(session.copied_config(), session.runtime_env());
    session.register_udf(ScalarUDF::from(xxhash64::Xxhash64::default()));
    session
}

async fn query(views: &SessionContext, query: &str) -> Result<Vec<RecordBatch>> {
    views.sql(query).await.map_err(failed)?.collect().await.map_err(failed)
}

/// The rows of `clicks` that a run of corrections made.
pub(crate) struct Made {
    session: SessionContext,
    /// Slices that cover its minutes.
    pub(crate) slices: Vec<Slice>,
    /// The hours that it corrected.
    pub(crate) hours: Vec<Slice>,
}

impl Made {
    /// Opens the rows of a run at `cut`, and those by which run `by` has reverted it so far.
    ///
    /// # Errors
    /// User when rows of the run are no longer kept; external when the store fails.
    pub(crate) async fn open(lake: &Lake, cut: &Epochs, run: u64, by: u64) -> Result<Made> {
        let session = lake.session_at(cut, MEMORY_BYTES_MAX).await?;
        let of = |run: u64| col("correction").eq(lit(run.to_string()));
        let corrections = session.table("corrections").await.map_err(failed)?;
        for (view, run) in [("made", run), ("undone", by)] {
            let epochs = corrections.clone().filter(of(run));
            let epochs = epochs.and_then(|rows| rows.aggregate(vec![col("epoch")], Vec::new())).map_err(failed)?;
            let epochs = numbers(&epochs.collect().await.map_err(failed)?)?;
            let epochs = epochs.into_iter().map(|row| lit(row[0])).collect();
            let is_of_run = col("partition").eq(lit(i64::from(RECONCILE))).and(col("epoch").in_list(epochs, false));
            let clicks = session.table("clicks").await.and_then(|rows| rows.filter(is_of_run)).map_err(failed)?;
            session.register_table(view, clicks.into_view()).map_err(failed)?;
        }
        let hour = date_trunc(lit("hour"), col("minute"));
        let hours =
            corrections.filter(of(run)).and_then(|rows| rows.aggregate(vec![hour], vec![sum(abs(col("clicks")))]));
        let hours = numbers(&hours.map_err(failed)?.collect().await.map_err(failed)?)?;
        let hours: Hours =
            hours.into_iter().map(|row| (rows::minute_of(row[0]), LETTER_ROWS * row[1].unsigned_abs())).collect();
        let (first, last) = (hours.keys().next().copied(), hours.keys().next_back().copied());
        let kept_from = lake.kept_from(Table::Clicks).await?;
        if let Some(kept_from) = kept_from.filter(|kept_from| first.is_some_and(|first| first < *kept_from)) {
            return Err(Error::user(format!(
                "run {run} corrected minutes before {}, whose raw clicks are no longer kept: it cannot be reverted",
                rfc3339(kept_from.start_ms())
            )));
        }
        let whole = first.zip(last).map(|(from, last)| Slice { from, to: Minute(last.0 + 60) });
        let corrected = hours.keys().map(|&hour| Slice { from: hour, to: Minute(hour.0 + Level::Hour.minutes()) });
        Ok(Made { session, slices: slices(whole.as_slice(), &hours), hours: union(corrected, 0) })
    }

    /// The rows of a slice with this sign that are not reverted yet.
    ///
    /// # Errors
    /// External when the store fails.
    pub(crate) async fn not_reverted(
        &self,
        &Slice { from, to }: &Slice,
        sign: i32,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let views = without_tables(&self.session);
        for (view, sign) in [("made", sign), ("undone", -sign)] {
            let rows = self.session.table(view).await.map_err(failed)?;
            let rows = rows.filter(between("click_timestamp", from, to).and(col("sign").eq(lit(sign))));
            views.register_table(view, rows.map_err(failed)?.into_view()).map_err(failed)?;
        }
        let rows = views.sql(REVERT).await.map_err(failed)?.execute_stream().await.map_err(failed)?;
        Ok(rows.map(|batch| batch.map_err(failed)).boxed())
    }
}

/// The clicks of a batch of an answer.
///
/// # Errors
/// Corrupt when a row of the lake was damaged.
pub(crate) fn clicks_of(batch: &RecordBatch) -> Result<Vec<Row>> {
    rows_of(std::slice::from_ref(batch))
}

impl FoundClicks {
    /// Adds a click of an answer.
    pub(crate) fn add(&mut self, Row { click, input, position, .. }: Row) {
        self.push(&click.as_ref(), input, position);
    }

    /// Adds a click, with the input and the position of its line.
    pub(crate) fn push(&mut self, click: &ClickRef<'_>, input: String, position: u64) {
        self.columns.push(click, 0, Identity(0));
        self.lines.push((input, position));
    }

    /// Counts of the rows `rows`, times `sign`.
    pub(crate) fn counts(&self, rows: std::ops::Range<usize>, sign: i64) -> Vec<MinuteCounts> {
        let keys = rows.map(|row| {
            let click = self.columns.get(row);
            ((Minute::of(click.event_time_ms), click.ad_id, click.country), sign)
        });
        counts_of(keys)
    }
}

/// The condition that a dead letter may be a click to recover.
fn is_unsettled() -> Expr {
    col("verdict").in_list(vec![lit("late"), lit("future")], false)
}

/// The condition that a dead letter may be a click, whose fields an earlier version did not store.
fn is_without_fields() -> Expr {
    is_unsettled().and(col("ad_id").is_null())
}

/// A time without its zone, which is UTC. The engine truncates such times many times faster than those with a zone.
fn plain(time: &str) -> Expr {
    cast(col(time), DataType::Timestamp(TimeUnit::Microsecond, None))
}

fn time(minute: Minute) -> Expr {
    let us = minute.0.saturating_mul(60_000_000);
    lit(ScalarValue::TimestampMicrosecond(Some(us), Some("UTC".into())))
}

fn between(column: &str, from: Minute, to: Minute) -> Expr {
    col(column).gt_eq(time(from)).and(col(column).lt(time(to)))
}

/// The condition that a row's epoch is after `cut`.
fn beyond(cut: &Epochs) -> Expr {
    let within = |(partition, epoch): (u32, u64)| {
        let last = i64::try_from(epoch).unwrap_or(i64::MAX);
        col("partition").eq(lit(i64::from(partition))).and(col("epoch").lt_eq(lit(last)))
    };
    cut.iter().map(within).reduce(Expr::or).map_or(lit(true), |within| !within)
}

/// An error of a query. The queries are constants, so only the stored data or the store can cause it.
fn failed(error: DataFusionError) -> Error {
    match error.find_root() {
        DataFusionError::ResourcesExhausted(_) => {
            Error::external(format!("the recount of one minute needs more than {} MiB", MEMORY_BYTES_MAX >> 20))
                .because(OutOfMemory)
        }
        _ => adtally_store::lake::query_error(error),
    }
}

/// A query needed more memory than it may use.
#[derive(Debug)]
struct OutOfMemory;

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a query used up its memory")
    }
}

impl std::error::Error for OutOfMemory {}

/// Whether a query needed too much memory, so that fewer minutes may do.
pub(crate) fn is_out_of_memory(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<OutOfMemory>())
}
