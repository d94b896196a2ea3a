//! An independent parser of clicks, on serde_json and the standard library: slow, plain, and without any code of the
//! decoder, so that it does not share the decoder's mistakes. The fuzz targets include this file too.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::net::IpAddr;

/// A click in plain types.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Plain {
    pub(crate) ms: i64,
    pub(crate) ad_id: u64,
    pub(crate) user_id: String,
    pub(crate) ip: String,
    pub(crate) country: String,
    pub(crate) click_id: String,
}

/// The result of parsing a line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Reading {
    Click(Plain),
    Invalid,
    Malformed,
}

const NAMES: [&str; 6] = ["click_timestamp", "ad_id", "user_id", "ip", "country", "click_id"];

/// Keys as bytes: keys with lone surrogates are well-formed and name no field.
#[derive(PartialEq)]
struct Key(Vec<u8>);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Key;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a key")
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Key, E> {
                Ok(Key(bytes.to_vec()))
            }
            fn visit_str<E>(self, text: &str) -> Result<Key, E> {
                Ok(Key(text.as_bytes().to_vec()))
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

struct Members(Vec<(Key, String)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some((key, value)) = map.next_entry::<Key, &RawValue>()? {
                    members.push((key, value.get().to_owned()));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// Reads all lines of a text that begins at offset 0.
pub(crate) fn read_json(text: &[u8], line_bytes_max: usize) -> Vec<Reading> {
    lines(text).into_iter().map(|line| json_line(line, line_bytes_max)).collect()
}

fn lines(text: &[u8]) -> Vec<&[u8]> {
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
    let mut lines: Vec<_> =
        text.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)).collect();
    // NUL bytes before a line are not part of it.
    for line in &mut lines {
        while let Some(rest) = line.strip_prefix(b"\0") {
            *line = rest;
        }
    }
    lines.retain(|line| !line.is_empty());
    lines
}

fn json_line(line: &[u8], line_bytes_max: usize) -> Reading {
    if line.len() > line_bytes_max {
        return Reading::Malformed;
    }
    let Ok(text) = std::str::from_utf8(line) else { return Reading::Malformed };
    // Parsing keys as bytes below, serde_json accepts control characters; here it rejects them.
    if serde_json::from_str::<serde::de::IgnoredAny>(text).is_err() {
        return Reading::Malformed;
    }
    let Ok(Members(members)) = serde_json::from_str::<Members>(text) else { return Reading::Malformed };
    let last = |name: &str| members.iter().rev().find(|(key, _)| key.0 == name.as_bytes()).map(|(_, raw)| raw.as_str());
    if NAMES.iter().any(|name| last(name).is_some_and(has_lone_surrogate)) {
        return Reading::Malformed;
    }
    json_click(last).map_or(Reading::Invalid, Reading::Click)
}

/// Whether well-formed JSON contains a lone surrogate.
fn has_lone_surrogate(raw: &str) -> bool {
    let mut high = false;
    let mut rest = raw;
    while !rest.is_empty() {
        let is_low = rest.starts_with("\\u") && {
            let unit = u32::from_str_radix(&rest[2..6], 16).unwrap();
            (0xdc00..0xe000).contains(&unit)
        };
        if high != is_low {
            return true;
        }
        high = false;
        if rest.starts_with("\\u") {
            high = (0xd800..0xdc00).contains(&u32::from_str_radix(&rest[2..6], 16).unwrap());
            rest = &rest[6..];
        } else if rest.starts_with('\\') {
            rest = &rest[2..];
        } else {
            rest = &rest[rest.chars().next().unwrap().len_utf8()..];
        }
    }
    high
}

fn string(raw: &str) -> Option<String> {
    raw.starts_with('"').then(|| serde_json::from_str(raw).unwrap())
}

/// An integer of the grammar, checked by comparison with Rust's formatting.
fn integer(text: &str) -> Option<i128> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.chars().all(|c| c.is_ascii_digit()) {
        return None;
    }
    if digits.len() > 30 {
        // Out of all bounds, and valid unless it has a leading zero.
        return (!digits.starts_with('0')).then_some(if text.starts_with('-') { i128::MIN } else { i128::MAX });
    }
    let value: i128 = text.parse().unwrap();
    (value.to_string() == text).then_some(value)
}

