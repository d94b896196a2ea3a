//! Decodes a block of lines into columns of clicks: parsing, the rules of a click, and its identity.
//!
//! Decoding is a pure function of block, settings and key. Each line of a block becomes either a click or a
//! [`Rejected`] line with its reason.

mod address;
pub(crate) mod csv;
mod event_time;
pub mod foreign;
pub(crate) mod format;
pub(crate) mod json;
pub(crate) mod nul_bytes;
mod null_values;
mod ordinary_line;
mod settings;
mod short_text;
mod validate;
mod value;

#[cfg(test)]
mod tests;

pub use settings::{
    CsvDelimiter, DecodeSettings, FieldName, FieldNames, FormatChoice, LINE_BYTES_MAX, NULL_VALUES, TimestampUnit,
};

use crate::block::{Block, CsvHeader, Format, RecordBlock};
use crate::kafka::Routing;
use adtally_model::dead_letter::PAYLOAD_BYTES_MAX;
use adtally_model::identity::IdentityFields;
use adtally_model::settings::Clash;
use adtally_model::{
    ClickColumns, ClickRef, Country, DecodedBatch, DecodedRecords, IdentityKey, InputId, Rejected, Result, Verdict,
};
use json::{Kind, Scanned, Scanner};
use memchr::memchr;
use null_values::NullValues;
use ordinary_line::{Keys, Order};
use settings::{FIELD_NAMES, FIELDS};
use std::borrow::Cow;
use std::sync::Arc;
use validate::{Rules, validate};
use value::{Value, is_integer};

/// Estimated bytes of an ordinary line, used to size columns so that they rarely grow.
const LINE_BYTES_TYPICAL: usize = 112;

/// Maximum number of clicks per block that are parsed again if none of them has a known country.
const COUNTRIES_LOOKED_AT: usize = 4;

/// Maximum number of characters shown of a value that is not a known country.
const COUNTRY_CHARS_SHOWN: usize = 40;

/// Turns blocks into clicks. It holds no state between blocks and may be used from many threads.
#[derive(Clone, Debug)]
pub struct Decoder {
    settings: DecodeSettings,
    keys: Keys,
    null_values: NullValues,
    identity_key: IdentityKey,
    /// Whether ordinary lines take the fast path; tests compare it with the general one.
    short_way: bool,
}

/// The results of decoding a block, and scratch space reused for each line.
struct Work {
    clicks: ClickColumns,
    rejected: Vec<Rejected>,
    /// NUL bytes that belong to no line.
    nul_bytes: u64,
    scratch: Scratch,
}

#[derive(Default)]
struct Scratch {
    depth: Vec<bool>,
    unescaped: Vec<u8>,
    columns: Vec<csv::Column>,
}

/// Rejects the clicks whose ads belong to another partition.
fn reject_misrouted(batch: &mut DecodedBatch, routing: Routing, header: Option<&Arc<[u8]>>) {
    let clicks = &batch.clicks;
    let elsewhere: Vec<(usize, u32)> =
        (0..clicks.len()).filter_map(|row| Some((row, routing.elsewhere(clicks.ad_id[row])?))).collect();
    if elsewhere.is_empty() {
        return;
    }
    let rejected = elsewhere.iter().map(|&(row, partition)| {
        let line_start = clicks.line_start[row];
        let Routing { partitioner, partitions, .. } = routing;
        let reason =
            format!("ad_id: misrouted: belongs to partition {partition} of {partitions} by {}", partitioner.name());
        Rejected {
            line_start,
            verdict: Verdict::Invalid,
            reason: Cow::Owned(reason),
            payload: batch.line(line_start).to_vec(),
            header: header.cloned(),
        }
    });
    let rejected: Vec<Rejected> = rejected.collect();
    batch.rejected.extend(rejected);
    batch.rejected.sort_by_key(|rejected| rejected.line_start);
    batch.clicks = batch.clicks.without(elsewhere.iter().map(|&(row, _)| row));
}

