//! Compaction: small files of one hour, or of one day, that is over become one, sorted, with the same rows. Where an hour
//! brings very many, they do not wait for its end; clicks do.
//!
//! Rows keep their partition and epoch, and files their statistics, encodings and Bloom filters, so that nothing about an
//! answer changes but what it costs. Files are read whole, a bounded number of bytes at a time; those that are large
//! enough, or too large in memory, are left as they are.

use super::{AsOf, Change, Tokens};
use crate::lake::clicks::click_properties;
use crate::lake::encode::{FileWriter, arrow_defect, long};
use crate::lake::files::FileEntry;
use crate::lake::project::new_add;
use crate::lake::rows::{count_properties, plain_properties};
use crate::lake::statistics::Statistics;
use crate::lake::{Lake, LakeTable, Table};
use adtally_model::{Minute, Result};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::{SortColumn, concat_batches, lexsort_to_indices, take_record_batch};
use arrow::datatypes::{DataType, Int32Type, Int64Type, TimestampMicrosecondType};
use deltalake_core::protocol::DeltaOperation;
use futures::TryStreamExt;
use parquet::file::properties::WriterProperties;
use std::collections::BTreeMap;

/// Bytes of files that become one: a file of 32 MiB is read as fast a byte as a larger one, and takes some 150 MB in
/// memory.
const GROUP_BYTES_MAX: u64 = 32 << 20;

/// Bytes of rows in memory that become one file; twice as many while they are sorted.
const GROUP_MEMORY_MAX: usize = 192 << 20;

/// Files that become one at most: each is opened.
const GROUP_FILES_MAX: usize = 256;

/// Small files of an hour that is not over which are enough to become one; before that they wait for its end.
const FILES_MANY: usize = 32;

/// Rows handed to the Parquet writer at once.
const CHUNK_ROWS: usize = 16_384;

const HOUR_MINUTES: i64 = 60;
const DAY_MINUTES: i64 = 1_440;

/// Tables that consist of a file an epoch or a projection.
const COMPACTED: [Table; 6] =
    [Table::Clicks, Table::ClicksByMinute, Table::DeadLetters, Table::Ledger, Table::ClicksByHour, Table::ClicksByDay];

impl Lake {
    /// Makes one file of the first group of small ones that there is. Returns the bytes of files that it replaced; none
    /// when there was nothing to do.
    ///
    /// # Errors
    /// External when the store fails, corrupt when a file is damaged.
    pub async fn compact(&self, as_of: &AsOf, tokens: Tokens<'_>) -> Result<Option<u64>> {
        let Some(final_ms) = as_of.final_ms else { return Ok(None) };
        for table in COMPACTED {
            let table = self.table(table);
            let index = table.files().await?;
            for group in groups(table.table, &index.files, as_of, final_ms) {
                if let Some(bytes) = self.rewrite(table, group, as_of, tokens()).await? {
                    return Ok(Some(bytes));
                }
            }
        }
        Ok(None)
    }

    /// Makes one file of some. Nothing when they are too large in memory, or somebody else changed them.
    async fn rewrite(
        &self,
        table: &LakeTable,
        mut group: Vec<&FileEntry>,
        as_of: &AsOf,
        token: u128,
    ) -> Result<Option<u64>> {
        let mut batches = Vec::new();
        let mut memory = 0;
        for (read, file) in group.iter().enumerate() {
            let rows = read_all(table, file).await?;
            memory += rows.iter().map(RecordBatch::get_array_memory_size).sum::<usize>();
            if memory > GROUP_MEMORY_MAX {
                group.truncate(read);
                break;
            }
            batches.extend(rows);
        }
        if group.len() < 2 {
            return Ok(None);
        }
        let (bytes, statistics) = sorted_file(table.table, batches)?;
        let folder =
            group[0].path.as_ref().rsplit_once('/').map(|(folder, _)| format!("{folder}/")).unwrap_or_default();
        // The first part is what others read of a name: which partition it is of.
        let path = format!("{folder}{}-compacted-{token:032x}.parquet", as_of.partition);
        let size = bytes.len() as u64;
        table.put(&path, bytes.into()).await?;
        let mut add = new_add(path.clone(), size, as_of.clock_ms, statistics.to_json());
        add.partition_values = super::partition_values(&path);
        let replaced = group.iter().map(|file| file.size).sum();
        let change = Change {
            mark: None,
            also: Vec::new(),
            adds: vec![add],
            removes: group,
            operation: DeltaOperation::Optimize { predicate: None, target_size: long(GROUP_BYTES_MAX) },
            at_ms: as_of.clock_ms,
        };
        // Projecting waits for the commit alone, not for the rewriting.
        let _projecting = self.projecting.lock().await;
        let made = table.change(&change).await?;
        if !made {
            // The next round works out anew what there is to do; what was written is vacuumed.
            tracing::debug!(table = %table.table, path, "files changed while they were compacted");
        }
        Ok(Some(replaced).filter(|_| made))
    }
}

