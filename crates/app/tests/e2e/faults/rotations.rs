//! Files that are renamed, truncated, compressed, removed, and whose inodes are used again.

use super::{check, clicks, until_end};
use crate::site::Site;
use std::fs;
use std::os::unix::fs::MetadataExt;

fn inode(site: &Site, name: &str) -> u64 {
    fs::metadata(site.path(name)).unwrap().ino()
}

/// A file that is renamed while lines are still written to it is drained under its new name, and the new file under the
/// old name is another input.
#[test]
fn fault_28_a_renamed_file_is_drained() {
    let site = Site::new();
    site.write("logs/clicks.log", clicks(0..50));
    let server = site.serve("logs");
    server.wait_read(50);
    let before = inode(&site, "logs/clicks.log");
    // The writer has the file open until it is told of the rotation.
    let mut writer = fs::OpenOptions::new().append(true).open(site.path("logs/clicks.log")).unwrap();
    for round in 1..=5_i64 {
        fs::rename(site.path("logs/clicks.log"), site.path(&format!("logs/clicks.log.{round}"))).unwrap();
        let from = round * 100 - 50;
        std::io::Write::write_all(&mut writer, clicks(from..from + 50).as_bytes()).unwrap();
        site.append("logs/clicks.log", clicks(from + 50..from + 100));
        writer = fs::OpenOptions::new().append(true).open(site.path("logs/clicks.log")).unwrap();
        server.wait_read(from as u64 + 100);
    }
    assert_eq!(inode(&site, "logs/clicks.log.1"), before, "it was renamed, not copied");
    server.stop();
    assert_eq!(check(&site, &clicks(0..550), &[])["gap_bytes"], 0);
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

/// Another file under the inode of one that was read and removed is read from its beginning.
#[test]
fn fault_30_a_new_file_under_an_old_inode_is_read() {
    let site = Site::new();
    let _disk = super::disks::own_disk(&site, "logs");
    site.write("logs/clicks-0.log", clicks(0..20));
    let server = site.serve("logs");
    server.wait_read(20);
    let (mut inodes, mut reused) = (vec![inode(&site, "logs/clicks-0.log")], 0);
    for round in 1..20_i64 {
        fs::remove_file(site.path(&format!("logs/clicks-{}.log", round - 1))).unwrap();
        let name = format!("logs/clicks-{round}.log");
        site.write(&name, clicks(round * 20..round * 20 + 20));
        server.wait_read(round as u64 * 20 + 20);
        reused += usize::from(inodes.contains(&inode(&site, &name)));
        inodes.push(inode(&site, &name));
    }
    server.stop();
    // While the process holds a removed file open its inode is taken; another process finds it free.
    let text = clicks(400..420);
    for round in 20..60 {
        drop(fs::remove_file(site.path(&format!("logs/clicks-{}.log", round - 1))));
        site.write(&format!("logs/clicks-{round}.log"), &text);
        reused += usize::from(inodes.contains(&inode(&site, &format!("logs/clicks-{round}.log"))));
    }
    assert!(reused > 0, "no inode came again: {inodes:?}");
    until_end(&site);
    assert_eq!(check(&site, &clicks(0..420), &[])["gap_bytes"], 0);
}
