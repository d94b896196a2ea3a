//! Assigns files that belong to no input yet to the inputs that they continue, or to new inputs.

use super::content::continues;
use super::fingerprint::{Excerpt, HEAD_BYTES, hash};
use super::input::Input;
use super::outcome::Discovery;
use super::patterns::{Files, Listing};
use super::probe::{Probe, probe_file};
use super::stage::Adopted;
use super::tailer::Tailer;
use crate::decode::foreign::{self, Foreign};
use crate::file_system::{FileStat, read_range};
use adtally_model::InputId;
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

/// Maximum inputs tried for one file: this many share their first bytes only if those bytes identify nothing.
const CANDIDATES_MAX: usize = 64;

/// Live files whose first bytes are read again to compare them with a short compressed file.
const RECALLED_MAX: usize = 1_024;

/// Inputs by their first bytes.
#[derive(Default)]
struct HeadIndex {
    lens: BTreeSet<usize>,
    by_hash: HashMap<(usize, u64), Vec<InputId>>,
}

impl HeadIndex {
    fn insert(&mut self, input: &Input) {
        let head = &input.text.head;
        self.lens.insert(head.len);
        self.by_hash.entry((head.len, head.hash)).or_default().push(input.id);
    }

    /// Inputs that have the same first bytes as a text.
    fn candidates(&self, text: &[u8]) -> impl Iterator<Item = InputId> {
        let lens = self.lens.range(..=text.len()).rev();
        lens.filter_map(|&len| self.by_hash.get(&(len, hash(&text[..len])))).flatten().copied()
    }
}

impl Tailer {
    pub(super) fn identify(&mut self, files: &Files, listing: &mut Listing, now_ms: i64, found: &mut Vec<Discovery>) {
        let places = self.inputs.values().filter_map(|input| input.disk.place.path());
        let owned: HashSet<PathBuf> = places.map(Path::to_owned).collect();
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
        // Plain files first: a compressed copy of one must not become a second input.
        let mut continued = self.assign(plain, listing, now_ms, found);
        if !compressed.is_empty() {
            let compressed = self.without_shadowed(compressed);
            continued.extend(self.assign(compressed, listing, now_ms, found));
        }
        continued.sort_unstable();
        found.extend(continued.into_iter().map(|input| Discovery::Continued { input }));
    }

    /// Files that are not logs, with the reason. They are not read. Each is also a warning.
    pub fn foreign(&self) -> impl Iterator<Item = String> {
        let foreign = |(path, probe): (&PathBuf, &Probe)| Some(cannot_be_read(&path.to_string_lossy(), probe.foreign?));
        self.waiting.iter().filter_map(foreign)
    }

