//! An object store over a local folder that survives power loss: a write that was acknowledged is on the disk.
//!
//! The local store of `object_store` never syncs. This one writes a temporary file, syncs it, moves it into place
//! atomically and syncs the folder, so that an object exists either completely or not at all. Temporary names are
//! `<name>#<digits>`, which listings hide. A crash leaves them behind; [`DurableLocal::sweep`] removes them by age.

use adtally_model::{Error, Result};
use async_trait::async_trait;
use disk::LocalDisk;
use futures::StreamExt;
use futures::stream::{self, BoxStream, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result as StoreResult, UploadPart,
};
use parking_lot::Mutex;
use std::fs::{self, File};
use std::io;
use std::ops::Range;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

mod disk;
#[cfg(test)]
mod tests;

pub use disk::{Disk, DiskFile, DiskIo, Placing};

/// Mode of new folders: other programs get the access that the user's mask allows.
const FOLDER_MODE: u32 = 0o777;

/// A folder as an object store whose writes are durable when they return. Listings are sorted by path, as in remote
/// object stores.
#[derive(Clone, Debug)]
pub struct DurableLocal {
    inner: LocalFileSystem,
    disk: Disk,
}

impl DurableLocal {
    /// Opens a folder, and creates it if it is missing. With `fsync` off, writes are atomic but not durable.
    ///
    /// # Errors
    /// External when the folder cannot be created or resolved.
    pub fn open(root: &FilePath, fsync: bool) -> Result<DurableLocal> {
        create_folder(root, FOLDER_MODE, fsync)
            .map_err(|error| Error::external(unusable(root, "create")).because(error))?;
        Self::open_existing(root, fsync)
    }

    /// Opens an existing folder without changing anything. Writes are as durable as with [`DurableLocal::open`].
    ///
    /// # Errors
    /// External when the folder is absent or cannot be resolved.
    pub fn open_existing(root: &FilePath, fsync: bool) -> Result<DurableLocal> {
        let failed = |error: io::Error| Error::external(unusable(root, "open")).because(error);
        let canonical = fs::canonicalize(root).map_err(failed)?;
        let inner = LocalFileSystem::new_with_prefix(&canonical)
            .map_err(|error| Error::external(unusable(root, "open")).because(error))?;
        Ok(DurableLocal { inner, disk: Disk::new(Arc::new(LocalDisk), canonical, fsync) })
    }

    /// The folder.
    pub fn root(&self) -> &FilePath {
        self.disk.root()
    }

    /// Removes temporary files last written before `older_than`, which crashed writers left. Returns their number.
    ///
    /// # Errors
    /// External when a folder cannot be read or a file cannot be removed.
    pub fn sweep(&self, older_than: SystemTime) -> Result<usize> {
        let mut folders = vec![self.disk.root().to_path_buf()];
        let mut swept = 0;
        while let Some(folder) = folders.pop() {
            let failed = |error: io::Error| {
                Error::external(format!("{}: cannot delete temporary files: check permissions", folder.display()))
                    .because(error)
            };
            for entry in fs::read_dir(&folder).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let kind = entry.file_type().map_err(failed)?;
                if kind.is_dir() {
                    folders.push(entry.path());
                } else if kind.is_file() && is_temporary(&entry.file_name().to_string_lossy()) {
                    swept += usize::from(remove_if_older(&entry, older_than).map_err(failed)?);
                }
            }
        }
        Ok(swept)
    }
}

