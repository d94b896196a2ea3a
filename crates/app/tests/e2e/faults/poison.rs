//! A corpus of broken files: none of them stops the run, and every line is accounted for.

use super::{START, UNREADABLE, check, click, clicks};
use crate::site::{Site, gzip};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::symlink;

/// The binary, its libraries, a block per thread and the windows of a few decompressors.
const MEMORY_MIB_MAX: u64 = 400;

/// A gigabyte without a newline.
const GIGABYTE: u64 = 1 << 30;

/// The expected verdicts of the corpus.
#[derive(Default)]
struct Verdicts {
    counted: String,
    malformed: u64,
    invalid: u64,
}

impl Verdicts {
    /// Writes a file and adds its expected verdicts.
    fn file(&mut self, site: &Site, name: &str, bytes: impl AsRef<[u8]>, malformed: u64, counted: &str) {
        site.write(&format!("logs/{name}"), bytes);
        self.malformed += malformed;
        self.counted += counted;
    }
}

fn one(user: i64) -> String {
    click(START + user, user)
}

/// Files with broken lines only, or broken lines among clicks.
fn write_poison(site: &Site, verdicts: &mut Verdicts) {
    let bytes = |parts: &[&[u8]]| parts.concat();
    verdicts.file(site, "nul.log", bytes(&[&[0; 100_000], b"\n", one(1).as_bytes()]), 0, &one(1));
    verdicts.file(
        site,
        "bom.log",
        bytes(&[b"\xef\xbb\xbf", one(2).as_bytes(), b"\xef\xbb\xbf", one(3).as_bytes()]),
        1,
        &one(2),
    );
    verdicts.file(site, "utf8.log", bytes(&[b"{\"user_id\":\"\xc3\x28\"}\n", one(5).as_bytes()]), 1, &one(5));
    let (open, close) = ("[".repeat(30_000), "]".repeat(30_000));
    verdicts.file(site, "deep.log", format!("{open}{close}\n{{\"a\":{open}{close}}}\n{}", one(6)), 1, &one(6));
    // A deeply nested object in an unused field leaves an object without the required fields.
    verdicts.invalid += 1;
    verdicts.file(site, "half.log", bytes(&[one(7).as_bytes(), &one(8).as_bytes()[..50]]), 0, &one(7));
    verdicts.file(site, "empty.log", "", 0, "");
    verdicts.file(site, "newlines.log", "\n\r\n\n", 0, "");
    verdicts.file(site, "numbers.log", format!("NaN\n1e999\n-0\n\"\"\n{}", one(9)), 4, &one(9));
    verdicts.file(site, "binary.log.gz", [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3][..], &[0xff; 50]].concat(), 0, "");
    verdicts.file(site, "header.log.gz", b"\x1f\x8b\x08", 0, "");
    verdicts.file(site, "late-magic.log.zst", one(10), 0, &one(10));
}

/// Complete clicks, except that one number is not a number or not allowed for its field.
fn write_poisoned_fields(site: &Site, verdicts: &mut Verdicts) {
    let broken = ["", "NaN", "-Infinity", "+1", "-", "01", "1.", ".5", "1e", "0x10", "nul", "'1'", "[1", "{\"a\":}"];
    let wrong = ["1e999", "1.5", "-1", "null", "true", "[]", "{}", "\"\"", "\"NaN\""];
    // Truncated to 64 bits, it equals the number that it replaces.
    let huge = |number: i64| ((1_u128 << 64) + number as u128).to_string();
    let mut text = String::new();
    for (field, number) in [("click_timestamp", START + 21), ("ad_id", 0)] {
        let good = format!("\"{field}\":{number},");
        assert!(one(21).contains(&good));
        let values = broken.into_iter().chain(wrong).map(str::to_owned).chain([huge(number)]);
        text.extend(values.map(|value| one(21).replace(&good, &format!("\"{field}\":{value},"))));
    }
    verdicts.file(site, "fields.log", text, 2 * broken.len() as u64, "");
    verdicts.invalid += 2 * (wrong.len() as u64 + 1);
}

