//! An object store over a local folder that survives power loss: what was acknowledged is on the disk.
//!
//! `object_store`'s own local store never syncs. This one writes a temporary file, syncs it, moves it into place
//! atomically and syncs the folder, so that an object is either there whole or not at all. Temporary names are
//! `<name>#<digits>`, which listings hide; a crash leaves them behind and [`DurableLocal::sweep`] removes them by age.

use crate::fail_points::{self, RECORD_TEMPORARY_WRITTEN};
use adtally_model::{Error, Result};
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream, TryStreamExt};
use hashbrown::HashSet;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result as StoreResult, UploadPart,
};
use parking_lot::Mutex;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

#[cfg(test)]
mod tests;

/// Folders remembered as synced; the set starts anew beyond it, which costs a sync a folder and bounds its memory.
const SYNCED_FOLDERS_MAX: usize = 16_384;

/// Numbers temporary files within the process.
static NEXT_TEMPORARY: AtomicU64 = AtomicU64::new(1);

/// A folder as an object store whose writes are durable once they return. Listings are in the order of the paths, as
/// those of remote object stores are.
#[derive(Clone, Debug)]
pub struct DurableLocal {
    inner: LocalFileSystem,
    disk: Disk,
}

/// What the blocking half needs.
#[derive(Clone, Debug)]
struct Disk {
    root: Arc<PathBuf>,
    fsync: bool,
    /// Folders whose own entries were synced by this process.
    synced: Arc<Mutex<HashSet<PathBuf>>>,
}

impl DurableLocal {
    /// Opens a folder, creating it where it is absent. With `fsync` off, writes are atomic but may be lost with power.
    ///
    /// # Errors
    /// External when the folder cannot be created or resolved.
    pub fn open(root: &FilePath, fsync: bool) -> Result<DurableLocal> {
        let failed =
            |what: &str| format!("{}: cannot {what} this folder: check its path and permissions", root.display());
        fs::create_dir_all(root).map_err(|error| Error::external(failed("create")).because(error))?;
        let canonical = fs::canonicalize(root).map_err(|error| Error::external(failed("resolve")).because(error))?;
        let inner = LocalFileSystem::new_with_prefix(&canonical)
            .map_err(|error| Error::external(failed("open")).because(error))?;
        if fsync && let Some(parent) = canonical.parent() {
            sync_folder(parent).map_err(|error| Error::external(failed("sync")).because(error))?;
        }
        let disk = Disk { root: Arc::new(canonical), fsync, synced: Arc::default() };
        Ok(DurableLocal { inner, disk })
    }

    /// The folder.
    pub fn root(&self) -> &FilePath {
        &self.disk.root
    }

