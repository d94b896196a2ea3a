//! Files that are renamed, truncated, compressed or removed, and reused inodes.

use super::{check, clicks, until_end};
use crate::site::{Site, wait_for};
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;

/// Epochs come often, and idle files do not delay others for long.
const OFTEN: &str = "[epoch]\ninterval = \"100ms\"\n[time]\nidle_timeout = \"1s\"\n";

fn inode(site: &Site, name: &str) -> u64 {
    fs::metadata(site.path(name)).unwrap().ino()
}

/// A file that is renamed while lines are still written to it is drained under its new name, also of lines that come
/// when the new file under the old name, which is another input, is being read already.
#[test]
fn fault_28_a_renamed_file_is_drained() {
    let site = Site::new();
    site.write("logs/clicks.log", clicks(0..50));
    site.write("adtally.toml", OFTEN);
    let server = site.serve("logs --config adtally.toml");
    server.wait_read(50);
    let before = inode(&site, "logs/clicks.log");
    // The writer keeps the file open until it learns of the rotation.
    let open = || fs::OpenOptions::new().append(true).open(site.path("logs/clicks.log")).unwrap();
    let mut writer = open();
    for round in 1..=5_i64 {
        fs::rename(site.path("logs/clicks.log"), site.path(&format!("logs/clicks.log.{round}"))).unwrap();
        let from = round * 150 - 100;
        writer.write_all(clicks(from..from + 50).as_bytes()).unwrap();
        if round % 2 == 0 {
            server.wait_read(from as u64 + 50);
        }
        site.append("logs/clicks.log", clicks(from + 50..from + 100));
        server.wait_read(from as u64 + 100);
        writer.write_all(clicks(from + 100..from + 150).as_bytes()).unwrap();
        server.wait_read(from as u64 + 150);
        writer = open();
    }
    assert_eq!(inode(&site, "logs/clicks.log.1"), before, "it was renamed, not copied");
    server.stop();
    assert_eq!(check(&site, &clicks(0..800), &[])["gap_bytes"], 0);
}

/// A file that is copied and truncated goes on at its beginning, also when it grew past the old position with other
/// lines; regrown with the very same first lines it is noticed as well.
#[test]
fn fault_29_a_truncated_file_begins_anew() {
    let site = Site::new();
    site.write("logs/clicks.log", clicks(0..50));
    let server = site.serve("logs/*.log");
    server.wait_read(50);
    let (size, before) = (fs::metadata(site.path("logs/clicks.log")).unwrap().len(), inode(&site, "logs/clicks.log"));
    // Shorter than before.
    fs::write(site.path("logs/clicks.log"), clicks(50..60)).unwrap();
    server.wait_read(60);
    // Longer than before, at once.
    fs::write(site.path("logs/clicks.log"), clicks(60..200)).unwrap();
    server.wait_read(200);
    // Longer than before, and it begins with the lines that were read last.
    fs::write(site.path("logs/clicks.log"), clicks(60..160) + &clicks(200..400)).unwrap();
    let now = fs::metadata(site.path("logs/clicks.log")).unwrap();
    assert!(now.ino() == before && now.len() > 2 * size, "the same file, cut and grown");
    server.wait_read(500);
    server.stop();
    assert_eq!(check(&site, &clicks(0..400), &[("duplicate", 100)])["gap_bytes"], 0);
}

/// Another file under the inode of one that was read and removed is read from its beginning: under another name or the
/// same, whether it is as long or longer, and by the process that read the first one or the next.
#[test]
fn fault_30_a_new_file_under_an_old_inode_is_read() {
    let site = Site::new();
    let _disk = super::disks::own_disk(&site, "logs");
    site.write("adtally.toml", OFTEN);
    let mut read = 0;
    // All lines have the same length.
    let mut more = |lines: i64| {
        read += lines;
        clicks(1_000 + read - lines..1_000 + read)
    };
    let (first, second) = (more(20), more(20));
    site.write("logs/while-stopped.log", &first);
    let server = site.serve("logs --config adtally.toml");
    server.wait_read(20);
    server.stop();
    let before = inode(&site, "logs/while-stopped.log");
    fs::remove_file(site.path("logs/while-stopped.log")).unwrap();
    site.write("logs/while-stopped.log", &second);
    assert_eq!(inode(&site, "logs/while-stopped.log"), before, "the inode is used again");
    let server = site.serve("logs --config adtally.toml");
    server.wait_read(40);
    let mut text = first + &second;
    let ended = |name: &str| {
        let ledger = server.get("/ledger");
        let mut rows = ledger["inputs"].as_array().unwrap().iter();
        rows.any(|row| row["name"].as_str().unwrap().ends_with(name) && row["status"] == "ended").then_some(())
    };
    let places = ["read.log.1", "new.log"].into_iter().flat_map(|name| [(name, 20), (name, 30)]);
    for (round, (name, lines)) in (0..).zip(places) {
        let (first, second) = (more(20), more(lines));
        site.write(&format!("logs/read-{round}.log"), &first);
        text += &first;
        server.wait_read(text.lines().count() as u64);
        // A file that was renamed and read to its end is no longer held open, so its inode is free once it is removed.
        let old = format!("logs/{round}-read.log.1");
        fs::rename(site.path(&format!("logs/read-{round}.log")), site.path(&old)).unwrap();
        wait_for("the file to be read for good", || ended(&old));
        let before = inode(&site, &old);
        fs::remove_file(site.path(&old)).unwrap();
        let new = format!("logs/{round}-{name}");
        site.write(&new, &second);
        text += &second;
        assert_eq!(inode(&site, &new), before, "the inode is used again");
        server.wait_read(text.lines().count() as u64);
        fs::remove_file(site.path(&new)).unwrap();
    }
    server.stop();
    until_end(&site);
    assert_eq!(check(&site, &text, &[])["gap_bytes"], 0);
}
