//! Growth, new files, rotation by rename and by copy, truncation, deletion.

use super::*;

#[test]
fn growth_new_files_and_half_lines() {
    let mut rig = Rig::new();
    assert_eq!(rig.poll(), [""; 0]);
    rig.append("a", "{\"x\":1}\n{\"x\"");
    rig.append(".hidden", "{}\n");
    fs::create_dir(rig.path("below")).expect("a folder");
    rig.append("below/b", "{}\n");
    rig.append("empty", "");
    assert_eq!(rig.poll(), ["found 1 a 0"]);
    assert_eq!(rig.text(1), "{\"x\":1}\n");
    rig.append("a", ":2");
    assert_eq!(rig.poll_after(1000), [""; 0], "a live file does not end");
    assert_eq!(rig.text(1), "{\"x\":1}\n");
    rig.append("a", "}\n");
    rig.append("empty", lines("e", 0..500));
    assert_eq!(rig.poll(), ["found 2 empty 0"]);
    assert_eq!(rig.text(1), "{\"x\":1}\n{\"x\":2}\n");
    assert_eq!(rig.text(2), lines("e", 0..500));
    assert_eq!(rig.tailer.warnings(), [""; 0]);
}

#[test]
fn globs() {
    let check = |pattern: &str, expected: &[&str]| {
        let mut rig = Rig::with(tail_settings(), &[pattern], |folder| {
            for name in ["a.log", "b.txt", ".c.log", "x/d.log", "x/y/e.log", "x/.z/f.log"] {
                let path = folder.join(name);
                fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
                append(&path, lines(name, 0..3));
            }
        });
        let found: Vec<_> = rig.poll().iter().map(|event| event.split(' ').nth(2).unwrap_or("").to_owned()).collect();
        assert_eq!(found, expected, "{pattern}");
    };
    check("*.log", &["a.log"]);
    check("*", &["a.log", "b.txt"]);
    check("**/*.log", &["a.log", "x/d.log", "x/y/e.log"]);
    check("x/**", &["x/d.log", "x/y/e.log"]);
    check("*/*.log", &["x/d.log"]);
    check("{a,b}.*", &["a.log", "b.txt"]);
    check(".*.log", &[".c.log"]);
    check("x", &["x/d.log"]);
    check("./x//d.log", &["x/d.log"]);
    check("no*", &[]);
}

#[test]
fn patterns_that_make_no_sense() {
    let folder = tempfile::tempdir().expect("a folder");
    let check = |pattern: &str, bounded, expected: &str| {
        let pattern = if pattern.is_empty() { vec![] } else { vec![folder.path().join(pattern).display().to_string()] };
        let settings = TailSettings { bounded, ..tail_settings() };
        let error = Tailer::new(Box::new(LocalFiles), settings, &pattern, Vec::new(), 1).expect_err("an error");
        assert_eq!(error.kind(), adtally_model::ErrorKind::User);
        assert!(error.to_string().contains(expected), "{error}");
    };
    check("", false, "no input is given");
    check("missing", false, "there is no file or folder");
    check("a[", false, "is not valid");
    check("*.log", true, "no file matches");
    check(".", true, "no file matches");
}

#[test]
fn two_paths_are_two_inputs_and_two_names_are_one() {
    let mut rig = Rig::new();
    rig.append("a", lines("same", 0..100));
    rig.append("b", lines("same", 0..100));
    fs::hard_link(rig.path("a"), rig.path("c")).expect("a link");
    std::os::unix::fs::symlink(rig.path("b"), rig.path("d")).expect("a link");
    assert_eq!(rig.poll(), ["found 1 a 0", "found 2 b 0"]);
    assert_eq!((rig.text(1), rig.text(2)), (&*lines("same", 0..100), &*lines("same", 0..100)));
    rig.remove("a");
    assert_eq!(rig.poll(), ["renamed 1 c"]);
    rig.append("c", lines("same", 100..101));
    rig.poll();
    assert_eq!(rig.text(1), lines("same", 0..101));
}

