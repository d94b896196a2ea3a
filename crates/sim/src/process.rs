//! One process: the real recovery, run, committers, projector and upkeep, turned by hand in random order.

use crate::files::Files;
use crate::lake::{ModelLake, SharedTables};
use crate::machine::Machine;
use crate::plant::Plant;
use crate::random::Random;
use crate::scenario::Scenario;
use crate::slot::{Slot, StopRequest};
use crate::store::{SharedDisk, SimStore};
use adtally_engine::clock::{Clock, Randomness};
use adtally_engine::engine::{Engine, Environment, Owned, Workers};
use adtally_engine::ingest::Turn;
use adtally_engine::life_cycle::Step;
use adtally_engine::project::Work;
use adtally_engine::recovery::{Recovered, take_over, warm};
use adtally_engine::report::Report;
use adtally_engine::run::{Run, Summary};
use adtally_engine::upkeep::Upkeep;
use adtally_engine::{Ending, RunOptions};
use adtally_model::{EpochNumber, Error, IdentityKey, InputId, PartitionState, Result, Watermark};
use adtally_pipeline::Partition;
use adtally_source::Source;
use adtally_store::embedded::HotPartitions;
use adtally_store::epoch_log::{EpochLog, EpochLogs, Fingerprints};
use adtally_store::hot_counts::HotCounts;
use adtally_store::lake::LakeStore;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The secret identity key of all deployments.
pub(crate) const KEY: [u8; 16] = *b"sixteen bytes ok";

/// Turns at a time of a bounded run or a stopping run. With fewer, most of them would die before their end.
const TURNS: usize = 16;

/// Turns within which a run must end once it has given up.
const TURNS_TO_GIVE_UP: usize = 400;

/// Turns within which a run asked to stop must end if nothing fails.
const TURNS_TO_STOP: usize = 10_000;

/// Time between two turns of a run that only stops, in milliseconds.
const STOPPING_MS: i64 = 20;

/// The environment of processes, which outlives them.
#[derive(Clone)]
pub(crate) struct Ground {
    pub(crate) machine: Machine,
    pub(crate) disk: SharedDisk,
    pub(crate) tables: SharedTables,
    pub(crate) files: Files,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) plant: Plant,
}

/// The state of a partition that a process has taken over.
pub(crate) struct Taken {
    slot: Slot,
    pub(crate) hot: Arc<HotCounts>,
    /// The process's id in records.
    pub(crate) writer: u128,
    /// The claim record.
    pub(crate) claim: EpochNumber,
    /// The final frontier at the takeover.
    pub(crate) final_before: Watermark,
}

impl Taken {
    /// Whether a submitted epoch is not committed, as far as the process knows.
    pub(crate) fn is_committing(&self) -> bool {
        !self.slot.is_idle()
    }
}

/// A process that takes over partitions.
pub(crate) struct Process {
    ground: Ground,
    run: Run<Slot>,
    stop: Arc<Mutex<StopRequest>>,
    logs: EpochLogs,
    lake: Arc<dyn LakeStore>,
    hot_minutes: u32,
    pub(crate) taken: BTreeMap<u32, Taken>,
    projecting: Work,
    upkeep: Arc<Upkeep>,
    /// Lines read per partition at the last turn that read.
    pub(crate) lines: BTreeMap<u32, u64>,
    /// Turns left to the process after it has given up.
    turns_to_give_up: usize,
    /// How its run ends.
    pub(crate) ending: Ending,
    /// When it began, by true time.
    pub(crate) began_ms: i64,
}

impl Process {
    /// Starts a process without partitions whose run ends as `ending` says.
    pub(crate) fn start(ground: &Ground, scenario: &Scenario, ending: Ending) -> Result<Process> {
        let machine = &ground.machine;
        let clock: Arc<dyn Clock> = Arc::new(machine.clone());
        let lake: Arc<dyn LakeStore> = Arc::new(ModelLake::new(ground.tables.clone(), machine.clone(), ground.plant));
        let store = SimStore::new(ground.disk.clone(), ground.tables.clone(), machine.clone(), ground.plant);
        let logs = EpochLogs::new(Arc::new(store));
        let environment = Environment {
            logs: logs.clone(),
            lake: Arc::clone(&lake),
            clock: Arc::clone(&clock),
            randomness: Arc::new(machine.clone()),
            runtime: ground.runtime.clone(),
            decode_threads: 0,
            report: Report::recovers(scenario.settings.time, clock),
            sources: None,
            keeper: Arc::default(),
            letters: None,
        };
        // A process dies before it has made that many attempts.
        let options = RunOptions { settings: scenario.settings.clone(), ending, attempts_max: u32::MAX };
        let (engine, Workers { projecting, upkeep }) =
            Engine::new(&options, IdentityKey::new(KEY), HotPartitions::default(), environment)?;
        let run = Run::new(engine);
        Ok(Process {
            ground: ground.clone(),
            stop: Arc::new(Mutex::new(StopRequest::new(machine.clone(), run.drain_timer()))),
            run,
            logs,
            lake,
            hot_minutes: scenario.settings.store.hot_minutes,
            taken: BTreeMap::new(),
            projecting,
            upkeep,
            lines: BTreeMap::new(),
            turns_to_give_up: TURNS_TO_GIVE_UP,
            ending,
            began_ms: machine.true_ms(),
        })
    }

