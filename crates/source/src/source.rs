//! The interface of every source of lines to the engine, whether it reads files or a partition of a stream.
//!
//! A source has lanes: each file is a lane, and so is a Kafka partition. A lane is read in blocks, which arrive in
//! order. Only lanes can be paused. A text block belongs to one input, and an epoch may end after any of its lines. A
//! record block names the input of each record, and an epoch may end after any record. Positions are positions in the
//! lane: bytes of uncompressed text, or offsets.

use crate::block::{Block, RecordBlock};
use crate::file_tail::{Discovery, InputFacts, Progress, ReadOutcome, Tailer, Unopened};
use adtally_model::{InputId, LaneId, Result};

/// What a lane delivers.
#[derive(Clone, Debug)]
pub enum SourceBlock {
    /// Whole lines of one input.
    Text(Block),
    /// Whole records of a lane that several inputs share.
    Records(RecordBlock),
}

/// How far a partition of a topic is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Backlog {
    /// The next offset to read.
    pub next: u64,
    /// Offsets from there to the end of the partition.
    pub behind: u64,
}

/// The source of the lines of a partition. A discovery takes effect only at the end of the epoch in which it was
/// returned. Times are monotonic milliseconds.
///
/// Methods that only files need have default implementations; a stream need not override them.
pub trait Source: Send {
    /// Returns what happened to inputs since the last call. Cheap if nothing happened.
    ///
    /// # Errors
    /// Errors after which the process cannot continue.
    fn discover(&mut self, now_ms: i64) -> Result<Vec<Discovery>>;

    /// Like [`Source::discover`], but examines everything again: the last look of a bounded run.
    ///
    /// # Errors
    /// As [`Source::discover`].
    fn discover_all(&mut self, now_ms: i64) -> Result<Vec<Discovery>> {
        self.discover(now_ms)
    }

    /// Reads the next block of a lane.
    ///
    /// # Errors
    /// Internal when the lane does not exist. Problems with the lane itself are outcomes, not errors.
    fn read(&mut self, lane: LaneId, now_ms: i64) -> Result<ReadOutcome<SourceBlock>>;

    /// The lane that all inputs share; it exists from the start. `None` if each input has a lane of its own.
    fn shared_lane(&self) -> Option<LaneId> {
        None
    }

    /// The facts to persist about an input once everything up to `position` is committed; see [`Tailer::facts`].
    fn facts(&mut self, input: InputId, position: u64, before: Option<&[u8]>) -> Option<InputFacts> {
        let _ = (input, position, before);
        None
    }

    /// The gap that was reported for an input is booked.
    fn gap_booked(&mut self, input: InputId) {
        let _ = input;
    }

    /// Forgets an input that had ended: the epoch log has compacted it.
    fn forget(&mut self, input: InputId) {
        let _ = input;
    }

    /// Whether the file of an ended input still exists, so the input must stay known.
    fn is_listed(&self, input: InputId) -> bool {
        let _ = input;
        true
    }

    /// When an input was last written, in milliseconds since the Unix epoch; `None` if unknown.
    fn modified_ms(&self, input: InputId) -> Option<i64> {
        let _ = input;
        None
    }

    /// Whether a lane at its end need not be read again until [`Source::take_woken`] returns it.
    fn is_quiet(&self, lane: LaneId, now_ms: i64) -> bool {
        let _ = (lane, now_ms);
        false
    }

    /// The quiet lanes that may have new data since the last call.
    fn take_woken(&mut self) -> Vec<LaneId> {
        Vec::new()
    }

    /// Releases what a quiet or waiting lane does not need: there may be very many such lanes.
    fn rest(&mut self, lane: LaneId) {
        let _ = lane;
    }

    /// Whether a lane uses one of the few decoders.
    fn is_streaming(&self, lane: LaneId) -> bool {
        let _ = lane;
        false
    }

    /// Takes the decoder away from a lane in favour of a lane that waits for one.
    fn give_way(&mut self, lane: LaneId) {
        let _ = lane;
    }

    /// Sets the maximum text of a block, in bytes; a longer line or record may exceed it.
    fn set_block_bytes(&mut self, bytes: usize);

