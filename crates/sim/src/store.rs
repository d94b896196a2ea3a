//! The object store of the epoch log on a simulated disk, as seen by one process.

use crate::disk::Disk;
use crate::lake::SharedTables;
use crate::machine::Machine;
use crate::plant::Plant;
use crate::random::Random;
use adtally_store::durable::{Disk as DurableDisk, DiskFile, DiskIo, Placing};
use adtally_store::epoch_log::codec;
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;
use std::io;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

/// The data directory.
pub(crate) const ROOT: &str = "/data";

/// A write: path and content.
type Late = (String, Vec<u8>);

/// The disk that outlives processes.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedDisk {
    pub(crate) disk: Arc<Mutex<Disk>>,
    /// Writes still in progress for which no process waits any more.
    late: Arc<Mutex<Vec<Late>>>,
}

impl SharedDisk {
    /// An independent copy of the disk.
    pub(crate) fn fork(&self) -> SharedDisk {
        SharedDisk { disk: Arc::new(Mutex::new(self.disk.lock().clone())), late: Arc::default() }
    }

    /// Completes the late writes.
    pub(crate) fn catch_up(&self) {
        for (path, bytes) in std::mem::take(&mut *self.late.lock()) {
            self.disk.lock().put_late(&path, &bytes);
        }
    }

    /// Loses power: late writes are never completed.
    pub(crate) fn lose_power(&self, random: &mut Random) {
        self.late.lock().clear();
        self.disk.lock().lose_power(random);
    }
}

/// The disk with all faults that may occur around a process's writes.
#[derive(Clone)]
struct SimIo {
    disk: SharedDisk,
    machine: Machine,
    plant: Plant,
}

/// A process's view of the store. Writes use the real code of the durable local store.
pub(crate) struct SimStore {
    io: SimIo,
    durable: DurableDisk,
    tables: SharedTables,
}

impl SimIo {
    fn step<T>(
        &self,
        name: &'static str,
        rarity: u64,
        operation: impl FnOnce(&mut Disk) -> io::Result<T>,
    ) -> io::Result<T> {
        self.machine.crash_point(name, rarity);
        if self.machine.fails(name, rarity) {
            return Err(io::Error::other("the disk fails"));
        }
        let result = operation(&mut self.disk.disk.lock());
        self.machine.crash_point(name, rarity);
        if self.machine.loses_reply(name, rarity) {
            return Err(io::Error::other("the disk fails late"));
        }
        result
    }
}

impl std::fmt::Debug for SimIo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SimIo")
    }
}

fn text(path: &FilePath) -> &str {
    path.to_str().unwrap_or_default()
}

impl DiskIo for SimIo {
    fn is_folder(&self, path: &FilePath) -> bool {
        self.disk.disk.lock().is_folder(text(path))
    }

    fn create_folders(&self, path: &FilePath) -> io::Result<()> {
        self.step("create folders", 1, |disk| {
            disk.create_folders(text(path));
            Ok(())
        })
    }

    fn create_new(&self, path: &FilePath) -> io::Result<Box<dyn DiskFile>> {
        self.step("create a temporary file", 1, |disk| disk.create_new(text(path)))?;
        Ok(Box::new(SimFile { io: self.clone(), path: text(path).to_owned() }))
    }

    fn hard_link(&self, from: &FilePath, to: &FilePath) -> io::Result<()> {
        self.step("put in place", 1, |disk| disk.hard_link(text(from), text(to)))
    }

    fn rename(&self, from: &FilePath, to: &FilePath) -> io::Result<()> {
        self.step("put in place", 1, |disk| disk.rename(text(from), text(to)))
    }

    fn remove(&self, path: &FilePath) -> io::Result<()> {
        self.step("remove a temporary file", 1, |disk| disk.remove(text(path)))
    }

    fn sync(&self, path: &FilePath) -> io::Result<()> {
        if self.plant == Plant::EntryNotSynced {
            return Ok(());
        }
        self.step("sync a folder", 1, |disk| {
            disk.sync_folder(text(path));
            Ok(())
        })
    }
}

/// A file being written.
#[derive(Debug)]
struct SimFile {
    io: SimIo,
    path: String,
}

impl DiskFile for SimFile {
    fn write_all_at(&mut self, bytes: &[u8], _: u64) -> io::Result<()> {
        self.io.step("write", 1, |disk| disk.append(&self.path, bytes))
    }

    fn sync_all(&mut self) -> io::Result<()> {
        if self.io.plant == Plant::ContentNotSynced {
            return Ok(());
        }
        self.io.step("sync a file", 1, |disk| disk.sync_file(&self.path))
    }
}

