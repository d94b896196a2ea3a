//! Files that belong to no input yet: which input each continues, or that it is a new one.

use super::compressed::{Compression, Inflated, Inflater, Magic, magic};
use super::discover::Files;
use super::fingerprint::{Excerpt, HEAD_BYTES, hash};
use super::input::{Input, OpenFile, Stage};
use super::patterns::Listing;
use super::read::half_line;
use super::settle::is_continued;
use super::{Discovery, Tailer};
use crate::block::Format;
use crate::decode::foreign::{self, Foreign};
use crate::decode::{FormatChoice, format};
use crate::file_system::{FileStat, TailFile, read_range};
use adtally_model::InputId;
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Inputs tried for one file at most: so many agree in their first bytes only where these say nothing.
const CANDIDATES_MAX: usize = 64;

/// Live files whose first bytes are read again to compare them with a short compressed file.
const RECALLED_MAX: usize = 1_024;

/// Rotated files that are opened at most for the header of the log that they were rotated from.
const ROTATED_MAX: usize = 16;

/// What the beginning of a file says.
#[derive(Debug)]
pub(super) struct Probe {
    stat: FileStat,
    compression: Option<Compression>,
    /// First bytes of its text.
    head: Vec<u8>,
    /// Whether there is too little to tell what it is.
    undecided: bool,
    /// What it is if it is no log: it is set aside as long as it stays as it is.
    foreign: Option<Foreign>,
    /// Since when it has looked like this, in monotonic milliseconds.
    since_ms: i64,
}

impl Probe {
    /// The first bytes of the text.
    pub(super) fn head(&self) -> &[u8] {
        &self.head
    }

    /// Whether the file is compressed.
    pub(super) fn is_compressed(&self) -> bool {
        self.compression.is_some()
    }

    /// Whether waiting alone may tell more.
    pub(super) fn is_undecided(&self) -> bool {
        self.undecided
    }
}

/// Inputs by their first bytes.
#[derive(Default)]
struct HeadIndex {
    lens: BTreeSet<usize>,
    by_hash: HashMap<(usize, u64), Vec<InputId>>,
}

impl HeadIndex {
    fn insert(&mut self, input: &Input) {
        self.lens.insert(input.head.len);
        self.by_hash.entry((input.head.len, input.head.hash)).or_default().push(input.id);
    }

    /// Inputs whose first bytes are those of a text.
    fn candidates(&self, text: &[u8]) -> impl Iterator<Item = InputId> {
        let lens = self.lens.range(..=text.len()).rev();
        lens.filter_map(|&len| self.by_hash.get(&(len, hash(&text[..len])))).flatten().copied()
    }
}

impl Tailer {
    pub(super) fn identify(&mut self, files: &Files, listing: &mut Listing, now_ms: i64, found: &mut Vec<Discovery>) {
        let owned: HashSet<PathBuf> = self.inputs.values().filter_map(|input| input.place.clone()).collect();
        let mut waiting = std::mem::take(&mut self.waiting);
        let mut plain = Vec::new();
        let mut compressed = Vec::new();
        for (path, stat) in files.by_path.iter().filter(|(path, stat)| stat.len > 0 && !owned.contains(*path)) {
            let Some(probe) = self.probe(path, *stat, waiting.remove(path), now_ms, listing) else { continue };
            match probe.compression {
                _ if probe.undecided || probe.foreign.is_some() => drop(self.waiting.insert(path.clone(), probe)),
                Some(_) => compressed.push((path.clone(), probe)),
                None => plain.push((path.clone(), probe)),
            }
        }
        // Plain ones first: a compressed copy of one must not be opened beside it.
        self.assign(plain, listing, now_ms, found);
        if !compressed.is_empty() {
            let compressed = self.without_shadowed(compressed);
            self.assign(compressed, listing, now_ms, found);
        }
        for (id, input) in self.inputs.iter_mut().filter(|(_, input)| input.restored && input.place.is_some()) {
            input.restored = false;
            if input.stage == Stage::Active && !found.contains(&Discovery::Resumed { input: *id }) {
                found.push(Discovery::Continued { input: *id });
            }
        }
    }

    /// Files that are no logs, and what each is: they are not read. Each is a warning too.
    pub fn foreign(&self) -> impl Iterator<Item = String> {
        let foreign = |(path, probe): (&PathBuf, &Probe)| Some(cannot_be_read(&path.to_string_lossy(), probe.foreign?));
        self.waiting.iter().filter_map(foreign)
    }

