//! Reading: which inputs to ask for text, and how much text to hold at a time.

use super::*;
use adtally_source::BLOCK_BYTES_MIN;

/// Above the bound on held text, a turn still reads one of every this many inputs with a backlog, as long as less than
/// [`BLOCK_BYTES`] per input are held. A turn visits every input, so a single block per turn would be too slow.
const BEYOND_SHARE: usize = 32;

/// Smallest normal block, in bytes: about forty lines, which share the cost of a block.
const BLOCK_BYTES: usize = 4 << 10;

/// Once more than 1/`WAITING_SHARE` of the bound on held text waits for other inputs, blocks are as small as possible.
const WAITING_SHARE: usize = 4;

/// An input that may have text to read: the number of its pending blocks, its watermark and its lane.
type Due = (usize, Option<i64>, LaneId);

impl<S: EpochSink> Ingest<S> {
    /// Reads blocks of the inputs with a backlog, ordered by blocks read ahead, then by watermark. Then asks the inputs
    /// that were at their end, starting with those not asked for the longest time.
    pub(super) fn read(&mut self, monotonic: i64) -> Result<bool> {
        let mut lanes: Vec<Due> = Vec::new();
        let mut at_end: Vec<(i64, usize, LaneId)> = Vec::new();
        let (mut backlog, mut total, mut held, mut waiting) = (0, 0, 0, 0);
        for (&id, lane) in &self.lanes {
            backlog += usize::from(lane.asked_ms.is_none() && !lane.ended);
            let bytes = lane.held_bytes();
            held += bytes;
            if lane.waits {
                // Text that waits for other inputs occupies no decoder.
                waiting += bytes;
            } else {
                total += lane.depth();
            }
            if lane.ended || lane.left || lane.waits {
                continue;
            }
            match lane.asked_ms {
                None => lanes.push((lane.depth(), self.watermark_of(lane), id)),
                Some(at) if monotonic - at >= POLL_MS => at_end.push((at, lane.depth(), id)),
                Some(_) => {}
            }
        }
        let held_max = self.held_max();
        // A block that reaches further than its input may run ahead would only be held in memory.
        let block_min = if waiting > held_max / WAITING_SHARE { BLOCK_BYTES_MIN } else { BLOCK_BYTES };
        let block = (READ_AHEAD_BYTES / backlog.max(1)).max(block_min);
        self.source.set_block_bytes(block.min(self.settings.block_bytes));
        let each = if backlog <= 1 { READ_AHEAD_TOTAL } else { READ_AHEAD };
        lanes.sort_unstable();
        let turn_max = self.settings.bounds.turn_blocks_max;
        if at_end.len() > turn_max {
            // The next turn asks the remaining inputs first.
            at_end.select_nth_unstable(turn_max);
            at_end.truncate(turn_max);
        }
        at_end.sort_unstable();
        let backlogged = lanes.len();
        for (_, depth, id) in at_end {
            // The input has had its turn, even if there is no room to ask it.
            if let Some(lane) = self.lanes.get_mut(&id) {
                lane.asked_ms = Some(monotonic);
                let watermark = lane.input.and_then(|input| self.partition.watermark_of(input));
                lanes.push((depth, watermark, id));
            }
        }
        let (now, _) = self.now();
        let mut ahead = None;
        let mut least = self.partition.least_holding_watermark();
        let mut beyond = backlogged / BEYOND_SHARE;
        let beyond_max = self.lanes.len() * BLOCK_BYTES;
        let (mut asked, mut worked) = (0, false);
        for (at, (depth, watermark, id)) in lanes.into_iter().enumerate() {
            let holds_up = watermark.is_none() || watermark == least;
            let room = match depth {
                0 if holds_up || held < held_max / 2 => true,
                // The text would only wait.
                0 if self.must_wait(id, &now) => false,
                0 if held < held_max => true,
                0 if beyond > 0 && held < beyond_max => {
                    beyond -= 1;
                    true
                }
                0 => false,
                _ => depth < each && total < READ_AHEAD_TOTAL && held < held_max / 2,
            };
            if !room || (at < backlogged && asked >= turn_max) {
                continue;
            }
            asked += 1;
            if self.read_one(id, monotonic, &mut ahead)? {
                total += 1;
                held += self.lanes.get(&id).and_then(|lane| lane.sizes.back()).copied().unwrap_or(0);
                worked = true;
                // Other inputs with the same watermark are read only if there is room.
                least = least.filter(|_| watermark != least);
            }
        }
        Ok(worked)
    }

