//! Which minutes were corrected, and by which epochs.

use super::files::{longs, minute_of_us, times};
use super::schema::Table;
use super::{Lake, RollUp};
use adtally_model::reconcile::Cause;
use adtally_model::{EpochNumber, Minute, Result};
use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::DataType;
use futures::TryStreamExt;
use parquet::arrow::ProjectionMask;
use parquet::errors::ParquetError;
use std::collections::BTreeMap;

/// The minutes that were corrected, and how far minutes are reconciled, by the epochs of the partition `reconcile`.
#[derive(Clone, Default)]
pub struct Restated {
    /// The first epoch that corrected each minute.
    pub minutes: BTreeMap<Minute, EpochNumber>,
    /// The first epoch that corrected only the count of an hour or a day, under its first minute and the minute after its last.
    pub spans: BTreeMap<(Minute, Minute), EpochNumber>,
    /// Every earlier minute whose raw clicks are kept is reconciled, from that epoch on.
    pub reconciled_to: BTreeMap<EpochNumber, Minute>,
    /// The end of the minutes of which counts by minute were corrected, from that epoch on. A process that has counted them
    /// can have other counts in memory than those in the lake that the correction belongs to.
    pub repaired_to: BTreeMap<EpochNumber, Minute>,
    /// While an epoch is committed: a time in milliseconds since the Unix epoch that is not after the epoch's.
    pub committing_ms: Option<i64>,
}

/// The most epochs for which readers know how far minutes were reconciled and repaired.
const EPOCHS_SHOWN_MAX: usize = 128;

impl Restated {
    /// Adds an epoch that corrected `minute`.
    pub fn add(&mut self, minute: Minute, cause: Cause, epoch: EpochNumber) {
        let roll_up = match cause {
            Cause::HourCount => Some(RollUp::Hour),
            Cause::DayCount => Some(RollUp::Day),
            _ => None,
        };
        let first = match roll_up {
            None => self.minutes.entry(minute).or_insert(epoch),
            Some(roll_up) => self.spans.entry((minute, Minute(minute.0 + roll_up.minutes()))).or_insert(epoch),
        };
        *first = epoch.min(*first);
        if cause == Cause::Count {
            let repaired_to = self.repaired_to.entry(epoch).or_insert(minute.next());
            *repaired_to = minute.next().max(*repaired_to);
            bound(&mut self.repaired_to);
        }
    }

    /// Adds that every minute before `to` is reconciled from an epoch on.
    pub fn reconcile(&mut self, epoch: EpochNumber, to: Minute) {
        self.reconciled_to.insert(epoch, to);
        bound(&mut self.reconciled_to);
    }

    /// The end of the minutes of which epochs up to `by` corrected counts by minute. Other counts of these minutes than those in
    /// the lake, in memory or in the log, do not fit the corrections.
    pub fn repaired_to(&self, by: EpochNumber) -> Option<Minute> {
        self.repaired_to.range(..=by).map(|(_, &to)| to).max()
    }

    /// Whether a minute was corrected by an epoch.
    pub(crate) fn has(&self, minute: Minute, by: EpochNumber) -> bool {
        self.minutes.get(&minute).is_some_and(|&first| first <= by)
    }

    /// Whether a minute of `[from, to)` was corrected by an epoch, or the count of an hour or a day of which it has all minutes.
    pub(crate) fn has_any(&self, (from, to): (Minute, Minute), by: EpochNumber) -> bool {
        let mut spans = self.spans.range((from, from)..(to, to));
        self.minutes.range(from..to).any(|(_, &first)| first <= by)
            || spans.any(|(&(_, end), &first)| end <= to && first <= by)
    }
}

/// Keeps what later epochs show. No reader asks about much older ones.
fn bound(shown: &mut BTreeMap<EpochNumber, Minute>) {
    while shown.len() > EPOCHS_SHOWN_MAX {
        if let (Some((_, to)), Some(mut next)) = (shown.pop_first(), shown.first_entry()) {
            let to = to.max(*next.get());
            next.insert(to);
        }
    }
}

impl Lake {
    /// The minutes that were corrected, by the epochs of the partition `reconcile`.
    ///
    /// # Errors
    /// External when the store fails, corrupt when a file is missing.
    pub async fn restated(&self) -> Result<Restated> {
        let table = self.table(Table::Corrections);
        let mut restated = Restated::default();
        for file in &table.files().await?.files {
            let reader = table.reader(&file.path, file.size);
            let failed = reader.failure();
            let builder = reader.open().await?;
            let mask = ProjectionMask::columns(builder.parquet_schema(), ["minute", "cause", "epoch"]);
            let mut batches = builder.with_projection(mask).build().map_err(&failed)?;
            while let Some(batch) = batches.try_next().await.map_err(&failed)? {
                let epochs = longs(&batch, "epoch", &failed)?.values();
                let causes = batch.column_by_name("cause").map(|causes| cast(causes, &DataType::Utf8));
                let causes = causes.transpose().map_err(|error| failed(ParquetError::General(error.to_string())))?;
                let minutes = times(&batch, "minute", &failed)?;
                for (row, (&us, &epoch)) in minutes.iter().zip(epochs).enumerate() {
                    let cause = causes.as_ref().map_or("", |causes| causes.as_string::<i32>().value(row));
                    // A cause that this version does not know is of corrections in all tables.
                    let cause = Cause::ALL.into_iter().find(|known| known.as_str() == cause).unwrap_or(Cause::Late);
                    restated.add(minute_of_us(us), cause, u64::try_from(epoch).unwrap_or_default());
                }
            }
        }
        Ok(restated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repaired_hour_restates_ranges_that_have_all_of_it() {
        let mut restated = Restated::default();
        restated.add(Minute(60), Cause::HourCount, 3);
        restated.add(Minute(200), Cause::Late, 4);
        let check = |span: (i64, i64), by, expected| {
            assert_eq!(restated.has_any((Minute(span.0), Minute(span.1)), by), expected, "{span:?} {by}");
        };
        assert!(!restated.has(Minute(60), 9) && restated.has(Minute(200), 4) && !restated.has(Minute(200), 3));
        check((60, 120), 3, true);
        check((60, 120), 2, false);
        check((0, 119), 9, false);
        check((61, 180), 9, false);
        check((0, 300), 3, true);
        check((150, 201), 4, true);
        check((150, 201), 3, false);
    }
}