#[test]
fn fault_28_rotation_by_rename() {
    let mut rig = Rig::new();
    rig.append("log", lines("one", 0..200));
    assert_eq!(rig.poll(), ["found 1 log 0"]);
    rig.append("log", lines("one", 200..300));
    rig.rename("log", "log.1");
    rig.append("log.1", lines("one", 300..310));
    rig.append("log", lines("two", 0..100));
    assert_eq!(rig.poll(), ["renamed 1 log.1", "found 2 log 1"]);
    assert_eq!(rig.text(1), lines("one", 0..310));
    rig.append("log.1", lines("one", 310..320));
    assert_eq!(rig.poll_after(1), [""; 0]);
    assert_eq!(rig.poll_after(1), [""; 0], "it grew a second ago");
    assert_eq!(rig.poll_after(1), ["ended 1"]);
    rig.append("log.1", lines("one", 320..330));
    assert_eq!(rig.poll_after(1), ["resumed 1"]);
    assert_eq!(rig.text(1), lines("one", 0..330));
    assert_eq!(rig.poll_after(2), ["ended 1"]);
    // The next rotation moves both.
    rig.rename("log.1", "log.2");
    rig.rename("log", "log.1");
    rig.append("log", lines("three", 0..10));
    assert_eq!(rig.poll(), ["renamed 1 log.2", "renamed 2 log.1", "found 3 log 2"]);
    assert_eq!(rig.poll_after(2), ["ended 2"]);
    assert_eq!((rig.text(1), rig.text(2)), (&*lines("one", 0..330), &*lines("two", 0..100)));
    assert_eq!(rig.poll_after(100), [""; 0]);
}

#[test]
fn rotation_out_of_sight() {
    let mut rig = Rig::with(tail_settings(), &["*.log"], |_| {});
    rig.append("a.log", lines("a", 0..10));
    rig.poll();
    rig.append("a.log", lines("a", 10..200));
    rig.rename("a.log", "a.old");
    rig.append("a.old", lines("a", 200..210));
    assert_eq!(rig.poll_after(1), [""; 0]);
    assert_eq!(rig.text(1), lines("a", 0..210));
    assert_eq!(rig.poll_after(2), ["ended 1"]);
    rig.append("a.old", lines("a", 210..220));
    assert_eq!(rig.poll_after(2), ["resumed 1"]);
    assert_eq!(rig.text(1), lines("a", 0..220));
}

#[test]
fn deleted_files_are_read_to_their_end() {
    let mut rig = Rig::new();
    rig.append("a", lines("a", 0..1000));
    rig.append("b", "{}\n{\"half\"");
    assert_eq!(rig.look(), ["found 1 a 0", "found 2 b 0"]);
    rig.remove("a");
    rig.remove("b");
    assert_eq!(rig.poll(), [""; 0]);
    assert_eq!(rig.poll_after(2), ["ended 1"]);
    assert_eq!(rig.poll(), ["gap 2 7", "ended 2"]);
    assert_eq!(rig.text(1), lines("a", 0..1000));
    assert_eq!(rig.text(2), "{}\n");
    assert!(rig.tailer.inputs[&InputId(1)].file.is_some());
    rig.poll_after(60);
    assert!(rig.tailer.inputs[&InputId(1)].file.is_none(), "its space is given back");
    assert!(!rig.tailer.is_listed(InputId(1)));
    rig.tailer.forget(InputId(1));
    assert!(rig.tailer.facts(InputId(1), 0, None).is_none());
    assert!(rig.tailer.read(InputId(1), 0).is_err());
}