    /// The watermark of a lane's input; `None` when it has none or when inputs share the lane.
    fn watermark_of(&self, lane: &Lane) -> Option<i64> {
        self.partition.watermark_of(lane.input?)
    }

    /// Whether a lane must wait for other lanes now.
    fn must_wait(&self, id: LaneId, now: &ClockReading) -> bool {
        let input = self.lanes.get(&id).and_then(|lane| lane.input);
        input.is_some_and(|input| self.partition.must_wait(input, now))
    }

    /// Most bytes of text to hold. With many inputs the bound is halved, because per-input state needs memory, too.
    pub(super) fn held_max(&self) -> usize {
        let max = self.settings.bounds.held_bytes_max;
        if self.lanes.len() < CROWD { max } else { max / 2 }
    }

    /// Makes an input that is further ahead give up its decoder for this input. `ahead` caches the candidates, the one
    /// furthest ahead last.
    fn make_room(&mut self, id: LaneId, ahead: &mut Option<Vec<(i64, LaneId)>>) -> bool {
        let ahead = ahead.get_or_insert_with(|| {
            let streaming = self.lanes.iter().filter(|&(&id, _)| self.source.is_streaming(id));
            let mut ahead: Vec<_> = streaming.filter_map(|(&id, lane)| Some((self.watermark_of(lane)?, id))).collect();
            ahead.sort_unstable();
            ahead
        });
        let own = self.lanes.get(&id).and_then(|lane| self.watermark_of(lane));
        match ahead.last() {
            Some(&(watermark, other)) if Some(watermark) > own => {
                ahead.pop();
                self.source.give_way(other);
                true
            }
            _ => false,
        }
    }

    /// Reads one block. Returns whether there was one.
    fn read_one(&mut self, id: LaneId, monotonic: i64, ahead: &mut Option<Vec<(i64, LaneId)>>) -> Result<bool> {
        let mut outcome = self.source.read(id, monotonic)?;
        if matches!(outcome, ReadOutcome::Waits) && self.make_room(id, ahead) {
            outcome = self.source.read(id, monotonic)?;
        }
        let (now, _) = self.now();
        let is_bounded = self.is_bounded();
        let Some(lane) = self.lanes.get_mut(&id) else { return Ok(false) };
        let input = lane.input;
        if !matches!(outcome, ReadOutcome::Unreadable(_)) {
            lane.unreadable_since_ms = None;
        }
        let note_backlog = |partition: &mut Partition| match input {
            Some(input) => partition.note_backlog(input),
            None => partition.note_shared_lane(false, &now),
        };
        match outcome {
            ReadOutcome::Block(block) => {
                (lane.asked_ms, lane.at_end) = (None, false);
                lane.sizes.push_back(text_of(&block).len());
                if let SourceBlock::Records(records) = &block {
                    self.found.extend(records.found.iter().cloned());
                }
                lane.decoding.push_back(self.pool.submit(block)?);
                note_backlog(&mut self.partition);
                if self.lanes.len() >= CROWD {
                    self.source.rest(id);
                }
                return Ok(true);
            }
            ReadOutcome::Busy => {
                (lane.asked_ms, lane.at_end) = (None, false);
                note_backlog(&mut self.partition);
                return Ok(true);
            }
            ReadOutcome::AtEnd => (lane.asked_ms, lane.at_end) = (Some(monotonic), true),
            ReadOutcome::Ended => lane.ended = true,
            ReadOutcome::Waits => {
                (lane.asked_ms, lane.at_end) = (Some(monotonic), false);
                note_backlog(&mut self.partition);
            }
            ReadOutcome::Unreadable(error) => {
                // Not idle, because it may have lines. Asked again like an input at its end.
                (lane.asked_ms, lane.at_end) = (Some(monotonic), false);
                tracing::debug!(lane = id.0, "cannot be read at the moment: {}", error.report());
                let is_given_up = match input {
                    Some(input) => {
                        self.partition.note_unreadable(input, &now);
                        self.partition.is_given_up(input, &now)
                    }
                    None => {
                        note_backlog(&mut self.partition);
                        let since = *lane.unreadable_since_ms.get_or_insert(monotonic);
                        monotonic - since >= self.partition.idle_timeout_ms()
                    }
                };
                if is_bounded && is_given_up {
                    // It has not ended: the next run reads it.
                    lane.left = true;
                    self.unread.push(error.report());
                }
            }
        }
        Ok(false)
    }
}

/// The text of a block.
fn text_of(block: &SourceBlock) -> &[u8] {
    match block {
        SourceBlock::Text(block) => &block.text,
        SourceBlock::Records(block) => &block.text,
    }
}
