//! Records: the unit in which a stream such as a Kafka partition is read.

use crate::{InputId, Position};

/// By what an input's watermark is known before a record's first line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordTime {
    /// By the event times of its lines, guarded against wrong clocks where they are judged.
    Guarded,
    /// By a stamp of whoever read the log and guarded its times: the input's watermark, in milliseconds since the Unix
    /// epoch; none before it had one.
    Stamped(Option<i64>),
}

/// A record among others in a block of text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// The input that its lines belong to.
    pub input: InputId,
    /// Where its lines end in the block's text, in bytes; they begin where those of the record before it end.
    pub text_end: u32,
    /// How far the source is read with it: from the end of the record before it, offsets that hold nothing included, to
    /// the offset behind its own.
    pub position: Position,
    /// By what the input's watermark is known.
    pub time: RecordTime,
}

/// Where the lines of a block are in their source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LinePositions {
    /// In the text of their input: the block begins at this offset, in bytes.
    Text(u64),
    /// In the record with this offset.
    Record(u64),
}

impl LinePositions {
    /// The position of the line that begins so many bytes behind the begin of its block.
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