/// Whether a name is of the form `<name>#<digits>`.
fn is_temporary(name: &str) -> bool {
    name.rsplit_once('#')
        .is_some_and(|(_, suffix)| !suffix.is_empty() && suffix.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Removes a file if it is old enough. A file that has disappeared in the meantime was put in place by its writer.
fn remove_if_older(entry: &fs::DirEntry, older_than: SystemTime) -> io::Result<bool> {
    let removed = entry.metadata().and_then(|metadata| {
        let old = metadata.modified()? < older_than;
        if old {
            fs::remove_file(entry.path())?;
        }
        Ok(old)
    });
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        other => other,
    }
}

fn unusable(root: &FilePath, what: &str) -> String {
    format!("{}: cannot {what} this folder: check its path and permissions", root.display())
}

fn sync_folder(folder: &FilePath) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Creates a folder and its missing parents. With `fsync`, their entries are on the disk when this returns, even if an
/// earlier process created the folder and died before it synced it.
pub(crate) fn create_folder(folder: &FilePath, mode: u32, fsync: bool) -> io::Result<()> {
    let missing = folder.ancestors().take_while(|above| !above.as_os_str().is_empty() && !above.is_dir()).count();
    fs::DirBuilder::new().recursive(true).mode(mode).create(folder)?;
    if fsync {
        for made in fs::canonicalize(folder)?.ancestors().skip(1).take(missing.max(1)) {
            sync_folder(made)?;
        }
    }
    Ok(())
}

/// Runs blocking work off the async threads if there is a runtime, otherwise in place.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> StoreResult<T> + Send + 'static) -> StoreResult<T> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => runtime.spawn_blocking(work).await?,
        Err(_) => work(),
    }
}

/// An extension of a put: the writer does not expect the object to be read soon.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NotReadSoon;

/// Converts an I/O error about a file to an error of the object store.
fn store_error(path: &FilePath, error: io::Error) -> StoreError {
    let text = path.display().to_string();
    match error.kind() {
        io::ErrorKind::NotFound => StoreError::NotFound { path: text, source: error.into() },
        io::ErrorKind::AlreadyExists => StoreError::AlreadyExists { path: text, source: error.into() },
        io::ErrorKind::PermissionDenied => StoreError::PermissionDenied { path: text, source: error.into() },
        _ => StoreError::Generic { store: "DurableLocal", source: format!("{text}: {error}").into() },
    }
}

fn unsupported(operation: &str) -> StoreError {
    StoreError::NotImplemented { operation: operation.to_owned(), implementer: "DurableLocal".to_owned() }
}

impl std::fmt::Display for DurableLocal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DurableLocal({})", self.disk.root().display())
    }
}

#[async_trait]
impl ObjectStore for DurableLocal {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        if !options.attributes.is_empty() {
            return Err(unsupported("`put_opts` with attributes"));
        }
        let create = match options.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => return Err(unsupported("`put_opts` with mode `PutMode::Update`")),
        };
        let how = Placing { create, not_read_soon: options.extensions.get::<NotReadSoon>().is_some() };
        let (disk, target) = (self.disk.clone(), self.inner.path_to_filesystem(location)?);
        blocking(move || {
            disk.put(&target, &payload, how).map_err(|error| store_error(&target, error))?;
            Ok(PutResult { e_tag: None, version: None })
        })
        .await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        if !options.attributes.is_empty() {
            return Err(unsupported("`put_multipart_opts` with attributes"));
        }
        let (disk, target) = (self.disk.clone(), self.inner.path_to_filesystem(location)?);
        blocking(move || {
            let (file, temporary) = disk.create_temporary(&target).map_err(|error| store_error(&target, error))?;
            let upload = Upload { disk, target, temporary: Some(temporary), file: Arc::new(Mutex::new(file)), next: 0 };
            Ok(Box::new(upload) as Box<dyn MultipartUpload>)
        })
        .await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.settled(Some(location)).await?;
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> StoreResult<Vec<bytes::Bytes>> {
        self.settled(Some(location)).await?;
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, StoreResult<Path>>) -> BoxStream<'static, StoreResult<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.listing(prefix, self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.listing(prefix, self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.settled(prefix).await?;
        let mut listing = self.inner.list_with_delimiter(prefix).await?;
        listing.objects.sort_unstable_by(|left, right| left.location.cmp(&right.location));
        listing.common_prefixes.sort_unstable();
        Ok(listing)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        let target = self.inner.path_to_filesystem(to)?;
        self.before_placing(target.clone(), None).await?;
        self.inner.copy_opts(from, to, options).await?;
        self.after_placing(target, None).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> StoreResult<()> {
        let target = self.inner.path_to_filesystem(to)?;
        let source = self.inner.path_to_filesystem(from)?;
        self.before_placing(target.clone(), Some(source.clone())).await?;
        self.inner.rename_opts(from, to, options).await?;
        self.after_placing(target, Some(source)).await
    }
}