#[test]
fn rotated_with_a_last_line_without_end() {
    let mut rig = Rig::new();
    rig.append("a", "{\"a\":1}\n{\"a\":2}");
    rig.append("b", "{\"b\":1}\n{\"b\":2");
    rig.poll();
    rig.rename("a", "a.1");
    rig.rename("b", "b.1");
    rig.poll();
    assert_eq!(rig.poll_after(2), [""; 0]);
    assert_eq!((rig.text(1), rig.text(2)), ("{\"a\":1}\n{\"a\":2}", "{\"b\":1}\n"));
    assert_eq!(rig.poll(), ["ended 1", "ended 2"]);
    assert!(rig.tailer.warnings()[0].ends_with("b.1: its last line has no newline, so 6 bytes are not read"));
    assert!(rig.tailer.is_listed(InputId(2)));
    // It is not a gap while the file exists.
    rig.restart(|_| {});
    assert!(rig.tailer.is_listed(InputId(2)), "not before the first look");
    assert_eq!(rig.poll(), [""; 0]);
    assert_eq!(rig.poll_after(10), [""; 0]);
    rig.rename("b.1", "b.0");
    assert_eq!(rig.poll(), ["renamed 2 b.0"]);
    assert!(rig.tailer.warnings()[0].ends_with("b.0: its last line has no newline, so 6 bytes are not read"));
    rig.rename("b.0", "b.1");
    rig.append("b.1", "}\n");
    assert_eq!(rig.poll(), ["renamed 2 b.1", "resumed 2"]);
    assert_eq!(rig.tailer.warnings(), [""; 0]);
    assert_eq!(rig.text(2), "{\"b\":2}\n");
    rig.rename("b.1", "b.2");
    rig.append("b.2", "{");
    rig.poll_after(1);
    rig.poll_after(2);
    assert_eq!(rig.poll_after(2), ["ended 2"]);
    rig.remove("b.2");
    assert_eq!(rig.poll(), [""; 0]);
    assert_eq!(rig.poll_after(2), ["gap 2 1"]);
    assert_eq!(rig.poll_after(2), [""; 0]);
    assert_eq!(rig.tailer.warnings(), [""; 0]);
}

#[test]
fn rewritten_to_the_same_length() {
    let mut rig = Rig::new();
    rig.append("log", lines("one", 0..100));
    rig.poll();
    rig.poll();
    fs::write(rig.path("log"), lines("two", 0..100)).expect("rewritten");
    // A read detects it before the next look.
    rig.read_all();
    assert_eq!(rig.poll(), ["found 2 log 1"]);
    assert_eq!(rig.text(2), lines("two", 0..100));
}

#[test]
fn fault_29_copytruncate_with_a_copy_in_sight() {
    // The copy is seen only after the truncation: the input continues there.
    let mut rig = Rig::new();
    rig.append("log", lines("one", 0..100));
    rig.poll();
    rig.append("log", lines("one", 100..200));
    fs::copy(rig.path("log"), rig.path("log.1")).expect("a copy");
    fs::write(rig.path("log"), lines("two", 0..10)).expect("cut");
    assert_eq!(rig.poll(), ["renamed 1 log.1", "found 2 log 1"]);
    assert_eq!((rig.text(1), rig.text(2)), (&*lines("one", 0..200), &*lines("two", 0..10)));
    assert_eq!(rig.poll_after(2), ["ended 1"]);
    // The copy is seen before the truncation: it is a separate input, and there is no gap.
    rig.append("log", lines("two", 10..200));
    fs::copy(rig.path("log"), rig.path("log.2")).expect("a copy");
    assert_eq!(rig.look(), ["found 3 log.2 0"]);
    fs::write(rig.path("log"), lines("three", 0..1)).expect("cut");
    assert_eq!(rig.poll(), ["found 4 log 2"]);
    assert_eq!(rig.poll_after(2), ["ended 2"]);
    assert_eq!(rig.text(3), lines("two", 0..200));
}

#[test]
fn fault_29_truncation_loses_what_was_not_read() {
    let mut rig = Rig::new();
    rig.append("log", lines("one", 0..100));
    rig.poll();
    fs::write(rig.path("log"), "").expect("cut");
    assert_eq!(rig.poll(), [""; 0]);
    assert_eq!(rig.poll_after(2), ["ended 1"]);
    rig.append("log", lines("two", 0..100));
    assert_eq!(rig.look(), ["found 2 log 1"]);
    rig.read_once(InputId(2));
    let read = rig.text(2).len();
    fs::write(rig.path("log"), lines("three", 0..3)).expect("cut");
    assert_eq!(rig.poll(), ["found 3 log 2"]);
    let lost = lines("two", 0..100).len() - read;
    assert_eq!(rig.poll_after(2), [format!("gap 2 {lost}"), "ended 2".into()]);
    assert_eq!(rig.text(3), lines("three", 0..3));
}

