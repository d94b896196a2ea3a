//! A decoded batch with a cursor: how much of it was judged.

use crate::ClockReading;
use adtally_model::{ClickColumns, DeadLetter, DecodedBatch, InputId, Rejected, Verdict};
use std::borrow::Cow;
use std::sync::Arc;

/// A decoded batch on its way through the pipeline; alignment may let only a part of it pass at a time.
#[derive(Debug)]
pub struct PendingBatch {
    /// The input.
    pub input: InputId,
    pub(crate) from: u64,
    to: u64,
    pub(crate) columns: Arc<ClickColumns>,
    rejected: Vec<Rejected>,
    /// NUL bytes that are not booked yet.
    pub(crate) nul_bytes: u64,
    text: Vec<u8>,
    /// The cursor: the first row that is not judged yet.
    pub(crate) row: usize,
    /// The position up to which lines are booked. Rejected lines before the first click are booked without moving the cursor.
    pub(crate) booked_to: u64,
    rejected_row: usize,
}

impl PendingBatch {
    /// A batch of which nothing was judged yet.
    pub fn new(batch: DecodedBatch) -> Self {
        PendingBatch {
            input: batch.input,
            from: batch.from,
            to: batch.to,
            columns: Arc::new(batch.clicks),
            rejected: batch.rejected,
            nul_bytes: batch.nul_bytes,
            text: batch.text,
            row: 0,
            booked_to: batch.from,
            rejected_row: 0,
        }
    }

    /// Bytes of text that it stands for.
    pub fn bytes(&self) -> u64 {
        self.to - self.from
    }

    /// The text of the block before a position within it; none where the position is not within it.
    pub fn text_before(&self, position: u64) -> Option<&[u8]> {
        let len = usize::try_from(position.checked_sub(self.from)?).ok()?;
        self.text.get(..len).filter(|text| !text.is_empty())
    }

    /// The text, to be used again once everything was judged.
    pub fn into_text(self) -> Vec<u8> {
        self.text
    }

    /// Where the line of a row begins; where the batch ends, behind the last row.
    pub(crate) fn position_at(&self, row: usize) -> u64 {
        self.columns.line_start.get(row).map_or(self.to, |&start| self.from + u64::from(start))
    }

    fn payload(&self, row: usize) -> Vec<u8> {
        let rest = self.text.get(self.columns.line_start[row] as usize..).unwrap_or_default();
        let line = rest.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        line[..line.len().min(adtally_model::dead_letter::PAYLOAD_BYTES_MAX)].to_vec()
    }

    /// The dead letter of a row.
    pub(crate) fn dead_letter(
        &self,
        row: usize,
        verdict: Verdict,
        reason: Cow<'static, str>,
        origin: &Arc<str>,
        now: &ClockReading,
    ) -> DeadLetter {
        DeadLetter {
            verdict,
            reason,
            payload: self.payload(row),
            input: Arc::clone(origin),
            position: self.position_at(row),
            received_at_ms: now.guarded_ms,
            event_time_ms: Some(self.columns.event_time_ms[row]),
        }
    }

    /// The dead letter of the next rejected line, if that lies before the cursor.
    pub(crate) fn next_rejected(&mut self, origin: &Arc<str>, now: &ClockReading) -> Option<DeadLetter> {
        let upto = self.position_at(self.row);
        let rejected = self.rejected.get_mut(self.rejected_row)?;
        let position = self.from + u64::from(rejected.line_start);
        if position >= upto {
            return None;
        }
        self.rejected_row += 1;
        Some(DeadLetter {
            verdict: rejected.verdict,
            reason: std::mem::take(&mut rejected.reason),
            payload: std::mem::take(&mut rejected.payload),
            input: Arc::clone(origin),
            position,
            received_at_ms: now.guarded_ms,
            event_time_ms: None,
        })
    }
}
