//! Where clicks come from: growing log files, read in blocks of whole lines and decoded into columns.
//!
//! - **Receives** patterns of files, what the epoch log knows of them ([`InputRow`](adtally_model::InputRow)) and the
//!   time, in monotonic milliseconds.
//! - **Emits** [`Discovery`] (what happened to files), [`Block`] (whole lines of one input) and, from those,
//!   [`DecodedBatch`](adtally_model::DecodedBatch) (clicks in columns, and the lines turned down).
//! - **Promises** that the blocks of an input are contiguous from the position it was started at; that every line is
//!   in exactly one block and either a click or a rejected line; that bytes which can never be read are reported as a
//!   gap; that memory is bounded whatever stands in the files.
//! - **Never** judges lateness or copies, writes a file, starts a thread or reads a clock. A line is decoded as a pure
//!   function of its block, so that blocks can be decoded on many threads.

pub mod block;
mod compression;
pub mod decode;
pub mod file_system;
pub mod file_tail;
pub mod line_number;

pub use block::{Block, CsvHeader, Format};
pub use decode::foreign;
pub use decode::{
    DecodeSettings, Decoder, FieldNames, FormatChoice, NULL_VALUE_BYTES_MAX, NULL_VALUES, NULL_VALUES_MAX,
    TimestampUnit,
};
pub use file_system::{Change, FileKind, FileStat, FileSystem, FolderWatch, LocalFiles, TailFile, WatchId};
pub use file_tail::{
    BLOCK_BYTES_MIN, Discovery, InputFacts, Progress, ReadOutcome, Survey, TailSettings, Tailer, Unopened, survey,
};
pub use line_number::{line_number, open_text};
