//! The look at the files: follows known files, finds new ones, and settles inputs that have ended.

use super::content::continued_at;
use super::decide::{self, Missing, Sighted, Sighting};
use super::fingerprint::hash;
use super::input::Input;
use super::on_disk::Place;
use super::outcome::{Discovery, Unopened};
use super::patterns::{Files, Listing};
use super::probe::Probe;
use super::stage::READING;
use super::tailer::Tailer;
use super::watch::View;
use crate::file_system::{FileKind, FileStat};
use adtally_model::InputId;
use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

/// Pause between two looks at all files, in milliseconds per 1,000 inputs: such a look takes about 2 ms for them.
const LOOK_MS_PER_1000: i64 = 40;

impl Tailer {
    /// Examines the files known to have changed, or everything if the changes are not known.
    pub(super) fn look_where_needed(&mut self, now_ms: i64) -> Vec<Discovery> {
        let mut found = Vec::new();
        if self.watcher.is_complete() {
            let round = self.watcher.round(self.fs.as_ref());
            self.look_wanted |= round.look;
            for (path, stat) in round.changed {
                match self.owner_of(&path) {
                    Some(id) => self.note(id, stat, now_ms, &mut found),
                    // The file may have been empty or undecided before.
                    None => self.look_wanted |= stat.kind == FileKind::File,
                }
            }
        } else {
            self.look_wanted = true;
        }
        let hidden = self.listing.as_ref().is_none_or(Listing::hides_something);
        self.look_wanted |= self.unsettled || hidden || self.waiting.values().any(Probe::is_undecided);
        let pause_ms = self.inputs.len() as i64 * LOOK_MS_PER_1000 / 1_000;
        if self.look_wanted && (self.listing.is_none() || now_ms.saturating_sub(self.looked_at_ms) >= pause_ms) {
            found.extend(self.look(now_ms));
        }
        found
    }

    /// The input whose file is at a path.
    fn owner_of(&self, path: &Path) -> Option<InputId> {
        let id = *self.places.get(&place_hash(path))?;
        self.inputs.get(&id).filter(|input| input.disk.place.path() == Some(path)).map(|input| input.id)
    }

    pub(super) fn look(&mut self, now_ms: i64) -> Vec<Discovery> {
        self.warnings.begin_look();
        self.watcher.begin_look();
        let view = View::new(self.fs.as_ref(), &mut self.watcher);
        let mut listing = self.patterns.list(&view, self.settings.files_max, &mut self.warnings);
        self.watcher.end_look();
        let files = self.without_aliases(&listing);
        let mut found = Vec::new();
        self.follow(&files, &mut listing, now_ms, &mut found);
        self.identify(&files, &mut listing, now_ms, &mut found);
        if self.listing.is_none() {
            self.search_folders(&mut listing, now_ms, &mut found);
        }
        self.settle(&listing, now_ms, &mut found);
        self.forget_warnings(&listing);
        self.warnings.end_look();
        listing.files.clear();
        self.index(&listing);
        // Files that waited for an input that has ended are examined once more.
        self.unsettled |=
            !self.waiting.is_empty() && found.iter().any(|found| matches!(found, Discovery::Ended { .. }));
        self.note_unopened(&listing, now_ms);
        self.listing = Some(listing);
        (self.looked_at_ms, self.look_wanted) = (now_ms, false);
        if self.generations.len() > 2 * (self.inputs.len() + self.settings.files_max) {
            let named: HashSet<&str> = self.inputs.values().map(|input| &*input.name).collect();
            self.generations.retain(|path, _| named.contains(&*path.to_string_lossy()));
            self.headers.retain(|path, _| named.contains(&*path.to_string_lossy()));
        }
        found
    }

    /// Notes the paths of inputs, whether time alone may change something, and which inputs are hidden.
    fn index(&mut self, listing: &Listing) {
        self.unsettled = self.inputs.values().map(Box::as_ref).any(Input::is_unsettled);
        self.places.clear();
        for input in self.inputs.values() {
            let Some(place) = input.disk.place.path() else { continue };
            self.places.insert(place_hash(place), input.id);
            if listing.hides_something() && input.stage.is_active() && listing.is_unknown(place) {
                // It is not known whether the input is at its end, so it must be read.
                self.woken.push(input.id);
            }
        }
    }

