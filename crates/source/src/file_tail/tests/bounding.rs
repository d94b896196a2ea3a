//! Bounded runs.

use super::*;

fn bounded() -> TailSettings {
    TailSettings { bounded: true, ..tail_settings() }
}

#[test]
fn reads_to_the_size_at_the_start() {
    let mut rig = Rig::with(bounded(), &[""], |folder| {
        append(&folder.join("a"), lines("a", 0..300));
        append(&folder.join("b.gz"), gzip(lines("b", 0..300)));
    });
    assert_eq!(rig.look(), ["found 1 a 0", "found 2 b.gz 0"]);
    rig.append("a", lines("a", 300..400));
    rig.append("c", lines("c", 0..300));
    rig.rename("a", "d");
    assert_eq!(rig.poll(), ["renamed 1 d"]);
    assert_eq!((rig.text(1), rig.text(2)), (&*lines("a", 0..300), &*lines("b", 0..300)));
    assert_eq!(rig.poll(), ["ended 1", "ended 2"]);
    assert_eq!(rig.poll(), [""; 0]);
    // The next run reads the text appended since.
    rig.restart(|_| {});
    assert_eq!(rig.poll(), ["resumed 1", "found 3 c 0"]);
    assert_eq!((rig.text(1), rig.text(2), rig.text(3)), (&*lines("a", 300..400), "", &*lines("c", 0..300)));
    rig.poll();
    rig.restart(|_| {});
    assert_eq!(rig.poll(), [""; 0]);
}

#[test]
fn last_lines_without_end() {
    let header = "click_timestamp,ad_id,user_id,ip\n";
    let mut rig = Rig::with(bounded(), &[""], |folder| {
        append(&folder.join("a"), "{\"a\":1}\n{\"a\":2}");
        append(&folder.join("b"), "{\"b\":1}\n{\"b\":2");
        append(&folder.join("c.csv"), format!("{header}1,1,u,::1\n1,1,u,::1"));
        append(&folder.join("d.gz"), gzip("{\"d\":1}\n{\"d\""));
        append(&folder.join("e"), "\u{feff}{\"e\":1}");
        append(&folder.join("f"), "{\"long\":1".repeat(1000));
        append(&folder.join("g.gz"), gzip("{\"g\":1}\n{\"g\":2}"));
        append(&folder.join("h.csv.gz"), gzip(format!("{header}2,1,u,::1\n2,1,u,::1")));
    });
    rig.poll();
    assert_eq!(rig.text(1), "{\"a\":1}\n{\"a\":2}");
    assert_eq!(rig.text(2), "{\"b\":1}\n");
    assert_eq!(rig.text(3), format!("{header}1,1,u,::1\n"));
    assert_eq!(rig.text(4), "\u{feff}{\"e\":1}");
    assert_eq!(rig.text(5), "");
    assert_eq!(rig.text(6), "{\"d\":1}\n", "plain files come first");
    assert_eq!(rig.text(7), "{\"g\":1}\n{\"g\":2}");
    assert_eq!(rig.text(8), format!("{header}2,1,u,::1\n"));
    let warnings = rig.tailer.warnings();
    assert_eq!(warnings.len(), 5, "{warnings:?}");
    assert!(warnings[0].ends_with("b: its last line has no newline, so 6 bytes are not read"), "{warnings:?}");
    assert!(warnings[2].ends_with("d.gz: its last line has no newline, so 4 bytes are not read"), "{warnings:?}");
    assert_eq!(rig.poll().len(), 8);
    rig.restart(|folder| {
        append(&folder.join("d.gz"), gzip(":2}\n"));
        append(&folder.join("a"), "\n{\"a\":3}\n");
        append(&folder.join("b"), "2}\n");
        append(&folder.join("c.csv"), "\n");
    });
    rig.poll();
    assert_eq!((rig.text(1), rig.text(2), rig.text(3)), ("\n{\"a\":3}\n", "{\"b\":22}\n", "1,1,u,::1\n"));
    assert_eq!((rig.text(6), rig.text(7)), ("{\"d\":2}\n", ""));
}

#[test]
fn half_lines_that_vanish() {
    let mut rig = Rig::with(bounded(), &[""], |folder| {
        append(&folder.join("a"), lines("a", 0..3) + "{\"half");
        append(&folder.join("b"), lines("b", 0..3));
    });
    rig.poll();
    assert_eq!(rig.poll(), ["ended 1", "ended 2"]);
    rig.restart(|folder| fs::remove_file(folder.join("a")).expect("removed"));
    assert_eq!(rig.poll(), ["gap 1 6"]);
    assert_eq!(rig.poll(), [""; 0]);
    rig.restart(|_| {});
    assert_eq!(rig.poll(), [""; 0], "a gap is told once");
}

