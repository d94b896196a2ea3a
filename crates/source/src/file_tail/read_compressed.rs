//! Reads compressed files as text streams. Text that was read before is skipped first.

use super::compressed::Inflated;
use super::decide::{self, StreamEnd, StreamStop};
use super::fingerprint::{Excerpt, HEAD_BYTES};
use super::input::Input;
use super::on_disk::Coding;
use super::open_file::{OpenFile, Stream};
use super::settings::{SCAN_BYTES_MAX, TailSettings};
use super::stage::{Done, Gap, Rest};
use super::step::{Step, deliver, deliver_before_nul_bytes, deliver_overlong, half_line, is_last_line};
use super::text::Overlong;
use crate::block::Format;
use crate::decode::{format, nul_bytes};
use crate::file_system::TailFile;
use memchr::{memchr, memrchr};
use std::io;
use std::sync::Arc;

/// Text decoded at a time while skipping to the position.
const SKIP_BYTES: usize = 256 * 1024;

/// Continues to read a compressed file.
pub(super) fn step(input: &mut Input, open: &mut OpenFile, settings: &TailSettings, now_ms: i64) -> io::Result<Step> {
    let step = step_on(input, open, settings, now_ms);
    if let Some(stream) = &open.stream {
        if let Coding::Compressed { consumed, .. } = &mut input.disk.coding
            && stream.verified
        {
            *consumed = stream.inflater.consumed;
        }
        if stream.outdated {
            open.stream = None;
            input.text.overlong = None;
        }
    }
    step
}

fn step_on(input: &mut Input, open: &mut OpenFile, settings: &TailSettings, now_ms: i64) -> io::Result<Step> {
    let stat = open.file.stat()?;
    let Some(stream) = open.stream.as_mut() else { return Ok(Step::Lost) };
    if stat.len < stream.inflater.consumed {
        return Ok(Step::Lost);
    }
    if stat.len != input.disk.len() {
        input.disk.changed_at_ms = now_ms;
    }
    input.disk.stat = Some(stat);
    let limit = input.disk.end(stat.len);
    let prefix_len = prefix_bytes(settings);
    if !stream.verified
        && let Some(step) = skip(input, stream, open.file.as_mut(), limit, settings, now_ms)?
    {
        return Ok(step);
    }
    if input.text.overlong.is_some() {
        return step_overlong(input, stream, open.file.as_mut(), limit, settings, now_ms);
    }
    let (mut bytes, longest) = (settings.block_bytes, settings.long_block_bytes());
    stream.pull(open.file.as_mut(), limit, bytes, prefix_len)?;
    while (bytes..longest).contains(&stream.carry.len()) && memrchr(b'\n', &stream.carry).is_none() {
        bytes = (2 * bytes).min(longest);
        stream.pull(open.file.as_mut(), limit, bytes, prefix_len)?;
    }
    if !learn(input, stream, settings) {
        return Ok(refuse(input));
    }
    if let (Some(newline), Some(format)) = (memrchr(b'\n', &stream.carry), input.layout.format.clone()) {
        let rest = stream.carry.split_off(newline + 1);
        let text = std::mem::replace(&mut stream.carry, rest);
        stream.carry_at += text.len() as u64;
        return Ok(Step::Block(deliver(input, text, format)));
    }
    if let Some((start, end)) = ended_by_nul_bytes(&stream.carry) {
        let text = stream.carry[..start].to_vec();
        stream.pass(end);
        return Ok(Step::Block(deliver_before_nul_bytes(input, text, (end - start) as u64)));
    }
    if stream.carry.len() >= longest {
        input.text.overlong = Some(Box::new(Overlong::new(stream.carry_at, &stream.carry)));
        stream.pass(stream.carry.len());
        return step_overlong(input, stream, open.file.as_mut(), limit, settings, now_ms);
    }
    Ok(stopped(input, stream, settings, now_ms))
}

/// Decodes up to the position and verifies the skipped text; returns a step if this is not finished.
fn skip(
    input: &mut Input,
    stream: &mut Stream,
    file: &mut dyn TailFile,
    limit: u64,
    settings: &TailSettings,
    now_ms: i64,
) -> io::Result<Option<Step>> {
    let mut budget = SCAN_BYTES_MAX;
    while stream.carry_at < input.text.position {
        if stream.carry.is_empty() {
            stream.pull(file, limit, SKIP_BYTES, prefix_bytes(settings))?;
        }
        if stream.carry.is_empty() {
            return Ok(Some(stopped(input, stream, settings, now_ms)));
        }
        let len = stream.carry.len().min(usize::try_from(input.text.position - stream.carry_at).unwrap_or(usize::MAX));
        stream.pass(len);
        budget = budget.saturating_sub(len as u64);
        if budget == 0 {
            return Ok(Some(Step::Busy));
        }
    }
    if !input.text.tail.ends(&stream.before) && input.text.position > 0 {
        return Ok(Some(refuse(input)));
    }
    if input.text.tail.bytes.is_empty() {
        input.text.tail = Excerpt::of(std::mem::take(&mut stream.before));
    }
    stream.verified = true;
    Ok(None)
}

/// The number of bytes of text that determine its head and format.
fn prefix_bytes(settings: &TailSettings) -> usize {
    format::prefix_bytes(&settings.decode).max(HEAD_BYTES)
}

/// Start and end of the NUL bytes that end text without a line ending. NUL bytes at its beginning belong to no line: no
/// writer replaces them in a compressed file.
fn ended_by_nul_bytes(text: &[u8]) -> Option<(usize, usize)> {
    match nul_bytes::leading(text) {
        0 => nul_bytes::run(text, false),
        leading => Some((0, leading)),
    }
}

