//! Assigns a found file to an input: to one that it continues, or to a new one.

use super::fingerprint::{Excerpt, HEAD_BYTES};
use super::input::Input;
use super::layout::Header;
use super::on_disk::{Coding, OnDisk, Place};
use super::open_file::OpenFile;
use super::outcome::Discovery;
use super::probe::Probe;
use super::stage::Adopted;
use super::step::half_line;
use super::tailer::Tailer;
use adtally_model::InputId;
use std::path::Path;
use std::sync::Arc;

impl Tailer {
    /// Notes the path at which an input's file is listed now.
    pub(super) fn rename(&mut self, id: InputId, path: &Path, found: &mut Vec<Discovery>) {
        let Some(input) = self.inputs.get_mut(&id) else { return };
        input.disk.place = Place::Listed(path.to_owned());
        let name = path.to_string_lossy();
        self.generations.entry(path.to_owned()).or_insert(input.generation);
        if *input.name != *name {
            self.warnings.clear(&input.name);
            input.disk.rotated = true;
            input.name = name.as_ref().into();
            if input.text.half > 0 {
                self.warnings.hold(&name, half_line(input));
            }
            found.push(Discovery::Renamed { input: id, name: Arc::clone(&input.name) });
        }
    }

    /// Makes a file the continuation of an input.
    pub(super) fn adopt(
        &mut self,
        id: InputId,
        path: &Path,
        probe: &Probe,
        now_ms: i64,
        found: &mut Vec<Discovery>,
    ) -> Adopted {
        self.rename(id, path, found);
        // It may contain more than the previous file, which may have been quiet.
        self.woken.push(id);
        let bounded = self.settings.bounded;
        let Some(input) = self.inputs.get_mut(&id) else { return Adopted::GoesOn };
        input.gap_booked();
        input.file = None;
        (input.text.overlong, input.text.half) = (None, 0);
        let more = take_file(input, probe, bounded, now_ms);
        if input.text.head.bytes.is_empty() && input.text.head.begins(&probe.head) {
            input.text.head = Excerpt::of(probe.head.clone());
        }
        let adopted = input.stage.adopt(more);
        if adopted == Adopted::Resumed {
            found.push(Discovery::Resumed { input: id });
        }
        let compressed = input.disk.is_compressed();
        if input.stage.is_ended() && !compressed && input.size.largest > input.text.position {
            input.text.half = input.size.largest - input.text.position;
            self.warnings.hold(&input.name, half_line(input));
        }
        let is_active = input.stage.is_active();
        if is_active {
            input.size.begun_at = Some(if compressed { 0 } else { input.text.position });
        }
        if is_active || !(compressed || input.disk.rotated || bounded) {
            self.open_at(id, path, now_ms);
        }
        adopted
    }

    /// Makes a file a new input.
    pub(super) fn begin(&mut self, path: &Path, probe: &Probe, now_ms: i64, found: &mut Vec<Discovery>) {
        let id = InputId(self.next_input);
        self.next_input += 1;
        let generation = self.generations.get(path).map_or(0, |generation| generation + 1);
        self.generations.insert(path.to_owned(), generation);
        let mut input = Input::new(id, path.to_string_lossy().into(), generation);
        let size = known_text_len(probe);
        input.disk = OnDisk {
            place: Place::Listed(path.to_owned()),
            stat: Some(probe.stat),
            coding: match probe.compression {
                Some(_) => Coding::Compressed { consumed: 0, restarted: false },
                None => {
                    Coding::Plain { unwritten_from: Some(size).filter(|&size| size < probe.stat.len), nul_scan: None }
                }
            },
            changed_at_ms: now_ms,
            limit: self.settings.bounded.then_some(probe.stat.len),
            ..OnDisk::default()
        };
        input.text.head = Excerpt::of(probe.head.clone());
        (input.size.largest, input.size.begun_at) = (size, Some(0));
        self.learn_header(path, &probe.head);
        if probe.head.first() != Some(&b'{') {
            input.layout.header = Header::of(self.header_for(path));
        }
        found.push(Discovery::Found { facts: input.facts(0), position: 0 });
        self.inputs.insert(id, Box::new(input));
        self.open_at(id, path, now_ms);
    }

    /// Opens a file as soon as it is known, so that it can be read to its end even if it is renamed or deleted.
    fn open_at(&mut self, id: InputId, path: &Path, now_ms: i64) {
        let inode = self.inputs.get(&id).and_then(|input| input.disk.stat).map(|stat| stat.inode);
        if let Ok(file) = self.fs.open(path)
            && file.stat().is_ok_and(|stat| Some(stat.inode) == inode)
        {
            self.uses += 1;
            let used = self.uses;
            self.hold_open(id, OpenFile { file, stream: None, used, used_at_ms: now_ms });
        }
    }
}

/// Notes the facts about an input's new file; returns whether it contains more than was known.
fn take_file(input: &mut Input, probe: &Probe, bounded: bool, now_ms: i64) -> bool {
    let was_compressed = input.disk.is_compressed();
    input.disk.stat = Some(probe.stat);
    input.disk.changed_at_ms = now_ms;
    if was_compressed != probe.is_compressed() {
        // A limit counts bytes on disk, and compression changes their number.
        input.disk.limit = None;
    }
    // A copy may be longer than the text that existed when the run began.
    input.disk.limit = bounded.then(|| input.disk.limit.unwrap_or(probe.stat.len));
    if probe.is_compressed() {
        // If its length is that at which it was read to its end, it contains nothing new.
        let more = !(was_compressed && input.size.largest == probe.stat.len);
        input.begin_compressed(probe.stat.len);
        return more;
    }
    // An unterminated last line is not read again before it grows. The known size of a compressed file says nothing
    // about the length of its text.
    let position = input.text.position;
    let known = if was_compressed { position } else { input.size.largest.max(position) };
    if was_compressed {
        input.disk.coding = Coding::default();
    }
    input.disk.set_unwritten_from(Some(known_text_len(probe)).filter(|&text| text < probe.stat.len));
    input.size.largest = known.max(input.disk.end(input.disk.text_len()));
    input.disk.end(probe.stat.len) != known
}

/// The length of a file's text as far as its beginning shows: NUL bytes there may not be written yet.
fn known_text_len(probe: &Probe) -> u64 {
    let (text, len) = (probe.head.len() as u64, probe.stat.len);
    if probe.compression.is_none() && text < len.min(HEAD_BYTES as u64) { text } else { len }
}
