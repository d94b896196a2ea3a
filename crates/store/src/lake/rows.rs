//! Files of the small tables: dead letters, counts by minute, the ledger.

use super::EpochProjection;
use super::encode::{
    EncodedFile, FileWriter, Run, country_column, encoded, file_of_groups, int, long, longs, pieces, properties,
    rows_of,
};
use super::schema::{Table, timestamp_type};
use super::statistics::{Statistics, bound};
use super::upkeep::RollUp;
use adtally_model::dead_letter::JudgedClick;
use adtally_model::reconcile::Cause;
use adtally_model::{DeadLetter, Ledger, Minute, MinuteCounts, Progress, Result, StagedFile, StagedTable};
use arrow::array::{ArrayRef, BinaryArray, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray};
use bytes::Bytes;
use parquet::basic::Encoding;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use std::sync::Arc;

/// Most dead letters passed to the Parquet writer at once, and most bytes of their lines.
const DEAD_LETTERS_AT_ONCE: usize = 8_192;
const DEAD_LETTER_BYTES_AT_ONCE: usize = 32 << 20;

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
    let (mut rest, mut taken) = (letters, 0);
    while !rest.is_empty() {
        let fits = rest.iter().take(DEAD_LETTERS_AT_ONCE).take_while(|letter| {
            taken += letter.payload.len();
            taken <= DEAD_LETTER_BYTES_AT_ONCE
        });
        let (chunk, later) = rest.split_at(fits.count().max(1));
        writer.write(dead_letter_columns(chunk, partition, epoch)?)?;
        (rest, taken) = (later, 0);
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
        Arc::new(letters.iter().map(|letter| letter.header.as_deref()).collect::<BinaryArray>()),
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

/// Counts of a span that become rows of a table of counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct SpanRows<'a> {
    /// The epoch of the rows.
    pub(super) epoch: u64,
    /// The counts, under the first minute of the span.
    pub(super) counts: &'a MinuteCounts,
    /// The run that corrects, for corrections.
    pub(super) correction: Option<u64>,
}

/// Encodes the counts of epochs as a file of a table of counts, sorted by epoch, span, ad and country. `None` if there
/// are none.
pub(super) fn encode_counts(table: Table, epochs: &[EpochProjection], partition: u32) -> Result<Option<RowFile>> {
    let roll_up = RollUp::ALL.into_iter().find(|roll_up| roll_up.table() == table);
    let summed: Vec<(&EpochProjection, Vec<MinuteCounts>)> = epochs
        .iter()
        .map(|epoch| (epoch, roll_up.map(|roll_up| roll_up.sums(&epoch.counts)).unwrap_or_default()))
        .collect();
    let corrects = |epoch: &&(&EpochProjection, Vec<MinuteCounts>)| {
        epoch.0.correction.as_ref().is_none_or(|correction| corrects(correction.cause, table))
    };
    let spans = summed.iter().filter(corrects).flat_map(|(epoch, sums)| {
        let counts = if roll_up.is_some() { &sums[..] } else { &epoch.counts[..] };
        let (number, correction) = (epoch.progress.number, epoch.correction.as_ref().map(|of| of.run));
        counts.iter().map(move |counts| SpanRows { epoch: number, counts, correction })
    });
    encode_spans(table, &spans.collect::<Vec<_>>(), partition)
}

/// Whether corrections of a cause are rows of a table of counts.
fn corrects(cause: Cause, table: Table) -> bool {
    match cause {
        Cause::Count => table == Table::ClicksByMinute,
        Cause::HourCount => table == Table::ClicksByHour,
        Cause::DayCount => table == Table::ClicksByDay,
        Cause::Late | Cause::Future | Cause::StoredTwice | Cause::Reverted | Cause::Replay | Cause::Backfill => true,
    }
}

