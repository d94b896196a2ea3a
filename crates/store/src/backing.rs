//! Opens the object stores of a deployment, and the stores in them. Every command opens its data here.

use crate::data_dir::{KEY_FILE, read_key};
use crate::durable::DurableLocal;
use crate::epoch_log::{EpochLogs, SHARED_MIN_AGE_MS};
use crate::lake::{DamagedEntry, Lake, Table, damaged_entries};
use crate::probe;
use crate::remote;
use crate::sources::Sources;
use adtally_model::settings::{self, Text};
use adtally_model::{Error, IdentityKey, Result};
use futures::{StreamExt, TryStreamExt};
pub use object_store::path::Path as ObjectPath;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use url::Url;

/// The number of the only partition of an embedded process. Its source is log files.
pub const EMBEDDED: u32 = 0;

/// The lake's folder, below the deployment's folder.
const LAKE: &str = "lake";

/// Where a deployment keeps its data.
///
/// A path is a data directory: a folder of this machine that one process at a time owns and locks. A URL is a shared
/// store: any number of processes use it, and the epoch log of each partition decides who owns the partition.
///
/// ```
/// # use adtally_store::backing::StoreUrl;
/// let path: StoreUrl = "/srv/adtally".parse().unwrap();
/// let disk: StoreUrl = "file:///srv/adtally".parse().unwrap();
/// let bucket: StoreUrl = "s3://bucket/adtally".parse().unwrap();
/// assert!(!path.is_shared() && disk.is_shared() && bucket.is_shared());
/// assert_eq!(path.folder(), disk.folder());
/// assert_eq!(bucket.folder(), None);
/// assert!("ftp://host/adtally".parse::<StoreUrl>().is_err());
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreUrl {
    place: Place,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Place {
    /// A folder of this machine with one owner.
    Folder(PathBuf),
    /// A folder on a disk that processes share.
    Disk(PathBuf),
    /// An object store.
    Remote(Url),
}

impl StoreUrl {
    /// A data directory.
    pub fn of_folder(folder: impl Into<PathBuf>) -> StoreUrl {
        StoreUrl { place: Place::Folder(folder.into()) }
    }

    /// Whether processes share the store, so that nobody locks it.
    pub fn is_shared(&self) -> bool {
        !matches!(self.place, Place::Folder(_))
    }

    /// The folder that its owner locks; `None` for a shared store.
    pub fn locked_folder(&self) -> Option<&Path> {
        match &self.place {
            Place::Folder(folder) => Some(folder),
            Place::Disk(_) | Place::Remote(_) => None,
        }
    }

    /// The folder, locked or shared; `None` for an object store that is not a disk.
    pub fn folder(&self) -> Option<&Path> {
        match &self.place {
            Place::Folder(folder) | Place::Disk(folder) => Some(folder),
            Place::Remote(_) => None,
        }
    }

    /// The name of its file with the identity key; `None` if the store cannot have one.
    pub fn key_file(&self) -> Option<PathBuf> {
        self.folder().map(|folder| folder.join(KEY_FILE))
    }

    /// Returns the identity key in the folder, or `None` if there is none.
    ///
    /// # Errors
    /// As [`read_key`].
    pub fn read_key(&self) -> Result<Option<IdentityKey>> {
        self.folder().map_or(Ok(None), read_key)
    }

    /// The identity key of a shared store: the configured one, or the one in a folder that was a data directory before.
    /// A shared store makes no key, because each of its processes must have the same.
    ///
    /// # Errors
    /// A user error when there is no key; otherwise as [`read_key`].
    pub fn shared_key(&self, configured: Option<IdentityKey>) -> Result<IdentityKey> {
        let found = match configured {
            Some(key) => Some(key),
            None => self.read_key()?,
        };
        found.ok_or_else(|| {
            Error::user(format!(
                "{self} is shared, so its identity key must be configured: set identity.key to the same 32 random hexadecimal \
                 digits in every process, for example with ADTALLY_IDENTITY__KEY, and keep them secret"
            ))
        })
    }
}

impl FromStr for StoreUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<StoreUrl> {
        if !text.contains("://") {
            return Ok(StoreUrl::of_folder(text));
        }
        let wrong = |why: &str| Error::user(format!("{}: {why}", without_credentials(text)));
        let url = Url::parse(text).map_err(|error| wrong("this is not a URL").because(error))?;
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("a URL of data has only a place: give credentials and options in the environment"));
        }
        let place = match url.scheme() {
            "file" => match url.to_file_path() {
                Ok(folder) if url.host_str().is_none() => Place::Disk(folder),
                _ => return Err(wrong("a file URL must be file:// and an absolute path")),
            },
            _ => {
                remote::check(&url)?;
                Place::Remote(url)
            }
        };
        Ok(StoreUrl { place })
    }
}

