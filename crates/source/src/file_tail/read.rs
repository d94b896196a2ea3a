//! Reading: blocks of whole lines of plain files, and the way to those of compressed ones.

use super::compressed::{Magic, magic};
use super::fingerprint::{Excerpt, HEAD_BYTES, TAIL_BYTES};
use super::identify::without_padding;
use super::input::{Input, OpenFile, Overlong, Stage};
use super::read_compressed::{self, new_stream};
use super::settle::is_continued;
use super::unwritten::{self, Behind};
use super::{BLOCK_BYTES_MIN, ReadOutcome, TailSettings, Tailer};
use crate::block::{Block, Format};
use crate::decode::{csv, format, json, nul_bytes};
use crate::file_system::{FileSystem, TailFile, read_range, read_range_into};
use adtally_model::dead_letter::PAYLOAD_BYTES_MAX;
use adtally_model::{Error, InputId};
use memchr::{memchr, memrchr};
use std::io;
use std::sync::Arc;

/// Bytes gone through in one call without delivering any (a line without end, text read before, padding): some ten
/// milliseconds, so that others get their turn whatever one file holds.
pub(super) const SCAN_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Changes further apart than this, in milliseconds, show in a file's times: these have the grain of a timer tick.
const TIMES_APART_MS: i64 = 50;

/// How a reading step went.
pub(super) enum Step {
    /// This is what the caller is told.
    Told(ReadOutcome),
    /// The file is not this input's any more.
    Lost,
    /// Its end was reached and something stays unread that a person should know of.
    EndedWith(String),
}

impl Tailer {
    pub(super) fn read_input(&mut self, id: InputId, now_ms: i64) -> ReadOutcome {
        let Some(input) = self.inputs.get(&id) else { return ReadOutcome::Ended };
        match input.stage {
            Stage::Ended => return ReadOutcome::Ended,
            Stage::Lost(_) => return ReadOutcome::AtEnd,
            Stage::Active if input.done => return told_end(input),
            Stage::Active => {}
        }
        let name = input.name.clone();
        let may_lack_header = input.format.is_none() && input.csv_header.is_none() && !input.header_sought;
        let place = input.place.clone().filter(|_| may_lack_header && input.head.bytes.first() != Some(&b'{'));
        if !self.may_stream(id, now_ms) {
            return ReadOutcome::Waits;
        }
        if let Some(place) = place.filter(|place| self.generations.get(place).is_some_and(|&generation| generation > 0))
        {
            // What was rotated has perhaps been read since this file was found.
            let header = self.header_for(&place);
            if let Some(input) = self.inputs.get_mut(&id) {
                (input.csv_header, input.header_sought) = (header, true);
            }
        }
        let mut found_format = false;
        let step = self.ensure_open(id, now_ms).and_then(|still| {
            let Some(input) = self.inputs.get_mut(&id) else { return Ok(Step::Lost) };
            if !still {
                return Ok(Step::Lost);
            }
            let Some(mut open) = input.file.take() else { return Ok(Step::Lost) };
            self.uses += 1;
            open.used = self.uses;
            let had_format = input.format.is_some();
            let step = if input.compressed {
                read_compressed::step(input, &mut open, &self.settings, now_ms)
            } else {
                step_plain(input, open.file.as_mut(), &self.settings, now_ms, &mut self.spare)
            };
            if matches!(step, Ok(Step::Told(ReadOutcome::Block(_) | ReadOutcome::Busy))) {
                open.used_at_ms = now_ms;
            }
            input.file = Some(open);
            found_format = !had_format && input.format.is_some();
            step
        });
        let Some(input) = self.inputs.get_mut(&id) else { return ReadOutcome::Ended };
        if found_format && let (Some(header), Some(place)) = (&input.csv_header, &input.place) {
            self.headers.insert(place.clone(), header.clone());
        }
        self.unsettled |= !matches!(step, Ok(Step::Told(ReadOutcome::Block(_) | ReadOutcome::Busy)));
        match step {
            Ok(Step::Told(outcome)) => {
                self.troubles.clear(&name);
                outcome
            }
            Ok(Step::Lost) => {
                if input.place.is_none() && input.len() > 0 {
                    self.troubles.note(format!(
                        "{name}: was cut and written anew after it was rotated: what it holds now is not read"
                    ));
                }
                input.lose();
                ReadOutcome::AtEnd
            }
            Ok(Step::EndedWith(warning)) => {
                self.troubles.hold(&name, warning);
                input.done = true;
                told_end(input)
            }
            Err(error) => {
                let message = format!("{name}: cannot be read: {error}");
                self.troubles.hold(&name, message.clone());
                // Without a name it could not be opened again.
                if input.place.is_some() {
                    input.close();
                }
                ReadOutcome::Unreadable(Error::transient(message).because(error))
            }
        }
    }