    /// Takes over a partition, reading from the source that `source` creates for its state. `read` are positions that
    /// an earlier process had reached, for a planted bug.
    pub(crate) fn take(
        &mut self,
        partition: u32,
        read: &BTreeMap<InputId, u64>,
        source: impl FnOnce(&PartitionState) -> Result<Box<dyn Source>>,
    ) -> Result<()> {
        let Some(engine) = self.run.engine_mut() else { return Ok(()) };
        let (ground, lake, log) = (&self.ground, self.lake.as_ref(), self.logs.log(partition));
        let machine = &ground.machine;
        let fingerprints = Fingerprints { config: 1, key: IdentityKey::new(KEY).fingerprint() };
        let (writer, fresh) = (machine.next_u128(), machine.next_u128());
        let mut recovered = match ground.plant {
            Plant::ClaimForgotten => without_claim(ground, &log, lake, (writer, fresh), fingerprints)?,
            _ => ground.runtime.block_on(take_over(&log, lake, writer, fresh, fingerprints))?,
        };
        let (hot, older) = warm(&mut recovered, self.hot_minutes, machine.wall_ms());
        if let Some(mut older) = older {
            ground.runtime.block_on(older.load(&hot, lake))?;
        }
        spoil(ground, &log, &mut recovered.state, read)?;
        let (claim, final_before) = (recovered.state.progress.number, recovered.state.progress.frontiers.final_);
        let source = source(&recovered.state)?;
        let mut slot = None;
        let owned = Owned { log, recovered, hot: Arc::clone(&hot), source, confirm: None };
        engine.add(owned, |committer| {
            let new = Slot::new(committer, machine.clone(), ground.plant, Arc::clone(&self.stop));
            Ok(slot.insert(new).clone())
        })?;
        if ground.plant == Plant::UnopenedReleased {
            engine.partitions_mut().for_each(Partition::release_unopened);
        }
        if let Some(slot) = slot {
            self.taken.insert(partition, Taken { slot, hot, writer, claim, final_before });
        }
        Ok(())
    }

    /// Gives up a partition: commits its current epoch, or drops it. A process that has read everything or is stopping
    /// keeps the partition to its end.
    pub(crate) fn give_up(&mut self, partition: u32, commits: bool) -> Result<()> {
        let Some(engine) = self.run.engine_mut() else { return Ok(()) };
        if commits {
            engine.stop()?;
            self.taken.values_mut().try_for_each(|taken| taken.slot.commit_all())?;
        }
        engine.remove(partition);
        self.taken.remove(&partition);
        self.lines.remove(&partition);
        Ok(())
    }

    /// Asks the process to stop at a true time.
    pub(crate) fn ask_to_stop_at(&self, at_ms: i64) {
        self.stop.lock().ask_at(at_ms);
    }

    /// Whether the process is, or will be, asked to stop.
    pub(crate) fn is_to_stop(&self) -> bool {
        self.stop.lock().is_planned()
    }

    /// Whether the process has given up what it could not commit or project in time.
    pub(crate) fn gave_up(&self) -> bool {
        self.stop.lock().gave_up
    }

    /// Whether the process still reads.
    pub(crate) fn is_reading(&self) -> bool {
        self.run.engine().is_some()
    }

    /// Whether the run is over.
    pub(crate) fn is_over(&self) -> bool {
        self.run.step() == Step::Over
    }

    /// The result of the run.
    pub(crate) fn summary(&mut self) -> Result<Summary> {
        self.run.take_summary()
    }

    /// Turns the run itself once.
    pub(crate) fn turn(&mut self) -> Turn {
        let is_asked = self.stop.lock().look();
        if self.ground.plant == Plant::ProjectorClosedEarly && self.run.step() == Step::Commit {
            self.run.projector().close();
        }
        if let Some(engine) = self.run.engine() {
            self.lines = engine.partitions().map(|partition| (partition.number(), partition.ledger().read)).collect();
        }
        self.run.turn(is_asked)
    }

