//! Finds damage that reading the tables does not detect: the Delta library reads an empty log entry, or one that was
//! cut at the end of a line, as an entry with fewer actions.

use super::schema::Table;
use super::{Lake, LakeTable};
use adtally_model::{Error, Result};
use futures::TryStreamExt;
use hashbrown::HashMap;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::Value;
use std::sync::Arc;

impl Lake {
    /// Describes what is wrong with the tables' log entries and the files that they name; empty if all is sound. The
    /// existence of files is checked, not their content.
    ///
    /// # Errors
    /// External when the store fails, corrupt when a table cannot be read at all.
    pub async fn audit(&self) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        for table in Table::ALL {
            let table = self.table(table);
            for DamagedEntry { path, what, dispensable } in damaged_entries_of(table.table, &self.store).await? {
                let remedy = if dispensable { "`adtally repair` moves it aside" } else { "restore it from a backup" };
                wrong.push(format!("the log entry {path} {what}: {remedy}"));
            }
            table.audit_files(&mut wrong).await?;
        }
        Ok(wrong)
    }
}

/// A damaged entry of a table's log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DamagedEntry {
    /// Its path below the lake's folder.
    pub path: Path,
    /// What is wrong with it.
    pub what: &'static str,
    /// Whether the entry may be put aside. Either it is the newest one, and the table returns to the state before it,
    /// or a checkpoint has made it unnecessary.
    pub dispensable: bool,
}

/// The damaged log entries of all tables in a lake's object store. The lake need not be openable.
///
/// # Errors
/// External when the store fails.
pub async fn damaged_entries(lake: &Arc<dyn ObjectStore>) -> Result<Vec<DamagedEntry>> {
    let mut damaged = Vec::new();
    for table in Table::ALL {
        damaged.extend(damaged_entries_of(table, lake).await?);
    }
    Ok(damaged)
}

async fn damaged_entries_of(table: Table, lake: &Arc<dyn ObjectStore>) -> Result<Vec<DamagedEntry>> {
    let unreadable = |error| {
        Error::transient(format!("cannot read the log of the lake table `{table}`: check the disk")).because(error)
    };
    let log = Path::from(table.name()).join("_delta_log");
    let entries: Vec<_> = lake.list(Some(&log)).try_collect().await.map_err(unreadable)?;
    let version_of = |path: &Path, suffix: &str| {
        let digits = path.filename()?.strip_suffix(suffix)?.split('.').next()?.to_owned();
        digits.parse::<u64>().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let commits = entries.iter().filter_map(|entry| Some((version_of(&entry.location, ".json")?, &entry.location)));
    let commits: Vec<(u64, &Path)> = commits.collect();
    let newest = commits.iter().map(|&(version, _)| version).max();
    let checkpoint = entries.iter().filter_map(|entry| version_of(&entry.location, ".checkpoint.parquet")).max();
    let mut damaged = Vec::new();
    for (version, path) in commits {
        let text = match lake.get(path).await {
            Ok(found) => found.bytes().await.map_err(unreadable)?,
            // The entry was deleted after it was listed, since a checkpoint includes it.
            Err(object_store::Error::NotFound { .. }) => continue,
            Err(error) => return Err(unreadable(error)),
        };
        if let Some(what) = damage(table, &text) {
            let superfluous = checkpoint.is_some_and(|checkpoint| version <= checkpoint);
            let dispensable = superfluous || (version > 0 && Some(version) == newest);
            damaged.push(DamagedEntry { path: path.clone(), what, dispensable });
        }
    }
    Ok(damaged)
}

impl LakeTable {
    async fn audit_files(&self, wrong: &mut Vec<String>) -> Result<()> {
        let index = self.files().await?;
        let listed: Vec<_> = self.store.list(None).try_collect().await.map_err(|error| {
            Error::transient(format!("the files of the lake table `{}` cannot be listed", self.table)).because(error)
        })?;
        let sizes: HashMap<&Path, u64> = listed.iter().map(|object| (&object.location, object.size)).collect();
        for file in &index.files {
            let name = format!("the lake file {}/{}", self.table, file.path);
            match sizes.get(&file.path) {
                None => wrong.push(format!("{name} is missing: restore it from a backup")),
                Some(&size) if size != file.size => {
                    wrong.push(format!("{name} has {size} bytes instead of {}: restore it from a backup", file.size));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }
}

/// What is wrong with a log entry; `None` if it is sound.
fn damage(table: Table, entry: &[u8]) -> Option<&'static str> {
    let actions: Option<Vec<Value>> = entry
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).ok().filter(Value::is_object))
        .collect();
    let Some(actions) = actions else { return Some("is not JSON") };
    let Some(last) = actions.last() else { return Some("is empty") };
    // An entry that adds epochs ends with the table's last epoch, so a missing end can be detected.
    let adds_epochs =
        Table::PROJECTED.contains(&table) && actions.iter().any(|action| action["commitInfo"]["operation"] == "WRITE");
    if adds_epochs && last["txn"].is_null() {
        return Some("was cut short");
    }
    (last["commitInfo"].is_object() && actions.len() == 1).then_some("was cut short")
}
