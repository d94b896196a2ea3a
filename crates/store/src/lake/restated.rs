//! Which minutes were corrected, and by which epochs.

use super::Lake;
use super::files::{longs, minute_of_us, times};
use super::schema::Table;
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
    /// Every earlier minute whose raw clicks are kept is reconciled, from that epoch on.
    pub reconciled_to: BTreeMap<EpochNumber, Minute>,
    /// The end of the minutes of which counts by minute were corrected, from that epoch on. A process that has counted them
    /// can have other counts in memory than those in the lake that the correction belongs to.
    pub repaired_to: BTreeMap<EpochNumber, Minute>,
}

/// The most epochs for which readers know how far minutes were reconciled and repaired.
const EPOCHS_SHOWN_MAX: usize = 128;

impl Restated {
    /// Adds an epoch that corrected `minute`.
    pub fn add(&mut self, minute: Minute, cause: Cause, epoch: EpochNumber) {
        let first = self.minutes.entry(minute).or_insert(epoch);
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

    /// Whether a minute of `[from, to)` was corrected by an epoch.
    pub(crate) fn has_any(&self, (from, to): (Minute, Minute), by: EpochNumber) -> bool {
        self.minutes.range(from..to).any(|(_, &first)| first <= by)
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
