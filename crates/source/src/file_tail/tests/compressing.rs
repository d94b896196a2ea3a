//! Gzip and zstd: whole, growing, cut short, corrupt, and copies of files that were read.

use super::*;

#[test]
fn members_and_frames() {
    let mut rig = Rig::new();
    let text = lines("z", 0..1000);
    let (one, two) = text.split_at(text.len() / 2 - 7);
    rig.append("a.gz", [gzip(one), gzip(two), vec![0; 512]].concat());
    rig.append("b.anything", [zstandard(one), vec![0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9], zstandard(two)].concat());
    rig.append("c.zst", zstandard("{\"no\":\"newline\"}"));
    assert_eq!(rig.poll(), ["found 1 a.gz 0", "found 2 b.anything 0", "found 3 c.zst 0"]);
    assert_eq!((rig.text(1), rig.text(2), rig.text(3)), (&*text, &*text, ""));
    assert_eq!(rig.poll_after(2), [""; 0]);
    assert_eq!(rig.text(3), "{\"no\":\"newline\"}", "a complete file's last line is a line");
    assert_eq!(rig.poll_after(2), ["ended 1", "ended 2", "ended 3"]);
    assert_eq!(rig.poll_after(2), [""; 0]);
    // Additional members are additional text.
    rig.append("a.gz", gzip(lines("z", 1000..1001)));
    assert_eq!(rig.poll(), ["resumed 1"]);
    assert_eq!(rig.text(1), lines("z", 0..1001));
    rig.poll_after(2);
    // After a restart nothing is read or decoded again.
    assert_eq!(rig.poll_after(2), ["ended 1"]);
    rig.restart(|_| {});
    assert_eq!(rig.poll(), [""; 0]);
    assert_eq!((rig.text(1), rig.text(2)), ("", ""));
    rig.restart(|folder| append(&folder.join("b.anything"), zstandard(lines("z", 1000..1002))));
    assert_eq!(rig.poll(), ["resumed 2"]);
    assert_eq!(rig.text(2), lines("z", 1000..1002));
}

#[test]
fn restart_in_the_midst() {
    for encode in [|text: &str| gzip(text), |text: &str| zstandard(text)] as [fn(&str) -> Vec<u8>; 2] {
        let mut rig = Rig::new();
        let text = lines("z", 0..2000);
        rig.append("a.z", encode(&text));
        rig.look();
        for _ in 0..3 {
            rig.read_once(InputId(1));
        }
        let read = rig.text(1).len();
        assert!(read > 0 && read < text.len());
        rig.restart(|_| {});
        assert_eq!(rig.poll(), ["continued 1"]);
        assert_eq!(rig.text(1), &text[read..]);
    }
}

#[test]
fn still_growing() {
    for encode in [|text: &str| gzip(text), |text: &str| zstandard(text)] as [fn(&str) -> Vec<u8>; 2] {
        let mut rig = Rig::new();
        let text = lines("z", 0..3000);
        let bytes = encode(&text);
        let mut events = Vec::new();
        for (number, part) in bytes.chunks(bytes.len() / 5 + 1).enumerate() {
            rig.append("a.z", part);
            events.extend(rig.poll_after(50));
            assert!(number > 0 || text.len() > rig.text(1).len());
        }
        assert_eq!((rig.text(1), events), (&*text, vec!["found 1 a.z 0".to_owned()]));
        rig.poll_after(2);
        assert_eq!(rig.poll_after(2), ["ended 1"]);
        assert_eq!(rig.tailer.warnings(), [""; 0]);
    }
}

#[test]
fn a_pause_in_the_midst() {
    for encode in [|text: &str| gzip(text), |text: &str| zstandard(text)] as [fn(&str) -> Vec<u8>; 2] {
        let mut rig = Rig::new();
        let text = lines("z", 0..30_000);
        let bytes = encode(&text);
        let (one, two) = bytes.split_at(bytes.len() / 2);
        rig.append("a.z", one);
        assert_eq!(rig.poll(), ["found 1 a.z 0"]);
        for _ in 0..100 {
            assert_eq!(rig.poll(), [""; 0]);
        }
        rig.append("a.z", two);
        assert_eq!(rig.poll(), [""; 0]);
        assert_eq!(rig.text(1), text);
    }
}

