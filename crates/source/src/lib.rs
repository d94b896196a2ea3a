//! The source of clicks: growing log files, read in blocks of whole lines and decoded into columns.
//!
//! - **Receives** file patterns, what the epoch log knows of the inputs ([`InputRow`](adtally_model::InputRow)), and
//!   the time, in monotonic milliseconds.
//! - **Emits** [`Discovery`] (files that were found, renamed or ended), [`Block`] (whole lines of one input) and, from
//!   blocks, [`DecodedBatch`](adtally_model::DecodedBatch) (clicks in columns, and rejected lines).
//! - **Promises** that the blocks of an input are contiguous from its start position; that every line is in exactly one
//!   block and is either a click or a rejected line; that unreadable bytes are reported as a gap; and that memory is
//!   bounded whatever the files contain.
//! - **Never** decides lateness or duplicates, writes a file, starts a thread or reads a clock. Decoding a line is a
//!   pure function of its block, so many threads can decode blocks.

pub mod block;
mod compression;
pub mod decode;
pub mod file_system;
pub mod file_tail;
pub mod kafka;
pub mod line_number;
pub mod source;

pub use block::{Block, CsvHeader, Format, RecordBlock};
pub use decode::foreign;
pub use decode::{
    CsvDelimiter, DecodeSettings, Decoder, FieldName, FieldNames, FormatChoice, NULL_VALUES, TimestampUnit,
};
pub use file_system::{Change, FileKind, FileStat, FileSystem, FolderWatch, LocalFiles, TailFile, WatchId};
pub use file_tail::{
    BLOCK_BYTES_MIN, Discovery, InputFacts, Progress, ReadOutcome, Survey, TailSettings, Tailer, Unopened, survey,
};
pub use kafka::{
    GroupEvent, KafkaPartition, KafkaSettings, Partitioner, Polled, RawRecord, RecordReader, RoutedLine, RoutedLines,
    Routing, Stamp,
};
pub use line_number::{line_number, open_text};
pub use source::{Backlog, Source, SourceBlock};
