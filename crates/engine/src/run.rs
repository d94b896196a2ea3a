//! A run of the engine, from its first line to its summary, turn by turn. It executes the steps of its life cycle.
//!
//! It starts no thread. A service turns it on one thread, and the committers, the projector, upkeep and the
//! [`DrainTimer`] on others. The simulation turns all of them in one thread, in an order drawn from its seed.

use crate::clock::Clock;
use crate::engine::Engine;
use crate::ingest::{EpochSink, Turn};
use crate::life_cycle::{Drain, DrainOrder, LifeCycle, Step};
use crate::options::Ending;
use crate::project::Projector;
use crate::report::Report;
use crate::upkeep::{Upkeep, UpkeepStop};
use adtally_model::{Error, Ledger, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The result of a run.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The lines of the run's partitions by verdict.
    pub ledger: Ledger,
    /// Lines read by this run only.
    pub lines_of_run: u64,
    /// Whether the run was stopped before its end.
    pub interrupted: bool,
    /// Files that a bounded run did not read to their end because of errors, with the reasons.
    pub unread: Vec<String>,
}

/// The run of an engine.
pub struct Run<S> {
    life: LifeCycle,
    ending: Ending,
    /// The engine; `None` once reading is over.
    engine: Option<Engine<S>>,
    /// Once reading is over: the sinks that have not ended.
    sinks: Vec<S>,
    projector: Projector,
    upkeep: Arc<Upkeep>,
    clock: Arc<dyn Clock>,
    report: Arc<Report>,
    abandon: Arc<AtomicBool>,
    /// Lines of its partitions that were read before this run.
    read_before: u64,
    unread: Vec<String>,
}

impl<S: EpochSink> Run<S> {
    /// A run that has not read anything.
    pub fn new(engine: Engine<S>) -> Run<S> {
        Run {
            life: LifeCycle::new(engine.options.ending),
            ending: engine.options.ending,
            sinks: Vec::new(),
            projector: engine.projector.clone(),
            upkeep: Arc::clone(&engine.upkeep),
            clock: Arc::clone(&engine.environment.clock),
            report: Arc::clone(&engine.environment.report),
            abandon: Arc::clone(&engine.abandon),
            engine: Some(engine),
            read_before: 0,
            unread: Vec::new(),
        }
    }

    /// A timer that watches the time that the run takes to stop.
    pub fn drain_timer(&self) -> DrainTimer {
        DrainTimer {
            drain: Drain::default(),
            clock: Arc::clone(&self.clock),
            upkeep: self.upkeep.stop_handle(),
            projector: self.projector.clone(),
            abandon: Arc::clone(&self.abandon),
        }
    }

    /// The current step.
    pub fn step(&self) -> Step {
        self.life.step()
    }

    /// The engine; `None` once reading is over.
    pub fn engine(&self) -> Option<&Engine<S>> {
        self.engine.as_ref()
    }

    /// Mutable access to the engine, to add and remove partitions.
    pub fn engine_mut(&mut self) -> Option<&mut Engine<S>> {
        self.engine.as_mut()
    }

    /// A handle to the projector.
    pub fn projector(&self) -> &Projector {
        &self.projector
    }

    /// Does part of the current step. After a request to stop, every later turn must repeat the request.
    pub fn turn(&mut self, is_asked_to_stop: bool) -> Turn {
        if is_asked_to_stop {
            self.life.ask_to_stop();
        }
        let turn = match self.life.step() {
            Step::Read => self.read(),
            Step::HandOver => self.engine.as_mut().map_or(Ok(()), Engine::stop).map(|()| Turn::Finished),
            Step::Commit => Ok(self.commit()),
            Step::Project => self.projector.outcome().map_or(Ok(Turn::Nothing), |ended| ended.map(|()| Turn::Finished)),
            Step::KeepLake => Ok(self.keep_lake()),
            Step::Over => return Turn::Finished,
        };
        match turn {
            Ok(Turn::Finished) => {}
            Ok(turn) => return turn,
            Err(error) => self.life.fail(error),
        }
        self.life.end_step();
        match self.life.step() {
            Step::Commit => self.end_reading(),
            Step::Project if self.life.has_failed() => self.projector.abandon(),
            Step::Project => self.projector.close(),
            _ => {}
        }
        Turn::Worked
    }

    fn read(&mut self) -> Result<Turn> {
        let turn = self.engine.as_mut().map_or(Ok(Turn::Finished), Engine::turn)?;
        if turn != Turn::Finished && self.projector.has_ended_early() {
            return Err(Error::internal("the projector has ended early"));
        }
        Ok(turn)
    }

    /// Drops everything that only reading needs, and stops upkeep.
    fn end_reading(&mut self) {
        self.report.ended();
        if self.life.has_failed() {
            self.abandon.store(true, Ordering::Relaxed);
        }
        if !self.ending.is_bounded() {
            self.upkeep.stop_handle().set();
        }
        if let Some(engine) = self.engine.take() {
            (self.read_before, self.unread) = (engine.read_before(), engine.unread());
            self.sinks = engine.into_sinks();
        }
    }

    /// Finishes every sink, even if others fail.
    fn commit(&mut self) -> Turn {
        let life = &mut self.life;
        self.sinks.retain_mut(|sink| match sink.finish() {
            Ok(is_finished) => !is_finished,
            Err(error) => {
                life.fail(error);
                false
            }
        });
        if self.sinks.is_empty() { Turn::Finished } else { Turn::Nothing }
    }

    fn keep_lake(&self) -> Turn {
        match self.ending {
            Ending::Scratch => self.upkeep.roll_up_all(),
            Ending::Never | Ending::UntilEnd | Ending::Final => self.upkeep.do_all(),
        }
        Turn::Finished
    }

    /// Waits briefly for whatever the next turn needs.
    pub fn wait(&self) {
        match &self.engine {
            Some(engine) => engine.wait(),
            None => self.projector.wait_for_end(),
        }
    }

    /// The summary, once the run is over. An error is returned only once.
    ///
    /// # Errors
    /// The error that stopped the run.
    pub fn take_summary(&mut self) -> Result<Summary> {
        self.life.take_outcome()?;
        let (ledger, unread) = (self.report.total(), std::mem::take(&mut self.unread));
        let lines_of_run = ledger.read - self.read_before;
        Ok(Summary { ledger, lines_of_run, interrupted: self.life.is_interrupted(), unread })
    }
}

/// Watches the time that a run takes to stop. It is turned beside the run, which may be waiting for a store.
pub struct DrainTimer {
    drain: Drain,
    clock: Arc<dyn Clock>,
    upkeep: UpkeepStop,
    projector: Projector,
    abandon: Arc<AtomicBool>,
}

impl DrainTimer {
    /// Checks the time. Returns finished once committers and projector must give up.
    pub fn turn(&mut self, is_asked_to_stop: bool) -> Turn {
        match self.drain.order(is_asked_to_stop, self.clock.monotonic_ms()) {
            DrainOrder::GoOn => Turn::Nothing,
            DrainOrder::StopUpkeep => {
                self.upkeep.set();
                Turn::Worked
            }
            DrainOrder::GiveUp => {
                tracing::warn!("the last lines could not be committed in time: the next start reads them again");
                self.abandon.store(true, Ordering::Relaxed);
                self.projector.abandon();
                Turn::Finished
            }
        }
    }
}
