//! The result of a reading step, and the blocks that it delivers.

use super::fingerprint::TAIL_BYTES;
use super::input::Input;
use super::settings::TailSettings;
use super::stage::Done;
use super::text::Overlong;
use crate::block::{Block, Format};
use crate::decode::{csv, format, json};

/// The result of a reading step.
pub(super) enum Step {
    /// Complete lines were read.
    Block(Block),
    /// No complete line was read yet; reading continues.
    Busy,
    /// There is no more text at present.
    AtEnd,
    /// The file no longer belongs to this input.
    Lost,
    /// The file is completely read. The warning says what stays unread.
    Done(Done, Option<String>),
}

/// The warning about a last line that is not read.
pub(super) fn half_line(input: &Input) -> String {
    format!("{}: its last line has no newline, so {} bytes are not read", input.name, input.text.half)
}

/// Makes a block at the position, and moves the position to its end.
pub(super) fn deliver(input: &mut Input, text: Vec<u8>, format: Format) -> Block {
    let from = input.text.position;
    let to = from + text.len() as u64;
    input.text.tail.push(&text);
    input.text.advance(to);
    Block { input: input.id, from, to, text, nul_bytes: 0, format, overlong: false }
}

/// A block of text that ends before NUL bytes.
pub(super) fn deliver_before_nul_bytes(input: &mut Input, text: Vec<u8>, nul_bytes: u64) -> Block {
    let from = input.text.position;
    let to = from + text.len() as u64 + nul_bytes;
    input.text.tail.push(&text);
    // No more NUL bytes than the tail can hold.
    let nul = vec![0; usize::try_from(nul_bytes).unwrap_or(usize::MAX).min(TAIL_BYTES)];
    input.text.tail.push(&nul);
    input.text.advance(to);
    input.disk.set_unwritten_from(None);
    let format = input.layout.format.clone().unwrap_or(Format::Ndjson);
    Block { input: input.id, from, to, text, nul_bytes, format, overlong: false }
}

/// The block of an overlong line whose end was found.
pub(super) fn deliver_overlong(input: &mut Input, line: Overlong, last: &[u8]) -> Block {
    let from = input.text.position;
    let to = line.scanned + last.len() as u64;
    input.text.tail = line.tail;
    input.text.tail.push(last);
    input.text.advance(to);
    let format = input.layout.format.clone().unwrap_or(Format::Ndjson);
    Block { input: input.id, from, to, text: line.first, nul_bytes: 0, format, overlong: true }
}

/// Whether text at an input's position is a line although it has no newline: a complete JSON object or, if the settings
/// allow it, a CSV row with all columns.
pub(super) fn is_last_line(text: &[u8], input: &Input, format: &Format, settings: &TailSettings) -> bool {
    let text = if input.text.position == 0 { text.strip_prefix(format::BOM).unwrap_or(text) } else { text };
    match format {
        Format::Ndjson => text.len() <= settings.decode.line_bytes_max && json::is_object(text),
        Format::Csv(header) => {
            let before_ms = settings.last_rows_before_ms;
            let is_old = before_ms.zip(input.disk.stat).is_some_and(|(before_ms, stat)| stat.modified_ms <= before_ms);
            is_old && input.text.position >= header.end && csv::is_whole_row(text, header, &settings.decode)
        }
    }
}
