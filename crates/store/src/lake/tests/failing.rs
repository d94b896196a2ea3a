//! An object store in memory whose writes and reads fail on demand.

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result as StoreResult,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// A store that fails the n-th write to paths that contain a text, before or after the write takes place, or all reads
/// of such paths.
#[derive(Debug)]
pub(super) struct Failing {
    inner: InMemory,
    /// The number of writes that still succeed.
    left: AtomicUsize,
    /// Whether a failing write takes place nevertheless.
    lost_reply: AtomicBool,
    matching: &'static str,
    /// The number of writes that fail.
    failures: AtomicUsize,
    /// Whether matching reads fail.
    unreadable: AtomicBool,
}

impl Failing {
    /// A store whose writes succeed until `fail` is called.
    pub(super) fn new(matching: &'static str) -> Arc<Failing> {
        let never = AtomicUsize::new(usize::MAX);
        Arc::new(Failing {
            inner: InMemory::new(),
            left: never,
            lost_reply: AtomicBool::new(false),
            matching,
            failures: AtomicUsize::new(0),
            unreadable: AtomicBool::new(false),
        })
    }

    /// Lets `after` matching writes through, then fails `failures` writes.
    pub(super) fn fail(&self, after: usize, failures: usize, lost_reply: bool) {
        self.left.store(after, Ordering::SeqCst);
        self.lost_reply.store(lost_reply, Ordering::SeqCst);
        self.failures.store(failures, Ordering::SeqCst);
    }

    /// Sets whether reads of matching objects fail.
    pub(super) fn set_unreadable(&self, unreadable: bool) {
        self.unreadable.store(unreadable, Ordering::SeqCst);
    }

    fn fails_now(&self, location: &Path) -> bool {
        if !location.as_ref().contains(self.matching) || self.failures.load(Ordering::SeqCst) == 0 {
            return false;
        }
        if self.left.load(Ordering::SeqCst) > 0 {
            self.left.fetch_sub(1, Ordering::SeqCst);
            return false;
        }
        self.failures.fetch_sub(1, Ordering::SeqCst);
        true
    }
}

impl std::fmt::Display for Failing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Failing")
    }
}

#[async_trait]
impl ObjectStore for Failing {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        let fails = self.fails_now(location);
        if fails && !self.lost_reply.load(Ordering::SeqCst) {
            return Err(object_store::Error::Generic { store: "Failing", source: "refused".into() });
        }
        let result = self.inner.put_opts(location, payload, options).await;
        if fails {
            return Err(object_store::Error::Generic { store: "Failing", source: "the reply was lost".into() });
        }
        result
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> StoreResult<GetResult> {
        if self.unreadable.load(Ordering::SeqCst) && location.as_ref().contains(self.matching) {
            return Err(object_store::Error::Generic { store: "Failing", source: "timed out".into() });
        }
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, StoreResult<Path>>) -> BoxStream<'static, StoreResult<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