#[test]
fn much_padding() {
    let mut rig = Rig::new();
    rig.append("a.gz", gzip("{}\n"));
    fs::OpenOptions::new().write(true).open(rig.path("a.gz")).expect("a file").set_len(200_000_000).expect("a hole");
    rig.append("a.gz", gzip("{\"a\":1}\n"));
    rig.look();
    assert!(rig.read_once(InputId(1)));
    assert!(matches!(rig.tailer.read(InputId(1), 0), Ok(ReadOutcome::Busy)), "others get their turn");
    rig.poll();
    assert_eq!(rig.text(1), "{}\n{\"a\":1}\n");
}

#[test]
fn a_window_that_is_too_large() {
    let mut rig = Rig::new();
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).expect("an encoder");
    encoder.window_log(28).expect("a window");
    encoder.write_all(lines("z", 0..10).as_bytes()).expect("encoded");
    rig.append("a.zst", encoder.finish().expect("encoded"));
    rig.poll();
    let warnings = rig.tailer.warnings();
    assert!(warnings[0].contains("requires too much memory"), "{warnings:?}");
    assert!(rig.poll()[0].starts_with("gap 1 "));
}

#[test]
fn deleted_half_read_while_stopped() {
    let mut rig = Rig::new();
    let text = lines("z", 0..30_000);
    rig.append("a.gz", gzip(&text));
    rig.append("b.gz", gzip(&text[..1000]));
    rig.look();
    while rig.text(1).len() < text.len() / 2 {
        rig.read_once(InputId(1));
    }
    while rig.read_once(InputId(2)) {}
    let len = fs::metadata(rig.path("a.gz")).expect("a file").len();
    // Again, so that all knowledge comes from the epoch log.
    rig.restart(|_| {});
    rig.look();
    rig.restart(|folder| {
        fs::remove_file(folder.join("a.gz")).expect("removed");
        fs::remove_file(folder.join("b.gz")).expect("removed");
    });
    rig.poll();
    let events = rig.poll_after(2);
    let gap: u64 = events[0].strip_prefix("gap 1 ").and_then(|bytes| bytes.parse().ok()).expect("a gap");
    assert!((len / 4..=len * 3 / 4).contains(&gap), "{gap} of {len}");
    assert_eq!(events[1..], ["ended 1", "ended 2"]);
}

#[test]
fn overwritten_in_place() {
    let mut rig = Rig::new();
    let text = lines("one", 0..30_000);
    rig.append("a.gz", gzip(&text));
    rig.look();
    rig.read_once(InputId(1));
    let read = rig.text(1).len();
    // The same text in other compressed bytes, which the started stream cannot decode.
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
    encoder.write_all(text.as_bytes()).expect("encoded");
    fs::write(rig.path("a.gz"), encoder.finish().expect("encoded")).expect("written");
    assert!(read < text.len());
    rig.poll();
    assert_eq!(rig.text(1), text);
    // A different text is a new input.
    let mut rig = Rig::new();
    rig.append("a.gz", gzip(&text));
    rig.look();
    rig.read_once(InputId(1));
    let other = lines("one", 0..20) + &lines("other", 0..60_000);
    fs::write(rig.path("a.gz"), gzip(&other)).expect("written");
    for _ in 0..3 {
        rig.poll_after(1);
    }
    assert_eq!(rig.text(2), other);
}

#[test]
fn fault_61_what_is_appended_between_the_end_and_the_next_look_is_read() {
    for (name, pack) in [("a.gz", gzip as fn(String) -> Vec<u8>), ("a.zst", zstandard)] {
        let mut rig = Rig::new();
        rig.append(name, pack(lines("a", 0..10)));
        rig.poll();
        rig.now_ms += 5 * SECOND;
        // It is now read to its end; the next look sees it only after it has grown.
        rig.read_all();
        rig.append(name, pack(lines("a", 10..20)));
        rig.poll();
        rig.poll_after(5);
        rig.poll_after(5);
        assert_eq!(rig.text(1), lines("a", 0..20));
        // A stop at this moment loses nothing either.
        rig.append(name, pack(lines("a", 20..30)));
        rig.poll();
        rig.now_ms += 5 * SECOND;
        rig.read_all();
        rig.append(name, pack(lines("a", 30..40)));
        rig.restart(|_| {});
        rig.poll();
        assert_eq!(rig.text(1), lines("a", 30..40));
    }
}

