//! Tests of the durable local store.

use super::*;
use futures::executor::block_on;
use object_store::ObjectStoreExt;
use std::time::Duration;

fn names(store: &DurableLocal) -> Vec<String> {
    block_on(store.list(None).map_ok(|object| object.location.to_string()).try_collect()).unwrap()
}

#[test]
fn create_refuses_what_exists_and_overwrite_replaces_it() {
    let folder = tempfile::tempdir().unwrap();
    for fsync in [true, false] {
        let store = DurableLocal::open(&folder.path().join(format!("{fsync}/deep")), fsync).unwrap();
        let path = Path::from("a/b/object");
        let create = || PutOptions::from(PutMode::Create);
        block_on(store.put_opts(&path, "one".into(), create())).unwrap();
        let again = block_on(store.put_opts(&path, "two".into(), create()));
        assert!(matches!(again, Err(StoreError::AlreadyExists { .. })), "{again:?}");
        let read = || block_on(async { store.get(&path).await?.bytes().await }).unwrap();
        assert_eq!(read(), "one");
        block_on(store.put(&path, "three".into())).unwrap();
        assert_eq!(read(), "three");
        block_on(store.rename(&path, &Path::from("c/moved"))).unwrap();
        block_on(store.copy(&Path::from("c/moved"), &Path::from("a/copy"))).unwrap();
        assert_eq!(names(&store), ["a/copy", "c/moved"]);
        let update = PutMode::Update(object_store::UpdateVersion { e_tag: None, version: None });
        assert!(block_on(store.put_opts(&path, "x".into(), update.into())).is_err());
        block_on(store.delete(&Path::from("c/moved"))).unwrap();
        let left: Vec<_> = fs::read_dir(store.root().join("c")).unwrap().collect();
        assert!(left.is_empty(), "no temporary file is left: {left:?}");
    }
}

#[test]
fn an_upload_appears_whole_or_not_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let store = DurableLocal::open(folder.path(), true).unwrap();
    block_on(async {
        let mut upload = store.put_multipart(&Path::from("x/parts")).await.unwrap();
        let (first, second) = (upload.put_part("ab".into()), upload.put_part("cd".into()));
        second.await.unwrap();
        first.await.unwrap();
        assert_eq!(store.list(None).count().await, 0);
        upload.complete().await.unwrap();
        assert!(upload.complete().await.is_err());
        assert_eq!(store.get(&Path::from("x/parts")).await.unwrap().bytes().await.unwrap(), "abcd");
        let mut aborted = store.put_multipart(&Path::from("x/aborted")).await.unwrap();
        aborted.put_part("ab".into()).await.unwrap();
        aborted.abort().await.unwrap();
        drop(store.put_multipart(&Path::from("x/dropped")).await.unwrap());
    });
    assert_eq!(names(&store), ["x/parts"]);
    assert_eq!(fs::read_dir(folder.path().join("x")).unwrap().count(), 1);
}

#[test]
fn temporary_files_are_hidden_and_swept_by_age() {
    let folder = tempfile::tempdir().unwrap();
    let store = DurableLocal::open(folder.path(), true).unwrap();
    block_on(store.put(&Path::from("a/kept"), "x".into())).unwrap();
    fs::write(folder.path().join("a/kept#x1"), "x").unwrap();
    fs::write(folder.path().join("a/torn#12"), "half").unwrap();
    assert_eq!(names(&store), ["a/kept", "a/kept#x1"]);
    let written = fs::metadata(folder.path().join("a/torn#12")).unwrap().modified().unwrap();
    assert_eq!(store.sweep(written).unwrap(), 0, "as old as the limit is not older");
    assert_eq!(store.sweep(written + Duration::from_secs(1)).unwrap(), 1);
    assert_eq!(names(&store), ["a/kept", "a/kept#x1"]);
}

#[test]
fn a_full_or_missing_disk_is_an_error_that_names_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let store = DurableLocal::open(folder.path(), true).unwrap();
    block_on(store.put(&Path::from("file"), "x".into())).unwrap();
    let below_a_file = block_on(store.put(&Path::from("file/below"), "x".into())).unwrap_err();
    assert!(below_a_file.to_string().contains("file/below"), "{below_a_file}");
    assert!(DurableLocal::open(&folder.path().join("file"), true).is_err());
    assert!(matches!(block_on(store.get(&Path::from("absent"))), Err(StoreError::NotFound { .. })));
}

#[tokio::test]
async fn concurrent_creations_have_one_winner() {
    let folder = tempfile::tempdir().unwrap();
    let store = DurableLocal::open(folder.path(), true).unwrap();
    let attempts = (0..16).map(|writer| {
        let store = store.clone();
        async move {
            store.put_opts(&Path::from("a/b/c/race"), format!("{writer}").into(), PutMode::Create.into()).await.is_ok()
        }
    });
    let won = futures::future::join_all(attempts).await;
    assert_eq!(won.iter().filter(|&&won| won).count(), 1);
}
