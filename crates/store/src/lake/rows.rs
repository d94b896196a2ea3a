//! Files of the small tables: dead letters, counts by minute, the ledger.

use super::EpochProjection;
use super::encode::{
    EncodedFile, FileWriter, Run, country_column, encoded, file_of_groups, int, long, longs, pieces, properties,
    rows_of,
};
use super::schema::{Table, timestamp_type};
use super::statistics::{Statistics, bound};
use adtally_model::dead_letter::JudgedClick;
use adtally_model::{DeadLetter, Ledger, MinuteCounts, Result, StagedTable};
use arrow::array::{ArrayRef, BinaryArray, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray};
use bytes::Bytes;
use parquet::basic::Encoding;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use std::sync::Arc;

/// Dead letters passed to the Parquet writer at once: with the longest payloads 32 MiB.
const DEAD_LETTERS_AT_ONCE: usize = 8_192;

/// Counts passed to the Parquet writer at once.
const COUNTS_AT_ONCE: usize = 65_536;

/// Counts in a row group. Groups are encoded concurrently, and queries skip whole groups.
const COUNT_GROUP_ROWS: usize = 1 << 18;

/// Approximate bytes of a row of counts in a file.
const COUNT_BYTES: usize = 2;

/// A staged or projected file of a small table, and its description for the log.
pub(super) struct RowFile {
    pub(super) bytes: Bytes,
    pub(super) statistics: Statistics,
}

/// Encodes the Parquet file of one epoch's dead letters; `None` if there are none. Does no I/O. `file_token` is random
/// and makes the name unique.
///
/// # Errors
/// Internal when the rows cannot be encoded.
pub fn encode_dead_letters(
    letters: &[DeadLetter],
    partition: u32,
    epoch: u64,
    file_token: u128,
) -> Result<Option<EncodedFile>> {
    if letters.is_empty() {
        return Ok(None);
    }
    let mut writer = FileWriter::new(Table::DeadLetters, plain_properties(&["payload", "position"]), 0)?;
    for chunk in letters.chunks(DEAD_LETTERS_AT_ONCE) {
        writer.write(dead_letter_columns(chunk, partition, epoch)?)?;
    }
    let times = || letters.iter().filter_map(|letter| letter.click.as_ref()).map(|click| click.fields().event_time_ms);
    let range = times().min().zip(times().max());
    let statistics = Statistics::of_rows(letters.len() as u64)
        .text("verdict", letters.iter().map(DeadLetter::cause))
        .time("received_at", letters.iter().map(|letter| letter.received_at_ms), 0)
        .time("click_timestamp", times(), (letters.len() - times().count()) as u64)
        .long("partition", [i64::from(partition)])
        .long("epoch", [bound(epoch)]);
    let path = format!("{partition}-{epoch:010}-{file_token:032x}.parquet");
    Ok(Some(encoded(StagedTable::DeadLetters, path, Vec::new(), range, &statistics, writer.finish()?)))
}

/// Properties for a small table. Dictionaries are tried on all columns except the `unique` ones.
pub(super) fn plain_properties(unique: &[&str]) -> WriterProperties {
    unique
        .iter()
        .fold(properties(), |builder, name| builder.set_column_dictionary_enabled(ColumnPath::from(*name), false))
        .build()
}

