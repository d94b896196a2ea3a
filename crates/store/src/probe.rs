//! The probe of a shared store: whether put-if-absent holds. Owners of a partition are fenced by nothing else.
//!
//! A store can fail only if requests meet: one with a defect let three creations at once succeed, and none of those that
//! came one after another. So several creations of one object are sent at once.

use adtally_model::{Error, Result};
use futures::future::join_all;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use std::sync::Arc;

/// Concurrent creations of one object.
const CREATIONS: u64 = 16;

/// Checks that of several concurrent creations of one object exactly one succeeds, and that its content remains. The
/// object has a random name, and is deleted.
///
/// # Errors
/// A user error when the store does not honour put-if-absent; external when it cannot be reached.
pub(crate) async fn put_if_absent(store: &Arc<dyn ObjectStore>, token: u128) -> Result<()> {
    let path = Path::from(format!("probe/{token:032x}"));
    let outcome = judge(store, &path).await;
    // A failure leaves an object of eight bytes behind, which nobody reads.
    let _ = store.delete(&path).await;
    outcome
}

async fn judge(store: &Arc<dyn ObjectStore>, path: &Path) -> Result<()> {
    let create = |number: u64| async move {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let content = PutPayload::from(number.to_le_bytes().to_vec());
        (number, store.put_opts(path, content, options).await)
    };
    let created = join_all((0..CREATIONS).map(create)).await;
    let winners: Vec<u64> = created.iter().filter(|(_, put)| put.is_ok()).map(|&(number, _)| number).collect();
    let failure = created.into_iter().find_map(|(_, put)| match put {
        Err(object_store::Error::NotImplemented { .. }) => None,
        other => other.err(),
    });
    let found = match store.get(path).await {
        Ok(found) => found.bytes().await,
        Err(error) => Err(error),
    };
    let unfit = |what: String| {
        Error::user(format!(
            "the store {store} does not honour put-if-absent: {what}. Two processes could own one partition and count clicks \
             twice, so it cannot be used"
        ))
    };
    let kept = match found {
        Ok(bytes) => <[u8; 8]>::try_from(bytes.as_ref()).ok().map(u64::from_le_bytes),
        Err(object_store::Error::NotFound { .. }) if !winners.is_empty() => None,
        Err(error) => {
            let what = format!("the store {store} cannot be used: check the address, the credentials and their rights");
            return Err(Error::transient(what).because(failure.unwrap_or(error)));
        }
    };
    match (&winners[..], kept) {
        // The reply to the one that succeeded was lost.
        ([], Some(_)) => Ok(()),
        (&[winner], Some(kept)) if winner == kept => Ok(()),
        (&[_], _) => Err(unfit("a later creation replaced the object".to_owned())),
        (winners, _) => Err(unfit(format!("{} of {CREATIONS} creations of one object succeeded", winners.len()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::durable::DurableLocal;
    use adtally_model::ErrorKind;
    use async_trait::async_trait;
    use futures::stream::BoxStream;
    use object_store::memory::InMemory;
    use object_store::{
        CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, PutMultipartOptions, PutResult,
        Result as StoreResult,
    };

    /// A store that ignores conditions, or answers as if it had done nothing.
    #[derive(Debug)]
    enum Defective {
        IgnoresConditions(InMemory),
        LosesReplies(InMemory),
        RefusesAll(InMemory),
    }

    impl Defective {
        fn inner(&self) -> &InMemory {
            match self {
                Defective::IgnoresConditions(inner) | Defective::LosesReplies(inner) | Defective::RefusesAll(inner) => {
                    inner
                }
            }
        }
    }

    impl std::fmt::Display for Defective {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "Defective")
        }
    }

    #[async_trait]
    impl ObjectStore for Defective {
        async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
            let failed = || object_store::Error::Generic { store: "Defective", source: "no reply".into() };
            match self {
                Defective::IgnoresConditions(inner) => inner.put(path, payload).await,
                Defective::LosesReplies(inner) => inner.put_opts(path, payload, options).await.and(Err(failed())),
                Defective::RefusesAll(_) => Err(failed()),
            }
        }

        async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> StoreResult<Box<dyn MultipartUpload>> {
            unreachable!("nothing is written in parts")
        }

        async fn get_opts(&self, path: &Path, options: GetOptions) -> StoreResult<GetResult> {
            self.inner().get_opts(path, options).await
        }

        fn delete_stream(&self, paths: BoxStream<'static, StoreResult<Path>>) -> BoxStream<'static, StoreResult<Path>> {
            self.inner().delete_stream(paths)
        }

        fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
            self.inner().list(prefix)
        }

        async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
            self.inner().list_with_delimiter(prefix).await
        }

        async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
            self.inner().copy_opts(from, to, options).await
        }
    }

    async fn check(store: Arc<dyn ObjectStore>, expected: Result<(), ErrorKind>) {
        let outcome = put_if_absent(&store, 7).await;
        assert_eq!(outcome.map_err(|error| error.kind()), expected, "{store}");
        use futures::StreamExt;
        assert_eq!(store.list(None).count().await, 0, "the probe is deleted");
    }

    #[tokio::test]
    async fn a_store_that_does_not_honour_put_if_absent_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        check(Arc::new(InMemory::new()), Ok(())).await;
        check(Arc::new(DurableLocal::open(folder.path(), false).unwrap()), Ok(())).await;
        check(Arc::new(Defective::LosesReplies(InMemory::new())), Ok(())).await;
        check(Arc::new(Defective::IgnoresConditions(InMemory::new())), Err(ErrorKind::User)).await;
        check(Arc::new(Defective::RefusesAll(InMemory::new())), Err(ErrorKind::External)).await;
    }
}