/// Large files: sparse ones, and decompression bombs. Their NUL bytes are not lines.
fn write_large(site: &Site, verdicts: &mut Verdicts) {
    let long = File::create(site.path("logs/long.log")).unwrap();
    long.set_len(GIGABYTE).unwrap();
    drop(long);
    let mut long = OpenOptions::new().append(true).open(site.path("logs/long.log")).unwrap();
    long.write_all(format!("\n{}", one(11)).as_bytes()).unwrap();
    let mut bomb = File::create(site.path("bomb.log")).unwrap();
    bomb.write_all(one(12).as_bytes()).unwrap();
    bomb.set_len(GIGABYTE / 4).unwrap();
    drop(bomb);
    site.append("bomb.log", format!("\n{}", one(13)));
    gzip(&site.path("bomb.log"));
    assert!(fs::metadata(site.path("bomb.log.gz")).unwrap().len() < GIGABYTE / 1_000, "a bomb is small");
    fs::rename(site.path("bomb.log.gz"), site.path("logs/bomb.log.gz")).unwrap();
    verdicts.counted += &(one(11) + &one(12) + &one(13));
}

/// Not files to read: folders, pipes, symbolic link loops, dead links, unreadable files, and a path through a file.
fn write_no_files(site: &Site) {
    site.write("logs/folder.log/inner.log", one(90));
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    let made = rustix::fs::mknodat(rustix::fs::CWD, site.path("logs/pipe.log"), rustix::fs::FileType::Fifo, mode, 0);
    made.unwrap();
    for (link, to) in [
        ("loop-a.log", "loop-b.log"),
        ("loop-b.log", "loop-a.log"),
        ("self.log", "self.log"),
        ("nowhere.log", "gone/away"),
        ("through.log", "good.log/inner"),
        ("unreadable.log", UNREADABLE),
        ("memory.log", "/proc/self/mem"),
        ("device.log", "/dev/zero"),
    ] {
        symlink(to, site.path("logs").join(link)).unwrap();
    }
}

/// Every kind of broken file at once: the good ones beside them are counted while they grow, every line of the broken
/// ones has its verdict, what is no file is told by name, and memory stays bounded.
#[test]
fn fault_25_and_26_and_27_a_corpus_of_poison_stops_nothing() {
    let site = Site::new();
    let mut verdicts = Verdicts::default();
    verdicts.file(&site, "good.log", clicks(1_000..1_100), 0, &clicks(1_000..1_100));
    write_poison(&site, &mut verdicts);
    write_poisoned_fields(&site, &mut verdicts);
    write_large(&site, &mut verdicts);
    write_no_files(&site);
    site.write("adtally.toml", "[epoch]\ninterval = \"200ms\"\n[time]\nidle_timeout = \"1s\"\n");
    let server = site.serve("logs/* --config adtally.toml");
    // A good file grows while the others are read.
    for part in 11..16 {
        let more = clicks(part * 100..part * 100 + 100);
        site.append("logs/good.log", &more);
        verdicts.counted += &more;
    }
    let lines = verdicts.counted.lines().count() as u64 + verdicts.malformed + verdicts.invalid;
    server.wait_read(lines);
    for name in ["folder.log", "pipe.log", "loop-a.log", "self.log", "device.log", "binary.log.gz", "unreadable.log"] {
        server.wait_readiness(200, name);
    }
    assert!(server.memory_mib_max() < MEMORY_MIB_MAX, "{} MiB", server.memory_mib_max());
    let said = server.stop();
    assert!(!said.contains("panic"), "{said}");
    let ledger = check(&site, &verdicts.counted, &[("malformed", verdicts.malformed), ("invalid", verdicts.invalid)]);
    let half =
        ledger["inputs"].as_array().unwrap().iter().find(|row| row["name"].as_str().unwrap().ends_with("half.log"));
    assert_eq!(half.unwrap()["position"], one(7).len() as u64, "half a line waits");
}