/// Takes head and format from the first bytes of the text; returns false if they do not match the input.
fn learn(input: &mut Input, stream: &mut Stream, settings: &TailSettings) -> bool {
    if input.text.head.len < HEAD_BYTES && stream.prefix.len() > input.text.head.len {
        let head = stream.prefix[..stream.prefix.len().min(HEAD_BYTES)].to_vec();
        if !input.text.head.begins(&head) {
            return false;
        }
        input.text.head = Excerpt::of(head);
    }
    if input.layout.format.is_none() {
        let last = matches!(stream.last, Inflated::End | Inflated::Corrupt(_));
        let kept = input.layout.header.line().map(|line| &**line);
        let begins_with_text = nul_bytes::leading(&stream.prefix) < stream.prefix.len();
        if begins_with_text || stream.prefix.is_empty() {
            let found = format::find(&input.name, &stream.prefix, last, kept, &settings.decode);
            input.layout.set_format(found);
        } else {
            // The format is decided by the text after the NUL bytes.
            let at = nul_bytes::leading(&stream.carry);
            let found = match &stream.carry[at..] {
                [] => None,
                text => format::find(&input.name, text, last, kept, &settings.decode),
            };
            input.layout.set_format(found.map(|found| match found {
                Format::Csv(header) => Format::Csv(Arc::new(header.moved(stream.carry_at + at as u64))),
                found => found,
            }));
        }
    }
    true
}

/// The file resembled this input's file but is another one.
fn refuse(input: &mut Input) -> Step {
    input.disk.refused = input.disk.stat.map(|stat| Box::new(stat.inode));
    Step::Lost
}

/// Decides what to do if the decoded text has no whole line left, or ends before the position.
fn stopped(input: &mut Input, stream: &mut Stream, settings: &TailSettings, now_ms: i64) -> Step {
    let unchanged_ms = input.disk.unchanged_ms(now_ms);
    let Coding::Compressed { restarted, .. } = &mut input.disk.coding else { return Step::Lost };
    let has_changed = input.disk.stat.is_some_and(|stat| stat.changed_ns != stream.begun_ns);
    let stop = StreamStop {
        last: &stream.last,
        whole: stream.inflater.is_whole(),
        before_position: stream.end() < input.text.position,
        may_restart: !*restarted && has_changed,
        unchanged_ms,
    };
    match decide::stream_end(stop, settings) {
        StreamEnd::Busy => Step::Busy,
        StreamEnd::Wait => Step::AtEnd,
        StreamEnd::Refuse => refuse(input),
        StreamEnd::Restart => {
            (*restarted, stream.outdated) = (true, true);
            Step::Busy
        }
        StreamEnd::Incomplete => {
            let warning = format!("{}: is incomplete; a later run reads what is appended", input.name);
            Step::Done(Done { at: input.disk.end(input.disk.len()), rest: Rest::Later }, Some(warning))
        }
        StreamEnd::GiveUp => give_up(input, stream),
        StreamEnd::Complete => complete(input, stream, settings),
    }
}

/// The text was read to its end, except for an unterminated last line.
fn complete(input: &mut Input, stream: &mut Stream, settings: &TailSettings) -> Step {
    if let Some(format) = input.layout.format.clone()
        && is_last_line(&stream.carry, input, &format, settings)
    {
        let text = std::mem::take(&mut stream.carry);
        stream.carry_at += text.len() as u64;
        return Step::Block(deliver(input, text, format));
    }
    input.text.half = stream.end() - input.text.position;
    let warning = (input.text.half > 0).then(|| half_line(input));
    Step::Done(Done { at: stream.inflater.consumed, rest: Rest::Nothing }, warning)
}

/// Gives up the rest, which cannot be decoded.
fn give_up(input: &Input, stream: &Stream) -> Step {
    let why = if let Inflated::Corrupt(why) = &stream.last { why } else { "it is incomplete" };
    let at = input.disk.end(input.disk.len());
    let bytes = at.saturating_sub(stream.inflater.consumed).max(stream.carry.len() as u64);
    let reason = format!("{}: cannot be decoded to its end: {why}; about {bytes} bytes are lost", input.name);
    let rest = Rest::Lost(Box::new(Gap { bytes, reason: reason.clone() }));
    Step::Done(Done { at, rest }, Some(reason))
}

/// Searches for the end of an overlong line.
fn step_overlong(
    input: &mut Input,
    stream: &mut Stream,
    file: &mut dyn TailFile,
    limit: u64,
    settings: &TailSettings,
    now_ms: i64,
) -> io::Result<Step> {
    let Some(mut line) = input.text.overlong.take() else { return Ok(Step::Busy) };
    let stop = line.scanned.saturating_add(SCAN_BYTES_MAX);
    while line.scanned < stop {
        if stream.carry.is_empty() {
            stream.pull(file, limit, settings.block_bytes, 0)?;
        }
        let newline_at = memchr(b'\n', &stream.carry);
        let run = nul_bytes::run(&stream.carry, false).filter(|run| newline_at.is_none_or(|at| run.0 < at));
        if let Some((start, _)) = run {
            let block = deliver_overlong(input, *line, &stream.carry[..start]);
            stream.pass(start);
            return Ok(Step::Block(block));
        }
        if let Some(newline) = newline_at {
            let block = deliver_overlong(input, *line, &stream.carry[..=newline]);
            stream.pass(newline + 1);
            return Ok(Step::Block(block));
        }
        if stream.carry.is_empty() {
            let step = stopped(input, stream, settings, now_ms);
            input.text.overlong = Some(line);
            return Ok(step);
        }
        line.tail.push(&stream.carry);
        line.scanned += stream.carry.len() as u64;
        stream.pass(stream.carry.len());
    }
    input.text.overlong = Some(line);
    Ok(Step::Busy)
}