/// Why a line is not a click.
type Refusal = (Verdict, Cow<'static, str>);

impl Decoder {
    /// A decoder with these settings, which hashes identities with this key.
    ///
    /// # Errors
    /// A user error when two fields have the same name.
    pub fn new(settings: DecodeSettings, identity_key: IdentityKey) -> Result<Decoder> {
        Clash::refuse(&settings.clashes())?;
        let keys = Keys::new(settings.fields.in_order());
        let null_values = NullValues::new(&settings.null_values);
        Ok(Decoder { settings, keys, null_values, identity_key, short_way: true })
    }

    /// The settings.
    pub fn settings(&self) -> &DecodeSettings {
        &self.settings
    }

    /// Decodes a block; every line of it becomes a click or a rejected line.
    pub fn decode(&self, block: Block) -> DecodedBatch {
        let Block { input, from, to, text, nul_bytes, format, overlong } = block;
        let expected = text.len() / LINE_BYTES_TYPICAL + 1;
        let mut work =
            Work { clicks: with_capacity(expected), rejected: Vec::new(), nul_bytes, scratch: Scratch::default() };
        if overlong {
            work.reject(0, &text, (Verdict::Malformed, self.too_long()));
        } else {
            let start = skipped(&text, from, &format);
            // Nearly all blocks are valid UTF-8; one check per block is fastest. Other blocks are checked by line.
            let utf8 = simdutf8::basic::from_utf8(&text).is_ok();
            match &format {
                Format::Ndjson if utf8 && self.short_way => self.ordinary_lines(&text, start, &mut work),
                Format::Ndjson => {
                    each_line(&text, start, |at, line| self.json_text(at, line, utf8, &mut work));
                }
                Format::Csv(header) => {
                    each_line(&text, start, |at, line| {
                        without_nul_bytes(line, at, &mut work, |at, line, work| {
                            self.csv_line(at, line, utf8, header, work)
                        });
                    });
                }
            }
        }
        work.clicks.unknown_country = self.unknown_country(&text, &format, &work.clicks);
        DecodedBatch { input, from, to, clicks: work.clicks, rejected: work.rejected, nul_bytes: work.nul_bytes, text }
    }

    /// Decodes a block of records. A click whose ad belongs to another partition is invalid: its copies may be there.
    pub fn decode_records(&self, RecordBlock { text, records, format, routing, .. }: RecordBlock) -> DecodedRecords {
        let header = match &format {
            Format::Ndjson => None,
            Format::Csv(header) => Some(Arc::clone(&header.line)),
        };
        // After any byte order mark and any header: no record is known to be the first of its input.
        let from = u64::from(u32::MAX);
        let to = from + text.len() as u64;
        let block = Block { input: InputId(0), from, to, text, format, nul_bytes: 0, overlong: false };
        let mut decoded = self.decode(block);
        if let Some(routing) = routing {
            reject_misrouted(&mut decoded, routing, header.as_ref());
        }
        let DecodedBatch { clicks, rejected, text, nul_bytes, .. } = decoded;
        DecodedRecords { records, clicks, rejected, nul_bytes, text }
    }

    /// Decodes lines again that were rejected under other settings, each with the header of its CSV file if it has one.
    /// Each line becomes a click or a rejected line, whose `line_start` is the number of the line among these, from 0.
    pub fn decode_again<'a>(
        &self,
        lines: impl IntoIterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    ) -> (ClickColumns, Vec<Rejected>) {
        let (clicks, scratch) = (ClickColumns::default(), Scratch::default());
        let mut work = Work { clicks, rejected: Vec::new(), nul_bytes: 0, scratch };
        let mut parsed = CsvHeader::broken("csv: no header".into());
        for (number, (line, header)) in lines.into_iter().enumerate() {
            match header {
                None => self.json_line(number, line, false, &mut work),
                Some(header) => {
                    if *parsed.line != *header {
                        // Its own line is not skipped: it was rejected as a row.
                        parsed = CsvHeader::parse(header, 0, &self.settings);
                    }
                    self.csv_row(number, line, false, &parsed, &mut work);
                }
            }
        }
        (work.clicks, work.rejected)
    }

    /// An example of a country value that is present but unknown, if no click of a block has a known country. Runs once
    /// per block; nearly all blocks are decided by their first row.
    fn unknown_country(&self, text: &[u8], format: &Format, clicks: &ClickColumns) -> Option<String> {
        if clicks.country.iter().any(|country| *country != Country::UNKNOWN) {
            return None;
        }
        let mut scratch = Scratch::default();
        let mut rows = clicks.line_start.iter().take(COUNTRIES_LOOKED_AT);
        rows.find_map(|&start| {
            let (line, _) = line_at(text, start as usize);
            let [.., country, _] = match format {
                Format::Ndjson => self.json_values(line, &mut scratch).ok()?,
                Format::Csv(header) => {
                    let Scratch { columns, unescaped, .. } = &mut scratch;
                    csv::read(line, header, self.settings.csv_delimiter.byte(), columns, unescaped).ok()?
                }
            };
            match country {
                Value::Absent => None,
                Value::Text(text) if self.null_values.is_marker(text) || text.eq_ignore_ascii_case(b"ZZ") => None,
                Value::Text(text) => Some(String::from_utf8_lossy(text).chars().take(COUNTRY_CHARS_SHOWN).collect()),
                Value::Integer(_) | Value::Decimal(_) | Value::Other => Some("no text".to_owned()),
            }
        })
    }

    fn rules(&self) -> Rules<'_> {
        Rules { unit: self.settings.timestamp_unit, null_values: &self.null_values }
    }

    fn too_long(&self) -> Cow<'static, str> {
        if self.settings.line_bytes_max == LINE_BYTES_MAX {
            Cow::Borrowed("line: longer than 65536 bytes")
        } else {
            Cow::Owned(format!("line: longer than {} bytes", self.settings.line_bytes_max))
        }
    }

    /// Lines of NDJSON in valid UTF-8: ordinary lines in one pass, others with the general parser.
    fn ordinary_lines(&self, text: &[u8], start: usize, work: &mut Work) {
        let mut order = Order::default();
        let rules = self.rules();
        let mut values = [Value::Absent; FIELDS];
        let mut at = start;
        while at < text.len() {
            match ordinary_line::read(text, at, &self.keys, &mut order, &mut values) {
                Some(line) if line.end - at <= self.settings.line_bytes_max => {
                    match validate(&values, rules) {
                        Ok(click) => work.accept(at, &click, &self.identity_key),
                        Err(reason) => work.reject(at, &text[at..line.end], (Verdict::Invalid, reason)),
                    }
                    at = line.next;
                }
                _ => {
                    let (line, next) = line_at(text, at);
                    if !line.is_empty() {
                        self.json_text(at, line, true, work);
                    }
                    at = next;
                }
            }
        }
    }

    /// The text between two line endings: usually one line of NDJSON.
    fn json_text(&self, at: usize, text: &[u8], utf8: bool, work: &mut Work) {
        without_nul_bytes(text, at, work, |at, line, work| self.json_line(at, line, utf8, work));
    }

    /// Parses a line of NDJSON with the general parser.
    fn json_line(&self, at: usize, line: &[u8], utf8: bool, work: &mut Work) {
        let Work { clicks, rejected, scratch, .. } = work;
        let verdict = self.check_line(line, utf8).and_then(|()| {
            let values = self.json_values(line, scratch)?;
            validate(&values, self.rules()).map_err(|reason| (Verdict::Invalid, reason))
        });
        match verdict {
            Ok(click) => accept(clicks, at, &click, &self.identity_key),
            Err(refusal) => reject(rejected, at, line, refusal, None),
        }
    }

    /// A line of CSV.
    fn csv_line(&self, at: usize, line: &[u8], utf8: bool, header: &CsvHeader, work: &mut Work) {
        if *line != *header.line {
            self.csv_row(at, line, utf8, header, work);
        }
    }

    /// A row of CSV.
    fn csv_row(&self, at: usize, line: &[u8], utf8: bool, header: &CsvHeader, work: &mut Work) {
        let Work { clicks, rejected, scratch, .. } = work;
        let verdict = self.check_line(line, utf8).and_then(|()| {
            let delimiter = self.settings.csv_delimiter.byte();
            let values = csv::read(line, header, delimiter, &mut scratch.columns, &mut scratch.unescaped)
                .map_err(|what| (Verdict::Malformed, what))?;
            validate(&values, self.rules()).map_err(|reason| (Verdict::Invalid, reason))
        });
        match verdict {
            Ok(click) => accept(clicks, at, &click, &self.identity_key),
            Err(refusal) => reject(rejected, at, line, refusal, Some(&header.line)),
        }
    }

    /// Checks length and encoding.
    fn check_line(&self, line: &[u8], utf8: bool) -> Result<(), Refusal> {
        if line.len() > self.settings.line_bytes_max {
            return Err((Verdict::Malformed, self.too_long()));
        }
        if utf8 || simdutf8::basic::from_utf8(line).is_ok() {
            return Ok(());
        }
        let at = std::str::from_utf8(line).err().map_or(0, |error| error.valid_up_to());
        Err((Verdict::Malformed, Cow::Owned(format!("utf-8: not valid at byte {}", at + 1))))
    }

    /// The field values of a JSON line; values with escapes are unescaped into the scratch space.
    fn json_values<'a>(&self, line: &'a [u8], scratch: &'a mut Scratch) -> Result<[Value<'a>; FIELDS], Refusal> {
        let Scratch { depth, unescaped, .. } = scratch;
        let mut members: [Option<Scanned>; FIELDS] = [None; FIELDS];
        let scanned = Scanner::new(line, depth).object(|key, value| {
            let text = &line[key.start..key.end];
            let field = if !key.escaped {
                self.keys.field(text)
            } else if key.lone {
                None
            } else {
                unescaped.clear();
                json::unescape(text, unescaped);
                self.keys.field(unescaped)
            };
            if let Some(field) = field {
                // The last value of a repeated key applies.
                members[field] = Some(value);
            }
        });
        if let Err(broken) = scanned {
            let what = format!("json: {} at byte {}", broken.what, broken.at + 1);
            return Err((Verdict::Malformed, Cow::Owned(what)));
        }
        unescaped.clear();
        let mut ends = [0; FIELDS];
        for (field, member) in members.iter().enumerate() {
            if let Some(value) = member {
                if value.lone {
                    let what = format!("{}: a lone surrogate", FIELD_NAMES[field]);
                    return Err((Verdict::Malformed, Cow::Owned(what)));
                }
                if value.escaped {
                    json::unescape(&line[value.start..value.end], unescaped);
                }
            }
            ends[field] = unescaped.len();
        }
        let unescaped = &*unescaped;
        Ok(std::array::from_fn(|field| match members[field] {
            None => Value::Absent,
            Some(value) => {
                let raw = &line[value.start..value.end];
                match value.kind {
                    Kind::String if value.escaped => {
                        let start = if field == 0 { 0 } else { ends[field - 1] };
                        Value::Text(&unescaped[start..ends[field]])
                    }
                    Kind::String => Value::Text(raw),
                    Kind::Number if is_integer(raw) => Value::Integer(raw),
                    Kind::Number if event_time::is_decimal(raw) => Value::Decimal(raw),
                    Kind::Null => Value::Absent,
                    Kind::Number | Kind::Other => Value::Other,
                }
            }
        }))
    }
}

