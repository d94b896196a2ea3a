//! One process: the real recovery, run loop, committer and projector, turned by hand.

use crate::files::Files;
use crate::lake::{ModelLake, SharedTables};
use crate::machine::Machine;
use crate::plant::Plant;
use crate::scenario::Scenario;
use crate::store::{SharedDisk, SimStore};
use adtally_engine::clock::{Clock, Randomness};
use adtally_engine::commit::Committer;
use adtally_engine::engine::{Engine, Environment, Owned, Workers};
use adtally_engine::ingest::{EpochSink, Turn};
use adtally_engine::project::{Waiting, Work};
use adtally_engine::recovery::{Recovered, take_over, warm};
use adtally_engine::report::Report;
use adtally_engine::upkeep::Upkeep;
use adtally_engine::{Ending, RunOptions};
use adtally_model::{EpochNumber, IdentityKey, InputId, PartitionState, Result, Watermark};
use adtally_pipeline::{EpochDraft, Partition};
use adtally_source::Source;
use adtally_store::embedded::HotPartitions;
use adtally_store::epoch_log::{EpochLog, EpochLogs, Fingerprints};
use adtally_store::hot_counts::HotCounts;
use adtally_store::lake::LakeStore;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The secret of all deployments.
const KEY: [u8; 16] = *b"sixteen bytes ok";

/// Turns of a bounded run at a time.
const BOUNDED_TURNS: usize = 5;

/// What processes run on, which outlives them.
#[derive(Clone)]
pub(crate) struct Ground {
    pub(crate) machine: Machine,
    pub(crate) disk: SharedDisk,
    pub(crate) tables: SharedTables,
    pub(crate) files: Files,
    pub(crate) runtime: tokio::runtime::Handle,
    pub(crate) plant: Plant,
}

/// The committer without its thread: one epoch may wait for it while the next is built.
struct Desk {
    committer: Committer,
    draft: Option<EpochDraft>,
    machine: Machine,
}

#[derive(Clone)]
struct Slot(Arc<Mutex<Desk>>);

impl Slot {
    fn commit(&self) -> Result<bool> {
        let mut desk = self.0.lock();
        let Some(draft) = desk.draft.take() else { return Ok(false) };
        desk.machine.crash_point("before a commit", 1);
        desk.committer.commit(draft)?;
        desk.machine.crash_point("after a commit", 1);
        Ok(true)
    }
}

impl EpochSink for Slot {
    fn is_ready(&self) -> bool {
        self.0.lock().draft.is_none()
    }

    fn submit(&mut self, draft: EpochDraft) -> Result<()> {
        self.commit()?;
        self.0.lock().draft = Some(draft);
        Ok(())
    }
}

/// What a process knows of a partition that it took.
pub(crate) struct Taken {
    slot: Slot,
    pub(crate) hot: Arc<HotCounts>,
    /// The process's id in records.
    pub(crate) writer: u128,
    /// The record by which it took over.
    pub(crate) claim: EpochNumber,
    /// The final frontier when it took over.
    pub(crate) final_before: Watermark,
}

/// A process, which takes partitions over.
pub(crate) struct Process {
    ground: Ground,
    engine: Engine<Slot>,
    logs: EpochLogs,
    lake: Arc<dyn LakeStore>,
    hot_minutes: u32,
    pub(crate) taken: BTreeMap<u32, Taken>,
    work: Work,
    upkeep: Arc<Upkeep>,
    /// What was to be projected when projecting began: commits may come between.
    projecting: Option<Vec<Waiting>>,
    /// How it ends.
    pub(crate) ending: Ending,
    /// When it began, by the true time.
    pub(crate) began_ms: i64,
}

