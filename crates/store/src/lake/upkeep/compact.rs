//! Compaction: small files of one past hour, or of one past day, become one sorted file with the same rows. If an hour
//! has very many, they are compacted before its end, except those of clicks.
//!
//! Rows keep their partition and epoch, and files their statistics, encodings and Bloom filters, so only the cost of
//! queries changes. Files are read completely, one group at a time. Groups are planned before any row is read (see
//! `plan`). Files that are large on disk or in memory are left as they are.

use super::plan::{GROUP_BYTES_MAX, spans};
use super::{Change, LakeProgress, Tokens};
use crate::lake::clicks::click_properties;
use crate::lake::encode::{FileWriter, arrow_defect};
use crate::lake::files::{FileEntry, FileIndex};
use crate::lake::project::new_add;
use crate::lake::rows::{count_properties, plain_properties};
use crate::lake::statistics::{Statistics, bound};
use crate::lake::{Lake, LakeTable, Table};
use adtally_model::Result;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, new_null_array};
use arrow::compute::{SortColumn, concat_batches, lexsort_to_indices, take_record_batch};
use arrow::datatypes::{DataType, Int32Type, Int64Type, TimestampMicrosecondType};
use deltalake_core::protocol::DeltaOperation;
use futures::TryStreamExt;
use hashbrown::HashSet;
use parquet::basic::Type;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::properties::WriterProperties;

/// Rows passed to the Parquet writer at once.
const CHUNK_ROWS: usize = 16_384;

/// Bytes in memory of a variable-length value in addition to its content: an offset and a bit.
const TEXT_BYTES: u64 = 5;

/// Assumed ratio of a text's size in memory to its size in a file that does not record the former.
const TEXT_GROWTH: u64 = 4;

/// Tables with one file per epoch or projection.
const COMPACTED: [Table; 7] = [
    Table::Clicks,
    Table::ClicksByMinute,
    Table::DeadLetters,
    Table::Ledger,
    Table::ClicksByHour,
    Table::ClicksByDay,
    Table::Corrections,
];

