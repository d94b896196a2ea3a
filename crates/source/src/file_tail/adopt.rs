//! A file that was found becomes that of an input: of one that it continues, or of a new one.

use super::fingerprint::{Excerpt, HEAD_BYTES};
use super::input::{Input, Stage};
use super::open_file::OpenFile;
use super::outcome::Discovery;
use super::probe::Probe;
use super::step::half_line;
use super::tailer::Tailer;
use adtally_model::InputId;
use std::path::Path;
use std::sync::Arc;

impl Tailer {
    /// Notes where an input's file is listed now.
    pub(super) fn rename(&mut self, id: InputId, path: &Path, found: &mut Vec<Discovery>) {
        let Some(input) = self.inputs.get_mut(&id) else { return };
        input.place = Some(path.to_owned());
        let name = path.to_string_lossy();
        self.generations.entry(path.to_owned()).or_insert(input.generation);
        if *input.name != *name {
            self.troubles.clear(&input.name);
            input.rotated = true;
            input.name = name.as_ref().into();
            if input.half > 0 {
                self.troubles.hold(&name, half_line(input));
            }
            found.push(Discovery::Renamed { input: id, name: Arc::clone(&input.name) });
        }
    }

    /// A file continues an input.
    pub(super) fn adopt(&mut self, id: InputId, path: &Path, probe: &Probe, now_ms: i64, found: &mut Vec<Discovery>) {
        self.rename(id, path, found);
        // It may hold more than the file that it had, which was perhaps quiet.
        self.woken.push(id);
        let bounded = self.settings.bounded;
        let Some(input) = self.inputs.get_mut(&id) else { return };
        input.gap_booked();
        let was_compressed = input.compressed;
        input.stat = Some(probe.stat);
        input.file = None;
        input.settled = None;
        input.overlong = None;
        input.unlisted = false;
        (input.half, input.incomplete, input.restarted) = (0, false, false);
        input.changed_at_ms = now_ms;
        if was_compressed != probe.compression.is_some() {
            // A limit counts bytes on disk, which are others once the file is compressed.
            input.limit = None;
        }
        // A copy may be longer than what was there to be read when the run began.
        input.limit = bounded.then(|| input.limit.unwrap_or(probe.stat.len));
        let more = if probe.compression.is_some() {
            // Of the length that it had when it was read to its end, it has nothing new.
            let more = !(was_compressed && input.size == probe.stat.len);
            input.begin_compressed(probe.stat.len);
            more
        } else {
            // A last line without end is not read again before it has grown. What was known of a compressed file's size
            // says nothing of its text.
            let known = if was_compressed { input.position } else { input.size.max(input.position) };
            input.compressed = false;
            input.unwritten_from = Some(known_text_len(probe)).filter(|&text| text < probe.stat.len);
            input.size = known.max(input.end(input.text_len()));
            input.end(probe.stat.len) != known
        };
        if input.head.bytes.is_empty() && input.head.begins(&probe.head) {
            input.head = Excerpt::of(probe.head.clone());
        }
        match input.stage {
            Stage::Active => {}
            Stage::Lost(_) => input.stage = Stage::Active,
            Stage::Ended if more => {
                input.stage = Stage::Active;
                input.done = false;
                found.push(Discovery::Resumed { input: id });
            }
            Stage::Ended => {}
        }
        if input.stage == Stage::Ended && !input.compressed && input.size > input.position {
            input.half = input.size - input.position;
            self.troubles.hold(&input.name, half_line(input));
        }
        if input.stage == Stage::Active {
            input.begun_at = Some(if input.compressed { 0 } else { input.position });
        }
        if input.stage == Stage::Active || !(input.compressed || input.rotated || bounded) {
            self.open_at(id, path, now_ms);
        }
    }

    /// A file is a new input.
    pub(super) fn begin(&mut self, path: &Path, probe: &Probe, now_ms: i64, found: &mut Vec<Discovery>) {
        let id = InputId(self.next_input);
        self.next_input += 1;
        let generation = self.generations.get(path).map_or(0, |generation| generation + 1);
        self.generations.insert(path.to_owned(), generation);
        let mut input = Input::new(id, path.to_string_lossy().into(), generation);
        input.place = Some(path.to_owned());
        input.stat = Some(probe.stat);
        input.compressed = probe.compression.is_some();
        input.head = Excerpt::of(probe.head.clone());
        input.changed_at_ms = now_ms;
        input.limit = self.settings.bounded.then_some(probe.stat.len);
        input.begun_at = Some(0);
        input.size = known_text_len(probe);
        input.unwritten_from = Some(input.size).filter(|_| !input.compressed && input.size < probe.stat.len);
        self.learn_header(path, &probe.head);
        if probe.head.first() != Some(&b'{') {
            input.csv_header = self.header_for(path);
        }
        found.push(Discovery::Found { facts: input.facts(0), position: 0 });
        self.inputs.insert(id, Box::new(input));
        self.open_at(id, path, now_ms);
    }

    /// Holds a file open from the moment it is known, so that it can be read to its end whatever becomes of its name.
    fn open_at(&mut self, id: InputId, path: &Path, now_ms: i64) {
        let inode = self.inputs.get(&id).and_then(|input| input.stat).map(|stat| stat.inode);
        if let Ok(file) = self.fs.open(path)
            && file.stat().is_ok_and(|stat| Some(stat.inode) == inode)
        {
            self.uses += 1;
            let used = self.uses;
            self.hold_open(id, OpenFile { file, stream: None, used, used_at_ms: now_ms });
        }
    }
}

/// The length of a file's text as far as its beginning tells: NUL bytes there are perhaps not written yet.
fn known_text_len(probe: &Probe) -> u64 {
    let (text, len) = (probe.head.len() as u64, probe.stat.len);
    if probe.compression.is_none() && text < len.min(HEAD_BYTES as u64) { text } else { len }
}