    /// Notes the paths that could not be examined, since when, and which inputs are affected.
    fn note_unopened(&mut self, listing: &Listing, now_ms: i64) {
        self.unreachable.clear();
        if listing.hides_something() {
            let is_hidden = |input: &&Input| input.stage.is_lost() && listing.is_unknown(Path::new(&*input.name));
            self.unreachable.extend(self.inputs.values().map(Box::as_ref).filter(is_hidden).map(|input| input.id));
        }
        let before = std::mem::take(&mut self.unopened);
        let since = |path: &Path| before.get(path).map_or(now_ms, |unopened| unopened.since_ms);
        let since_cut = since(Path::new(""));
        for (path, failure) in listing.failed() {
            let (reason, is_lasting) = (failure.reason.clone(), failure.denied);
            self.unopened.insert(path.clone(), Unopened { since_ms: since(path), reason, is_lasting });
        }
        // A bounded run does not take files that were renamed or removed meanwhile, so these paths must stay reported.
        let is_gone = |path: &Path| self.fs.stat(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        for (path, mut unopened) in before {
            let is_left = self.settings.bounded && !self.unopened.contains_key(&path) && is_gone(&path);
            if is_left && !path.as_os_str().is_empty() {
                unopened.is_lasting = true;
                self.unopened.insert(path, unopened);
            }
        }
        if listing.is_cut() {
            let reason = format!("more than {} files match: the others are not read", self.settings.files_max);
            self.unopened.insert(PathBuf::new(), Unopened { since_ms: since_cut, reason, is_lasting: true });
        }
    }

    /// Clears the warnings about files that no longer exist.
    fn forget_warnings(&mut self, listing: &Listing) {
        if self.warnings.concern_files() {
            let read = self.inputs.values().filter(|input| input.stage.is_active());
            let read: HashSet<&str> = read.map(|input| &*input.name).collect();
            let is_there = |path: &Path| listing.files.contains_key(path) || listing.is_unknown(path);
            self.warnings.keep_files(|name| read.contains(name) || is_there(Path::new(name)));
        }
    }

    /// Gives each file one path: a file with several names (links) keeps its known path, or gets its first name.
    fn without_aliases(&self, listing: &Listing) -> Files {
        let mut by_inode = HashMap::with_capacity(listing.files.len());
        for input in self.inputs.values() {
            if let (Some(place), Some(stat)) = (input.disk.place.path(), &input.disk.stat)
                && listing.files.get(place).is_some_and(|now| now.inode == stat.inode)
            {
                by_inode.insert(stat.inode, place.to_owned());
            }
        }
        for (path, stat) in &listing.files {
            by_inode.entry(stat.inode).or_insert_with(|| path.clone());
        }
        let is_first = |path: &PathBuf, stat: &FileStat| by_inode.get(&stat.inode) == Some(path);
        let by_path = listing.files.iter().filter(|(path, stat)| is_first(path, stat));
        Files { by_path: by_path.map(|(path, stat)| (path.clone(), *stat)).collect(), by_inode }
    }

    /// Follows inputs whose file is unchanged in place, renamed or gone.
    fn follow(&mut self, files: &Files, listing: &mut Listing, now_ms: i64, found: &mut Vec<Discovery>) {
        let ids: Vec<InputId> = self.inputs.keys().copied().collect();
        for &id in &ids {
            let Some(input) = self.inputs.get_mut(&id) else { continue };
            let Some(place) = input.disk.place.path().map(Path::to_owned) else { continue };
            if listing.is_unknown(&place) {
                continue;
            }
            let is_unlisted = matches!(input.disk.place, Place::Unlisted(_));
            let unlisted = if is_unlisted { self.fs.stat(&place).ok() } else { None };
            match files.by_path.get(&place).or(unlisted.as_ref()) {
                Some(stat) if input.disk.stat.is_some_and(|known| known.inode == stat.inode) => {
                    self.note(id, *stat, now_ms, found);
                }
                _ => {
                    input.disk.place = Place::Nowhere;
                    input.disk.rotated = true;
                    input.disk.changed_at_ms = now_ms;
                }
            }
        }
        let places = self.inputs.values().filter_map(|input| input.disk.place.path());
        let mut owned: HashSet<PathBuf> = places.map(Path::to_owned).collect();
        for &id in &ids {
            let Some(input) = self.inputs.get_mut(&id) else { continue };
            let (Place::Nowhere, Some(stat)) = (&input.disk.place, input.disk.stat) else { continue };
            let path = files.by_inode.get(&stat.inode).filter(|path| !owned.contains(*path));
            let elsewhere = path.and_then(|path| files.by_path.get_key_value(path));
            match self.find_missing(id, elsewhere.map(|(path, _)| path.as_path()), now_ms) {
                Ok(Missing::Renamed) => {
                    let Some((path, stat)) = elsewhere else { continue };
                    owned.insert(path.clone());
                    self.rename(id, path, found);
                    self.note(id, *stat, now_ms, found);
                }
                Ok(Missing::HeldOpen(stat)) => self.note(id, stat, now_ms, found),
                Ok(Missing::Lost | Missing::Unsure | Missing::Ended) => {}
                Err(error) => elsewhere.into_iter().for_each(|(path, _)| listing.fail(path, &error)),
            }
        }
    }

    /// Determines what happened to a file that is not at its path; its inode may be at another path.
    fn find_missing(&mut self, id: InputId, elsewhere: Option<&Path>, now_ms: i64) -> io::Result<Missing> {
        let Some(input) = self.inputs.get_mut(&id) else { return Ok(Missing::Ended) };
        let open = input.file.as_ref().map(|open| open.file.stat().ok());
        let mut missing = decide::missing(&input.stage, elsewhere.is_some(), open);
        if let (Missing::Unsure, Some(path)) = (missing, elsewhere) {
            if continued_at(self.fs.as_ref(), path, input)? {
                return Ok(Missing::Renamed);
            }
            // The inode was reused: it is no longer a hint.
            input.disk.stat = None;
            missing = decide::missing(&input.stage, false, open);
        }
        if missing == Missing::Lost {
            input.count_seen();
            input.detach();
            input.stage.note_lost(now_ms);
        }
        Ok(missing)
    }

    /// Notes the present state of an input's file.
    fn note(&mut self, id: InputId, now: FileStat, now_ms: i64, found: &mut Vec<Discovery>) {
        let Some(input) = self.inputs.get_mut(&id) else { return };
        let Some(known) = input.disk.stat else { return };
        let (compressed, open, position) = (input.disk.is_compressed(), input.file.is_some(), input.text.position);
        let sighting = Sighting { known, now, compressed, open, position };
        let sighted = decide::sighted(&input.stage, sighting);
        let is_lost = match (sighted, input.disk.place.path().map(Path::to_owned)) {
            (Sighted::Cut, _) => {
                input.count_seen();
                true
            }
            (Sighted::Same | Sighted::Changed, _) => false,
            (Sighted::Unsure, None) => return,
            (Sighted::Unsure, Some(place)) => match continued_at(self.fs.as_ref(), &place, input) {
                Ok(same) => !same,
                // The next look decides.
                Err(_) => return,
            },
        };
        if is_lost {
            input.detach();
            input.disk.changed_at_ms = now_ms;
            self.unsettled = true;
            return;
        }
        input.observe(now);
        self.unsettled |= input.size.loss.is_seen();
        if sighted == Sighted::Same {
            return;
        }
        self.woken.push(id);
        input.disk.changed_at_ms = now_ms;
        let read = input.size.largest.max(position);
        if decide::resumes(&input.stage, sighting, read, self.settings.bounded) {
            input.stage = READING;
            input.text.half = 0;
            found.push(Discovery::Resumed { input: id });
        } else {
            input.stage.unsettle();
        }
    }
}

/// A short key for a path.
fn place_hash(path: &Path) -> u64 {
    hash(path.as_os_str().as_encoded_bytes())
}
