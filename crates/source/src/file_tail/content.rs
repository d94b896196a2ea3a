//! Checks whether a file's content matches the text that was read of an input.

use super::fingerprint::{Excerpt, HEAD_BYTES, TAIL_BYTES, without_padding};
use super::input::Input;
use super::probe::{Probe, probe_file};
use super::text::Text;
use crate::file_system::{FileSystem, TailFile, read_range};
use std::io;
use std::path::Path;

/// Whether a file continues an input, as far as can be told before its text is decoded.
pub(super) fn continues(file: io::Result<Box<dyn TailFile>>, probe: &Probe, input: &mut Input) -> io::Result<bool> {
    if probe.compression.is_some() {
        // A deleted file that is still open is read to its end first: the first bytes alone are no proof.
        let is_read = input.file.is_none() || input.stage.is_ended();
        return Ok(is_read && input.disk.refused.as_deref() != Some(&probe.stat.inode));
    }
    let same = match file {
        Ok(mut file) => is_text_continued(file.as_mut(), &mut input.text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    };
    // A deleted file that is still open may contain more than an unfinished copy of it.
    Ok(same? && !(input.file.is_some() && probe.stat.len < input.disk.len()))
}

/// Whether the file at a path continues an input, by its content.
///
/// # Errors
/// The file could not be read. A missing file is not an error; it does not continue the input.
pub(super) fn continued_at(fs: &dyn FileSystem, path: &Path, input: &mut Input) -> io::Result<bool> {
    match fs.open(path) {
        Ok(mut file) => is_continued(file.as_mut(), input),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether a file's content matches the text of an input up to its position. Only the beginning of a compressed file is
/// checked here; the rest is checked after it is decoded up to the position.
pub(super) fn is_continued(file: &mut dyn TailFile, input: &mut Input) -> io::Result<bool> {
    if !input.disk.is_compressed() {
        return is_text_continued(file, &mut input.text);
    }
    let (compression, head, _) = probe_file(file, true)?;
    Ok(compression.is_some() && input.text.head.begins(&head))
}

/// Whether a plain file contains the text up to its position.
fn is_text_continued(file: &mut dyn TailFile, known: &mut Text) -> io::Result<bool> {
    if file.stat()?.len < known.position {
        return Ok(false);
    }
    let head = read_range(file, 0, HEAD_BYTES)?;
    if !known.head.begins(&head) {
        return Ok(false);
    }
    let start = known.position.saturating_sub(known.tail.len as u64);
    let tail = read_range(file, start, (known.position - start) as usize)?;
    if !known.tail.ends(&tail) {
        return Ok(false);
    }
    known.head = Excerpt::of(without_padding(head));
    if known.tail.bytes.is_empty() {
        known.tail = Excerpt::of(tail);
    }
    Ok(true)
}

/// Whether the text before a position in a file is still the text that was read there.
pub(super) fn still_follows(tail: &Excerpt, file: &mut dyn TailFile, position: u64) -> io::Result<bool> {
    let start = position.saturating_sub(tail.len as u64);
    let before = read_range(file, start, (position - start) as usize)?;
    Ok(if tail.bytes.is_empty() { tail.ends(&before) } else { before.ends_with(&tail.bytes) })
}

/// Notes the text before a position within the blocks read, where an epoch may end. The text is read again, and is used
/// only if the file is still unchanged at the end of those blocks.
pub(super) fn mark_within_block(input: &mut Input, fs: &dyn FileSystem, position: u64) {
    if input.disk.is_compressed() || position == 0 || position >= input.text.position || input.text.has_mark(position) {
        return;
    }
    let mut opened = None;
    let file = match &mut input.file {
        Some(open) => open.file.as_mut(),
        None => match input.disk.place.path().map(|place| fs.open(place)) {
            Some(Ok(file)) => opened.insert(file).as_mut(),
            _ => return,
        },
    };
    let start = position.saturating_sub(TAIL_BYTES as u64);
    let text = read_range(file, start, (position - start) as usize);
    if let Ok(text) = text
        && text.len() as u64 == position - start
        && still_follows(&input.text.tail, file, input.text.position).unwrap_or(false)
    {
        input.text.mark(position, &text);
    }
}