/// A process stops within the first block of a compressed file; then another text with the same first KiB replaces it.
/// The file is recognized as another one and read completely.
fn check_another(other: &str, bytes: Vec<u8>) {
    let mut rig = Rig::new();
    let text = lines("a", 0..1_000);
    rig.append("a.gz", gzip(&text));
    rig.look();
    rig.read_once(InputId(1));
    let position = lines("a", 0..70).len() as u64;
    let facts = rig.tailer.facts(InputId(1), position, Some(&text.as_bytes()[..position as usize])).expect("facts");
    let mut row = rig.row(InputId(1));
    let file = row.file_mut().expect("a file");
    (file.fingerprint, file.position) = (facts.fingerprint, Position::at(position));
    fs::write(rig.path("a.gz"), bytes).expect("written");
    rig.tailer =
        Tailer::new(Box::new(Sparing), rig.settings.clone(), &rig.patterns, vec![row.into()], 1).expect("a tailer");
    (rig.text, rig.positions, rig.started) = Default::default();
    rig.positions.insert(1, position);
    for _ in 0..3 {
        rig.poll_after(1);
    }
    assert_eq!((rig.text(1), rig.text(2)), ("", other));
}

#[test]
fn a_position_within_a_block_of_a_compressed_file_knows_the_text_before_it() {
    let other = lines("a", 0..60) + &lines("b", 0..1_000);
    check_another(&other, gzip(&other));
}

#[test]
fn another_compressed_file_that_is_shorter_is_known_whatever_follows_it() {
    let other = lines("a", 0..60) + &lines("b", 0..3);
    check_another(&other, [gzip(&other), b"not compressed".to_vec()].concat());
}

#[test]
fn more_than_may_be_decoded_at_a_time() {
    // Two gzip decoders exceed this limit.
    let settings = TailSettings { stream_bytes_max: 150_000, ..tail_settings() };
    let mut rig = Rig::with(settings, &[""], |folder| {
        for file in 1..=6 {
            append(&folder.join(format!("{file}.gz")), gzip(lines(&file.to_string(), 0..1000)));
        }
    });
    rig.look();
    let streams = |rig: &Rig| {
        let open = rig.tailer.inputs.values().filter_map(|input| input.file.as_ref());
        open.filter(|open| open.stream.is_some()).count()
    };
    let is_waiting = |outcome| matches!(outcome, Ok(ReadOutcome::Waits));
    for _ in 0..5 {
        assert!(rig.read_once(InputId(1)) && rig.read_once(InputId(2)));
        assert!(is_waiting(rig.tailer.read(InputId(3), rig.now_ms)));
        assert_eq!(streams(&rig), 2);
    }
    // An idle decoder gives way.
    rig.now_ms += 3 * SECOND;
    assert!(rig.read_once(InputId(3)) && rig.read_once(InputId(4)));
    assert!(is_waiting(rig.tailer.read(InputId(1), rig.now_ms)));
    for _ in 0..20 {
        rig.poll_after(3);
    }
    for file in 1..=6 {
        assert_eq!(rig.text(file), lines(&file.to_string(), 0..1000));
    }
}

#[test]
fn first_bytes_that_tell_nothing_yet() {
    let mut rig = Rig::new();
    let bytes = gzip(lines("z", 0..10));
    rig.append("a", &bytes[..1]);
    rig.append("b", "(");
    assert_eq!(rig.poll(), [""; 0]);
    rig.append("a", &bytes[1..12]);
    rig.append("b", "text)\n");
    assert_eq!(rig.poll(), ["found 1 b 0"]);
    rig.append("a", &bytes[12..]);
    assert_eq!(rig.poll(), ["found 2 a 0"]);
    assert_eq!(rig.text(2), lines("z", 0..10));
}

#[test]
fn cut_short() {
    let mut rig = Rig::new();
    let text = lines("z", 0..3000);
    let bytes = gzip(&text);
    rig.append("a.gz", &bytes[..bytes.len() / 2]);
    rig.poll();
    assert_eq!(rig.poll_after(59), [""; 0], "it may still grow");
    rig.poll_after(2);
    let events = rig.poll();
    assert!(matches!(&events[..], [gap, end] if gap.starts_with("gap 1 ") && end == "ended 1"), "{events:?}");
    assert!(text.starts_with(rig.text(1)) && !rig.text(1).is_empty());
    assert_eq!(rig.tailer.warnings().len(), 1);
    // It is reported once.
    rig.restart(|_| {});
    assert_eq!(rig.poll_after(100), [""; 0]);
    rig.append("a.gz", &bytes[bytes.len() / 2..]);
    assert_eq!(rig.poll(), ["resumed 1"]);
    assert_eq!(rig.text(1), &text[rig.started[&1] as usize..]);
}

