//! CSV: RFC 4180 quotes within one line; a newline inside quotes is not supported.

use super::settings::{DecodeSettings, FIELDS};
use super::value::Value;
use crate::block::CsvHeader;
use memchr::{memchr, memchr2};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

/// Maximum number of columns in a header: it bounds what is stored of it.
const COLUMNS_MAX: usize = 4_096;

/// The number of fields that a first line must name to be recognized as a CSV header.
const FIELDS_TELLING: usize = 2;

/// Whether a line, without its line ending, is a header: it names two or more of the configured fields.
#[cfg(test)]
pub(crate) fn is_header(line: &[u8], settings: &DecodeSettings) -> bool {
    CsvHeader::parse(line, 0, settings).is_telling()
}

/// Whether a text is one whole row: it has as many columns as the header, and all its quotes are closed. RFC 4180
/// allows the last row of a file to lack its line ending, so `text` may have one or not. A row that was cut within its
/// last column cannot be distinguished from a whole row.
pub(crate) fn is_whole_row(text: &[u8], header: &CsvHeader, settings: &DecodeSettings) -> bool {
    let line = text.strip_suffix(b"\n").unwrap_or(text);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if header.broken.is_some() || line.is_empty() || line.len() > settings.line_bytes_max {
        return false;
    }
    if memchr(b'\n', line).is_some() || simdutf8::basic::from_utf8(line).is_err() {
        return false;
    }
    let mut columns = Columns::new(line, settings.csv_delimiter.byte());
    let (mut found, mut unquoted) = (0, Vec::new());
    while let Some(column) = columns.next_column(&mut unquoted) {
        found += 1;
        if column.is_err() || found > header.columns {
            return false;
        }
    }
    found == header.columns
}

impl CsvHeader {
    /// A placeholder for an unusable header; `what` is the reason.
    pub(crate) fn broken(what: String) -> CsvHeader {
        CsvHeader { end: 0, line: Arc::default(), columns: 0, column_of: [None; FIELDS], broken: Some(what) }
    }

    /// Parses the header line; `end` is the offset in the input's text where the first data row begins.
    pub(crate) fn parse(line: &[u8], end: u64, settings: &DecodeSettings) -> CsvHeader {
        if simdutf8::basic::from_utf8(line).is_err() {
            return CsvHeader::broken("csv: the header is not UTF-8".into());
        }
        let mut header = CsvHeader { end, line: line.into(), columns: 0, column_of: [None; FIELDS], broken: None };
        let names = settings.fields.in_order();
        let mut unquoted = Vec::new();
        let mut columns = Columns::new(line, settings.csv_delimiter.byte());
        while let Some(column) = columns.next_column(&mut unquoted) {
            let text = match &column {
                Ok(column) => column.text(line, &unquoted),
                Err(what) => return CsvHeader::broken(format!("csv: the header is broken: {what}")),
            };
            if header.columns == COLUMNS_MAX {
                return CsvHeader::broken(format!("csv: the header has more than {COLUMNS_MAX} columns"));
            }
            // The last column of a repeated name applies, as for JSON keys.
            if let Some(field) = names.iter().position(|name| name.as_bytes() == text) {
                header.column_of[field] = Some(header.columns);
            }
            header.columns += 1;
        }
        if header.fields_named() == 0 {
            // It is probably a data row, which must not be skipped silently.
            return CsvHeader::broken("csv: the first line is not a header: it names none of the fields".into());
        }
        header
    }

    /// The number of fields that it names.
    pub(crate) fn fields_named(&self) -> usize {
        self.column_of.iter().flatten().count()
    }

    /// Whether it names so many fields that the line must be a header.
    pub(crate) fn is_telling(&self) -> bool {
        self.broken.is_none() && self.fields_named() >= FIELDS_TELLING
    }
}

