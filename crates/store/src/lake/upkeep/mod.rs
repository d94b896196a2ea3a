//! Upkeep of the tables: roll-ups, compaction, retention, vacuum. One process does it, the owner
//! of the least partition.
//!
//! - **Receives** how far the tables are, random names, and how long to keep what.
//! - **Promises** that no answer changes: a change is committed on exactly the state that it was worked out for, once;
//!   after any error the table is looked at again. Work comes in rounds of bounded size and memory, and may be cut short
//!   at any moment: what is left behind are files that nobody names.
//! - **Never** reads a clock, or touches what an epoch that is not in all tables may need.

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
use super::project::{COMMIT_ATTEMPTS_MAX, mark};
use super::{LakeTable, Table};
use adtally_model::time::{MINUTE_MS, rfc3339};
use adtally_model::{Error, Minute, Progress, Result};
use deltalake_core::DeltaTable;
use deltalake_core::kernel::{Action, Add, Remove, Transaction};
use deltalake_core::protocol::DeltaOperation;
use hashbrown::HashSet;

/// The `txn` that says from when on a table's rows are all kept, in milliseconds.
const KEPT_FROM: &str = "adtally-kept-from";

/// What upkeep goes by: how far the tables are, and what time it is.
#[derive(Clone, Debug, Default)]
pub struct LakeProgress {
    /// How far each partition had come at the last of its epochs that all tables hold.
    pub partitions: Vec<Progress>,
    /// What time it is, in milliseconds: when files are made, and when they leave a table.
    pub now_ms: i64,
    /// By partition the first epoch whose larger files compaction leaves alone; none where it takes them as well. A run
    /// that reads a body of data in bulk leaves its own to the next run: rewriting them at once would take about half as
    /// long again as reading took.
    pub fresh_from: Epochs,
}

impl LakeProgress {
    /// The last epoch of each partition that all tables hold.
    pub fn epochs(&self) -> Epochs {
        self.partitions.iter().map(|progress| (progress.partition, progress.number)).collect()
    }

    /// Up to where minutes are final in every partition, in milliseconds; none while there is a partition without any.
    pub fn final_ms(&self) -> Option<i64> {
        self.partitions.iter().map(|progress| progress.frontiers.final_.get()).min().flatten()
    }

    /// The least guarded clock of these epochs, in milliseconds: old by as long as nothing was read since.
    pub fn clock_ms(&self) -> i64 {
        self.partitions.iter().map(|progress| progress.clock_ms).min().unwrap_or_default()
    }
}

/// Draws random bits, which make the names of files unique.
pub type Tokens<'a> = &'a (dyn Fn() -> u128 + Send + Sync);

/// A change of one table, to be made once.
struct Change<'a> {
    /// A mark of ours that it moves: its name, what it says before, and after.
    mark: Option<(String, Option<i64>, i64)>,
    /// Further marks that it sets.
    also: Vec<(String, i64)>,
    adds: Vec<Add>,
    removes: Vec<&'a FileEntry>,
    operation: DeltaOperation,
    at_ms: i64,
}

/// What a state of a table means for a change.
enum Standing {
    /// It is made.
    Made,
    /// It can be made on this state.
    Fits,
    /// Somebody else changed what it was worked out for.
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

    /// Its actions; what is removed is described as the state describes it.
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

/// The values of partition columns that the folders of a path name.
fn partition_values(path: &str) -> std::collections::HashMap<String, Option<String>> {
    let folders = path.split('/').filter_map(|part| part.split_once('='));
    folders.map(|(column, value)| (column.to_owned(), Some(value.to_owned()))).collect()
}

impl LakeTable {
    /// Makes a change unless it is made already. False when it no longer fits what is there.
    async fn change(&self, change: &Change<'_>) -> Result<bool> {
        let mut last_error = None;
        for _ in 0..=COMMIT_ATTEMPTS_MAX {
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
    /// What the state says under a mark of ours.
    async fn mark(&self, table: Table, app: &str) -> Result<Option<i64>> {
        let Some(state) = &self.state else { return Ok(None) };
        if let Some(&known) = self.marks.lock().get(app) {
            return Ok(known);
        }
        let found = mark(table, state, app.to_owned()).await?;
        self.marks.lock().insert(app.to_owned(), found);
        Ok(found)
    }

    /// From when on all rows are kept; none while nothing was removed.
    pub(super) async fn kept_from(&self, table: Table) -> Result<Option<Minute>> {
        Ok(self.mark(table, KEPT_FROM).await?.map(|ms| Minute(ms.div_euclid(MINUTE_MS))))
    }

    /// Refuses a question that begins before all rows are kept.
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
