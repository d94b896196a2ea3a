//! One process: the real recovery, run loop, committer and projector, turned by hand.

use crate::files::Files;
use crate::lake::{ModelLake, SharedTables};
use crate::machine::Machine;
use crate::plant::Plant;
use crate::scenario::Scenario;
use crate::store::{SharedDisk, SimStore};
use adtally_engine::assembly::{Assembly, Environment};
use adtally_engine::clock::{Clock, Randomness};
use adtally_engine::commit::Committer;
use adtally_engine::ingest::{EpochSink, Ingest, Turn};
use adtally_engine::project::{Waiting, Work};
use adtally_engine::recovery::{Recovered, take_over, warm};
use adtally_engine::report::Report;
use adtally_engine::upkeep::Upkeep;
use adtally_engine::{Ending, RunOptions};
use adtally_model::{EpochNumber, IdentityKey, InputId, PartitionState, Result, Watermark};
use adtally_pipeline::EpochDraft;
use adtally_store::epoch_log::{EpochLog, Fingerprints};
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

/// A process that has taken over.
pub(crate) struct Process {
    ingest: Ingest<Slot>,
    slot: Slot,
    work: Work,
    upkeep: Upkeep,
    /// What was to be projected when projecting began: commits may come between.
    projecting: Option<Vec<Waiting>>,
    pub(crate) hot: Arc<HotCounts>,
    /// Its id in records.
    pub(crate) writer: u128,
    /// The record by which it took over.
    pub(crate) claim: EpochNumber,
    /// How it ends.
    pub(crate) ending: Ending,
    /// When it took over, by the true time.
    pub(crate) began_ms: i64,
    /// The final frontier when it took over.
    pub(crate) final_before: Watermark,
}

impl Process {
    /// Starts a process as [`adtally_engine::Service`] does, to end as `ending` says. `read` are positions up to which an
    /// earlier process had read, for a planted bug.
    pub(crate) fn start(
        ground: &Ground,
        scenario: &Scenario,
        ending: Ending,
        read: &BTreeMap<InputId, u64>,
    ) -> Result<Process> {
        let machine = &ground.machine;
        let began_ms = machine.true_ms();
        let clock: Arc<dyn Clock> = Arc::new(machine.clone());
        let lake: Arc<dyn LakeStore> = Arc::new(ModelLake::new(ground.tables.clone(), machine.clone(), ground.plant));
        let store = SimStore::new(ground.disk.clone(), ground.tables.clone(), machine.clone(), ground.plant);
        let log = EpochLog::new(Arc::new(store), 0);
        let key = IdentityKey::new(KEY);
        let fingerprints = Fingerprints { config: 1, key: key.fingerprint() };
        let (writer, fresh) = (machine.next_u128(), machine.next_u128());
        let mut recovered = match ground.plant {
            Plant::ClaimForgotten => without_claim(ground, &log, lake.as_ref(), (writer, fresh), fingerprints)?,
            _ => ground.runtime.block_on(take_over(&log, lake.as_ref(), writer, fresh, fingerprints))?,
        };
        let (hot, older) = warm(&mut recovered, scenario.settings.store.hot_minutes, machine.wall_ms());
        if let Some(mut older) = older {
            ground.runtime.block_on(older.load(&hot, lake.as_ref()))?;
        }
        spoil(ground, &log, &mut recovered.state, read)?;
        let (claim, final_before) = (recovered.state.progress.number, recovered.state.progress.frontiers.final_);
        let environment = Environment {
            log,
            lake,
            files: Box::new(ground.files.clone()),
            clock: Arc::clone(&clock),
            randomness: Arc::new(machine.clone()),
            runtime: ground.runtime.clone(),
            decode_threads: 0,
            report: Report::recovers(scenario.settings.time, clock),
        };
        // A process dies before it has tried as often as that.
        let options = RunOptions { settings: scenario.settings.clone(), ending, attempts_max: u32::MAX };
        let assembly = Assembly::new(&options, key, recovered, Arc::clone(&hot), environment)?;
        let Assembly { mut reading, committer, projecting: work, upkeep, .. } = assembly;
        if ground.plant == Plant::UnopenedReleased {
            reading.partition.release_unopened();
        }
        let slot = Slot(Arc::new(Mutex::new(Desk { committer, draft: None, machine: machine.clone() })));
        let ingest = Ingest::new(reading, slot.clone());
        Ok(Process { ingest, slot, work, upkeep, projecting: None, hot, writer, claim, ending, began_ms, final_before })
    }

    /// Turns the run loop once.
    pub(crate) fn turn(&mut self) -> Result<Turn> {
        self.ingest.turn()
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

    /// Commits the epoch that waits; says whether there was one.
    pub(crate) fn commit(&mut self) -> Result<bool> {
        self.slot.commit()
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
        self.ingest.stop()?;
        self.finish()
    }

    /// What a bounded run left unread.
    pub(crate) fn unread(&self) -> &[String] {
        self.ingest.unread()
    }

    /// Commits the last epoch and projects everything.
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
        self.ingest.partition().inputs().iter().map(|input| (input.row.id, input.row.position.to)).collect()
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
    let aside = EpochLog::new(Arc::new(aside), 0);
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
                    row.position.to = row.position.to.max(to);
                }
            }
        }
        _ => {}
    }
    Ok(())
}
