//! A lane of input: the text that was read but is not judged yet.

use super::Decoding;
use adtally_model::{InputId, LaneId};
use adtally_pipeline::PendingBatch;
use std::collections::VecDeque;

/// The pending text of one lane.
#[derive(Default)]
pub(super) struct Lane {
    /// Its input; `None` when several inputs share the lane.
    pub(super) input: Option<InputId>,
    /// Bytes of text in `batches`, followed by the bytes of each block in `decoding`.
    pub(super) sizes: VecDeque<usize>,
    pub(super) decoding: VecDeque<Decoding>,
    /// The batches of the block being judged: one, or one for each record.
    pub(super) batches: VecDeque<Box<PendingBatch>>,
    /// When the source last had nothing to read, in milliseconds of monotonic time.
    pub(super) asked_ms: Option<i64>,
    /// Whether the lane was at its end then. The end is noted once everything read before it is judged.
    pub(super) at_end: bool,
    /// Since when it cannot be read, in milliseconds of monotonic time; `None` if it can. Only for a lane that several
    /// inputs share: the partition notes other lanes by their input.
    pub(super) unreadable_since_ms: Option<i64>,
    /// Whether its first batch waits for other lanes or for the end of the epoch.
    pub(super) waits: bool,
    /// Whether the source will deliver no more.
    pub(super) ended: bool,
    /// Whether a bounded run leaves the rest to the next run.
    pub(super) left: bool,
}

impl Lane {
    /// The lane of a single input, which has the number of its lane.
    pub(super) fn of(LaneId(number): LaneId) -> Lane {
        Lane { input: Some(InputId(number)), ..Lane::default() }
    }

    /// A lane that several inputs share.
    pub(super) fn shared() -> Lane {
        Lane::default()
    }

    /// A lane of an input that was at its end and may have more now.
    pub(super) fn woken(lane: LaneId) -> Lane {
        Lane { asked_ms: Some(i64::MIN / 2), ..Lane::of(lane) }
    }

    pub(super) fn is_drained(&self) -> bool {
        self.decoding.is_empty() && self.batches.is_empty()
    }

    /// Pending blocks.
    pub(super) fn depth(&self) -> usize {
        self.decoding.len() + usize::from(!self.batches.is_empty())
    }

    /// Bytes of pending text.
    pub(super) fn held_bytes(&self) -> usize {
        self.sizes.iter().sum()
    }

    /// Drops the text that was read ahead; a later run reads it again.
    pub(super) fn drop_batches(&mut self) {
        self.decoding.clear();
        self.sizes.clear();
        self.batches.clear();
    }
}