    /// Removes temporary files last written before `older_than`, which writers that crashed left behind; says how many.
    ///
    /// # Errors
    /// External when a folder cannot be read or a file not removed.
    pub fn sweep(&self, older_than: SystemTime) -> Result<usize> {
        let mut folders = vec![self.disk.root.to_path_buf()];
        let mut swept = 0;
        while let Some(folder) = folders.pop() {
            let failed = |error: io::Error| {
                Error::external(format!("{}: cannot sweep temporary files: check permissions", folder.display()))
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

/// Removes a file by its age; one that has gone meanwhile was put in place by its writer.
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

fn sync_folder(folder: &FilePath) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Runs blocking work off the async threads where there is a runtime, else in place.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> StoreResult<T> + Send + 'static) -> StoreResult<T> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => runtime.spawn_blocking(work).await?,
        Err(_) => work(),
    }
}

/// An I/O error with the file that it is about, in the store's vocabulary.
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

impl Disk {
    /// Creates the folder of a file and makes its entry durable, and those of the folders above it.
    fn ensure_folder(&self, file: &FilePath) -> io::Result<()> {
        let Some(folder) = file.parent() else { return Ok(()) };
        if !self.fsync {
            return fs::create_dir_all(folder);
        }
        // Held while syncing, so that nobody relies on a folder whose entry is not on the disk yet.
        let mut synced = self.synced.lock();
        if synced.contains(folder) && folder.is_dir() {
            return Ok(());
        }
        fs::create_dir_all(folder)?;
        let inside = folder.ancestors().take_while(|ancestor| *ancestor != self.root.as_path());
        for ancestor in inside {
            let Some(parent) = ancestor.parent() else { break };
            sync_folder(parent)?;
        }
        if synced.len() >= SYNCED_FOLDERS_MAX {
            synced.clear();
        }
        synced.insert(folder.to_path_buf());
        Ok(())
    }

    /// Makes the entry of a file durable.
    fn sync_entry(&self, file: &FilePath) -> io::Result<()> {
        match file.parent() {
            Some(folder) if self.fsync => sync_folder(folder),
            _ => Ok(()),
        }
    }

    /// Makes the content of a file durable.
    fn sync_content(&self, file: &FilePath) -> io::Result<()> {
        if self.fsync { File::open(file)?.sync_all() } else { Ok(()) }
    }

    fn create_temporary(&self, target: &FilePath) -> io::Result<(File, PathBuf)> {
        self.ensure_folder(target)?;
        loop {
            let number = NEXT_TEMPORARY.fetch_add(1, Ordering::Relaxed);
            let mut name = target.as_os_str().to_owned();
            name.push(format!("#{}{number:06}", std::process::id()));
            let temporary = PathBuf::from(name);
            match OpenOptions::new().write(true).create_new(true).open(&temporary) {
                Ok(file) => return Ok((file, temporary)),
                // Left behind by an earlier process of the same id.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn put(&self, target: &FilePath, payload: &PutPayload, create: bool) -> io::Result<()> {
        let (mut file, temporary) = self.create_temporary(target)?;
        let written = payload
            .iter()
            .try_for_each(|part| file.write_all(part))
            .and_then(|()| if self.fsync { file.sync_all() } else { Ok(()) });
        drop(file);
        if create {
            fail_points::reach(RECORD_TEMPORARY_WRITTEN);
        }
        let placed = written
            .and_then(|()| if create { fs::hard_link(&temporary, target) } else { fs::rename(&temporary, target) });
        if create || placed.is_err() {
            // Failing to remove it leaves a file for the sweep and says nothing about the object.
            let _ = fs::remove_file(&temporary);
        }
        match placed {
            Ok(()) => self.sync_entry(target),
            Err(error) if create && error.kind() == io::ErrorKind::AlreadyExists => {
                // Whoever created it may have failed to sync; who is told that it exists must be able to rely on it.
                self.sync_entry(target)?;
                Err(error)
            }
            Err(error) => Err(error),
        }
    }
}

impl std::fmt::Display for DurableLocal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DurableLocal({})", self.disk.root.display())
    }
}

/// Orders a listing, which the file system gives in any order.
fn sorted(listing: BoxStream<'static, StoreResult<ObjectMeta>>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
    stream::once(async move {
        let mut objects: Vec<ObjectMeta> = listing.try_collect().await?;
        objects.sort_unstable_by(|left, right| left.location.cmp(&right.location));
        Ok::<_, StoreError>(stream::iter(objects.into_iter().map(Ok)))
    })
    .try_flatten()
    .boxed()
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
        let (disk, target) = (self.disk.clone(), self.inner.path_to_filesystem(location)?);
        blocking(move || {
            disk.put(&target, &payload, create).map_err(|error| store_error(&target, error))?;
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
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> StoreResult<Vec<bytes::Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, StoreResult<Path>>) -> BoxStream<'static, StoreResult<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        sorted(self.inner.list(prefix))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        sorted(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
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
    /// Prepares a copy or a rename: the target's folder is there, the content of what is renamed is on the disk.
    async fn before_placing(&self, target: PathBuf, source: Option<PathBuf>) -> StoreResult<()> {
        let disk = self.disk.clone();
        blocking(move || {
            if let Some(source) = source {
                disk.sync_content(&source).map_err(|error| store_error(&source, error))?;
            }
            disk.ensure_folder(&target).map_err(|error| store_error(&target, error))
        })
        .await
    }

    /// Makes a copy or a rename durable.
    async fn after_placing(&self, target: PathBuf, source: Option<PathBuf>) -> StoreResult<()> {
        let disk = self.disk.clone();
        blocking(move || {
            disk.sync_content(&target)
                .and_then(|()| disk.sync_entry(&target))
                .and_then(|()| source.map_or(Ok(()), |source| disk.sync_entry(&source)))
                .map_err(|error| store_error(&target, error))
        })
        .await
    }
}

/// An object written in parts, which appears when it is complete.
#[derive(Debug)]
struct Upload {
    disk: Disk,
    target: PathBuf,
    /// Where the parts go until then; `None` once completed or aborted.
    temporary: Option<PathBuf>,
    file: Arc<Mutex<File>>,
    /// Offset of the next part.
    next: u64,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (file, target, offset) = (Arc::clone(&self.file), self.target.clone(), self.next);
        self.next += data.content_length() as u64;
        Box::pin(blocking(move || {
            let mut file = file.lock();
            file.seek(SeekFrom::Start(offset))
                .and_then(|_| data.iter().try_for_each(|part| file.write_all(part)))
                .map_err(|error| store_error(&target, error))
        }))
    }

    async fn complete(&mut self) -> StoreResult<PutResult> {
        let temporary = self.temporary.take().ok_or_else(|| unsupported("`complete` of an upload that has ended"))?;
        let (disk, target, file) = (self.disk.clone(), self.target.clone(), Arc::clone(&self.file));
        blocking(move || {
            let content = file.lock();
            let synced = if disk.fsync { content.sync_all() } else { Ok(()) };
            let placed = synced.and_then(|()| fs::rename(&temporary, &target));
            if placed.is_err() {
                let _ = fs::remove_file(&temporary);
            }
            placed.and_then(|()| disk.sync_entry(&target)).map_err(|error| store_error(&target, error))?;
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
