//! Reads plain files in blocks of whole lines, up to the end of the written text.

use super::content::still_follows;
use super::decide::{self, TextEnd};
use super::fingerprint::{Excerpt, HEAD_BYTES, without_padding};
use super::input::Input;
use super::settings::{BLOCK_BYTES_MIN, SCAN_BYTES_MAX, TailSettings};
use super::stage::{Done, Rest, Stage};
use super::step::{Step, deliver, deliver_before_nul_bytes, deliver_overlong, half_line, is_last_line};
use super::text::Overlong;
use super::unwritten::Behind;
use crate::block::Format;
use crate::compression::{Magic, magic};
use crate::decode::{format, nul_bytes};
use crate::file_system::{FileStat, TailFile, read_range, read_range_into};
use memchr::{memchr, memrchr};
use std::io;
use std::sync::Arc;

/// Changes further apart than this, in milliseconds, change a file's times, which have the resolution of a timer tick.
const TIMES_APART_MS: i64 = 50;

/// What a reading step may read.
#[derive(Clone, Copy)]
struct Scope<'a> {
    /// How files are tailed.
    settings: &'a TailSettings,
    /// The length of the file.
    len: u64,
    /// The offset up to which it is read.
    end: u64,
    /// Whether no more text is expected after that.
    complete: bool,
    /// The present time, in monotonic milliseconds.
    now_ms: i64,
}

/// Continues to read a plain file.
pub(super) fn step(
    input: &mut Input,
    file: &mut dyn TailFile,
    settings: &TailSettings,
    now_ms: i64,
    spare: &mut Vec<Vec<u8>>,
) -> io::Result<Step> {
    let stat = file.stat()?;
    if stat.len < input.text.position {
        input.count_seen();
        return Ok(Step::Lost);
    }
    note_stat(input, stat, now_ms);
    if input.stage == (Stage::Reading { settled: Some(stat.len) }) {
        return Ok(Step::AtEnd);
    }
    // At the beginning there is no text before the position to identify the file.
    if (input.text.head.len < HEAD_BYTES || input.text.position == 0) && !learn_head(input, file)? {
        return Ok(Step::Lost);
    }
    let end = input.disk.end(stat.len);
    let complete =
        settings.bounded || (input.disk.rotated && input.unchanged_for(now_ms, settings.rotate_wait_ms, settings));
    let scope = Scope { settings, len: stat.len, end, complete, now_ms };
    if input.text.overlong.is_some() {
        return step_overlong(input, file, scope);
    }
    if input.layout.format.is_none() {
        find_format(input, file, scope)?;
    }
    let text = read_block(file, input.text.position, end, settings, spare)?;
    // Checked after the read: the text then follows the text read before, even if the file is being truncated.
    if !still_follows(&input.text.tail, file, input.text.position)? {
        return Ok(Step::Lost);
    }
    input.size.largest = input.size.largest.max(end);
    input.disk.set_unwritten_from(None);
    step_lines(input, file, text, scope)
}

/// Notes the present state of the file and its consequences.
fn note_stat(input: &mut Input, stat: FileStat, now_ms: i64) {
    if stat.len != input.disk.len() {
        input.disk.changed_at_ms = now_ms;
    }
    if input.disk.stat.is_some_and(|known| known.changed_ns != stat.changed_ns) {
        // It may have been rewritten to the same length, or in place.
        input.stage.unsettle();
        input.disk.changed_at_ms = now_ms;
        // Text may have been written among NUL bytes.
        input.disk.scan_anew();
    }
    input.observe(stat);
}

/// Takes the first bytes of the text; returns false if they do not match the input.
fn learn_head(input: &mut Input, file: &mut dyn TailFile) -> io::Result<bool> {
    let head = read_range(file, 0, HEAD_BYTES)?;
    let is_compressed = input.text.position == 0 && matches!(magic(&head), Magic::Compressed(_));
    if !input.text.head.begins(&head) || is_compressed {
        return Ok(false);
    }
    input.text.head = Excerpt::of(without_padding(head));
    Ok(true)
}

/// Delivers the whole lines after the position.
fn step_lines(input: &mut Input, file: &mut dyn TailFile, mut text: Vec<u8>, scope: Scope<'_>) -> io::Result<Step> {
    if text.first() == Some(&0)
        && let Some(step) = before_nul_bytes(input, file, &mut text, scope)?
    {
        return Ok(step);
    }
    let Some(found_format) = input.layout.format.clone().filter(|_| !text.is_empty()) else {
        return Ok(at_end(input, scope.len, scope.end, scope));
    };
    if let Some(newline) = memrchr(b'\n', &text) {
        text.truncate(newline + 1);
        return Ok(Step::Block(deliver(input, text, found_format)));
    }
    if let Some(step) = before_nul_bytes(input, file, &mut text, scope)? {
        return Ok(step);
    }
    if text.len() >= scope.settings.long_block_bytes() {
        input.text.overlong = Some(Box::new(Overlong::new(input.text.position, &text)));
        return step_overlong(input, file, scope);
    }
    if scope.complete && is_last_line(&text, input, &found_format, scope.settings) {
        return Ok(Step::Block(deliver(input, text, found_format)));
    }
    let text_end = input.text.position + text.len() as u64;
    Ok(at_end(input, scope.len, text_end, scope))
}

