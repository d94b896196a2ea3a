//! Exact counts from raw clicks, for queries by address or user, and for recounting.
//!
//! Files are pruned by their statistics, row groups by statistics and Bloom filters. In the remaining groups, the
//! columns of the conditions are decoded first.

use super::Lake;
use super::counts::{LakeCounts, SignedCounts, countries, merged, spawned};
use super::files::{Epochs, LakeFile, group_bounds, ints, longs, minute_of_us, times};
use super::schema::Table;
use super::statistics::Bounds;
use crate::questions::Filters;
use adtally_model::{Minute, Result, StagedFile, StagedTable};
use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::error::ArrowError;
use futures::TryStreamExt;
use hashbrown::HashSet;
use object_store::path::Path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowPredicate, ArrowPredicateFn, RowFilter};
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use parquet::errors::ParquetError;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::statistics::Statistics;
use std::sync::Arc;

/// The clicks to count.
#[derive(Clone, Copy, Debug)]
pub struct ClickScan<'a> {
    /// First minute.
    pub from: Minute,
    /// The minute after the last.
    pub to: Minute,
    /// Conditions that combine with AND.
    pub filters: &'a Filters,
    /// The last epochs to read from the tables; `None` reads all.
    pub cut: Option<&'a Epochs>,
    /// Files of epochs that may not be projected yet. Those of epochs in the tables are not read twice.
    pub staged: &'a [StagedFile],
}

/// The conditions on a row, in the types of the columns.
#[derive(Clone, Debug)]
struct Conditions {
    from: Minute,
    to: Minute,
    country: Option<&'static str>,
    ip: Option<String>,
    user_id: Option<String>,
}

impl Lake {
    /// Counts raw clicks by minute, ad and country: those in the tables, up to the smallest epoch that all contain, and
    /// those in staged files of later epochs.
    ///
    /// # Errors
    /// User when clicks from `from` on are deleted, external when the store fails, corrupt when a file is missing.
    pub async fn scan_clicks(&self, scan: &ClickScan<'_>) -> Result<LakeCounts> {
        let conditions = Arc::new(Conditions {
            from: scan.from,
            to: scan.to,
            country: scan.filters.country.map(|country| country.as_str()),
            ip: scan.filters.ip.map(adtally_model::ip::format),
            user_id: scan.filters.user_id.clone(),
        });
        let held = self.epochs().await?;
        let epochs = scan.cut.map_or_else(|| held.clone(), |cut| held.least(cut));
        let table = self.table(Table::Clicks);
        let index = table.files().await?;
        index.check_kept(Table::Clicks, scan.from).await?;
        let mut wanted: Vec<(LakeFile, Option<Epochs>)> = Vec::new();
        for file in &index.files {
            if epochs.may_hold(&file.bounds) && file.bounds.may_meet(scan.from, scan.to) {
                wanted.push((table.reader(&file.path, file.size), Some(epochs.clone())));
            }
        }
        let mut seen = HashSet::new();
        for file in scan.staged.iter().filter(|file| file.table == StagedTable::Clicks) {
            let bounds = Bounds::read(Some(&file.stats), "click_timestamp");
            // Epochs in the tables were read from there above, whichever files now contain their rows.
            if !held.surely_hold(&bounds) && bounds.may_meet(scan.from, scan.to) && seen.insert(file.path.as_str()) {
                wanted.push((table.reader(&Path::from(file.path.as_str()), file.size), None));
            }
        }
        let reads = wanted.into_iter().map(|(file, cut)| {
            let conditions = Arc::clone(&conditions);
            spawned(async move { count_file(file, &conditions, cut.as_ref()).await })
        });
        let minutes = merged(reads.collect(), epochs.are_corrections()).await?;
        Ok(LakeCounts { minutes, epochs })
    }

    /// Recounts the clicks of `[from, to)` in the tables, for comparison with [`Lake::counts`].
    ///
    /// # Errors
    /// As [`Lake::scan_clicks`].
    pub async fn recount(&self, from: Minute, to: Minute, cut: Option<&Epochs>) -> Result<LakeCounts> {
        self.scan_clicks(&ClickScan { from, to, filters: &Filters::default(), cut, staged: &[] }).await
    }
}

impl Conditions {
    /// Whether a row group may have matching rows, by its statistics.
    fn may_meet(&self, group: &RowGroupMetaData) -> bool {
        if let Some((least, largest)) = group_bounds(group, "click_timestamp")
            && (minute_of_us(least) >= self.to || minute_of_us(largest) < self.from)
        {
            return false;
        }
        let column = group.columns().iter().find(|column| column.column_path().string() == "country");
        if let (Some(country), Some(Statistics::ByteArray(found))) =
            (self.country, column.and_then(|column| column.statistics()))
            && let (Some(least), Some(largest)) = (found.min_opt(), found.max_opt())
            && (country.as_bytes() < least.data() || country.as_bytes() > largest.data())
        {
            return false;
        }
        true
    }

