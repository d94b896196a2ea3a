//! Upkeep of the tables: roll-ups, compaction, retention, vacuum. Only one process does it, the owner of the lowest
//! partition.
//!
//! - **Receives** the tables' progress, random names, and the retention times.
//! - **Promises** that no answer changes: a change is committed once, on exactly the state for which it was computed,
//!   and after any error the table is read again. Work is done in rounds of bounded size and memory, and can be
//!   interrupted at any moment: this leaves only files that are not named anywhere.
//! - **Never** reads a clock, or touches anything that an epoch needs which is not in all tables yet.

mod check;
mod compact;
mod plan;
mod retain;
mod roll_up;
mod vacuum;

pub use check::RolledUp;
pub use retain::Keep;
pub use roll_up::RollUp;
pub use vacuum::Vacuumed;

use super::files::{Epochs, FileEntry, FileIndex};
use super::project::{COMMIT_ATTEMPTS_MAX, back_off, mark};
use super::{Lake, LakeTable, Table};
use adtally_model::time::{MINUTE_MS, rfc3339};
use adtally_model::{Error, Minute, Progress, RECONCILE, Result};
use deltalake_core::DeltaTable;
use deltalake_core::kernel::{Action, Add, Remove, Transaction};
use deltalake_core::protocol::DeltaOperation;
use hashbrown::HashSet;

/// The `txn` with the time, in milliseconds, from which a table has all rows.
const KEPT_FROM: &str = "adtally-kept-from";

/// The input of upkeep: the progress of the tables, and the time.
#[derive(Clone, Debug, Default)]
pub struct LakeProgress {
    /// The progress of each partition at its last epoch that all tables contain.
    pub partitions: Vec<Progress>,
    /// The current time in milliseconds, for new files and files that leave a table.
    pub now_ms: i64,
    /// The first epoch of each partition whose larger files are not compacted; if absent, all are. A run that reads
    /// data in bulk leaves its own files to the next run: rewriting them at once would take about half as long again as
    /// reading took.
    pub fresh_from: Epochs,
}

impl LakeProgress {
    /// The last epoch of each partition that all tables contain.
    pub fn epochs(&self) -> Epochs {
        self.partitions.iter().map(|progress| (progress.partition, progress.number)).collect()
    }

    /// The time up to which minutes are final in every partition, in milliseconds; `None` while a partition has none.
    pub fn final_ms(&self) -> Option<i64> {
        self.partitions.iter().map(|progress| progress.frontiers.final_.get()).min().flatten()
    }

    /// The smallest guarded clock of these epochs, in milliseconds. It is not updated while nothing is read. That of a retired
    /// partition stands still, and counts only if all are retired.
    pub fn clock_ms(&self) -> i64 {
        let live = self.partitions.iter().filter(|progress| !progress.is_retired);
        let least = live.map(|progress| progress.clock_ms).min();
        least.or(self.partitions.iter().map(|progress| progress.clock_ms).max()).unwrap_or_default()
    }
}

/// Returns random bits, which make the names of files unique.
pub type Tokens<'a> = &'a (dyn Fn() -> u128 + Send + Sync);

/// A change of one table, to be made once.
struct Change<'a> {
    /// A mark that it changes: its name, and its values before and after.
    mark: Option<(String, Option<i64>, i64)>,
    /// More marks that it sets.
    also: Vec<(String, i64)>,
    adds: Vec<Add>,
    removes: Vec<&'a FileEntry>,
    operation: DeltaOperation,
    at_ms: i64,
}

/// Whether a change applies to a state of a table.
enum Standing {
    /// It is already made.
    Made,
    /// It can be made on this state.
    Fits,
    /// Another commit changed the state for which it was computed.
    Overtaken,
}