/// A number of milliseconds; decimals are cut off.
fn milliseconds(text: &str) -> Option<i128> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    if decimals.is_empty() || !decimals.chars().all(|c| c.is_ascii_digit()) {
        return None;
    }
    integer(whole)
}

/// Texts that make an optional field absent.
const NULLS: [&str; 6] = ["", "-", "\\N", "null", "NULL", "00000000-0000-0000-0000-000000000000"];

fn json_click<'a>(last: impl Fn(&str) -> Option<&'a str>) -> Option<Plain> {
    let timestamp = last("click_timestamp")?;
    let ms = match string(timestamp) {
        Some(text) => milliseconds(&text).or_else(|| date_time(&text))?,
        None => milliseconds(timestamp)?,
    };
    let ad_id = last("ad_id")?;
    let ad_id = match string(ad_id) {
        Some(text) => integer(&text)?,
        None => integer(ad_id)?,
    };
    let user_id = last("user_id")?;
    let user_id = match string(user_id) {
        Some(text) => text,
        None => {
            let value = integer(user_id)?;
            (-(1 << 63)..1 << 64).contains(&value).then(|| user_id.to_owned())?
        }
    };
    let click_id = match last("click_id") {
        None | Some("null") => String::new(),
        Some(raw) => string(raw)?,
    };
    let country = last("country").and_then(string).unwrap_or_default();
    check(ms, ad_id, user_id, &string(last("ip")?)?, &country, click_id)
}

fn check(ms: i128, ad_id: i128, user_id: String, ip: &str, country: &str, click_id: String) -> Option<Plain> {
    let click_id = if NULLS.contains(&&*click_id) { String::new() } else { click_id };
    // 2000-01-01 and 2100-01-01, by GNU date.
    let in_range = (946_684_800_000..4_102_444_800_000).contains(&ms)
        && (0..1 << 63).contains(&ad_id)
        && (1..=128).contains(&user_id.len())
        && click_id.len() <= 64;
    if !in_range {
        return None;
    }
    let ip = ip.parse::<IpAddr>().ok()?.to_canonical().to_string();
    let country = country.to_ascii_uppercase();
    let known = adtally_model::Country::all().any(|known| known.as_str() == country);
    let country = if known { country } else { "ZZ".into() };
    Some(Plain { ms: ms as i64, ad_id: ad_id as u64, user_id, ip, country, click_id })
}

