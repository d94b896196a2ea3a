//! Projects epochs into the tables, each exactly once.
//!
//! A `txn` of the Delta log does not reject a repetition by itself. So the newest snapshot is loaded, its last epoch is
//! looked up, and the later epochs are committed on exactly this snapshot. If another commit was made in the meantime,
//! the commit fails and everything is looked up again. An error may come after the commit was durable (the reply was
//! lost), so it says nothing until the table is loaded again.

use super::encode::long;
use super::rows::{RowFile, encode_corrections, encode_counts, encode_ledgers};
use super::schema::Table;
use super::statistics::{Bounds, bound};
use super::{CHECKPOINT_EVERY, EncodedFile, Lake, LakeTable, delta_error};
use crate::durable::NotReadSoon;
use crate::fail_points;
use adtally_model::reconcile::Correction;
use adtally_model::{Error, Invariant, Ledger, MinuteCounts, Progress, Result, StagedFile};
use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake_core::kernel::{Action, Add, Transaction};
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use deltalake_core::{DeltaTable, checkpoints};
use object_store::path::Path;
use object_store::{ObjectStore, PutOptions, PutPayload};
use siphasher::sip::SipHasher24;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::hash::Hasher;
use std::sync::Arc;
use std::time::Duration;

/// Attempts to commit to a table before the caller gets the error, with pauses of several seconds in all. Each attempt
/// of many writers that fails lets another writer's succeed.
pub(super) const COMMIT_ATTEMPTS_MAX: u32 = 10;

/// Longest pause before the second attempt to commit, in milliseconds. It doubles with each attempt, up to 64 times.
const PAUSE_MS: u64 = 20;

/// Waits before another attempt to commit to a table. Other processes that commit to it choose other pauses if their
/// `token` differs.
pub(super) async fn back_off(attempt: u32, token: u128) {
    let longest_ms = PAUSE_MS << attempt.min(6);
    let mut hasher = SipHasher24::new_with_keys(token as u64, (token >> 64) as u64);
    hasher.write_u32(attempt);
    tokio::time::sleep(Duration::from_millis(1 + hasher.finish() % longest_ms)).await;
}

/// The data of one epoch that the lake needs.
#[derive(Clone, Debug)]
pub struct EpochProjection {
    /// The partition's progress at its end. Its clock is the commit time in the lake.
    pub progress: Progress,
    /// Clicks counted in it.
    pub counts: Arc<[MinuteCounts]>,
    /// Files staged for it.
    pub staged: Vec<StagedFile>,
    /// Cumulative lines by verdict of the inputs that it changed, by their names.
    pub inputs: Arc<[(Arc<str>, Ledger)]>,
    /// The reason for its counts and clicks; only of the partition `reconcile`.
    pub correction: Option<Correction>,
}

/// The epochs of one partition in the tables.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TableEpochs {
    /// The last epoch in each of [`Table::projected`]; `None` for a table without any.
    pub tables: Vec<(Table, Option<u64>)>,
}

impl TableEpochs {
    /// The last epoch that all tables contain; 0 if there is none.
    pub fn by_all(&self) -> u64 {
        self.tables.iter().map(|&(_, epoch)| epoch.unwrap_or_default()).min().unwrap_or_default()
    }
}

/// The name of the `txn` with a table's last epoch of a partition of an epoch log.
pub(super) fn epoch_app(log_id: u128, partition: u32) -> String {
    format!("adtally-{log_id:032x}-{partition}")
}

/// The name of the `txn` that identifies the epoch log of a partition's rows.
pub(super) fn log_app(partition: u32) -> String {
    format!("adtally-log-{partition}")
}

/// A log id reduced to the 63 bits of a `txn`.
pub(super) fn log_mark(log_id: u128) -> i64 {
    ((log_id >> 64) as u64 ^ log_id as u64) as i64 & i64::MAX
}

