//! Lines that are not clicks: malformed and invalid ones, each after a pattern from real logs.

use super::click::{Click, Format};
use super::random::Random;
use std::io::Write;

/// Appends a line that no reader may accept as a record.
pub(super) fn malformed(click: &Click, format: Format, click_ids: bool, random: &mut Random, out: &mut Vec<u8>) {
    let from = out.len();
    click.write(format, click_ids, out);
    out.pop(); // the line's end, until the line is broken
    match format {
        Format::Ndjson => break_json(from, random, out),
        Format::Csv => break_csv(from, random, out),
    }
    out.push(b'\n');
}

fn break_json(from: usize, random: &mut Random, out: &mut Vec<u8>) {
    let length = (out.len() - from) as u64;
    match random.below(9) {
        // A writer died in the middle of a line: part of an object is not an object.
        0 | 1 => out.truncate(from + 1 + random.below(length - 2) as usize),
        // Two writers in one file.
        2 => out.extend_from_within(from..from + (length / 2) as usize),
        // A quotation mark is missing.
        3 => drop(out.remove(from + 1)),
        // Bytes that are not UTF-8, in a string.
        4 => insert(out, from + 2, &[0xc3, 0x28]),
        // NaN is not JSON.
        5 => replace(out, from, b"{\"score\":NaN,\"user_id\":\"u1\"}"),
        // A log line of another program.
        6 => replace(out, from, b"WARN  click logger: queue is full, 17 events dropped"),
        // JSON, but not an object.
        7 => replace(out, from, b"[\"click_timestamp\",\"ad_id\"]"),
        // A lone surrogate in a field that is used.
        _ => replace(out, from, br#"{"click_timestamp":1767225600000,"ad_id":1,"user_id":"\ud800","ip":"192.0.2.1"}"#),
    }
}

fn break_csv(from: usize, random: &mut Random, out: &mut Vec<u8>) {
    match random.below(5) {
        // Too few columns: cut before the last comma.
        0 | 1 => {
            let commas: Vec<_> = (from..out.len()).filter(|&at| out[at] == b',').collect();
            let last = commas[random.below(commas.len() as u64) as usize];
            out.truncate(last);
        }
        // Too many columns.
        2 => out.extend_from_slice(b",,x"),
        // An unclosed quote.
        3 => insert(out, from, b"\""),
        // Bytes that are not UTF-8.
        _ => insert(out, out.len(), &[0xc3, 0x28]),
    }
}

/// Appends a line that can be parsed but breaks one rule of a click's fields.
pub(super) fn invalid(click: &Click, format: Format, click_ids: bool, random: &mut Random, out: &mut Vec<u8>) {
    let (time, ad, user) = (click.event_time_ms, click.ad_id, click.user);
    let _ = match format {
        Format::Ndjson => match random.below(9) {
            0 => write!(out, r#"{{"click_timestamp":{time},"user_id":"u{user:08}","ip":"192.0.2.1"}}"#),
            1 => write!(out, r#"{{"click_timestamp":{time},"ad_id":-{ad},"user_id":"u{user:08}","ip":"192.0.2.1"}}"#),
            2 => write!(out, r#"{{"click_timestamp":{time},"ad_id":"0{ad}","user_id":"u{user:08}","ip":"192.0.2.1"}}"#),
            3 => write!(out, r#"{{"click_timestamp":{time},"ad_id":{ad},"user_id":"u{user:08}","ip":"192.0.2.300"}}"#),
            4 => write!(out, r#"{{"click_timestamp":{time},"ad_id":{ad},"user_id":"","ip":"192.0.2.1"}}"#),
            5 => write!(out, r#"{{"click_timestamp":{time},"ad_id":{ad},"user_id":null,"ip":"192.0.2.1"}}"#),
            // Seconds instead of milliseconds: before 2000-01-01.
            6 => write!(out, r#"{{"click_timestamp":{},"ad_id":{ad},"user_id":"u1","ip":"192.0.2.1"}}"#, time / 1_000),
            7 => write!(out, r#"{{"click_timestamp":"yesterday","ad_id":{ad},"user_id":"u1","ip":"192.0.2.1"}}"#),
            // A number with an exponent is not a time.
            _ => write!(out, r#"{{"click_timestamp":{time}e0,"ad_id":{ad},"user_id":"u1","ip":"192.0.2.1"}}"#),
        },
        Format::Csv => {
            let written = match random.below(6) {
                0 => write!(out, "{time},,u{user:08},192.0.2.1,US"),
                1 => write!(out, "{time},-{ad},u{user:08},192.0.2.1,US"),
                2 => write!(out, "{time},0{ad},u{user:08},192.0.2.1,US"),
                3 => write!(out, "{time},{ad},u{user:08},192.0.2.300,US"),
                4 => write!(out, "{time},{ad},,192.0.2.1,US"),
                _ => write!(out, "yesterday,{ad},u{user:08},192.0.2.1,US"),
            };
            if click_ids {
                out.push(b',');
            }
            written
        }
    };
    out.push(b'\n');
}

fn insert(out: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    out.splice(at..at, bytes.iter().copied());
}

fn replace(out: &mut Vec<u8>, from: usize, bytes: &[u8]) {
    out.truncate(from);
    out.extend_from_slice(bytes);
}
