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

#[test]
fn what_could_not_be_synced_is_not_seen_before_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let store = DurableLocal::open(folder.path(), true).unwrap();
    let (path, beside) = (Path::from("a/b/record"), Path::from("c/other"));
    block_on(async {
        store.put(&Path::from("a/b/first"), "0".into()).await.unwrap();
        store.put(&beside, "2".into()).await.unwrap();
        *store.disk.failing.lock() = Some(store.root().join("a/b"));
        assert!(store.put_opts(&path, "1".into(), PutMode::Create.into()).await.is_err());
        // The record exists, but a reader must not take it for committed.
        assert!(store.root().join("a/b/record").exists());
        for _ in 0..2 {
            assert!(store.get(&path).await.is_err());
            assert!(store.head(&path).await.is_err());
            assert!(store.get_range(&path, 0..1).await.is_err());
            assert!(store.list(Some(&Path::from("a"))).try_collect::<Vec<_>>().await.is_err());
            assert!(store.list_with_delimiter(Some(&Path::from("a/b"))).await.is_err());
            let again = store.put_opts(&path, "1".into(), PutMode::Create.into()).await;
            assert!(!matches!(again, Err(StoreError::AlreadyExists { .. })), "{again:?}");
        }
        assert_eq!(store.get(&beside).await.unwrap().bytes().await.unwrap(), "2");
        assert_eq!(store.list(Some(&Path::from("c"))).count().await, 1);
        *store.disk.failing.lock() = None;
        assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "1");
        assert!(store.disk.is_settled());
    });
}

#[test]
fn an_existing_folder_is_opened_without_a_trace() {
    let folder = tempfile::tempdir().unwrap();
    let absent = folder.path().join("absent");
    assert!(DurableLocal::open_existing(&absent, true).is_err());
    assert!(!absent.exists());
    block_on(DurableLocal::open(&absent.join("and/deep"), true).unwrap().put(&Path::from("x"), "1".into())).unwrap();
    let store = DurableLocal::open_existing(&absent, true).unwrap();
    assert_eq!(names(&store), ["and/deep/x"]);
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

/// The local disk, with a log of links, syncs and files that leave the cache; links can be made and then fail.
#[derive(Debug, Default)]
struct Watched {
    asked: Arc<Mutex<Vec<String>>>,
    links_fail: bool,
}

#[derive(Debug)]
struct WatchedFile(Box<dyn DiskFile>, Arc<Mutex<Vec<String>>>);

impl DiskFile for WatchedFile {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync_all(&mut self) -> io::Result<()> {
        self.1.lock().push("sync the content".into());
        self.0.sync_all()
    }

    fn leave_cache(&mut self) {
        self.1.lock().push("leave the cache".into());
        self.0.leave_cache();
    }
}

impl Watched {
    fn note(&self, what: &str, path: &FilePath) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.asked.lock().push(format!("{what} {name}"));
    }
}

impl DiskIo for Watched {
    fn is_folder(&self, path: &FilePath) -> bool {
        LocalDisk.is_folder(path)
    }

    fn create_folders(&self, path: &FilePath) -> io::Result<()> {
        LocalDisk.create_folders(path)
    }

    fn create_new(&self, path: &FilePath) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(WatchedFile(LocalDisk.create_new(path)?, Arc::clone(&self.asked))))
    }

    fn hard_link(&self, from: &FilePath, to: &FilePath) -> io::Result<()> {
        self.note("link", to);
        LocalDisk.hard_link(from, to)?;
        if self.links_fail { Err(io::Error::other("the reply is lost")) } else { Ok(()) }
    }

    fn rename(&self, from: &FilePath, to: &FilePath) -> io::Result<()> {
        LocalDisk.rename(from, to)
    }

    fn remove(&self, path: &FilePath) -> io::Result<()> {
        LocalDisk.remove(path)
    }

    fn sync(&self, path: &FilePath) -> io::Result<()> {
        self.note("sync", path);
        LocalDisk.sync(path)
    }
}

#[test]
fn a_folder_is_synced_before_and_after_something_is_put_into_it() {
    for links_fail in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir_all(root.join("a")).unwrap();
        let watched = Arc::new(Watched { links_fail, ..Watched::default() });
        let disk = Disk::new(Arc::clone(&watched) as Arc<dyn DiskIo>, root.clone(), true);
        assert_eq!(
            disk.put(&root.join("a/1"), &"x".into(), Placing { create: true, ..Placing::default() }).is_err(),
            links_fail
        );
        // Files of a dead process are synced first; then files that may exist despite an error.
        assert_eq!(*watched.asked.lock(), ["sync a", "sync root", "sync the content", "link 1", "sync a"]);
    }
}

#[test]
fn what_is_large_and_not_read_soon_leaves_the_cache_once_it_is_durable_and_nothing_else_does() {
    let large = 4 << 20;
    for (bytes, not_read_soon, fsync) in
        [(large, true, true), (large - 1, true, true), (large, false, true), (large, true, false)]
    {
        let folder = tempfile::tempdir().unwrap();
        let watched = Arc::new(Watched::default());
        let disk = Disk::new(Arc::clone(&watched) as Arc<dyn DiskIo>, folder.path().to_path_buf(), fsync);
        let content: Vec<u8> = (0..bytes).map(|at| at as u8).collect();
        let how = Placing { not_read_soon, ..Placing::default() };
        disk.put(&folder.path().join("file"), &content.clone().into(), how).unwrap();
        assert!(fs::read(folder.path().join("file")).unwrap() == content, "{bytes}");
        let leaves = (bytes, not_read_soon, fsync) == (large, true, true);
        let asked = watched.asked.lock();
        assert_eq!(asked.iter().any(|what| what == "leave the cache"), leaves, "{bytes} {not_read_soon} {fsync}");
        assert!(!leaves || asked.last().is_some_and(|last| last == "leave the cache"), "{asked:?}");
    }
}

#[test]
fn a_put_says_by_its_extensions_that_it_is_not_read_soon() {
    let folder = tempfile::tempdir().unwrap();
    let watched = Arc::new(Watched::default());
    let disk = Disk::new(Arc::clone(&watched) as Arc<dyn DiskIo>, folder.path().canonicalize().unwrap(), true);
    let store = DurableLocal { disk, ..DurableLocal::open(folder.path(), true).unwrap() };
    let mut options = PutOptions::default();
    options.extensions.insert(NotReadSoon);
    block_on(store.put_opts(&Path::from("file"), vec![1; 4 << 20].into(), options)).unwrap();
    assert!(watched.asked.lock().iter().any(|what| what == "leave the cache"));
}