fn dead_letter_columns(letters: &[DeadLetter], partition: u32, epoch: u64) -> Result<Vec<ArrayRef>> {
    let text =
        |of: fn(&DeadLetter) -> &str| -> ArrayRef { Arc::new(StringArray::from_iter_values(letters.iter().map(of))) };
    let received: Vec<i64> = letters.iter().map(|letter| letter.received_at_ms * 1_000).collect();
    let clicks = || letters.iter().map(|letter| letter.click.as_ref());
    let fields = || clicks().map(|click| click.map(JudgedClick::fields));
    let clicked = fields().map(|click| Some(click?.event_time_ms * 1_000));
    let ads = fields().map(|click| click.map(|click| long(click.ad_id)).transpose()).collect::<Result<Vec<_>>>()?;
    let watermarks = clicks().map(|click| Some(click?.watermark.get()? * 1_000));
    Ok(vec![
        text(|letter| letter.cause()),
        text(|letter| &letter.reason),
        Arc::new(BinaryArray::from_iter_values(letters.iter().map(|letter| letter.payload.as_slice()))),
        text(|letter| &letter.input),
        Arc::new(Int64Array::from(longs(letters.iter().map(|letter| letter.position))?)),
        timestamps(received),
        optional_timestamps(clicked),
        constant_int(partition, letters.len())?,
        constant_long(epoch, letters.len())?,
        Arc::new(Int64Array::from(ads)),
        optional_texts(fields().map(|click| Some(String::from_utf8_lossy(click?.user_id)))),
        optional_texts(fields().map(|click| Some(adtally_model::ip::format(click?.ip)))),
        optional_texts(fields().map(|click| Some(click?.country.as_str()))),
        optional_texts(
            fields().map(|click| Some(String::from_utf8_lossy(click?.click_id)).filter(|id| !id.is_empty())),
        ),
        optional_timestamps(watermarks),
    ])
}

fn optional_texts<T: AsRef<str>>(texts: impl Iterator<Item = Option<T>>) -> ArrayRef {
    Arc::new(texts.collect::<StringArray>())
}

fn optional_timestamps(us: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(us.collect::<TimestampMicrosecondArray>().with_data_type(timestamp_type()))
}

fn timestamps(us: Vec<i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(us).with_data_type(timestamp_type()))
}

fn constant_int(value: u32, rows: usize) -> Result<ArrayRef> {
    Ok(Arc::new(Int32Array::from(vec![int(value)?; rows])))
}

fn constant_long(value: u64, rows: usize) -> Result<ArrayRef> {
    Ok(Arc::new(Int64Array::from(vec![long(value)?; rows])))
}

/// Encodes the counts of epochs as a file of `clicks_by_minute`, sorted by epoch, minute, ad and country. `None` if
/// there are none.
pub(super) fn encode_counts(epochs: &[EpochProjection], partition: u32) -> Result<Option<RowFile>> {
    let minutes =
        epochs.iter().flat_map(|epoch| epoch.counts.iter().map(move |counts| (epoch.progress.number, counts)));
    encode_spans(Table::ClicksByMinute, &minutes.collect::<Vec<_>>(), partition)
}

/// Encodes counts of spans, each with the epoch for its rows, as a file of a table of counts. `None` if there are none.
pub(super) fn encode_spans(table: Table, spans: &[(u64, &MinuteCounts)], partition: u32) -> Result<Option<RowFile>> {
    let minutes = || spans.iter().copied();
    let runs: Vec<CountRun<'_>> = minutes().map(|span| Run { of: span, rows: 0..span.1.len() }).collect();
    let rows = rows_of(&runs);
    if rows == 0 {
        return Ok(None);
    }
    let groups = pieces(&runs, COUNT_GROUP_ROWS);
    let bytes = file_of_groups(table, count_properties(table), rows * COUNT_BYTES, groups.len(), |group, write| {
        pieces(&groups[group], COUNTS_AT_ONCE)
            .iter()
            .try_for_each(|piece| write(count_columns(table, piece, partition)?))
    })?;
    let held = || minutes().filter(|(_, counts)| !counts.is_empty());
    let statistics = Statistics::of_rows(rows as u64)
        .time(table.time_column(), held().map(|(_, counts)| counts.minute.start_ms()), 0)
        .long("ad_id", held().flat_map(|(_, counts)| counts.ad_id.iter().map(|&ad| bound(ad))))
        .long("partition", [i64::from(partition)])
        .long("epoch", held().map(|(epoch, _)| bound(epoch)))
        .nulls("country", 0)
        .nulls("clicks", 0)
        .nulls("correction", rows as u64);
    Ok(Some(RowFile { bytes, statistics }))
}

/// Rows of the counts of one span, with their epoch.
type CountRun<'a> = Run<(u64, &'a MinuteCounts)>;