impl Work {
    #[inline]
    fn accept(&mut self, at: usize, click: &ClickRef<'_>, key: &IdentityKey) {
        accept(&mut self.clicks, at, click, key);
    }

    fn reject(&mut self, at: usize, line: &[u8], refusal: Refusal) {
        reject(&mut self.rejected, at, line, refusal, None);
    }
}

#[inline]
fn accept(clicks: &mut ClickColumns, at: usize, click: &ClickRef<'_>, key: &IdentityKey) {
    let identity = key.identify(&IdentityFields {
        event_time_ms: click.event_time_ms,
        ad_id: click.ad_id,
        ip: click.ip,
        country: click.country.rank(),
        user_id: click.user_id,
        click_id: click.click_id,
    });
    clicks.push(click, at as u32, identity);
}

fn reject(
    rejected: &mut Vec<Rejected>,
    at: usize,
    line: &[u8],
    (verdict, reason): Refusal,
    header: Option<&Arc<[u8]>>,
) {
    // An invalid line can be decoded again when the field mapping was mended.
    let kept = if verdict == Verdict::Invalid { line.len() } else { line.len().min(PAYLOAD_BYTES_MAX) };
    let (payload, header) = (line[..kept].to_vec(), header.map(Arc::clone));
    rejected.push(Rejected { line_start: at as u32, verdict, reason, payload, header });
}

