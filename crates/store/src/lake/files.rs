//! The files of a table, and reading them without SQL.

use super::schema::Table;
use super::statistics::Bounds;
use super::{Lake, LakeTable, StoreFailure, delta_error, store_failure};
use adtally_model::{Error, Minute, RECONCILE, Result};
use arrow::array::{Array, AsArray, Int32Array, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use bytes::Bytes;
use deltalake_core::DeltaTable;
use futures::future::BoxFuture;
use futures::{FutureExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parking_lot::Mutex;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::statistics::Statistics;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Files that one query reads at once: two cores decode while other reads wait for the disk or the network.
pub(super) const FILES_AT_ONCE: usize = 4;

/// Bytes first fetched from the end of a file: the footer and page index of a typical file, in one request.
const FOOTER_BYTES: usize = 32 * 1024;

/// The last epoch of each partition. A partition that is missing here has no epoch.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Epochs(BTreeMap<u32, u64>);

impl FromIterator<(u32, u64)> for Epochs {
    fn from_iter<I: IntoIterator<Item = (u32, u64)>>(epochs: I) -> Self {
        Epochs(epochs.into_iter().collect())
    }
}

impl Epochs {
    /// With one partition.
    pub fn of(partition: u32, epoch: u64) -> Self {
        Epochs(BTreeMap::from([(partition, epoch)]))
    }

    /// The last epoch of a partition, 0 if there is none.
    pub fn last(&self, partition: u32) -> u64 {
        self.0.get(&partition).copied().unwrap_or_default()
    }

    /// Records an epoch. Ignored if it is smaller than the known one.
    pub fn note(&mut self, partition: u32, epoch: u64) {
        let last = self.0.entry(partition).or_default();
        *last = epoch.max(*last);
    }

    /// All of them, by partition.
    pub fn iter(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        self.0.iter().map(|(&partition, &epoch)| (partition, epoch))
    }

    /// The same without the partition `reconcile`.
    #[must_use]
    pub fn of_sources(&self) -> Epochs {
        self.iter().filter(|&(partition, _)| partition != RECONCILE).collect()
    }

    /// Whether they are of the partition `reconcile` alone.
    pub(super) fn are_corrections(&self) -> bool {
        self.0.len() == 1 && self.0.contains_key(&RECONCILE)
    }

    /// The epochs that both include.
    #[must_use]
    pub fn least(&self, other: &Epochs) -> Epochs {
        let both = self.iter().map(|(partition, epoch)| (partition, epoch.min(other.last(partition))));
        Epochs(both.filter(|&(_, epoch)| epoch > 0).collect())
    }

    /// Whether they include a row of the lake, given its columns.
    #[inline]
    pub(super) fn hold(&self, partition: i32, epoch: i64) -> bool {
        let (Ok(partition), Ok(epoch)) = (u32::try_from(partition), u64::try_from(epoch)) else { return false };
        epoch <= self.last(partition)
    }

    /// Whether they include all rows of a file with these bounds.
    pub(super) fn surely_hold(&self, bounds: &Bounds) -> bool {
        match (bounds.partition, bounds.epoch) {
            (Some((least, largest)), Some((_, epoch))) if least == largest => {
                i32::try_from(least).is_ok_and(|partition| self.hold(partition, epoch))
            }
            _ => false,
        }
    }

    /// Whether they may include rows of a file with these bounds.
    pub(super) fn may_hold(&self, bounds: &Bounds) -> bool {
        match (bounds.partition, bounds.epoch) {
            (Some((least, largest)), Some((epoch, _))) if least == largest => {
                i32::try_from(least).is_ok_and(|partition| self.hold(partition, epoch))
            }
            _ => true,
        }
    }
}

/// A file of one state of a table.
#[derive(Clone, Debug)]
pub(super) struct FileEntry {
    pub(super) path: Path,
    pub(super) size: u64,
    pub(super) bounds: Bounds,
}

/// The files of one state of a table.
#[derive(Debug)]
pub(super) struct FileIndex {
    version: u64,
    /// The state itself; `None` in tests that do not need it.
    pub(super) state: Option<DeltaTable>,
    pub(super) files: Vec<FileEntry>,
    /// Marks that were already looked up in this state.
    pub(super) marks: Mutex<BTreeMap<String, Option<i64>>>,
}

impl FileIndex {
    /// An index without a state.
    #[cfg(test)]
    pub(super) fn new(files: Vec<FileEntry>) -> Self {
        FileIndex { version: u64::MAX, state: None, files, marks: Mutex::default() }
    }
}

impl LakeTable {
    /// The files of the newest state.
    pub(super) async fn files(&self) -> Result<Arc<FileIndex>> {
        self.files_of(&self.latest().await?)
    }

    /// The files of one state.
    pub(super) fn files_of(&self, state: &DeltaTable) -> Result<Arc<FileIndex>> {
        let snapshot = state.snapshot().map_err(|error| delta_error(self.table, "read", error))?;
        let version = snapshot.version();
        if let Some(index) = self.index.lock().as_ref().filter(|index| index.version == version) {
            return Ok(Arc::clone(index));
        }
        let mut files = Vec::new();
        for view in snapshot.log_data().iter() {
            if view.deletion_vector_descriptor().is_some() {
                return Err(Error::corrupt(format!(
                    "the lake table `{}` has deletion vectors, which another program added: rewrite it without them",
                    self.table
                )));
            }
            files.push(FileEntry {
                path: view.object_store_path(),
                size: u64::try_from(view.size()).unwrap_or_default(),
                bounds: Bounds::read(view.stats().as_deref(), self.table.time_column()),
            });
        }
        let index = Arc::new(FileIndex { version, state: Some(state.clone()), files, marks: Mutex::default() });
        *self.index.lock() = Some(Arc::clone(&index));
        Ok(index)
    }

    /// A reader of a file.
    pub(super) fn reader(&self, path: &Path, size: u64) -> LakeFile {
        LakeFile { table: self.table, store: Arc::clone(&self.store), path: path.clone(), size }
    }
}

impl Lake {
    /// The last epoch of each partition that all tables contain.
    ///
    /// # Errors
    /// External when the store fails.
    pub async fn epochs(&self) -> Result<Epochs> {
        // The ledger is written last, and has a row for each epoch.
        let ledger = self.table(Table::Ledger);
        let mut epochs = Epochs::default();
        for file in &ledger.files().await?.files {
            match (file.bounds.partition, file.bounds.epoch) {
                (Some((least, largest)), Some((_, last))) if least == largest => {
                    if let (Ok(partition), Ok(epoch)) = (u32::try_from(largest), u64::try_from(last)) {
                        epochs.note(partition, epoch);
                    }
                }
                _ => read_epochs(ledger.reader(&file.path, file.size), &mut epochs).await?,
            }
        }
        Ok(epochs)
    }

    /// The epochs that a query covers: those requested that all tables contain.
    pub(super) async fn cut_at(&self, cut: Option<&Epochs>) -> Result<Epochs> {
        let held = self.epochs().await?;
        Ok(cut.map_or_else(|| held.clone(), |cut| held.least(cut)))
    }
}

/// Records the epochs of a file whose statistics lack them.
pub(super) async fn read_epochs(file: LakeFile, epochs: &mut Epochs) -> Result<()> {
    let failed = file.failure();
    let builder = file.open().await?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), ["partition", "epoch"]);
    let mut batches = builder.with_projection(mask).build().map_err(&failed)?;
    while let Some(batch) = batches.try_next().await.map_err(&failed)? {
        let (partitions, numbers) = (ints(&batch, "partition", &failed)?, longs(&batch, "epoch", &failed)?);
        for (&partition, &epoch) in partitions.values().iter().zip(numbers.values()) {
            if let (Ok(partition), Ok(epoch)) = (u32::try_from(partition), u64::try_from(epoch)) {
                epochs.note(partition, epoch);
            }
        }
    }
    Ok(())
}

