//! The simulated world: servers write, processes start and end, and everything is checked continuously.

use crate::files::Files;
use crate::judge::corrections::CorrectionJudge;
use crate::judge::{Judge, Verdict};
use crate::lake::SharedTables;
use crate::machine::{Death, Luck, Machine};
use crate::plant::Plant;
use crate::process::{Ground, Process};
use crate::random::Random;
use crate::reconciler::Reconciler;
use crate::scenario::Scenario;
use crate::servers::Servers;
use crate::store::{SharedDisk, SimStore};
use adtally_engine::Ending;
use adtally_engine::files::file_source;
use adtally_model::{ErrorKind, InputId, Invariant, Result};
use adtally_store::epoch_log::EpochLog;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

mod ends;
mod reconciling;

pub(crate) use ends::ask_to_stop;

/// Steps within which a simulation must end.
const STEPS_MAX: usize = 40_000;

/// Most processes suspended at the same time.
const ZOMBIES_MAX: usize = 2;

/// Steps per thousand at which the process reconciles.
const RECONCILIATIONS: u64 = 30;

/// Added to the seed of reconciliation, so that the rest of a simulation does not depend on it.
const RECONCILING: u64 = 0x7265_636f;

/// The partition of an embedded process.
const PARTITION: u32 = 0;

/// Once everything is written and nothing fails, the time without new lines after which all is considered read, in
/// addition to twice the idle timeout. After the wall clock was set back, the guarded clock stands still for a minute.
const SETTLE_MS: i64 = 90_000;

/// The result of a simulation.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// The seed, which replays the simulation.
    pub seed: u64,
    /// Crash points passed.
    pub points: u64,
    /// Deaths at crash points.
    pub deaths: u64,
    /// Operations that failed.
    pub failures: u64,
    /// Power losses.
    pub power_losses: u64,
    /// Processes that continued after another had taken over.
    pub zombies: u64,
    /// Processes that took over.
    pub starts: u64,
    /// Runs that ended with their inputs.
    pub bounded: u64,
    /// Processes that were asked to stop.
    pub stops: u64,
    /// Runs that gave up what they could not do in time.
    pub given_up: u64,
    /// Records in the log.
    pub epochs: u64,
    /// Lines written.
    pub lines: u64,
    /// Late clicks that reconciliation recovered.
    pub recovered: u64,
    /// Reconcilers that were fenced.
    pub fenced: u64,
    /// A hash of all events.
    pub trace: u64,
    /// The violation found, if any.
    pub violation: Option<String>,
}

/// The world of one seed.
struct World {
    scenario: Scenario,
    random: Random,
    ground: Ground,
    servers: Servers,
    judge: Judge,
    corrections: CorrectionJudge,
    reconciler: Option<Reconciler>,
    /// A reconciler that another one has succeeded, and that does not know it.
    stale: Option<Reconciler>,
    /// Decides about reconciliation alone.
    reconciling: Random,
    process: Option<Process>,
    zombies: Vec<Process>,
    /// How far the last process that died had read.
    read: BTreeMap<InputId, u64>,
    /// Whether more than a day has passed without events since the last process.
    is_rested: bool,
    outcome: Outcome,
}

/// The outcome of a call into a process.
pub(crate) enum Ended<T> {
    /// It returned.
    Well(T),
    /// The process died in it.
    Died,
    /// The process stopped with an error.
    Failed(adtally_model::Error),
}

/// Simulates a seed. With `tells`, prints events to stdout.
pub fn simulate(seed: u64, plant: Plant, tells: bool) -> Outcome {
    outcome_of(seed, |runtime| {
        let mut world = World::new(seed, plant, tells, runtime);
        let ended = catch_unwind(AssertUnwindSafe(|| world.run()));
        let (epochs, lines) = (world.judge.head(), world.servers.lines.len() as u64);
        let recovered = world.corrections.recovered() as u64;
        (ended, Outcome { epochs, lines, recovered, ..world.outcome }, world.ground.machine.clone())
    })
}

/// How a world ended, and its counters.
type Run = (std::thread::Result<Verdict>, Outcome, Machine);

/// The outcome of the world that `run` simulates.
pub(crate) fn outcome_of(seed: u64, run: impl FnOnce(tokio::runtime::Handle) -> Run) -> Outcome {
    let runtime = match tokio::runtime::Builder::new_current_thread().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let violation = Some(format!("no runtime for the simulation: {error}"));
            return Outcome { seed, violation, ..Outcome::default() };
        }
    };
    let (ended, outcome, machine) = run(runtime.handle().clone());
    let violation = match ended {
        Ok(verdict) => verdict.err(),
        Err(panic) => Some(format!("a panic: {}", words_of(panic.as_ref()))),
    };
    let tally = machine.tally();
    Outcome {
        seed,
        points: tally.points,
        deaths: tally.deaths,
        failures: tally.failures,
        trace: machine.trace(),
        violation,
        ..outcome
    }
}