#[test]
fn fault_29_cut_and_regrown_beyond_the_old_position() {
    let mut rig = Rig::new();
    rig.append("log", lines("one", 0..100));
    rig.poll();
    fs::write(rig.path("log"), lines("two", 0..300)).expect("cut");
    assert_eq!(rig.poll(), [""; 0]);
    assert_eq!(rig.poll(), ["found 2 log 1"]);
    assert_eq!(rig.text(2), lines("two", 0..300));
    // With the same first bytes, and even with the same length.
    let text = lines("two", 0..200) + &lines("three", 0..200);
    fs::write(rig.path("log"), &text).expect("cut");
    rig.poll();
    assert_eq!(rig.poll_after(2), ["found 3 log 2", "ended 1"]);
    assert_eq!(rig.text(3), text);
    let text = lines("two", 0..200) + &lines("thrEE", 0..200);
    fs::write(rig.path("log"), &text).expect("cut");
    rig.poll_after(1);
    rig.poll_after(1);
    assert_eq!(rig.text(4), text);
    assert!(rig.poll_after(9).iter().all(|event| event.starts_with("ended")), "nothing known was lost");
}

#[test]
fn fault_30_inodes_are_used_again() {
    let mut rig = Rig::new();
    for round in 0..20_u64 {
        rig.append("log", lines(&format!("round-{round}"), 0..50));
        rig.poll_after(1);
        assert_eq!(rig.text(round + 1), lines(&format!("round-{round}"), 0..50));
        rig.remove("log");
        if round % 2 == 0 {
            rig.poll_after(100);
        }
    }
}

#[test]
fn moved_to_another_file_system() {
    let mut rig = Rig::new();
    rig.append("log", lines("one", 0..100));
    rig.poll();
    // Copy and unlink, like `mv` between file systems.
    rig.append("log", lines("one", 100..120));
    fs::copy(rig.path("log"), rig.path("moved")).expect("a copy");
    rig.remove("log");
    let events = rig.poll();
    assert_eq!(events, ["renamed 1 moved"]);
    assert_eq!(rig.text(1), lines("one", 0..120));
    assert_eq!(rig.poll_after(2), ["ended 1"]);
}

#[test]
fn more_files_than_may_be_open() {
    let settings = TailSettings { open_max: 3, ..tail_settings() };
    let mut rig = Rig::with(settings, &[""], |_| {});
    for round in 0..4 {
        for file in 0..12 {
            rig.append(&format!("f{file:02}"), lines(&format!("f{file}"), round * 100..round * 100 + 100));
        }
        rig.poll();
        let open = rig.tailer.inputs.values().filter(|input| input.file.is_some()).count();
        assert!(open <= 3, "{open}");
    }
    for file in 0..12 {
        assert_eq!(rig.text(file + 1), lines(&format!("f{file}"), 0..400));
    }
    rig.rename("f00", "g00");
    rig.append("f00", lines("new", 0..10));
    rig.append("g00", lines("f0", 400..410));
    let events = rig.poll();
    assert_eq!(events, ["renamed 1 g00", "found 13 f00 1"]);
    assert_eq!(rig.text(1), lines("f0", 0..410));
    assert_eq!(rig.text(13), lines("new", 0..10));
}

#[test]
fn progress_and_files_max() {
    let settings = TailSettings { files_max: 2, ..tail_settings() };
    let mut rig = Rig::with(settings, &[""], |_| {});
    for name in ["a", "b", "c"] {
        rig.append(name, lines(name, 0..200));
    }
    rig.look();
    let total_bytes = 2 * lines("a", 0..200).len() as u64;
    assert_eq!(rig.tailer.progress(), Progress { total_bytes, read_bytes: 0 });
    rig.read_all();
    assert_eq!(rig.tailer.progress(), Progress { total_bytes, read_bytes: total_bytes });
    assert_eq!(rig.tailer.warnings(), ["more than 2 files match: the others are not read"]);
    assert_eq!(rig.tailer.new_warnings().len(), 1);
    rig.look();
    assert_eq!(rig.tailer.new_warnings().len(), 0);
    rig.remove("c");
    rig.look();
    assert_eq!(rig.tailer.warnings(), [""; 0]);
}

/// A log at its end is not read again before something changes; its continuation in a copy is such a change.
#[test]
fn a_quiet_log_that_goes_on_in_a_copy_is_asked_again() {
    let mut rig = Rig::new();
    rig.append("log", lines("one", 0..100));
    rig.poll();
    rig.poll_after(20);
    rig.tailer.take_woken();
    rig.append("log.1", lines("one", 0..200));
    rig.remove("log");
    rig.poll();
    assert!(rig.tailer.take_woken().contains(&InputId(1)));
    assert_eq!(rig.text(1), lines("one", 0..200));
}