    /// The conditions as filters on columns, the most selective one first.
    fn predicates(&self, builder: &ParquetRecordBatchStreamBuilder<LakeFile>) -> Vec<Box<dyn ArrowPredicate>> {
        let schema = builder.parquet_schema();
        let texts =
            [("user_id", self.user_id.clone()), ("ip", self.ip.clone()), ("country", self.country.map(str::to_owned))];
        let mut predicates: Vec<Box<dyn ArrowPredicate>> = Vec::new();
        for (name, wanted) in texts {
            let Some(wanted) = wanted else { continue };
            let mask = ProjectionMask::columns(schema, [name]);
            predicates.push(Box::new(ArrowPredicateFn::new(mask, move |batch| equal(&batch, &wanted))));
        }
        predicates
    }
}

/// Compares each row of a one-column batch with a text.
fn equal(batch: &RecordBatch, wanted: &str) -> Result<BooleanArray, ArrowError> {
    let column = batch.columns().first().and_then(|column| column.as_string_opt::<i32>());
    let column = column.ok_or_else(|| ArrowError::SchemaError("a text column has another type".to_owned()))?;
    let (ends, bytes) = (column.value_offsets(), column.value_data());
    let found = ends.windows(2).map(|ends| &bytes[ends[0] as usize..ends[1] as usize] == wanted.as_bytes());
    Ok(BooleanArray::new(found.collect(), column.nulls().cloned()))
}

async fn count_file(file: LakeFile, conditions: &Conditions, cut: Option<&Epochs>) -> Result<SignedCounts> {
    let failed = file.failure();
    let mut builder = file.open().await?;
    let mut groups = Vec::new();
    for group in 0..builder.metadata().num_row_groups() {
        if conditions.may_meet(builder.metadata().row_group(group))
            && may_contain(&mut builder, group, "user_id", conditions.user_id.as_deref()).await.map_err(&failed)?
            && may_contain(&mut builder, group, "ip", conditions.ip.as_deref()).await.map_err(&failed)?
        {
            groups.push(group);
        }
    }
    let mut sums = SignedCounts::default();
    if groups.is_empty() {
        return Ok(sums);
    }
    let columns = ["click_timestamp", "ad_id", "country", "partition", "epoch", "sign"];
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns);
    let filter = RowFilter::new(conditions.predicates(&builder));
    let mut batches =
        builder.with_row_groups(groups).with_projection(mask).with_row_filter(filter).build().map_err(&failed)?;
    let (mut current, mut rows) = (conditions.from, Vec::new());
    while let Some(batch) = batches.try_next().await.map_err(&failed)? {
        let clicked = times(&batch, "click_timestamp", &failed)?;
        let ads = longs(&batch, "ad_id", &failed)?.values();
        let partitions = ints(&batch, "partition", &failed)?.values();
        let epochs = longs(&batch, "epoch", &failed)?.values();
        let countries = countries(&batch, &failed)?;
        // Rows of earlier versions have no sign: they are clicks, not reversals.
        let signs = batch.column_by_name("sign").map(|_| ints(&batch, "sign", &failed)).transpose()?;
        let sign_of = |row| signs.filter(|signs| signs.is_valid(row)).map_or(1, |signs| signs.value(row).into());
        for row in 0..batch.num_rows() {
            let minute = minute_of_us(clicked[row]);
            let is_within = cut.is_none_or(|cut| cut.hold(partitions[row], epochs[row]));
            if !is_within || minute < conditions.from || minute >= conditions.to {
                continue;
            }
            if minute != current {
                sums.extend(current, &mut rows);
                current = minute;
            }
            rows.push((ads[row] as u64, countries[row], sign_of(row)));
        }
    }
    sums.extend(current, &mut rows);
    Ok(sums.summed())
}

/// Whether a row group may contain a text in a column, by its Bloom filter.
async fn may_contain(
    builder: &mut ParquetRecordBatchStreamBuilder<LakeFile>,
    group: usize,
    column: &str,
    wanted: Option<&str>,
) -> Result<bool, ParquetError> {
    let Some(wanted) = wanted else { return Ok(true) };
    let columns = builder.parquet_schema().columns();
    let Some(index) = columns.iter().position(|found| found.path().string() == column) else { return Ok(true) };
    let filter = builder.get_row_group_column_bloom_filter(group, index).await?;
    Ok(filter.is_none_or(|filter| filter.check(wanted)))
}
