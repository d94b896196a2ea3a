//! The epoch logs of all partitions of a deployment, in one object store.

use super::EpochLog;
use adtally_model::{EpochNumber, Error, Result};
use futures::TryStreamExt;
use hashbrown::HashSet;
use object_store::ObjectStore;
use object_store::path::Path;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The folder that contains the folders of all partitions' logs.
const FOLDER: &str = "epochs";

/// The epoch logs of a deployment.
#[derive(Clone)]
pub struct EpochLogs {
    store: Arc<dyn ObjectStore>,
    min_age_ms: Option<i64>,
}

impl EpochLogs {
    /// The logs in the folder `epochs/` of a store.
    pub fn new(store: Arc<dyn ObjectStore>) -> EpochLogs {
        EpochLogs { store, min_age_ms: None }
    }

    /// See [`EpochLog::with_min_age`].
    #[must_use]
    pub fn with_min_age(self, min_age_ms: i64) -> EpochLogs {
        EpochLogs { min_age_ms: Some(min_age_ms), ..self }
    }

    /// The log of a partition; it may be empty.
    pub fn log(&self, partition: u32) -> EpochLog {
        let log = EpochLog::new(Arc::clone(&self.store), partition);
        match self.min_age_ms {
            Some(min_age_ms) => log.with_min_age(min_age_ms),
            None => log,
        }
    }

    /// The partitions that have a log, ascending.
    ///
    /// # Errors
    /// External when the store cannot be listed.
    pub async fn partitions(&self) -> Result<Vec<u32>> {
        let folder = Path::from(FOLDER);
        let listed = self.store.list(Some(&folder)).try_fold(BTreeSet::new(), |mut found, object| async move {
            let is_record = object.location.extension() == Some("epoch");
            let partition = object.location.parts().nth(1).filter(|_| is_record);
            found.extend(partition.and_then(|name| name.as_ref().parse::<u32>().ok()));
            Ok(found)
        });
        let partitions = listed
            .await
            .map_err(|error| Error::transient(format!("the folder {FOLDER} cannot be listed")).because(error))?;
        Ok(partitions.into_iter().collect())
    }

    /// The paths of all files that the records of all partitions name; see [`EpochLog::staged_paths`].
    ///
    /// # Errors
    /// As [`EpochLog::staged_paths`].
    pub async fn staged_paths(&self) -> Result<HashSet<String>> {
        let mut paths = HashSet::new();
        for partition in self.partitions().await? {
            paths.extend(self.log(partition).staged_paths().await?);
        }
        Ok(paths)
    }
}

/// The folder of a partition's records.
pub(super) fn folder(partition: u32) -> Path {
    Path::from(format!("{FOLDER}/{partition:05}"))
}

/// The file name of a record.
pub(super) fn name(number: EpochNumber) -> String {
    format!("{number:020}.epoch")
}
