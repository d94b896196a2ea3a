//! A block of whole lines of one input: what the tailer hands to the decoder.

use adtally_model::{InputId, Record};
use std::sync::Arc;

/// Whole lines of one input. The last one may lack its line ending where its file will not grow any more.
#[derive(Clone, Debug)]
pub struct Block {
    /// The input that the lines came from.
    pub input: InputId,
    /// Offset in the uncompressed text at which the block begins, in bytes.
    pub from: u64,
    /// Offset at which it ends.
    pub to: u64,
    /// The text; `to - from - nul_bytes` bytes unless `overlong`.
    pub text: Vec<u8>,
    /// How its lines are to be read.
    pub format: Format,
    /// NUL bytes that follow the text and belong to no line; counted in `to`, not in `text`.
    pub nul_bytes: u64,
    /// Whether the block is one single line, longer than a block, of which `text` holds only the first bytes.
    pub overlong: bool,
}

/// Whole records of one lane. The lines of each are whole, too, and end with a line ending.
#[derive(Clone, Debug)]
pub struct RecordBlock {
    /// The text of all records, one after another.
    pub text: Vec<u8>,
    /// The records, in the order of their offsets.
    pub records: Vec<Record>,
    /// The inputs among them that are not known yet, and what tables are to call them. They are known from the end of an
    /// epoch on; until then their records wait.
    pub found: Vec<(InputId, Arc<str>)>,
    /// How their lines are to be read.
    pub format: Format,
}

/// How the lines of an input are to be read.
#[derive(Clone, Debug)]
pub enum Format {
    /// A JSON object a line.
    Ndjson,
    /// Comma-separated values (RFC 4180 without newlines inside quotes) under this header.
    Csv(Arc<CsvHeader>),
}

/// The header of a CSV file: which column holds which field.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CsvHeader {
    /// Offset in the text at which the first line of values begins, in bytes.
    pub(crate) end: u64,
    /// The header as it stands in the file: where files were joined it comes again, and is no line there either.
    pub(crate) line: Vec<u8>,
    /// Columns in all.
    pub(crate) columns: usize,
    /// Column of each field, in the order of [`crate::decode`]'s fields; none where the header does not name it.
    pub(crate) column_of: [Option<usize>; 6],
    /// Why the first line is no header that can be used, if it is none: then no line can be read, the first included.
    pub(crate) broken: Option<String>,
}

impl CsvHeader {
    /// The same header in a text that begins so many bytes further on.
    pub(crate) fn moved(&self, bytes: u64) -> CsvHeader {
        CsvHeader { end: self.end + bytes, ..self.clone() }
    }

    /// The header line, if it can be used.
    pub(crate) fn usable(&self) -> Option<&[u8]> {
        self.broken.is_none().then_some(&*self.line)
    }
}