    /// Looks at the beginning of a file, unless it still is as it was.
    fn probe(
        &mut self,
        path: &Path,
        stat: FileStat,
        before: Option<Probe>,
        now_ms: i64,
        listing: &mut Listing,
    ) -> Option<Probe> {
        let wait_ms = self.settings.incomplete_wait_ms;
        let mut since_ms = now_ms;
        if let Some(before) = before
            && before.stat == stat
        {
            let over = now_ms.saturating_sub(before.since_ms) >= wait_ms;
            if !before.undecided || !over {
                return Some(before);
            }
            since_ms = before.since_ms;
        }
        let last = self.settings.bounded || now_ms.saturating_sub(since_ms) >= wait_ms;
        let name = path.to_string_lossy();
        match self.fs.open(path).and_then(|mut file| probe_file(file.as_mut(), last)) {
            Ok((compression, head, undecided)) => {
                let foreign = if compression.is_some() { foreign::of_text(&head) } else { foreign::of_file(&head) };
                match foreign {
                    Some(foreign) => self.troubles.hold(&name, cannot_be_read(&name, foreign)),
                    None => self.troubles.clear(&name),
                }
                Some(Probe { stat, compression, head, undecided, foreign, since_ms })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                self.troubles.hold(&name, format!("{name}: cannot be read: {error}"));
                listing.fail(path, &error);
                None
            }
        }
    }

    /// Looks at the beginning of a file that nobody named; what cannot be read of it is of no interest.
    pub(super) fn probe_once(&self, path: &Path, stat: FileStat, now_ms: i64) -> Option<Probe> {
        let mut file = self.fs.open(path).ok()?;
        let (compression, head, undecided) = probe_file(file.as_mut(), true).ok()?;
        Some(Probe { stat, compression, head, undecided, foreign: None, since_ms: now_ms })
    }

    /// Sets aside compressed files whose text is the beginning of a live path's: they are what that is rotated into.
    fn without_shadowed(&mut self, probes: Vec<(PathBuf, Probe)>) -> Vec<(PathBuf, Probe)> {
        let is_live = |input: &&Input| {
            let live = input.place.is_some() || (input.file.is_some() && input.stage == Stage::Active);
            live && !input.compressed && (!input.head.bytes.is_empty() || input.head.len == HEAD_BYTES)
        };
        let short = |(_, probe): &(PathBuf, Probe)| (1..HEAD_BYTES).contains(&probe.head.len());
        if probes.iter().any(short) {
            self.recall_heads();
        }
        let live: Vec<&Excerpt> =
            self.inputs.values().map(Box::as_ref).filter(is_live).map(|input| &input.head).collect();
        let whole: HashSet<u64> = live.iter().filter(|head| head.len == HEAD_BYTES).map(|head| head.hash).collect();
        let (shadowed, open): (Vec<_>, Vec<_>) = probes.into_iter().partition(|(_, probe)| {
            let head = &probe.head;
            match head.len() {
                0 => false,
                HEAD_BYTES => whole.contains(&hash(head)),
                _ => live.iter().any(|live| live.bytes.starts_with(head)),
            }
        });
        for (path, probe) in shadowed {
            // With a CSV header that long, all files begin alike.
            let only_a_line = probe.head.len() == HEAD_BYTES && !probe.head.contains(&b'\n');
            if self.settings.bounded || only_a_line {
                let name = path.display();
                let message = format!("{name}: not opened, since it begins like a file that is still there");
                self.troubles.set_for(&path, message);
            }
            self.waiting.insert(path, probe);
        }
        open
    }

    /// Reads the first bytes of live files again that were given back, of some of them: a shorter text has to be compared
    /// byte by byte. A copy that is not recognised for want of them is read beside its original, which does no harm.
    fn recall_heads(&mut self) {
        let given_back = |input: &&mut Input| input.head.bytes.is_empty() && input.head.len > 0 && !input.compressed;
        for input in self.inputs.values_mut().map(Box::as_mut).filter(given_back).take(RECALLED_MAX) {
            let Some(place) = &input.place else { continue };
            if let Ok(mut file) = self.fs.open(place)
                && let Ok(head) = read_range(file.as_mut(), 0, HEAD_BYTES)
                && input.head.begins(&head)
            {
                input.head = Excerpt::of(head);
            }
        }
    }