    /// Opens an input's file where it is not open; says whether it still is its own.
    fn ensure_open(&mut self, id: InputId, now_ms: i64) -> io::Result<bool> {
        let Some(input) = self.inputs.get_mut(&id) else { return Ok(false) };
        if input.file.is_none() {
            let Some(place) = input.place.clone() else { return Ok(false) };
            let mut file = match self.fs.open(&place) {
                Ok(file) => file,
                // The next look will tell what became of it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(error),
            };
            if !is_continued(file.as_mut(), input)? {
                return Ok(false);
            }
            input.observe(file.stat()?);
            self.uses += 1;
            let used = self.uses;
            self.hold_open(id, OpenFile { file, stream: None, used, used_at_ms: now_ms });
        }
        let Some(input) = self.inputs.get_mut(&id) else { return Ok(false) };
        let compressed = input.compressed;
        if let Some(open) = &mut input.file
            && compressed
            && open.stream.is_none()
        {
            match magic(&read_range(open.file.as_mut(), 0, 4)?) {
                Magic::Compressed(compression) => {
                    open.stream = Some(Box::new(new_stream(compression, open.file.stat()?.changed_ns)?));
                }
                _ => return Ok(false),
            }
        }
        Ok(true)
    }
}

/// Reads a plain file on.
fn step_plain(
    input: &mut Input,
    file: &mut dyn TailFile,
    settings: &TailSettings,
    now_ms: i64,
    spare: &mut Vec<Vec<u8>>,
) -> io::Result<Step> {
    let stat = file.stat()?;
    if stat.len < input.position {
        input.count_seen();
        return Ok(Step::Lost);
    }
    if stat.len != input.len() {
        input.changed_at_ms = now_ms;
    }
    if input.stat.is_some_and(|known| known.changed_ns != stat.changed_ns) {
        // Perhaps it was rewritten to the same length, or written in place.
        input.settled = None;
        input.changed_at_ms = now_ms;
        // Perhaps something was written amid NUL bytes.
        input.nul_scan = None;
    }
    input.observe(stat);
    input.asked_at_ms = now_ms;
    if input.settled == Some(stat.len) {
        return Ok(Step::Told(ReadOutcome::AtEnd));
    }
    // At the beginning there is no text before the position that would tell another file from it.
    if input.head.len < HEAD_BYTES || input.position == 0 {
        let head = read_range(file, 0, HEAD_BYTES)?;
        let is_compressed = input.position == 0 && matches!(magic(&head), Magic::Compressed(_));
        if !input.head.begins(&head) || is_compressed {
            return Ok(Step::Lost);
        }
        input.head = Excerpt::of(without_padding(head));
    }
    let end = input.end(stat.len);
    let complete =
        settings.bounded || (input.rotated && input.unchanged_for(now_ms, settings.rotate_wait_ms, settings));
    if input.overlong.is_some() {
        return step_overlong(input, file, settings, end, complete);
    }
    if input.format.is_none() {
        find_format(input, file, end, complete, settings)?;
    }
    let mut text = read_block(file, input.position, end, settings, spare)?;
    // After the text: what was read belongs to what was read before, even if the file is cut at this moment.
    if !still_follows(&input.tail, file, input.position)? {
        return Ok(Step::Lost);
    }
    input.size = input.size.max(end);
    input.unwritten_from = None;
    if text.first() == Some(&0)
        && let Some(step) = before_nul_bytes(input, file, &mut text, end, complete, settings)?
    {
        return Ok(step);
    }
    let Some(found_format) = input.format.clone().filter(|_| !text.is_empty()) else {
        return Ok(at_end(input, stat.len, end, settings, complete));
    };
    if let Some(newline) = memrchr(b'\n', &text) {
        text.truncate(newline + 1);
        return Ok(Step::Told(ReadOutcome::Block(deliver(input, text, found_format))));
    }
    if let Some(step) = before_nul_bytes(input, file, &mut text, end, complete, settings)? {
        return Ok(step);
    }
    if text.len() >= settings.long_block_bytes() {
        let mut tail = Excerpt::default();
        tail.push(&text);
        let scanned = input.position + text.len() as u64;
        text.truncate(PAYLOAD_BYTES_MAX);
        input.overlong = Some(Box::new(Overlong { first: text, scanned, tail }));
        return step_overlong(input, file, settings, end, complete);
    }
    if complete && is_last_line(&text, input, &found_format, settings) {
        return Ok(Step::Told(ReadOutcome::Block(deliver(input, text, found_format))));
    }
    let text_end = input.position + text.len() as u64;
    Ok(at_end(input, stat.len, text_end, settings, complete))
}

