//! An object store whose process dies, or whose replies are lost, at chosen operations.

use async_trait::async_trait;
use futures::stream::{BoxStream, StreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Whether a fault comes before or after its operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Side {
    /// The operation does not happen, and returns an error.
    Before,
    /// The operation happens, but returns an error.
    After,
}

/// An operation of a run. Threads run concurrently, so the same number can be another operation in another run, but the
/// operations of each kind keep their order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Moment {
    /// The n-th of all, from 1.
    Nth(usize),
    /// The n-th of a kind (see [`kind_of`]), from 1.
    OfKind(String, usize),
}

/// A fault to inject.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// The process dies at an operation: that one and all later ones fail.
    Death(Moment, Side),
    /// The replies to some changes are errors; the process lives on.
    Lost {
        /// One of this many changes of matching paths fails.
        every: usize,
        /// Which of them fails.
        offset: usize,
        /// Whether the change takes place.
        side: Side,
        /// A part of the matching paths.
        matching: &'static str,
    },
}

/// The operations on the stores, in order.
#[derive(Debug)]
struct Plan {
    fault: Fault,
    operations: Vec<(&'static str, String)>,
    by_kind: BTreeMap<String, usize>,
    changes: usize,
    made: BTreeSet<String>,
    hits: usize,
    dead: bool,
}

/// The faults of one process's stores; clones share the count.
#[derive(Clone, Debug)]
pub(crate) struct Faults(Arc<Mutex<Plan>>);

impl Faults {
    /// Counts operations from 1 and injects this fault.
    pub(crate) fn new(fault: Fault) -> Self {
        let plan = Plan {
            fault,
            operations: Vec::new(),
            by_kind: BTreeMap::new(),
            changes: 0,
            made: BTreeSet::new(),
            hits: 0,
            dead: false,
        };
        Faults(Arc::new(Mutex::new(plan)))
    }

    /// A view of a store under these faults; `root` names it in reports.
    pub(crate) fn wrap(&self, root: &'static str, inner: &Arc<InMemory>) -> Arc<dyn ObjectStore> {
        Arc::new(FaultyStore { root, inner: Arc::clone(inner), faults: self.clone() })
    }

    /// All operations so far: the verb and the path.
    pub(crate) fn operations(&self) -> Vec<(&'static str, String)> {
        self.0.lock().operations.clone()
    }

    /// The changes that took place, by path, without random parts of names.
    pub(crate) fn changes_made(&self) -> BTreeSet<String> {
        self.0.lock().made.clone()
    }

    /// The number of failed operations while the process lived, including the deadly one.
    pub(crate) fn hits(&self) -> usize {
        self.0.lock().hits
    }

    /// Whether the process has died.
    pub(crate) fn is_dead(&self) -> bool {
        self.0.lock().dead
    }

    /// Counts an operation; returns on which side of it a fault is injected.
    fn note(&self, verb: &'static str, path: String) -> Option<Side> {
        let mut plan = self.0.lock();
        if plan.dead {
            return Some(Side::Before);
        }
        let is_change = is_change(verb);
        let kind = kind_of(verb, &path);
        let of_kind = *plan.by_kind.entry(kind.clone()).and_modify(|count| *count += 1).or_insert(1);
        let fault = plan.fault.clone();
        let side = match fault {
            Fault::None => None,
            Fault::Death(Moment::Nth(at), side) => {
                plan.dead = plan.operations.len() + 1 == at;
                plan.dead.then_some(side)
            }
            Fault::Death(Moment::OfKind(which, at), side) => {
                plan.dead = which == kind && of_kind == at;
                plan.dead.then_some(side)
            }
            Fault::Lost { every, offset, side, matching } if is_change && path.contains(matching) => {
                plan.changes += 1;
                (plan.changes % every == offset % every).then_some(side)
            }
            Fault::Lost { .. } => None,
        };
        if is_change && side != Some(Side::Before) {
            plan.made.insert(format!("{verb} {}", without_token(&path)));
        }
        plan.operations.push((verb, path));
        plan.hits += usize::from(side.is_some());
        side
    }
}

/// The path of a staged file without the token that makes its name unique.
fn without_token(path: &str) -> &str {
    path.rsplit_once('-').filter(|(_, token)| token.len() == 32 + ".parquet".len()).map_or(path, |(rest, _)| rest)
}

/// Whether an operation changes stored data.
pub(crate) fn is_change(verb: &str) -> bool {
    !matches!(verb, "get" | "list")
}

/// The kind of an operation: the verb and the folder, without time folders.
pub(crate) fn kind_of(verb: &str, path: &str) -> String {
    let folders = path.split('/').take_while(|part| !part.contains('=') && !part.contains('.') && *part != "00000");
    format!("{verb} {}", folders.collect::<Vec<_>>().join("/"))
}

#[derive(Debug)]
struct FaultyStore {
    root: &'static str,
    inner: Arc<InMemory>,
    faults: Faults,
}

fn failure() -> object_store::Error {
    object_store::Error::Generic { store: "FaultyStore", source: "the connection broke".into() }
}

impl FaultyStore {
    fn note(&self, verb: &'static str, path: &str) -> Option<Side> {
        self.faults.note(verb, format!("{}{path}", self.root))
    }

    /// Fails if the fault comes before the operation; otherwise returns whether the reply is lost.
    fn enter(&self, verb: &'static str, path: &Path) -> Result<bool> {
        match self.note(verb, path.as_ref()) {
            Some(Side::Before) => Err(failure()),
            Some(Side::After) => Ok(true),
            None => Ok(false),
        }
    }
}

fn reply<T>(lost: bool, result: Result<T>) -> Result<T> {
    if lost { Err(failure()) } else { result }
}

impl std::fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FaultyStore")
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let lost = self.enter("put", location)?;
        reply(lost, self.inner.put_opts(location, payload, options).await)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        // No test data is large enough for it, and its parts would not be counted.
        assert!(options.attributes.is_empty() && location.as_ref().is_empty(), "an upload in parts of {location}");
        Err(object_store::Error::NotImplemented {
            operation: "put_multipart".into(),
            implementer: "FaultyStore".into(),
        })
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let lost = self.enter("get", location)?;
        reply(lost, self.inner.get_opts(location, options).await)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (inner, faults, root) = (Arc::clone(&self.inner), self.faults.clone(), self.root);
        let one = move |location: Result<Path>| {
            let (inner, faults) = (Arc::clone(&inner), faults.clone());
            async move {
                let location = location?;
                let side = faults.note("delete", format!("{root}{location}"));
                if side == Some(Side::Before) {
                    return Err(failure());
                }
                let mut deleted = inner.delete_stream(futures::stream::iter([Ok(location.clone())]).boxed());
                while let Some(result) = deleted.next().await {
                    result?;
                }
                reply(side.is_some(), Ok(location))
            }
        };
        locations.then(one).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.note("list", prefix.map_or("", AsRef::as_ref)) {
            Some(_) => futures::stream::iter([Err(failure())]).boxed(),
            None => self.inner.list(prefix),
        }
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.note("list", prefix.map_or("", AsRef::as_ref)) {
            Some(_) => futures::stream::iter([Err(failure())]).boxed(),
            None => self.inner.list_with_offset(prefix, offset),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let lost = self.enter("list", &prefix.cloned().unwrap_or_default())?;
        reply(lost, self.inner.list_with_delimiter(prefix).await)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let lost = self.enter("copy", to)?;
        reply(lost, self.inner.copy_opts(from, to, options).await)
    }
}
