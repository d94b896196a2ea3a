//! The object stores under a deployment, and the stores in them.

use crate::durable::DurableLocal;
use crate::epoch_log::EpochLog;
use crate::lake::Lake;
use adtally_model::{Error, Result};
use object_store::ObjectStore;
use std::path::Path;
use std::sync::Arc;

/// The partition of an embedded process.
const PARTITION: u32 = 0;

/// The object stores under a deployment: local folders by default.
#[derive(Clone)]
pub struct Backing {
    /// Where epoch records live, below `epochs/`.
    pub log: Arc<dyn ObjectStore>,
    /// The lake's folder.
    pub lake: Arc<dyn ObjectStore>,
}

impl Backing {
    /// The folders of a data directory, which are created where they are missing.
    ///
    /// # Errors
    /// External when a folder cannot be opened.
    pub fn local(data_dir: &Path, fsync: bool) -> Result<Backing> {
        let root = DurableLocal::open(data_dir, fsync)?;
        let lake = DurableLocal::open(&data_dir.join("lake"), fsync)?;
        Ok(Backing { log: Arc::new(root), lake: Arc::new(lake) })
    }

    /// Opens the stores in it for their owner. The lake's tables are made before an epoch log has its first record;
    /// after that, a table that is missing is told and not made again.
    ///
    /// # Errors
    /// External when a store cannot be read, corrupt when a lake table is damaged or lost.
    pub async fn open(&self) -> Result<Stores> {
        let log = EpochLog::new(Arc::clone(&self.log), PARTITION);
        let log_is_empty = log.numbers().await?.is_empty();
        let lake = match log_is_empty {
            true => Lake::open(Arc::clone(&self.lake)).await?,
            false => Lake::open_existing(Arc::clone(&self.lake)).await?,
        };
        Ok(Stores { log, lake, log_is_empty })
    }
}

/// The stores of a deployment.
pub struct Stores {
    /// The epoch log.
    pub log: EpochLog,
    /// The lake.
    pub lake: Lake,
    /// Whether the log had no record when it was opened.
    pub log_is_empty: bool,
}

/// Opens the epoch log in a data directory for reading; nothing is created.
///
/// # Errors
/// External when the folder cannot be opened.
pub fn read_log(data_dir: &Path) -> Result<EpochLog> {
    Ok(EpochLog::new(Arc::new(DurableLocal::open_existing(data_dir, false)?), PARTITION))
}

/// Opens the lake in a data directory for reading; nothing is created.
///
/// # Errors
/// Corrupt when a table is damaged or missing, external when it cannot be read.
pub async fn read_lake(data_dir: &Path) -> Result<Lake> {
    let folder = data_dir.join("lake");
    if !folder.is_dir() {
        return Err(Error::corrupt(format!("the lake {} is missing: restore it from a backup", folder.display())));
    }
    Lake::open_existing(Arc::new(DurableLocal::open_existing(&folder, false)?)).await
}