/// Finds out how an input is to be read: by the first bytes of its file, or where these are NUL bytes, by those at the
/// position.
fn find_format(
    input: &mut Input,
    file: &mut dyn TailFile,
    end: u64,
    complete: bool,
    settings: &TailSettings,
) -> io::Result<()> {
    let mut prefix_at = |at: u64| -> io::Result<(Vec<u8>, bool)> {
        let want = (end.saturating_sub(at)).min(format::prefix_bytes(&settings.decode) as u64) as usize;
        let prefix = read_range(file, at, want)?;
        let last = complete && at + want as u64 == end;
        Ok((prefix, last))
    };
    let (mut prefix, mut last) = prefix_at(0)?;
    let mut at = 0;
    if nul_bytes::leading(&prefix) == prefix.len() {
        if input.position == 0 {
            // There is no text yet.
            return Ok(());
        }
        at = input.position;
        (prefix, last) = prefix_at(at)?;
    }
    let found = format::find(&input.name, &prefix, last, input.csv_header.as_deref(), &settings.decode);
    input.set_format(found.map(|found| match found {
        Format::Csv(header) if at > 0 => Format::Csv(Arc::new(header.moved(at))),
        found => found,
    }));
    Ok(())
}

/// Where a long run of NUL bytes ends the text, or one that reaches the file's end: what is done if something stands
/// behind it. Otherwise the text is cut to what is before it, and goes on being looked at as the file's end.
fn before_nul_bytes(
    input: &mut Input,
    file: &mut dyn TailFile,
    text: &mut Vec<u8>,
    end: u64,
    complete: bool,
    settings: &TailSettings,
) -> io::Result<Option<Step>> {
    let run = if text[0] == 0 { Some((0, nul_bytes::leading(text))) } else { nul_bytes::run(text, true) };
    let Some((start, _)) = run else { return Ok(None) };
    let from = input.position + start as u64;
    match unwritten::behind(input, file, from, end, complete)? {
        Behind::Unknown => Ok(Some(Step::Told(ReadOutcome::Busy))),
        Behind::Text(to) if start == 0 || to - from >= nul_bytes::RUN_MIN as u64 => {
            text.truncate(start);
            Ok(Some(Step::Told(ReadOutcome::Block(deliver_before_nul_bytes(input, std::mem::take(text), to - from)))))
        }
        // A short run within a line.
        Behind::Text(_) => Ok(None),
        Behind::Nothing => {
            text.truncate(start);
            input.unwritten_from = Some(from);
            // What is not written yet is not missing either.
            input.size = input.position.max(from);
            if text.is_empty() {
                return Ok(Some(at_end(input, end, from, settings, complete)));
            }
            Ok(None)
        }
    }
}

