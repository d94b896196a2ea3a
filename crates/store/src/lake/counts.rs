//! Counts by minute, ad and country: read from the additive rows of `clicks_by_minute`, or recounted from clicks.

use super::files::{Epochs, FILES_AT_ONCE, FileEntry, FileIndex, LakeFile};
use super::files::{group_bounds, ints, longs, minute_of_us, times};
use super::schema::Table;
use super::upkeep::RollUp;
use super::{Lake, LakeTable};
use adtally_model::{Country, Error, Invariant, Ledger, Minute, MinuteCounts, Result};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow::error::ArrowError;
use futures::{StreamExt, TryStreamExt, stream};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowPredicate, ArrowPredicateFn, RowFilter};
use parquet::errors::ParquetError;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Counts of a range of minutes, and the epochs that they include.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct LakeCounts {
    /// Minutes that have clicks, ascending.
    pub minutes: Vec<MinuteCounts>,
    /// The epochs in the counts. Later epochs are not projected yet or were not requested.
    pub epochs: Epochs,
}

/// A row of counts; corrections may be negative.
pub(super) type SignedRow = (u64, Country, i64);

/// Rows by minute, summed by ad and country and sorted.
#[derive(Debug, Default)]
pub(super) struct SignedCounts(BTreeMap<Minute, Vec<SignedRow>>);

impl SignedCounts {
    /// Appends rows of one minute in any order; [`SignedCounts::summed`] sorts them.
    pub(super) fn extend(&mut self, minute: Minute, rows: &mut Vec<SignedRow>) {
        if !rows.is_empty() {
            self.0.entry(minute).or_default().append(rows);
        }
    }

