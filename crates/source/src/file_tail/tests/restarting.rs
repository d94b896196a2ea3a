//! Files that were read before are recognized, whatever happened meanwhile.

use super::*;

#[test]
fn goes_on_where_it_was() {
    let mut rig = Rig::new();
    rig.append("a", lines("a", 0..100) + "{\"ha");
    rig.append("b", lines("b", 0..1));
    rig.poll();
    rig.restart(|folder| append(&folder.join("a"), "lf\":1}\n"));
    assert_eq!(rig.poll(), ["continued 1", "continued 2"]);
    assert_eq!((rig.text(1), rig.text(2)), ("{\"half\":1}\n", ""));
    rig.append("b", lines("b", 1..2));
    rig.poll();
    assert_eq!(rig.text(2), lines("b", 1..2));
}

#[test]
fn fault_61_a_log_that_is_named_alone_is_searched_for_after_it_was_rotated() {
    type Rotate = fn(&Path);
    let renamed: Rotate = |folder| fs::rename(folder.join("a.log"), folder.join("a.log.1")).expect("renamed");
    let compressed: Rotate = |folder| {
        append(&folder.join("old.gz"), gzip(fs::read(folder.join("a.log")).expect("read")));
        fs::remove_file(folder.join("a.log")).expect("removed");
    };
    for (rotate, successor) in [(renamed, true), (renamed, false), (compressed, true)] {
        let mut rig =
            Rig::with(tail_settings(), &["a.log"], |folder| append(&folder.join("a.log"), lines("a", 0..100)));
        rig.poll();
        rig.restart(|folder| {
            append(&folder.join("a.log"), lines("a", 100..150));
            rotate(folder);
            append(&folder.join("b.log"), lines("b", 0..100));
            if successor {
                append(&folder.join("a.log"), lines("c", 0..100));
            }
        });
        rig.poll();
        rig.poll_after(3);
        assert_eq!(rig.text(1), lines("a", 100..150));
        assert_eq!(rig.text(2), if successor { lines("c", 0..100) } else { String::new() });
        let events: Vec<String> = (0..4).flat_map(|_| rig.poll_after(3)).collect();
        assert!(rig.ended.contains(&1), "{events:?}");
        assert_eq!(rig.tailer.warnings(), [""; 0]);
    }
}

#[test]
fn fault_61_a_log_that_is_not_found_any_more_is_told() {
    let mut rig = Rig::with(tail_settings(), &["a.log"], |folder| append(&folder.join("a.log"), lines("a", 0..100)));
    rig.poll();
    rig.restart(|folder| fs::write(folder.join("a.log"), lines("c", 0..100)).expect("written"));
    rig.poll();
    assert_eq!(rig.text(2), lines("c", 0..100));
    let warnings = rig.tailer.new_warnings();
    assert!(warnings.len() == 1 && warnings[0].contains("a.log: it was read up to byte"), "{warnings:?}");
}

#[test]
fn a_csv_header_is_kept_across_restarts_where_the_columns_agree() {
    let header = "click_timestamp,ad_id,user_id,ip\n";
    let row = |number: u32| format!("{},7,u,::1\n", 1_767_225_600_000_u64 + u64::from(number));
    let mut rig = Rig::new();
    rig.append("a.csv", format!("{header}{}", row(1)));
    rig.poll();
    rig.restart(|folder| fs::write(folder.join("a.csv"), row(2)).expect("written"));
    rig.poll();
    let format = |rig: &Rig, id| match &rig.tailer.inputs[&InputId(id)].layout.format {
        Some(crate::block::Format::Csv(header)) => (header.end, header.columns, header.broken.is_some()),
        other => panic!("{other:?}"),
    };
    assert_eq!((rig.text(2), format(&rig, 2)), (&*row(2), (0, 4, false)));
    // An inherited header is passed on, also after the rest of a cut line.
    rig.restart(|folder| fs::write(folder.join("a.csv"), format!(":1\n{}", row(3))).expect("written"));
    rig.poll();
    assert_eq!(format(&rig, 3), (0, 4, false));
}

#[test]
fn positions_that_lag_behind() {
    // Uncommitted text is read again, and the tail at each such position is known.
    let mut rig = Rig::new();
    rig.append("a", lines("a", 0..1000));
    rig.look();
    rig.read_once(InputId(1));
    let position = rig.text(1).len() as u64;
    rig.read_all();
    let facts = rig.tailer.facts(InputId(1), position, None).expect("facts");
    assert_eq!(facts.fingerprint.tail_len, 1024);
    let end = rig.tailer.facts(InputId(1), rig.text(1).len() as u64, None).expect("facts");
    assert_ne!(facts.fingerprint, end.fingerprint);
    assert_eq!(facts.fingerprint.head_hash, end.fingerprint.head_hash);
    assert_eq!((facts.size, end.size), (lines("a", 0..1000).len() as u64, lines("a", 0..1000).len() as u64));
}