impl SimStore {
    pub(crate) fn new(disk: SharedDisk, tables: SharedTables, machine: Machine, plant: Plant) -> SimStore {
        let io = SimIo { disk, machine, plant };
        io.disk.disk.lock().begin(ROOT);
        let durable = DurableDisk::new(Arc::new(io.clone()), PathBuf::from(ROOT), true);
        SimStore { io, durable, tables }
    }

    /// Whether a write takes so long that it is reported as failed, but takes effect later.
    fn is_delayed(&self, location: &Path, payload: &PutPayload) -> bool {
        let bytes: Vec<u8> = payload.iter().flatten().copied().collect();
        if self.io.plant == Plant::LakeBeforeRecord
            && let Ok((epoch, _)) = codec::decode(&bytes)
            && !epoch.claim
        {
            self.tables.tell_early(&epoch);
        }
        if !self.io.machine.delays() {
            return false;
        }
        self.io.machine.note("is delayed", location);
        self.disk().late.lock().push((format!("{ROOT}/{location}"), bytes));
        true
    }

    fn disk(&self) -> &SharedDisk {
        &self.io.disk
    }

    /// A read-only operation.
    fn read<T>(&self, at: &Path, read: impl FnOnce(&Disk) -> io::Result<T>) -> io::Result<T> {
        let at = format!("{ROOT}/{at}");
        self.durable.settle(FilePath::new(&at))?;
        // A start reads up to 192 records.
        self.io.step("read", 50, |disk| read(disk))
    }
}

fn store_error(path: &Path, error: io::Error) -> Error {
    let path = path.to_string();
    match error.kind() {
        io::ErrorKind::NotFound => Error::NotFound { path, source: error.into() },
        io::ErrorKind::AlreadyExists => Error::AlreadyExists { path, source: error.into() },
        _ => Error::Generic { store: "SimStore", source: error.into() },
    }
}

fn unsupported(operation: &str) -> Error {
    Error::NotImplemented { operation: operation.to_owned(), implementer: "SimStore".to_owned() }
}

fn meta(location: Path, size: usize) -> ObjectMeta {
    ObjectMeta { location, last_modified: Default::default(), size: size as u64, e_tag: None, version: None }
}

impl std::fmt::Display for SimStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SimStore")
    }
}

impl std::fmt::Debug for SimStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SimStore")
    }
}

#[async_trait]
impl ObjectStore for SimStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let create = options.mode == PutMode::Create;
        self.io.machine.note("put", location);
        if self.is_delayed(location, &payload) {
            return Err(store_error(location, io::Error::other("no reply in time")));
        }
        let target = format!("{ROOT}/{location}");
        let how = Placing { create, ..Placing::default() };
        self.durable.put(FilePath::new(&target), &payload, how).map_err(|error| store_error(location, error))?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(unsupported("put_multipart"))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let read = self.read(location, |disk| disk.read(&format!("{ROOT}/{location}")).map(Bytes::copy_from_slice));
        let bytes = read.map_err(|error| store_error(location, error))?;
        let range = match options.range {
            Some(range) => range
                .as_range(bytes.len() as u64)
                .map_err(|error| Error::Generic { store: "SimStore", source: error.into() })?,
            None => 0..bytes.len() as u64,
        };
        let part = bytes.slice(range.start as usize..range.end as usize);
        Ok(GetResult {
            payload: GetResultPayload::Stream(stream::iter([Ok(part)]).boxed()),
            meta: meta(location.clone(), bytes.len()),
            range,
            attributes: Default::default(),
        })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let io = self.io.clone();
        let delete = move |location: Result<Path>| {
            let location = location?;
            io.machine.note("delete", &location);
            let removed = io.step("delete", 1, |disk| disk.remove(&format!("{ROOT}/{location}")));
            removed.map(|()| location.clone()).map_err(|error| store_error(&location, error))
        };
        locations.map(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let folder = prefix.cloned().unwrap_or_default();
        let listed = self.read(&folder, |disk| {
            let below = format!("{ROOT}/{folder}");
            let files = disk.list(&below).filter(|(path, _)| !path.contains('#'));
            // The only log that a planted bug sees.
            let first = format!("{ROOT}/epochs/00000/");
            let sees_one = self.io.plant == Plant::VacuumOfOneLog && folder.as_ref() == "epochs";
            let files = files.filter(|(path, _)| !sees_one || path.starts_with(&first));
            let in_store = |path: &str| Path::from(path.strip_prefix(ROOT).unwrap_or(path));
            Ok(files.map(|(path, size)| meta(in_store(path), size)).collect::<Vec<_>>())
        });
        match listed {
            Ok(found) => stream::iter(found.into_iter().map(Ok)).boxed(),
            Err(error) => stream::iter([Err(store_error(&folder, error))]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        Err(unsupported("list_with_delimiter"))
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(unsupported("copy"))
    }
}