/// Encodes counts of spans as a file of a table of counts. `None` if there are none.
pub(super) fn encode_spans(table: Table, spans: &[SpanRows<'_>], partition: u32) -> Result<Option<RowFile>> {
    let runs: Vec<CountRun<'_>> = spans.iter().map(|&span| Run { of: span, rows: 0..span.counts.len() }).collect();
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
    let held = || spans.iter().filter(|span| !span.counts.is_empty());
    let uncorrected: usize = held().filter(|span| span.correction.is_none()).map(|span| span.counts.len()).sum();
    let statistics = Statistics::of_rows(rows as u64)
        .time(table.time_column(), held().map(|span| span.counts.minute.start_ms()), 0)
        .long("ad_id", held().flat_map(|span| span.counts.ad_id.iter().map(|&ad| bound(ad))))
        .long("partition", [i64::from(partition)])
        .long("epoch", held().map(|span| bound(span.epoch)))
        .nulls("country", 0)
        .nulls("clicks", 0)
        .nulls("correction", uncorrected as u64);
    Ok(Some(RowFile { bytes, statistics }))
}

/// Rows of the counts of one span.
type CountRun<'a> = Run<SpanRows<'a>>;

/// The columns of a table of counts for some rows.
fn count_columns(table: Table, piece: &[CountRun<'_>], partition: u32) -> Result<Vec<ArrayRef>> {
    let rows = rows_of(piece);
    let (mut times, mut ads, mut clicks, mut epochs) =
        (Vec::with_capacity(rows), Vec::with_capacity(rows), Vec::with_capacity(rows), Vec::with_capacity(rows));
    let mut countries: Vec<u8> = Vec::with_capacity(rows);
    let mut corrections: Vec<Option<String>> = Vec::with_capacity(rows);
    for Run { of: SpanRows { epoch, counts, correction }, rows } in piece {
        times.resize(times.len() + rows.len(), counts.minute.start_ms() * 1_000);
        epochs.resize(epochs.len() + rows.len(), long(*epoch)?);
        corrections.resize(corrections.len() + rows.len(), correction.map(|run| run.to_string()));
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
        Arc::new(StringArray::from(corrections)),
    ])
}

/// Encodes the counts of corrections as a file of `corrections`. `None` if there are none.
pub(super) fn encode_corrections(epochs: &[EpochProjection], partition: u32) -> Result<Option<RowFile>> {
    let rows = || {
        let corrected = epochs.iter().filter_map(|epoch| Some((epoch, epoch.correction.as_ref()?)));
        corrected.flat_map(|(epoch, correction)| {
            let minutes = epoch.counts.iter().flat_map(|counts| counts.rows().map(move |row| (counts.minute, row)));
            minutes.map(move |(minute, row)| (epoch, correction, minute, row))
        })
    };
    let count = rows().count();
    if count == 0 {
        return Ok(None);
    }
    let text = |texts: Vec<String>| -> ArrayRef { Arc::new(StringArray::from(texts)) };
    let columns = vec![
        text(rows().map(|(_, correction, ..)| correction.run.to_string()).collect()),
        timestamps(rows().map(|(_, _, minute, _)| minute.start_ms() * 1_000).collect()),
        Arc::new(Int64Array::from(longs(rows().map(|(.., (ad, ..))| ad))?)) as ArrayRef,
        text(rows().map(|(.., (_, country, _))| country.as_str().to_owned()).collect()),
        Arc::new(Int64Array::from(rows().map(|(.., (.., clicks))| clicks).collect::<Vec<_>>())),
        text(rows().map(|(_, correction, ..)| correction.cause.as_str().to_owned()).collect()),
        timestamps(rows().map(|(epoch, ..)| epoch.progress.clock_ms * 1_000).collect()),
        text(rows().map(|(_, correction, ..)| correction.made_by.clone()).collect()),
        constant_int(partition, count)?,
        Arc::new(Int64Array::from(longs(rows().map(|(epoch, ..)| epoch.progress.number))?)),
    ];
    let mut writer = FileWriter::new(Table::Corrections, plain_properties(&[]), 0)?;
    writer.write(columns)?;
    let statistics = Statistics::of_rows(count as u64)
        .time("minute", rows().map(|(_, _, minute, _)| minute.start_ms()), 0)
        .long("ad_id", rows().map(|(.., (ad, ..))| bound(ad)))
        .long("partition", [i64::from(partition)])
        .long("epoch", rows().map(|(epoch, ..)| bound(epoch.progress.number)))
        .text("cause", rows().map(|(_, correction, ..)| correction.cause.as_str()));
    Ok(Some(RowFile { bytes: writer.finish()?, statistics }))
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

/// The `input` of rows about hours: null is the partition.
const HOURS: &str = "(hours)";

/// A row of the ledger.
struct LedgerRow<'a> {
    epoch: &'a EpochProjection,
    of: LedgerOf<'a>,
}

/// What a row of the ledger is about.
enum LedgerOf<'a> {
    /// The partition.
    Partition,
    /// An input, by its name.
    Input(&'a str, &'a Ledger),
    /// The file of clicks of one hour of event time.
    Hour(&'a StagedFile, i64),
}

impl<'a> LedgerRow<'a> {
    fn of(epoch: &'a EpochProjection) -> impl Iterator<Item = LedgerRow<'a>> {
        let inputs = epoch.inputs.iter().map(|(name, ledger)| LedgerOf::Input(name, ledger));
        let hours = epoch.staged.iter().filter(|file| file.table == StagedTable::Clicks);
        let hours = hours.filter_map(|file| Some(LedgerOf::Hour(file, file.event_time_ms?.0)));
        std::iter::once(LedgerOf::Partition).chain(inputs).chain(hours).map(move |of| LedgerRow { epoch, of })
    }

    /// Lines by verdict. A row about an hour has none, so that it changes no sum and no maximum.
    fn ledger(&self) -> Ledger {
        match self.of {
            LedgerOf::Partition => self.epoch.progress.ledger,
            LedgerOf::Input(_, ledger) => *ledger,
            LedgerOf::Hour(..) => Ledger::default(),
        }
    }

    /// The partition's progress, in the row about the partition.
    fn progress(&self) -> Option<&Progress> {
        matches!(self.of, LedgerOf::Partition).then_some(&self.epoch.progress)
    }

    /// The file of an hour, and the hour's start in microseconds.
    fn hour(&self) -> Option<(&StagedFile, i64)> {
        match self.of {
            LedgerOf::Hour(file, at_ms) => Some((file, RollUp::Hour.floor(Minute::of(at_ms)).start_ms() * 1_000)),
            LedgerOf::Partition | LedgerOf::Input(..) => None,
        }
    }
}

/// Encodes the ledgers of epochs as a file. Each epoch has a row for the partition, whose input is null, a row for each
/// input that it changed, and a row for each hour of event time with clicks, whose input is [`HOURS`].
pub(super) fn encode_ledgers(epochs: &[EpochProjection], partition: u32) -> Result<RowFile> {
    let rows: Vec<LedgerRow<'_>> = epochs.iter().flat_map(LedgerRow::of).collect();
    let lines = |of: fn(&Ledger) -> u64| -> Result<ArrayRef> {
        Ok(Arc::new(Int64Array::from(longs(rows.iter().map(|row| of(&row.ledger())))?)))
    };
    let time = |of: fn(&Progress) -> Option<i64>| -> ArrayRef {
        optional_timestamps(rows.iter().map(|row| Some(of(row.progress()?)? * 1_000)))
    };
    let names = rows.iter().map(|row| match row.of {
        LedgerOf::Partition => None,
        LedgerOf::Input(name, _) => Some(name),
        LedgerOf::Hour(..) => Some(HOURS),
    });
    let clicks = rows.iter().map(|row| row.hour().map(|(file, _)| long(file.rows)).transpose());
    let columns = vec![
        constant_int(partition, rows.len())?,
        Arc::new(Int64Array::from(longs(rows.iter().map(|row| row.epoch.progress.number))?)),
        timestamps(rows.iter().map(|row| row.epoch.progress.clock_ms * 1_000).collect()),
        Arc::new(names.collect::<StringArray>()),
        lines(|ledger| ledger.read)?,
        lines(|ledger| ledger.counted)?,
        lines(|ledger| ledger.duplicate)?,
        lines(|ledger| ledger.late)?,
        lines(|ledger| ledger.future)?,
        lines(|ledger| ledger.malformed)?,
        lines(|ledger| ledger.invalid)?,
        lines(|ledger| ledger.conflicting_duplicates)?,
        lines(|ledger| ledger.gap_bytes)?,
        time(|progress| progress.frontiers.watermark.get()),
        time(|progress| progress.frontiers.closed.get()),
        time(|progress| progress.frontiers.final_.get()),
        time(|progress| progress.newest_click_ms),
        optional_timestamps(rows.iter().map(|row| row.hour().map(|(_, hour_us)| hour_us))),
        Arc::new(clicks.collect::<Result<Int64Array>>()?),
        Arc::new(rows.iter().map(|row| row.hour()?.0.row_hash_sum).collect::<Int64Array>()),
    ];
    let mut writer = FileWriter::new(Table::Ledger, plain_properties(&[]), 0)?;
    writer.write(columns)?;
    let hours = || rows.iter().filter_map(LedgerRow::hour).map(|(_, us)| us / 1_000);
    let statistics = Statistics::of_rows(rows.len() as u64)
        .long("partition", [i64::from(partition)])
        .long("epoch", rows.iter().map(|row| bound(row.epoch.progress.number)))
        .time("committed_at", rows.iter().map(|row| row.epoch.progress.clock_ms), 0)
        .time("event_hour", hours(), (rows.len() - hours().count()) as u64)
        .nulls("input", epochs.len() as u64);
    Ok(RowFile { bytes: writer.finish()?, statistics })
}