/// Text from a position on: a block, or where that holds no whole line, twice as much, up to what the longest line needs.
fn read_block(
    file: &mut dyn TailFile,
    position: u64,
    end: u64,
    settings: &TailSettings,
    spare: &mut Vec<Vec<u8>>,
) -> io::Result<Vec<u8>> {
    let left = end - position.min(end);
    let want = |bytes: usize| left.min(bytes as u64) as usize;
    let block = want(settings.block_bytes);
    // One that is far larger would stay so for as long as the block waits.
    let buffer = spare.pop().filter(|buffer| buffer.capacity() <= 2 * block.max(BLOCK_BYTES_MIN)).unwrap_or_default();
    let mut text = read_range_into(file, position, block, buffer)?;
    let (mut bytes, longest) = (block, want(settings.long_block_bytes()));
    while bytes < longest && text.len() >= bytes && memrchr(b'\n', &text).is_none() {
        bytes = (2 * bytes).min(longest);
        text = read_range_into(file, position, bytes, text)?;
    }
    Ok(text)
}

/// All that can be read for now has been, of a file of length `len` whose text ends at `text_end`; where the file is
/// complete, what is left is half a line.
fn at_end(input: &mut Input, len: u64, text_end: u64, settings: &TailSettings, complete: bool) -> Step {
    let left = text_end.saturating_sub(input.position);
    if complete {
        input.half = left;
    }
    if !settings.bounded {
        // Text in the place of NUL bytes changes the length by nothing, and may not change the time either.
        let may_hide =
            input.unwritten_from.is_some() && input.asked_at_ms.saturating_sub(input.changed_at_ms) < TIMES_APART_MS;
        input.settled = Some(len).filter(|_| !may_hide);
        if may_hide {
            input.nul_scan = None;
        }
        return Step::Told(ReadOutcome::AtEnd);
    }
    if left > 0 {
        return Step::EndedWith(half_line(input));
    }
    input.done = true;
    Step::Told(ReadOutcome::Ended)
}

/// What is told of an input that is read for good: its end, but where there is a gap, only with that, by the next look.
fn told_end(input: &Input) -> ReadOutcome {
    if input.gap.is_some() { ReadOutcome::AtEnd } else { ReadOutcome::Ended }
}

/// The warning about a last line that is not taken.
pub(super) fn half_line(input: &Input) -> String {
    format!("{}: its last line has no end, {} bytes stay unread", input.name, input.half)
}

/// Whether the text before a position in a file still is what was read there.
fn still_follows(tail: &Excerpt, file: &mut dyn TailFile, position: u64) -> io::Result<bool> {
    let start = position.saturating_sub(tail.len as u64);
    let before = read_range(file, start, (position - start) as usize)?;
    Ok(if tail.bytes.is_empty() { tail.ends(&before) } else { before.ends_with(&tail.bytes) })
}

/// Notes the text before a position within the blocks read, which is where an epoch may end. It is read again, and only
/// believed if the file still is what it was at the end of those blocks.
pub(super) fn mark_within_block(input: &mut Input, fs: &dyn FileSystem, position: u64) {
    if input.compressed || position == 0 || position >= input.position || input.has_mark(position) {
        return;
    }
    let mut opened = None;
    let file = match &mut input.file {
        Some(open) => open.file.as_mut(),
        None => match input.place.as_ref().map(|place| fs.open(place)) {
            Some(Ok(file)) => opened.insert(file).as_mut(),
            _ => return,
        },
    };
    let start = position.saturating_sub(TAIL_BYTES as u64);
    let text = read_range(file, start, (position - start) as usize);
    if let Ok(text) = text
        && text.len() as u64 == position - start
        && still_follows(&input.tail, file, input.position).unwrap_or(false)
    {
        input.mark(position, &text);
    }
}

/// A block from the position on, which moves behind it.
pub(super) fn deliver(input: &mut Input, text: Vec<u8>, format: Format) -> Block {
    let from = input.position;
    let to = from + text.len() as u64;
    input.tail.push(&text);
    input.advance(to);
    Block { input: input.id, from, to, text, nul_bytes: 0, format, overlong: false }
}