#[test]
fn corrupt() {
    let text = lines("z", 0..20_000);
    let mut good = gzip(&text);
    let middle = good.len() / 2;
    good[middle..middle + 200].fill(0xff);
    let mut checksum = zstandard(&text);
    let last = checksum.len() / 2;
    checksum[last..last + 100].fill(0xaa);
    let trailing = [gzip(&text), b"garbage".to_vec()].concat();
    for bytes in [good, checksum] {
        let mut rig = Rig::new();
        rig.append("a", &bytes);
        rig.poll();
        let events = rig.poll();
        assert!(matches!(&events[..], [gap, end] if gap.starts_with("gap 1 ") && end == "ended 1"), "{events:?}");
        assert!(text.starts_with(rig.text(1)));
    }
    let mut rig = Rig::new();
    rig.append("a", &trailing);
    rig.append("b", [0x1f, 0x8b, 8, 0xff, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    rig.poll();
    let events = rig.poll_after(61);
    assert!(events.contains(&"gap 1 7".into()) && events.contains(&"ended 1".into()), "{events:?}");
    assert_eq!(rig.text(1), text);
}

#[test]
fn fault_30_compressed_after_it_was_read() {
    for encode in [|text: &str| gzip(text), |text: &str| zstandard(text)] as [fn(&str) -> Vec<u8>; 2] {
        let mut rig = Rig::new();
        let text = lines("one", 0..500);
        rig.append("log", &text);
        rig.poll();
        rig.rename("log", "log.1");
        rig.append("log", lines("two", 0..100));
        rig.poll();
        assert_eq!(rig.poll_after(2), ["ended 1"]);
        // While the plain file exists, its compressed copy is not opened.
        rig.append("log.1.z", encode(&text));
        assert_eq!(rig.poll(), [""; 0]);
        rig.remove("log.1");
        assert_eq!(rig.poll(), ["renamed 1 log.1.z", "resumed 1"]);
        assert_eq!(rig.poll_after(3), [""; 0]);
        assert_eq!(rig.poll(), ["ended 1"]);
        assert_eq!(rig.text(1), text, "nothing is read again");
        rig.restart(|_| {});
        assert_eq!(rig.poll(), ["continued 2"]);
        assert_eq!(rig.text(1), "");
    }
}

#[test]
fn compressed_half_read_while_stopped() {
    let mut rig = Rig::new();
    let text = lines("one", 0..500);
    rig.append("log", &text);
    rig.look();
    rig.read_once(InputId(1));
    let read = rig.text(1).len();
    rig.restart(|folder| {
        fs::write(folder.join("log.1.gz"), gzip(fs::read(folder.join("log")).expect("text"))).expect("written");
        fs::write(folder.join("log"), lines("two", 0..3)).expect("cut");
    });
    assert_eq!(rig.poll(), ["found 2 log 1", "renamed 1 log.1.gz", "continued 1"]);
    assert_eq!(rig.text(1), &text[read..]);
    assert_eq!(rig.text(2), lines("two", 0..3));
}

#[test]
fn looks_alike_but_is_not() {
    // The same beginning but a different text before the position: the file is a separate input.
    let mut rig = Rig::new();
    rig.append("log", lines("one", 0..500));
    rig.poll();
    rig.remove("log");
    rig.poll_after(2);
    assert_eq!(rig.poll_after(2), ["ended 1"]);
    let other = lines("one", 0..100) + &lines("other", 0..500);
    rig.append("other.gz", gzip(&other));
    for _ in 0..4 {
        rig.poll_after(2);
    }
    assert_eq!(rig.text(1), lines("one", 0..500));
    assert_eq!(rig.text(2), other);
    // A common header alone does not make a file a copy: the file with more text is opened beside the live one.
    let header = "click_timestamp,ad_id,user_id,ip\n";
    rig.append("live.csv", header);
    rig.poll();
    let old = format!("{header}1,1,u,::1\n");
    rig.append("old.csv.gz", gzip(&old));
    rig.poll();
    assert!(rig.text.values().any(|text| *text == old));
}

#[test]
fn a_bomb_and_a_line_without_end() {
    let mut rig = Rig::new();
    let huge = "x".repeat(20_000_000);
    rig.append("bomb.gz", gzip(format!("{{}}\n{huge}\n{{}}\n{huge}")));
    rig.poll();
    rig.poll_after(2);
    assert_eq!(rig.text(1), "{}\n<overlong>{}\n");
    assert_eq!(rig.tailer.inputs[&InputId(1)].text.position, 20_000_000 + 7);
    assert!(rig.tailer.warnings()[0].ends_with("its last line has no newline, so 20000000 bytes are not read"));
    assert_eq!(rig.poll(), ["ended 1"]);
    rig.remove("bomb.gz");
    rig.poll();
    assert_eq!(rig.poll_after(2), ["gap 1 20000000"]);
}
