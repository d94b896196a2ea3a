//! Everything that must not stop the stream.

use super::*;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Mutex;

#[test]
fn what_is_no_regular_file() {
    let mut rig = Rig::with(tail_settings(), &["*.log"], |folder| {
        append(&folder.join("good.log"), lines("good", 0..3));
        fs::create_dir(folder.join("folder.log")).expect("a folder");
        std::os::unix::fs::symlink(folder.join("b.log"), folder.join("a.log")).expect("a link");
        std::os::unix::fs::symlink(folder.join("a.log"), folder.join("b.log")).expect("a link");
        std::os::unix::fs::symlink(folder.join("nowhere"), folder.join("dangling.log")).expect("a link");
        let made = std::process::Command::new("mkfifo").arg(folder.join("pipe.log")).status().expect("mkfifo");
        assert!(made.success());
    });
    rig.poll();
    rig.poll_after(10);
    assert_eq!(rig.text(1), lines("good", 0..3));
    let warnings = rig.tailer.warnings().join("\n");
    for name in ["folder.log: not a regular file", "a.log: cannot be examined", "b.log", "pipe.log: not a regular file"]
    {
        assert!(warnings.contains(name), "{name}: {warnings}");
    }
    // Problems with some files do not keep others from ending.
    rig.remove("good.log");
    rig.poll();
    assert_eq!(rig.poll_after(2), ["ended 1"]);
}

#[test]
fn files_that_are_no_logs_are_told_and_not_opened() {
    let zip = b"PK\x03\x04\x14\0\0\0";
    let mut rig = Rig::with(tail_settings(), &[""], |folder| {
        append(&folder.join("good.log"), lines("good", 0..3));
        append(&folder.join("a.zip"), zip);
        append(&folder.join("twice.gz"), gzip(gzip("{}\n")));
    });
    let told = |name: &str, what: &str, rig: &Rig| {
        let message = format!("{}: cannot be read: it is {what}", rig.path(name).display());
        assert!(rig.tailer.warnings().contains(&message), "{message}: {:?}", rig.tailer.warnings());
        assert!(rig.tailer.foreign().any(|foreign| foreign == message));
    };
    for _ in 0..3 {
        rig.poll();
        assert_eq!((rig.text(1), rig.text.len()), (&*lines("good", 0..3), 1));
        told("a.zip", "a zip archive: unpack it", &rig);
        told("twice.gz", "compressed twice: decompress it once", &rig);
    }
    // It does not keep a missing file from ending, and is over when the file is gone or replaced.
    rig.remove("good.log");
    rig.remove("twice.gz");
    rig.remove("a.zip");
    rig.append("a.zip", lines("new", 0..3));
    rig.poll();
    assert_eq!(rig.text(2), lines("new", 0..3));
    rig.poll_after(3);
    assert_eq!((rig.ended.contains(&1), rig.tailer.foreign().count()), (true, 0));
    assert_eq!(rig.tailer.warnings(), [""; 0]);
}

#[test]
fn folders_in_a_loop() {
    let mut rig = Rig::with(tail_settings(), &["**/*.log"], |folder| {
        append(&folder.join("good.log"), lines("good", 0..3));
        fs::create_dir(folder.join("x")).expect("a folder");
        std::os::unix::fs::symlink(folder, folder.join("x/loop")).expect("a link");
    });
    assert_eq!(rig.poll(), ["found 1 good.log 0"]);
}

#[test]
fn fault_26_holes_and_lines_without_end() {
    const HOLE: u64 = 300_000_000;
    let mut rig = Rig::new();
    rig.append("sparse", "{}\n");
    fs::OpenOptions::new().write(true).open(rig.path("sparse")).expect("a file").set_len(HOLE).expect("a hole");
    rig.poll();
    rig.poll();
    assert_eq!(rig.text(1), "{}\n");
    let position = rig.tailer.inputs[&InputId(1)].text.position;
    assert_eq!(position, 3, "a restart finds the line's beginning");
    rig.append("sparse", "\n{}\n");
    rig.poll();
    assert_eq!((rig.text(1), rig.nul_bytes[&1]), ("{}\n\n{}\n", HOLE - 3));
    assert_eq!(rig.tailer.inputs[&InputId(1)].text.position, HOLE + 4);
    let facts = rig.tailer.facts(InputId(1), HOLE + 4, None).expect("facts");
    assert_eq!(facts.fingerprint.tail_len, 1024);
    rig.restart(|folder| append(&folder.join("sparse"), "{}\n"));
    rig.poll();
    assert_eq!(rig.text(1), "{}\n");
}

