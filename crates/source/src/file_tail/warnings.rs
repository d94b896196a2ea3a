//! Warnings: problems with files that do not stop anything. Each is kept while it lasts and reported once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Warnings reported at a time: more would not help a reader.
const TOLD_MAX: usize = 100;

/// Maximum number of warnings: as many as there may be files, whatever else their folders contain.
const HELD_MAX: usize = 65_536;

/// Prefix of the keys of warnings about all files. They come first, so they are always reported.
const ALL: &str = "all ";

/// Prefix of the keys of warnings about reading a file.
const FILE: &str = "file ";

/// Prefix of the keys of warnings about a path, found by a look.
const LOOK: &str = "look ";

/// Messages by what they are about.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    current: BTreeMap<String, String>,
    /// Keys of messages that are not reported yet.
    untold: BTreeSet<String>,
    /// Events that happened once and stay true.
    notes: Vec<String>,
    notes_told: usize,
    /// Warnings set since [`Warnings::begin_look`]; those of earlier looks are over.
    looked: Option<BTreeSet<String>>,
}

impl Warnings {
    /// Begins a look at the files: warnings about their listing are over if they are not set again before
    /// [`Warnings::end_look`].
    pub(super) fn begin_look(&mut self) {
        self.looked = Some(BTreeSet::new());
    }

    /// Ends a look.
    pub(super) fn end_look(&mut self) {
        if let Some(looked) = self.looked.take() {
            self.current.retain(|key, _| key.starts_with(FILE) || looked.contains(key));
        }
    }

    /// Adds a warning about all files, found by a look.
    pub(super) fn set(&mut self, key: &str, message: String) {
        self.insert(format!("{ALL}{key}"), message);
    }

    /// Adds a warning about a path, found by a look.
    pub(super) fn set_for(&mut self, path: &Path, message: String) {
        self.insert(format!("{LOOK}{}", path.display()), message);
    }

    /// Adds a warning about a file, until it is cleared.
    pub(super) fn hold(&mut self, name: &str, message: String) {
        self.insert(format!("{FILE}{name}"), message);
    }

    /// Adds an event that happened once and stays true as long as this process runs.
    pub(super) fn note(&mut self, message: String) {
        if self.notes.len() < TOLD_MAX {
            self.notes.push(message);
        }
    }

    /// Clears the warning about a file.
    pub(super) fn clear(&mut self, name: &str) {
        if !self.current.is_empty() {
            let key = format!("{FILE}{name}");
            self.current.remove(&key);
            self.untold.remove(&key);
        }
    }

    /// Whether there are warnings that stay until they are cleared.
    pub(super) fn concern_files(&self) -> bool {
        self.current.keys().any(|key| key.starts_with(FILE))
    }

    /// Clears the warnings about all files except those to keep.
    pub(super) fn keep_files(&mut self, keep: impl Fn(&str) -> bool) {
        self.current.retain(|key, _| key.strip_prefix(FILE).is_none_or(&keep));
    }

    fn insert(&mut self, key: String, message: String) {
        let room = |held: usize| held < HELD_MAX || key.starts_with(ALL);
        if let Some(looked) = &mut self.looked
            && room(looked.len())
        {
            looked.insert(key.clone());
        }
        if self.current.get(&key) != Some(&message) && (room(self.current.len()) || self.current.contains_key(&key)) {
            self.untold.insert(key.clone());
            self.current.insert(key, message);
        }
    }

    /// All present warnings, and the number of those left out.
    pub(super) fn all(&self) -> Vec<String> {
        told(self.current.values().chain(&self.notes))
    }

    /// The warnings that are not reported yet, and the number of those left out.
    pub(super) fn news(&mut self) -> Vec<String> {
        let untold = std::mem::take(&mut self.untold);
        let notes_told = std::mem::replace(&mut self.notes_told, self.notes.len());
        told(untold.iter().filter_map(|key| self.current.get(key)).chain(&self.notes[notes_told..]))
    }
}

fn told<'a>(messages: impl Iterator<Item = &'a String>) -> Vec<String> {
    let mut messages = messages.cloned();
    let mut told: Vec<String> = messages.by_ref().take(TOLD_MAX).collect();
    let left = messages.count();
    if left > 0 {
        told.push(format!("{left} more files have problems as well"));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_off_is_told() {
        let mut warnings = Warnings::default();
        warnings.begin_look();
        for number in 0..150 {
            warnings.hold(&format!("a{number:03}"), format!("trouble {number}"));
        }
        warnings.set("files_max", "too many".into());
        warnings.end_look();
        let all = warnings.all();
        assert_eq!((all.len(), &*all[0]), (101, "too many"));
        assert_eq!(all[100], "51 more files have problems as well");
        assert_eq!(warnings.news(), all);
        assert_eq!(warnings.news(), [""; 0]);
        warnings.keep_files(|name| name == "a149");
        warnings.begin_look();
        warnings.end_look();
        assert_eq!(warnings.all(), ["trouble 149"]);
    }
}
