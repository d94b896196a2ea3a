//! State as a fold of records: recovery as a pure function of epochs already read.

use crate::epoch::{base_before, fold_start};
use crate::reconcile::ReconcileRecord;
use crate::{
    Epoch, EpochNumber, Error, Identity, InputId, InputRow, Invariant, Minute, MinuteCounts, Progress, RECONCILE,
    Result,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The state of a partition at the end of an epoch.
#[derive(Clone, Debug, Default)]
pub struct PartitionState {
    /// Its progress; epoch 0 before the first record.
    pub progress: Progress,
    /// Checksum of the last record.
    pub checksum: u128,
    /// Writer of the last record.
    pub writer: u128,
    /// All inputs.
    pub inputs: BTreeMap<InputId, Arc<InputRow>>,
    /// Live minutes.
    pub live: BTreeMap<Minute, FoldedMinute>,
    /// Fingerprint of the settings in force.
    pub config_fingerprint: u64,
    /// Fingerprint of the identity key.
    pub key_fingerprint: u64,
    /// The oldest record that a reader or a store still needed.
    pub oldest_needed: EpochNumber,
    /// Reason and state of the last record; only of the partition `reconcile`.
    pub reconcile: Option<Arc<ReconcileRecord>>,
}

/// A live minute after folding.
#[derive(Clone, Debug)]
pub struct FoldedMinute {
    /// The record that counted its first click.
    pub begun: EpochNumber,
    /// Identities of its clicks.
    pub identities: Vec<Identity>,
    /// Its clicks; [`Fold::finish`] merges them into one.
    pub counts: Vec<MinuteCounts>,
}

/// Folds the records of one log, in order, into the state at the last record.
pub struct Fold {
    state: PartitionState,
    base: Option<EpochNumber>,
    repeated: Vec<Minute>,
    /// How far each input seen so far was read, also before the base.
    read_to: BTreeMap<InputId, u64>,
    /// How far a source with one position for all inputs was read.
    source_read_to: Option<u64>,
}

impl Fold {
    /// Begins a fold that will end at record `head`. `base` is the latest base record at or before `head`; `None` if
    /// `head` is before the first base.
    ///
    /// # Errors
    /// A corrupt-data error when `base` is not the record that the fold needs.
    pub fn new(head: EpochNumber, base: Option<&Epoch>) -> Result<Fold> {
        if base.map(|base| base.progress.number) != base_before(head) {
            return Err(Error::corrupt(format!("the fold up to epoch {head} needs the base {:?}", base_before(head))));
        }
        let mut state = PartitionState {
            progress: Progress { number: fold_start(head) - 1, next_input: 1, ..Progress::default() },
            ..PartitionState::default()
        };
        let mut repeated = Vec::new();
        if let Some(epoch) = base {
            let content = epoch.base.as_deref().ok_or_else(|| {
                Error::corrupt(format!("epoch {} should be a base and is not", epoch.progress.number))
            })?;
            for minute in &content.minutes {
                repeated.push(minute.counts.minute);
                let folded = FoldedMinute {
                    begun: minute.begun,
                    identities: minute.identities.identities.clone(),
                    counts: vec![minute.counts.clone()],
                };
                state.live.insert(minute.counts.minute, folded);
            }
        }
        Ok(Fold {
            state,
            base: base.map(|base| base.progress.number),
            repeated,
            read_to: BTreeMap::new(),
            source_read_to: None,
        })
    }

    /// The number of the next record.
    pub fn next_number(&self) -> EpochNumber {
        self.state.progress.number + 1
    }

    /// Adds the next record, whose checksum is `checksum`.
    ///
    /// # Errors
    /// A corrupt-data error when the record is not the next one of the chain; an internal error when it violates an
    /// invariant.
    pub fn apply(&mut self, epoch: &Epoch, checksum: u128) -> Result<()> {
        self.check_chain(epoch)?;
        self.check_positions(epoch)?;
        let state = &mut self.state;
        let before_base = self.base.is_some_and(|base| epoch.progress.number < base);
        let in_base = self.base.is_some_and(|base| epoch.progress.number <= base);
        // Corrections are of final minutes, of which nothing is folded.
        let is_reconcile = epoch.progress.partition == RECONCILE;
        for counts in epoch.counts.iter().filter(|_| !is_reconcile) {
            if in_base && self.repeated.binary_search(&counts.minute).is_ok() {
                continue;
            }
            state.minute(counts.minute, epoch.progress.number).counts.push(counts.clone());
        }
        for identities in &epoch.identities {
            if in_base && self.repeated.binary_search(&identities.minute).is_ok() {
                continue;
            }
            state.minute(identities.minute, epoch.progress.number).identities.extend_from_slice(&identities.identities);
        }
        state.progress.number = epoch.progress.number;
        state.checksum = checksum;
        state.progress.log_id = epoch.progress.log_id;
        if before_base {
            return Ok(());
        }
        if let Some(base) = epoch.base.as_deref() {
            state.inputs = base.inputs.iter().map(|row| (row.id, Arc::clone(row))).collect();
        }
        state.apply_progress(epoch)?;
        Ok(())
    }

    fn check_chain(&self, epoch: &Epoch) -> Result<()> {
        let state = &self.state;
        let first = state.progress.log_id == 0;
        if epoch.progress.number != state.progress.number + 1 {
            return Err(Error::corrupt(format!(
                "epoch {} follows epoch {}",
                epoch.progress.number, state.progress.number
            )));
        }
        if !first && (epoch.predecessor != state.checksum || epoch.progress.log_id != state.progress.log_id) {
            return Err(Error::corrupt(format!(
                "epoch {} does not follow epoch {}: it names another predecessor or another log",
                epoch.progress.number, state.progress.number
            )));
        }
        Ok(())
    }

    /// Every input and source must continue where it was last read to.
    fn check_positions(&mut self, epoch: &Epoch) -> Result<()> {
        let repeated = epoch.base.iter().flat_map(|base| &base.inputs);
        let rows = epoch.inputs.iter().chain(repeated);
        for row in rows.clone() {
            if let Some(&read_to) = self.read_to.get(&row.id)
                && row.position().from != read_to
            {
                return Err(Error::violated(
                    Invariant::ContiguousPositions,
                    format!(
                        "epoch {} reads {} from {}, but it was read to {read_to} before",
                        epoch.progress.number,
                        row.name,
                        row.position().from
                    ),
                ));
            }
        }
        self.read_to.extend(rows.map(|row| (row.id, row.position().to)));
        let (before, source) = (self.source_read_to, epoch.progress.source);
        if let (Some(read_to), Some(source)) = (before, source)
            && source.from != read_to
        {
            return Err(Error::violated(
                Invariant::ContiguousPositions,
                format!(
                    "epoch {} reads the source from {}, and it was read to {read_to} before",
                    epoch.progress.number, source.from
                ),
            ));
        }
        self.source_read_to = source.map(|source| source.to).or(before);
        Ok(())
    }

    /// The state at the last record applied.
    ///
    /// # Errors
    /// A corrupt-data error when the fold ended before its base.
    pub fn finish(self) -> Result<PartitionState> {
        let mut state = self.state;
        if self.base.is_some_and(|base| state.progress.number < base) {
            return Err(Error::corrupt(format!("the epoch log ends at {}, before its base", state.progress.number)));
        }
        let frontiers = state.progress.frontiers;
        state.live.retain(|minute, _| frontiers.is_live(*minute));
        for (minute, folded) in &mut state.live {
            let merged = merge_all(*minute, std::mem::take(&mut folded.counts));
            folded.counts = vec![merged];
        }
        Ok(state)
    }
}

/// The sum of all parts, merged pairwise so that each row is touched about log2(n) times.
pub fn merge_all(minute: Minute, mut parts: Vec<MinuteCounts>) -> MinuteCounts {
    while parts.len() > 1 {
        parts = parts.chunks(2).map(|pair| if let [a, b] = pair { a.merge(b) } else { pair[0].clone() }).collect();
    }
    parts.pop().unwrap_or_else(|| MinuteCounts::empty(minute))
}

impl PartitionState {
    fn minute(&mut self, minute: Minute, number: EpochNumber) -> &mut FoldedMinute {
        self.live.entry(minute).or_insert_with(|| FoldedMinute {
            begun: number,
            identities: Vec::new(),
            counts: Vec::new(),
        })
    }

    fn apply_progress(&mut self, epoch: &Epoch) -> Result<()> {
        if !epoch.progress.frontiers.follows(&self.progress.frontiers) {
            return Err(Error::violated(
                Invariant::MonotoneFrontiers,
                format!(
                    "epoch {} moves {:?} back to {:?}",
                    epoch.progress.number, self.progress.frontiers, epoch.progress.frontiers
                ),
            ));
        }
        for row in &epoch.inputs {
            row.ledger.check(&row.name)?;
            self.inputs.insert(row.id, Arc::clone(row));
        }
        epoch.progress.ledger.check("the partition")?;
        self.progress = epoch.progress;
        self.writer = epoch.writer;
        self.config_fingerprint = epoch.config_fingerprint;
        self.key_fingerprint = epoch.key_fingerprint;
        self.oldest_needed = epoch.oldest_needed;
        self.reconcile.clone_from(&epoch.reconcile);
        let frontiers = self.progress.frontiers;
        self.live.retain(|minute, _| frontiers.is_live(*minute));
        self.check_conservation()
    }

    /// A copy without live minutes.
    #[must_use]
    pub fn clone_progress(&self) -> PartitionState {
        PartitionState {
            live: BTreeMap::new(),
            inputs: self.inputs.clone(),
            reconcile: self.reconcile.clone(),
            ..*self
        }
    }

    /// The inputs and the gone row must sum to the partition's ledger.
    ///
    /// # Errors
    /// An internal error when they do not add up.
    pub fn check_conservation(&self) -> Result<()> {
        let mut sum = self.progress.gone;
        for row in self.inputs.values() {
            sum += &row.ledger;
        }
        if sum == self.progress.ledger {
            Ok(())
        } else {
            Err(Error::violated(
                Invariant::Conservation,
                format!("the inputs sum to {sum:?}, the partition's ledger is {:?}", self.progress.ledger),
            ))
        }
    }
}