#[test]
fn an_overlong_line_is_one_malformed_line() {
    let mut rig = Rig::new();
    let long = "x".repeat(10_000);
    rig.append("a", format!("{long}\n"));
    rig.look();
    let ReadOutcome::Block(block) = rig.tailer.read(InputId(1), 0).expect("an input") else { panic!("a block") };
    assert_eq!((block.from, block.to, block.text.len(), block.overlong), (0, 10_001, 2048, true));
    let key = adtally_model::IdentityKey::new([0; 16]);
    let decoder = crate::Decoder::new(DecodeSettings::default(), key).expect("a decoder");
    let batch = decoder.decode(block);
    assert_eq!((batch.lines(), batch.rejected.len(), batch.to), (1, 1, 10_001));
}

/// A file system in which the files listed here cannot be opened or read.
#[derive(Clone, Default)]
struct Failing(Arc<Mutex<HashSet<String>>>);

impl Failing {
    fn check(&self, path: &Path) -> io::Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let names = self.0.lock().expect("names");
        if names.contains("no handles") {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        if names.contains(&name) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "permission denied"));
        }
        Ok(())
    }
}

impl FileSystem for Failing {
    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        self.check(folder)?;
        LocalFiles.list(folder)
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        LocalFiles.stat(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn TailFile>> {
        self.check(path)?;
        Ok(Box::new(FailingFile(LocalFiles.open(path)?, path.to_owned(), self.clone())))
    }
}

struct FailingFile(Box<dyn TailFile>, PathBuf, Failing);

impl TailFile for FailingFile {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.2.check(&self.1)?;
        self.0.read_at(offset, buffer)
    }

    fn stat(&self) -> io::Result<FileStat> {
        self.0.stat()
    }
}

#[test]
fn unreadable_for_a_while() {
    let failing = Failing::default();
    let set =
        |names: &[&str]| *failing.0.lock().expect("names") = names.iter().map(|name| (*name).to_owned()).collect();
    let mut rig = Rig::new();
    rig.tailer =
        Tailer::new(Box::new(failing.clone()), tail_settings(), &rig.patterns, Vec::new(), 1).expect("a tailer");
    rig.append("a", lines("a", 0..10));
    rig.append("b", lines("b", 0..10));
    set(&["a"]);
    assert_eq!(rig.poll(), ["found 1 b 0"]);
    assert!(rig.tailer.warnings()[0].ends_with("a: cannot be read: permission denied"));
    set(&["b"]);
    rig.append("b", lines("b", 10..20));
    assert_eq!(rig.poll(), ["found 2 a 0"]);
    assert!(matches!(rig.tailer.read(InputId(1), 0), Ok(ReadOutcome::Unreadable(error)) if error.is_retryable()));
    assert!(rig.tailer.warnings()[0].ends_with("b: cannot be read: permission denied"));
    set(&[]);
    assert_eq!(rig.poll(), [""; 0]);
    assert_eq!((rig.text(1), rig.text(2)), (&*lines("b", 0..20), &*lines("a", 0..10)));
    assert_eq!(rig.tailer.warnings(), [""; 0]);
    // A folder that cannot be listed has not lost its files.
    let folder = rig.folder.path().file_name().expect("a name").to_string_lossy().into_owned();
    set(&[&folder]);
    assert_eq!(rig.poll_after(1000), [""; 0]);
    assert_eq!(rig.tailer.warnings().len(), 1);
    set(&[]);
    rig.append("a", lines("a", 10..11));
    assert_eq!(rig.poll(), [""; 0]);
    assert_eq!(rig.text(2), lines("a", 0..11));
    assert_eq!(rig.tailer.warnings(), [""; 0]);
}

#[test]
fn unreadable_at_the_start() {
    let failing = Failing::default();
    let set =
        |names: &[&str]| *failing.0.lock().expect("names") = names.iter().map(|name| (*name).to_owned()).collect();
    let mut rig = Rig::new();
    rig.append("a", lines("a", 0..100));
    rig.append("b", lines("b", 0..100));
    rig.look();
    rig.read_once(InputId(1));
    let rows = rig.rows();
    for names in [["a", "b"], ["no handles", ""]] {
        let tailer =
            Tailer::new(Box::new(failing.clone()), tail_settings(), &rig.patterns, rows.clone(), 1).expect("a tailer");
        rig.tailer = tailer;
        set(&names);
        for _ in 0..3 {
            assert_eq!(rig.poll_after(100), [""; 0], "it is unreadable, not gone");
        }
        assert!(rig.tailer.is_listed(InputId(1)));
        set(&[]);
        assert_eq!(rig.look(), ["continued 1", "continued 2"]);
    }
    rig.read_all();
    assert_eq!((rig.text(1), rig.text(2)), (&*lines("a", 0..100), &*lines("b", 0..100)));
    // A warning about a file is over when the file is gone.
    rig.append("c", "{}\n");
    set(&["c"]);
    rig.look();
    assert_eq!(rig.tailer.warnings().len(), 1);
    rig.remove("c");
    rig.look();
    assert_eq!(rig.tailer.warnings(), [""; 0]);
}

