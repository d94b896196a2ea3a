//! A writer of growing logs: writes in pieces that end anywhere, rotates by renaming, and compresses rotated files.

use crate::site::{Site, appending, gzip};
use std::collections::HashMap;
use std::io::Write;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

/// Lines after a cut that must not be old: after them, a new file's watermark is where the old one's was.
const SETTLING_LINES: usize = 64;

/// A line this much older than the newest line before it may be late, in milliseconds.
const OLD_MS: i64 = 240_000;

/// A log to be written.
pub(crate) struct Feed {
    /// The path of the growing file; rotated ones are `NAME.1`, then `NAME.2.gz` and so on.
    path: PathBuf,
    text: Vec<u8>,
    /// The offsets at which the text is cut into files, ascending.
    cuts: Vec<usize>,
    written: usize,
    rotated: u32,
}

impl Feed {
    /// Prepares to write `text` to `name` in files of about `file_bytes`.
    ///
    /// Each file is its own input, and its lines are judged late by their own input. So the text is cut where the next
    /// lines are recent, and the counts equal those of the undivided text.
    pub(crate) fn new(site: &Site, name: &str, text: Vec<u8>, file_bytes: usize) -> Feed {
        let path = site.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let cuts = cuts(&text, file_bytes);
        Feed { path, text, cuts, written: 0, rotated: 0 }
    }

    /// Whether everything is written.
    pub(crate) fn is_done(&self) -> bool {
        self.written == self.text.len()
    }

    /// The number of rotations so far.
    pub(crate) fn rotated(&self) -> u32 {
        self.rotated
    }

    /// Writes about `bytes` more bytes, and rotates where the text is cut.
    pub(crate) fn write(&mut self, bytes: usize) {
        let upto = self.text.len().min(self.written + bytes);
        while self.written < upto {
            let cut = self.cuts.get(self.rotated as usize).copied();
            let to = cut.map_or(upto, |cut| cut.min(upto));
            appending(&self.path).write_all(&self.text[self.written..to]).unwrap();
            self.written = to;
            if cut == Some(to) {
                self.rotate();
            }
        }
    }

    /// Writes the rest, `bytes` at a time with a pause after each.
    pub(crate) fn write_slowly(&mut self, bytes: usize, pause: Duration) {
        while !self.is_done() {
            self.write(bytes);
            sleep(pause);
        }
    }

    /// As `logrotate` with `delaycompress`: the file before the last is compressed, and all numbers increase by one.
    fn rotate(&mut self) {
        let numbered = |number: u32, more: &str| PathBuf::from(format!("{}.{number}{more}", self.path.display()));
        for number in (2..=self.rotated).rev() {
            std::fs::rename(numbered(number, ".gz"), numbered(number + 1, ".gz")).unwrap();
        }
        if self.rotated > 0 {
            gzip(&numbered(1, ""));
            std::fs::rename(numbered(1, ".gz"), numbered(2, ".gz")).unwrap();
        }
        std::fs::rename(&self.path, numbered(1, "")).unwrap();
        self.rotated += 1;
    }
}

fn cuts(text: &[u8], file_bytes: usize) -> Vec<usize> {
    let mut starts = vec![0];
    starts.extend(text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1));
    let times: Vec<Option<i64>> = starts.iter().map(|&at| event_time_ms(&text[at..])).collect();
    let (mut cuts, mut last, mut newest) = (Vec::new(), 0, 0);
    for (line, &at) in starts.iter().enumerate() {
        let after = &times[line..times.len().min(line + SETTLING_LINES)];
        let settles = after.len() == SETTLING_LINES && after.iter().flatten().all(|time| newest - time < OLD_MS);
        if at - last >= file_bytes && settles {
            cuts.push(at);
            last = at;
        }
        // Rejected lines may be months away.
        newest = times[line].filter(|time| newest == 0 || time - newest < OLD_MS).unwrap_or_default().max(newest);
    }
    cuts
}

/// The event time of a generated line, if it is complete.
fn event_time_ms(line: &[u8]) -> Option<i64> {
    let digits = line.strip_prefix(b"{\"click_timestamp\":")?;
    let end = digits.iter().position(|byte| *byte == b',')?;
    std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
}

/// The same log with every copy of a click equal to its first line. When files are read concurrently, any copy may be
/// the first, and its country is counted.
pub(crate) fn with_equal_copies(text: &[u8]) -> Vec<u8> {
    let mut firsts: HashMap<Vec<u8>, &[u8]> = HashMap::new();
    let mut equal = Vec::with_capacity(text.len());
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        equal.extend_from_slice(firsts.entry(without_country(line)).or_insert(line));
    }
    equal
}

fn without_country(line: &[u8]) -> Vec<u8> {
    const KEY: &[u8] = b"\"country\":";
    let Some(at) = line.windows(KEY.len()).position(|window| window == KEY) else { return line.to_vec() };
    let rest = &line[at + KEY.len()..];
    let end = rest.iter().position(|byte| b",}".contains(byte)).unwrap_or(rest.len());
    [&line[..at], &rest[end..]].concat()
}
