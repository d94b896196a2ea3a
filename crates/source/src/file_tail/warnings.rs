//! What is wrong with files but stops nothing: kept while it lasts, told once, bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Warnings told at a time: more would tell a person nothing more.
const TOLD_MAX: usize = 100;

/// Warnings held: as many as there may be files, whatever else lies in their folders.
const HELD_MAX: usize = 65_536;

/// Begins the keys of what concerns all files: first in their order, so that it is always told.
const ALL: &str = "all ";

/// Begins the keys of what concerns the reading of a file.
const FILE: &str = "file ";

/// Begins the keys of what concerns a path as seen in a look.
const LOOK: &str = "look ";

/// Messages by what they are about.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    current: BTreeMap<String, String>,
    /// Keys of messages not told yet.
    untold: BTreeSet<String>,
    /// What happened once and stays true.
    notes: Vec<String>,
    notes_told: usize,
    /// Warnings set since [`Warnings::begin_look`]; those of looks before are over.
    looked: Option<BTreeSet<String>>,
}

impl Warnings {
    /// Begins a look at the files: what concerns their listing and is not found again by [`Warnings::end_look`] is over.
    pub(super) fn begin_look(&mut self) {
        self.looked = Some(BTreeSet::new());
    }

    /// Ends a look.
    pub(super) fn end_look(&mut self) {
        if let Some(looked) = self.looked.take() {
            self.current.retain(|key, _| key.starts_with(FILE) || looked.contains(key));
        }
    }

    /// Something is wrong with all files, as seen in a look.
    pub(super) fn set(&mut self, key: &str, message: String) {
        self.insert(format!("{ALL}{key}"), message);
    }

    /// Something is wrong with a path, as seen in a look.
    pub(super) fn set_for(&mut self, path: &Path, message: String) {
        self.insert(format!("{LOOK}{}", path.display()), message);
    }

    /// Something is wrong with a file, until it is cleared.
    pub(super) fn hold(&mut self, name: &str, message: String) {
        self.insert(format!("{FILE}{name}"), message);
    }

    /// Something that happened once and stays true for as long as this process runs.
    pub(super) fn note(&mut self, message: String) {
        if self.notes.len() < TOLD_MAX {
            self.notes.push(message);
        }
    }

    /// Nothing is wrong with that file any more.
    pub(super) fn clear(&mut self, name: &str) {
        if !self.current.is_empty() {
            let key = format!("{FILE}{name}");
            self.current.remove(&key);
            self.untold.remove(&key);
        }
    }

    /// Whether something is held until it is cleared.
    pub(super) fn concern_files(&self) -> bool {
        self.current.keys().any(|key| key.starts_with(FILE))
    }

    /// Clears all files but those that are to be kept.
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

    /// All that is wrong now, and how much of it is left off.
    pub(super) fn all(&self) -> Vec<String> {
        told(self.current.values().chain(&self.notes))
    }

    /// What has not been told yet, and how much of it is left off.
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
        told.push(format!("something is wrong with {left} more files as well"));
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
        assert_eq!(all[100], "something is wrong with 51 more files as well");
        assert_eq!(warnings.news(), all);
        assert_eq!(warnings.news(), [""; 0]);
        warnings.keep_files(|name| name == "a149");
        warnings.begin_look();
        warnings.end_look();
        assert_eq!(warnings.all(), ["trouble 149"]);
    }
}
