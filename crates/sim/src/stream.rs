//! The simulated world of a stream: agents produce records, partitions move between two processes, and everything is
//! checked continuously.

use crate::files::Files;
use crate::judge::{Judge, Verdict};
use crate::lake::SharedTables;
use crate::machine::{Luck, Machine};
use crate::plant::Plant;
use crate::process::{Ground, Process};
use crate::random::Random;
use crate::scenario::Scenario;
use crate::servers::Servers;
use crate::store::{SharedDisk, SimStore};
use crate::topics::Topics;
use crate::world::{Ended, Outcome, ask_to_stop, call, outcome_of};
use adtally_engine::Ending;
use adtally_model::{ErrorKind, Invariant};
use adtally_store::epoch_log::EpochLog;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Processes that share the partitions.
const WORKERS: usize = 2;

/// Steps within which a simulation must end.
const STEPS_MAX: usize = 60_000;

/// Once everything is written and nothing fails, the time without new lines after which all is considered read, in
/// milliseconds, in addition to twice the idle timeout.
const SETTLE_MS: i64 = 90_000;

/// Added to the seed, so that the world of a stream differs from the world of files with the same seed.
const STREAM: u64 = 0x7374_7265_616d;

/// The world of one seed.
struct Stream {
    scenario: Scenario,
    random: Random,
    ground: Ground,
    topics: Topics,
    servers: Servers,
    /// One judge per partition.
    judges: Vec<Judge>,
    /// The last claimant of each partition.
    owners: Vec<Option<u128>>,
    /// The worker to which each partition is assigned.
    assigned: Vec<usize>,
    workers: [Option<Process>; WORKERS],
    /// Where each partition ends for the bounded run that took it last.
    ends: Vec<u64>,
    outcome: Outcome,
    /// Whether more than a day has passed without events since the last process.
    is_rested: bool,
}

/// Simulates a seed with a topic of `partitions` partitions. With `tells`, prints events to stdout.
pub fn simulate_stream(seed: u64, partitions: u32, plant: Plant, tells: bool) -> Outcome {
    outcome_of(seed, |runtime| {
        let mut stream = Stream::new(seed, partitions, plant, tells, runtime);
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| stream.run()));
        let epochs = stream.judges.iter().map(Judge::head).sum();
        let outcome = Outcome { epochs, lines: stream.servers.lines.len() as u64, ..stream.outcome };
        (ended, outcome, stream.ground.machine.clone())
    })
}

impl Stream {
    fn new(seed: u64, partitions: u32, plant: Plant, tells: bool, runtime: tokio::runtime::Handle) -> Stream {
        let mut random = Random::new(seed ^ STREAM);
        let mut scenario = Scenario::new(seed, &mut random);
        // There are no files to rotate.
        (scenario.rotations, scenario.deletes_unread) = (1, false);
        let machine = Machine::new(random.fork(), tells);
        machine.note("scenario", &format!("{scenario:?}"));
        let has_foreign_agent = random.chance(300);
        let topics =
            Topics::new(partitions, scenario.servers, has_foreign_agent, scenario.settings.time, machine.clone());
        let servers = Servers::new(&scenario, Some(topics.clone()), random.fork(), machine.true_ms());
        let files = Files::new(machine.clone());
        let (disk, tables) = (SharedDisk::default(), SharedTables::default());
        Stream {
            random,
            ground: Ground { machine, disk, tables, files, runtime, plant },
            scenario,
            topics,
            servers,
            judges: (0..partitions).map(Judge::new).collect(),
            owners: vec![None; partitions as usize],
            assigned: (0..partitions as usize).map(|at| at % WORKERS).collect(),
            workers: Default::default(),
            ends: vec![0; partitions as usize],
            outcome: Outcome { seed, ..Outcome::default() },
            is_rested: false,
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
            _ => self.random.between(5, 1_000),
        };
        self.ground.machine.advance(ms);
        self.servers.act(&self.scenario, &self.ground.files, self.ground.machine.true_ms());
        self.topics.linger(false, &mut self.random);
        if self.random.chance(self.scenario.clock_jumps) {
            let day = 86_400_000;
            let skew_ms = self.random.pick(&[0, 0, day, -day, 90_000, -90_000]);
            self.ground.machine.note("the clock is off by", &skew_ms);
            self.ground.machine.set_skew(skew_ms);
        }
        if self.random.chance(50) {
            self.ground.disk.catch_up();
        }
        let worker = self.random.below(WORKERS as u64) as usize;
        if self.random.chance(10) {
            return self.rebalance();
        }
        if self.workers[worker].is_none() {
            let is_assigned = self.assigned.contains(&worker);
            let ending = if is_assigned { self.scenario.next_ending(&mut self.random) } else { Ending::Never };
            return self.start(worker, ending);
        }
        if !self.is_bounded(worker) && self.takes_partition(worker)? {
            return Ok(());
        }
        if self.random.chance(self.scenario.stops)
            && let Some(process) = self.workers[worker].as_ref().filter(|process| !process.is_to_stop())
        {
            self.outcome.stops += 1;
            ask_to_stop(process, &self.scenario, &self.ground.machine, &mut self.random);
        }
        if self.random.chance(self.scenario.upkeep) {
            return self.keep_lake(worker);
        }
        self.work(worker)
    }