/// A path that could not be examined is reported with its start time; a bounded run reads it as soon as it is readable.
#[test]
fn what_could_not_be_opened_at_the_first_look_is_not_forgotten() {
    let failing = Failing::default();
    let set =
        |names: &[&str]| *failing.0.lock().expect("names") = names.iter().map(|name| (*name).to_owned()).collect();
    let mut rig = Rig::new();
    rig.append("a", lines("a", 0..10));
    rig.append("b", lines("b", 0..10));
    rig.append("d", lines("d", 0..10));
    rig.look();
    rig.read_once(InputId(3));
    let known: Vec<Arc<InputRow>> = rig.rows().into_iter().filter(|row| row.id == InputId(3)).collect();
    let settings = TailSettings { bounded: true, ..tail_settings() };
    rig.tailer = Tailer::new(Box::new(failing.clone()), settings, &rig.patterns, known, 4).expect("a tailer");
    (rig.text, rig.positions) = (BTreeMap::new(), BTreeMap::from([(3, lines("d", 0..10).len() as u64)]));
    set(&["a", "d"]);
    assert_eq!(rig.poll_after(1), ["found 4 b 0"]);
    assert_eq!(rig.poll_after(10), ["ended 4"]);
    let unopened: Vec<Unopened> = rig.tailer.unopened().cloned().collect();
    assert_eq!(unopened.len(), 2, "{unopened:?}");
    assert_eq!((unopened[0].since_ms, unopened[0].is_lasting), (SECOND, true), "{unopened:?}");
    assert!(unopened[0].reason.ends_with("a: cannot be read: permission denied"), "{unopened:?}");
    assert_eq!(rig.tailer.unreachable(), [InputId(3)], "it was read before and is not gone");
    set(&[]);
    rig.append("c", lines("c", 0..10));
    assert_eq!(rig.poll_after(10), ["found 5 a 0", "continued 3"], "c was not there at the first look");
    assert_eq!((rig.tailer.unopened().count(), rig.tailer.unreachable().len()), (0, 0));
    assert_eq!((rig.text(4), rig.text(5), rig.text(3)), (&*lines("b", 0..10), &*lines("a", 0..10), ""));
}

/// A bounded run does not take a file that was renamed before it could be opened: this must be reported.
#[test]
fn what_was_renamed_before_it_could_be_opened_stays_unopened() {
    let failing = Failing::default();
    let settings = TailSettings { bounded: true, ..tail_settings() };
    let mut rig = Rig::with(settings.clone(), &[""], |folder| append(&folder.join("a"), lines("a", 0..10)));
    rig.poll();
    rig.poll();
    let known = rig.rows();
    rig.append("a", lines("a", 10..20));
    failing.0.lock().expect("names").insert("a".into());
    rig.tailer = Tailer::new(Box::new(failing.clone()), settings, &rig.patterns, known, 2).expect("a tailer");
    rig.poll_after(1);
    rig.rename("a", "a.1");
    failing.0.lock().expect("names").clear();
    rig.poll_after(1);
    rig.poll_after(1);
    let unopened: Vec<Unopened> = rig.tailer.unopened().cloned().collect();
    assert!(unopened.len() == 1 && unopened[0].is_lasting, "{unopened:?}");
}

#[test]
fn files_beyond_the_bound_are_named_as_unread() {
    let settings = TailSettings { files_max: 2, bounded: true, ..tail_settings() };
    let mut rig = Rig::with(settings, &[""], |folder| {
        ["a", "b", "c"].into_iter().for_each(|name| append(&folder.join(name), lines(name, 0..3)));
    });
    assert_eq!(rig.poll().len(), 2);
    let unopened: Vec<Unopened> = rig.tailer.unopened().cloned().collect();
    assert!(unopened[0].is_lasting && unopened[0].reason.starts_with("more than 2 files"), "{unopened:?}");
}

#[test]
fn when_a_file_was_last_written_is_known() {
    let mut rig = Rig::with(tail_settings(), &[""], |folder| {
        append(&folder.join("a"), lines("a", 0..3));
        let written = std::time::UNIX_EPOCH + std::time::Duration::from_millis(1_700_000_000_123);
        let file = fs::File::options().append(true).open(folder.join("a")).expect("a file");
        file.set_modified(written).expect("a time");
    });
    rig.poll();
    assert_eq!(rig.tailer.modified_ms(InputId(1)), Some(1_700_000_000_123));
}

#[test]
fn may_move_between_threads() {
    fn is_send<T: Send>() {}
    fn is_shared<T: Send + Sync>() {}
    is_send::<Tailer>();
    is_send::<ReadOutcome>();
    is_shared::<crate::Decoder>();
}