/// What files have in common that may become one.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Together<'a> {
    folder: &'a str,
    partition: Option<(i64, i64)>,
    /// The first minute of their hour or day.
    begin: i64,
    /// How many files are enough.
    enough: usize,
}

/// Files that may become one, in the order of their times: by folder, and by hour or, once a day is over, by day.
fn groups<'a>(table: Table, files: &'a [FileEntry], as_of: &AsOf, final_ms: i64) -> Vec<Vec<&'a FileEntry>> {
    // Times of reading follow the clock, times of clicks the final frontier.
    let over_ms = match table {
        Table::DeadLetters | Table::Ledger => as_of.clock_ms,
        _ => final_ms,
    };
    let floor = |minute: Minute, minutes: i64| minute.0 - minute.0.rem_euclid(minutes);
    let over = Minute::of(over_ms);
    let mut spans: BTreeMap<Together<'_>, Vec<&FileEntry>> = BTreeMap::new();
    for file in files {
        let (Some((least, end)), Some((_, epoch))) = (file.bounds.time_ms, file.bounds.epoch) else { continue };
        if file.size >= GROUP_BYTES_MAX / 2 || epoch > long(as_of.epoch) {
            continue;
        }
        let (least, last) = (Minute::of(least), Minute::of(end - 1));
        let (begin, enough) = match (floor(last, DAY_MINUTES) < floor(over, DAY_MINUTES), table) {
            // The folder is the hour.
            (_, Table::Clicks) if floor(last, HOUR_MINUTES) < floor(over, HOUR_MINUTES) => {
                (floor(last, HOUR_MINUTES), 2)
            }
            (_, Table::Clicks) => continue,
            (true, _) => (floor(least, DAY_MINUTES), 2),
            (false, _) if floor(last, HOUR_MINUTES) < floor(over, HOUR_MINUTES) => (floor(least, HOUR_MINUTES), 2),
            (false, _) => (floor(least, HOUR_MINUTES), FILES_MANY),
        };
        let folder = file.path.as_ref().rsplit_once('/').map_or("", |(folder, _)| folder);
        let together = Together { folder, partition: file.bounds.partition, begin, enough };
        spans.entry(together).or_default().push(file);
    }
    let mut groups = Vec::new();
    for (Together { enough, .. }, mut files) in spans {
        if files.len() < enough {
            continue;
        }
        files.sort_by_key(|file| (file.bounds.time_ms, file.bounds.epoch, file.path.clone()));
        let (mut group, mut bytes) = (Vec::new(), 0);
        for file in files {
            if bytes + file.size > GROUP_BYTES_MAX || group.len() == GROUP_FILES_MAX {
                groups.push(std::mem::take(&mut group));
                bytes = 0;
            }
            bytes += file.size;
            group.push(file);
        }
        groups.push(group);
    }
    groups.retain(|group| group.len() > 1);
    groups
}

