//! What was known at a past time: the epochs that were committed by then, from the ledger.

use super::files::{Epochs, FileEntry, ints, longs};
use super::schema::Table;
use super::statistics::bound;
use super::{Lake, LakeTable};
use crate::questions::{KnownAt, Revision};
use adtally_model::time::rfc3339;
use adtally_model::{Error, Minute, RECONCILE, Result};
use arrow::array::{Array, AsArray};
use arrow::datatypes::TimestampMicrosecondType;
use futures::TryStreamExt;
use parquet::arrow::ProjectionMask;
use parquet::errors::ParquetError;
use std::collections::{BTreeMap, BTreeSet};

/// The committed epochs of a past time.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Known {
    /// The last epoch of each partition then, `reconcile` included.
    pub epochs: Epochs,
    /// Minutes before this one were final in every source partition then; `None` if there was none.
    pub final_to: Option<Minute>,
    /// The smallest watermark of the source partitions then, in milliseconds since the Unix epoch.
    pub watermark_ms: Option<i64>,
    /// Event time of the newest click then.
    pub newest_click_ms: Option<i64>,
}

/// A row of the ledger about a partition.
#[derive(Clone, Copy, Debug)]
struct PartitionRow {
    partition: u32,
    epoch: u64,
    committed_at_ms: i64,
    final_ms: Option<i64>,
    watermark_ms: Option<i64>,
    newest_click_ms: Option<i64>,
}

impl Lake {
    /// What was known at a time or at a revision.
    ///
    /// # Errors
    /// User when the ledger does not reach back that far, when the time is later than the last commit, or when the revision
    /// is of another log; transient when the lake has not reached the revision; external when the store fails.
    pub async fn known_at(&self, at: &KnownAt, current: &Revision) -> Result<Known> {
        let held = self.epochs().await?;
        match at {
            KnownAt::Time(ms) => self.known_at_time(*ms, &held, current).await,
            KnownAt::Revision(revision) => {
                if !current.shares_logs(revision) {
                    return Err(Error::user("as_of is a revision of another epoch log: ask about a time instead"));
                }
                let epochs: Epochs = revision.epochs().collect();
                if epochs.iter().any(|(partition, epoch)| epoch > held.last(partition)) {
                    return Err(Error::transient(
                        "the lake has not reached the revision in as_of yet: ask again later",
                    ));
                }
                self.known_of(epochs, "the revision in as_of").await
            }
        }
    }

    async fn known_at_time(&self, ms: i64, held: &Epochs, current: &Revision) -> Result<Known> {
        if current.epochs().any(|(partition, epoch)| partition == RECONCILE && epoch > held.last(RECONCILE)) {
            return Err(Error::transient("the newest corrections are not in the lake yet: ask again later"));
        }
        let ledger = self.table(Table::Ledger);
        let index = ledger.files().await?;
        if let Some(kept) = index.kept_from(Table::Ledger).await?
            && ms < kept.start_ms()
        {
            return Err(Error::user(format!(
                "what was known is kept from {} on: ask as of a later time",
                rfc3339(kept.start_ms())
            )));
        }
        let begins = |file: &&FileEntry| file.bounds.time_ms.is_none_or(|(from, _)| from <= ms);
        let mut files: Vec<&FileEntry> = index.files.iter().filter(begins).collect();
        let end_of = |file: &FileEntry| file.bounds.time_ms.map_or(i64::MAX, |(_, to)| to);
        files.sort_by_key(|file| std::cmp::Reverse(end_of(file)));
        // Of each partition, the newest row that is old enough, and its time.
        let mut newest: BTreeMap<u32, (u64, i64)> = BTreeMap::new();
        let mut last_ms = i64::MIN;
        for file in &files {
            // Epochs and times of a partition ascend, so a file that ends before a known row has no newer one.
            let may_improve = held.iter().any(|(partition, _)| {
                file.bounds.reaches(partition, 0)
                    && newest.get(&partition).is_none_or(|&(_, committed_ms)| committed_ms <= end_of(file))
            });
            if !may_improve {
                continue;
            }
            for row in ledger.partition_rows(file).await? {
                last_ms = last_ms.max(row.committed_at_ms);
                if row.committed_at_ms <= ms && row.epoch <= held.last(row.partition) {
                    let known = newest.entry(row.partition).or_insert((row.epoch, row.committed_at_ms));
                    *known = (row.epoch, row.committed_at_ms).max(*known);
                }
            }
        }
        let has_later = files.len() < index.files.len() || last_ms >= ms;
        if !has_later {
            // A later commit might have an earlier time than this one: the answer would change.
            let last = match last_ms {
                i64::MIN => "nothing was committed yet".to_owned(),
                last_ms => format!("the last commit was at {}: ask as of that time or earlier", rfc3339(last_ms)),
            };
            return Err(Error::user(format!("{} is later than everything that is known: {last}", rfc3339(ms))));
        }
        let epochs = newest.into_iter().map(|(partition, (epoch, _))| (partition, epoch)).collect();
        self.known_of(epochs, &format!("as of {}", rfc3339(ms))).await
    }