impl Change<'_> {
    async fn standing(&self, table: &LakeTable, state: &DeltaTable) -> Result<Standing> {
        if let Some((app, before, after)) = &self.mark {
            let found = mark(table.table, state, app.clone()).await?;
            if found == Some(*after) {
                return Ok(Standing::Made);
            }
            if found != *before {
                return Ok(Standing::Overtaken);
            }
        }
        let index = table.files_of(state)?;
        let present: HashSet<&str> = index.files.iter().map(|file| file.path.as_ref()).collect();
        if self.removes.iter().all(|file| present.contains(file.path.as_ref())) {
            return Ok(Standing::Fits);
        }
        let made = self.mark.is_none() && self.adds.iter().all(|add| present.contains(add.path.as_str()));
        Ok(if made { Standing::Made } else { Standing::Overtaken })
    }

    /// Its actions. Removed files are described as in the state.
    fn actions(&self, data_change: bool) -> Vec<Action> {
        let removes = self.removes.iter().map(|file| {
            Action::Remove(Remove {
                path: file.path.to_string(),
                data_change,
                deletion_timestamp: Some(self.at_ms),
                extended_file_metadata: Some(true),
                partition_values: Some(partition_values(file.path.as_ref())),
                size: i64::try_from(file.size).ok(),
                ..Remove::default()
            })
        });
        let adds = self.adds.iter().map(|add| Action::Add(Add { data_change, ..add.clone() }));
        let marks = self.also.iter().map(|(app, version)| (app.clone(), *version));
        let marks = self.mark.iter().map(|(app, _, after)| (app.clone(), *after)).chain(marks);
        let marks =
            marks.map(|(app, version)| Action::Txn(Transaction::new_with_last_update(app, version, Some(self.at_ms))));
        removes.chain(adds).chain(marks).collect()
    }
}

/// The values of partition columns in the folders of a path.
fn partition_values(path: &str) -> std::collections::HashMap<String, Option<String>> {
    let folders = path.split('/').filter_map(|part| part.split_once('='));
    folders.map(|(column, value)| (column.to_owned(), Some(value.to_owned()))).collect()
}

impl Lake {
    /// The epochs of `reached`, and those of the partition `reconcile` that all tables contain. Corrections make no
    /// frontier, so they are not part of the progress, but their rows are maintained like all others.
    async fn held_with_corrections(&self, reached: &LakeProgress) -> Result<Epochs> {
        let mut held = reached.epochs();
        let corrected = self.epochs().await?.last(RECONCILE);
        if corrected > 0 {
            held.note(RECONCILE, corrected);
        }
        Ok(held)
    }
}

impl LakeTable {
    /// Makes a change unless it is already made. Returns false if it no longer fits the table.
    async fn change(&self, change: &Change<'_>) -> Result<bool> {
        let mut last_error = None;
        for attempt in 0..=COMMIT_ATTEMPTS_MAX {
            if attempt > 0 {
                // Only one process maintains the lake, and the others' pauses are random.
                back_off(attempt - 1, 0).await;
            }
            let latest = self.latest().await?;
            match change.standing(self, &latest).await? {
                Standing::Made => return Ok(true),
                Standing::Overtaken => return Ok(false),
                Standing::Fits => {}
            }
            let data_change = !matches!(change.operation, DeltaOperation::Optimize { .. });
            match self.commit(&latest, change.actions(data_change), change.operation.clone()).await {
                Ok(version) => {
                    self.keep_log_short(version).await;
                    return Ok(true);
                }
                Err(error) => {
                    tracing::debug!(table = %self.table, %error, "a commit failed or was lost; looking it up");
                    last_error = Some(error);
                }
            }
        }
        Err(last_error.unwrap_or_else(|| Error::transient(format!("`{}` could not be changed", self.table))))
    }
}

impl FileIndex {
    /// The value of a mark in this state.
    async fn mark(&self, table: Table, app: &str) -> Result<Option<i64>> {
        let Some(state) = &self.state else { return Ok(None) };
        if let Some(&known) = self.marks.lock().get(app) {
            return Ok(known);
        }
        let found = mark(table, state, app.to_owned()).await?;
        self.marks.lock().insert(app.to_owned(), found);
        Ok(found)
    }

    /// The minute from which all rows are kept; `None` while nothing was deleted.
    pub(super) async fn kept_from(&self, table: Table) -> Result<Option<Minute>> {
        Ok(self.mark(table, KEPT_FROM).await?.map(|ms| Minute(ms.div_euclid(MINUTE_MS))))
    }

    /// Rejects a query that begins before the minute from which all rows are kept.
    pub(super) async fn check_kept(&self, table: Table, from: Minute) -> Result<()> {
        match self.kept_from(table).await? {
            Some(kept) if from < kept => {
                let (what, remedy) = match table {
                    Table::Clicks => ("raw clicks, which filter_ip and filter_user_id need, are", ""),
                    Table::ClicksByMinute => {
                        ("counts by minute are", ", or for whole hours or days before it, without series")
                    }
                    Table::ClicksByHour => ("counts by hour are", ", or for whole days before it"),
                    _ => ("rows are", ""),
                };
                Err(Error::user(format!(
                    "{what} kept from {} on: ask about times from then on{remedy}",
                    rfc3339(kept.start_ms())
                )))
            }
            _ => Ok(()),
        }
    }
}
