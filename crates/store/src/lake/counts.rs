//! Counts by minute, ad and country, read from the additive rows of `clicks_by_minute` or recounted from clicks.

use super::Lake;
use super::files::{Epochs, FILES_AT_ONCE, LakeFile, ints, longs, minute_of_us, times};
use super::schema::Table;
use adtally_model::{Country, Error, Invariant, Ledger, Minute, MinuteCounts, Result};
use arrow::array::{Array, AsArray, RecordBatch};
use futures::{StreamExt, TryStreamExt, stream};
use parquet::arrow::ProjectionMask;
use parquet::errors::ParquetError;
use std::collections::BTreeMap;

/// Counts of a range of minutes, and what they cover.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LakeCounts {
    /// Minutes that have clicks, ascending.
    pub minutes: Vec<MinuteCounts>,
    /// The epochs that are in them; later ones are not projected yet or were not asked for.
    pub epochs: Epochs,
}

/// A row of counts; corrections may be negative.
pub(super) type SignedRow = (u64, Country, i64);

/// Rows by minute, summed by ad and country, each minute in their order.
#[derive(Debug, Default)]
pub(super) struct SignedCounts(BTreeMap<Minute, Vec<SignedRow>>);

impl SignedCounts {
    /// Appends rows of one minute in any order; [`SignedCounts::summed`] brings them into theirs.
    pub(super) fn extend(&mut self, minute: Minute, rows: &mut Vec<SignedRow>) {
        if !rows.is_empty() {
            self.0.entry(minute).or_default().append(rows);
        }
    }

    /// Sums the rows of each ad and country.
    #[must_use]
    pub(super) fn summed(mut self) -> Self {
        for rows in self.0.values_mut() {
            // Stable, since rows come as a few sorted runs, which it merges.
            rows.sort_by_key(|&(ad, country, _)| (ad, country));
            rows.dedup_by(|next, kept| {
                let same = (next.0, next.1) == (kept.0, kept.1);
                if same {
                    kept.2 = kept.2.saturating_add(next.2);
                }
                same
            });
            rows.shrink_to_fit();
        }
        self
    }

    /// Adds another that is summed, too.
    pub(super) fn merge(&mut self, other: SignedCounts) {
        for (minute, mut rows) in other.0 {
            let mine = self.0.entry(minute).or_default();
            if mine.is_empty() {
                *mine = rows;
            } else {
                mine.append(&mut rows);
                let sum = SignedCounts(BTreeMap::from([(minute, std::mem::take(mine))])).summed();
                self.0.extend(sum.0);
            }
        }
    }

    /// As counts: a sum below zero contradicts itself, one of zero is no row.
    pub(super) fn finish(self) -> Result<Vec<MinuteCounts>> {
        let mut minutes = Vec::with_capacity(self.0.len());
        for (minute, rows) in self.0 {
            let mut counts = MinuteCounts::empty(minute);
            for (ad, country, clicks) in rows {
                if clicks != 0 {
                    let clicks = u32::try_from(clicks).map_err(|_| {
                        let at = adtally_model::time::rfc3339(minute.start_ms());
                        let what = format!("{clicks} clicks of ad {ad} from {country} in the minute {at}");
                        Error::violated(Invariant::LakeEqualsLog, format!("`clicks_by_minute` sums up to {what}"))
                    })?;
                    counts.push(ad, country, clicks);
                }
            }
            if !counts.is_empty() {
                minutes.push(counts);
            }
        }
        Ok(minutes)
    }
}

impl Lake {
    /// The counts of the minutes `[from, to)`, in the epochs up to `upto` that all tables hold. Memory grows with
    /// the range: long ones are better asked for in pieces.
    ///
    /// # Errors
    /// External when the store fails, corrupt when a file is missing, internal when counts sum up to less than 0.
    pub async fn counts(&self, from: Minute, to: Minute, upto: Option<&Epochs>) -> Result<LakeCounts> {
        let epochs = self.covered(upto).await?;
        let table = self.table(Table::ClicksByMinute);
        let index = table.files().await?;
        let wanted = index.files.iter().filter(|file| {
            let in_time =
                file.bounds.time_ms.is_none_or(|(least, largest)| least < to.start_ms() && largest >= from.start_ms());
            in_time && epochs.may_hold(&file.bounds)
        });
        let reads = wanted.map(|file| {
            let (file, epochs) = (table.reader(&file.path, file.size), epochs.clone());
            spawned(async move { read_counts(file, from, to, &epochs).await })
        });
        let minutes = merged(reads.collect()).await?;
        Ok(LakeCounts { minutes, epochs })
    }

    /// The first minute that has clicks or counts in the lake and the one after the last; none before any click.
    ///
    /// # Errors
    /// External when the store fails.
    pub async fn minutes(&self) -> Result<Option<(Minute, Minute)>> {
        let mut span: Option<(Minute, Minute)> = None;
        for table in [Table::Clicks, Table::ClicksByMinute] {
            for file in &self.table(table).files().await?.files {
                let Some((least, largest)) = file.bounds.time_ms else { continue };
                // The upper bound is a millisecond beyond the largest.
                let (first, end) = (Minute::of(least), Minute::of(largest - 1).next());
                span = Some(span.map_or((first, end), |(from, to)| (from.min(first), to.max(end))));
            }
        }
        Ok(span)
    }

