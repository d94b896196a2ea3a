//! The lake: every counted click, the counts, the dead letters and the ledger as Delta tables that any reader can open.
//!
//! - **Receives** epochs that are committed in the epoch log, and files staged for them.
//! - **Emits** counts, scans of raw clicks, SQL answers.
//! - **Promises** that each table contains an epoch once. Every Delta commit has a `txn` with its last epoch, and is
//!   made on exactly the snapshot in which that `txn` was looked up; after any error it is looked up again before a
//!   retry. Readers stop at the smallest epoch that all tables contain, so that tables agree.
//! - **Never** deletes a file that is still named (see `upkeep`), assumes after an error that nothing was committed, or
//!   requires more of other readers than the oldest Delta protocol: no deletion vectors, no column mapping.
//!
//! One process writes at a time (the owner of the data directory); any number may read. All paths are relative to the
//! given object store, so this code is the same for a local disk and S3.

mod adopt;
mod audit;
mod clicks;
mod counts;
mod encode;
mod files;
mod known;
mod lake_store;
mod letters;
mod long_range;
mod project;
mod restated;
mod row_hash;
mod rows;
mod scan;
mod schema;
mod sql;
mod statistics;
#[cfg(test)]
mod tests;
mod upkeep;

pub use audit::{DamagedEntry, damaged_entries};
pub use clicks::{ClickRows, encode_clicks};
pub use counts::{LakeCounts, Selection};
pub use encode::EncodedFile;
pub use files::Epochs;
pub use known::Known;
pub use lake_store::LakeStore;
pub use project::{EpochProjection, TableEpochs};
pub use restated::Restated;
pub use row_hash::{HASH_BITS, HASHED};
pub use rows::encode_dead_letters;
pub use scan::ClickScan;
pub use schema::Table;
pub use sql::{SqlAnswer, query_error};
pub use upkeep::{Keep, LakeProgress, RollUp, RolledUp, Tokens, Vacuumed};

use crate::fail_points::{COLUMNS_ADDED, reach};
use adtally_model::{Error, Result};
use deltalake_core::kernel::StructField;
use deltalake_core::kernel::transaction::CommitProperties;
use deltalake_core::logstore::{LogStoreRef, StorageConfig, default_logstore};
use deltalake_core::operations::create::CreateBuilder;
use deltalake_core::protocol::SaveMode;
use deltalake_core::{DeltaTable, DeltaTableError, TableProperty};
use files::FileIndex;
use hashbrown::HashMap;
use object_store::ObjectStore;
use object_store::prefix::PrefixStore;
use parking_lot::Mutex;
use parquet::errors::ParquetError;
use schema::Column;
use std::error::Error as StdError;
use std::sync::Arc;
use url::Url;

/// The location of the tables for the Delta library. It is not a real place: the library uses it only with the given
/// object store, so it can never read or write anywhere else.
const ROOT_URL: &str = "adtally-lake://tables/";

/// Commits between checkpoints of a table's log: readers replay at most this many after the last checkpoint.
const CHECKPOINT_EVERY: u64 = 10;

/// How long commits are kept once a checkpoint includes them: time travel for two days, and a log folder of some
/// thousands of files.
const LOG_RETENTION: &str = "interval 2 days";

/// Maximum attempts to open a table: another process may create it at the same time.
const OPEN_ATTEMPTS_MAX: u32 = 4;

/// The Delta tables below one folder.
pub struct Lake {
    store: Arc<dyn ObjectStore>,
    /// In the order of [`Table::ALL`].
    tables: Vec<LakeTable>,
    /// Locked while epochs are projected: a second projection of this process waits instead of causing conflicts.
    projecting: tokio::sync::Mutex<()>,
}

/// One table.
struct LakeTable {
    table: Table,
    /// The store, rooted at the table's folder.
    store: Arc<dyn ObjectStore>,
    /// The newest state seen.
    newest: Mutex<DeltaTable>,
    /// The files of the newest state for which they were requested.
    index: Mutex<Option<Arc<FileIndex>>>,
    /// Bytes of the rows of small files in memory, by path, as far as compaction has computed them.
    memory: Mutex<HashMap<String, u64>>,
}

impl std::fmt::Debug for Lake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lake({})", self.store)
    }
}

impl Lake {
    /// Opens the lake in an object store rooted at its folder. Creates missing tables; a crash between two creations
    /// does no harm.
    ///
    /// # Errors
    /// External when the store fails, corrupt when a table has columns of another program.
    pub async fn open(store: Arc<dyn ObjectStore>) -> Result<Lake> {
        Self::open_tables(store, true).await
    }

