//! The object store of the epoch log over a simulated disk, as one process sees it.

use crate::disk::Disk;
use crate::machine::Machine;
use crate::plant::Plant;
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
use std::sync::Arc;

/// The disk that outlives processes.
#[derive(Clone, Debug, Default)]
pub(crate) struct SharedDisk(pub(crate) Arc<Mutex<Disk>>);

/// A process's view of it.
pub(crate) struct SimStore {
    disk: SharedDisk,
    machine: Machine,
    plant: Plant,
}

impl SimStore {
    pub(crate) fn new(disk: SharedDisk, machine: Machine, plant: Plant) -> SimStore {
        SimStore { disk, machine, plant }
    }

    /// One operation on the disk, with everything that may happen around it.
    fn step<T>(&self, name: &'static str, operation: impl FnOnce(&mut Disk) -> io::Result<T>) -> io::Result<T> {
        // A start reads up to 192 records.
        let rarity = if name == "read" { 50 } else { 1 };
        self.machine.crash_point(name, rarity);
        if self.machine.fails(name) {
            return Err(io::Error::other("the disk fails"));
        }
        let result = operation(&mut self.disk.0.lock());
        self.machine.crash_point(name, rarity);
        if self.machine.loses_reply(name) {
            return Err(io::Error::other("the disk fails late"));
        }
        result
    }

    /// As the durable local store does it: written and synced under a temporary name, then put in place, then its
    /// folder is synced.
    fn put(&self, target: &str, payload: &PutPayload, create: bool) -> io::Result<()> {
        let temporary = format!("{target}#{}", self.machine.below(u64::MAX));
        let folder = target.rsplit_once('/').map_or("", |(folder, _)| folder);
        self.step("create a temporary file", |disk| disk.create_new(&temporary))?;
        let written = payload
            .iter()
            .try_for_each(|part| self.step("write", |disk| disk.append(&temporary, part)))
            .and_then(|()| match self.plant {
                Plant::ContentNotSynced => Ok(()),
                _ => self.step("sync a file", |disk| disk.sync_file(&temporary)),
            });
        let placed = written.and_then(|()| {
            self.step("put in place", |disk| match create {
                true => disk.hard_link(&temporary, target),
                false => disk.rename(&temporary, target),
            })
        });
        if create || placed.is_err() {
            let _ = self.step("remove a temporary file", |disk| disk.remove(&temporary));
        }
        let sync_entry = || match self.plant {
            Plant::EntryNotSynced => Ok(()),
            _ => self.step("sync a folder", |disk| {
                disk.sync_folder(folder);
                Ok(())
            }),
        };
        match placed {
            Ok(()) => sync_entry(),
            Err(error) if create && error.kind() == io::ErrorKind::AlreadyExists => {
                sync_entry()?;
                Err(error)
            }
            Err(error) => Err(error),
        }
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
        self.machine.note("put", location);
        self.put(location.as_ref(), &payload, create).map_err(|error| store_error(location, error))?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(unsupported("put_multipart"))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let read = self.step("read", |disk| disk.read(location.as_ref()).map(Bytes::copy_from_slice));
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
        let store = SimStore::new(self.disk.clone(), self.machine.clone(), self.plant);
        let delete = move |location: Result<Path>| {
            let location = location?;
            store.machine.note("delete", &location);
            let removed = store.step("delete", |disk| disk.remove(location.as_ref()));
            removed.map(|()| location.clone()).map_err(|error| store_error(&location, error))
        };
        locations.map(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let folder = prefix.map_or("", AsRef::as_ref);
        let listed = self.step("list", |disk| {
            let files = disk.list(folder).filter(|(path, _)| !path.contains('#'));
            Ok(files.map(|(path, size)| meta(Path::from(path), size)).collect::<Vec<_>>())
        });
        match listed {
            Ok(found) => stream::iter(found.into_iter().map(Ok)).boxed(),
            Err(error) => stream::iter([Err(store_error(&Path::from(folder), error))]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        Err(unsupported("list_with_delimiter"))
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(unsupported("copy"))
    }
}