impl Process {
    /// Starts a process without partitions, to end as `ending` says.
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
        };
        // A process dies before it has tried as often as that.
        let options = RunOptions { settings: scenario.settings.clone(), ending, attempts_max: u32::MAX };
        let (engine, Workers { projecting: work, upkeep }) =
            Engine::new(&options, IdentityKey::new(KEY), HotPartitions::default(), environment)?;
        Ok(Process {
            ground: ground.clone(),
            engine,
            logs,
            lake,
            hot_minutes: scenario.settings.store.hot_minutes,
            taken: BTreeMap::new(),
            work,
            upkeep,
            projecting: None,
            ending,
            began_ms: machine.true_ms(),
        })
    }

    /// Takes a partition over, to read what `source` makes of its state. `read` are positions up to which an earlier process
    /// had read, for a planted bug.
    pub(crate) fn take(
        &mut self,
        partition: u32,
        read: &BTreeMap<InputId, u64>,
        source: impl FnOnce(&PartitionState) -> Result<Box<dyn Source>>,
    ) -> Result<()> {
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
        let owned = Owned { log, recovered, hot: Arc::clone(&hot), source };
        self.engine.add(owned, |committer| {
            let desk = Desk { committer, draft: None, machine: machine.clone() };
            Ok(slot.insert(Slot(Arc::new(Mutex::new(desk)))).clone())
        })?;
        if ground.plant == Plant::UnopenedReleased {
            self.engine.partitions_mut().for_each(Partition::release_unopened);
        }
        if let Some(slot) = slot {
            self.taken.insert(partition, Taken { slot, hot, writer, claim, final_before });
        }
        Ok(())
    }

    /// Gives a partition up, in good order or as if nothing of its last epoch had been read.
    pub(crate) fn give_up(&mut self, partition: u32, commits: bool) -> Result<()> {
        if commits {
            self.engine.stop()?;
            self.commit()?;
        }
        self.engine.remove(partition);
        self.taken.remove(&partition);
        Ok(())
    }

    /// Turns the run loop once.
    pub(crate) fn turn(&mut self) -> Result<Turn> {
        self.engine.turn()
    }

    /// The same, several times where the run is bounded: else most of them would die before they are over.
    pub(crate) fn turns(&mut self) -> Result<Turn> {
        let turns = if self.ending == Ending::Never { 1 } else { BOUNDED_TURNS };
        let mut turn = Turn::Nothing;
        for _ in 0..turns {
            turn = self.turn()?;
            if turn == Turn::Finished {
                break;
            }
            self.commit()?;
        }
        Ok(turn)
    }

    /// Commits the epochs that wait; says whether there was one.
    pub(crate) fn commit(&mut self) -> Result<bool> {
        let mut committed = false;
        for taken in self.taken.values() {
            committed |= taken.slot.commit()?;
        }
        Ok(committed)
    }

    /// Takes up what is to be projected, or projects what was taken up; says whether the lake was brought on.
    pub(crate) fn project(&mut self) -> Result<bool> {
        let Some(waiting) = self.projecting.take() else {
            self.projecting = Some(self.work.waiting()).filter(|waiting| !waiting.is_empty());
            return Ok(false);
        };
        match self.work.project(&waiting) {
            Ok(()) => Ok(true),
            // As the projector's thread does: again, later.
            Err(error) if error.is_retryable() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Keeps the lake in order; what fails is told, and does no harm.
    pub(crate) fn keep_lake(&self) {
        self.upkeep.do_all();
    }

    /// Stops in good order: commits what was read and projects it.
    pub(crate) fn stop(&mut self) -> Result<()> {
        self.engine.stop()?;
        self.finish()
    }

    /// What a bounded run left unread.
    pub(crate) fn unread(&self) -> Vec<String> {
        self.engine.unread()
    }

    /// Commits the last epochs and projects everything.
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.commit()?;
        self.projecting = None;
        while !self.work.waiting().is_empty() {
            self.project()?;
        }
        if self.ending.is_bounded() {
            self.keep_lake();
        }
        Ok(())
    }

    /// Up to where it has judged each input.
    pub(crate) fn positions(&self) -> BTreeMap<InputId, u64> {
        let inputs = self.engine.partitions().flat_map(|partition| partition.inputs().iter());
        inputs.map(|input| (input.row.id, input.row.position().to)).collect()
    }
}

/// A planted bug: recovers and goes on without a claim. The claim is created on a disk that nobody else sees.
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