/// A URL for a message: what is before an `@` or after a `?` may be secret.
fn without_credentials(text: &str) -> String {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    match text.split_once("://") {
        Some((scheme, rest)) => format!("{scheme}://{}", rest.rsplit('@').next().unwrap_or_default()),
        None => text.to_owned(),
    }
}

impl<'de> Deserialize<'de> for StoreUrl {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<StoreUrl, D::Error> {
        settings::text(from, "a folder, as a path, or a URL of a shared store, of 1 to 4096 bytes", |text| {
            Some(text).filter(|text| Text::<1, 4096>::fits(text))?.parse().ok()
        })
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Folder(folder) => folder.display().fmt(f),
            Place::Disk(folder) => write!(f, "file://{}", folder.display()),
            Place::Remote(url) => url.as_str().trim_end_matches('/').fmt(f),
        }
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
    /// Whether other processes write to the stores, too.
    pub is_shared: bool,
}

impl Backing {
    /// Opens the stores for a process that writes, and creates the folders that are missing.
    ///
    /// # Errors
    /// External when a folder cannot be opened, a user error for incomplete credentials of an object store.
    pub fn for_owner(url: &StoreUrl, fsync: bool) -> Result<Backing> {
        match &url.place {
            Place::Folder(folder) | Place::Disk(folder) => {
                let root = DurableLocal::open(folder, fsync)?;
                let lake = DurableLocal::open(&folder.join(LAKE), fsync)?;
                Ok(Self::new(url, Arc::new(root), Arc::new(lake)))
            }
            Place::Remote(_) => Self::for_reader(url),
        }
    }

    /// Opens the stores for a reader. Creates nothing.
    ///
    /// # Errors
    /// As [`Backing::for_owner`].
    pub fn for_reader(url: &StoreUrl) -> Result<Backing> {
        let root: Arc<dyn ObjectStore> = match &url.place {
            Place::Folder(folder) | Place::Disk(folder) => Arc::new(DurableLocal::open_existing(folder, false)?),
            Place::Remote(remote) => remote::open(remote)?,
        };
        let lake = Arc::new(PrefixStore::new(Arc::clone(&root), LAKE));
        Ok(Self::new(url, root, lake))
    }

    fn new(url: &StoreUrl, log: Arc<dyn ObjectStore>, lake: Arc<dyn ObjectStore>) -> Backing {
        Backing { log, lake, lake_name: lake_name(url), is_shared: url.is_shared() }
    }

    /// Checks that a shared store honours put-if-absent, on which the fencing of owners depends. `token` is random.
    ///
    /// # Errors
    /// A user error when the store does not honour it, external when the store cannot be reached.
    pub async fn probe(&self, token: u128) -> Result<()> {
        match self.is_shared {
            true => probe::put_if_absent(&self.log, token).await,
            false => Ok(()),
        }
    }

    /// The epoch logs.
    pub fn logs(&self) -> EpochLogs {
        let logs = EpochLogs::new(Arc::clone(&self.log));
        if self.is_shared { logs.with_min_age(SHARED_MIN_AGE_MS) } else { logs }
    }

    /// The topics of the deployment.
    pub fn sources(&self) -> Sources {
        Sources::new(Arc::clone(&self.log), self.logs())
    }

    /// Whether the stores have anything of a deployment.
    ///
    /// # Errors
    /// External when they cannot be read.
    pub async fn has_data(&self) -> Result<bool> {
        let failed = |error| Error::transient(format!("{} cannot be read", self.lake_name)).because(error);
        if !self.logs().partitions().await?.is_empty() {
            return Ok(true);
        }
        self.lake.list(None).next().await.transpose().map(|found| found.is_some()).map_err(failed)
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

    /// Moves an object, or all objects below a path, into another folder, where they keep their paths. Returns where they are.
    ///
    /// # Errors
    /// External when the store fails; a repeated call moves the rest.
    pub async fn put_aside(&self, what: &str, folder: &ObjectPath) -> Result<String> {
        let failed = |error| Error::external(format!("{what} cannot be moved to {folder}")).because(error);
        let path = ObjectPath::from(what);
        let mut moved: Vec<ObjectPath> =
            self.log.list(Some(&path)).map_ok(|object| object.location).try_collect().await.map_err(failed)?;
        if moved.is_empty() {
            moved.push(path);
        }
        for from in moved {
            let to = ObjectPath::from_iter(folder.parts().chain(from.parts()));
            self.log.rename(&from, &to).await.map_err(failed)?;
        }
        Ok(format!("{}/{what}", self.name_of(folder)))
    }

    /// The name of a folder of the deployment, for messages.
    fn name_of(&self, folder: &ObjectPath) -> String {
        format!("{}/{folder}", self.lake_name.trim_end_matches(LAKE).trim_end_matches('/'))
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