    /// Opens a lake with existing tables, without changing anything.
    ///
    /// # Errors
    /// As [`Lake::open`]; corrupt when a table is missing.
    pub async fn open_existing(store: Arc<dyn ObjectStore>) -> Result<Lake> {
        Self::open_tables(store, false).await
    }

    async fn open_tables(store: Arc<dyn ObjectStore>, creates: bool) -> Result<Lake> {
        let mut tables = Vec::with_capacity(Table::ALL.len());
        for table in Table::ALL {
            tables.push(LakeTable::open(&store, table, creates).await?);
        }
        Ok(Lake { store, tables, projecting: tokio::sync::Mutex::new(()) })
    }

    /// Adds missing columns to tables of earlier versions; they are null in existing rows. A repeated call changes
    /// nothing, and several processes may call it at once.
    ///
    /// # Errors
    /// External when the store fails, corrupt when a table is damaged.
    pub async fn add_columns(&self) -> Result<()> {
        for table in &self.tables {
            table.add_columns().await?;
        }
        Ok(())
    }

    fn table(&self, table: Table) -> &LakeTable {
        &self.tables[table.index()]
    }
}

impl LakeTable {
    async fn open(root: &Arc<dyn ObjectStore>, table: Table, creates: bool) -> Result<LakeTable> {
        let (store, log_store) = stores_of(root, table)?;
        let mut attempts = 0;
        let opened = loop {
            attempts += 1;
            let mut opened = DeltaTable::new(Arc::clone(&log_store));
            let failed = match opened.load().await {
                Ok(()) => break opened,
                Err(DeltaTableError::NotATable(_)) if !creates => {
                    return Err(Error::corrupt(format!(
                        "the lake table `{table}` is missing: restore its folder from a backup; or, to count again from the \
                         inputs, move both the lake and the epoch log away and start with an empty data directory"
                    )));
                }
                // The table may have been created despite an error, so it is loaded to find out.
                Err(DeltaTableError::NotATable(_)) => match create(table, table.delta_fields(), &opened).await {
                    Ok(()) => continue,
                    Err(error) => error,
                },
                Err(error) => error,
            };
            if attempts >= OPEN_ATTEMPTS_MAX {
                return Err(delta_error(table, "open", failed));
            }
        };
        check_schema(table, &opened)?;
        Ok(LakeTable { table, store, newest: Mutex::new(opened), index: Mutex::new(None), memory: Mutex::default() })
    }

    async fn add_columns(&self) -> Result<()> {
        // Most starts find nothing to add, and read nothing again.
        if missing_columns(self.table, &self.newest.lock())?.is_empty() {
            return Ok(());
        }
        let mut failure = None;
        // The last iteration only checks.
        for _ in 0..=OPEN_ATTEMPTS_MAX {
            let latest = self.latest().await?;
            let missing = missing_columns(self.table, &latest)?;
            if missing.is_empty() {
                return Ok(());
            }
            let fields: Vec<_> = missing.into_iter().map(Column::delta_field).collect();
            match latest.add_columns().with_fields(fields).with_commit_properties(quiet()).await {
                Ok(_) => reach(COLUMNS_ADDED),
                // This or another process may have added them nevertheless: the next iteration checks.
                Err(error) => failure = Some(error),
            }
        }
        let failed = Error::transient(format!(
            "cannot add columns to the lake table `{}`: check the disk or the object store; it is safe to try again",
            self.table
        ));
        Err(match failure {
            Some(error) => failed.because(error),
            None => failed,
        })
    }

    /// Loads the newest state.
    async fn latest(&self) -> Result<DeltaTable> {
        let mut table = self.newest.lock().clone();
        if let Err(error) = table.update_incremental(None).await {
            tracing::debug!(table = %self.table, %error, "reloading a table from the start of its log");
            let mut fresh = DeltaTable::new(table.log_store());
            fresh.load().await.map_err(|error| delta_error(self.table, "read", error))?;
            table = fresh;
        }
        let mut newest = self.newest.lock();
        if newest.version() < table.version() {
            *newest = table.clone();
        }
        Ok(table)
    }
}