impl Lake {
    /// Writes files durably. They stay invisible until an epoch that names them is projected.
    ///
    /// # Errors
    /// External when the store fails; the same files may be staged again.
    pub async fn stage(&self, files: &[EncodedFile]) -> Result<()> {
        let puts = files.iter().map(|file| {
            let table = self.table(file.staged.table.into());
            let mut options = PutOptions::default();
            options.extensions.insert(NotReadSoon);
            table.put_opts(&file.staged.path, file.bytes.clone().into(), options)
        });
        futures::future::try_join_all(puts).await.map(drop)
    }

    /// The epochs of a partition of this epoch log in the tables.
    ///
    /// # Errors
    /// Corrupt, with what to do about it, when the tables contain epochs of another log for this partition, or rows of
    /// epochs that no mark names; external when the store fails.
    pub async fn held(&self, log_id: u128, partition: u32) -> Result<TableEpochs> {
        let mut tables = Vec::new();
        for &table in Table::projected(partition) {
            let latest = self.table(table).latest().await?;
            let held = held(table, &latest, log_id, partition).await?;
            self.table(table).check_no_rows_after(&latest, partition, held.unwrap_or_default())?;
            tables.push((table, held));
        }
        Ok(TableEpochs { tables })
    }

    /// Adds epochs of any number of partitions to all tables, except those that a table already contains, with one
    /// commit per table. A repeated call changes nothing, and after an error it must be repeated. The epochs of a
    /// partition must be contiguous in the slice, consecutive, and follow those in the tables. `file_token` is random
    /// and constant during the life of a process. Other processes write under other names, so they cannot replace a
    /// committed file.
    ///
    /// The counts are encoded on the calling thread.
    ///
    /// # Errors
    /// External when the store fails, internal when an epoch is missing, corrupt as for [`Lake::held`].
    pub async fn project(&self, epochs: &[EpochProjection], file_token: u128) -> Result<()> {
        let mut partitions = BTreeSet::new();
        for log in logs(epochs) {
            let follow = log.windows(2).all(|pair| pair[1].progress.number == pair[0].progress.number + 1);
            if !follow || !partitions.insert(log[0].progress.partition) {
                return Err(Error::violated(Invariant::LakeEqualsLog, "epochs to project do not follow one another"));
            }
        }
        let _projecting = self.projecting.lock().await;
        for table in Table::ALL {
            let takes = |epoch: &EpochProjection| Table::projected(epoch.progress.partition).contains(&table);
            let taken: Cow<'_, [EpochProjection]> = match epochs.iter().all(takes) {
                true => epochs.into(),
                false => epochs.iter().filter(|epoch| takes(epoch)).cloned().collect(),
            };
            if !taken.is_empty() {
                self.table(table).project(&taken, file_token).await?;
                fail_points::reach("between_tables");
            }
        }
        Ok(())
    }
}

/// Splits epochs by log.
fn logs(epochs: &[EpochProjection]) -> impl Iterator<Item = &[EpochProjection]> {
    let of = |epoch: &EpochProjection| (epoch.progress.log_id, epoch.progress.partition);
    epochs.chunk_by(move |one, next| of(one) == of(next))
}

impl LakeTable {
    pub(super) async fn put(&self, path: &str, payload: PutPayload) -> Result<()> {
        self.put_opts(path, payload, PutOptions::default()).await
    }

    async fn put_opts(&self, path: &str, payload: PutPayload, options: PutOptions) -> Result<()> {
        // Names are unique to a process and identify the content: writing a file again writes the same bytes.
        self.store.put_opts(&Path::from(path), payload, options).await.map(drop).map_err(|error| {
            Error::transient(format!("cannot write {}/{path}: check the disk or the object store", self.table))
                .because(error)
        })
    }

    /// Rejects rows of epochs after the table's mark. A table whose newest log entry was cut has such rows without the
    /// mark; they would be added once more.
    fn check_no_rows_after(&self, state: &DeltaTable, partition: u32, held: u64) -> Result<()> {
        let of_partition = Some((i64::from(partition), i64::from(partition)));
        let index = self.files_of(state)?;
        let beyond = |bounds: &Bounds| {
            bounds.partition == of_partition && bounds.epoch.is_some_and(|(_, last)| last > bound(held))
        };
        match index.files.iter().find(|file| beyond(&file.bounds)) {
            None => Ok(()),
            Some(file) => Err(Error::corrupt(format!(
                "the lake table `{}` has rows in {} of epochs after {held}, where its log says it ends: an entry of \
                 {}/_delta_log was cut; restore it from a backup",
                self.table, file.path, self.table
            ))),
        }
    }

