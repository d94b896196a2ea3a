//! Disks that are full, stores that are down, and power that fails.

use super::{SECOND, START, check, click, clicks, records, until_end};
use crate::site::{Serving, Site, wait_for};
use adtally_engine::clock::{Clock, SystemClock};
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An epoch whenever lines arrive, and a lake commit every second.
const OFTEN: &str = "[epoch]\ninterval = \"100ms\"\n[store]\nlake_interval = \"1s\"\n";

/// Container runtimes kill ten seconds after a SIGTERM; a busy machine gets twice as long.
const STOPPED_MS_MAX: i64 = 20_000;

/// A file system that is unmounted when the value is dropped.
pub(super) struct Mounted(PathBuf);

impl Mounted {
    /// Mounts with these arguments of `mount`.
    fn new(words: &[&str], at: PathBuf) -> Mounted {
        std::fs::create_dir_all(&at).unwrap();
        let output = Command::new("mount").args(words).arg(&at).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "this test mounts a small file system: run it as root ({})", said.trim());
        Mounted(at)
    }

    /// Flushes everything and unmounts.
    fn unmount(self) {}
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily, in case a failed test has left a process in it.
        drop(Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}

/// Fills a disk to its last byte with a file.
fn fill(path: &Path) {
    use std::io::Write;
    let mut ballast = std::fs::File::create(path).unwrap();
    let error = loop {
        if let Err(error) = ballast.write_all(&[7; 4_096]) {
            break error;
        }
    };
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull, "{error}");
}

/// A site whose `data` is a disk of 16 MiB. It is full after the first 20 lines were counted.
fn full() -> (Site, Mounted, Serving, String) {
    let site = Site::new();
    let disk = Mounted::new(&["-t", "tmpfs", "-o", "size=16m", "tmpfs"], site.path("data"));
    let text = clicks(0..20);
    site.write("logs/clicks.log", &text);
    site.write("adtally.toml", OFTEN);
    let server = site.serve("logs --config adtally.toml");
    server.wait_read(20);
    server.wait_readiness(200, "");
    fill(&site.path("data/ballast"));
    site.append("logs/clicks.log", clicks(20..40));
    server.wait_readiness(503, "trying again");
    (site, disk, server, text + &clicks(20..40))
}

/// A full disk pauses counting, `/readyz` tells, and once there is room it goes on by itself.
#[test]
fn fault_16_a_full_disk_pauses_and_resumes() {
    let (site, disk, server, mut text) = full();
    let committed = records(&site);
    site.append("logs/clicks.log", clicks(40..5_000));
    text += &clicks(40..5_000);
    server.wait_readiness(503, "No space left on device");
    assert_eq!(server.get("/ledger")["read"], 20, "what cannot be stored is not said to be counted");
    assert_eq!(records(&site), committed);
    std::fs::remove_file(site.path("data/ballast")).unwrap();
    server.wait_read(5_000);
    server.wait_readiness(200, "");
    server.stop();
    check(&site, &text, &[]);
    disk.unmount();
}

/// A file size limit is like a full disk: it pauses counting, `/readyz` tells, and once it is raised it goes on by
/// itself.
#[test]
fn fault_16_a_file_size_limit_pauses_and_resumes() {
    let site = Site::new();
    let text = clicks(0..40);
    site.write("logs/clicks.log", clicks(0..20));
    site.write("adtally.toml", OFTEN);
    let server = site.serve("logs --config adtally.toml");
    server.wait_read(20);
    server.limit_files(Some(100));
    site.append("logs/clicks.log", clicks(20..40));
    server.wait_readiness(503, "File too large");
    assert_eq!(server.get("/ledger")["read"], 20);
    server.limit_files(None);
    server.wait_read(40);
    server.wait_readiness(200, "");
    server.stop();
    check(&site, &text, &[]);
}