/// The folder of a table and its log.
fn stores_of(root: &Arc<dyn ObjectStore>, table: Table) -> Result<(Arc<dyn ObjectStore>, LogStoreRef)> {
    let store: Arc<dyn ObjectStore> = Arc::new(PrefixStore::new(Arc::clone(root), table.name()));
    let url = Url::parse(ROOT_URL)
        .and_then(|url| url.join(&format!("{table}/")))
        .map_err(|error| Error::internal(format!("`{table}` has no address: please report this")).because(error))?;
    let log_store = default_logstore(Arc::clone(&store), Arc::clone(root), &url, &StorageConfig::default());
    Ok((store, log_store))
}

/// Creates a missing table.
async fn create(table: Table, fields: Vec<StructField>, at: &DeltaTable) -> Result<(), DeltaTableError> {
    CreateBuilder::new()
        .with_log_store(at.log_store())
        .with_table_name(table.name())
        .with_save_mode(SaveMode::Ignore)
        .with_columns(fields)
        .with_partition_columns(table.partition_columns().iter().copied())
        .with_configuration_property(TableProperty::CheckpointInterval, Some(CHECKPOINT_EVERY.to_string()))
        .with_configuration_property(TableProperty::LogRetentionDuration, Some(LOG_RETENTION))
        .with_commit_properties(quiet())
        .await
        .map(drop)
}

/// Properties of a commit without the library's hooks.
fn quiet() -> CommitProperties {
    CommitProperties::default().with_create_checkpoint(false).with_cleanup_expired_logs(Some(false))
}

/// The columns that a table of an earlier version lacks.
fn missing_columns(table: Table, opened: &DeltaTable) -> Result<Vec<&'static Column>> {
    let snapshot = opened.snapshot().map_err(|error| delta_error(table, "open", error))?;
    let schema = snapshot.schema();
    Ok(table.columns().iter().filter(|column| column.is_added() && schema.field(column.name).is_none()).collect())
}

/// Rejects a table whose columns are not those of this version. More columns are fine, and columns that earlier
/// versions lack may be missing.
fn check_schema(table: Table, opened: &DeltaTable) -> Result<()> {
    let snapshot = opened.snapshot().map_err(|error| delta_error(table, "open", error))?;
    let schema = snapshot.schema();
    for column in table.columns() {
        let field = column.delta_field();
        let fits = match schema.field(column.name) {
            Some(found) => found.data_type() == field.data_type(),
            None => column.is_added(),
        };
        if !fits {
            return Err(Error::corrupt(format!(
                "the lake table `{table}` has no column `{}` of type {}: another program made or changed it; move its \
                 folder away and start again, or restore it",
                field.name(),
                field.data_type(),
            )));
        }
    }
    Ok(())
}

/// Converts an error of the Delta library while reading a table. Errors that neither the disk nor the network caused
/// are errors in the stored data.
fn delta_error(table: Table, what: &str, error: DeltaTableError) -> Error {
    match store_failure(&error) {
        Some(StoreFailure::Passing) => Error::transient(format!(
            "cannot {what} the lake table `{table}`: check the disk or the object store; it is safe to try again"
        )),
        _ => Error::corrupt(format!(
            "cannot {what} the lake table `{table}`: its log is damaged; restore the folder `{table}/_delta_log` from a backup"
        )),
    }
    .because(error)
}

/// A failure of an object store.
enum StoreFailure {
    /// The object does not exist.
    Missing(String),
    /// A temporary failure.
    Passing,
}

/// The Delta kernel's wording for a failing object store, which it keeps only as text.
const KERNEL_STORE_ERROR: &str = "Error interacting with object store";

/// DataFusion's wording for a failure to fetch a file's footer.
const FOOTER_STORE_ERROR: &str = "Object Store error: ";

/// The failure of the disk or object store that caused an error; `None` if neither caused it.
fn store_failure(error: &(dyn StdError + 'static)) -> Option<StoreFailure> {
    causes(error).find_map(|cause| {
        if let Some(failed) = cause.downcast_ref::<object_store::Error>() {
            return Some(match failed {
                object_store::Error::NotFound { path, .. } => StoreFailure::Missing(path.clone()),
                _ => StoreFailure::Passing,
            });
        }
        let text = cause.to_string();
        if cause.is::<ParquetError>()
            && let Some((_, said)) = text.split_once(FOOTER_STORE_ERROR)
        {
            let missing = said.strip_prefix("Object at location ").and_then(|said| said.split_once(" not found"));
            return Some(missing.map_or(StoreFailure::Passing, |(path, _)| StoreFailure::Missing(path.to_owned())));
        }
        let passing = cause.is::<std::io::Error>() || text.starts_with(KERNEL_STORE_ERROR);
        passing.then_some(StoreFailure::Passing)
    })
}

/// An error and its chain of causes.
fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}
