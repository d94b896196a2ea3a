//! Encodes Parquet files in memory, ready to be staged.

use super::schema::Table;
use super::statistics::Statistics;
use adtally_model::{Country, Error, Result, StagedFile, StagedTable};
use arrow::array::{ArrayRef, DictionaryArray, RecordBatch, StringArray};
use arrow::datatypes::UInt8Type;
use arrow::error::ArrowError;
use bytes::Bytes;
use parquet::arrow::arrow_writer::{ArrowColumnWriter, ArrowWriter, ArrowWriterOptions, compute_leaves};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

/// The lowest level of zstd. Higher ones save less than a tenth of the size for twice the time.
const ZSTD_LEVEL: i32 = 1;

/// Maximum rows of a row group: an epoch at the mission rate is one group, a bulk epoch a few.
const ROW_GROUP_ROWS_MAX: usize = 1 << 20;

/// A file and its content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EncodedFile {
    /// The description of the file in an epoch record.
    pub staged: StagedFile,
    /// The content of the file.
    pub bytes: Bytes,
}

/// The properties that all files share; tables add their encodings.
pub(super) fn properties() -> WriterPropertiesBuilder {
    // The level is a valid constant, so this cannot fail; the fallback is the default level.
    let level = ZstdLevel::try_new(ZSTD_LEVEL).unwrap_or_default();
    WriterProperties::builder()
        .set_created_by(concat!("adtally ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(level))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS_MAX))
}

/// A Parquet file of one table being written in memory.
pub(super) struct FileWriter {
    table: Table,
    inner: ArrowWriter<Vec<u8>>,
}

impl FileWriter {
    /// An empty file; about `bytes` bytes are expected.
    pub(super) fn new(table: Table, properties: WriterProperties, bytes: usize) -> Result<Self> {
        // The Arrow schema is omitted: other readers use the Parquet types.
        let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let inner = ArrowWriter::try_new_with_options(Vec::with_capacity(bytes), table.file_schema(), options)
            .map_err(|error| parquet_defect(table, error))?;
        Ok(FileWriter { table, inner })
    }

    /// Appends rows: one column for each column of the table in order, except those in the path.
    pub(super) fn write(&mut self, columns: Vec<ArrayRef>) -> Result<()> {
        let batch =
            RecordBatch::try_new(self.table.file_schema(), columns).map_err(|error| arrow_defect(self.table, error))?;
        self.inner.write(&batch).map_err(|error| parquet_defect(self.table, error))
    }

    pub(super) fn finish(self) -> Result<Bytes> {
        let table = self.table;
        self.inner.into_inner().map(Bytes::from).map_err(|error| parquet_defect(table, error))
    }
}

/// A range of consecutive rows of something.
#[derive(Clone, Debug)]
pub(super) struct Run<T> {
    pub(super) of: T,
    pub(super) rows: Range<usize>,
}

/// Splits the rows into pieces of at most `rows_max` rows.
pub(super) fn pieces<T: Copy>(runs: &[Run<T>], rows_max: usize) -> Vec<Vec<Run<T>>> {
    let mut pieces: Vec<Vec<Run<T>>> = Vec::new();
    let mut room = 0;
    for Run { of, rows } in runs {
        let mut rows = rows.clone();
        while !rows.is_empty() {
            if room == 0 {
                pieces.push(Vec::new());
                room = rows_max;
            }
            let taken = rows.len().min(room);
            if let Some(piece) = pieces.last_mut() {
                piece.push(Run { of: *of, rows: rows.start..rows.start + taken });
            }
            rows.start += taken;
            room -= taken;
        }
    }
    pieces
}

/// The number of rows in all runs.
pub(super) fn rows_of<T>(runs: &[Run<T>]) -> usize {
    runs.iter().map(|run| run.rows.len()).sum()
}

/// Encodes a Parquet file of `groups` row groups, which are encoded independently, on as many threads as there are
/// cores. `write_group` passes on the rows of one group, a few at a time. About `bytes` bytes are expected in all.
pub(super) fn file_of_groups(
    table: Table,
    properties: WriterProperties,
    bytes: usize,
    groups: usize,
    write_group: impl Fn(usize, &mut dyn FnMut(Vec<ArrayRef>) -> Result<()>) -> Result<()> + Sync,
) -> Result<Bytes> {
    let defect = |error| parquet_defect(table, error);
    let writer = FileWriter::new(table, properties, bytes)?;
    let (mut file, factory) = writer.inner.into_serialized_writer().map_err(defect)?;
    let schema = table.file_schema();
    let next = AtomicUsize::new(0);
    let work = || {
        let mut encoded = Vec::new();
        loop {
            let group = next.fetch_add(1, Ordering::Relaxed);
            if group >= groups {
                return Ok(encoded);
            }
            let mut writers = factory.create_column_writers(group).map_err(defect)?;
            write_group(group, &mut |columns| {
                for ((field, column), writer) in schema.fields().iter().zip(&columns).zip(&mut writers) {
                    for leaf in compute_leaves(field, column).map_err(defect)? {
                        writer.write(&leaf).map_err(defect)?;
                    }
                }
                Ok(())
            })?;
            let chunks = writers.into_iter().map(ArrowColumnWriter::close).collect::<Result<Vec<_>, _>>();
            encoded.push((group, chunks.map_err(defect)?));
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(groups);
    let mut encoded = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut encoded = work()?;
        for other in others {
            let panicked = |_| Error::internal("encoding a file panicked; the message is above");
            encoded.extend(other.join().map_err(panicked)??);
        }
        Ok::<_, Error>(encoded)
    })?;
    encoded.sort_unstable_by_key(|&(group, _)| group);
    for (_, chunks) in encoded {
        let mut group = file.next_row_group().map_err(defect)?;
        for chunk in chunks {
            chunk.append_to_row_group(&mut group).map_err(defect)?;
        }
        group.close().map_err(defect)?;
    }
    file.into_inner().map(Bytes::from).map_err(defect)
}

/// All countries by their ranks.
static COUNTRIES: LazyLock<ArrayRef> =
    LazyLock::new(|| Arc::new(StringArray::from_iter_values(Country::all().map(Country::as_str))));

/// A column of countries from their ranks. This avoids writing and hashing a text for each row.
pub(super) fn country_column(table: Table, ranks: Vec<u8>) -> Result<ArrayRef> {
    let countries = DictionaryArray::<UInt8Type>::try_new(ranks.into(), Arc::clone(&COUNTRIES));
    Ok(Arc::new(countries.map_err(|error| arrow_defect(table, error))?))
}

/// Assembles an encoded file.
pub(super) fn encoded(
    table: StagedTable,
    path: String,
    partition_values: Vec<(String, String)>,
    event_time_ms: Option<(i64, i64)>,
    statistics: &Statistics,
    bytes: Bytes,
) -> EncodedFile {
    let staged = StagedFile {
        table,
        path,
        size: bytes.len() as u64,
        rows: statistics.rows.unwrap_or_default(),
        partition_values,
        event_time_ms,
        stats: statistics.to_json(),
        row_hash_sum: None,
    };
    EncodedFile { staged, bytes }
}

/// Encoding in memory fails only because of a defect in Adtally.
pub(super) fn parquet_defect(table: Table, error: ParquetError) -> Error {
    Error::internal(format!("cannot encode rows of `{table}`: please report this")).because(error)
}

pub(super) fn arrow_defect(table: Table, error: ArrowError) -> Error {
    Error::internal(format!("cannot arrange rows of `{table}`: please report this")).because(error)
}

/// Converts a number to the type that Delta stores.
///
/// # Errors
/// Internal if Delta cannot store it.
pub(super) fn long(value: u64) -> Result<i64> {
    i64::try_from(value).map_err(|_| Error::internal(format!("{value} does not fit into a column of Delta Lake")))
}

/// Converts numbers to the type that Delta stores.
///
/// # Errors
/// As [`long`].
pub(super) fn longs(values: impl IntoIterator<Item = u64>) -> Result<Vec<i64>> {
    values.into_iter().map(long).collect()
}

/// Converts a partition to the type that Delta stores.
///
/// # Errors
/// As [`long`].
pub(super) fn int(value: u32) -> Result<i32> {
    i32::try_from(value).map_err(|_| Error::internal(format!("there is no partition {value}")))
}
