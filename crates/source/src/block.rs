//! A block of whole lines of one input, which the tailer passes to the decoder.

use crate::kafka::Routing;
use adtally_model::{InputId, Record};
use std::sync::Arc;

/// Whole lines of one input. The last line may lack its line ending if its file will not grow any more.
#[derive(Clone, Debug)]
pub struct Block {
    /// The input of the lines.
    pub input: InputId,
    /// Offset in the uncompressed text where the block begins, in bytes.
    pub from: u64,
    /// Offset in the uncompressed text where the block ends, in bytes.
    pub to: u64,
    /// The text; `to - from - nul_bytes` bytes unless `overlong`.
    pub text: Vec<u8>,
    /// The format of its lines.
    pub format: Format,
    /// NUL bytes that follow the text and belong to no line; counted in `to`, not in `text`.
    pub nul_bytes: u64,
    /// Whether the block is one line that is longer than a block; `text` then contains only its first bytes.
    pub overlong: bool,
}

/// Whole records of one lane. A record consists of whole lines and ends with a line ending.
#[derive(Clone, Debug)]
pub struct RecordBlock {
    /// The text of all records, one after another.
    pub text: Vec<u8>,
    /// The records, ordered by offset.
    pub records: Vec<Record>,
    /// The inputs among them that are not known yet, and their names in tables. They become known at the end of an
    /// epoch; until then their records wait.
    pub found: Vec<(InputId, Arc<str>)>,
    /// The format of their lines.
    pub format: Format,
    /// Which ads may be in these records; `None` if the lines of any ad may be.
    pub routing: Option<Routing>,
}

/// The format of the lines of an input.
#[derive(Clone, Debug)]
pub enum Format {
    /// A JSON object per line.
    Ndjson,
    /// Comma-separated values (RFC 4180 without newlines inside quotes) with this header.
    Csv(Arc<CsvHeader>),
}

impl Format {
    /// Whether lines of both formats may be in one block.
    pub(crate) fn is_same(&self, other: &Format) -> bool {
        match (self, other) {
            (Format::Ndjson, Format::Ndjson) => true,
            (Format::Csv(one), Format::Csv(other)) => one.line == other.line,
            _ => false,
        }
    }
}

/// The header of a CSV file: which column contains which field.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CsvHeader {
    /// Offset in the text where the first data row begins, in bytes.
    pub(crate) end: u64,
    /// The header line as written. It is repeated where files were joined, and is skipped there too.
    pub(crate) line: Arc<[u8]>,
    /// The number of columns.
    pub(crate) columns: usize,
    /// Column of each field, in the order of [`crate::decode`]'s fields; `None` if the header does not name it.
    pub(crate) column_of: [Option<usize>; 6],
    /// Why the first line is not a usable header, if it is not: then no line can be read, including the first.
    pub(crate) broken: Option<String>,
}

impl CsvHeader {
    /// The same header in a text that begins this many bytes later.
    pub(crate) fn moved(&self, bytes: u64) -> CsvHeader {
        CsvHeader { end: self.end + bytes, ..self.clone() }
    }

    /// The header line as written, without its line ending.
    pub fn line(&self) -> Arc<[u8]> {
        Arc::clone(&self.line)
    }

    /// The header line, if it is usable.
    pub(crate) fn usable(&self) -> Option<&[u8]> {
        self.broken.is_none().then_some(&*self.line)
    }
}
