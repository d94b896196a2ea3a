//! How a reading step went, and the blocks that it delivers.

use super::fingerprint::TAIL_BYTES;
use super::input::Input;
use super::settings::TailSettings;
use super::stage::Done;
use super::text::Overlong;
use crate::block::{Block, Format};
use crate::decode::{csv, format, json};

/// How a reading step went.
pub(super) enum Step {
    /// It brought whole lines.
    Block(Block),
    /// It brought nothing yet, and reading goes on.
    Busy,
    /// There is nothing more for the moment.
    AtEnd,
    /// The file is not this input's any more.
    Lost,
    /// The file is read for good. The warning says what stays unread.
    Done(Done, Option<String>),
}

/// The warning about a last line that is not taken.
pub(super) fn half_line(input: &Input) -> String {
    format!("{}: its last line has no end, {} bytes stay unread", input.name, input.text.half)
}

/// A block from the position on, which moves behind it.
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
    // All that the tail covers, or as much of it as there is.
    let nul = vec![0; usize::try_from(nul_bytes).unwrap_or(usize::MAX).min(TAIL_BYTES)];
    input.text.tail.push(&nul);
    input.text.advance(to);
    input.disk.set_unwritten_from(None);
    let format = input.layout.format.clone().unwrap_or(Format::Ndjson);
    Block { input: input.id, from, to, text, nul_bytes, format, overlong: false }
}

/// The block of a line too long for one, whose end has been found.
pub(super) fn deliver_overlong(input: &mut Input, line: Overlong, last: &[u8]) -> Block {
    let from = input.text.position;
    let to = line.scanned + last.len() as u64;
    input.text.tail = line.tail;
    input.text.tail.push(last);
    input.text.advance(to);
    let format = input.layout.format.clone().unwrap_or(Format::Ndjson);
    Block { input: input.id, from, to, text: line.first, nul_bytes: 0, format, overlong: true }
}

/// Whether text at an input's position, which no line ending follows, is a line all the same: one whole object of JSON, or
/// where that is asked for, a row of CSV that has all its columns.
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
