//! NUL bytes that are not written yet, or that a writer left.

use super::*;
use std::os::unix::fs::FileExt;

/// Writes into a file in place.
fn write_at(rig: &Rig, name: &str, at: u64, text: &str) {
    let file = fs::OpenOptions::new().write(true).open(rig.path(name)).expect("a file");
    file.write_all_at(text.as_bytes(), at).expect("written");
}

fn set_len(rig: &Rig, name: &str, len: u64) {
    fs::OpenOptions::new().write(true).open(rig.path(name)).expect("a file").set_len(len).expect("a length");
}

#[test]
fn fault_60_a_preallocated_log_is_read_as_it_is_written() {
    let mut rig = Rig::new();
    rig.append("a", lines("a", 0..10));
    let mut at = lines("a", 0..10).len() as u64;
    set_len(&rig, "a", 300_000);
    rig.poll();
    assert_eq!(rig.text(1), lines("a", 0..10));
    for line in 10..200 {
        let text = lines("a", line..line + 1);
        // In two pieces: the first part of a line is not taken for a line.
        write_at(&rig, "a", at, &text[..7]);
        rig.poll();
        write_at(&rig, "a", at + 7, &text[7..]);
        at += text.len() as u64;
        rig.poll();
        assert_eq!(rig.text(1), lines("a", 0..line + 1));
    }
    // Its writer trims it and continues in another file.
    set_len(&rig, "a", at);
    rig.rename("a", "a.1");
    rig.append("a", lines("b", 0..3));
    rig.poll();
    assert_eq!(rig.poll_after(3), ["ended 1"], "no gap: nothing is missing");
    assert_eq!((rig.text(1), rig.text(2)), (&*lines("a", 0..200), &*lines("b", 0..3)));
    assert_eq!(rig.nul_bytes[&1], 0);
}

#[test]
fn fault_60_a_preallocated_log_that_is_deleted_or_ends_leaves_no_gap() {
    let bounded = TailSettings { bounded: true, ..tail_settings() };
    for settings in [tail_settings(), bounded] {
        let mut rig = Rig::with(settings, &[""], |folder| append(&folder.join("a"), lines("a", 0..10)));
        set_len(&rig, "a", 300_000);
        rig.poll();
        rig.restart(|_| {});
        rig.poll();
        rig.remove("a");
        let events = [rig.poll(), rig.poll_after(3), rig.poll_after(100)].concat();
        assert!(!events.iter().any(|event| event.starts_with("gap")), "{events:?}");
        assert_eq!(rig.tailer.warnings(), [""; 0]);
    }
}

#[test]
fn fault_60_nul_bytes_before_a_line_belong_to_none() {
    let mut rig = Rig::new();
    rig.append("a", lines("a", 0..100));
    rig.poll();
    // Copytruncate under a writer that does not append: it continues at its old offset.
    let at = lines("a", 0..100).len() as u64;
    set_len(&rig, "a", 0);
    rig.poll();
    write_at(&rig, "a", at, &lines("a", 100..110));
    rig.poll();
    rig.poll();
    assert_eq!(rig.text(2), lines("a", 100..110));
    assert_eq!(rig.nul_bytes[&2], at);
}

#[test]
fn fault_60_a_long_run_of_nul_bytes_ends_the_text_before_it() {
    let mut rig = Rig::new();
    let half = "{\"half\":";
    rig.append("a", half);
    set_len(&rig, "a", half.len() as u64 + 5_000_000);
    rig.poll();
    assert_eq!(rig.text(1), "", "it may go on");
    rig.append("a", lines("a", 0..3));
    rig.poll();
    assert_eq!(rig.text(1), format!("{half}{}", lines("a", 0..3)));
    assert_eq!(rig.nul_bytes[&1], 5_000_000);
}

#[test]
fn fault_60_a_complete_file_is_gone_through_once_more() {
    let mut rig = Rig::new();
    rig.append("a", lines("a", 0..3));
    set_len(&rig, "a", 3_000_000);
    rig.poll();
    // After the offset where a writer would continue.
    write_at(&rig, "a", 2_000_000, &lines("a", 3..5));
    rig.rename("a", "a.1");
    rig.poll();
    rig.poll_after(3);
    assert_eq!(rig.text(1), lines("a", 0..5));
}