    async fn project(&self, epochs: &[EpochProjection], file_token: u128) -> Result<()> {
        let mut last_error = None;
        for attempt in 0..COMMIT_ATTEMPTS_MAX {
            if attempt > 0 {
                back_off(attempt - 1, file_token).await;
            }
            let latest = self.latest().await?;
            let mut actions = Vec::new();
            for log in logs(epochs) {
                actions.extend(self.additions(&latest, log, file_token).await?);
            }
            if actions.is_empty() {
                return Ok(());
            }
            let append = DeltaOperation::Write { mode: SaveMode::Append, partition_by: None, predicate: None };
            match self.commit(&latest, actions, append).await {
                Ok(version) => {
                    self.keep_log_short(version).await;
                    return Ok(());
                }
                Err(error) => {
                    tracing::debug!(table = %self.table, %error, "a commit failed or was lost; looking it up");
                    last_error = Some(error);
                }
            }
        }
        // The last attempt may have been committed as well.
        let latest = self.latest().await?;
        let mut missing = false;
        for log in logs(epochs) {
            missing |= !self.pending(&latest, log).await?.is_empty();
        }
        last_error.filter(|_| missing).map_or(Ok(()), Err)
    }

    /// The epochs of one log that are missing in a state of this table.
    async fn pending<'a>(&self, latest: &DeltaTable, log: &'a [EpochProjection]) -> Result<&'a [EpochProjection]> {
        let Some(EpochProjection { progress: Progress { log_id, partition, .. }, .. }) = log.first() else {
            return Ok(log);
        };
        let held = held(self.table, latest, *log_id, *partition).await?.unwrap_or_default();
        let pending = &log[log.partition_point(|epoch| epoch.progress.number <= held)..];
        match pending.first() {
            Some(first) if first.progress.number != held + 1 => Err(Error::violated(
                Invariant::LakeEqualsLog,
                format!(
                    "`{}` holds partition {partition} up to epoch {held}, and the next is {}",
                    self.table, first.progress.number
                ),
            )),
            _ => Ok(pending),
        }
    }

    /// The additions of the epochs of one log to a state of this table: their files, after writing those that are not
    /// staged yet, and the mark of the last epoch.
    async fn additions(&self, latest: &DeltaTable, log: &[EpochProjection], file_token: u128) -> Result<Vec<Action>> {
        let pending = self.pending(latest, log).await?;
        let mut actions: Vec<Action> = Vec::new();
        let (Some(first), Some(last)) = (pending.first(), pending.last()) else { return Ok(actions) };
        let Progress { log_id, partition, number: end, clock_ms, .. } = last.progress;
        for epoch in pending {
            let ours = epoch.staged.iter().filter(|file| Table::from(file.table) == self.table);
            for file in ours {
                actions.push(Action::Add(add(file, epoch.progress.clock_ms)?));
            }
        }
        let file = match self.table {
            Table::ClicksByMinute | Table::ClicksByHour | Table::ClicksByDay => {
                encode_counts(self.table, pending, partition)?
            }
            Table::Corrections => encode_corrections(pending, partition)?,
            Table::Ledger => Some(encode_ledgers(pending, partition)?),
            _ => None,
        };
        let mark = log_mark(log_id);
        if let Some(RowFile { bytes, statistics }) = file {
            let path =
                format!("{partition}-{:010}-{end:010}-{mark:016x}-{file_token:032x}.parquet", first.progress.number);
            let size = bytes.len() as u64;
            self.put(&path, bytes.into()).await?;
            actions.push(Action::Add(new_add(path, size, clock_ms, statistics.to_json())?));
        }
        for (app, version) in [(epoch_app(log_id, partition), long(end)?), (log_app(partition), mark)] {
            actions.push(Action::Txn(Transaction::new_with_last_update(app, version, Some(clock_ms))));
        }
        Ok(actions)
    }

    /// Commits on exactly this snapshot and returns the version. After an error, the commit may exist nevertheless.
    pub(super) async fn commit(
        &self,
        snapshot: &DeltaTable,
        actions: Vec<Action>,
        operation: DeltaOperation,
    ) -> Result<u64> {
        // Conflicts and lost replies are treated alike: the caller looks for the commit, and retries if it is missing.
        let failed = |error| {
            Error::transient(format!("cannot commit to the lake table `{}`: it is safe to try again", self.table))
                .because(error)
        };
        let state = snapshot.snapshot().map_err(failed)?;
        let committed = CommitBuilder::from(CommitProperties::default().with_max_retries(0))
            .with_actions(actions)
            .build(Some(state), snapshot.log_store(), operation)
            .into_prepared_commit_future()
            .await
            .map_err(failed)?
            .await
            .map_err(failed)?;
        // The library's hooks run separately: if they fail, the commit has not failed.
        Ok(committed.version)
    }

    /// Writes a checkpoint and deletes old commits now and then. A failure costs only time, not correctness.
    pub(super) async fn keep_log_short(&self, version: u64) {
        if !version.is_multiple_of(CHECKPOINT_EVERY) {
            return;
        }
        let kept = async {
            let table = self.latest().await?;
            checkpoints::create_checkpoint(&table, None)
                .await
                .map_err(|error| delta_error(self.table, "checkpoint", error))?;
            checkpoints::cleanup_metadata(&table, None)
                .await
                .map_err(|error| delta_error(self.table, "clean up", error))
        };
        if let Err(error) = kept.await {
            tracing::warn!(table = %self.table, error = %error.report(), "table log not checkpointed; trying again later");
        }
    }
}

