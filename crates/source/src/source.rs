//! What every source of lines is to the engine, whether it reads files or a partition of a stream.
//!
//! A source has lanes: each file is one, and so is a Kafka partition. A lane is read in blocks, which come in order, and only
//! lanes can be paused. A block of text belongs to one input, and an epoch may end behind each of its lines. A block of
//! records names the input of each record, and an epoch may end behind each record. Positions are those of the lane: bytes
//! of uncompressed text, or offsets.

use crate::block::{Block, RecordBlock};
use crate::file_tail::{Discovery, InputFacts, Progress, ReadOutcome, Tailer, Unopened};
use adtally_model::{InputId, LaneId, Result};

/// What a lane delivers.
#[derive(Clone, Debug)]
pub enum SourceBlock {
    /// Whole lines of one input.
    Text(Block),
    /// Whole records of a lane that inputs share.
    Records(RecordBlock),
}

/// Where the lines of a partition come from. Nothing that it finds takes effect before the epoch ends in which it was told.
/// Times are monotonic milliseconds.
///
/// What only files know has an answer here that says so; a stream need not give one.
pub trait Source: Send {
    /// Tells what happened to inputs since the last call. Cheap where nothing did.
    ///
    /// # Errors
    /// What the process cannot go on with.
    fn discover(&mut self, now_ms: i64) -> Result<Vec<Discovery>>;

    /// The same, whatever is known: the last look of a bounded run.
    ///
    /// # Errors
    /// As [`Source::discover`].
    fn discover_all(&mut self, now_ms: i64) -> Result<Vec<Discovery>> {
        self.discover(now_ms)
    }

    /// Reads the next block of a lane.
    ///
    /// # Errors
    /// Internal when there is no such lane. What is wrong with it is an outcome.
    fn read(&mut self, lane: LaneId, now_ms: i64) -> Result<ReadOutcome<SourceBlock>>;

    /// The lane that all inputs share, which is there from the beginning; none where each input is a lane of its own.
    fn shared_lane(&self) -> Option<LaneId> {
        None
    }

    /// What is to be persisted of an input once everything up to `position` is committed; see [`Tailer::facts`].
    fn facts(&mut self, input: InputId, position: u64, before: Option<&[u8]>) -> Option<InputFacts> {
        let _ = (input, position, before);
        None
    }

    /// The gap that was told of an input is booked.
    fn gap_booked(&mut self, input: InputId) {
        let _ = input;
    }

    /// The epoch log has summed up an input that had ended: it may be forgotten.
    fn forget(&mut self, input: InputId) {
        let _ = input;
    }

    /// Whether an input that has ended is still there, so that it must stay known.
    fn is_listed(&self, input: InputId) -> bool {
        let _ = input;
        true
    }

    /// When an input was last written, in milliseconds since the Unix epoch; none where that is not known.
    fn modified_ms(&self, input: InputId) -> Option<i64> {
        let _ = input;
        None
    }

    /// Whether a lane at its end need not be asked again before [`Source::take_woken`] names it.
    fn is_quiet(&self, lane: LaneId, now_ms: i64) -> bool {
        let _ = (lane, now_ms);
        false
    }

    /// The quiet lanes that may have something new since the last call.
    fn take_woken(&mut self) -> Vec<LaneId> {
        Vec::new()
    }

    /// Gives back what is not needed of a lane that is quiet or waits for others: there may be very many.
    fn rest(&mut self, lane: LaneId) {
        let _ = lane;
    }

    /// Whether a lane uses a decoder of which there are few.
    fn is_streaming(&self, lane: LaneId) -> bool {
        let _ = lane;
        false
    }

    /// Lets a lane give up its decoder for one that waits for one.
    fn give_way(&mut self, lane: LaneId) {
        let _ = lane;
    }

    /// Sets how much text a block has at most, in bytes; more where a line or a record is longer.
    fn set_block_bytes(&mut self, bytes: usize);

    /// Takes back the text of a block that is done with, as room for further text.
    fn recycle(&mut self, text: Vec<u8>) {
        let _ = text;
    }

    /// What may hold lines of inputs that are not known yet and could not be looked at.
    fn unopened(&self) -> Vec<&Unopened> {
        Vec::new()
    }

    /// The inputs that may be behind what could not be looked at.
    fn unreachable(&self) -> &[InputId] {
        &[]
    }

    /// What is wrong at the moment and stops nothing, for people.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// Those of the warnings that were not returned here before.
    fn new_warnings(&mut self) -> Vec<String> {
        Vec::new()
    }

    /// What a bounded run leaves unread because it is no click log, for people.
    fn foreign(&self) -> Vec<String> {
        Vec::new()
    }

    /// How far a run has come.
    fn progress(&self) -> Progress {
        Progress::default()
    }

    /// Files held open.
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