/// All rows of a file, with the columns that files of the table hold.
async fn read_all(table: &LakeTable, file: &FileEntry) -> Result<Vec<RecordBatch>> {
    let reader = table.reader(&file.path, file.size);
    let failed = reader.failure();
    let batches = reader.open().await?.build().map_err(&failed)?;
    let batches: Vec<RecordBatch> = batches.try_collect().await.map_err(&failed)?;
    let schema = table.table.file_schema();
    let ours = |batch: RecordBatch| {
        let column = |field: &arrow::datatypes::FieldRef| -> std::result::Result<ArrayRef, arrow::error::ArrowError> {
            let column = batch.column_by_name(field.name());
            let column =
                column.ok_or_else(|| arrow::error::ArrowError::SchemaError(format!("no `{}`", field.name())))?;
            arrow::compute::cast(column, field.data_type())
        };
        let columns = schema.fields().iter().map(column).collect::<std::result::Result<Vec<_>, _>>();
        columns
            .and_then(|columns| RecordBatch::try_new(schema.clone(), columns))
            .map_err(|error| failed(parquet::errors::ParquetError::from(error)))
    };
    batches.into_iter().map(ours).collect()
}

/// One file of all rows, in the order of their times, and of ads, countries and epochs within a span.
fn sorted_file(table: Table, batches: Vec<RecordBatch>) -> Result<(bytes::Bytes, Statistics)> {
    let defect = |error| arrow_defect(table, error);
    let all = concat_batches(&table.file_schema(), &batches).map_err(defect)?;
    drop(batches);
    let counts = matches!(table, Table::ClicksByMinute | Table::ClicksByHour | Table::ClicksByDay);
    let order: &[&str] = if counts { &["ad_id", "country", "epoch"] } else { &["epoch"] };
    let time = table.time_column();
    let keys = std::iter::once(&time).chain(order).filter_map(|name| all.column_by_name(name));
    let keys: Vec<SortColumn> = keys.map(|values| SortColumn { values: values.clone(), options: None }).collect();
    let indices = lexsort_to_indices(&keys, None).map_err(defect)?;
    let statistics = statistics(&all);
    let mut writer = FileWriter::new(table, properties(table, all.num_rows()), 0)?;
    for start in (0..all.num_rows()).step_by(CHUNK_ROWS) {
        let rows = indices.slice(start, CHUNK_ROWS.min(all.num_rows() - start));
        let sorted = take_record_batch(&all, &rows).map_err(defect)?;
        writer.write(sorted.columns().to_vec())?;
    }
    Ok((writer.finish()?, statistics))
}

fn properties(table: Table, rows: usize) -> WriterProperties {
    match table {
        Table::Clicks => click_properties(rows as u64),
        Table::ClicksByMinute | Table::ClicksByHour | Table::ClicksByDay => count_properties(table),
        Table::DeadLetters => plain_properties(&["payload", "position"]),
        _ => plain_properties(&[]),
    }
}

/// What the table's log says of a file with these rows.
fn statistics(rows: &RecordBatch) -> Statistics {
    let mut statistics = Statistics::of_rows(rows.num_rows() as u64);
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        let Some(name) = KNOWN.iter().copied().find(|name| name == field.name()) else { continue };
        let nulls = column.null_count() as u64;
        statistics = match field.data_type() {
            DataType::Timestamp(..) => {
                let times = column.as_primitive::<TimestampMicrosecondType>();
                // Ours are whole milliseconds.
                statistics.time(name, times.iter().flatten().map(|us| us.div_euclid(1_000)), nulls)
            }
            DataType::Int64 => statistics.long(name, column.as_primitive::<Int64Type>().iter().flatten()),
            DataType::Int32 => {
                statistics.long(name, column.as_primitive::<Int32Type>().iter().flatten().map(i64::from))
            }
            DataType::Utf8 if nulls == 0 && RANGED.contains(&name) => {
                statistics.text(name, column.as_string::<i32>().iter().flatten())
            }
            _ => statistics.nulls(name, nulls),
        };
    }
    statistics
}

/// Columns of which the log says something, so that files are pruned by it.
const KNOWN: [&str; 19] = [
    "click_timestamp",
    "minute",
    "hour",
    "day",
    "received_at",
    "committed_at",
    "ad_id",
    "partition",
    "epoch",
    "country",
    "verdict",
    "user_id",
    "ip",
    "click_id",
    "input",
    "position",
    "clicks",
    "correction",
    "reason",
];

/// Short texts whose least and largest are worth knowing.
const RANGED: [&str; 2] = ["country", "verdict"];