    /// A process starts. A bounded run takes all its partitions at once, because it ends with them.
    fn start(&mut self, worker: usize, ending: Ending) -> Verdict {
        self.ground.machine.note("starts", &format!("{worker} {ending:?}"));
        match call(|| Process::start(&self.ground, &self.scenario, ending)) {
            Ended::Well(process) => {
                self.outcome.starts += 1;
                self.workers[worker] = Some(process);
                while ending.is_bounded() && self.takes_partition(worker)? {}
                Ok(())
            }
            Ended::Died => self.die(worker),
            Ended::Failed(error) => Err(format!("a process cannot start: {}", error.report())),
        }
    }

    fn is_bounded(&self, worker: usize) -> bool {
        self.workers[worker].as_ref().is_some_and(|process| process.ending.is_bounded())
    }

    /// A process takes over a partition that is assigned to it but not yet taken. Returns whether there was one.
    fn takes_partition(&mut self, worker: usize) -> Verdict<bool> {
        let Some(mut process) = self.workers[worker].take() else { return Ok(false) };
        let is_missing =
            |&partition: &usize| self.assigned[partition] == worker && !process.taken.contains_key(&(partition as u32));
        let Some(partition) = (0..self.judges.len()).find(is_missing).filter(|_| process.is_reading()) else {
            self.workers[worker] = Some(process);
            return Ok(false);
        };
        self.ground.machine.note("takes partition", &format!("{partition} by {worker}"));
        let (topics, number) = (self.topics.clone(), partition as u32);
        let end = process.ending.is_bounded().then(|| topics.end(number));
        let taken = call(|| process.take(number, &BTreeMap::new(), |state| Ok(topics.source(number, state, end))));
        match taken {
            Ended::Well(()) => {
                self.ends[partition] = end.unwrap_or_default();
                if let Some(taken) = process.taken.get(&number).filter(|_| process.ending == Ending::Final) {
                    self.judges[partition].note_final_run(taken.writer);
                }
                self.workers[worker] = Some(process);
                self.absorb(partition)?;
                self.check_recovered(partition)?;
                if std::mem::take(&mut self.is_rested) {
                    // Before any line is read.
                    self.keep_lake(worker)?;
                }
            }
            Ended::Died => self.die(worker)?,
            Ended::Failed(error) if error.is_retryable() => self.workers[worker] = Some(process),
            Ended::Failed(error) => return Err(format!("partition {partition} cannot be taken: {}", error.report())),
        }
        Ok(true)
    }

    /// Moves a partition to another process. Its owner commits what it has read, drops it, or does not notice. A
    /// bounded run never notices.
    fn rebalance(&mut self) -> Verdict {
        let partition = self.random.below(self.judges.len() as u64) as usize;
        let (from, to) = (self.assigned[partition], self.random.below(WORKERS as u64) as usize);
        self.ground.machine.note("is assigned", &format!("{partition} from {from} to {to}"));
        self.assigned[partition] = to;
        let how = self.random.below(3);
        let Some(mut process) = self.workers[from].take() else { return Ok(()) };
        if from == to || how == 0 || process.ending.is_bounded() || !process.taken.contains_key(&(partition as u32)) {
            self.outcome.zombies += u64::from(from != to);
            self.workers[from] = Some(process);
            return Ok(());
        }
        match call(|| process.give_up(partition as u32, how == 1)) {
            Ended::Well(()) => {
                self.workers[from] = Some(process);
                self.absorb_of(from)?;
                self.absorb(partition)
            }
            Ended::Died => self.die(from),
            Ended::Failed(error) => self.failed(from, &process, &error),
        }
    }

