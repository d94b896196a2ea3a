//! The committer of a partition, turned by hand, and the stop request, which reaches a process even while it waits.

use crate::machine::Machine;
use crate::plant::Plant;
use adtally_engine::commit::{Committer, EncodedEpoch};
use adtally_engine::ingest::{EpochSink, Turn};
use adtally_engine::run::DrainTimer;
use adtally_model::{Error, Result};
use adtally_pipeline::EpochDraft;
use parking_lot::Mutex;
use std::sync::Arc;

/// When a process is asked to stop, and the effect while the process does other work.
pub(crate) struct StopRequest {
    machine: Machine,
    timer: DrainTimer,
    /// The time of the request, by true time; `None` if there is none.
    at_ms: Option<i64>,
    /// Whether committers and projector were told to give up.
    pub(crate) gave_up: bool,
}

impl StopRequest {
    /// A process without a request.
    pub(crate) fn new(machine: Machine, timer: DrainTimer) -> StopRequest {
        StopRequest { machine, timer, at_ms: None, gave_up: false }
    }

    /// Asks the process to stop at a true time, unless it will be asked earlier.
    pub(crate) fn ask_at(&mut self, at_ms: i64) {
        self.at_ms = Some(self.at_ms.map_or(at_ms, |before_ms| before_ms.min(at_ms)));
    }

    /// Whether the process is, or will be, asked to stop.
    pub(crate) fn is_planned(&self) -> bool {
        self.at_ms.is_some()
    }

    /// Whether the process has been asked to stop by now. Also turns the timer.
    pub(crate) fn look(&mut self) -> bool {
        let is_asked = self.at_ms.is_some_and(|at_ms| at_ms <= self.machine.true_ms());
        if !self.gave_up && self.timer.turn(is_asked) == Turn::Finished {
            self.machine.note("gives up", &"");
            self.gave_up = true;
        }
        is_asked
    }
}

/// The committer without its threads: one epoch may wait to be encoded and one to be recorded, while another is
/// recorded and the next one is built.
struct Desk {
    committer: Committer,
    draft: Option<EpochDraft>,
    encoded: Option<EncodedEpoch>,
    /// Whether it has ended with an error.
    is_dead: bool,
    /// That error, until it is taken.
    error: Option<Error>,
    machine: Machine,
    plant: Plant,
    stop: Arc<Mutex<StopRequest>>,
}

impl Desk {
    /// Whether the encoding thread has no waiting epoch, so that the next submit does not wait.
    fn is_ready(&self) -> bool {
        self.is_dead || (self.draft.is_none() && self.encoded.is_none())
    }

    /// Whether all submitted epochs are committed.
    fn is_idle(&self) -> bool {
        !self.is_dead && self.is_ready() && self.committer.recorder.is_idle()
    }

    fn encode(&mut self) -> Turn {
        if self.encoded.is_some() {
            return Turn::Nothing;
        }
        let Some(draft) = self.draft.take() else { return Turn::Nothing };
        self.machine.crash_point("before encoding", 1);
        let encoded = self.committer.encoder.encode(draft).map(|encoded| self.encoded = Some(encoded));
        self.noted(encoded.map(|()| Turn::Worked))
    }

    fn record(&mut self) -> Turn {
        if self.is_dead {
            return Turn::Nothing;
        }
        let recorder = &mut self.committer.recorder;
        if recorder.is_idle() {
            let Some(encoded) = self.encoded.take() else { return Turn::Nothing };
            self.machine.crash_point("before a commit", 1);
            recorder.begin(encoded);
        }
        let turn = recorder.turn();
        if let Ok(Turn::Finished) = turn {
            self.machine.crash_point("after a commit", 1);
            return Turn::Worked;
        }
        self.noted(turn)
    }

    /// Ends like a thread with an error, losing its epochs.
    fn noted(&mut self, turn: Result<Turn>) -> Turn {
        turn.unwrap_or_else(|error| {
            (self.is_dead, self.error) = (true, Some(error));
            Turn::Nothing
        })
    }

    /// Encodes and records as far as possible without waiting.
    fn turn(&mut self) -> Turn {
        let mut turn = Turn::Nothing;
        while self.encode() == Turn::Worked || self.record() == Turn::Worked {
            turn = Turn::Worked;
        }
        turn
    }
}

/// The sink of a partition's epochs.
#[derive(Clone)]
pub(crate) struct Slot(Arc<Mutex<Desk>>);

impl Slot {
    pub(crate) fn new(committer: Committer, machine: Machine, plant: Plant, stop: Arc<Mutex<StopRequest>>) -> Slot {
        let (draft, encoded, error) = (None, None, None);
        Slot(Arc::new(Mutex::new(Desk { committer, draft, encoded, is_dead: false, error, machine, plant, stop })))
    }

    /// Whether all submitted epochs are committed.
    pub(crate) fn is_idle(&self) -> bool {
        self.0.lock().is_idle()
    }

    /// Encodes an epoch.
    pub(crate) fn encode(&self) -> Turn {
        self.0.lock().encode()
    }

    /// Tries one step of recording an epoch.
    pub(crate) fn record(&self) -> Turn {
        self.0.lock().record()
    }

    /// Encodes and records as far as possible without waiting.
    pub(crate) fn turn(&self) -> Turn {
        self.0.lock().turn()
    }

    /// Turns, with pauses, until `holds` is true.
    fn turn_until(&self, holds: impl Fn(&Desk) -> bool) {
        loop {
            let mut desk = self.0.lock();
            let turn = desk.turn();
            if holds(&desk) {
                return;
            }
            if turn == Turn::Nothing {
                desk.committer.recorder.wait();
                desk.stop.lock().look();
            }
        }
    }

    /// Waits until all submitted epochs are committed.
    pub(crate) fn commit_all(&mut self) -> Result<()> {
        self.turn_until(|desk| desk.is_dead || desk.is_idle());
        self.finish().map(drop)
    }
}

impl EpochSink for Slot {
    fn is_ready(&self) -> bool {
        self.0.lock().is_ready()
    }

    fn submit(&mut self, draft: EpochDraft) -> Result<()> {
        if !self.is_ready() {
            self.turn_until(Desk::is_ready);
        }
        let mut desk = self.0.lock();
        if desk.is_dead {
            return Err(desk.error.take().unwrap_or_else(|| Error::internal("the committer has ended early")));
        }
        desk.draft = Some(draft);
        Ok(())
    }

    fn finish(&mut self) -> Result<bool> {
        let mut desk = self.0.lock();
        if desk.plant == Plant::DrainSaysCommitted && desk.stop.lock().gave_up {
            return Ok(true);
        }
        match desk.error.take() {
            Some(error) => Err(error),
            None => Ok(desk.is_dead || desk.is_idle()),
        }
    }
}
