//! Looking for damage that reading the tables does not meet: the Delta library takes an empty log entry, or one that
//! was cut at a line's end, for one with fewer actions.

use super::schema::Table;
use super::{Lake, LakeTable};
use adtally_model::{Error, Result};
use futures::TryStreamExt;
use hashbrown::HashMap;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::Value;

impl Lake {
    /// What is wrong with the tables' log entries and the files that they name, in words; nothing when all is sound.
    /// Files are looked at, not read.
    ///
    /// # Errors
    /// External when the store fails, corrupt when a table cannot be read at all.
    pub async fn audit(&self) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        for table in Table::ALL {
            let table = self.table(table);
            table.audit_log(&mut wrong).await?;
            table.audit_files(&mut wrong).await?;
        }
        Ok(wrong)
    }
}

impl LakeTable {
    pub(super) async fn audit_log(&self, wrong: &mut Vec<String>) -> Result<()> {
        let unreadable = |error| {
            Error::transient(format!("cannot read the log of the lake table `{}`: check the disk", self.table))
                .because(error)
        };
        let log = Path::from("_delta_log");
        let entries: Vec<_> = self.store.list(Some(&log)).try_collect().await.map_err(unreadable)?;
        for entry in entries {
            let is_commit = entry.location.filename().and_then(|name| name.strip_suffix(".json"));
            if !is_commit.is_some_and(|version| version.bytes().all(|byte| byte.is_ascii_digit())) {
                continue;
            }
            let text = match self.store.get(&entry.location).await {
                Ok(found) => found.bytes().await.map_err(unreadable)?,
                // Dropped since it was listed, behind a checkpoint.
                Err(object_store::Error::NotFound { .. }) => continue,
                Err(error) => return Err(unreadable(error)),
            };
            if let Some(what) = damage(self.table, &text) {
                wrong.push(format!("the log entry {}/{} {what}: restore it from a backup", self.table, entry.location));
            }
        }
        Ok(())
    }

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

/// What is wrong with a log entry.
fn damage(table: Table, entry: &[u8]) -> Option<&'static str> {
    let actions: Option<Vec<Value>> = entry
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).ok().filter(Value::is_object))
        .collect();
    let Some(actions) = actions else { return Some("is not JSON") };
    let Some(last) = actions.last() else { return Some("is empty") };
    // What adds an epoch ends with how far the table holds its log, so that a missing end shows.
    let adds_epochs =
        Table::PROJECTED.contains(&table) && actions.iter().any(|action| action["commitInfo"]["operation"] == "WRITE");
    if adds_epochs && last["txn"].is_null() {
        return Some("was cut short");
    }
    (last["commitInfo"].is_object() && actions.len() == 1).then_some("was cut short")
}
