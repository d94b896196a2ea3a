//! Counts by minute, hour and day, as readers see them, and the stored clicks that they should equal.

use super::{Recount, between, failed, plain};
use adtally_model::reconcile::Cause;
use adtally_model::{Minute, RECONCILE, Result};
use adtally_store::epoch_log::EpochLogs;
use adtally_store::lake::{Lake, RollUp};
use datafusion::arrow::datatypes::DataType;
use datafusion::functions::datetime::expr_fn::date_trunc;
use datafusion::logical_expr::{Expr, cast};
use datafusion::prelude::{DataFrame, col, lit};

/// A length of time for which counts are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Level {
    Minute,
    Hour,
    Day,
}

impl Level {
    fn unit(self) -> &'static str {
        match self {
            Level::Minute => "minute",
            Level::Hour => "hour",
            Level::Day => "day",
        }
    }

    /// The cause of corrections of its counts.
    pub(crate) const fn cause(self) -> Cause {
        match self {
            Level::Minute => Cause::Count,
            Level::Hour => Cause::HourCount,
            Level::Day => Cause::DayCount,
        }
    }

    /// The minutes of one of its spans.
    pub(crate) const fn minutes(self) -> i64 {
        match self {
            Level::Minute => 1,
            Level::Hour => 60,
            Level::Day => 1_440,
        }
    }

    /// The first minute of the span of a minute.
    pub(crate) const fn floor(self, minute: Minute) -> Minute {
        Minute(minute.0 - minute.0.rem_euclid(self.minutes()))
    }

    /// The first minute of the first span that does not begin before a minute.
    pub(crate) const fn ceil(self, minute: Minute) -> Minute {
        self.floor(Minute(minute.0.saturating_add(self.minutes() - 1)))
    }
}

/// Up to where the counts of each source partition are rolled up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rolled(Vec<(u32, [Option<Minute>; 2])>);

impl Rolled {
    /// Reads it. This must precede the choice of the epochs: rolled-up rows have the epoch at which they were written.
    pub(crate) async fn read(lake: &Lake, logs: &EpochLogs) -> Result<Rolled> {
        let mut all = Vec::new();
        for partition in logs.partitions().await?.into_iter().filter(|&partition| partition != RECONCILE) {
            let mut ends = [None; 2];
            for (roll_up, end) in RollUp::ALL.into_iter().zip(&mut ends) {
                *end = lake.rolled_up(roll_up, partition).await?;
            }
            all.push((partition, ends));
        }
        Ok(Rolled(all))
    }

    /// The condition that readers who sum spans of a level use rows of another one, or of the same. Readers use the longest
    /// rolled-up spans of each source partition. Corrections are in all tables at once.
    fn used_from(&self, table: Level, level: Level) -> Expr {
        let corrections = if table == level { col("partition").eq(lit(i64::from(RECONCILE))) } else { lit(false) };
        let used = |&(partition, [hours, days]): &(u32, [Option<Minute>; 2])| {
            let never = Minute(i64::MIN);
            let (hours, days) = (hours.unwrap_or(never), days.unwrap_or(never));
            let (from, to) = match (table, level) {
                (Level::Minute, Level::Minute) => (never, Minute(i64::MAX)),
                (Level::Minute, Level::Hour) => (hours, Minute(i64::MAX)),
                (Level::Minute, Level::Day) => (hours.max(days), Minute(i64::MAX)),
                (Level::Hour, Level::Hour) => (never, hours),
                (Level::Hour, Level::Day) => (days, hours),
                (Level::Day, Level::Day) => (never, days),
                (Level::Hour, Level::Minute) | (Level::Day, Level::Minute | Level::Hour) => (never, never),
            };
            col("partition").eq(lit(i64::from(partition))).and(between(table.unit(), from, to))
        };
        self.0.iter().map(used).fold(corrections, Expr::or)
    }
}

impl Recount<'_> {
    /// The counts of `[from, to)` by the spans of a level, as readers sum them: `span`, `ad_id`, `country`, `clicks`.
    pub(super) async fn counted(&self, level: Level, from: Minute, to: Minute, ads: Option<Expr>) -> Result<DataFrame> {
        let mut counted: Option<DataFrame> = None;
        for (table, name) in
            [(Level::Minute, "clicks_by_minute"), (Level::Hour, "clicks_by_hour"), (Level::Day, "clicks_by_day")]
        {
            if table.minutes() > level.minutes() {
                break;
            }
            let is_used = match (table, level) {
                (Level::Minute, Level::Minute) => lit(true),
                _ => self.rolled.used_from(table, level),
            };
            let rows = self.rows(name, table.unit(), from, to).await?.filter(is_used).map_err(failed)?;
            let rows = spans(rows, date_trunc(lit(level.unit()), plain(table.unit())), col("clicks"), ads.clone())?;
            counted = Some(match counted {
                Some(counted) => counted.union(rows).map_err(failed)?,
                None => rows,
            });
        }
        counted.ok_or_else(|| adtally_model::Error::internal("no table of counts: please report this"))
    }

    /// The stored clicks of `[from, to)` by the spans of a level, with the columns of [`Recount::counted`].
    pub(super) async fn stored(&self, level: Level, from: Minute, to: Minute, ads: Option<Expr>) -> Result<DataFrame> {
        let rows = self.rows("clicks", "click_timestamp", from, to).await?;
        let span = date_trunc(lit(level.unit()), plain("click_timestamp"));
        spans(rows, span, cast(col("sign"), DataType::Int64), ads)
    }
}

/// Selects the columns that are compared.
fn spans(rows: DataFrame, span: Expr, clicks: Expr, ads: Option<Expr>) -> Result<DataFrame> {
    let rows = match ads {
        Some(ads) => rows.filter(ads).map_err(failed)?,
        None => rows,
    };
    let country = cast(col("country"), DataType::Utf8).alias("country");
    rows.select(vec![span.alias("span"), col("ad_id"), country, clicks.alias("clicks")]).map_err(failed)
}
