//! Records: the unit of reading of a stream such as a Kafka partition.

use crate::{InputId, Position};

/// The source of an input's watermark before a record's first line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordTime {
    /// The event times of the input's lines, guarded against wrong clocks when they are judged.
    Guarded,
    /// A stamp by the agent that read the log and guarded its times: the input's watermark, in milliseconds since the
    /// Unix epoch; `None` before there was one.
    Stamped(Option<i64>),
}

/// A record within a block of text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// The input of its lines.
    pub input: InputId,
    /// Where its lines end in the block's text, in bytes. They begin at the end of the previous record's lines.
    pub text_end: u32,
    /// The range of the source read with it: from the end of the previous record, empty offsets included, to the offset
    /// after its own.
    pub position: Position,
    /// The source of the input's watermark.
    pub time: RecordTime,
}

/// The positions of a block's lines in their source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinePositions {
    /// In the input's text: the block begins at this byte offset.
    Text(u64),
    /// In the record with this offset.
    Record(u64),
}

impl LinePositions {
    /// The position of the line that begins `line_start` bytes after its block's beginning.
    ///
    /// ```
    /// # use adtally_model::LinePositions;
    /// assert_eq!(LinePositions::Text(1_000).of(24), 1_024);
    /// assert_eq!(LinePositions::Record(7).of(24), 7);
    /// ```
    #[inline]
    pub const fn of(self, line_start: u32) -> u64 {
        match self {
            LinePositions::Text(from) => from + line_start as u64,
            LinePositions::Record(offset) => offset,
        }
    }
}
