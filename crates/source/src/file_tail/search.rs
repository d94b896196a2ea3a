//! Searches for logs that were rotated while the process was stopped: a path that was named directly is now another
//! file or missing, and the file with the unread rest is in the same folder under any name.

use super::content::continues;
use super::input::Input;
use super::on_disk::Place;
use super::outcome::Discovery;
use super::patterns::Listing;
use super::stage::Adopted;
use super::tailer::Tailer;
use crate::file_system::FileKind;
use adtally_model::InputId;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

/// Maximum files opened per folder in a search: somewhat more than a month of hourly rotation leaves.
const SEARCHED_MAX: usize = 1_024;

impl Tailer {
    /// Searches the folders of inputs that were not completely read and whose files are not at their paths. A found
    /// file is read to its end, but not followed; a missing one gives a warning. Done once, in the first look.
    pub(super) fn search_folders(&mut self, listing: &mut Listing, now_ms: i64, found: &mut Vec<Discovery>) {
        // The latest input at each path: its file may have been appended to until it was rotated, even if it was
        // completely read.
        let mut newest: BTreeMap<&str, InputId> = BTreeMap::new();
        for input in self.inputs.values().filter(|input| input.stage.is_unseen()) {
            newest.entry(&input.name).and_modify(|id| *id = input.id.max(*id)).or_insert(input.id);
        }
        let is_newest = |input: &Input| !input.disk.is_compressed() && newest.get(&*input.name) == Some(&input.id);
        let mut folders: BTreeMap<PathBuf, BTreeSet<InputId>> = BTreeMap::new();
        let missing = |input: &&Input| {
            let unread = input.stage.is_lost() || input.unread() > 0 || is_newest(input);
            let lost = input.stage.is_unseen() && unread && input.disk.place.is_nowhere();
            let known_by_text = input.text.head.len > 0 || input.text.tail.len > 0;
            lost && known_by_text && !listing.is_unknown(Path::new(&*input.name))
        };
        for input in self.inputs.values().map(Box::as_ref).filter(missing) {
            let folder = Path::new(&*input.name).parent().unwrap_or(Path::new(""));
            folders.entry(folder.to_owned()).or_default().insert(input.id);
        }
        for (folder, mut ids) in folders {
            if let Err(error) = self.search_folder(&folder, &mut ids, listing, now_ms, found) {
                listing.fail(&folder, &error);
                continue;
            }
            for id in ids {
                let Some(input) = self.inputs.get(&id) else { continue };
                // A completely read file whose path is free may have been deleted long afterwards.
                let is_rotated = listing.files.contains_key(Path::new(&*input.name));
                if input.stage.is_ended() && !is_rotated {
                    continue;
                }
                self.warnings.note(format!(
                    "{}: it was read up to byte {} and is no longer in its folder under any name: what was written to \
                     it after that, while this process was stopped, is not read",
                    input.name, input.text.position
                ));
            }
        }
    }

    /// Searches one folder; the inputs that were not found stay in `ids`.
    fn search_folder(
        &mut self,
        folder: &Path,
        ids: &mut BTreeSet<InputId>,
        listing: &Listing,
        now_ms: i64,
        found: &mut Vec<Discovery>,
    ) -> io::Result<()> {
        let shown = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let names = match self.fs.list(shown) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut opened = 0;
        for name in names {
            let path = folder.join(name);
            if ids.is_empty() || opened == SEARCHED_MAX {
                break;
            }
            // Files that match a pattern were already examined.
            let Ok(stat) = self.fs.stat(&path) else { continue };
            if stat.kind != FileKind::File || stat.len == 0 || listing.files.contains_key(&path) {
                continue;
            }
            opened += 1;
            let Some(probe) = self.probe_once(&path, stat, now_ms) else { continue };
            for id in ids.clone() {
                let Some(input) = self.inputs.get_mut(&id) else { continue };
                // The text of a compressed file is not compared before it is decoded.
                let tells = input.text.head.len > 0 || !probe.is_compressed();
                if tells && input.text.head.begins(probe.head()) && continues(self.fs.open(&path), &probe, input)? {
                    ids.remove(&id);
                    if self.adopt(id, &path, &probe, now_ms, found) == Adopted::Continued {
                        found.push(Discovery::Continued { input: id });
                    }
                    // It matches no pattern: it is read to its end while it is open.
                    if let Some(input) = self.inputs.get_mut(&id) {
                        (input.disk.rotated, input.disk.place) = (true, Place::Unlisted(path));
                        if input.stage.is_ended() {
                            // Only an incomplete line, already reported, may remain; it is not lost.
                            input.size.largest = input.text.position;
                        }
                    }
                    break;
                }
            }
        }
        Ok(())
    }
}