/// Calls into a process. Panics other than its death continue to unwind.
pub(crate) fn call<T>(call: impl FnOnce() -> Result<T>) -> Ended<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ended::Well(value),
        Ok(Err(error)) => Ended::Failed(error),
        Err(panic) if panic.is::<Death>() => Ended::Died,
        Err(panic) => resume_unwind(panic),
    }
}

fn words_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned())).unwrap_or_default()
}

impl World {
    fn new(seed: u64, plant: Plant, tells: bool, runtime: tokio::runtime::Handle) -> World {
        let mut random = Random::new(seed);
        let scenario = Scenario::new(seed, &mut random);
        let machine = Machine::new(random.fork(), tells);
        machine.note("scenario", &format!("{scenario:?}"));
        let servers = Servers::new(&scenario, None, random.fork(), machine.true_ms());
        let files = Files::new(machine.clone());
        let (disk, tables) = (SharedDisk::default(), SharedTables::default());
        World {
            random,
            ground: Ground { machine, disk, tables, files, runtime, plant },
            scenario,
            servers,
            judge: Judge::default(),
            corrections: CorrectionJudge::default(),
            reconciler: None,
            stale: None,
            reconciling: Random::new(seed ^ RECONCILING),
            process: None,
            zombies: Vec::new(),
            read: BTreeMap::new(),
            is_rested: false,
            outcome: Outcome { seed, ..Outcome::default() },
        }
    }

    fn run(&mut self) -> Verdict {
        self.ground.machine.set_luck(self.scenario.luck);
        let mut steps = 0;
        while !self.servers.are_done() {
            self.step()?;
            steps += 1;
            if steps > STEPS_MAX {
                return Err("the simulation does not come to its end".to_owned());
            }
        }
        self.settle()
    }

    /// Advances time by one step with one event.
    fn step(&mut self) -> Verdict {
        let ms = match self.random.below(100) {
            0 => self.random.between(10_000, 90_000),
            1..=9 => self.random.between(1_000, 5_000),
            _ => self.random.between(5, 1_500),
        };
        self.ground.machine.advance(ms);
        self.write();
        if self.random.chance(self.scenario.clock_jumps) {
            let day = 86_400_000;
            let skew_ms = self.random.pick(&[0, 0, day, -day, 90_000, -90_000]);
            self.ground.machine.note("the clock is off by", &skew_ms);
            self.ground.machine.set_skew(skew_ms);
        }
        if self.random.chance(50) {
            self.ground.disk.catch_up();
        }
        if !self.zombies.is_empty() && self.random.chance(50) {
            self.resume_zombie()?;
        }
        if self.reconciling.chance(RECONCILIATIONS) {
            self.reconcile()?;
        }
        if self.process.is_none() {
            let ending = self.scenario.next_ending(&mut self.random);
            return self.start(ending);
        }
        if self.random.chance(self.scenario.zombies) && self.zombies.len() < ZOMBIES_MAX {
            self.ground.machine.note("suspended", &"");
            self.zombies.extend(self.process.take());
            let ending = self.scenario.next_ending(&mut self.random);
            return self.start(ending);
        }
        if self.random.chance(self.scenario.stops) {
            self.ask_to_stop();
        }
        if self.random.chance(self.scenario.upkeep) {
            return self.keep_lake();
        }
        self.work()
    }

    /// Servers write and rotate logs. Rotated logs that are read are deleted.
    fn write(&mut self) {
        let now_ms = self.ground.machine.true_ms();
        self.servers.act(&self.scenario, &self.ground.files, now_ms);
        let (judge, files) = (&self.judge, &self.ground.files);
        self.servers.rotated.retain(|(path, file)| {
            let is_read = judge.is_read(&path.to_string_lossy(), file.len());
            if is_read {
                files.remove(path);
            }
            !is_read
        });
    }

