//! The object stores under a deployment, and the stores in them.

use crate::durable::DurableLocal;
use crate::epoch_log::EpochLog;
use crate::lake::Lake;
use adtally_model::Result;
use object_store::ObjectStore;
use std::path::Path;
use std::sync::Arc;

/// The object stores under a deployment: local folders by default.
#[derive(Clone)]
pub struct Backing {
    /// Where epoch records live, below `epochs/`.
    pub log: Arc<dyn ObjectStore>,
    /// The lake's folder.
    pub lake: Arc<dyn ObjectStore>,
}

impl Backing {
    /// The folders of a data directory.
    ///
    /// # Errors
    /// External when a folder cannot be opened.
    pub fn local(data_dir: &Path, fsync: bool) -> Result<Backing> {
        let root = DurableLocal::open(data_dir, fsync)?;
        let lake = DurableLocal::open(&data_dir.join("lake"), fsync)?;
        Ok(Backing { log: Arc::new(root), lake: Arc::new(lake) })
    }

    /// Opens the stores in it.
    ///
    /// # Errors
    /// External when a store cannot be read, corrupt when a lake table is damaged.
    pub async fn open(&self) -> Result<Stores> {
        let lake = Lake::open(Arc::clone(&self.lake)).await?;
        Ok(Stores { log: EpochLog::new(Arc::clone(&self.log), 0), lake })
    }
}

/// The stores of a deployment.
pub struct Stores {
    /// The epoch log.
    pub log: EpochLog,
    /// The lake.
    pub lake: Lake,
}

/// Opens the stores in a data directory.
///
/// # Errors
/// As [`Backing::local`] and [`Backing::open`].
pub async fn open_stores(data_dir: &Path, fsync: bool) -> Result<Stores> {
    Backing::local(data_dir, fsync)?.open().await
}
