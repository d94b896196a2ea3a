//! Runs that end.

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
    // The next run reads what has come since.
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
    });
    rig.poll();
    assert_eq!(rig.text(1), "{\"a\":1}\n{\"a\":2}");
    assert_eq!(rig.text(2), "{\"b\":1}\n");
    assert_eq!(rig.text(3), format!("{header}1,1,u,::1\n"));
    assert_eq!(rig.text(4), "\u{feff}{\"e\":1}");
    assert_eq!(rig.text(5), "");
    assert_eq!(rig.text(6), "{\"d\":1}\n{\"d\"", "plain files come first");
    let warnings = rig.tailer.warnings();
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    assert!(warnings[0].ends_with("b: its last line has no end, 6 bytes stay unread"), "{warnings:?}");
    assert_eq!(rig.poll().len(), 6);
    rig.restart(|folder| {
        append(&folder.join("a"), "\n{\"a\":3}\n");
        append(&folder.join("b"), "2}\n");
        append(&folder.join("c.csv"), "\n");
    });
    rig.poll();
    assert_eq!((rig.text(1), rig.text(2), rig.text(3)), ("\n{\"a\":3}\n", "{\"b\":22}\n", "1,1,u,::1\n"));
}

#[test]
fn day_by_day() {
    // The file is rotated shortly after midnight, in the midst of a line.
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
    assert!(
        matches!(&events[..], [a, c, gap, b] if a == "ended 1" && c == "ended 2"
        && gap.starts_with("gap 3 ") && b == "ended 3"),
        "{events:?}"
    );
    assert_eq!(rig.tailer.warnings().len(), 2, "{:?}", rig.tailer.warnings());
}