/// The folder is named in which there is no room, and how to name another.
#[test]
fn fault_16_a_full_temporary_folder_ends_a_count() {
    let site = Site::new();
    let disk = Mounted::new(&["-t", "tmpfs", "-o", "size=1m", "tmpfs"], site.path("tmp"));
    site.adtally("generate --clicks 50000 --output clicks.log").ok();
    for line in ["$A count clicks.log", "cat clicks.log | $A count -"] {
        let mut command = Command::new("bash");
        command.args(["-c", line]).current_dir(site.path("")).env("TMPDIR", site.path("tmp"));
        let ended = crate::site::end({
            command.env("A", env!("CARGO_BIN_EXE_adtally"));
            command
        });
        assert_eq!(ended.code, Some(1), "{line}: {ended:?}");
        let folder = site.path("tmp").display().to_string();
        assert!(ended.stderr.contains(&folder) && ended.stderr.contains("TMPDIR"), "{line}: {ended:?}");
        assert!(ended.stderr.contains("No space left on device"), "{line}: {ended:?}");
        assert_eq!(std::fs::read_dir(site.path("tmp")).unwrap().count(), 0, "{line}");
    }
    disk.unmount();
}

/// Sends a SIGTERM. Returns the exit code and the output of the process, which must end within its deadline.
fn stopped_in_time(server: Serving) -> (Option<i32>, String) {
    let began = SystemClock.monotonic_ms();
    server.send(Signal::TERM);
    let (code, said) = server.ended();
    let took = SystemClock.monotonic_ms() - began;
    assert!(took < STOPPED_MS_MAX, "stopping took {took} ms: {said}");
    (code, said)
}

/// A SIGTERM while the disk is full ends within the deadline, with an error that says so, and the next start counts
/// what could not be committed.
#[test]
fn fault_39_a_drain_to_a_full_disk_ends_by_its_deadline() {
    let (site, _disk, server, text) = full();
    let (code, said) = stopped_in_time(server);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("could not be committed in time: the next start reads them again"), "{said}");
    std::fs::remove_file(site.path("data/ballast")).unwrap();
    until_end(&site);
    check(&site, &text, &[]);
}

/// Replaces a table's log by a file, so that commits to it fail; returns how to undo that.
fn take_down(site: &Site, table: &str) -> impl FnOnce() + use<> {
    let (log, aside) = (site.path(&format!("data/lake/{table}/_delta_log")), site.path("aside"));
    std::fs::rename(&log, &aside).unwrap();
    std::fs::write(&log, "").unwrap();
    move || {
        std::fs::remove_file(&log).unwrap();
        std::fs::rename(aside, log).unwrap();
    }
}

/// A SIGTERM while the lake is down ends within the deadline; what is committed is not lost, and the next start brings
/// the lake up to date.
#[test]
fn fault_39_a_drain_to_a_lake_that_is_down_ends_by_its_deadline() {
    let site = Site::new();
    site.write("logs/clicks.log", clicks(0..20));
    site.write("adtally.toml", OFTEN);
    let server = site.serve("logs --config adtally.toml");
    server.wait_read(20);
    let mend = take_down(&site, "ledger");
    site.append("logs/clicks.log", clicks(20..40));
    server.wait_read(40);
    server.wait_readiness(503, "the lake cannot be brought up to date");
    let (code, said) = stopped_in_time(server);
    assert!(said.contains("stopping"), "{said}");
    assert!(code.is_some(), "{said}");
    mend();
    let before = site.ledger()["read"].clone();
    assert_eq!(before, 40, "committed before, whatever the lake holds");
    until_end(&site);
    check(&site, &clicks(0..40), &[]);
}