/// Detects the format of an input by the first bytes of its file or, if these are NUL bytes, by the bytes at the
/// position.
fn find_format(input: &mut Input, file: &mut dyn TailFile, scope: Scope<'_>) -> io::Result<()> {
    let Scope { settings, end, complete, .. } = scope;
    let mut prefix_at = |at: u64| -> io::Result<(Vec<u8>, bool)> {
        let want = (end.saturating_sub(at)).min(format::prefix_bytes(&settings.decode) as u64) as usize;
        let prefix = read_range(file, at, want)?;
        let last = complete && at + want as u64 == end;
        Ok((prefix, last))
    };
    let (mut prefix, mut last) = prefix_at(0)?;
    let mut at = 0;
    if nul_bytes::leading(&prefix) == prefix.len() {
        if input.text.position == 0 {
            // No text is written yet.
            return Ok(());
        }
        at = input.text.position;
        (prefix, last) = prefix_at(at)?;
    }
    let found =
        format::find(&input.name, &prefix, last, input.layout.header.line().map(|line| &**line), &settings.decode);
    input.layout.set_format(found.map(|found| match found {
        Format::Csv(header) if at > 0 => Format::Csv(Arc::new(header.moved(at))),
        found => found,
    }));
    Ok(())
}

/// Handles NUL bytes that end the text: a long run, or a run up to the end of the file. Returns a step if text may
/// follow them. Otherwise it cuts the text before them and treats that as the end of the file.
fn before_nul_bytes(
    input: &mut Input,
    file: &mut dyn TailFile,
    text: &mut Vec<u8>,
    scope: Scope<'_>,
) -> io::Result<Option<Step>> {
    let Scope { end, complete, .. } = scope;
    let run = if text[0] == 0 { Some((0, nul_bytes::leading(text))) } else { nul_bytes::run(text, true) };
    let Some((start, _)) = run else { return Ok(None) };
    let from = input.text.position + start as u64;
    match input.disk.behind(file, from, end, complete)? {
        Behind::Unknown => Ok(Some(Step::Busy)),
        Behind::Text(to) if start == 0 || to - from >= nul_bytes::RUN_MIN as u64 => {
            text.truncate(start);
            Ok(Some(Step::Block(deliver_before_nul_bytes(input, std::mem::take(text), to - from))))
        }
        // A short run within a line.
        Behind::Text(_) => Ok(None),
        Behind::Nothing => {
            text.truncate(start);
            input.disk.set_unwritten_from(Some(from));
            // Text that is not written yet is not missing.
            input.size.largest = input.text.position.max(from);
            if text.is_empty() {
                return Ok(Some(at_end(input, end, from, scope)));
            }
            Ok(None)
        }
    }
}

/// Reads a block of text from a position. While the block contains no whole line, its size is doubled, up to the
/// maximum length of a line.
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
    // A much larger buffer would occupy its memory as long as the block waits.
    let buffer = spare.pop().filter(|buffer| buffer.capacity() <= 2 * block.max(BLOCK_BYTES_MIN)).unwrap_or_default();
    let mut text = read_range_into(file, position, block, buffer)?;
    let (mut bytes, longest) = (block, want(settings.long_block_bytes()));
    while bytes < longest && text.len() >= bytes && memrchr(b'\n', &text).is_none() {
        bytes = (2 * bytes).min(longest);
        text = read_range_into(file, position, bytes, text)?;
    }
    Ok(text)
}

/// All text that is readable now was read, of a file of length `len` whose text ends at `text_end`. If the file is
/// complete, the rest is an incomplete line.
fn at_end(input: &mut Input, len: u64, text_end: u64, scope: Scope<'_>) -> Step {
    let left = text_end.saturating_sub(input.text.position);
    if scope.complete {
        input.text.half = left;
    }
    let may_be_written =
        input.disk.unwritten_from().is_some() && input.disk.unchanged_ms(scope.now_ms) < TIMES_APART_MS;
    let done = Done { at: 0, rest: Rest::Nothing };
    match decide::text_end(scope.settings.bounded, left, may_be_written) {
        TextEnd::Settled => input.stage = Stage::Reading { settled: Some(len) },
        TextEnd::Unsure => {
            input.stage.unsettle();
            input.disk.scan_anew();
        }
        TextEnd::Done => return Step::Done(done, None),
        TextEnd::HalfLine => return Step::Done(done, Some(half_line(input))),
    }
    Step::AtEnd
}

/// Searches for the end of an overlong line.
fn step_overlong(input: &mut Input, file: &mut dyn TailFile, scope: Scope<'_>) -> io::Result<Step> {
    let Scope { settings, end, complete, .. } = scope;
    let Some(mut line) = input.text.overlong.take() else { return Ok(Step::Busy) };
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
            match input.disk.behind(file, from, end, complete)? {
                Behind::Unknown => {
                    input.text.overlong = Some(line);
                    return Ok(Step::Busy);
                }
                Behind::Text(to) if to - from >= nul_bytes::RUN_MIN as u64 => {
                    return Ok(Step::Block(deliver_overlong(input, *line, &chunk[..start])));
                }
                Behind::Text(_) => {}
                Behind::Nothing => {
                    input.disk.set_unwritten_from(Some(from));
                    input.size.largest = from;
                    chunk.truncate(start);
                }
            }
        }
        if chunk.is_empty() {
            let text_end = input.disk.unwritten_from().unwrap_or(end);
            input.text.overlong = Some(line);
            return Ok(at_end(input, end, text_end, scope));
        }
        if let Some(newline) = memchr(b'\n', &chunk) {
            return Ok(Step::Block(deliver_overlong(input, *line, &chunk[..=newline])));
        }
        line.tail.push(&chunk);
        line.scanned += chunk.len() as u64;
    }
    input.text.overlong = Some(line);
    Ok(Step::Busy)
}