    /// Encodes and records waiting epochs as far as possible.
    pub(crate) fn commit(&self) {
        self.stop.lock().look();
        for taken in self.taken.values() {
            taken.slot.turn();
        }
    }

    /// Turns the projector once.
    pub(crate) fn project(&mut self) -> Turn {
        self.stop.lock().look();
        self.projecting.turn()
    }

    /// Updates the lake. Then maintains it, unless this is left to the end of the run: does all work, or only the work due.
    /// Failures are reported and harmless.
    pub(crate) fn keep_lake(&mut self, random: &mut Random) {
        self.project();
        self.project();
        // Reads the clock.
        self.turn();
        let does_all = random.below(2) == 0;
        if self.ending.is_bounded() {
            return;
        }
        if does_all && self.is_reading() {
            self.upkeep.do_all();
        } else {
            self.upkeep.turn();
        }
    }

    /// Does some work, turning its parts in random order. Returns whether the lake may have been updated.
    pub(crate) fn work(&mut self, random: &mut Random) -> Result<bool> {
        let turns = if self.is_reading() && self.ending == Ending::Never { 1 } else { TURNS };
        let mut has_projected = false;
        for _ in 0..turns {
            match random.below(10) {
                0..=4 => drop(self.turn()),
                5..=6 => self.commit(),
                7..=8 => {
                    for taken in self.taken.values() {
                        match random.below(3) {
                            0 => drop(taken.slot.encode()),
                            1 => drop(taken.slot.record()),
                            _ => {}
                        }
                    }
                }
                _ => has_projected |= self.project() == Turn::Worked,
            }
            if self.is_over() {
                break;
            }
            self.turns_to_give_up -= usize::from(self.gave_up());
            if self.turns_to_give_up == 0 {
                return Err(Error::internal("a run goes on although its time to stop is over"));
            }
        }
        Ok(has_projected)
    }

    /// Asks the process to stop, and turns it until it is over.
    pub(crate) fn work_until_stopped(&mut self, random: &mut Random) -> Result<()> {
        self.ask_to_stop_at(self.ground.machine.true_ms());
        for _ in 0..TURNS_TO_STOP {
            if self.is_over() {
                return Ok(());
            }
            self.work(random)?;
            self.ground.machine.advance(STOPPING_MS);
        }
        Err(Error::internal("a run does not stop"))
    }

    /// How far each input is judged, while the process reads.
    pub(crate) fn positions(&self) -> BTreeMap<InputId, u64> {
        let inputs = self.run.engine().into_iter().flat_map(Engine::partitions).flat_map(|of| of.inputs().iter());
        inputs.map(|input| (input.row.id, input.row.position().to)).collect()
    }
}

/// A planted bug: recovers and continues without a claim. The claim is created on a disk that nobody else sees.
fn without_claim(
    ground: &Ground,
    log: &EpochLog,
    lake: &dyn LakeStore,
    (writer, fresh): (u128, u128),
    fingerprints: Fingerprints,
) -> Result<Recovered> {
    let Some(state) = ground.runtime.block_on(log.fold())? else {
        return ground.runtime.block_on(take_over(log, lake, writer, fresh, fingerprints));
    };
    let aside = SimStore::new(ground.disk.fork(), ground.tables.clone(), ground.machine.clone(), Plant::Nothing);
    let aside = EpochLog::new(Arc::new(aside), log.partition());
    let mut recovered = ground.runtime.block_on(take_over(&aside, lake, writer, fresh, fingerprints))?;
    recovered.waiting.retain(|waiting| waiting.pending.epoch <= state.progress.number);
    recovered.writer = log.writer_after(&state, writer, fingerprints);
    recovered.state = state;
    Ok(recovered)
}

/// Plants bugs of recovery.
fn spoil(ground: &Ground, log: &EpochLog, state: &mut PartitionState, read: &BTreeMap<InputId, u64>) -> Result<()> {
    match ground.plant {
        Plant::IdentitiesForgotten if state.progress.number > 1 => {
            let last = ground.runtime.block_on(log.read(state.progress.number - 1))?;
            for forgotten in last.iter().flat_map(|(epoch, _)| &epoch.identities) {
                if let Some(folded) = state.live.get_mut(&forgotten.minute) {
                    folded.identities.retain(|identity| !forgotten.identities.contains(identity));
                }
            }
        }
        Plant::PositionBeforeCommit => {
            for row in state.inputs.values_mut() {
                if let Some(&to) = read.get(&row.id) {
                    let row = Arc::make_mut(row);
                    if let Some(file) = row.file_mut() {
                        file.position.to = file.position.to.max(to);
                    }
                }
            }
        }
        _ => {}
    }
    Ok(())
}
