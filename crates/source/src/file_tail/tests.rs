//! Tailing real files in temporary folders.
//!
//! - [`following`]: growth, new files, rotation by rename and by copy, truncation, deletion
//! - [`restarting`]: files that were read before are recognized, whatever happened meanwhile
//! - [`compressing`]: gzip and zstd, whole, growing, cut short, corrupt, and copies of files that were read
//! - [`bounding`]: bounded runs
//! - [`preallocating`]: NUL bytes that are not written yet, or that a writer left
//! - [`random_operations`]: random writers against a tailer that is killed at random
//! - [`surviving`]: everything that must not stop the stream

mod bounding;
mod compressing;
mod following;
mod preallocating;
mod random_operations;
mod restarting;
mod surviving;

use super::*;
use crate::decode::DecodeSettings;
use crate::file_system::{FileStat, FileSystem, FolderWatch, LocalFiles, TailFile};
use adtally_model::{FileLog, InputLog, InputRow, InputStatus, Position};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// Added to the time of each look; nothing here waits.
const SECOND: i64 = 1_000;

/// A file system that rejects large reads.
struct Sparing;

struct SparingFile(Box<dyn TailFile>);

/// Far more than a block of these tests or a step of a decompressor, far less than the longest line that is skipped.
const PIECE_BYTES_MAX: usize = 1 << 20;

impl FileSystem for Sparing {
    fn list(&self, folder: &Path) -> io::Result<Vec<OsString>> {
        LocalFiles.list(folder)
    }

    fn stat(&self, path: &Path) -> io::Result<FileStat> {
        LocalFiles.stat(path)
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn TailFile>> {
        Ok(Box::new(SparingFile(LocalFiles.open(path)?)))
    }

    fn watch(&self) -> Option<Box<dyn FolderWatch>> {
        LocalFiles.watch()
    }
}

impl TailFile for SparingFile {
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        assert!(buffer.len() <= PIECE_BYTES_MAX, "{} bytes are asked for at once", buffer.len());
        self.0.read_at(offset, buffer)
    }

    fn stat(&self) -> io::Result<FileStat> {
        self.0.stat()
    }
}

/// A folder, a tailer on it, and its results.
struct Rig {
    folder: TempDir,
    settings: TailSettings,
    patterns: Vec<String>,
    tailer: Tailer,
    now_ms: i64,
    /// Text by input.
    text: BTreeMap<u64, String>,
    /// Inputs that have ended, for the rows of a restart.
    ended: BTreeSet<u64>,
    /// Start positions of inputs that were read before.
    started: BTreeMap<u64, u64>,
    /// The position of each input.
    positions: BTreeMap<u64, u64>,
    /// NUL bytes after blocks, by input.
    nul_bytes: BTreeMap<u64, u64>,
}

fn tail_settings() -> TailSettings {
    let decode = DecodeSettings { line_bytes_max: 1024, ..DecodeSettings::default() };
    TailSettings { decode: Arc::new(decode), block_bytes: 2048, ..TailSettings::default() }
}

impl Rig {
    /// Tails the folder.
    fn new() -> Rig {
        Rig::with(tail_settings(), &[""], |_| {})
    }

