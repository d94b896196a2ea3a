//! The first lines as columns of values, in any format. Values that cannot be read are omitted; the decoder reports
//! them later.

use adtally_source::{CsvDelimiter, FieldName, FormatChoice, NULL_VALUES};
use std::collections::HashMap;

/// Maximum number of columns or keys; a file with more keys uses data as keys.
const COLUMNS_MAX: usize = 256;

/// Maximum number of values kept per column.
const VALUES_MAX: usize = 200;

/// Maximum bytes kept of a value: more than any field may have.
const VALUE_BYTES_MAX: usize = 256;

/// A value of a column.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Cell {
    /// A JSON integer, or decimal digits in CSV.
    Integer(String),
    /// Text.
    Text(String),
    /// Any other value: a fraction, a list, an object.
    Other(String),
}

impl Cell {
    pub(super) fn text(&self) -> &str {
        match self {
            Cell::Integer(text) | Cell::Text(text) | Cell::Other(text) => text,
        }
    }
}

/// A JSON key or CSV column.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) name: String,
    /// Present values in the order of lines, without empty ones, nulls and placeholders.
    pub(super) values: Vec<Cell>,
}

/// The contents of the first lines.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// `Auto` if it is neither of the others.
    pub(super) format: FormatChoice,
    pub(super) delimiter: u8,
    pub(super) columns: Vec<Column>,
    pub(super) notes: Vec<String>,
}

impl Sample {
    pub(super) fn of(text: &[u8]) -> Sample {
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let lines = text.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let lines: Vec<String> =
            lines.filter(|line| !line.is_empty()).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
        let objects = lines.iter().filter(|line| line.trim_start().starts_with('{')).count();
        if objects * 2 > lines.len() {
            return Sample::of_json(&lines);
        }
        match delimiter(&lines) {
            Some(delimiter) => Sample::of_csv(&lines, delimiter),
            None => {
                let what =
                    if lines.is_empty() { "the file is empty" } else { "neither JSON objects nor CSV with a header" };
                let notes = vec![what.to_owned()];
                Sample { format: FormatChoice::Auto, delimiter: b',', columns: Vec::new(), notes }
            }
        }
    }

    fn of_json(lines: &[String]) -> Sample {
        let mut columns = Columns::default();
        let mut notes = Vec::new();
        for line in lines {
            let Ok(serde_json::Value::Object(object)) = serde_json::from_str(line) else { continue };
            for (key, value) in object {
                let cell = match value {
                    serde_json::Value::Null => continue,
                    serde_json::Value::String(text) if text.is_empty() => continue,
                    serde_json::Value::String(text) => Cell::Text(text),
                    serde_json::Value::Number(number) if !number.is_f64() => Cell::Integer(number.to_string()),
                    other => Cell::Other(other.to_string()),
                };
                columns.push(&key, cell);
            }
        }
        let columns = columns.list;
        if columns.iter().any(|column| column.values.first().is_some_and(|cell| cell.text().starts_with("{\""))) {
            notes
                .push("some fields are inside other objects: only keys of the outermost object can be read".to_owned());
        }
        Sample { format: FormatChoice::Ndjson, delimiter: b',', columns, notes }
    }

    fn of_csv(lines: &[String], delimiter: u8) -> Sample {
        let mut columns = Columns::default();
        let mut notes = Vec::new();
        let header = split(&lines[0], delimiter);
        if header.iter().any(|name| name.parse::<i64>().is_ok()) {
            notes.push("the first line looks like values: CSV needs a header that names the columns".to_owned());
        }
        for name in header.iter().take(COLUMNS_MAX) {
            columns.column(name);
        }
        for line in &lines[1..] {
            let values = split(line, delimiter);
            if values.len() == header.len() {
                for (name, value) in header.iter().zip(values).filter(|(_, value)| !value.is_empty()) {
                    let is_number = value.parse::<i128>().is_ok_and(|number| number.to_string() == value);
                    columns.push(name, if is_number { Cell::Integer(value) } else { Cell::Text(value) });
                }
            }
        }
        Sample { format: FormatChoice::Csv, delimiter, columns: columns.list, notes }
    }
}

/// Columns by name, in the order of their first appearance.
#[derive(Default)]
struct Columns {
    list: Vec<Column>,
    index: HashMap<String, usize>,
}

impl Columns {
    fn column(&mut self, name: &str) -> Option<&mut Column> {
        let at = match self.index.get(name) {
            Some(at) => *at,
            None if self.list.len() < COLUMNS_MAX && FieldName::fits(name) => {
                self.index.insert(name.to_owned(), self.list.len());
                self.list.push(Column { name: name.to_owned(), values: Vec::new() });
                self.list.len() - 1
            }
            None => return None,
        };
        self.list.get_mut(at)
    }

    fn push(&mut self, name: &str, mut cell: Cell) {
        let Some(column) = self.column(name) else { return };
        let is_absent = matches!(&cell, Cell::Text(text) if NULL_VALUES.contains(&text.as_str()));
        if !is_absent && column.values.len() < VALUES_MAX {
            let (Cell::Integer(text) | Cell::Text(text) | Cell::Other(text)) = &mut cell;
            let end = (0..=VALUE_BYTES_MAX).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
            text.truncate(end.min(text.len()));
            column.values.push(cell);
        }
    }
}

/// The delimiter that splits most lines into as many columns as the first line, at least two.
fn delimiter(lines: &[String]) -> Option<u8> {
    let header = lines.first()?;
    let fitting = |delimiter: u8| {
        let columns = split(header, delimiter).len();
        let alike = lines.iter().filter(|line| split(line, delimiter).len() == columns).count();
        (columns >= 2 && alike * 2 > lines.len()).then_some(columns * alike)
    };
    let delimiters = CsvDelimiter::ALL.map(CsvDelimiter::byte);
    let candidates = delimiters.into_iter().rev().filter_map(|delimiter| Some((fitting(delimiter)?, delimiter)));
    candidates.max_by_key(|(fit, _)| *fit).map(|(_, delimiter)| delimiter)
}

/// The columns of a line, without quotes (RFC 4180).
fn split(line: &str, delimiter: u8) -> Vec<String> {
    let mut columns = vec![String::new()];
    let mut quoted = false;
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        let column = columns.last_mut();
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                column.map(|column| column.push('"')).unwrap_or_default();
            }
            '"' => quoted = !quoted,
            _ if !quoted && letter == char::from(delimiter) => columns.push(String::new()),
            _ => column.map(|column| column.push(letter)).unwrap_or_default(),
        }
    }
    columns
}