    /// Adds to some epochs up to where minutes were final.
    async fn known_of(&self, epochs: Epochs, when: &str) -> Result<Known> {
        let ledger = self.table(Table::Ledger);
        let index = ledger.files().await?;
        let mut all: Vec<PartitionRow> = Vec::new();
        for (partition, epoch) in epochs.iter().filter(|&(partition, _)| partition != RECONCILE) {
            let may_have = |file: &&FileEntry| {
                let has = file.bounds.epoch.is_none_or(|(first, last)| (first..=last).contains(&bound(epoch)));
                has && file.bounds.reaches(partition, epoch)
            };
            let mut found = None;
            for file in index.files.iter().filter(may_have) {
                let rows = ledger.partition_rows(file).await?;
                found = found.or(rows.into_iter().find(|row| (row.partition, row.epoch) == (partition, epoch)));
            }
            let Some(row) = found else {
                let since = match index.kept_from(Table::Ledger).await? {
                    Some(kept) => format!("it is kept from {} on", rfc3339(kept.start_ms())),
                    None => "nothing of it is kept".to_owned(),
                };
                return Err(Error::user(format!("{when}, what was known is no longer kept: {since}")));
            };
            all.push(row);
        }
        Ok(Known {
            epochs,
            final_to: all.iter().map(|row| row.final_ms).min().flatten().map(Minute::of),
            watermark_ms: all.iter().filter_map(|row| row.watermark_ms).min(),
            newest_click_ms: all.iter().filter_map(|row| row.newest_click_ms).max(),
        })
    }

    /// When the minutes before `to` became final in all of these partitions, in milliseconds since the Unix epoch; `None`
    /// if they are not final yet.
    ///
    /// # Errors
    /// External when the store fails.
    pub async fn final_since_ms(&self, to: Minute, partitions: &Epochs) -> Result<Option<i64>> {
        let ledger = self.table(Table::Ledger);
        let mut files: Vec<FileEntry> = ledger.files().await?.files.clone();
        files.sort_by_key(|file| file.bounds.time_ms);
        let mut missing: BTreeSet<u32> =
            partitions.iter().map(|(partition, _)| partition).filter(|&partition| partition != RECONCILE).collect();
        let mut since_ms = None;
        for file in &files {
            if missing.is_empty() {
                break;
            }
            for row in ledger.partition_rows(file).await? {
                if row.final_ms >= Some(to.start_ms()) && missing.remove(&row.partition) {
                    since_ms = since_ms.max(Some(row.committed_at_ms));
                }
            }
        }
        Ok(since_ms.filter(|_| missing.is_empty()))
    }
}

impl LakeTable {
    /// The rows of a file of the ledger that are about partitions.
    async fn partition_rows(&self, file: &FileEntry) -> Result<Vec<PartitionRow>> {
        let reader = self.reader(&file.path, file.size);
        let failed = reader.failure();
        let builder = reader.open().await?;
        let columns =
            ["partition", "epoch", "committed_at", "input", "final_until", "watermark", "newest_click", "event_hour"];
        let mask = ProjectionMask::columns(builder.parquet_schema(), columns);
        let mut batches = builder.with_projection(mask).build().map_err(&failed)?;
        let mut rows = Vec::new();
        while let Some(batch) = batches.try_next().await.map_err(&failed)? {
            let (partitions, epochs) = (ints(&batch, "partition", &failed)?, longs(&batch, "epoch", &failed)?);
            let time = |name: &str| {
                batch.column_by_name(name).and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>())
            };
            let missing = |name: &str| failed(ParquetError::General(format!("the column `{name}` is missing")));
            let committed = time("committed_at").ok_or_else(|| missing("committed_at"))?;
            let input = batch.column_by_name("input").ok_or_else(|| missing("input"))?;
            for row in 0..batch.num_rows() {
                let is_hour = time("event_hour").is_some_and(|hours| hours.is_valid(row));
                let (Ok(partition), Ok(epoch)) =
                    (u32::try_from(partitions.value(row)), u64::try_from(epochs.value(row)))
                else {
                    continue;
                };
                if is_hour || input.is_valid(row) {
                    continue;
                }
                let ms = |name: &str| {
                    let us = time(name).filter(|times| times.is_valid(row)).map(|times| times.value(row));
                    us.map(|us| us.div_euclid(1_000))
                };
                rows.push(PartitionRow {
                    partition,
                    epoch,
                    committed_at_ms: committed.value(row).div_euclid(1_000),
                    final_ms: ms("final_until"),
                    watermark_ms: ms("watermark"),
                    newest_click_ms: ms("newest_click"),
                });
            }
        }
        rows.sort_unstable_by_key(|row| row.epoch);
        Ok(rows)
    }
}