/// Calls `line` for each line in a text between two line endings. NUL bytes at the beginning of a line are not part of
/// it, and a long run of NUL bytes ends the line before it.
fn without_nul_bytes(text: &[u8], at: usize, work: &mut Work, mut line: impl FnMut(usize, &[u8], &mut Work)) {
    if memchr(0, text).is_none() {
        line(at, text, work);
        return;
    }
    for (start, end) in nul_bytes::lines(text) {
        line(at + start, &text[start..end], work);
    }
    work.nul_bytes += nul_bytes::outside(text);
}

/// Bytes before the first line of a block: a byte order mark at offset 0, and a CSV header with what precedes it.
fn skipped(text: &[u8], from: u64, format: &Format) -> usize {
    let bom = if from == 0 && text.starts_with(format::BOM) { format::BOM.len() } else { 0 };
    match format {
        Format::Ndjson => bom,
        Format::Csv(header) => {
            let header = usize::try_from(header.end.saturating_sub(from)).unwrap_or(usize::MAX);
            bom.max(header).min(text.len())
        }
    }
}

/// The line that begins at `at`, without its line ending, and the offset of the next line.
#[inline]
fn line_at(text: &[u8], at: usize) -> (&[u8], usize) {
    let rest = &text[at..];
    let (line, next) = match memchr(b'\n', rest) {
        Some(len) => (&rest[..len], at + len + 1),
        None => (rest, text.len()),
    };
    (line.strip_suffix(b"\r").unwrap_or(line), next)
}

/// Calls `read` with the offset and the bytes of each line that is not empty.
fn each_line(text: &[u8], start: usize, mut read: impl FnMut(usize, &[u8])) {
    let mut at = start;
    while at < text.len() {
        let (line, next) = line_at(text, at);
        if !line.is_empty() {
            read(at, line);
        }
        at = next;
    }
}

fn with_capacity(rows: usize) -> ClickColumns {
    ClickColumns {
        event_time_ms: Vec::with_capacity(rows),
        ad_id: Vec::with_capacity(rows),
        country: Vec::with_capacity(rows),
        ip: Vec::with_capacity(rows),
        user_end: Vec::with_capacity(rows),
        user_bytes: Vec::with_capacity(rows * 12),
        click_id_end: Vec::with_capacity(rows),
        click_id_bytes: Vec::new(),
        line_start: Vec::with_capacity(rows),
        identity: Vec::with_capacity(rows),
        unknown_country: None,
    }
}
