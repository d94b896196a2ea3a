//! Vacuum: deletes files that no reader needs: those that compaction and retention removed, and those that a crash left
//! behind.
//!
//! The library's vacuum is not used: it ignores files that are staged and named only by epoch records, and it trusts
//! the wall clock.

use super::LakeProgress;
use crate::lake::files::Epochs;
use crate::lake::{Lake, LakeTable, Table, delta_error};
use adtally_model::{Error, Result};
use futures::TryStreamExt;
use hashbrown::HashSet;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};

/// How long a file is kept after it was created or removed: a query, or copying a table, takes less time.
const KEPT_MS: i64 = 24 * 3_600_000;

/// Maximum files deleted from one table at once; the next call deletes more.
const FILES_MAX: usize = 2_000;

/// Digits of an epoch in a file's name.
const EPOCH_DIGITS: usize = 10;

/// The result of a vacuum.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Vacuumed {
    /// Files deleted.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Lake {
    /// Deletes the files of all tables that are not named anywhere, and that were created and removed more than a day
    /// ago. `named` returns the paths, below the tables' folders, of all files that retained epoch records of any
    /// partition name. It is awaited after the files were listed.
    ///
    /// # Errors
    /// External when the store fails.
    pub async fn vacuum(
        &self,
        reached: &LakeProgress,
        named: impl Future<Output = Result<HashSet<String>>>,
    ) -> Result<Vacuumed> {
        // The epochs of all partitions, whichever process owns them.
        let held = self.epochs().await?;
        let mut listed = Vec::new();
        for table in Table::ALL {
            let old = self.table(table).old_files(&held, reached.now_ms).await?;
            listed.extend((!old.is_empty()).then_some((table, old)));
        }
        let mut vacuumed = Vacuumed::default();
        if listed.is_empty() {
            return Ok(vacuumed);
        }
        // The order matters: when a record is deleted in the meantime, the tables already contain its files.
        let named = named.await?;
        for (table, mut old) in listed {
            let table = self.table(table);
            old.retain(|file| !named.contains(file.location.as_ref()));
            table.keep_what_is_needed(&mut old, reached.now_ms).await?;
            for file in old.into_iter().take(FILES_MAX) {
                match table.store.delete(&file.location).await {
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                    Err(error) => {
                        let what = format!("the lake file {}/{} cannot be deleted", table.table, file.location);
                        return Err(Error::transient(what).because(error));
                    }
                }
                vacuumed.files += 1;
                vacuumed.bytes += file.size;
            }
        }
        Ok(vacuumed)
    }
}

impl LakeTable {
    /// Files that are old enough and belong to epochs that all tables contain.
    async fn old_files(&self, held: &Epochs, now_ms: i64) -> Result<Vec<ObjectMeta>> {
        let listed: Vec<ObjectMeta> = self.store.list(None).try_collect().await.map_err(|error| {
            Error::transient(format!("the files of the lake table `{}` cannot be listed", self.table)).because(error)
        })?;
        let old = |file: &ObjectMeta| {
            is_data(&file.location)
                && file.last_modified.timestamp_millis() < now_ms.saturating_sub(KEPT_MS)
                && epochs_of(&file.location).all(|(partition, epoch)| epoch <= held.last(partition))
        };
        Ok(listed.into_iter().filter(old).collect())
    }

    /// Removes from `old` the files of the newest state, and those that left it less than a day ago.
    async fn keep_what_is_needed(&self, old: &mut Vec<ObjectMeta>, now_ms: i64) -> Result<()> {
        let latest = self.latest().await?;
        let index = self.files_of(&latest)?;
        let mut needed: HashSet<String> = index.files.iter().map(|file| file.path.to_string()).collect();
        let failed = |error| delta_error(self.table, "read", error);
        let log_store = latest.log_store();
        let snapshot = latest.snapshot().map_err(failed)?;
        let mut removed = snapshot.all_tombstones(&log_store);
        while let Some(tombstone) = removed.try_next().await.map_err(failed)? {
            if tombstone.deletion_timestamp().is_none_or(|at| at >= now_ms.saturating_sub(KEPT_MS)) {
                needed.insert(tombstone.path().into_owned());
            }
        }
        drop(removed);
        old.retain(|file| !needed.contains(file.location.as_ref()));
        Ok(())
    }
}

/// Whether it is a data file, and not in the table's log.
fn is_data(path: &Path) -> bool {
    let path = path.as_ref();
    path.ends_with(".parquet") && !path.starts_with("_delta_log/")
}

/// The epochs in a file's name, which begins with their partition.
fn epochs_of(path: &Path) -> impl Iterator<Item = (u32, u64)> + '_ {
    let name = path.filename().unwrap_or_default();
    let partition = name.split('-').next().and_then(|part| part.parse().ok());
    let numbers = name.split(['-', '.']).filter(|part| part.len() == EPOCH_DIGITS);
    // Names that Adtally did not create have no epochs.
    numbers.filter_map(move |part| Some((partition?, part.parse().ok()?)))
}
