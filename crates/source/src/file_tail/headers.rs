//! CSV header lines by path: a log may continue without one after its rotation.

use super::fingerprint::HEAD_BYTES;
use super::input::Input;
use super::tailer::Tailer;
use crate::block::Format;
use crate::decode::{FormatChoice, format};
use crate::file_system::read_range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Maximum number of rotated files that are opened to find the header of the log that they were rotated from.
const ROTATED_MAX: usize = 16;

impl Tailer {
    /// Keeps the header of a file before it is read: the log at its path may soon continue without one.
    pub(super) fn learn_header(&mut self, path: &Path, head: &[u8]) {
        let found = format::find(&path.to_string_lossy(), head, false, None, &self.settings.decode);
        if let Some(Format::Csv(header)) = found
            && header.is_telling()
            && let Some(line) = header.usable()
        {
            self.headers.insert(path.to_owned(), line.into());
        }
    }

    /// The header for a log that has none of its own: the last one at its path, otherwise that of the file it was
    /// rotated to (`a.csv.1`).
    pub(super) fn header_for(&mut self, path: &Path) -> Option<Arc<[u8]>> {
        if let Some(header) = self.headers.get(path) {
            return Some(header.clone());
        }
        if self.settings.decode.format == FormatChoice::Ndjson {
            return None;
        }
        let begins =
            |other: &Path| other.as_os_str().as_encoded_bytes().starts_with(path.as_os_str().as_encoded_bytes());
        // Files rotated since the last look may not have been read yet.
        let unread = self.inputs.values().filter(|input| input.layout.format.is_none() && !input.disk.is_compressed());
        let places: Vec<PathBuf> = unread
            .filter_map(|input| input.disk.place.path())
            .filter(|place| begins(place))
            .map(Path::to_owned)
            .collect();
        for place in places.into_iter().filter(|place| place != path).take(ROTATED_MAX) {
            if let Ok(head) = self.fs.open(&place).and_then(|mut file| read_range(file.as_mut(), 0, HEAD_BYTES)) {
                self.learn_header(&place, &head);
            }
        }
        // The rotated file may have no known path but still be open.
        let is_left = |input: &&mut Input| input.disk.place.is_nowhere() && Path::new(&*input.name) == path;
        let left = self.inputs.values_mut().map(Box::as_mut).filter(is_left).filter_map(|input| input.file.as_mut());
        let heads: Vec<Vec<u8>> =
            left.take(ROTATED_MAX).filter_map(|open| read_range(open.file.as_mut(), 0, HEAD_BYTES).ok()).collect();
        for head in heads {
            self.learn_header(path, &head);
        }
        self.headers.iter().filter(|(other, _)| begins(other)).min().map(|(_, header)| header.clone())
    }
}
