//! A partition: the unit of state and of commit.

mod alignment;
mod book;
mod end_epoch;
mod judge;

use crate::clock_guard::ClockReading;
use crate::deduplicate::Deduplicate;
use crate::frontier;
use crate::inputs::{Asked, Input, Inputs};
use crate::settings::TimeSettings;
use crate::tumbling_window::Windows;
use crate::watermark;
use adtally_model::{
    CountedClicks, DeadLetter, Frontiers, InputId, InputRow, InputStatus, Ledger, Minute, PartitionState, Position,
    Progress,
};
use std::sync::Arc;

/// How long the row of an ended input is kept after the input was last seen, in milliseconds: 30 days.
const GONE_AFTER_MS: i64 = 30 * 24 * 3_600_000;

/// The reason why judging stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stopped {
    /// The batch is finished.
    BatchEnd,
    /// The requested number of lines is judged.
    Quota,
    /// The input must wait: it is too far ahead of others, or an epoch must end before it may continue.
    Aligned,
}

/// The result of judging a batch.
#[derive(Debug)]
pub struct Judged {
    /// The counted clicks, if any, for readers of uncommitted clicks.
    pub counted: Option<Arc<CountedClicks>>,
    /// Lines judged.
    pub lines: usize,
    /// Why judging stopped.
    pub stopped: Stopped,
}

/// What can never be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gap {
    /// So many bytes of a log.
    Bytes(u64),
    /// So many offsets of a topic.
    Offsets(u64),
}

/// How a bounded run ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RunEnd {
    /// It does not end: an ordinary epoch.
    GoesOn,
    /// All inputs are read: closes every minute that has a counted click.
    Close,
    /// Like [`RunEnd::Close`], and makes these minutes final.
    Finalise,
}

/// The state of a partition and the epoch under construction.
#[derive(Debug)]
pub struct Partition {
    settings: TimeSettings,
    inputs: Inputs,
    held: Deduplicate,
    epoch_frontiers: Frontiers,
    bounded: bool,
    unopened: bool,
    releases_unopened: bool,
    /// Number of identities in the other partitions of the process.
    held_elsewhere: usize,
    observed: end_epoch::Observed,
    /// The number and the progress so far of the epoch under construction.
    progress: Progress,
    windows: Windows,
    clicks: Vec<Arc<CountedClicks>>,
    dead_letters: Vec<DeadLetter>,
    lines: u64,
    bytes: u64,
    forgotten: Vec<InputId>,
}

impl Partition {
    /// Continues from a folded state with the next epoch.
    pub fn new(settings: TimeSettings, state: PartitionState) -> Self {
        let mut held = Deduplicate::default();
        for (minute, folded) in &state.live {
            held.restore(*minute, folded.begun, &folded.identities);
        }
        let mut inputs = Inputs::default();
        for mut row in state.inputs.into_values() {
            if row.status == InputStatus::Unreadable {
                // This process may be able to read it.
                Arc::make_mut(&mut row).status = InputStatus::Holding;
            }
            inputs.insert(Input::new(row));
        }
        let source = state.progress.source.map(Position::next);
        let progress = Progress { number: state.progress.number + 1, source, ..state.progress };
        Partition {
            settings,
            inputs,
            held,
            progress,
            epoch_frontiers: progress.frontiers,
            bounded: false,
            unopened: false,
            releases_unopened: false,
            held_elsewhere: 0,
            observed: end_epoch::Observed::default(),
            windows: Windows::default(),
            clicks: Vec::new(),
            dead_letters: Vec::new(),
            lines: 0,
            bytes: 0,
            forgotten: Vec::new(),
        }
    }

    /// Declares that the run ends with its inputs. While one of them cannot be read, nothing becomes final.
    pub fn set_bounded(&mut self) {
        self.bounded = true;
    }

    /// A bug for the simulation to find: also releases inputs without a watermark.
    #[doc(hidden)]
    pub fn release_unopened(&mut self) {
        self.releases_unopened = true;
    }

    /// Declares that the inputs' records share one lane, whose position is that of the source.
    pub fn share_lane(&mut self) {
        self.inputs.share_lane();
    }

    /// Notes that the shared lane has more to read, or is at its end with everything before it judged.
    pub fn note_shared_lane(&mut self, at_end: bool, now: &ClockReading) {
        let asked = if at_end { Asked::AtEnd } else { Asked::Backlog };
        self.inputs.note_shared_lane(asked, now.guarded_ms);
    }

    /// Sets the number of identities in the process's other partitions: `dedup_capacity` covers all of them together.
    pub fn set_held_elsewhere(&mut self, identities: usize) {
        self.held_elsewhere = identities;
    }

    /// How long an input may make no progress or fail before the partition continues without it, in milliseconds.
    pub fn idle_timeout_ms(&self) -> i64 {
        self.settings.idle_timeout_ms
    }

    /// The partition's number.
    pub fn number(&self) -> u32 {
        self.progress.partition
    }

    /// The inputs.
    pub fn inputs(&self) -> &Inputs {
        &self.inputs
    }

    /// Progress so far, uncommitted lines included.
    pub fn frontiers(&self) -> &Frontiers {
        &self.progress.frontiers
    }