    /// Takes back the text buffer of a processed block for reuse.
    fn recycle(&mut self, text: Vec<u8>) {
        let _ = text;
    }

    /// Paths that could not be examined and may contain lines of unknown inputs.
    fn unopened(&self) -> Vec<&Unopened> {
        Vec::new()
    }

    /// The inputs whose files may be at paths that could not be examined.
    fn unreachable(&self) -> &[InputId] {
        &[]
    }

    /// Present problems that stop nothing, as messages for people.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// The warnings that this method has not returned before.
    fn new_warnings(&mut self) -> Vec<String> {
        Vec::new()
    }

    /// Files that a bounded run leaves unread because they are not click logs, as messages for people.
    fn foreign(&self) -> Vec<String> {
        Vec::new()
    }

    /// The progress of a run.
    fn progress(&self) -> Progress {
        Progress::default()
    }

    /// Gaps that the records read so far tell of: [`Discovery::Gap`]. They are to be booked before these records are committed,
    /// and may be told again after a crash.
    fn take_gaps(&mut self) -> Vec<Discovery> {
        Vec::new()
    }

    /// How far a topic's partition is read; `None` for other sources, and while its end is not known.
    fn backlog(&self) -> Option<Backlog> {
        None
    }

    /// The number of open files.
    fn open_files(&self) -> usize {
        0
    }
}

/// The input of a file's lane.
fn input(LaneId(number): LaneId) -> InputId {
    InputId(number)
}

impl Source for Tailer {
    fn discover(&mut self, now_ms: i64) -> Result<Vec<Discovery>> {
        Tailer::discover(self, now_ms)
    }

    fn discover_all(&mut self, now_ms: i64) -> Result<Vec<Discovery>> {
        Tailer::discover_all(self, now_ms)
    }

    fn read(&mut self, lane: LaneId, now_ms: i64) -> Result<ReadOutcome<SourceBlock>> {
        Ok(Tailer::read(self, input(lane), now_ms)?.map(SourceBlock::Text))
    }

    fn facts(&mut self, input: InputId, position: u64, before: Option<&[u8]>) -> Option<InputFacts> {
        Tailer::facts(self, input, position, before)
    }

    fn gap_booked(&mut self, input: InputId) {
        Tailer::gap_booked(self, input);
    }

    fn forget(&mut self, input: InputId) {
        Tailer::forget(self, input);
    }

    fn is_listed(&self, input: InputId) -> bool {
        Tailer::is_listed(self, input)
    }

    fn modified_ms(&self, input: InputId) -> Option<i64> {
        Tailer::modified_ms(self, input)
    }

    fn is_quiet(&self, lane: LaneId, now_ms: i64) -> bool {
        Tailer::is_quiet(self, input(lane), now_ms)
    }

    fn take_woken(&mut self) -> Vec<LaneId> {
        Tailer::take_woken(self).into_iter().map(LaneId::from).collect()
    }

    fn rest(&mut self, lane: LaneId) {
        Tailer::rest(self, input(lane));
    }

    fn is_streaming(&self, lane: LaneId) -> bool {
        Tailer::is_streaming(self, input(lane))
    }

    fn give_way(&mut self, lane: LaneId) {
        Tailer::give_way(self, input(lane));
    }

    fn set_block_bytes(&mut self, bytes: usize) {
        Tailer::set_block_bytes(self, bytes);
    }

    fn recycle(&mut self, text: Vec<u8>) {
        Tailer::recycle(self, text);
    }

    fn unopened(&self) -> Vec<&Unopened> {
        Tailer::unopened(self).collect()
    }

    fn unreachable(&self) -> &[InputId] {
        Tailer::unreachable(self)
    }

    fn warnings(&self) -> Vec<String> {
        Tailer::warnings(self)
    }

    fn new_warnings(&mut self) -> Vec<String> {
        Tailer::new_warnings(self)
    }

    fn foreign(&self) -> Vec<String> {
        Tailer::foreign(self).collect()
    }

    fn progress(&self) -> Progress {
        Tailer::progress(self)
    }

    fn open_files(&self) -> usize {
        Tailer::open_files(self)
    }
}