/// A block of text that ends before NUL bytes.
pub(super) fn deliver_before_nul_bytes(input: &mut Input, text: Vec<u8>, nul_bytes: u64) -> Block {
    let from = input.position;
    let to = from + text.len() as u64 + nul_bytes;
    input.tail.push(&text);
    // All that the tail covers, or as much of it as there is.
    let nul = vec![0; usize::try_from(nul_bytes).unwrap_or(usize::MAX).min(TAIL_BYTES)];
    input.tail.push(&nul);
    input.advance(to);
    input.unwritten_from = None;
    let format = input.format.clone().unwrap_or(Format::Ndjson);
    Block { input: input.id, from, to, text, nul_bytes, format, overlong: false }
}

/// The block of a line too long for one, whose end has been found.
pub(super) fn deliver_overlong(input: &mut Input, line: Overlong, last: &[u8]) -> Block {
    let from = input.position;
    let to = line.scanned + last.len() as u64;
    input.tail = line.tail;
    input.tail.push(last);
    input.advance(to);
    let format = input.format.clone().unwrap_or(Format::Ndjson);
    Block { input: input.id, from, to, text: line.first, nul_bytes: 0, format, overlong: true }
}

/// Searches a line without end for its end.
fn step_overlong(
    input: &mut Input,
    file: &mut dyn TailFile,
    settings: &TailSettings,
    end: u64,
    complete: bool,
) -> io::Result<Step> {
    let Some(mut line) = input.overlong.take() else { return Ok(Step::Told(ReadOutcome::Busy)) };
    if !still_follows(&line.tail, file, line.scanned)? {
        return Ok(Step::Lost);
    }
    let stop = line.scanned.saturating_add(SCAN_BYTES_MAX);
    while line.scanned < stop {
        let want = end.saturating_sub(line.scanned).min(settings.block_bytes as u64) as usize;
        let mut chunk = read_range(file, line.scanned, want)?;
        let at_end_of_file = chunk.len() == want && line.scanned + want as u64 == end;
        let newline_at = memchr(b'\n', &chunk);
        if let Some((start, _)) =
            nul_bytes::run(&chunk, at_end_of_file).filter(|run| newline_at.is_none_or(|at| run.0 < at))
        {
            let from = line.scanned + start as u64;
            match unwritten::behind(input, file, from, end, complete)? {
                Behind::Unknown => {
                    input.overlong = Some(line);
                    return Ok(Step::Told(ReadOutcome::Busy));
                }
                Behind::Text(to) if to - from >= nul_bytes::RUN_MIN as u64 => {
                    return Ok(Step::Told(ReadOutcome::Block(deliver_overlong(input, *line, &chunk[..start]))));
                }
                Behind::Text(_) => {}
                Behind::Nothing => {
                    input.unwritten_from = Some(from);
                    input.size = from;
                    chunk.truncate(start);
                }
            }
        }
        if chunk.is_empty() {
            let text_end = input.unwritten_from.unwrap_or(end);
            input.overlong = Some(line);
            return Ok(at_end(input, end, text_end, settings, complete));
        }
        if let Some(newline) = memchr(b'\n', &chunk) {
            return Ok(Step::Told(ReadOutcome::Block(deliver_overlong(input, *line, &chunk[..=newline]))));
        }
        line.tail.push(&chunk);
        line.scanned += chunk.len() as u64;
    }
    input.overlong = Some(line);
    Ok(Step::Told(ReadOutcome::Busy))
}

/// Whether text at an input's position, which no line ending follows, is a line all the same: one whole object of JSON, or
/// where that is asked for, a row of CSV that has all its columns.
pub(super) fn is_last_line(text: &[u8], input: &Input, format: &Format, settings: &TailSettings) -> bool {
    let text = if input.position == 0 { text.strip_prefix(format::BOM).unwrap_or(text) } else { text };
    match format {
        Format::Ndjson => text.len() <= settings.decode.line_bytes_max && json::is_object(text),
        Format::Csv(header) => {
            let before_ms = settings.last_rows_before_ms;
            let is_old = before_ms.zip(input.stat).is_some_and(|(before_ms, stat)| stat.modified_ms <= before_ms);
            is_old && input.position >= header.end && csv::is_whole_row(text, header, &settings.decode)
        }
    }
}