    /// A stopped owner must have given up, or have been succeeded.
    fn failed(&mut self, worker: usize, process: &Process, error: &adtally_model::Error) -> Verdict {
        if process.gave_up() && error.is_retryable() {
            return Ok(());
        }
        let disk = self.ground.disk.disk.lock();
        let is_succeeded = process
            .taken
            .iter()
            .any(|(&partition, taken)| self.judges[partition as usize].newest_writer(&disk) != Some(taken.writer));
        if error.kind() == ErrorKind::Fenced && is_succeeded {
            self.ground.machine.note("is fenced", &worker);
            return Ok(());
        }
        Err(format!("an owner stops: {}", error.report()))
    }

    /// Checks the records written by a process as committed. After a death, a power loss may still remove records until
    /// another record follows them.
    fn absorb_of(&mut self, worker: usize) -> Verdict {
        let partitions: Vec<u32> =
            self.workers[worker].iter().flat_map(|process| process.taken.keys()).copied().collect();
        partitions.into_iter().try_for_each(|partition| self.absorb(partition as usize))
    }

    /// Checks the new records of a log. Only its owner may have written them.
    fn absorb(&mut self, partition: usize) -> Verdict {
        let judge = &mut self.judges[partition];
        let before = judge.head();
        let disk = self.ground.disk.disk.lock();
        let writers = judge.absorb(&disk, &self.ground.tables, &self.scenario, &self.servers)?;
        drop(disk);
        for (number, writer) in (before + 1..).zip(writers) {
            if judge.is_claim(number) {
                self.owners[partition] = Some(writer);
            } else if self.owners[partition] != Some(writer) {
                let what = format!("epoch {number} of partition {partition} is of a process that was succeeded");
                return Err(format!("{}: {what}", Invariant::LinearChain));
            }
        }
        for process in self.workers.iter().flatten() {
            let taken = process.taken.get(&(partition as u32));
            if let Some(taken) = taken.filter(|taken| self.owners[partition] == Some(taken.writer)) {
                judge.check_told(taken, &self.ground.tables)?;
            }
        }
        Ok(())
    }

    fn check_recovered(&self, partition: usize) -> Verdict {
        let judge = &self.judges[partition];
        judge.check_kept(&self.ground.disk.disk.lock())?;
        judge.check_lake(&self.ground.tables)?;
        // Uses a store without faults.
        let machine = Machine::new(Random::new(0), false);
        let store = SimStore::new(self.ground.disk.clone(), self.ground.tables.clone(), machine, Plant::Nothing);
        let log = EpochLog::new(Arc::new(store), partition as u32);
        match self.ground.runtime.block_on(log.fold()) {
            Ok(Some(state)) => judge.check_fold(&state),
            Ok(None) => Err(format!("{}: the log is empty", Invariant::LinearChain)),
            Err(error) => Err(format!("the log cannot be folded: {}", error.report())),
        }
    }

    /// A process does some of its work.
    fn work(&mut self, worker: usize) -> Verdict {
        self.with(worker, Process::work)
    }

    /// A process updates and maintains the lake.
    fn keep_lake(&mut self, worker: usize) -> Verdict {
        self.with(worker, |process, random| {
            process.keep_lake(random);
            Ok(true)
        })?;
        let disk = self.ground.disk.disk.lock();
        self.judges.iter().try_for_each(|judge| judge.check_staged(&disk, &self.ground.tables))
    }

    /// Lets a process run `does`, which returns whether the lake may have been updated, and checks the result.
    fn with(
        &mut self,
        worker: usize,
        does: impl FnOnce(&mut Process, &mut Random) -> adtally_model::Result<bool>,
    ) -> Verdict {
        let Some(mut process) = self.workers[worker].take() else { return Ok(()) };
        match call(|| does(&mut process, &mut self.random)) {
            Ended::Well(has_projected) => {
                self.workers[worker] = Some(process);
                self.absorb_of(worker)?;
                if has_projected {
                    self.check_lake()?;
                }
                self.end_if_over(worker)
            }
            Ended::Died => self.die(worker),
            Ended::Failed(error) => Err(error.report()),
        }
    }