    /// The partition's lines by verdict so far, uncommitted ones included.
    pub fn ledger(&self) -> &Ledger {
        &self.progress.ledger
    }

    /// Number of identities in memory, and number of live minutes.
    pub fn held(&self) -> (usize, usize) {
        (self.held.held(), self.held.minutes())
    }

    /// Number of lines and bytes in the epoch so far.
    pub fn epoch_size(&self) -> (u64, u64) {
        (self.lines, self.bytes)
    }

    /// Pieces of blocks whose clicks are in the epoch so far.
    pub fn epoch_pieces(&self) -> usize {
        self.clicks.len()
    }

    /// Event time of the newest click counted.
    pub fn newest_click_ms(&self) -> Option<i64> {
        self.progress.newest_click_ms
    }

    /// Whether the watermark has passed the end of a minute since the epoch began.
    pub fn passed_a_minute(&self) -> bool {
        let minute = |frontiers: &Frontiers| frontiers.watermark.get().map(Minute::of);
        minute(&self.progress.frontiers) != minute(&self.epoch_frontiers)
    }

    /// Adds an input that is new or has returned. Takes effect at once: call it only at an epoch boundary.
    pub fn add_input(&mut self, mut row: InputRow, now: &ClockReading) {
        row.time.advanced_at_ms = now.guarded_ms;
        row.seen_at_ms = now.guarded_ms;
        self.progress.next_input = self.progress.next_input.max(row.id.0 + 1);
        let mut input = Input::new(Arc::new(row));
        input.touch();
        input.asked = Asked::Backlog;
        self.inputs.insert(input);
    }

    /// Continues an input that had ended or was found again.
    pub fn resume_input(&mut self, id: InputId) {
        self.inputs.resume(id);
    }

    /// Ends an input: it no longer holds the watermark.
    pub fn end_input(&mut self, id: InputId) {
        self.inputs.end(id);
    }

    /// Updates what the source knows of an input: its name, fingerprint and size.
    pub fn describe_input(&mut self, id: InputId, describe: impl FnOnce(&mut InputRow)) {
        self.inputs.change(id, |input| {
            let before = Arc::clone(&input.row.name);
            describe(input.row_mut());
            if input.row.name != before {
                input.touch();
            }
        });
    }

    /// Adds a gap of an input to the ledger. Lost offsets count as read, in the epoch that has the gap.
    pub fn book_gap(&mut self, id: InputId, gap: Gap) {
        let book = |ledger: &mut Ledger| match gap {
            Gap::Bytes(bytes) => ledger.gap_bytes += bytes,
            Gap::Offsets(offsets) => ledger.gap_offsets += offsets,
        };
        if self.inputs.change(id, |input| book(&mut input.touch().ledger)).is_some() {
            book(&mut self.progress.ledger);
        }
        if let (Gap::Offsets(offsets), Some(source)) = (gap, &mut self.progress.source) {
            source.to += offsets;
        }
    }

    /// Notes that an input is at its end with everything before it judged. `modified_ms` is its last write, in
    /// milliseconds of the wall clock, if known.
    pub fn note_at_end(&mut self, id: InputId, modified_ms: Option<i64>, now: &ClockReading) {
        self.inputs.change(id, |input| input.note_at_end(now, modified_ms, &self.settings));
    }

    /// Notes that an input at its end stays there until its source reports news. It need not be noted at its end again
    /// while [`Partition::note_watched`] is called.
    pub fn note_quiet(&mut self, id: InputId) {
        self.inputs.change(id, |input| input.quiet = input.asked == Asked::AtEnd);
    }

    /// Notes that the source watches the quiet inputs: they are at their end now.
    pub fn note_watched(&mut self, now: &ClockReading) {
        self.inputs.note_watched(now.guarded_ms);
    }

    /// Notes that an input has more to read, or waits to be opened.
    pub fn note_backlog(&mut self, id: InputId) {
        self.inputs.change(id, |input| input.note(Asked::Backlog));
    }

    /// Notes that an input could not be opened or read. After `idle_timeout`, a live run no longer waits for it.
    pub fn note_unreadable(&mut self, id: InputId, now: &ClockReading) {
        self.inputs.change(id, |input| input.note_unreadable(now.guarded_ms));
    }

    /// Whether an input has been unreadable for `idle_timeout`.
    pub fn is_given_up(&self, id: InputId, now: &ClockReading) -> bool {
        self.inputs.get(id).is_some_and(|input| input.is_given_up(now.guarded_ms, &self.settings))
    }

    /// Sets whether some files could not be opened and are therefore not inputs yet. From the next epoch on they hold
    /// the watermark like inputs without one.
    pub fn note_unopened(&mut self, unopened: bool) {
        self.unopened = unopened;
    }

    /// Forgets minutes behind the expired frontier. Keeps the identities that the epoch must still record.
    fn expire(&mut self) {
        self.held.expire(frontier::ms(self.progress.frontiers.expired));
    }

    /// The watermark of an input, if it has one.
    pub fn watermark_of(&self, id: InputId) -> Option<i64> {
        let watermark = self.inputs.get(id)?.watermark(&self.settings);
        (watermark != watermark::NONE).then_some(watermark)
    }
}