/// Parses RFC 3339 by splitting at its fixed places and counting days year by year.
fn date_time(text: &str) -> Option<i128> {
    let text = text.is_ascii().then(|| text.to_ascii_uppercase())?;
    let number = |range: std::ops::Range<usize>| -> Option<i128> {
        let part = text.get(range)?;
        if part.chars().all(|c| c.is_ascii_digit()) { part.parse().ok() } else { None }
    };
    let shape: String = text.get(..19)?.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    if shape != "0000-00-00T00:00:00" && shape != "0000-00-00 00:00:00" {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let leap = |year: i128| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let months = [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let in_month = *months.get(usize::try_from(month - 1).ok()?)?;
    if day < 1 || day > in_month || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let year_days = |year: i128| if leap(year) { 366 } else { 365 };
    let mut days: i128 =
        if year >= 1970 { (1970..year).map(year_days).sum() } else { -(year..1970).map(year_days).sum::<i128>() };
    days += months[..(month - 1) as usize].iter().sum::<i128>() + day - 1;
    let mut rest = &text[19..];
    let mut milli = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let digits = fraction.chars().take_while(char::is_ascii_digit).count();
        if digits == 0 {
            return None;
        }
        milli = format!("{:0<3}", &fraction[..digits])[..3].parse().unwrap();
        rest = &fraction[digits..];
    }
    let offset = if rest == "Z" {
        0
    } else {
        let sign = if rest.starts_with('+') { 1 } else { -1 };
        let shape: String = rest.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        if shape != "+00:00" && shape != "-00:00" {
            return None;
        }
        let (hours, minutes): (i128, i128) = (rest[1..3].parse().unwrap(), rest[4..6].parse().unwrap());
        if hours > 23 || minutes > 59 {
            return None;
        }
        sign * (hours * 60 + minutes)
    };
    Some((((days * 24 + hour) * 60 + minute - offset) * 60 + second) * 1000 + milli)
}

/// Reads a CSV text from offset 0, character by character. The header is never a line, also when repeated. It is
/// invalid if it names no field, is broken or too long, or does not end within this many bytes (plus a byte order mark
/// and a line ending) from the start of the text: then no line can be read.
pub(crate) fn read_csv(text: &[u8], line_bytes_max: usize) -> Vec<Reading> {
    let lines = lines(text);
    let Some((header, rest)) = lines.split_first() else { return Vec::new() };
    let searched = &text[..text.len().min(line_bytes_max + 5)];
    let ended = searched.iter().rposition(|&byte| byte == b'\n').map_or(&[][..], |last| &searched[..=last]);
    let is_cut = searched.len() < text.len() && has_no_line(ended);
    if is_cut || header.len() > line_bytes_max {
        return vec![Reading::Malformed; lines.len()];
    }
    let names = ["click_timestamp", "ad_id", "user_id", "ip", "country", "click_id"];
    match csv_columns(header) {
        Some(columns) if columns.iter().any(|column| names.contains(&column.as_str())) => {
            let values = rest.iter().filter(|line| *line != header);
            values.map(|line| csv_line(line, &columns, line_bytes_max)).collect()
        }
        _ => vec![Reading::Malformed; lines.len()],
    }
}

fn has_no_line(text: &[u8]) -> bool {
    lines(text).is_empty()
}

fn csv_line(line: &[u8], header: &[String], line_bytes_max: usize) -> Reading {
    if line.len() > line_bytes_max {
        return Reading::Malformed;
    }
    let Some(columns) = csv_columns(line) else { return Reading::Malformed };
    if columns.len() != header.len() {
        return Reading::Malformed;
    }
    let value =
        |name: &str| header.iter().rposition(|column| column == name).map(|at| columns[at].as_str()).unwrap_or("");
    let click = || {
        let timestamp = value("click_timestamp");
        let ms = milliseconds(timestamp).or_else(|| date_time(timestamp))?;
        let (user_id, click_id) = (value("user_id").to_owned(), value("click_id").to_owned());
        check(ms, integer(value("ad_id"))?, user_id, value("ip"), value("country"), click_id)
    };
    click().map_or(Reading::Invalid, Reading::Click)
}

/// A state machine over characters.
fn csv_columns(line: &[u8]) -> Option<Vec<String>> {
    enum At {
        Start,
        Plain,
        Quoted,
        Quote,
    }
    let mut columns = vec![String::new()];
    let mut at = At::Start;
    for c in std::str::from_utf8(line).ok()?.chars() {
        at = match (at, c) {
            (At::Start, '"') => At::Quoted,
            (At::Quoted, '"') => At::Quote,
            (At::Quoted, _) => {
                columns.last_mut()?.push(c);
                At::Quoted
            }
            (At::Quote, '"') => {
                columns.last_mut()?.push('"');
                At::Quoted
            }
            (_, ',') => {
                columns.push(String::new());
                At::Start
            }
            (At::Quote, _) | (At::Plain, '"') => return None,
            (At::Start | At::Plain, _) => {
                columns.last_mut()?.push(c);
                At::Plain
            }
        };
    }
    (!matches!(at, At::Quoted)).then_some(columns)
}
