//! The result of decoding the first lines, as text or JSON.

use super::{FieldGuess, Guess, SAMPLE_LINES};
use adtally_model::dead_letter::reason_kind;
use adtally_model::time::rfc3339;
use adtally_model::{DecodedBatch, Identity, Verdict};
use serde::Serialize;
use std::collections::HashMap;
use std::fmt;

/// Maximum number of listed reasons.
const REASONS_MAX: usize = 20;

/// Maximum characters of a line that are shown.
const EXCERPT_CHARS: usize = 100;

/// The result of `adtally inspect`.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Inspection {
    /// The file.
    pub path: String,
    /// `ndjson`, `csv`, or `auto` if unknown.
    pub format: &'static str,
    /// The delimiter of CSV columns; `None` for other formats.
    pub csv_delimiter: Option<char>,
    /// Unit of numeric timestamps.
    pub timestamp_unit: &'static str,
    /// The column of each field.
    pub fields: Vec<FieldGuess>,
    /// Number of inspected lines.
    pub lines: usize,
    /// Clicks without duplicates.
    pub clicks: usize,
    /// Lines with the identity of an earlier line.
    pub duplicate: usize,
    /// Clicks ahead of the clock.
    pub future: usize,
    /// Lines that cannot be parsed.
    pub malformed: usize,
    /// Lines with a field that breaks the rules.
    pub invalid: usize,
    /// Smallest event time, RFC 3339.
    pub from: Option<String>,
    /// Largest event time, RFC 3339.
    pub to: Option<String>,
    /// Why lines are not clicks, the most frequent reason first.
    pub reasons: Vec<ReasonCount>,
    /// Notes for the user.
    pub notes: Vec<String>,
    /// The configuration for reading the file this way, as TOML.
    pub configuration: String,
}

/// A reason and its number of lines.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ReasonCount {
    /// `malformed`, `invalid` or `future`.
    pub verdict: &'static str,
    /// The reason in words.
    pub reason: String,
    /// Number of lines.
    pub lines: usize,
    /// The first such line, from 1.
    pub first_line: usize,
    /// The beginning of this line.
    pub excerpt: String,
}

impl Inspection {
    /// Summarises a batch with the first lines of a file from offset 0. A click more than `max_future_skew_ms` after
    /// `now_ms` is `future`. Whether lines are late is not judged, since that depends on all earlier lines.
    pub fn new(path: &str, guess: &Guess, batch: &DecodedBatch, now_ms: i64, max_future_skew_ms: i64) -> Inspection {
        let mut reasons: HashMap<(Verdict, String), ReasonCount> = HashMap::new();
        let mut count = |verdict: Verdict, reason: String, start: u32| {
            let seen = reasons.entry((verdict, reason_kind(&reason))).or_insert_with(|| ReasonCount {
                verdict: verdict.as_str(),
                reason,
                lines: 0,
                first_line: line_number(&batch.text, start),
                excerpt: excerpt(batch.line(start)),
            });
            seen.lines += 1;
        };
        let (mut future, mut duplicate) = (0, 0);
        let mut seen: Vec<Identity> = Vec::new();
        for (row, event_time_ms) in batch.clicks.event_time_ms.iter().enumerate() {
            if *event_time_ms > now_ms.saturating_add(max_future_skew_ms) {
                future += 1;
                count(Verdict::Future, "its time is ahead of the clock".to_owned(), batch.clicks.line_start[row]);
            } else {
                seen.push(batch.clicks.identity[row]);
            }
        }
        // Sorting puts duplicates side by side: the bits that do not identify the click are the lowest.
        seen.sort_unstable();
        let copies = || seen.windows(2).filter(|pair| pair[0].same_click(pair[1]));
        duplicate += copies().count();
        let conflicts = copies().filter(|pair| pair[0].differs_in_user(pair[1])).count();
        let mut notes = guess.notes.clone();
        if conflicts > 0 {
            notes.push(format!(
                "{conflicts} duplicates have the click_id of another click, but another user or address"
            ));
        }
        for line in &batch.rejected {
            count(line.verdict, line.reason.to_string(), line.line_start);
        }
        let rejected = |verdict| batch.rejected.iter().filter(|line| line.verdict == verdict).count();
        let (malformed, invalid) = (rejected(Verdict::Malformed), rejected(Verdict::Invalid));
        let mut reasons: Vec<_> = reasons.into_values().collect();
        reasons.sort_by(|a, b| (b.lines, a.first_line).cmp(&(a.lines, b.first_line)));
        reasons.truncate(REASONS_MAX);
        let times = &batch.clicks.event_time_ms;
        Inspection {
            path: path.to_owned(),
            format: guess.format_name(),
            csv_delimiter: (guess.format_name() == "csv").then(|| char::from(guess.csv_delimiter)),
            timestamp_unit: guess.unit_name(),
            fields: guess.fields.clone(),
            lines: batch.lines(),
            clicks: seen.len() - duplicate,
            duplicate,
            future,
            malformed,
            invalid,
            from: times.iter().min().map(|ms| rfc3339(*ms)),
            to: times.iter().max().map(|ms| rfc3339(*ms)),
            reasons,
            notes,
            configuration: guess.to_toml(path),
        }
    }
}

fn line_number(text: &[u8], start: u32) -> usize {
    1 + text.iter().take(start as usize).filter(|&&byte| byte == b'\n').count()
}

/// The beginning of a line, safe to print: control characters could affect the terminal.
fn excerpt(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(&line[..line.len().min(4 * EXCERPT_CHARS)]);
    let mut shown: String =
        text.chars().take(EXCERPT_CHARS).map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect();
    if text.chars().count() > EXCERPT_CHARS {
        shown.push('…');
    }
    shown
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = match (self.format, self.csv_delimiter) {
            ("csv", Some(delimiter)) => format!("CSV with {delimiter:?} between columns"),
            ("ndjson", _) => "NDJSON".to_owned(),
            _ => "format not recognised".to_owned(),
        };
        let first = if self.lines >= SAMPLE_LINES { "the first " } else { "" };
        writeln!(f, "{}: {format}, {first}{} lines", self.path, self.lines)?;
        let width = self.fields.iter().filter_map(|field| field.name.as_ref()).map(|name| name.chars().count()).max();
        for field in &self.fields {
            let name = field.name.as_deref().unwrap_or("-");
            let sample = field.sample.as_deref().map(|sample| excerpt(sample.as_bytes()));
            let sample = sample.unwrap_or_else(|| "not found".to_owned());
            writeln!(f, "  {:<15}  {name:<width$}  {sample}", field.field, width = width.unwrap_or(1))?;
        }
        if let (Some(from), Some(to)) = (&self.from, &self.to) {
            writeln!(f, "event times from {from} to {to}")?;
        }
        let sum = [
            (self.clicks, "clicks"),
            (self.duplicate, "duplicate"),
            (self.future, "future"),
            (self.malformed, "malformed"),
            (self.invalid, "invalid"),
        ];
        let sum: Vec<_> = sum.iter().map(|(lines, what)| format!("{lines} {what}")).collect();
        writeln!(f, "{} lines = {}", self.lines, sum.join(" + "))?;
        for reason in &self.reasons {
            let times = if reason.lines == 1 { String::new() } else { format!(" ({} lines)", reason.lines) };
            writeln!(f, "  {}:{}: {}: {}{times}", self.path, reason.first_line, reason.verdict, reason.reason)?;
            writeln!(f, "    {}", reason.excerpt)?;
        }
        for note in &self.notes {
            writeln!(f, "note: {note}")?;
        }
        Ok(())
    }
}
