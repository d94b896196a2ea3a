//! What is wrong with files but stops nothing: kept while it lasts, told once, bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Troubles held at most: more would tell a person nothing more.
const TROUBLES_MAX: usize = 100;

/// Messages by what they are about.
#[derive(Debug, Default)]
pub(super) struct Troubles {
    current: BTreeMap<String, String>,
    /// Keys of messages not told yet.
    untold: BTreeSet<String>,
    /// Troubles set since [`Troubles::begin_look`]; those of looks before are over.
    looked: Option<BTreeSet<String>>,
}

impl Troubles {
    /// Begins a look at the files: what concerns their listing and is not found again by [`Troubles::end_look`] is over.
    pub(super) fn begin_look(&mut self) {
        self.looked = Some(BTreeSet::new());
    }

    /// Ends a look.
    pub(super) fn end_look(&mut self) {
        if let Some(looked) = self.looked.take() {
            self.current.retain(|key, _| !key.starts_with("look ") || looked.contains(key));
        }
    }

    /// Something is wrong with what the key names.
    pub(super) fn set(&mut self, key: &str, message: String) {
        self.insert(format!("look {key}"), message);
    }

    /// Something is wrong with a path, as seen in a look.
    pub(super) fn set_for(&mut self, path: &Path, message: String) {
        self.insert(format!("look {}", path.display()), message);
    }

    /// Something is wrong with a file, until it is cleared.
    pub(super) fn hold(&mut self, name: &str, message: String) {
        self.insert(format!("file {name}"), message);
    }

    /// Nothing is wrong with that file any more.
    pub(super) fn clear(&mut self, name: &str) {
        if !self.current.is_empty() {
            let key = format!("file {name}");
            self.current.remove(&key);
            self.untold.remove(&key);
        }
    }

    fn insert(&mut self, key: String, message: String) {
        if let Some(looked) = &mut self.looked
            && looked.len() < TROUBLES_MAX
        {
            looked.insert(key.clone());
        }
        if self.current.get(&key) == Some(&message) {
            return;
        }
        if self.current.len() < TROUBLES_MAX || self.current.contains_key(&key) {
            self.untold.insert(key.clone());
            self.current.insert(key, message);
        }
    }

    /// All that is wrong now.
    pub(super) fn all(&self) -> Vec<String> {
        self.current.values().cloned().collect()
    }

    /// What has not been told yet.
    pub(super) fn news(&mut self) -> Vec<String> {
        std::mem::take(&mut self.untold).iter().filter_map(|key| self.current.get(key).cloned()).collect()
    }
}