impl DurableLocal {
    /// Makes existing objects durable before they are read or listed.
    async fn settled(&self, at: Option<&Path>) -> StoreResult<()> {
        if self.disk.is_settled() {
            return Ok(());
        }
        let at = match at {
            Some(path) => self.inner.path_to_filesystem(path)?,
            None => self.disk.root().to_path_buf(),
        };
        let disk = self.disk.clone();
        blocking(move || disk.settle(&at).map_err(|error| store_error(&at, error))).await
    }

    /// Lists durable objects in order. The file system returns them in any order.
    fn listing(
        &self,
        prefix: Option<&Path>,
        listed: BoxStream<'static, StoreResult<ObjectMeta>>,
    ) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        let (store, prefix) = (self.clone(), prefix.cloned());
        stream::once(async move {
            let mut objects: Vec<ObjectMeta> = listed.try_collect().await?;
            // The listing may include objects that were put in place in the meantime.
            store.settled(prefix.as_ref()).await?;
            objects.sort_unstable_by(|left, right| left.location.cmp(&right.location));
            Ok::<_, StoreError>(stream::iter(objects.into_iter().map(Ok)))
        })
        .try_flatten()
        .boxed()
    }

    /// Prepares a copy or a rename: creates the target's folder, and syncs the content of a renamed file.
    async fn before_placing(&self, target: PathBuf, source: Option<PathBuf>) -> StoreResult<()> {
        let disk = self.disk.clone();
        blocking(move || {
            if let Some(source) = source {
                disk.sync(&source).map_err(|error| store_error(&source, error))?;
            }
            disk.ensure_folder(&target).map_err(|error| store_error(&target, error))
        })
        .await
    }

    /// Makes a copy or a rename durable.
    async fn after_placing(&self, target: PathBuf, source: Option<PathBuf>) -> StoreResult<()> {
        let disk = self.disk.clone();
        blocking(move || {
            disk.sync_placed(&target)
                .and_then(|()| disk.sync_entry(&target))
                .and_then(|()| source.map_or(Ok(()), |source| disk.sync_entry(&source)))
                .map_err(|error| store_error(&target, error))
        })
        .await
    }
}

/// An object that is written in parts and appears when it is complete.
#[derive(Debug)]
struct Upload {
    disk: Disk,
    target: PathBuf,
    /// The temporary file for the parts; `None` once completed or aborted.
    temporary: Option<PathBuf>,
    file: Arc<Mutex<Box<dyn DiskFile>>>,
    /// Offset of the next part.
    next: u64,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (file, target, offset) = (Arc::clone(&self.file), self.target.clone(), self.next);
        self.next += data.content_length() as u64;
        Box::pin(blocking(move || {
            let (mut file, mut at) = (file.lock(), offset);
            let mut write = |part: &bytes::Bytes| {
                file.write_all_at(part, at)?;
                at += part.len() as u64;
                Ok(())
            };
            data.iter().try_for_each(&mut write).map_err(|error| store_error(&target, error))
        }))
    }

    async fn complete(&mut self) -> StoreResult<PutResult> {
        let temporary = self.temporary.take().ok_or_else(|| unsupported("`complete` of an upload that has ended"))?;
        let (disk, target, file) = (self.disk.clone(), self.target.clone(), Arc::clone(&self.file));
        blocking(move || {
            let placed = disk.place(file.lock().as_mut(), &temporary, &target, false);
            placed.map_err(|error| store_error(&target, error))?;
            Ok(PutResult { e_tag: None, version: None })
        })
        .await
    }

    async fn abort(&mut self) -> StoreResult<()> {
        let temporary = self.temporary.take().ok_or_else(|| unsupported("`abort` of an upload that has ended"))?;
        blocking(move || fs::remove_file(&temporary).map_err(|error| store_error(&temporary, error))).await
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(temporary) = self.temporary.take() {
            let _ = fs::remove_file(temporary);
        }
    }
}