    /// A process takes over, or dies while trying.
    fn start(&mut self, ending: Ending) -> Verdict {
        self.ground.machine.note("starts", &format!("{ending:?}"));
        let started = call(|| {
            let mut process = Process::start(&self.ground, &self.scenario, ending)?;
            let files = Box::new(self.ground.files.clone());
            process.take(PARTITION, &self.read, |state| {
                file_source(&self.scenario.settings, ending, files, state, &self.ground.machine)
            })?;
            Ok(process)
        });
        match started {
            Ended::Well(process) => {
                let Some(taken) = process.taken.get(&PARTITION) else { return Err("nothing is taken".to_owned()) };
                self.outcome.starts += 1;
                self.ground.machine.note("owns from", &taken.claim);
                if ending == Ending::Final {
                    self.judge.note_final_run(taken.writer);
                }
                self.process = Some(process);
                self.absorb()?;
                self.check_recovered()?;
                if std::mem::take(&mut self.is_rested) && self.random.chance(500) {
                    // Before any line is read.
                    return self.keep_lake();
                }
                Ok(())
            }
            Ended::Died => {
                self.die();
                Ok(())
            }
            Ended::Failed(error) if error.is_retryable() => Ok(()),
            // There is nothing to read, or the folder could not be listed.
            Ended::Failed(error) if ending != Ending::Never && error.kind() == ErrorKind::User => Ok(()),
            Ended::Failed(error) => Err(format!("a process cannot start: {}", error.report())),
        }
    }

    /// Checks the new records of the log. Only the owner may have written them.
    fn absorb(&mut self) -> Verdict {
        let disk = self.ground.disk.disk.lock();
        let before = self.judge.head();
        let writers = self.judge.absorb(&disk, &self.ground.tables, &self.scenario, &self.servers)?;
        drop(disk);
        let Some(taken) = self.process.as_ref().and_then(|process| process.taken.get(&PARTITION)) else {
            return Ok(());
        };
        let mut is_succeeded = false;
        for (number, writer) in (before + 1..).zip(writers) {
            let is_foreign = number > taken.claim && writer != taken.writer;
            if is_foreign && self.judge.is_claim(number) {
                // Its writer died, or gave up, while its claim was in progress.
                is_succeeded = true;
            } else if is_foreign || is_succeeded {
                let what = format!("epoch {number} was written by a process that had been succeeded");
                return Err(format!("{}: {what}", Invariant::LinearChain));
            }
        }
        if is_succeeded {
            self.zombies.extend(self.process.take());
            return Ok(());
        }
        self.judge.check_told(taken, &self.ground.tables)
    }

    /// Checks after a process has taken over.
    fn check_recovered(&self) -> Verdict {
        self.judge.check_kept(&self.ground.disk.disk.lock())?;
        self.judge.check_lake(&self.ground.tables)?;
        if self.ground.plant == Plant::Nothing {
            let owner =
                self.process.as_ref().and_then(|process| process.taken.get(&PARTITION)).map(|taken| taken.writer);
            if self.judge.writer() != owner {
                return Err(format!("{}: the newest record is not the owner's claim", Invariant::LinearChain));
            }
        }
        // Uses a store without faults.
        let machine = Machine::new(Random::new(0), false);
        let store = SimStore::new(self.ground.disk.clone(), self.ground.tables.clone(), machine, Plant::Nothing);
        let log = EpochLog::new(Arc::new(store), PARTITION);
        match self.ground.runtime.block_on(log.fold()) {
            Ok(Some(state)) => self.judge.check_fold(&state),
            Ok(None) => Err(format!("{}: the log is empty", Invariant::LinearChain)),
            Err(error) => Err(format!("the log cannot be folded: {}", error.report())),
        }
    }

    /// The process does some of its work.
    fn work(&mut self) -> Verdict {
        self.with_process(Process::work)
    }

    /// The process updates and maintains the lake.
    fn keep_lake(&mut self) -> Verdict {
        self.with_process(|process, random| {
            process.keep_lake(random);
            Ok(true)
        })?;
        self.check_files()
    }

    /// Lets the process run `does`, which returns whether the lake may have been updated, and checks the result.
    fn with_process(&mut self, does: impl FnOnce(&mut Process, &mut Random) -> Result<bool>) -> Verdict {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        match call(|| does(&mut process, &mut self.random)) {
            Ended::Well(_) if process.is_over() => self.end(process),
            Ended::Well(has_projected) => {
                self.process = Some(process);
                self.absorb()?;
                if has_projected { self.judge.check_lake(&self.ground.tables) } else { Ok(()) }
            }
            Ended::Died => {
                self.read = process.positions();
                self.die();
                Ok(())
            }
            Ended::Failed(error) => Err(error.report()),
        }
    }

    /// The lake's files must exist as long as they may be read.
    fn check_files(&self) -> Verdict {
        self.judge.check_lake(&self.ground.tables)?;
        self.judge.check_staged(&self.ground.disk.disk.lock(), &self.ground.tables)
    }
}