    /// The ledger of a partition as of the last epoch that all tables hold: that epoch, the partition's lines and
    /// those of each input.
    ///
    /// # Errors
    /// External when the store fails, corrupt when a file is missing.
    pub async fn ledger(&self, partition: u32) -> Result<Option<(u64, Ledger, BTreeMap<String, Ledger>)>> {
        let mut newest: BTreeMap<Option<String>, (u64, Ledger)> = BTreeMap::new();
        let table = self.table(Table::Ledger);
        for file in &table.files().await?.files {
            let other = file
                .bounds
                .partition
                .is_some_and(|(least, largest)| !(least..=largest).contains(&i64::from(partition)));
            if !other {
                read_ledgers(table.reader(&file.path, file.size), partition, &mut newest).await?;
            }
        }
        let Some((epoch, total)) = newest.remove(&None) else { return Ok(None) };
        let inputs = newest.into_iter().filter_map(|(input, (_, ledger))| input.map(|input| (input, ledger)));
        Ok(Some((epoch, total, inputs.collect())))
    }
}

/// Runs a read as a task of its own, so that decoding uses all threads of the runtime.
pub(super) async fn spawned<T: Send + 'static>(read: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    // The task starts when the read is asked for, which bounds how many run.
    tokio::spawn(read).await.unwrap_or_else(|error| {
        Err(Error::internal("reading a lake file was cut short: please report this").because(error))
    })
}

/// Sums what some reads find, a few at a time.
pub(super) async fn merged<F: Future<Output = Result<SignedCounts>>>(reads: Vec<F>) -> Result<Vec<MinuteCounts>> {
    let mut sums = SignedCounts::default();
    let mut found = stream::iter(reads).buffer_unordered(FILES_AT_ONCE);
    while let Some(counts) = found.try_next().await? {
        sums.merge(counts);
    }
    sums.finish()
}

/// The countries of a batch by row.
pub(super) fn countries(batch: &RecordBatch, failed: &impl Fn(ParquetError) -> Error) -> Result<Vec<Country>> {
    let column = batch.column_by_name("country").and_then(|column| column.as_string_opt::<i32>());
    let column = column.ok_or_else(|| failed(ParquetError::General("the column `country` is missing".to_owned())))?;
    let (ends, bytes) = (column.value_offsets(), column.value_data());
    Ok(ends.windows(2).map(|ends| Country::parse(&bytes[ends[0] as usize..ends[1] as usize])).collect())
}

async fn read_counts(file: LakeFile, from: Minute, to: Minute, epochs: &Epochs) -> Result<SignedCounts> {
    let failed = file.failure();
    let builder = file.open().await?;
    let columns = ["minute", "ad_id", "country", "clicks", "partition", "epoch"];
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns);
    let mut batches = builder.with_projection(mask).build().map_err(&failed)?;
    let mut sums = SignedCounts::default();
    let (mut current, mut rows) = (from, Vec::new());
    while let Some(batch) = batches.try_next().await.map_err(&failed)? {
        let minutes = times(&batch, "minute", &failed)?;
        let (ads, clicks) = (longs(&batch, "ad_id", &failed)?.values(), longs(&batch, "clicks", &failed)?.values());
        let partitions = ints(&batch, "partition", &failed)?.values();
        let numbers = longs(&batch, "epoch", &failed)?.values();
        let countries = countries(&batch, &failed)?;
        for row in 0..batch.num_rows() {
            let minute = minute_of_us(minutes[row]);
            if minute < from || minute >= to || !epochs.hold(partitions[row], numbers[row]) {
                continue;
            }
            if minute != current {
                sums.extend(current, &mut rows);
                current = minute;
            }
            rows.push((ads[row] as u64, countries[row], clicks[row]));
        }
    }
    sums.extend(current, &mut rows);
    Ok(sums.summed())
}

async fn read_ledgers(
    file: LakeFile,
    partition: u32,
    newest: &mut BTreeMap<Option<String>, (u64, Ledger)>,
) -> Result<()> {
    let failed = file.failure();
    let mut batches = file.open().await?.build().map_err(&failed)?;
    while let Some(batch) = batches.try_next().await.map_err(&failed)? {
        let partitions = ints(&batch, "partition", &failed)?;
        let epochs = longs(&batch, "epoch", &failed)?;
        let inputs = batch.column_by_name("input").and_then(|column| column.as_string_opt::<i32>());
        let inputs = inputs.ok_or_else(|| failed(ParquetError::General("the column `input` is missing".to_owned())))?;
        for row in 0..batch.num_rows() {
            let epoch = u64::try_from(epochs.value(row)).unwrap_or_default();
            let input = inputs.is_valid(row).then(|| inputs.value(row).to_owned());
            if u32::try_from(partitions.value(row)) != Ok(partition)
                || newest.get(&input).is_some_and(|&(known, _)| known >= epoch)
            {
                continue;
            }
            let lines = |name: &str| -> Result<u64> {
                Ok(u64::try_from(longs(&batch, name, &failed)?.value(row)).unwrap_or_default())
            };
            let ledger = Ledger {
                read: lines("read")?,
                counted: lines("counted")?,
                duplicate: lines("duplicate")?,
                late: lines("late")?,
                future: lines("future")?,
                malformed: lines("malformed")?,
                invalid: lines("invalid")?,
                conflicting_duplicates: lines("conflicting_duplicates")?,
                gap_bytes: lines("gap_bytes")?,
            };
            newest.insert(input, (epoch, ledger));
        }
    }
    Ok(())
}
