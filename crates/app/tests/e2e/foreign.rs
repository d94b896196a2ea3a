//! Files that are not logs: reported, rejected by `inspect`, and skipped by a run with a message.

use crate::site::{Site, gzip};
use std::process::Command;

const LINE: &str =
    "{\"click_timestamp\":1767225600000,\"ad_id\":7,\"user_id\":\"u\",\"ip\":\"::1\",\"country\":\"DE\"}\n";

#[test]
fn inspect_names_what_is_no_log_and_proposes_nothing() {
    let site = Site::new();
    let utf_16: Vec<u8> = format!("\u{feff}{LINE}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    site.write("utf-16.log", utf_16);
    site.write("pretty.log", LINE.replace(',', ",\n  ").repeat(3));
    site.write("array.log", format!("[{}]\n", LINE.trim_end()));
    site.write("cri.log", format!("2026-01-01T00:00:00.000000000Z stdout F {LINE}"));
    let escaped = LINE.trim_end().replace('"', "\\\"");
    let docker = format!("{{\"log\":\"{escaped}\\n\",\"stream\":\"stdout\",\"time\":\"2026-01-01T00:00:00.1Z\"}}\n");
    site.write("docker.log", docker);
    site.write("a.zip", b"PK\x03\x04\x14\0\0\0\x08\0");
    site.write("twice.log", LINE.repeat(20));
    gzip(&site.path("twice.log"));
    std::fs::rename(site.path("twice.log.gz"), site.path("once")).unwrap();
    gzip(&site.path("once"));
    let packed = Command::new("tar").args(["czf", "a.tar.gz", "pretty.log"]).current_dir(site.path("")).status();
    assert!(packed.expect("tar is missing: install the package tar").success());
    site.write("a.log.bz2", b"BZh91AY&SY\x8f\x01\x02\x03\0\0");
    site.write("a.log.xz", b"\xfd7zXZ\0\0\x04\xe6\xd6");
    for (file, expected) in [
        ("utf-16.log", "text in UTF-16: convert it to UTF-8"),
        ("pretty.log", "JSON with an object over several lines: write one object per line"),
        ("array.log", "a JSON array: write one object per line"),
        ("cri.log", "(CRI): remove these"),
        ("docker.log", "a log of Docker's json-file driver: extract the lines"),
        ("a.zip", "a zip archive: unpack it"),
        ("once.gz", "compressed twice: decompress it once"),
        ("a.tar.gz", "a tar archive: unpack it"),
        ("a.log.bz2", "compressed by bzip2: decompress it"),
        ("a.log.xz", "compressed by xz: decompress it"),
    ] {
        let ended = site.adtally(&format!("inspect {file}"));
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{file}: {}", ended.stderr);
        assert!(ended.stderr.contains(expected), "{file}: {}", ended.stderr);
    }
}

#[test]
fn a_run_reads_the_logs_beside_what_is_none_and_tells_of_it() {
    let site = Site::new();
    site.write("logs/a.log", LINE);
    site.write("logs/b.zip", b"PK\x03\x04\x14\0\0\0\x08\0");
    let told = "logs/b.zip: cannot be read: it is a zip archive: unpack it";
    for command in ["run logs --data-dir data --until-end", "count logs", "count logs/b.zip"] {
        let ended = site.adtally(command);
        assert_eq!(ended.code, Some(1), "{command}: {}", ended.stderr);
        assert!(ended.stderr.contains(told), "{command}: {}", ended.stderr);
    }
    assert_eq!(site.ledger()["counted"], 1);
    let server = site.serve("logs");
    server.wait_readiness(200, told);
    // Its replacement is read.
    std::fs::remove_file(site.path("logs/b.zip")).unwrap();
    site.write("logs/b.zip", LINE.replace("\"u\"", "\"v\""));
    server.wait_read(2);
    assert!(!server.text("/readyz").1.contains("zip archive"));
    server.stop();
}
