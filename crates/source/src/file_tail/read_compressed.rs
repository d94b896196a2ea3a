//! Reading compressed files: their text as a stream, first past what was read before.

use super::compressed::Inflated;
use super::fingerprint::{Excerpt, HEAD_BYTES};
use super::input::{Input, Overlong};
use super::open_file::{OpenFile, Stream};
use super::outcome::ReadOutcome;
use super::settings::{SCAN_BYTES_MAX, TailSettings};
use super::step::{Step, deliver, deliver_before_nul_bytes, deliver_overlong, half_line, is_last_line};
use crate::block::Format;
use crate::decode::{format, nul_bytes};
use crate::file_system::TailFile;
use adtally_model::dead_letter::PAYLOAD_BYTES_MAX;
use memchr::{memchr, memrchr};
use std::io;
use std::sync::Arc;

/// Text decoded at a time on the way to the position.
const SKIP_BYTES: usize = 256 * 1024;

/// Reads a compressed file on.
pub(super) fn step(input: &mut Input, open: &mut OpenFile, settings: &TailSettings, now_ms: i64) -> io::Result<Step> {
    let step = step_on(input, open, settings, now_ms);
    if let (Ok(Step::Told(ReadOutcome::Ended | ReadOutcome::AtEnd) | Step::EndedWith(_)), Some(stream)) =
        (&step, &open.stream)
    {
        // What cannot be decoded is lost up to where the file ended then.
        let lost = input.gap.is_some() || input.incomplete;
        input.done_at = if lost { input.end(input.len()) } else { stream.inflater.consumed };
    }
    if let Some(stream) = &open.stream {
        if stream.verified {
            input.consumed = stream.inflater.consumed;
        }
        if stream.outdated {
            open.stream = None;
            input.overlong = None;
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
    if stat.len != input.len() {
        input.changed_at_ms = now_ms;
    }
    input.stat = Some(stat);
    let limit = input.end(stat.len);
    let prefix_len = format::prefix_bytes(&settings.decode).max(HEAD_BYTES);
    let mut budget = SCAN_BYTES_MAX;
    while stream.carry_at < input.position {
        if stream.carry.is_empty() {
            stream.pull(open.file.as_mut(), limit, SKIP_BYTES, prefix_len)?;
        }
        if stream.carry.is_empty() {
            return Ok(stopped_before_position(input, stream, stat.len, settings, now_ms));
        }
        let len = stream.carry.len().min(usize::try_from(input.position - stream.carry_at).unwrap_or(usize::MAX));
        stream.pass(len);
        budget = budget.saturating_sub(len as u64);
        if budget == 0 {
            return Ok(Step::Told(ReadOutcome::Busy));
        }
    }
    if !stream.verified {
        if !input.tail.ends(&stream.before) && input.position > 0 {
            return Ok(refuse(input));
        }
        if input.tail.bytes.is_empty() {
            input.tail = Excerpt::of(std::mem::take(&mut stream.before));
        }
        stream.verified = true;
    }
    if input.overlong.is_some() {
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
    if let (Some(newline), Some(format)) = (memrchr(b'\n', &stream.carry), input.format.clone()) {
        let rest = stream.carry.split_off(newline + 1);
        let text = std::mem::replace(&mut stream.carry, rest);
        stream.carry_at += text.len() as u64;
        return Ok(Step::Told(ReadOutcome::Block(deliver(input, text, format))));
    }
    if let Some((start, end)) = ended_by_nul_bytes(&stream.carry) {
        let text = stream.carry[..start].to_vec();
        stream.pass(end);
        return Ok(Step::Told(ReadOutcome::Block(deliver_before_nul_bytes(input, text, (end - start) as u64))));
    }
    if stream.carry.len() >= longest {
        let mut tail = Excerpt::default();
        tail.push(&stream.carry);
        let first = stream.carry[..PAYLOAD_BYTES_MAX.min(stream.carry.len())].to_vec();
        let scanned = stream.carry_at + stream.carry.len() as u64;
        let len = stream.carry.len();
        stream.pass(len);
        input.overlong = Some(Box::new(Overlong { first, scanned, tail }));
        return step_overlong(input, stream, open.file.as_mut(), limit, settings, now_ms);
    }
    Ok(stopped(input, stream, settings, now_ms))
}

/// Where text without a line ending is ended by NUL bytes, and where these end: at its beginning they belong to no line.
/// Nobody goes on writing behind them in a compressed file.
fn ended_by_nul_bytes(text: &[u8]) -> Option<(usize, usize)> {
    match nul_bytes::leading(text) {
        0 => nul_bytes::run(text, false),
        leading => Some((0, leading)),
    }
}

/// Takes head and format from the first bytes of the text; false where these are not the input's.
fn learn(input: &mut Input, stream: &mut Stream, settings: &TailSettings) -> bool {
    if input.head.len < HEAD_BYTES && stream.prefix.len() > input.head.len {
        let head = stream.prefix[..stream.prefix.len().min(HEAD_BYTES)].to_vec();
        if !input.head.begins(&head) {
            return false;
        }
        input.head = Excerpt::of(head);
    }
    if input.format.is_none() {
        let last = matches!(stream.last, Inflated::End | Inflated::Corrupt(_));
        let kept = input.csv_header.as_deref();
        let begins_with_text = nul_bytes::leading(&stream.prefix) < stream.prefix.len();
        if begins_with_text || stream.prefix.is_empty() {
            let found = format::find(&input.name, &stream.prefix, last, kept, &settings.decode);
            input.set_format(found);
        } else {
            // By what stands behind the NUL bytes.
            let at = nul_bytes::leading(&stream.carry);
            let found = match &stream.carry[at..] {
                [] => None,
                text => format::find(&input.name, text, last, kept, &settings.decode),
            };
            input.set_format(found.map(|found| match found {
                Format::Csv(header) => Format::Csv(Arc::new(header.moved(stream.carry_at + at as u64))),
                found => found,
            }));
        }
    }
    true
}

/// The file looked like this input's and is not.
fn refuse(input: &mut Input) -> Step {
    input.refused = input.stat.map(|stat| stat.inode);
    Step::Lost
}

/// The text stops before the position is reached.
fn stopped_before_position(
    input: &mut Input,
    stream: &mut Stream,
    len: u64,
    settings: &TailSettings,
    now_ms: i64,
) -> Step {
    match stream.last.clone() {
        // A whole text that is shorter than what was read is another one, whatever bytes follow it.
        Inflated::Corrupt(_) if stream.inflater.is_whole() => refuse(input),
        Inflated::Corrupt(why) => corrupt(input, stream, why),
        Inflated::End => refuse(input),
        Inflated::Full | Inflated::Paused => Step::Told(ReadOutcome::Busy),
        Inflated::Starved => {
            if input.unchanged_for(now_ms, settings.incomplete_wait_ms, settings) {
                incomplete(input, stream, settings)
            } else {
                input.settled = Some(len);
                Step::Told(ReadOutcome::AtEnd)
            }
        }
    }
}

/// There is no whole line left in the text decoded so far.
fn stopped(input: &mut Input, stream: &mut Stream, settings: &TailSettings, now_ms: i64) -> Step {
    match stream.last.clone() {
        Inflated::Full | Inflated::Paused => Step::Told(ReadOutcome::Busy),
        Inflated::Corrupt(why) => corrupt(input, stream, why),
        Inflated::Starved if input.unchanged_for(now_ms, settings.incomplete_wait_ms, settings) => {
            incomplete(input, stream, settings)
        }
        Inflated::End if input.unchanged_for(now_ms, settings.rotate_wait_ms, settings) => {
            if let Some(format) = input.format.clone()
                && is_last_line(&stream.carry, input, &format, settings)
            {
                let text = std::mem::take(&mut stream.carry);
                stream.carry_at += text.len() as u64;
                return Step::Told(ReadOutcome::Block(deliver(input, text, format)));
            }
            input.half = stream.carry_at + stream.carry.len() as u64 - input.position;
            if input.half > 0 {
                return Step::EndedWith(half_line(input));
            }
            input.done = true;
            Step::Told(ReadOutcome::Ended)
        }
        Inflated::Starved | Inflated::End => Step::Told(ReadOutcome::AtEnd),
    }
}

/// The file stops in its midst and has not grown for long. What a bounded run leaves is for a later one.
fn incomplete(input: &mut Input, stream: &Stream, settings: &TailSettings) -> Step {
    if settings.bounded {
        input.incomplete = true;
        return Step::EndedWith(format!("{}: stops in its midst; a later run reads what is added to it", input.name));
    }
    give_up(input, stream, "it stops in its midst".into())
}

/// What follows cannot be decoded; if the file was changed since the stream began, perhaps it was overwritten in place.
fn corrupt(input: &mut Input, stream: &mut Stream, why: String) -> Step {
    if !input.restarted && input.stat.is_some_and(|stat| stat.changed_ns != stream.begun_ns) {
        input.restarted = true;
        stream.outdated = true;
        return Step::Told(ReadOutcome::Busy);
    }
    give_up(input, stream, why)
}

/// The rest cannot be decoded.
fn give_up(input: &mut Input, stream: &Stream, why: String) -> Step {
    let left = input.end(input.len()).saturating_sub(stream.inflater.consumed).max(stream.carry.len() as u64);
    let warning = format!("{}: cannot be decoded to its end: {why}; about {left} bytes are lost", input.name);
    input.gap = Some(Box::new((left, warning.clone())));
    Step::EndedWith(warning)
}

/// Searches a line without end for its end.
fn step_overlong(
    input: &mut Input,
    stream: &mut Stream,
    file: &mut dyn TailFile,
    limit: u64,
    settings: &TailSettings,
    now_ms: i64,
) -> io::Result<Step> {
    let Some(mut line) = input.overlong.take() else { return Ok(Step::Told(ReadOutcome::Busy)) };
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
            return Ok(Step::Told(ReadOutcome::Block(block)));
        }
        if let Some(newline) = newline_at {
            let block = deliver_overlong(input, *line, &stream.carry[..=newline]);
            stream.pass(newline + 1);
            return Ok(Step::Told(ReadOutcome::Block(block)));
        }
        if stream.carry.is_empty() {
            let step = stopped(input, stream, settings, now_ms);
            input.overlong = Some(line);
            return Ok(step);
        }
        line.tail.push(&stream.carry);
        line.scanned += stream.carry.len() as u64;
        let len = stream.carry.len();
        stream.pass(len);
    }
    input.overlong = Some(line);
    Ok(Step::Told(ReadOutcome::Busy))
}