    /// Prepares the folder, then tails the files that the patterns name, relative to it.
    fn with(settings: TailSettings, patterns: &[&str], prepare: impl FnOnce(&Path)) -> Rig {
        let folder = tempfile::tempdir().expect("a folder");
        prepare(folder.path());
        let path = |pattern: &&str| folder.path().join(pattern).to_string_lossy().trim_end_matches('/').to_owned();
        let patterns: Vec<String> = patterns.iter().map(path).collect();
        let tailer = Tailer::new(Box::new(Sparing), settings.clone(), &patterns, Vec::new(), 1).expect("a tailer");
        let (text, ended, started, positions, nul_bytes) = Default::default();
        Rig { folder, settings, patterns, tailer, now_ms: 0, text, ended, started, positions, nul_bytes }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn append(&self, name: &str, text: impl AsRef<[u8]>) {
        append(&self.path(name), text);
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).expect("renamed");
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).expect("removed");
    }

    /// Looks, then reads everything; returns the events as words, and adds the text to `self.text`.
    fn poll(&mut self) -> Vec<String> {
        let events = self.look();
        self.read_all();
        events
    }

    /// Polls after this many seconds.
    fn poll_after(&mut self, seconds: i64) -> Vec<String> {
        self.now_ms += seconds * SECOND;
        self.poll()
    }

    fn look(&mut self) -> Vec<String> {
        let folder = format!("{}/", self.folder.path().display());
        let events = self.tailer.discover(self.now_ms).expect("a look");
        let in_words = |event: Discovery| match event {
            Discovery::Found { facts, position } => {
                assert_eq!(position, 0);
                format!("found {} {} {}", facts.input, facts.name.replace(&folder, ""), facts.generation)
            }
            Discovery::Continued { input } => format!("continued {input}"),
            Discovery::Renamed { input, name } => format!("renamed {input} {}", name.replace(&folder, "")),
            Discovery::Resumed { input } => {
                self.ended.remove(&input.0);
                format!("resumed {input}")
            }
            Discovery::Ended { input } => {
                self.ended.insert(input.0);
                format!("ended {input}")
            }
            Discovery::Gap { input, bytes, .. } => {
                self.tailer.gap_booked(input);
                format!("gap {input} {bytes}")
            }
            Discovery::LostOffsets { .. } => panic!("a file has no offsets"),
        };
        events.into_iter().map(in_words).collect()
    }

    fn read_all(&mut self) {
        let ids: Vec<InputId> = self.tailer.inputs.keys().copied().collect();
        for id in ids {
            while self.read_once(id) {}
        }
    }

    /// Reads a block; returns false at the end.
    fn read_once(&mut self, id: InputId) -> bool {
        match self.tailer.read(id, self.now_ms).expect("an input") {
            ReadOutcome::Block(block) => {
                let text = self.text.entry(id.0).or_default();
                let position = self.positions.entry(id.0).or_default();
                assert_eq!(block.from, *position, "blocks are contiguous");
                *position = block.to;
                assert!(block.text.len() <= PIECE_BYTES_MAX, "a block of {} bytes", block.text.len());
                if !block.overlong {
                    assert_eq!(block.to - block.from, block.text.len() as u64 + block.nul_bytes);
                    *self.nul_bytes.entry(id.0).or_default() += block.nul_bytes;
                    text.push_str(&String::from_utf8_lossy(&block.text));
                } else {
                    text.push_str("<overlong>");
                }
                true
            }
            ReadOutcome::Busy => true,
            ReadOutcome::AtEnd | ReadOutcome::Ended | ReadOutcome::Unreadable(_) | ReadOutcome::Waits => false,
        }
    }

    fn text(&self, input: u64) -> &str {
        self.text.get(&input).map_or("", String::as_str)
    }

    /// The rows of the epoch log, if everything that was read had been committed.
    fn rows(&mut self) -> Vec<Arc<InputRow>> {
        let ids: Vec<InputId> = self.tailer.inputs.keys().copied().collect();
        ids.into_iter().map(|id| self.row(id).into()).collect()
    }

    fn row(&mut self, id: InputId) -> InputRow {
        let position = self.tailer.inputs[&id].text.position;
        let facts = self.tailer.facts(id, position, None).expect("an input");
        let file = FileLog {
            fingerprint: facts.fingerprint,
            generation: facts.generation,
            csv_header: facts.csv_header,
            compressed: facts.compressed,
            size: facts.size,
            position: Position::at(position),
        };
        InputRow {
            log: InputLog::File(file),
            status: if self.ended.contains(&id.0) { InputStatus::Ended } else { InputStatus::Holding },
            ..InputRow::new(id, facts.name, facts.generation)
        }
    }

    /// Stops, changes the files, and restarts from the rows of the epoch log.
    fn restart(&mut self, meanwhile: impl FnOnce(&Path)) {
        let rows = self.rows();
        self.started = rows.iter().map(|row| (row.id.0, row.position().to)).collect();
        self.positions.clone_from(&self.started);
        self.text.clear();
        // Files are closed before they are changed.
        let patterns = self.patterns.clone();
        let nothing = self.folder.path().join("*.none").to_string_lossy().into_owned();
        self.tailer =
            Tailer::new(Box::new(Sparing), self.settings.clone(), &[nothing], Vec::new(), 1).unwrap_or_else(|_| {
                let unbounded = TailSettings { bounded: false, ..self.settings.clone() };
                let nothing = vec![self.folder.path().join("*.none").to_string_lossy().into_owned()];
                Tailer::new(Box::new(Sparing), unbounded, &nothing, Vec::new(), 1).expect("an idle tailer")
            });
        meanwhile(self.folder.path());
        self.tailer = Tailer::new(Box::new(Sparing), self.settings.clone(), &patterns, rows, 1).expect("a tailer");
    }
}

fn append(path: &Path, text: impl AsRef<[u8]>) {
    let mut file = fs::OpenOptions::new().create(true).append(true).open(path).expect("a file");
    file.write_all(text.as_ref()).expect("written");
}

/// Lines that show their owner and their number.
fn lines(whose: &str, range: std::ops::Range<usize>) -> String {
    range.map(|number| format!("{{\"line\":\"{whose}-{number:06}\"}}\n")).collect()
}

fn gzip(text: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text.as_ref()).expect("encoded");
    encoder.finish().expect("encoded")
}

fn zstandard(text: impl AsRef<[u8]>) -> Vec<u8> {
    zstd::stream::encode_all(text.as_ref(), 1).expect("encoded")
}