/// While a table of the lake is down for hundreds of epochs, the records that it needs stay; then it catches up.
#[test]
fn fault_48_a_store_that_is_down_loses_no_record_that_it_needs() {
    const LINES: i64 = 500;
    let site = Site::new();
    site.write("logs/clicks.log", clicks(0..20));
    site.write(
        "adtally.toml",
        "[epoch]\nmax_lines = 1\nfsync = false\ninterval = \"100ms\"\n[store]\nlake_interval = \"1s\"\n",
    );
    let server = site.serve("logs --config adtally.toml");
    server.wait_read(20);
    server.wait_readiness(200, "");
    let up_to_date = || server.text("/metrics").1.contains("\nadtally_lake_epochs_behind 0.0\n");
    wait_for("the lake to be up to date", || up_to_date().then_some(()));
    let held = *records(&site).last().unwrap();
    let mend = take_down(&site, "ledger");
    site.append("logs/clicks.log", clicks(20..LINES));
    server.wait_read(LINES as u64);
    server.wait_readiness(503, "the lake cannot be brought up to date");
    let kept = records(&site);
    let newest = *kept.last().unwrap();
    assert!(newest > held + 400, "many epochs since {held}: {newest}");
    assert_eq!(kept, (1..=newest).collect::<Vec<_>>(), "the table that is down needs all of them");
    mend();
    server.wait_readiness(200, "");
    wait_for("the lake to catch up", || up_to_date().then_some(()));
    wait_for("records to be collected", || (records(&site).len() < 400).then_some(()));
    server.stop();
    check(&site, &clicks(0..LINES), &[]);
}

/// Mounts the image of a disk after a power loss: the data that the file system has sent to the device.
fn mount_image(image: &Path, at: PathBuf) -> Mounted {
    // During the test, only synced data reaches the device.
    Mounted::new(&["-o", "loop,commit=600", &image.display().to_string()], at)
}

/// A disk of 64 MiB with an empty file system.
fn make_image(site: &Site) -> PathBuf {
    let image = site.path("disk.img");
    std::fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
    assert!(Command::new("mkfs.ext4").arg("-q").arg(&image).status().unwrap().success());
    image
}

/// A folder of the site on its own disk, where no other process uses inodes.
pub(super) fn own_disk(site: &Site, folder: &str) -> Mounted {
    mount_image(&make_image(site), site.path(folder))
}

/// Counts 200 lines on its own disk and cuts the power after a client got the result; then mounts the content of the
/// disk as the data directory. Returns the number of lines whose epochs survived.
fn cut_power(site: &Site, fsync: &str) -> (Mounted, u64) {
    let image = make_image(site);
    let disk = mount_image(&image, site.path("data"));
    // The data that creating the file system wrote is on the disk.
    assert!(Command::new("sync").status().unwrap().success());
    site.write(
        "adtally.toml",
        format!("{OFTEN}[serve]\nmax_connections = 16\n").replace("[store]", &format!("fsync = {fsync}\n[store]")),
    );
    let server = site.serve("logs --config adtally.toml");
    for _ in 0..10 {
        let read = server.get("/ledger")["read"].as_i64().unwrap();
        site.append("logs/clicks.log", clicks(read..read + 20));
        server.wait_read(read as u64 + 20);
    }
    // Nothing is written while the image is copied, since power fails at one moment.
    server.send(Signal::STOP);
    wait_for("all threads to stop", || server.is_stopped().then_some(()));
    std::fs::copy(&image, site.path("cut.img")).unwrap();
    server.kill();
    drop(disk);
    let disk = mount_image(&site.path("cut.img"), site.path("data"));
    let read = if records(site).is_empty() { 0 } else { site.ledger()["read"].as_u64().unwrap() };
    (disk, read)
}

/// After the power failed, everything that a client was told is committed is on the disk; without `fsync` it is not,
/// which shows that the power did fail.
#[test]
fn fault_19_power_loss_keeps_what_was_acknowledged() {
    let site = Site::new();
    site.write("logs/clicks.log", "");
    let (disk, survived) = cut_power(&site, "true");
    assert_eq!(survived, 200);
    site.append("logs/clicks.log", click(START + 200 * SECOND, 200));
    until_end(&site);
    check(&site, &clicks(0..201), &[]);
    drop(disk);
    // Another process that calls `sync` in the meantime spoils the evidence, not the property.
    let survived = (0..5).map(|_| {
        let site = Site::new();
        site.write("logs/clicks.log", "");
        cut_power(&site, "false").1
    });
    assert!(survived.into_iter().any(|survived| survived < 200), "nothing was synced, and yet it survived");
}
