//! A lane on its way in: what is read of it and not judged yet.

use super::Decoding;
use adtally_model::{InputId, LaneId};
use adtally_pipeline::PendingBatch;
use std::collections::VecDeque;

/// One lane on its way in.
#[derive(Default)]
pub(super) struct Lane {
    /// Its input; none where inputs share the lane.
    pub(super) input: Option<InputId>,
    /// Bytes of text of each block in `decoding`, and of that of `batches` before them.
    pub(super) sizes: VecDeque<usize>,
    pub(super) decoding: VecDeque<Decoding>,
    /// The batches of the block that is judged: one, or one a record.
    pub(super) batches: VecDeque<Box<PendingBatch>>,
    /// When it was last found to have nothing for the moment, by monotonic time.
    pub(super) asked_ms: Option<i64>,
    /// Whether that was its end, still to be noted once what was read before is judged.
    pub(super) at_end: bool,
    /// Its first batch waits for other lanes or for the end of the epoch.
    pub(super) waits: bool,
    /// The source will deliver no more.
    pub(super) ended: bool,
    /// A bounded run leaves the rest of it to the next.
    pub(super) left: bool,
}

impl Lane {
    /// The lane of an input; none that inputs share needs to be told apart from it by more than its number.
    pub(super) fn of(LaneId(number): LaneId) -> Lane {
        Lane { input: Some(InputId(number)), ..Lane::default() }
    }

    /// A lane that inputs share.
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

    /// Blocks on their way.
    pub(super) fn depth(&self) -> usize {
        self.decoding.len() + usize::from(!self.batches.is_empty())
    }

    /// Bytes of text on their way.
    pub(super) fn held_bytes(&self) -> usize {
        self.sizes.iter().sum()
    }

    /// What was read ahead is read again by a later run.
    pub(super) fn drop_batches(&mut self) {
        self.decoding.clear();
        self.sizes.clear();
        self.batches.clear();
    }
}