    /// Gives each file to the input that it continues, or makes it a new one.
    fn assign(
        &mut self,
        probes: Vec<(PathBuf, Probe)>,
        listing: &mut Listing,
        now_ms: i64,
        found: &mut Vec<Discovery>,
    ) {
        // A bounded run takes no new files after the first look, but those that it kept from being looked at.
        let first = self.listing.as_ref().filter(|_| self.settings.bounded);
        let is_sealed = |(path, _): &(PathBuf, Probe)| first.is_some_and(|listing| !listing.is_unknown(path));
        let sealed: Vec<bool> = probes.iter().map(is_sealed).collect();
        let mut taken: HashSet<InputId> = HashSet::new();
        let mut given = vec![false; probes.len()];
        let mut waits = sealed.clone();
        for (at, id) in self.pairs(&probes, &sealed) {
            let (path, probe) = &probes[at];
            if given[at] || taken.contains(&id) {
                continue;
            }
            let Some(input) = self.inputs.get_mut(&id) else { continue };
            if probe.compression.is_none() && probe.stat.len < input.position {
                // Perhaps it is a copy that is still being made.
                waits[at] |= matches!(input.stage, Stage::Lost(_)) && !self.settings.bounded;
                continue;
            }
            match continues(self.fs.open(path), probe, input) {
                Ok(true) => {
                    (given[at], _) = (true, taken.insert(id));
                    self.adopt(id, path, probe, now_ms, found);
                }
                Ok(false) => {}
                Err(error) => {
                    // Whether it is this input's is not known: both wait.
                    (waits[at], _) = (true, taken.insert(id));
                    let name = path.to_string_lossy();
                    self.troubles.hold(&name, format!("{name}: cannot be read: {error}"));
                    listing.fail(path, &error);
                }
            }
        }
        for (at, (path, probe)) in probes.into_iter().enumerate() {
            if given[at] {
            } else if waits[at] {
                self.waiting.insert(path, probe);
            } else {
                self.begin(&path, &probe, now_ms, found);
            }
        }
    }

