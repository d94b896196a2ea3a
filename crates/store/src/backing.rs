//! Opens the object stores of a deployment, and the stores in them. Every command opens its data here.

use crate::data_dir::read_key;
use crate::durable::DurableLocal;
use crate::epoch_log::EpochLogs;
use crate::lake::{DamagedEntry, Lake, Table, damaged_entries};
use adtally_model::settings::{self, Text};
use adtally_model::{Error, IdentityKey, Result};
use futures::StreamExt;
use object_store::ObjectStore;
use object_store::path::Path as ObjectPath;
use object_store::prefix::PrefixStore;
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

/// The number of the only partition of an embedded process. Its source is log files.
pub const EMBEDDED: u32 = 0;

/// The lake's folder, below the deployment's folder.
const LAKE: &str = "lake";

/// Where a deployment keeps its data: a folder, given as a path or as a `file://` URL.
///
/// ```
/// # use adtally_store::backing::StoreUrl;
/// let url: StoreUrl = "file:///srv/adtally".parse().unwrap();
/// assert_eq!(url, "/srv/adtally".parse().unwrap());
/// assert!("s3://bucket/adtally".parse::<StoreUrl>().is_err());
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreUrl {
    folder: PathBuf,
}

impl StoreUrl {
    /// A folder.
    pub fn of_folder(folder: impl Into<PathBuf>) -> StoreUrl {
        StoreUrl { folder: folder.into() }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns the identity key in the folder, or `None` if there is none.
    ///
    /// # Errors
    /// As [`read_key`].
    pub fn read_key(&self) -> Result<Option<IdentityKey>> {
        read_key(&self.folder)
    }
}

impl FromStr for StoreUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<StoreUrl> {
        let folder = match text.split_once("://") {
            None => text,
            Some(("file", path)) if path.starts_with('/') => path,
            Some(("file", _)) => {
                return Err(Error::user(format!("{text} is not a file URL: it must be file:// and an absolute path")));
            }
            Some((scheme, _)) => {
                return Err(Error::user(format!(
                    "{text}: data cannot be kept in {scheme}: give a folder or a file:// URL"
                )));
            }
        };
        Ok(StoreUrl::of_folder(folder))
    }
}

impl<'de> Deserialize<'de> for StoreUrl {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<StoreUrl, D::Error> {
        settings::text(from, "a folder, as a path or a file:// URL, of 1 to 4096 bytes", |text| {
            Some(text).filter(|text| Text::<1, 4096>::fits(text))?.parse().ok()
        })
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.folder.display().fmt(f)
    }
}

fn lake_name(url: &StoreUrl) -> String {
    format!("{url}/{LAKE}")
}

/// The object stores of a deployment.
#[derive(Clone)]
pub struct Backing {
    /// Contains the epoch records, below `epochs/`.
    pub log: Arc<dyn ObjectStore>,
    /// The lake's folder.
    pub lake: Arc<dyn ObjectStore>,
    /// The lake's name in messages.
    pub lake_name: String,
}

impl Backing {
    /// Opens the stores for their owner, and creates those that are missing.
    ///
    /// # Errors
    /// External when a folder cannot be opened.
    pub fn for_owner(url: &StoreUrl, fsync: bool) -> Result<Backing> {
        let root = DurableLocal::open(url.folder(), fsync)?;
        let lake = DurableLocal::open(&url.folder().join(LAKE), fsync)?;
        Ok(Backing { log: Arc::new(root), lake: Arc::new(lake), lake_name: lake_name(url) })
    }

    /// Opens the stores for a reader. Creates nothing.
    ///
    /// # Errors
    /// External when the folder cannot be opened.
    pub fn for_reader(url: &StoreUrl) -> Result<Backing> {
        let root: Arc<dyn ObjectStore> = Arc::new(DurableLocal::open_existing(url.folder(), false)?);
        let lake = Arc::new(PrefixStore::new(Arc::clone(&root), LAKE));
        Ok(Backing { log: root, lake, lake_name: lake_name(url) })
    }

    /// The epoch logs.
    pub fn logs(&self) -> EpochLogs {
        EpochLogs::new(Arc::clone(&self.log))
    }

    /// Opens an existing lake without changing anything.
    ///
    /// # Errors
    /// Corrupt when the lake or a table is missing or damaged, external when it cannot be read.
    pub async fn existing_lake(&self) -> Result<Lake> {
        let mut has_table = false;
        for table in Table::ALL {
            // Lists only the tables' logs: the lake has very many files, a table's log has few.
            let log = ObjectPath::from(table.name()).join("_delta_log");
            has_table = has_table || self.lake.list(Some(&log)).next().await.is_some();
        }
        if !has_table {
            return Err(Error::corrupt(format!("the lake {} is missing: restore it from a backup", self.lake_name)));
        }
        Lake::open_existing(Arc::clone(&self.lake)).await
    }

    /// Returns the damaged log entries of the lake's tables. Such entries prevent the lake from being opened.
    ///
    /// # Errors
    /// External when they cannot be read.
    pub async fn damaged_lake_entries(&self) -> Result<Vec<DamagedEntry>> {
        damaged_entries(&self.lake).await
    }

    /// Opens the stores for their owner. Creates the lake's tables only while no epoch log has a record. After that, a
    /// missing table is an error.
    ///
    /// # Errors
    /// External when a store cannot be read, corrupt when a lake table is damaged or lost.
    pub async fn open(&self) -> Result<Stores> {
        let logs = self.logs();
        let log_is_empty = logs.partitions().await?.is_empty();
        let lake = match log_is_empty {
            true => Lake::open(Arc::clone(&self.lake)).await?,
            false => Lake::open_existing(Arc::clone(&self.lake)).await?,
        };
        Ok(Stores { logs, lake, log_is_empty })
    }
}

/// The stores of a deployment.
pub struct Stores {
    /// The epoch logs.
    pub logs: EpochLogs,
    /// The lake.
    pub lake: Lake,
    /// Whether no log had a record when the stores were opened.
    pub log_is_empty: bool,
}