/// Where the text of a column is: in the line, or unquoted in the scratch space.
#[derive(Clone, Debug)]
pub(crate) enum Column {
    Line(Range<usize>),
    Unquoted(Range<usize>),
}

impl Column {
    fn text<'a>(&self, line: &'a [u8], unquoted: &'a [u8]) -> &'a [u8] {
        match self {
            Column::Line(range) => &line[range.clone()],
            Column::Unquoted(range) => &unquoted[range.clone()],
        }
    }
}

/// Splits a line into its columns.
struct Columns<'a> {
    line: &'a [u8],
    delimiter: u8,
    /// Where the next column begins; `None` after the last column.
    at: Option<usize>,
}

impl<'a> Columns<'a> {
    fn new(line: &'a [u8], delimiter: u8) -> Self {
        Columns { line, delimiter, at: Some(0) }
    }

    /// The next column; text with doubled quotes is appended to `unquoted`.
    #[inline]
    fn next_column(&mut self, unquoted: &mut Vec<u8>) -> Option<Result<Column, &'static str>> {
        let start = self.at?;
        if self.line.get(start) == Some(&b'"') {
            return Some(self.quoted(start + 1, unquoted));
        }
        let rest = self.line.get(start..).unwrap_or_default();
        match memchr2(self.delimiter, b'"', rest) {
            Some(len) if rest[len] == b'"' => Some(Err("a quote within a column that does not begin with one")),
            Some(len) => {
                self.at = Some(start + len + 1);
                Some(Ok(Column::Line(start..start + len)))
            }
            None => {
                self.at = None;
                Some(Ok(Column::Line(start..self.line.len())))
            }
        }
    }

    fn quoted(&mut self, start: usize, unquoted: &mut Vec<u8>) -> Result<Column, &'static str> {
        let kept = unquoted.len();
        let (mut from, mut doubled) = (start, false);
        loop {
            let rest = self.line.get(from..).unwrap_or_default();
            let Some(len) = memchr(b'"', rest) else { return Err("a quoted column does not end in its line") };
            let close = from + len;
            match self.line.get(close + 1) {
                Some(b'"') => {
                    unquoted.extend_from_slice(&self.line[from..=close]);
                    doubled = true;
                    from = close + 2;
                    continue;
                }
                Some(&byte) if byte == self.delimiter => self.at = Some(close + 2),
                Some(_) => return Err("text after the quotes of a column"),
                None => self.at = None,
            }
            if !doubled {
                return Ok(Column::Line(start..close));
            }
            unquoted.extend_from_slice(&self.line[from..close]);
            return Ok(Column::Unquoted(kept..unquoted.len()));
        }
    }
}

/// Parses a data row with a header. `columns` and `unquoted` are scratch space.
pub(crate) fn read<'a>(
    line: &'a [u8],
    header: &CsvHeader,
    delimiter: u8,
    columns: &mut Vec<Column>,
    unquoted: &'a mut Vec<u8>,
) -> Result<[Value<'a>; FIELDS], Cow<'static, str>> {
    columns.clear();
    unquoted.clear();
    if let Some(what) = &header.broken {
        return Err(Cow::Owned(what.clone()));
    }
    let mut split = Columns::new(line, delimiter);
    while let Some(column) = split.next_column(unquoted) {
        if columns.len() == header.columns {
            return Err(Cow::Owned(format!("csv: more columns than the {} of the header", header.columns)));
        }
        columns.push(column.map_err(|what| Cow::Owned(format!("csv: {what}")))?);
    }
    if columns.len() < header.columns {
        return Err(Cow::Owned(format!("csv: {} columns, the header has {}", columns.len(), header.columns)));
    }
    let unquoted = &*unquoted;
    Ok(header.column_of.map(|column| match column.and_then(|column| columns.get(column)) {
        Some(column) => match column.text(line, unquoted) {
            [] => Value::Absent,
            text => Value::Text(text),
        },
        None => Value::Absent,
    }))
}