/// The value of a mark in a state of a table.
pub(super) async fn mark(table: Table, state: &DeltaTable, app: String) -> Result<Option<i64>> {
    let failed = |error| delta_error(table, "read", error);
    let snapshot = state.snapshot().map_err(failed)?;
    snapshot.transaction_version(&state.log_store(), app).await.map_err(failed)
}

/// Rejects a table with rows of another epoch log for a partition.
pub(super) async fn check_log(table: Table, state: &DeltaTable, log_id: u128, partition: u32) -> Result<()> {
    match mark(table, state, log_app(partition)).await? {
        None => Ok(()),
        Some(mark) if mark == log_mark(log_id) => Ok(()),
        Some(_) => Err(Error::corrupt(format!(
            "the lake table `{table}` holds epochs of partition {partition} from another epoch log than \
                 {log_id:032x}: the log was lost or replaced. Restore the epoch log that belongs to this lake; or, to \
                 count again from the inputs, move both the lake and the epoch log away and start with an empty data \
                 directory"
        ))),
    }
}

/// The last epoch of a partition in one state of a table.
pub(super) async fn held(table: Table, state: &DeltaTable, log_id: u128, partition: u32) -> Result<Option<u64>> {
    check_log(table, state, log_id, partition).await?;
    let version = mark(table, state, epoch_app(log_id, partition)).await?;
    Ok(version.and_then(|version| u64::try_from(version).ok()))
}

fn add(file: &StagedFile, at_ms: i64) -> Result<Add> {
    let values = file.partition_values.iter().map(|(name, value)| (name.clone(), Some(value.clone())));
    let add = new_add(file.path.clone(), file.size, at_ms, file.stats.clone())?;
    Ok(Add { partition_values: values.collect(), ..add })
}

pub(super) fn new_add(path: String, size: u64, at_ms: i64, stats: String) -> Result<Add> {
    Ok(Add {
        path,
        partition_values: Default::default(),
        size: long(size)?,
        modification_time: at_ms,
        data_change: true,
        stats: Some(stats),
        tags: None,
        deletion_vector: None,
        base_row_id: None,
        default_row_commit_version: None,
        clustering_provider: None,
    })
}