/// A Parquet file of a table.
#[derive(Clone, Debug)]
pub(super) struct LakeFile {
    table: Table,
    store: Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
}

impl LakeFile {
    /// The name of its time column.
    pub(super) fn time_column(&self) -> &'static str {
        self.table.time_column()
    }

    /// Converts errors about reading this file.
    pub(super) fn failure(&self) -> impl Fn(ParquetError) -> Error + Clone + Send + use<> {
        let name = format!("{}/{}", self.table, self.path);
        move |error| {
            match store_failure(&error) {
                Some(StoreFailure::Missing(_)) => {
                    Error::corrupt(format!("the lake file {name} is missing: restore it from a backup"))
                }
                Some(StoreFailure::Passing) => {
                    Error::transient(format!("cannot read the lake file {name}: check the disk or the object store"))
                }
                None => Error::corrupt(format!("the lake file {name} is damaged: restore it from a backup")),
            }
            .because(error)
        }
    }

    /// Reads the footer and the page index.
    pub(super) async fn open(mut self) -> Result<ParquetRecordBatchStreamBuilder<LakeFile>> {
        let failed = self.failure();
        let options = ArrowReaderOptions::new()
            .with_skip_arrow_metadata(true)
            .with_offset_index_policy(PageIndexPolicy::Optional);
        let metadata = ArrowReaderMetadata::load_async(&mut self, options).await.map_err(&failed)?;
        Ok(ParquetRecordBatchStreamBuilder::new_with_metadata(self, metadata))
    }
}

