//! The record of Adtally's agent: lines of one log for one partition, and headers about the log.
//!
//! The value is whole lines, each with its line ending. The headers are:
//!
//! | header | value |
//! |---|---|
//! | `adtally.input` | the name of the log, UTF-8, at most [`INPUT_BYTES_MAX`] bytes, unique among all agents |
//! | `adtally.watermark` | the guarded watermark of the whole log before the record's first line, in milliseconds since the Unix epoch, decimal; empty while there is none |
//! | `adtally.sequence` | the number of the record among those of this log in this partition, from 1, decimal |
//! | `adtally.csv` | the header line of a CSV log, without its line ending; absent for NDJSON |
//! | `adtally.gap` | the bytes of this log that its agent could never read, decimal, cumulative; absent while there are none, and in all partitions but one |
//!
//! A record without `adtally.input` is not from an agent. Its lines belong to the input of the whole partition.

use std::str::FromStr;

/// The name of the header with the log's name.
pub const INPUT: &str = "adtally.input";
/// The name of the header with the watermark.
pub const WATERMARK: &str = "adtally.watermark";
/// The name of the header with the sequence number.
pub const SEQUENCE: &str = "adtally.sequence";
/// The name of the header with the CSV header.
pub const CSV: &str = "adtally.csv";

/// The name of the header with the bytes that could never be read.
pub const GAP: &str = "adtally.gap";

/// Longest name of a log, in bytes.
pub const INPUT_BYTES_MAX: usize = 4_096;

/// What an agent says about the lines of a record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stamp<'a> {
    /// The name of the log.
    pub input: &'a str,
    /// The log's watermark before the first line, in milliseconds since the Unix epoch; `None` before there was one.
    pub watermark_ms: Option<i64>,
    /// The number of the record among those of the log in its partition, from 1.
    pub sequence: u64,
}

impl<'a> Stamp<'a> {
    /// The stamp in the values of the headers; `None` if they are not those of an agent.
    pub fn parse(input: Option<&'a [u8]>, watermark: Option<&[u8]>, sequence: Option<&[u8]>) -> Option<Stamp<'a>> {
        let input = std::str::from_utf8(input?).ok().filter(|name| (1..=INPUT_BYTES_MAX).contains(&name.len()))?;
        let watermark_ms = match watermark? {
            b"" => None,
            digits => Some(number(digits)?),
        };
        Some(Stamp { input, watermark_ms, sequence: number(sequence?)? })
    }

    /// The values of the headers `adtally.watermark` and `adtally.sequence`.
    pub fn values(&self) -> (String, String) {
        (self.watermark_ms.map_or_else(String::new, |ms| ms.to_string()), self.sequence.to_string())
    }
}

/// The bytes in the header [`GAP`]; `None` if it is not an agent's.
pub fn gap(digits: &[u8]) -> Option<u64> {
    number(digits)
}

fn number<N: FromStr>(digits: &[u8]) -> Option<N> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}