impl Lake {
    /// Compacts the first group of small files into one file. Returns the bytes of the replaced files; `None` if there
    /// was nothing to do.
    ///
    /// # Errors
    /// External when the store fails, corrupt when a file is damaged.
    pub async fn compact(&self, reached: &LakeProgress, tokens: Tokens<'_>) -> Result<Option<u64>> {
        let Some(final_ms) = reached.final_ms() else { return Ok(None) };
        let held = self.held_with_corrections(reached).await?;
        for table in COMPACTED {
            let table = self.table(table);
            let index = table.files().await?;
            table.forget_memory_of_others(&index);
            for span in spans(table.table, &index.files, reached, &held, final_ms) {
                let mut memory = Vec::with_capacity(span.files.len());
                for file in &span.files {
                    memory.push(table.memory_of(file).await?);
                }
                for group in span.groups(&memory) {
                    if let Some(bytes) = self.rewrite(table, group, reached, tokens()).await? {
                        return Ok(Some(bytes));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Merges files into one. Does nothing if the files were changed by another commit.
    async fn rewrite(
        &self,
        table: &LakeTable,
        group: Vec<&FileEntry>,
        reached: &LakeProgress,
        token: u128,
    ) -> Result<Option<u64>> {
        let mut batches = Vec::new();
        for file in &group {
            batches.extend(read_all(table, file).await?);
        }
        let (bytes, statistics) = sorted_file(table.table, batches)?;
        let folder =
            group[0].path.as_ref().rsplit_once('/').map(|(folder, _)| format!("{folder}/")).unwrap_or_default();
        // Readers of a name take its first part as the partition.
        let partition = group[0].bounds.partition.map_or(0, |(least, _)| least);
        let path = format!("{folder}{partition}-compacted-{token:032x}.parquet");
        let size = bytes.len() as u64;
        table.put(&path, bytes.into()).await?;
        let mut add = new_add(path.clone(), size, reached.now_ms, statistics.to_json())?;
        add.partition_values = super::partition_values(&path);
        let replaced = group.iter().map(|file| file.size).sum();
        let change = Change {
            mark: None,
            also: Vec::new(),
            adds: vec![add],
            removes: group,
            operation: DeltaOperation::Optimize { predicate: None, target_size: bound(GROUP_BYTES_MAX) },
            at_ms: reached.now_ms,
        };
        // Projecting waits only for the commit, not for the rewriting.
        let _projecting = self.projecting.lock().await;
        let made = table.change(&change).await?;
        if !made {
            // The next round plans again; vacuum deletes the written file.
            tracing::debug!(table = %table.table, path, "files changed while they were compacted");
        }
        Ok(Some(replaced).filter(|_| made))
    }
}

impl LakeTable {
    /// Bytes of a file's rows in memory, from its footer, which is read once. A file with columns unknown to this
    /// version counts as too large, since compaction would lose them.
    async fn memory_of(&self, file: &FileEntry) -> Result<u64> {
        if let Some(&known) = self.memory.lock().get(file.path.as_ref()) {
            return Ok(known);
        }
        let footer = self.reader(&file.path, file.size).open().await?;
        let is_known = |name: &str| self.table.columns().iter().any(|column| column.name == name);
        let memory = match footer.schema().fields().iter().all(|field| is_known(field.name())) {
            true => footer.metadata().row_groups().iter().map(memory_of_group).sum(),
            false => u64::MAX,
        };
        self.memory.lock().insert(file.path.to_string(), memory);
        Ok(memory)
    }

    /// Removes cached values of files that the table no longer has.
    fn forget_memory_of_others(&self, index: &FileIndex) {
        let mut known = self.memory.lock();
        if !known.is_empty() {
            let present: HashSet<&str> = index.files.iter().map(|file| file.path.as_ref()).collect();
            known.retain(|path, _| present.contains(path.as_str()));
        }
    }
}

/// Bytes of a row group's rows in memory.
fn memory_of_group(group: &RowGroupMetaData) -> u64 {
    let rows = group.num_rows().unsigned_abs();
    let of_column = |column: &parquet::file::metadata::ColumnChunkMetaData| match column.column_type() {
        Type::INT32 | Type::FLOAT | Type::BOOLEAN => rows * 4,
        Type::INT64 | Type::DOUBLE => rows * 8,
        Type::INT96 => rows * 12,
        Type::BYTE_ARRAY | Type::FIXED_LEN_BYTE_ARRAY => {
            let said = column.unencoded_byte_array_data_bytes().map(i64::unsigned_abs);
            let text = said.unwrap_or_else(|| column.uncompressed_size().unsigned_abs() * TEXT_GROWTH);
            text + rows * TEXT_BYTES
        }
    };
    group.columns().iter().map(of_column).sum()
}

/// All rows of a file, with the columns of the table's files. Columns that files of earlier versions lack are null.
async fn read_all(table: &LakeTable, file: &FileEntry) -> Result<Vec<RecordBatch>> {
    let reader = table.reader(&file.path, file.size);
    let failed = reader.failure();
    let batches = reader.open().await?.build().map_err(&failed)?;
    let batches: Vec<RecordBatch> = batches.try_collect().await.map_err(&failed)?;
    let schema = table.table.file_schema();
    let added: Vec<&str> =
        table.table.columns().iter().filter(|column| column.is_added()).map(|column| column.name).collect();
    let ours = |batch: RecordBatch| {
        let column = |field: &arrow::datatypes::FieldRef| -> std::result::Result<ArrayRef, arrow::error::ArrowError> {
            match batch.column_by_name(field.name()) {
                Some(column) => arrow::compute::cast(column, field.data_type()),
                None if added.contains(&field.name().as_str()) => {
                    Ok(new_null_array(field.data_type(), batch.num_rows()))
                }
                None => Err(arrow::error::ArrowError::SchemaError(format!("no `{}`", field.name()))),
            }
        };
        let columns = schema.fields().iter().map(column).collect::<std::result::Result<Vec<_>, _>>();
        columns
            .and_then(|columns| RecordBatch::try_new(schema.clone(), columns))
            .map_err(|error| failed(parquet::errors::ParquetError::from(error)))
    };
    batches.into_iter().map(ours).collect()
}

/// One file of all rows, sorted by time, and within a span by ad, country and epoch.
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

/// The statistics of these rows for the table's log.
fn statistics(rows: &RecordBatch) -> Statistics {
    let mut statistics = Statistics::of_rows(rows.num_rows() as u64);
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        let Some(name) = KNOWN.iter().copied().find(|name| name == field.name()) else { continue };
        let nulls = column.null_count() as u64;
        statistics = match field.data_type() {
            DataType::Timestamp(..) => {
                let times = column.as_primitive::<TimestampMicrosecondType>();
                // Our times are whole milliseconds.
                statistics.time(name, times.iter().flatten().map(|us| us.div_euclid(1_000)), nulls)
            }
            DataType::Int64 if nulls == 0 => statistics.long(name, column.as_primitive::<Int64Type>().iter().flatten()),
            DataType::Int32 if nulls == 0 => {
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

/// Columns with statistics in the log, by which files are pruned.
const KNOWN: [&str; 22] = [
    "click_timestamp",
    "minute",
    "hour",
    "day",
    "received_at",
    "watermark",
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
    "event_hour",
    "sign",
    "reason",
];

/// Short texts for which bounds are useful.
const RANGED: [&str; 2] = ["country", "verdict"];