    /// Which file may continue which input, the likeliest pairs first; what has ended is not continued by a sealed one.
    fn pairs(&self, probes: &[(PathBuf, Probe)], sealed: &[bool]) -> Vec<(usize, InputId)> {
        let mut index = HeadIndex::default();
        let mut by_name: HashMap<&str, Vec<&Input>> = HashMap::new();
        let all_sealed = sealed.iter().all(|&sealed| sealed);
        let may_go_on = |input: &&Input| is_homeless(input) && !(all_sealed && input.stage == Stage::Ended);
        for input in self.inputs.values().map(Box::as_ref).filter(may_go_on) {
            by_name.entry(&input.name).or_default().push(input);
            if input.head.len > 0 {
                index.insert(input);
            }
        }
        let mut pairs = Vec::new();
        for (at, (path, probe)) in probes.iter().enumerate() {
            let name = path.to_string_lossy();
            let named = by_name.get(&*name).map_or(&[][..], Vec::as_slice);
            for input in named.iter().filter(|input| input.head.len == 0) {
                // Behind NUL bytes at its beginning it is known by the text before the position.
                let is_behind = input.tail.len > 0 && !probe.is_compressed();
                if is_behind || (input.position == 0 && (input.stage != Stage::Ended || probe.head.is_empty())) {
                    pairs.push((false, false, Reverse((0, 0)), at, input.id));
                }
            }
            // Those of its own name come first, the latest of them before others.
            let named = named.iter().rev().filter(|input| input.head.len > 0 && input.head.begins(&probe.head));
            let alike = index.candidates(&probe.head).filter_map(|id| self.inputs.get(&id).map(Box::as_ref));
            for input in named.copied().chain(alike.filter(|input| *input.name != *name)).take(CANDIDATES_MAX) {
                let lost = matches!(input.stage, Stage::Lost(_));
                pairs.push((*input.name != *name, !lost, Reverse((input.head.len, input.position)), at, input.id));
            }
        }
        let is_ended = |id: &InputId| self.inputs.get(id).is_some_and(|input| input.stage == Stage::Ended);
        pairs.retain(|(_, _, _, at, id)| !(sealed[*at] && is_ended(id)));
        pairs.sort_unstable();
        pairs.into_iter().map(|(_, _, _, at, id)| (at, id)).collect()
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
    fn begin(&mut self, path: &Path, probe: &Probe, now_ms: i64, found: &mut Vec<Discovery>) {
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

    /// Keeps the header that a file begins with, before it is read: its path may soon go on without one.
    fn learn_header(&mut self, path: &Path, head: &[u8]) {
        let found = format::find(&path.to_string_lossy(), head, false, None, &self.settings.decode);
        if let Some(Format::Csv(header)) = found
            && header.is_telling()
            && let Some(line) = header.usable()
        {
            self.headers.insert(path.to_owned(), line.into());
        }
    }

    /// The header that goes for a log at a path that has none of its own: the last one there, else that of what it was
    /// rotated into (`a.csv.1`).
    pub(super) fn header_for(&mut self, path: &Path) -> Option<Arc<[u8]>> {
        if let Some(header) = self.headers.get(path) {
            return Some(header.clone());
        }
        if self.settings.decode.format == FormatChoice::Ndjson {
            return None;
        }
        let begins =
            |other: &Path| other.as_os_str().as_encoded_bytes().starts_with(path.as_os_str().as_encoded_bytes());
        // What was rotated since the last look may not have been read yet.
        let unread = self.inputs.values().filter(|input| input.format.is_none() && !input.compressed);
        let places: Vec<PathBuf> =
            unread.filter_map(|input| input.place.as_ref()).filter(|place| begins(place)).cloned().collect();
        for place in places.into_iter().filter(|place| place != path).take(ROTATED_MAX) {
            if let Ok(head) = self.fs.open(&place).and_then(|mut file| read_range(file.as_mut(), 0, HEAD_BYTES)) {
                self.learn_header(&place, &head);
            }
        }
        // Or it has left sight, and is held open.
        let is_left = |input: &&mut Input| input.place.is_none() && Path::new(&*input.name) == path;
        let left = self.inputs.values_mut().map(Box::as_mut).filter(is_left).filter_map(|input| input.file.as_mut());
        let heads: Vec<Vec<u8>> =
            left.take(ROTATED_MAX).filter_map(|open| read_range(open.file.as_mut(), 0, HEAD_BYTES).ok()).collect();
        for head in heads {
            self.learn_header(path, &head);
        }
        self.headers.iter().filter(|(other, _)| begins(other)).min().map(|(_, header)| header.clone())
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

/// The first bytes of a plain file, but for NUL bytes at their end, in whose place text may be written.
pub(super) fn without_padding(mut head: Vec<u8>) -> Vec<u8> {
    head.truncate(head.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1));
    head
}

/// Whether an input may be continued by a file that was found: it has none, or only a deleted one.
fn is_homeless(input: &Input) -> bool {
    input.place.is_none() && (input.file.is_none() || input.is_deleted() || input.stage == Stage::Ended)
}

/// Whether a file continues an input, as far as can be told before its text is decoded.
pub(super) fn continues(file: io::Result<Box<dyn TailFile>>, probe: &Probe, input: &mut Input) -> io::Result<bool> {
    if probe.compression.is_some() {
        // A deleted file that is still open is first read to its end: the first bytes alone are no proof.
        let is_read = input.file.is_none() || input.stage == Stage::Ended;
        return Ok(is_read && input.refused != Some(probe.stat.inode));
    }
    let was_compressed = std::mem::replace(&mut input.compressed, false);
    let same = match file {
        Ok(mut file) => is_continued(file.as_mut(), input),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    };
    input.compressed = was_compressed;
    // A deleted file that is still open may hold more than a copy that is still being made.
    Ok(same? && !(input.file.is_some() && probe.stat.len < input.len()))
}

fn cannot_be_read(name: &str, foreign: Foreign) -> String {
    format!("{name}: cannot be read: it is {foreign}")
}

/// Compression, first bytes of text, and whether there are too few to tell.
pub(super) fn probe_file(file: &mut dyn TailFile, last: bool) -> io::Result<(Option<Compression>, Vec<u8>, bool)> {
    let head = read_range(file, 0, HEAD_BYTES)?;
    match magic(&head) {
        Magic::Plain => Ok((None, without_padding(head), false)),
        Magic::Undecided => Ok((None, without_padding(head), !last)),
        Magic::Compressed(compression) => {
            let mut text = Vec::new();
            let last_step = Inflater::new(compression)?.inflate(file, u64::MAX, &mut text, HEAD_BYTES)?;
            // One that is still being written shows too little of its text to say whose continuation it is.
            let undecided = text.len() < HEAD_BYTES && last_step == Inflated::Starved && !last;
            Ok((Some(compression), text, undecided))
        }
    }
}