#[test]
fn a_gap_comes_with_the_end() {
    let text = lines("a", 0..20_000);
    let mut bytes = gzip(&text);
    let middle = bytes.len() / 2;
    bytes[middle..middle + 200].fill(0xff);
    let mut rig = Rig::with(bounded(), &[""], |folder| {
        append(&folder.join("a.gz"), &bytes);
        append(&folder.join("b"), lines("b", 0..10));
    });
    rig.poll();
    // Until the gap is reported, the input has not ended, whenever the process dies.
    assert!(matches!(rig.tailer.read(InputId(2), 0), Ok(ReadOutcome::AtEnd)));
    rig.restart(|_| {});
    assert_eq!(rig.poll(), ["continued 1", "continued 2"]);
    assert!(matches!(rig.tailer.read(InputId(1), 0), Ok(ReadOutcome::Ended)));
    // The look that reports it takes no new files, and no ended input resumes.
    rig.append("c", lines("c", 0..10));
    rig.append("b.gz", gzip(lines("b", 0..20)));
    rig.remove("b");
    let events = rig.look();
    assert!(
        matches!(&events[..], [b, gap, a] if b == "ended 1" && gap.starts_with("gap 2 ") && a == "ended 2"),
        "{events:?}"
    );
    assert_eq!(rig.poll(), [""; 0]);
    assert!(matches!(rig.tailer.read(InputId(2), 0), Ok(ReadOutcome::Ended)));
    rig.restart(|_| {});
    assert_eq!(rig.poll(), ["found 3 c 0", "renamed 1 b.gz", "resumed 1"]);
    assert_eq!(rig.text(1), lines("b", 10..20));
}

#[test]
fn cut_in_the_midst() {
    let text = lines("z", 0..3000);
    let bytes = gzip(&text);
    let (one, two) = bytes.split_at(bytes.len() / 2);
    let mut rig = Rig::with(bounded(), &[""], |folder| append(&folder.join("a.gz"), one));
    rig.poll();
    assert!(rig.tailer.warnings()[0].contains("a.gz: is incomplete"), "{:?}", rig.tailer.warnings());
    assert_eq!(rig.poll(), ["ended 1"], "no gap: a later run reads what follows");
    let read = rig.text(1).len();
    assert!(read > 0);
    rig.restart(|folder| append(&folder.join("a.gz"), two));
    assert_eq!(rig.poll(), ["resumed 1"]);
    assert_eq!(rig.text(1), &text[read..]);
    rig.poll();
    rig.restart(|_| {});
    assert_eq!(rig.poll(), [""; 0]);
}

#[test]
fn day_by_day() {
    // The file is rotated shortly after midnight, within a line.
    let mut rig = Rig::with(bounded(), &[""], |folder| append(&folder.join("log"), lines("one", 0..100) + "{\"ha"));
    rig.poll();
    rig.poll();
    rig.restart(|folder| {
        append(&folder.join("log"), "lf\":1}\n");
        fs::rename(folder.join("log"), folder.join("log.1")).expect("renamed");
        append(&folder.join("log"), lines("two", 0..100));
    });
    assert_eq!(rig.poll(), ["renamed 1 log.1", "resumed 1", "found 2 log 1"]);
    assert_eq!((rig.text(1), rig.text(2)), ("{\"half\":1}\n", &*lines("two", 0..100)));
    assert_eq!(rig.poll(), ["ended 1", "ended 2"]);
}

#[test]
fn gone_or_broken() {
    let mut rig = Rig::with(bounded(), &[""], |folder| {
        append(&folder.join("a"), lines("a", 0..300));
        append(&folder.join("b.gz"), &gzip(lines("b", 0..300))[..40]);
        append(&folder.join("c"), [0x1f]);
    });
    rig.poll();
    let events = rig.poll();
    assert!(matches!(&events[..], [a, c, b] if a == "ended 1" && c == "ended 2" && b == "ended 3"), "{events:?}");
    assert_eq!(rig.tailer.warnings().len(), 2, "{:?}", rig.tailer.warnings());
}

/// A log is copied and truncated after a bounded run has read it but not ended it: the copy is longer than the run's
/// limit, and the next run reads the rest.
#[test]
fn a_copy_that_is_longer_than_what_was_there_at_the_start() {
    let (begin, rest) = (lines("a", 0..300) + "{\"half", format!("\":1}}\n{}", lines("a", 300..310)));
    let mut rig = Rig::with(bounded(), &[""], |folder| append(&folder.join("a"), &begin));
    assert_eq!(rig.poll(), ["found 1 a 0"]);
    rig.append("a", &rest);
    fs::copy(rig.path("a"), rig.path("a.1")).expect("a copy");
    fs::write(rig.path("a"), "").expect("truncated");
    rig.poll();
    rig.poll();
    assert_eq!(rig.text(1), lines("a", 0..300), "no more than there was at the start");
    rig.restart(|_| {});
    rig.poll();
    assert_eq!(rig.text(1), format!("{{\"half{rest}"));
}

/// For a line longer than a block, at most twice its length is read.
#[test]
fn long_lines_make_no_block_much_longer() {
    let line = format!("{{\"user_agent\":\"{}\"}}\n", "x".repeat(1_500));
    let mut rig = Rig::with(bounded(), &[""], |folder| {
        append(&folder.join("a"), line.repeat(200));
        append(&folder.join("b.gz"), gzip(line.replace('x', "y").repeat(200)));
    });
    rig.look();
    rig.tailer.set_block_bytes(BLOCK_BYTES_MIN);
    for input in [1, 2] {
        let mut lines = 0;
        loop {
            match rig.tailer.read(InputId(input), 0).unwrap() {
                ReadOutcome::Block(block) => {
                    assert!(block.text.len() <= 2 * line.len(), "{}", block.text.len());
                    lines += block.text.len() / line.len();
                }
                ReadOutcome::Busy => {}
                _ => break,
            }
        }
        assert_eq!(lines, 200, "input {input}");
    }
}
