//! Rows of the queries' answers.

use adtally_model::{ClickRef, Country, Error, Minute, MinuteCounts, Result};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use std::collections::BTreeMap;

/// The owned fields of a click.
#[derive(Debug)]
pub(crate) struct Click {
    event_time_ms: i64,
    ad_id: u64,
    country: Country,
    ip: u128,
    user_id: String,
    click_id: String,
}

impl Click {
    pub(super) fn as_ref(&self) -> ClickRef<'_> {
        ClickRef {
            event_time_ms: self.event_time_ms,
            ad_id: self.ad_id,
            country: self.country,
            ip: self.ip,
            user_id: self.user_id.as_bytes(),
            click_id: self.click_id.as_bytes(),
        }
    }
}

/// A click of an answer, with the line that it comes from.
#[derive(Debug)]
pub(crate) struct Row {
    /// The verdict of its line, if the query returns one.
    pub(super) cause: Option<String>,
    pub(super) click: Click,
    pub(super) input: String,
    pub(super) position: u64,
}

/// The minute of a time in microseconds.
pub(super) fn minute_of(us: i64) -> Minute {
    Minute::of(us.div_euclid(1_000))
}

fn unexpected(what: &str) -> Error {
    Error::corrupt(format!("a query of the recount returned {what}: a row of the lake was damaged or added by hand"))
}

fn column(batch: &RecordBatch, name: &str, to: &DataType) -> Result<ArrayRef> {
    let column = batch.column_by_name(name).ok_or_else(|| unexpected(&format!("no column `{name}`")))?;
    cast(column, to).map_err(|error| unexpected(&format!("another type in `{name}`")).because(error))
}

pub(super) fn longs(batch: &RecordBatch, name: &str) -> Result<ArrayRef> {
    column(batch, name, &DataType::Int64)
}

pub(super) fn texts(batch: &RecordBatch, name: &str) -> Result<ArrayRef> {
    column(batch, name, &DataType::Utf8)
}

/// Times in microseconds.
pub(super) fn times(batch: &RecordBatch, name: &str) -> Result<ArrayRef> {
    let times = column(batch, name, &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())))?;
    cast(&times, &DataType::Int64).map_err(|error| unexpected("a time that is none").because(error))
}

/// The clicks of an answer.
pub(super) fn rows_of(batches: &[RecordBatch]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for batch in batches {
        let (at, ads, positions) =
            (times(batch, "click_timestamp")?, longs(batch, "ad_id")?, longs(batch, "position")?);
        let (users, ips) = (texts(batch, "user_id")?, texts(batch, "ip")?);
        let (countries, click_ids) = (texts(batch, "country")?, texts(batch, "click_id")?);
        let inputs = texts(batch, "input")?;
        let causes = batch.column_by_name("verdict").map(|_| texts(batch, "verdict")).transpose()?;
        let long = |column: &ArrayRef, row: usize| column.as_primitive::<Int64Type>().value(row);
        let text = |column: &ArrayRef, row: usize| column.as_string::<i32>().value(row).to_owned();
        for row in 0..batch.num_rows() {
            let ip = text(&ips, row);
            let click = Click {
                event_time_ms: long(&at, row).div_euclid(1_000),
                ad_id: u64::try_from(long(&ads, row)).map_err(|_| unexpected("a negative ad"))?,
                country: Country::parse(text(&countries, row).as_bytes()),
                ip: adtally_model::ip::parse(ip.as_bytes())
                    .ok_or_else(|| unexpected(&format!("the address {ip:?}")))?,
                user_id: text(&users, row),
                click_id: if click_ids.is_valid(row) { text(&click_ids, row) } else { String::new() },
            };
            rows.push(Row {
                cause: causes.as_ref().map(|causes| text(causes, row)),
                click,
                input: text(&inputs, row),
                position: u64::try_from(long(&positions, row)).map_err(|_| unexpected("a negative position"))?,
            });
        }
    }
    Ok(rows)
}

/// The counts of an answer of spans, ads, countries and clicks.
pub(super) fn differences(batches: &[RecordBatch]) -> Result<Vec<MinuteCounts>> {
    let mut rows = Vec::new();
    for batch in batches {
        let (minutes, ads) = (times(batch, "span")?, longs(batch, "ad_id")?);
        let (countries, clicks) = (texts(batch, "country")?, longs(batch, "clicks")?);
        let long = |column: &ArrayRef, row: usize| column.as_primitive::<Int64Type>().value(row);
        for row in 0..batch.num_rows() {
            let ad = u64::try_from(long(&ads, row)).map_err(|_| unexpected("a negative ad"))?;
            let country = Country::parse(countries.as_string::<i32>().value(row).as_bytes());
            rows.push(((minute_of(long(&minutes, row)), ad, country), long(&clicks, row)));
        }
    }
    Ok(counts_of(rows))
}

/// Sums signed clicks by minute, ad and country.
pub(super) fn counts_of(rows: impl IntoIterator<Item = ((Minute, u64, Country), i64)>) -> Vec<MinuteCounts> {
    let mut sums: BTreeMap<(Minute, u64, Country), i64> = BTreeMap::new();
    for (key, clicks) in rows {
        *sums.entry(key).or_default() += clicks;
    }
    let mut minutes: Vec<MinuteCounts> = Vec::new();
    for ((minute, ad, country), clicks) in sums.into_iter().filter(|&(_, clicks)| clicks != 0) {
        if minutes.last().is_none_or(|last| last.minute != minute) {
            minutes.push(MinuteCounts::empty(minute));
        }
        if let Some(counts) = minutes.last_mut() {
            counts.push(ad, country, clicks);
        }
    }
    minutes
}

/// The rows of an answer whose columns are integers and times; times are in microseconds.
pub(super) fn numbers(batches: &[RecordBatch]) -> Result<Vec<Vec<i64>>> {
    let mut rows = Vec::new();
    for batch in batches {
        let names: Vec<String> = batch.schema().fields().iter().map(|field| field.name().clone()).collect();
        let is_time = |at: usize| matches!(batch.column(at).data_type(), DataType::Timestamp(..));
        let columns = names.iter().enumerate().map(|(at, name)| match is_time(at) {
            true => times(batch, name),
            false => longs(batch, name),
        });
        let columns: Vec<ArrayRef> = columns.collect::<Result<_>>()?;
        for row in 0..batch.num_rows() {
            rows.push(columns.iter().map(|column| column.as_primitive::<Int64Type>().value(row)).collect());
        }
    }
    Ok(rows)
}