    /// A finished process must have committed what it read, given up or been fenced.
    fn end_if_over(&mut self, worker: usize) -> Verdict {
        let Some(mut process) = self.workers[worker].take_if(|process| process.is_over()) else { return Ok(()) };
        let gave_up = process.gave_up();
        self.ground.machine.note("is over; gave up:", &gave_up);
        self.outcome.given_up += u64::from(gave_up);
        match process.summary() {
            Ok(summary) => {
                self.outcome.bounded += u64::from(!summary.interrupted);
                for (&partition, &lines) in &process.lines {
                    let owner = self.owners[partition as usize];
                    if process.taken.get(&partition).is_none_or(|taken| owner != Some(taken.writer)) {
                        continue;
                    }
                    let judge = &self.judges[partition as usize];
                    judge.check_stopped(lines, gave_up, &self.ground.tables)?;
                    if !summary.interrupted {
                        let readable = self.topics.lines_before(partition, self.ends[partition as usize]);
                        judge.check_bounded(&process, &summary.unread, &self.servers, &readable)?;
                    }
                }
            }
            Err(error) => self.failed(worker, &process, &error)?,
        }
        self.rest();
        self.check_lake()
    }

    fn check_lake(&mut self) -> Verdict {
        for partition in 0..self.judges.len() {
            // A process may have died while its last record was projected: that record is then permanent.
            if self.ground.tables.held_by_one(partition as u32) > self.judges[partition].head() {
                self.absorb(partition)?;
            }
            self.judges[partition].check_lake(&self.ground.tables)?;
        }
        Ok(())
    }

    /// A process dies, and perhaps the machine that runs all processes loses power.
    fn die(&mut self, worker: usize) -> Verdict {
        self.workers[worker] = None;
        if self.random.chance(self.scenario.power_losses) {
            self.outcome.power_losses += 1;
            self.ground.machine.note("power is lost", &"");
            self.ground.disk.lose_power(&mut self.random);
            self.workers = Default::default();
        }
        if self.random.chance(200) {
            let ms = self.random.between(0, 300_000);
            self.ground.machine.advance(ms);
        }
        self.rest();
        Ok(())
    }

    /// Sometimes lets more than a day pass without events, only while no process runs.
    fn rest(&mut self) {
        if self.workers.iter().all(Option::is_none) && self.random.chance(self.scenario.nights) {
            let ms = self.random.between(25, 40) * 3_600_000;
            self.ground.machine.note("nothing happens for", &ms);
            // No write takes that long.
            self.ground.disk.catch_up();
            self.ground.machine.advance(ms);
            self.servers.rest(ms);
            self.is_rested = true;
        }
    }

    /// With everything written and no more faults, the processes must read everything.
    fn settle(&mut self) -> Verdict {
        self.ground.machine.note("settles", &"");
        self.ground.machine.set_luck(Luck::default());
        self.ground.machine.set_skew(0);
        self.ground.disk.catch_up();
        self.topics.linger(true, &mut self.random);
        // Processes that were succeeded would be fenced if they continued.
        self.workers = Default::default();
        for worker in 0..WORKERS {
            self.start(worker, Ending::Never)?;
            while self.takes_partition(worker)? {}
        }
        let quiet_ms = SETTLE_MS + 2 * self.scenario.settings.time.idle_timeout_ms;
        let read = |judges: &[Judge]| -> u64 { judges.iter().map(Judge::read).sum() };
        let (mut last, mut since_ms) = (read(&self.judges), self.ground.machine.true_ms());
        while self.ground.machine.true_ms() - since_ms < quiet_ms {
            for worker in 0..WORKERS {
                self.with(worker, |process, _| {
                    process.turn();
                    process.commit();
                    Ok(false)
                })?;
            }
            if read(&self.judges) > last {
                (last, since_ms) = (read(&self.judges), self.ground.machine.true_ms());
            }
            self.ground.machine.advance(500);
        }
        for worker in 0..WORKERS {
            self.with(worker, |process, random| process.work_until_stopped(random).map(|()| true))?;
        }
        let disk = self.ground.disk.disk.lock();
        for (partition, judge) in self.judges.iter().enumerate() {
            let held = self.ground.tables.held_by_all(partition as u32);
            if held != judge.head() {
                let what = format!("the lake holds epoch {held}, log {partition} ends at {}", judge.head());
                return Err(format!("{}: {what}", Invariant::LakeEqualsLog));
            }
            judge.check_kept(&disk)?;
            judge.check_end(&self.servers)?;
        }
        Ok(())
    }
}