impl AsyncFileReader for LakeFile {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        async move { self.store.get_range(&self.path, range).await.map_err(external) }.boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        async move { self.store.get_ranges(&self.path, &ranges).await.map_err(external) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        async move {
            let size = self.size;
            let mut reader = ParquetMetaDataReader::new()
                .with_metadata_options(options.map(|options| options.metadata_options().clone()))
                .with_prefetch_hint(Some(FOOTER_BYTES));
            if let Some(options) = options {
                reader = reader
                    .with_column_index_policy(options.column_index_policy())
                    .with_offset_index_policy(options.offset_index_policy());
            }
            reader.load_and_finish(self, size).await.map(Arc::new)
        }
        .boxed()
    }
}

fn external(error: object_store::Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

fn unexpected(name: &str) -> ParquetError {
    ParquetError::General(format!("the column `{name}` is missing or of another type"))
}

/// A column of 64-bit numbers.
pub(super) fn longs<'a>(
    batch: &'a RecordBatch,
    name: &str,
    failed: &impl Fn(ParquetError) -> Error,
) -> Result<&'a Int64Array> {
    let column = batch.column_by_name(name).and_then(|column| column.as_primitive_opt::<Int64Type>());
    column.ok_or_else(|| failed(unexpected(name)))
}

/// A column of 32-bit numbers.
pub(super) fn ints<'a>(
    batch: &'a RecordBatch,
    name: &str,
    failed: &impl Fn(ParquetError) -> Error,
) -> Result<&'a Int32Array> {
    let column = batch.column_by_name(name).and_then(|column| column.as_primitive_opt::<Int32Type>());
    column.ok_or_else(|| failed(unexpected(name)))
}

/// A column of times, in microseconds.
pub(super) fn times<'a>(
    batch: &'a RecordBatch,
    name: &str,
    failed: &impl Fn(ParquetError) -> Error,
) -> Result<&'a [i64]> {
    batch
        .column_by_name(name)
        .filter(|column| matches!(column.data_type(), DataType::Timestamp(TimeUnit::Microsecond, _)))
        .and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>())
        .map(|column| &column.values()[..])
        .ok_or_else(|| failed(unexpected(name)))
}

/// Smallest and largest value of a column of numbers or times in a row group; `None` if the file does not contain them.
pub(super) fn group_bounds(group: &RowGroupMetaData, column: &str) -> Option<(i64, i64)> {
    let found = group.columns().iter().find(|found| found.column_path().string() == column)?;
    match found.statistics()? {
        Statistics::Int64(values) => Some((*values.min_opt()?, *values.max_opt()?)),
        _ => None,
    }
}

/// The minute of a time in microseconds.
#[inline]
pub(super) fn minute_of_us(us: i64) -> Minute {
    Minute(us.div_euclid(60_000_000))
}