    /// Sums the rows of each ad and country.
    #[must_use]
    pub(super) fn summed(mut self) -> Self {
        for rows in self.0.values_mut() {
            // A stable sort: it merges the few sorted runs that the rows consist of.
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

    /// Adds other counts, which must be summed too.
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

    /// Converts to counts. A sum of zero is dropped. A sum below zero is an error, unless they are `corrections` alone.
    pub(super) fn finish(self, corrections: bool) -> Result<Vec<MinuteCounts>> {
        let mut minutes = Vec::with_capacity(self.0.len());
        for (minute, rows) in self.0 {
            let mut counts = MinuteCounts::empty(minute);
            for (ad, country, clicks) in rows {
                if clicks != 0 {
                    if clicks < 0 && !corrections {
                        let at = adtally_model::time::rfc3339(minute.start_ms());
                        let what = format!("{clicks} clicks of ad {ad} from {country} in the minute {at}");
                        let what = format!("`clicks_by_minute` sums up to {what}");
                        return Err(Error::violated(Invariant::LakeEqualsLog, what));
                    }
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

/// The most minutes that [`Lake::each_minute`] reads at once.
const PIECE_MINUTES_MAX: i64 = 60;

/// The most bytes of files that it reads at once, unless a single minute has more. A row takes 1.5 bytes in a file and
/// 24 in memory, so a piece takes some 200 MB. At the mission rate, that is some 20 minutes.
const PIECE_BYTES_MAX: u64 = 12 << 20;

/// Selects counts; conditions combine with AND.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Selection {
    /// Only this ad.
    pub ad_id: Option<u64>,
    /// Only this country.
    pub country: Option<Country>,
}

impl Selection {
    /// Whether a row matches.
    #[inline]
    pub fn takes(&self, ad_id: u64, country: Country) -> bool {
        self.ad_id.is_none_or(|wanted| wanted == ad_id) && self.country.is_none_or(|wanted| wanted == country)
    }
}

/// Reads one state of a table of counts.
pub(super) struct CountReader<'a> {
    table: &'a LakeTable,
    pub(super) index: Arc<FileIndex>,
    epochs: Epochs,
    selection: Selection,
}

impl CountReader<'_> {
    /// Counts of the minutes, or of the spans that begin in them, `[from, to)`, all in memory.
    pub(super) async fn read(&self, from: Minute, to: Minute) -> Result<Vec<MinuteCounts>> {
        let reads = self.files(from, to).map(|file| {
            let (file, epochs) = (self.table.reader(&file.path, file.size), self.epochs.clone());
            let selection = self.selection;
            spawned(async move { read_counts(file, from, to, &epochs, selection).await })
        });
        merged(reads.collect(), self.epochs.are_corrections()).await
    }

    fn files(&self, from: Minute, to: Minute) -> impl Iterator<Item = &FileEntry> {
        let within = move |file: &&FileEntry| file.bounds.may_meet(from, to) && self.epochs.may_hold(&file.bounds);
        self.index.files.iter().filter(within)
    }

    /// Passes on the counts of `[from, to)` in pieces of bounded size.
    pub(super) async fn each(
        &self,
        (from, to): (Minute, Minute),
        show: &mut (impl FnMut(&MinuteCounts) + Send),
    ) -> Result<()> {
        let mut begin = from;
        while begin < to {
            let end = self.piece_end(begin, to);
            self.read(begin, end).await?.iter().for_each(&mut *show);
            begin = end;
        }
        Ok(())
    }

    /// The end of a piece that begins at `from`.
    pub(super) fn piece_end(&self, from: Minute, to: Minute) -> Minute {
        let mut minutes = (to.0 - from.0).min(PIECE_MINUTES_MAX);
        let bytes = |minutes| self.files(from, Minute(from.0 + minutes)).map(|file| file.size).sum::<u64>();
        // One ad has few rows, and all others are dropped during the read.
        while self.selection.ad_id.is_none() && minutes > 1 && bytes(minutes) > PIECE_BYTES_MAX {
            minutes /= 2;
        }
        Minute(from.0 + minutes)
    }
}

impl Lake {
    /// The counts of the minutes `[from, to)`, in the epochs up to `cut` that all tables contain. Memory grows with the
    /// range: see [`Lake::each_minute`].
    ///
    /// # Errors
    /// External when the store fails, corrupt when a file is missing, internal when counts sum up to less than 0.
    pub async fn counts(&self, from: Minute, to: Minute, cut: Option<&Epochs>) -> Result<LakeCounts> {
        let reader = self.count_reader(Table::ClicksByMinute, cut, Selection::default()).await?;
        let minutes = reader.read(from, to).await?;
        Ok(LakeCounts { minutes, epochs: reader.epochs })
    }

    /// Passes on the selected counts of the minutes `[from, to)`, in the epochs up to `cut` that all tables contain,
    /// minute by minute. They are read in pieces of bounded size, all from one state of the table.
    ///
    /// # Errors
    /// As [`Lake::counts`]; user when minutes from `from` on have been deleted.
    pub async fn each_minute(
        &self,
        (from, to): (Minute, Minute),
        cut: Option<&Epochs>,
        selection: Selection,
        mut show: impl FnMut(&MinuteCounts) + Send,
    ) -> Result<()> {
        let reader = self.count_reader(Table::ClicksByMinute, cut, selection).await?;
        reader.index.check_kept(Table::ClicksByMinute, from).await?;
        reader.each((from, to), &mut show).await
    }

    pub(super) async fn count_reader(
        &self,
        table: Table,
        cut: Option<&Epochs>,
        selection: Selection,
    ) -> Result<CountReader<'_>> {
        let epochs = self.cut_at(cut).await?;
        let table = self.table(table);
        Ok(CountReader { table, index: table.files().await?, epochs, selection })
    }

    /// The first minute with clicks or counts in the lake, or the start of the first hour or day with any, and the
    /// minute after the last. `None` before any click.
    ///
    /// # Errors
    /// External when the store fails.
    pub async fn minutes(&self) -> Result<Option<(Minute, Minute)>> {
        let mut span: Option<(Minute, Minute)> = None;
        for table in [Table::Clicks, Table::ClicksByMinute, Table::ClicksByHour, Table::ClicksByDay] {
            for file in &self.table(table).files().await?.files {
                let Some((least, largest)) = file.bounds.time_ms else { continue };
                // The upper bound is one millisecond beyond the largest.
                let (first, end) = (Minute::of(least), Minute::of(largest - 1).next());
                span = Some(span.map_or((first, end), |(from, to)| (from.min(first), to.max(end))));
            }
        }
        Ok(span)
    }

    /// The number of rows of `clicks` by hour of event time, under the hour's first minute. A file of several hours is
    /// divided evenly among them; Adtally writes none.
    ///
    /// # Errors
    /// External when the store fails.
    pub async fn click_rows_by_hour(&self) -> Result<BTreeMap<Minute, u64>> {
        let mut hours = BTreeMap::new();
        for file in &self.table(Table::Clicks).files().await?.files {
            let (Some((least, largest)), Some(rows)) = (file.bounds.time_ms, file.bounds.rows) else { continue };
            let hour_of = |ms: i64| RollUp::Hour.floor(Minute::of(ms));
            let (first, last) = (hour_of(least), hour_of(largest - 1));
            let count = (last.0 - first.0) / RollUp::Hour.minutes() + 1;
            for number in 0..count {
                *hours.entry(Minute(first.0 + number * RollUp::Hour.minutes())).or_default() +=
                    rows / count.unsigned_abs();
            }
        }
        Ok(hours)
    }

    /// The ledger of a partition at the last epoch that all tables contain: that epoch, the ledger of the partition,
    /// and the ledger of each input.
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

/// Runs a read as a separate task, so that decoding uses all threads of the runtime.
pub(super) async fn spawned<T: Send + 'static>(read: impl Future<Output = Result<T>> + Send + 'static) -> Result<T> {
    // The task starts when the read is polled, which bounds how many run.
    tokio::spawn(read).await.unwrap_or_else(|error| {
        Err(Error::internal("reading a lake file was cancelled: please report this").because(error))
    })
}

/// Sums the results of reads, a few at a time. Only sums of `corrections` alone may be negative.
pub(super) async fn merged<F: Future<Output = Result<SignedCounts>>>(
    reads: Vec<F>,
    corrections: bool,
) -> Result<Vec<MinuteCounts>> {
    let mut sums = SignedCounts::default();
    let mut found = stream::iter(reads).buffer_unordered(FILES_AT_ONCE);
    while let Some(counts) = found.try_next().await? {
        sums.merge(counts);
    }
    sums.finish(corrections)
}

/// The country of each row of a batch.
pub(super) fn countries(batch: &RecordBatch, failed: &impl Fn(ParquetError) -> Error) -> Result<Vec<Country>> {
    let column = batch.column_by_name("country").and_then(|column| column.as_string_opt::<i32>());
    let column = column.ok_or_else(|| failed(ParquetError::General("the column `country` is missing".to_owned())))?;
    let (ends, bytes) = (column.value_offsets(), column.value_data());
    Ok(ends.windows(2).map(|ends| Country::parse(&bytes[ends[0] as usize..ends[1] as usize])).collect())
}

async fn read_counts(
    file: LakeFile,
    from: Minute,
    to: Minute,
    epochs: &Epochs,
    selection: Selection,
) -> Result<SignedCounts> {
    let (failed, time) = (file.failure(), file.time_column());
    let builder = file.open().await?;
    // Delta stores an ad as a signed number; no file has larger ones.
    let ad = selection.ad_id.map(|ad| i64::try_from(ad).unwrap_or(-1));
    let groups = builder.metadata().row_groups().iter().enumerate().filter(|(_, group)| {
        let in_time = group_bounds(group, time)
            .is_none_or(|(least, largest)| minute_of_us(least) < to && minute_of_us(largest) >= from);
        let has = |ad| group_bounds(group, "ad_id").is_none_or(|(least, largest)| (least..=largest).contains(&ad));
        in_time && ad.is_none_or(has)
    });
    let groups = groups.map(|(number, _)| number).collect();
    let columns = [time, "ad_id", "country", "clicks", "partition", "epoch"];
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns);
    let mut predicates: Vec<Box<dyn ArrowPredicate>> = Vec::new();
    if let Some(ad) = ad {
        // Of the other columns, only pages with rows of the ad are read.
        let mask = ProjectionMask::columns(builder.parquet_schema(), ["ad_id"]);
        predicates.push(Box::new(ArrowPredicateFn::new(mask, move |batch| {
            let ads = batch.columns().first().and_then(|column| column.as_primitive_opt::<Int64Type>());
            let ads = ads.ok_or_else(|| ArrowError::SchemaError("the column `ad_id` is of another type".to_owned()))?;
            Ok(ads.values().iter().map(|&found| Some(found == ad)).collect())
        })));
    }
    let builder = builder.with_row_groups(groups).with_projection(mask).with_row_filter(RowFilter::new(predicates));
    let mut batches = builder.build().map_err(&failed)?;
    let mut sums = SignedCounts::default();
    let (mut current, mut rows) = (from, Vec::new());
    while let Some(batch) = batches.try_next().await.map_err(&failed)? {
        let minutes = times(&batch, time, &failed)?;
        let (ads, clicks) = (longs(&batch, "ad_id", &failed)?.values(), longs(&batch, "clicks", &failed)?.values());
        let partitions = ints(&batch, "partition", &failed)?.values();
        let numbers = longs(&batch, "epoch", &failed)?.values();
        let countries = countries(&batch, &failed)?;
        for row in 0..batch.num_rows() {
            let minute = minute_of_us(minutes[row]);
            let (ad, country) = (ads[row] as u64, countries[row]);
            let within = minute >= from && minute < to && epochs.hold(partitions[row], numbers[row]);
            if !within || !selection.takes(ad, country) {
                continue;
            }
            if minute != current {
                sums.extend(current, &mut rows);
                current = minute;
            }
            rows.push((ad, country, clicks[row]));
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
        // Files of earlier versions lack the column.
        let hours = batch.column_by_name("event_hour");
        for row in 0..batch.num_rows() {
            if hours.is_some_and(|hours| hours.is_valid(row)) {
                continue;
            }
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
                // Not in the table, since they do not count lines.
                nul_bytes: 0,
                gap_offsets: 0,
            };
            newest.insert(input, (epoch, ledger));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lake::statistics::Bounds;
    use object_store::memory::InMemory;
    use object_store::path::Path;

    #[tokio::test]
    async fn pieces_are_bounded_in_minutes_and_bytes() {
        let lake = Lake::open(Arc::new(InMemory::new())).await.unwrap();
        // One minute per file, each a quarter of a piece.
        let file = |minute: i64| {
            let times = Minute(minute).start_ms()..Minute(minute).end_ms();
            let bounds = Bounds { time_ms: Some((times.start, times.end - 1)), ..Bounds::default() };
            FileEntry { path: Path::from(minute.to_string()), size: PIECE_BYTES_MAX / 4, bounds }
        };
        let mut reader = lake.count_reader(Table::ClicksByMinute, None, Selection::default()).await.unwrap();
        reader.index = Arc::new(FileIndex::new((1_000..1_100).map(file).collect()));
        let pieces = |reader: &CountReader<'_>, from: i64, to: i64| {
            let mut ends = vec![from];
            while ends[ends.len() - 1] < to {
                ends.push(reader.piece_end(Minute(ends[ends.len() - 1]), Minute(to)).0);
            }
            ends
        };
        assert_eq!(pieces(&reader, 800, 1_000), [800, 860, 920, 980, 1_000]);
        assert_eq!(pieces(&reader, 1_000, 1_010), [1_000, 1_002, 1_006, 1_010]);
        reader.selection.ad_id = Some(1);
        assert_eq!(pieces(&reader, 1_000, 1_100), [1_000, 1_060, 1_100]);
        reader.selection = Selection::default();
        let large = FileEntry { size: 2 * PIECE_BYTES_MAX, ..file(1_000) };
        reader.index = Arc::new(FileIndex::new(vec![large]));
        assert_eq!(pieces(&reader, 1_000, 1_003), [1_000, 1_001, 1_003]);
    }
}