#[test]
fn positions_within_a_block() {
    // An epoch may end within a block: the text before that position is still known.
    let mut rig = Rig::new();
    rig.append("a", lines("a", 0..1000));
    rig.look();
    rig.read_once(InputId(1));
    rig.read_once(InputId(1));
    let (line, whole) = (lines("a", 0..1).len() as u64, rig.positions[&1]);
    let within = whole - 3 * line;
    let facts = rig.tailer.facts(InputId(1), within, None).expect("facts");
    assert_eq!(facts.fingerprint.tail_len, 1024);
    let mut row = rig.row(InputId(1));
    let file = row.file_mut().expect("a file");
    (file.fingerprint, file.position, file.size) = (facts.fingerprint, Position::at(within), facts.size);
    // Truncated, then grown beyond that position with the same first bytes.
    let text = lines("a", 0..30) + &lines("b", 0..1000);
    fs::write(rig.path("a"), &text).expect("written");
    let tailer = Tailer::new(Box::new(LocalFiles), rig.settings.clone(), &rig.patterns, vec![row.into()], 1);
    rig.tailer = tailer.expect("a tailer");
    assert_eq!(rig.poll(), ["found 2 a 1"]);
    assert_eq!(rig.text(2), text);
}

#[test]
fn rotated_while_stopped() {
    let mut rig = Rig::new();
    rig.append("log", lines("one", 0..100));
    rig.poll();
    rig.restart(|folder| {
        append(&folder.join("log"), lines("one", 100..150));
        fs::rename(folder.join("log"), folder.join("log.1")).expect("renamed");
        append(&folder.join("log"), lines("two", 0..10));
    });
    assert_eq!(rig.poll(), ["renamed 1 log.1", "found 2 log 1", "continued 1"]);
    assert_eq!((rig.text(1), rig.text(2)), (&*lines("one", 100..150), &*lines("two", 0..10)));
    assert_eq!(rig.poll_after(2), ["ended 1"]);
    // An ended input whose file still exists stays ended.
    rig.restart(|folder| append(&folder.join("log"), lines("two", 10..20)));
    assert_eq!(rig.poll(), ["continued 2"]);
    assert_eq!((rig.text(1), rig.text(2)), ("", &*lines("two", 10..20)));
    rig.append("log.1", lines("one", 150..151));
    assert_eq!(rig.poll(), ["resumed 1"]);
    assert_eq!(rig.text(1), lines("one", 150..151));
}

#[test]
fn files_with_the_same_header() {
    let header = "click_timestamp,ad_id,user_id,ip\n";
    let mut rig = Rig::new();
    rig.append("a.csv", header);
    rig.append("b.csv", format!("{header}1,1,b,::1\n"));
    rig.poll();
    rig.restart(|folder| {
        fs::rename(folder.join("a.csv"), folder.join("z.csv")).expect("renamed");
        append(&folder.join("z.csv"), "2,2,a,::1\n");
        append(&folder.join("b.csv"), "3,3,b,::1\n");
    });
    rig.poll();
    assert_eq!((rig.text(1), rig.text(2)), ("2,2,a,::1\n", "3,3,b,::1\n"));
    rig.append("b.csv", "4,4,b,::1\n");
    rig.look();
    // After a restart within the file, the header is still known.
    match rig.tailer.read(InputId(2), 0).expect("an input") {
        ReadOutcome::Block(block) => assert!(matches!(block.format, crate::Format::Csv(header) if header.columns == 4)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn fault_45_deleted_while_stopped() {
    let mut rig = Rig::new();
    rig.append("a", lines("a", 0..200));
    rig.append("b", lines("b", 0..10));
    rig.look();
    rig.read_once(InputId(1));
    while rig.read_once(InputId(2)) {}
    let unread = lines("a", 0..200).len() - rig.text(1).len();
    rig.restart(|folder| {
        fs::create_dir(folder.join("elsewhere")).expect("a folder");
        fs::rename(folder.join("a"), folder.join("elsewhere/a")).expect("moved away");
        fs::remove_file(folder.join("b")).expect("removed");
    });
    assert_eq!(rig.poll(), [""; 0]);
    assert_eq!(rig.poll_after(2), [format!("gap 1 {unread}"), "ended 1".into(), "ended 2".into()]);
    // A gap is reported once; if the file reappears nevertheless, reading continues.
    rig.restart(|_| {});
    assert_eq!(rig.poll_after(10), [""; 0]);
    let read = rig.started[&1] as usize;
    rig.rename("elsewhere/a", "a");
    assert_eq!(rig.poll(), ["resumed 1"]);
    assert_eq!(rig.text(1), &lines("a", 0..200)[read..]);
}

#[test]
fn cut_while_stopped() {
    let mut rig = Rig::new();
    rig.append("a", lines("a", 0..200));
    rig.append("b", lines("b", 0..200));
    rig.append("c", lines("c", 0..10));
    rig.poll();
    rig.restart(|folder| {
        fs::write(folder.join("a"), lines("a2", 0..5)).expect("cut");
        fs::write(folder.join("b"), lines("b2", 0..500)).expect("cut");
        fs::write(folder.join("c"), lines("c", 0..5)).expect("cut");
    });
    assert_eq!(rig.poll(), ["found 4 a 1", "found 5 b 1", "found 6 c 1"]);
    assert_eq!((rig.text(4), rig.text(5)), (&*lines("a2", 0..5), &*lines("b2", 0..500)));
    assert_eq!(rig.poll_after(2), ["ended 1", "ended 2", "ended 3"]);
    assert_eq!(rig.text(6), lines("c", 0..5));
}

#[test]
fn same_content_prefers_its_path() {
    let mut rig = Rig::new();
    for name in ["a", "b", "c"] {
        rig.append(name, lines("same", 0..100));
    }
    rig.poll();
    rig.restart(|folder| {
        for name in ["a", "b", "c"] {
            append(&folder.join(name), lines(name, 0..1));
        }
    });
    rig.poll();
    for (input, name) in [(1, "a"), (2, "b"), (3, "c")] {
        assert_eq!(rig.text(input), lines(name, 0..1));
    }
}
