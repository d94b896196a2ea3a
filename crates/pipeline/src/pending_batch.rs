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
    pub(crate) rejected: Vec<Rejected>,
    /// NUL bytes that are not booked yet.
    pub(crate) nul_bytes: u64,
    text: Vec<u8>,
    pub(crate) row: usize,
    pub(crate) rejected_row: usize,
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
        name: &Arc<str>,
        now: &ClockReading,
    ) -> DeadLetter {
        DeadLetter {
            verdict,
            reason,
            payload: self.payload(row),
            input: Arc::clone(name),
            position: self.position_at(row),
            received_at_ms: now.guarded_ms,
            event_time_ms: Some(self.columns.event_time_ms[row]),
        }
    }
}