/// The columns of a table of counts for some rows.
fn count_columns(table: Table, piece: &[CountRun<'_>], partition: u32) -> Result<Vec<ArrayRef>> {
    let rows = rows_of(piece);
    let (mut times, mut ads, mut clicks, mut epochs) =
        (Vec::with_capacity(rows), Vec::with_capacity(rows), Vec::with_capacity(rows), Vec::with_capacity(rows));
    let mut countries: Vec<u8> = Vec::with_capacity(rows);
    for Run { of: (epoch, counts), rows } in piece {
        times.resize(times.len() + rows.len(), counts.minute.start_ms() * 1_000);
        epochs.resize(epochs.len() + rows.len(), long(*epoch)?);
        for &ad in &counts.ad_id[rows.clone()] {
            ads.push(long(ad)?);
        }
        clicks.extend_from_slice(&counts.clicks[rows.clone()]);
        countries.extend(counts.country[rows.clone()].iter().map(|country| country.rank()));
    }
    Ok(vec![
        timestamps(times),
        Arc::new(Int64Array::from(ads)),
        country_column(table, countries)?,
        Arc::new(Int64Array::from(clicks)),
        constant_int(partition, rows)?,
        Arc::new(Int64Array::from(epochs)),
        Arc::new(StringArray::new_null(rows)),
    ])
}

/// The Parquet properties of a table of counts.
pub(super) fn count_properties(table: Table) -> WriterProperties {
    let path = |name: &str| ColumnPath::from(name);
    let mut builder = properties();
    let time = table.time_column();
    for name in [time, "ad_id", "partition", "epoch"] {
        // The values ascend or are constant, so the differences are small.
        builder = builder
            .set_column_dictionary_enabled(path(name), false)
            .set_column_encoding(path(name), Encoding::DELTA_BINARY_PACKED);
    }
    for name in [time, "ad_id"] {
        builder = builder.set_column_statistics_enabled(path(name), EnabledStatistics::Page);
    }
    // Nearly every row group has every country.
    builder = builder.set_column_statistics_enabled(path("country"), EnabledStatistics::None);
    builder.build()
}

/// Encodes the ledgers of epochs as a file: for each epoch a row for the partition, whose input is null, and a row for
/// each input that it changed.
pub(super) fn encode_ledgers(epochs: &[EpochProjection], partition: u32) -> Result<RowFile> {
    let rows: Vec<(&EpochProjection, Option<&str>, &Ledger)> = epochs
        .iter()
        .flat_map(|epoch| {
            let inputs = epoch.inputs.iter().map(move |(name, ledger)| (epoch, Some(&**name), ledger));
            std::iter::once((epoch, None, &epoch.progress.ledger)).chain(inputs)
        })
        .collect();
    let lines = |of: fn(&Ledger) -> u64| -> Result<ArrayRef> {
        Ok(Arc::new(Int64Array::from(longs(rows.iter().map(|(_, _, ledger)| of(ledger)))?)))
    };
    let columns = vec![
        constant_int(partition, rows.len())?,
        Arc::new(Int64Array::from(longs(rows.iter().map(|(epoch, ..)| epoch.progress.number))?)),
        timestamps(rows.iter().map(|(epoch, ..)| epoch.progress.clock_ms * 1_000).collect()),
        Arc::new(rows.iter().map(|&(_, input, _)| input).collect::<StringArray>()),
        lines(|ledger| ledger.read)?,
        lines(|ledger| ledger.counted)?,
        lines(|ledger| ledger.duplicate)?,
        lines(|ledger| ledger.late)?,
        lines(|ledger| ledger.future)?,
        lines(|ledger| ledger.malformed)?,
        lines(|ledger| ledger.invalid)?,
        lines(|ledger| ledger.conflicting_duplicates)?,
        lines(|ledger| ledger.gap_bytes)?,
    ];
    let mut writer = FileWriter::new(Table::Ledger, plain_properties(&[]), 0)?;
    writer.write(columns)?;
    let statistics = Statistics::of_rows(rows.len() as u64)
        .long("partition", [i64::from(partition)])
        .long("epoch", rows.iter().map(|(epoch, ..)| bound(epoch.progress.number)))
        .time("committed_at", rows.iter().map(|(epoch, ..)| epoch.progress.clock_ms), 0)
        .nulls("input", epochs.len() as u64);
    Ok(RowFile { bytes: writer.finish()?, statistics })
}
