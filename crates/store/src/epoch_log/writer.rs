//! Appends to a log: the claim that takes over a partition, then one record after another.

use super::codec::{self, Pieces};
use super::{EpochLog, Fingerprints};
use adtally_model::fold::merge_all;
use adtally_model::reconcile::ReconcileRecord;
use adtally_model::time::EVENT_TIME_END_MS;
use adtally_model::{
    Base, Epoch, EpochNumber, Error, Frontiers, InputRow, Invariant, LiveMinute, MinuteIdentities, PartitionState,
    Position, Progress, Result, Watermark,
};
use bytes::Bytes;
use object_store::{ObjectStore, PutMode, PutOptions, PutPayload};
use std::sync::Arc;

/// The right to append to a partition's log.
pub struct LogWriter {
    pub(super) log: EpochLog,
    pub(super) writer: u128,
    pub(super) log_id: u128,
    pub(super) head: EpochNumber,
    pub(super) head_checksum: u128,
    pub(super) fingerprints: Fingerprints,
}

/// An empty record that repeats a state: unchanged progress, nothing read.
pub(super) fn claim_record(state: &PartitionState) -> Epoch {
    let base =
        (state.progress.number + 1).is_multiple_of(adtally_model::epoch::BASE_EVERY).then(|| Box::new(base_of(state)));
    Epoch {
        progress: Progress {
            number: state.progress.number + 1,
            source: state.progress.source.map(Position::next),
            ..state.progress
        },
        writer: 0,
        predecessor: state.checksum,
        oldest_needed: state.oldest_needed.max(1),
        claim: true,
        inputs: Vec::new(),
        counts: Vec::new(),
        identities: Vec::new(),
        staged: Vec::new(),
        reconcile: state.reconcile.as_deref().map(|before| {
            // A claim corrects nothing.
            Arc::new(ReconcileRecord { correction: None, state: before.state.clone() })
        }),
        config_fingerprint: state.config_fingerprint,
        key_fingerprint: state.key_fingerprint,
        base,
    }
}

/// The base that a record at the next number contains for a state.
fn base_of(state: &PartitionState) -> Base {
    let old = (state.progress.number + 1).saturating_sub(adtally_model::epoch::FOLD_BEFORE_BASE);
    let minutes = state.live.iter().filter(|(_, folded)| folded.begun < old);
    Base {
        inputs: state
            .inputs
            .values()
            .map(|row| {
                let mut row = InputRow::clone(row);
                if let Some(file) = row.file_mut() {
                    file.position = file.position.next();
                }
                Arc::new(row)
            })
            .collect(),
        minutes: minutes
            .map(|(&minute, folded)| LiveMinute {
                begun: folded.begun,
                identities: MinuteIdentities { minute, identities: folded.identities.clone() },
                counts: merge_all(minute, folded.counts.clone()),
            })
            .collect(),
    }
}

impl LogWriter {
    /// The log's id.
    pub fn log_id(&self) -> u128 {
        self.log_id
    }

    /// The number of the newest record.
    pub fn head(&self) -> EpochNumber {
        self.head
    }

    /// The log itself.
    pub fn log(&self) -> &EpochLog {
        &self.log
    }

    /// Commits the next epoch: fills in the writer and the predecessor, creates the record, and checks that the
    /// predecessor has not changed. Returns the checksum. After a retryable error the call may be repeated: if the
    /// record was created nevertheless, it is recognised.
    ///
    /// # Errors
    /// Fenced when another process owns the partition. The caller must then write nothing more.
    pub async fn append(&mut self, epoch: &mut Epoch) -> Result<u128> {
        if epoch.progress.number != self.head + 1 {
            return Err(Error::violated(
                Invariant::LinearChain,
                format!("epoch {} cannot follow epoch {}", epoch.progress.number, self.head),
            ));
        }
        epoch.progress.log_id = self.log_id;
        epoch.progress.partition = self.log.partition;
        epoch.writer = self.writer;
        epoch.predecessor = self.head_checksum;
        epoch.config_fingerprint = self.fingerprints.config;
        epoch.key_fingerprint = self.fingerprints.key;
        let Pieces { head, blobs, checksum } = codec::pieces(epoch)?;
        let record = [head, blobs, checksum.to_le_bytes().to_vec()].map(Bytes::from);
        self.create(epoch.progress.number, PutPayload::from_iter(record), checksum).await?;
        if self.head > 0 && self.log.checksum_of(self.head).await? != Some(self.head_checksum) {
            return Err(Error::fenced(format!(
                "epoch {} is not the record that epoch {} follows: another process owns partition {}",
                self.head, epoch.progress.number, self.log.partition
            )));
        }
        if self.head == 1 {
            self.check_newest(epoch.progress.number).await?;
        }
        self.head = epoch.progress.number;
        self.head_checksum = checksum;
        Ok(checksum)
    }

    /// Checks that no later record exists. Record 1 is never deleted, so its presence does not prove that record 2 is
    /// the first of its number: that one may have been deleted long ago. In that case there are later records.
    async fn check_newest(&self, number: EpochNumber) -> Result<()> {
        match self.log.numbers().await?.last() {
            Some(&newest) if newest > number => Err(Error::fenced(format!(
                "epoch {newest} follows epoch {number}: another process owns partition {}",
                self.log.partition
            ))),
            _ => Ok(()),
        }
    }

    /// Retires the partition with a last record, which makes all its minutes final: its frontiers are at the end of time, so that
    /// they hold back no other partition. `state` is that of the claim. Returns the record.
    ///
    /// # Errors
    /// As [`LogWriter::append`].
    pub async fn retire(&mut self, state: &PartitionState) -> Result<Epoch> {
        let end = Watermark::at(EVENT_TIME_END_MS);
        let mut epoch = Epoch { claim: false, ..claim_record(state) };
        epoch.progress.frontiers = Frontiers { watermark: end, closed: end, final_: end, expired: end };
        epoch.progress.reopened_from_ms = None;
        (epoch.progress.is_retired, epoch.progress.all_ended) = (true, true);
        self.append(&mut epoch).await?;
        Ok(epoch)
    }

    /// Checks that nobody has taken the partition over: there is no record after the newest of this writer.
    ///
    /// # Errors
    /// Fenced when another process owns the partition; external when the store cannot be read.
    pub async fn check_owner(&self) -> Result<()> {
        let (next, partition) = (self.head + 1, self.log.partition);
        let is_succeeded = self.log.checksum_of(next).await?.is_some()
            || (self.head > 0 && self.log.checksum_of(self.head).await? != Some(self.head_checksum));
        match is_succeeded {
            false => Ok(()),
            true => Err(Error::fenced(format!(
                "another process has taken partition {partition} over after epoch {}",
                self.head
            ))),
        }
    }

    async fn create(&self, number: EpochNumber, bytes: PutPayload, checksum: u128) -> Result<()> {
        let path = self.log.path(number);
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let error = match self.log.store.put_opts(&path, bytes, options).await {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        // The reply may have been lost, so the record in the store decides.
        match self.log.checksum_of(number).await? {
            Some(found) if found == checksum => Ok(()),
            Some(_) => Err(Error::fenced(format!(
                "epoch record {path} was written by another process, which now owns partition {}",
                self.log.partition
            ))),
            None => Err(Error::transient(format!("epoch record {path} cannot be created")).because(error)),
        }
    }
}