    /// Examines the beginning of a file, unless the file is unchanged.
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
                    Some(foreign) => self.warnings.hold(&name, cannot_be_read(&name, foreign)),
                    None => self.warnings.clear(&name),
                }
                Some(Probe { stat, compression, head, undecided, foreign, since_ms })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                self.warnings.hold(&name, format!("{name}: cannot be read: {error}"));
                listing.fail(path, &error);
                None
            }
        }
    }

    /// Examines the beginning of a file that no pattern names; errors are ignored.
    pub(super) fn probe_once(&self, path: &Path, stat: FileStat, now_ms: i64) -> Option<Probe> {
        let mut file = self.fs.open(path).ok()?;
        let (compression, head, undecided) = probe_file(file.as_mut(), true).ok()?;
        Some(Probe { stat, compression, head, undecided, foreign: None, since_ms: now_ms })
    }

    /// Sets aside compressed files whose text begins like a live file's: they are rotated copies of it.
    fn without_shadowed(&mut self, probes: Vec<(PathBuf, Probe)>) -> Vec<(PathBuf, Probe)> {
        let is_live = |input: &&Input| {
            let live = !input.disk.place.is_nowhere() || (input.file.is_some() && input.stage.is_active());
            let head = &input.text.head;
            live && !input.disk.is_compressed() && (!head.bytes.is_empty() || head.len == HEAD_BYTES)
        };
        let short = |(_, probe): &(PathBuf, Probe)| (1..HEAD_BYTES).contains(&probe.head.len());
        if probes.iter().any(short) {
            self.recall_heads();
        }
        let live: Vec<&Excerpt> =
            self.inputs.values().map(Box::as_ref).filter(is_live).map(|input| &input.text.head).collect();
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
            // With such a long CSV header, all files begin alike.
            let only_a_line = probe.head.len() == HEAD_BYTES && !probe.head.contains(&b'\n');
            if self.settings.bounded || only_a_line {
                let name = path.display();
                let message = format!("{name}: not opened, because it begins like a file that still exists");
                self.warnings.set_for(&path, message);
            }
            self.waiting.insert(path, probe);
        }
        open
    }

    /// Reads the released first bytes of some live files again, because a shorter text has to be compared byte by byte.
    /// If a copy is not recognized for lack of these bytes, it is read beside its original, which does no harm.
    fn recall_heads(&mut self) {
        let given_back = |input: &&mut Input| {
            let head = &input.text.head;
            head.bytes.is_empty() && head.len > 0 && !input.disk.is_compressed()
        };
        for input in self.inputs.values_mut().map(Box::as_mut).filter(given_back).take(RECALLED_MAX) {
            let Some(place) = input.disk.place.path() else { continue };
            if let Ok(mut file) = self.fs.open(place)
                && let Ok(head) = read_range(file.as_mut(), 0, HEAD_BYTES)
                && input.text.head.begins(&head)
            {
                input.text.head = Excerpt::of(head);
            }
        }
    }

    /// Assigns each file to the input that it continues, or to a new one. Returns the inputs of another run that are
    /// continued.
    fn assign(
        &mut self,
        probes: Vec<(PathBuf, Probe)>,
        listing: &mut Listing,
        now_ms: i64,
        found: &mut Vec<Discovery>,
    ) -> Vec<InputId> {
        // After its first look, a bounded run takes new files only at paths that the previous look could not examine.
        let first = self.listing.as_ref().filter(|_| self.settings.bounded);
        let is_sealed = |(path, _): &(PathBuf, Probe)| first.is_some_and(|listing| !listing.is_unknown(path));
        let sealed: Vec<bool> = probes.iter().map(is_sealed).collect();
        let mut taken: HashSet<InputId> = HashSet::new();
        let mut given = vec![false; probes.len()];
        let mut waits = sealed.clone();
        let mut continued = Vec::new();
        for (at, id) in self.pairs(&probes, &sealed) {
            let (path, probe) = &probes[at];
            if given[at] || taken.contains(&id) {
                continue;
            }
            let Some(input) = self.inputs.get_mut(&id) else { continue };
            if probe.compression.is_none() && probe.stat.len < input.text.position {
                // It may be an unfinished copy.
                waits[at] |= input.stage.is_lost() && !self.settings.bounded;
                continue;
            }
            match continues(self.fs.open(path), probe, input) {
                Ok(true) => {
                    (given[at], _) = (true, taken.insert(id));
                    if self.adopt(id, path, probe, now_ms, found) == Adopted::Continued {
                        continued.push(id);
                    }
                }
                Ok(false) => {}
                Err(error) => {
                    // It is unknown whether the file continues this input, so both wait.
                    (waits[at], _) = (true, taken.insert(id));
                    let name = path.to_string_lossy();
                    self.warnings.hold(&name, format!("{name}: cannot be read: {error}"));
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
        continued
    }

    /// Which file may continue which input, most likely pairs first. A sealed file never continues an ended input.
    fn pairs(&self, probes: &[(PathBuf, Probe)], sealed: &[bool]) -> Vec<(usize, InputId)> {
        let mut index = HeadIndex::default();
        let mut by_name: HashMap<&str, Vec<&Input>> = HashMap::new();
        let all_sealed = sealed.iter().all(|&sealed| sealed);
        let may_go_on = |input: &&Input| has_no_file(input) && !(all_sealed && input.stage.is_ended());
        for input in self.inputs.values().map(Box::as_ref).filter(may_go_on) {
            by_name.entry(&input.name).or_default().push(input);
            if input.text.head.len > 0 {
                index.insert(input);
            }
        }
        let mut pairs = Vec::new();
        for (at, (path, probe)) in probes.iter().enumerate() {
            let name = path.to_string_lossy();
            let named = by_name.get(&*name).map_or(&[][..], Vec::as_slice);
            for input in named.iter().filter(|input| input.text.head.len == 0) {
                // After NUL bytes at its beginning, the file is identified by the text before the position.
                let is_behind = input.text.tail.len > 0 && !probe.is_compressed();
                if is_behind || (input.text.position == 0 && (!input.stage.is_ended() || probe.head.is_empty())) {
                    pairs.push((false, false, Reverse((0, 0)), at, input.id));
                }
            }
            // Inputs with the file's own name come first, the latest before the others.
            let named =
                named.iter().rev().filter(|input| input.text.head.len > 0 && input.text.head.begins(&probe.head));
            let alike = index.candidates(&probe.head).filter_map(|id| self.inputs.get(&id).map(Box::as_ref));
            for input in named.copied().chain(alike.filter(|input| *input.name != *name)).take(CANDIDATES_MAX) {
                let lost = input.stage.is_lost();
                pairs.push((
                    *input.name != *name,
                    !lost,
                    Reverse((input.text.head.len, input.text.position)),
                    at,
                    input.id,
                ));
            }
        }
        let is_ended = |id: &InputId| self.inputs.get(id).is_some_and(|input| input.stage.is_ended());
        pairs.retain(|(_, _, _, at, id)| !(sealed[*at] && is_ended(id)));
        pairs.sort_unstable();
        pairs.into_iter().map(|(_, _, _, at, id)| (at, id)).collect()
    }
}

/// Whether a found file may continue an input, because the input has no file or only a deleted one.
fn has_no_file(input: &Input) -> bool {
    input.disk.place.is_nowhere() && (input.file.is_none() || input.disk.is_deleted() || input.stage.is_ended())
}

fn cannot_be_read(name: &str, foreign: Foreign) -> String {
    format!("{name}: cannot be read: it is {foreign}")
}
