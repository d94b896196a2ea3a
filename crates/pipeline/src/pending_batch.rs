//! Decoded lines of one input, with a cursor after the judged lines.

use crate::ClockReading;
use adtally_model::dead_letter::{JudgedClick, PAYLOAD_BYTES_MAX};
use adtally_model::{
    ClickColumns, DeadLetter, DecodedBatch, DecodedRecords, InputId, LinePositions, Record, RecordTime, Rejected,
    Verdict, Watermark,
};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

/// Decoded lines of one input on their way through the pipeline. Alignment may let only part of them pass at a time.
#[derive(Debug)]
pub struct PendingBatch {
    /// The input.
    pub input: InputId,
    /// The origin of the lines.
    pub(crate) lines: Lines,
    pub(crate) columns: Arc<ClickColumns>,
    rejected: VecDeque<Rejected>,
    /// NUL bytes that are not booked yet.
    pub(crate) nul_bytes: u64,
    text: Arc<Vec<u8>>,
    /// The cursor: the first row that is not judged yet.
    pub(crate) row: usize,
    /// The row after the last.
    pub(crate) end_row: usize,
    /// Lines are booked up to here, as an offset in the block's text. Rejected lines before the first click are booked
    /// without moving the cursor.
    pub(crate) booked_to: u64,
}

/// The origin of a batch's lines, which decides where an epoch may end.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lines {
    /// The text of their input, between these offsets. An epoch may end after each line.
    Text { from: u64, to: u64 },
    /// A record. An epoch may end after the record.
    Record(Record),
}

impl PendingBatch {
    /// A batch of which nothing is judged yet.
    pub fn new(batch: DecodedBatch) -> Self {
        PendingBatch {
            input: batch.input,
            lines: Lines::Text { from: batch.from, to: batch.to },
            end_row: batch.clicks.len(),
            columns: Arc::new(batch.clicks),
            rejected: batch.rejected.into(),
            nul_bytes: batch.nul_bytes,
            text: Arc::new(batch.text),
            row: 0,
            booked_to: 0,
        }
    }

    /// One batch for each record of a block. All share the block's columns and text.
    pub fn of_records(block: DecodedRecords) -> impl Iterator<Item = Self> {
        let (columns, text) = (Arc::new(block.clicks), Arc::new(block.text));
        let mut rejected: VecDeque<Rejected> = block.rejected.into();
        let (mut row, mut text_begin) = (0, 0);
        // NUL bytes are booked with the first record.
        let mut nul_bytes = block.nul_bytes;
        block.records.into_iter().map(move |record| {
            let rows = &columns.line_start[row..];
            let end_row = row + rows.partition_point(|&start| start < record.text_end);
            let refused = rejected.partition_point(|rejected| rejected.line_start < record.text_end);
            let later = rejected.split_off(refused);
            let batch = PendingBatch {
                input: record.input,
                lines: Lines::Record(record),
                columns: Arc::clone(&columns),
                rejected: std::mem::replace(&mut rejected, later),
                nul_bytes: std::mem::take(&mut nul_bytes),
                text: Arc::clone(&text),
                row,
                end_row,
                booked_to: text_begin,
            };
            (row, text_begin) = (end_row, u64::from(record.text_end));
            batch
        })
    }

    /// Whether an epoch may end only after its last line.
    pub fn is_record(&self) -> bool {
        matches!(self.lines, Lines::Record(_))
    }

    /// The source of its input's watermark before its first line.
    pub(crate) fn time(&self) -> RecordTime {
        match self.lines {
            Lines::Record(record) => record.time,
            Lines::Text { .. } => RecordTime::Guarded,
        }
    }

    /// The text of the block before a position in it; `None` if the position is elsewhere.
    pub fn text_before(&self, position: u64) -> Option<&[u8]> {
        let Lines::Text { from, .. } = self.lines else { return None };
        let len = usize::try_from(position.checked_sub(from)?).ok()?;
        self.text.get(..len).filter(|text| !text.is_empty())
    }

    /// The text, for reuse once everything is judged; `None` while others share it.
    pub fn into_text(self) -> Option<Vec<u8>> {
        Arc::try_unwrap(self.text).ok()
    }

    /// The positions of lines in their source.
    pub(crate) fn positions(&self) -> LinePositions {
        match self.lines {
            Lines::Text { from, .. } => LinePositions::Text(from),
            Lines::Record(record) => LinePositions::Record(record.position.to - 1),
        }
    }

    /// Where the line of a row begins in the block's text; for the row after the last, where the batch ends.
    pub(crate) fn text_at(&self, row: usize) -> u64 {
        let end = match self.lines {
            Lines::Text { from, to } => to - from,
            Lines::Record(record) => u64::from(record.text_end),
        };
        let starts = &self.columns.line_start[..self.end_row];
        starts.get(row).map_or(end, |&start| u64::from(start))
    }

    fn payload(&self, row: usize) -> Vec<u8> {
        let rest = self.text.get(self.columns.line_start[row] as usize..).unwrap_or_default();
        let line = rest.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        line[..line.len().min(PAYLOAD_BYTES_MAX)].to_vec()
    }

    /// The dead letter of a row. `watermark` is the input's watermark just before its line.
    pub(crate) fn dead_letter(
        &self,
        row: usize,
        verdict: Verdict,
        reason: Cow<'static, str>,
        (origin, watermark): (&Arc<str>, Watermark),
        now: &ClockReading,
    ) -> DeadLetter {
        DeadLetter {
            verdict,
            reason,
            payload: self.payload(row),
            header: None,
            input: Arc::clone(origin),
            position: self.positions().of(self.columns.line_start[row]),
            received_at_ms: now.guarded_ms,
            click: Some(JudgedClick::new(&self.columns.get(row), watermark)),
        }
    }

    /// The dead letter of the next rejected line, if it lies before the cursor.
    pub(crate) fn next_rejected(&mut self, origin: &Arc<str>, now: &ClockReading) -> Option<DeadLetter> {
        let (upto, positions) = (self.text_at(self.row), self.positions());
        let rejected = self.rejected.pop_front_if(|rejected| u64::from(rejected.line_start) < upto)?;
        Some(DeadLetter {
            verdict: rejected.verdict,
            position: positions.of(rejected.line_start),
            reason: rejected.reason,
            payload: rejected.payload,
            header: rejected.header,
            input: Arc::clone(origin),
            received_at_ms: now.guarded_ms,
            click: None,
        })
    }
}
