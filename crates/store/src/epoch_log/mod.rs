//! The epoch log: immutable records numbered from 1, each created with put-if-absent. Creating record N is the commit.

pub mod codec;
mod countries;
mod logs;
mod progress;
mod rebuild;
mod row;
mod tagged;
#[cfg(test)]
mod tests;
mod writer;

pub use logs::EpochLogs;
pub use progress::ReadProgress;
pub use rebuild::rebuilt_end;
pub use writer::LogWriter;

use crate::fail_points;
use adtally_model::epoch::{RECORDS_KEPT, base_before, fold_start};
use adtally_model::fold::merge_all;
use adtally_model::{
    Epoch, EpochNumber, Error, Fold, Frontiers, Minute, MinuteCounts, PartitionState, Position, Progress, RECONCILE,
    Result, TopicPartition,
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use hashbrown::HashSet;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::runtime::{Handle, RuntimeFlavor};
use writer::claim_record;

/// How often a fold is restarted because records that it needs were deleted before it read them. Each time, the log has
/// grown by dozens of records in the meantime.
const FOLD_ATTEMPTS_MAX: u32 = 8;

/// Records that a fold reads and decodes concurrently, ahead of the one that it applies. A record of a bulk run takes
/// some 20 MB.
const FOLD_READ_AHEAD: usize = 4;

/// Bytes to read of a record when only its header is needed: enough for an epoch with some hundred inputs.
const HEAD_BYTES_TYPICAL: u64 = 64 << 10;

/// Minimum age, in milliseconds, of records to delete on a shared object store. A writer that was cut off for less time
/// finds its successor's record where it wants to write its own.
pub const SHARED_MIN_AGE_MS: i64 = 3_600_000;

/// Decodes a record, on another core if the runtime has several.
async fn decode_apart(bytes: Bytes) -> Result<Result<(Epoch, u128)>> {
    match Handle::try_current() {
        Ok(runtime) if runtime.runtime_flavor() == RuntimeFlavor::MultiThread => {
            let decoded = runtime.spawn_blocking(move || codec::decode(&bytes)).await;
            decoded.map_err(|error| {
                Error::internal("decoding an epoch record panicked; the message is above").because(error)
            })
        }
        _ => Ok(codec::decode(&bytes)),
    }
}

/// The records of one partition in an object store.
#[derive(Clone)]
pub struct EpochLog {
    store: Arc<dyn ObjectStore>,
    folder: Path,
    partition: u32,
    /// Records younger than this, in milliseconds, are not deleted.
    min_age_ms: Option<i64>,
    /// Progress of reading, for observers; clones share it.
    progress: Arc<ReadProgress>,
}

/// The fingerprints that every record of a deployment contains.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fingerprints {
    /// Of the settings that affect verdicts: a change is allowed and recorded.
    pub config: u64,
    /// Of the identity key: a change is an error.
    pub key: u64,
}

/// What the first record of a log says about its partition.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Beginning {
    /// The partition of a topic that it reads; `None` for files.
    pub topic: Option<TopicPartition>,
    /// Where reading the topic begins.
    pub source: Option<Position>,
    /// Its first frontiers: the minutes before them were counted by a partition that is retired.
    pub frontiers: Frontiers,
    /// Whether a claim gives way to one that was made meanwhile, as fenced, instead of taking the partition over from it.
    pub gives_way: bool,
}

impl EpochLog {
    /// The log of a partition in the folder `epochs/` of a store.
    pub fn new(store: Arc<dyn ObjectStore>, partition: u32) -> Self {
        EpochLog { store, folder: logs::folder(partition), partition, min_age_ms: None, progress: Arc::default() }
    }

    /// Sets the minimum age, in milliseconds, of records to delete. For stores that other machines also write to, see
    /// [`SHARED_MIN_AGE_MS`].
    #[must_use]
    pub fn with_min_age(self, min_age_ms: i64) -> Self {
        EpochLog { min_age_ms: Some(min_age_ms), ..self }
    }

    /// Progress of this log and its clones in reading many records, as at a start.
    pub fn progress(&self) -> Arc<ReadProgress> {
        Arc::clone(&self.progress)
    }

    /// The partition.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// The path of a record.
    pub fn path(&self, number: EpochNumber) -> Path {
        self.folder.clone().join(logs::name(number))
    }

    /// The folder of its records.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The numbers of all records, ascending.
    ///
    /// # Errors
    /// External when the store cannot be listed.
    pub async fn numbers(&self) -> Result<Vec<EpochNumber>> {
        Ok(self.listed().await?.into_iter().map(|(number, _)| number).collect())
    }

    /// All records by number, ascending.
    async fn listed(&self) -> Result<Vec<(EpochNumber, ObjectMeta)>> {
        let listed: Vec<_> = self
            .store
            .list(Some(&self.folder))
            .try_collect()
            .await
            .map_err(|e| Error::transient(format!("the epoch log {} cannot be listed", self.folder)).because(e))?;
        let number_of = |object: &ObjectMeta| object.location.filename()?.strip_suffix(".epoch")?.parse().ok();
        let mut records: Vec<(EpochNumber, ObjectMeta)> =
            listed.into_iter().filter_map(|object| Some((number_of(&object)?, object))).collect();
        records.sort_unstable_by_key(|&(number, _)| number);
        Ok(records)
    }

    /// Reads the newest record. Returns `None` if there is none.
    ///
    /// # Errors
    /// As [`EpochLog::read`].
    pub async fn newest(&self) -> Result<Option<Epoch>> {
        match self.numbers().await?.last() {
            Some(&number) => self.read_present(number).await.map(|(epoch, _)| Some(epoch)),
            None => Ok(None),
        }
    }

    /// The paths of all files that the records name, below their tables' folders. Reads only the records' headers.
    ///
    /// # Errors
    /// Corrupt when a header is damaged, external when a record cannot be read.
    pub async fn staged_paths(&self) -> Result<HashSet<String>> {
        let mut paths = HashSet::new();
        for number in self.numbers().await? {
            // The files of a record that was deleted since it was listed are in the lake.
            let Some(first) = self.first_bytes(number, HEAD_BYTES_TYPICAL).await? else { continue };
            let damaged = |error| Error::corrupt(format!("epoch record {} is damaged: {error}", self.path(number)));
            let head_bytes = codec::head_bytes(&first).map_err(damaged)?;
            let head = match head_bytes <= first.len() {
                true => first,
                false => match self.first_bytes(number, head_bytes as u64).await? {
                    Some(head) => head,
                    None => continue,
                },
            };
            let staged = codec::staged(&head, number, self.partition).map_err(damaged)?;
            paths.extend(staged.into_iter().map(|file| file.path));
        }
        Ok(paths)
    }

    /// Reads up to `bytes` bytes from the start of a record. Returns `None` if there is no such record.
    async fn first_bytes(&self, number: EpochNumber, bytes: u64) -> Result<Option<Bytes>> {
        let range = Some(GetRange::Bounded(0..bytes));
        self.get(number, GetOptions { range, ..GetOptions::default() }).await
    }

    /// Reads the bytes of a record. Returns `None` if there is no such record.
    async fn get(&self, number: EpochNumber, options: GetOptions) -> Result<Option<Bytes>> {
        let path = self.path(number);
        let bytes = match self.store.get_opts(&path, options).await {
            Ok(found) => found.bytes().await,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => Err(error),
        };
        bytes.map(Some).map_err(|e| Error::transient(format!("epoch record {path} cannot be read")).because(e))
    }

    /// Reads one record. Returns `None` if there is none.
    ///
    /// # Errors
    /// Corrupt when the record is damaged or its content does not match its name, external when it cannot be read.
    pub async fn read(&self, number: EpochNumber) -> Result<Option<(Epoch, u128)>> {
        let path = self.path(number);
        let Some(bytes) = self.get(number, GetOptions::default()).await? else { return Ok(None) };
        let (epoch, checksum) = decode_apart(bytes).await?.map_err(|e| {
            Error::corrupt(format!("epoch record {path} is damaged: {e}. `adtally verify` reports all damage, `adtally repair` says what can be done"))
        })?;
        if epoch.progress.number != number || epoch.progress.partition != self.partition {
            return Err(Error::corrupt(format!(
                "epoch record {path} holds epoch {} of partition {}: a file was renamed or copied",
                epoch.progress.number, epoch.progress.partition
            )));
        }
        Ok(Some((epoch, checksum)))
    }

    /// Reads a record that an owner whose last record is `head` needs. If it is missing because the log has advanced,
    /// another process has taken over.
    async fn read_of_owner(&self, number: EpochNumber, head: EpochNumber) -> Result<(Epoch, u128)> {
        if let Some(found) = self.read(number).await? {
            return Ok(found);
        }
        let newest = self.numbers().await?.last().copied();
        if newest > Some(head) {
            let partition = self.partition;
            return Err(Error::fenced(format!(
                "the log went on after epoch {head}: another process owns partition {partition}"
            )));
        }
        Err(self.missing(number))
    }

    async fn read_present(&self, number: EpochNumber) -> Result<(Epoch, u128)> {
        self.read(number).await?.ok_or_else(|| self.missing(number))
    }

    fn missing(&self, number: EpochNumber) -> Error {
        Error::corrupt(format!("epoch record {} is missing from the log; restore it from a backup", self.path(number)))
    }

    /// Whether the log has grown so far that this record is no longer needed. If it is missing, the owner has deleted
    /// it.
    ///
    /// # Errors
    /// As [`EpochLog::read`].
    pub async fn is_superfluous(&self, number: EpochNumber) -> Result<bool> {
        let newest = self.newest().await?;
        Ok(newest.is_some_and(|head| number < fold_start(head.progress.number) || number < head.oldest_needed))
    }

    /// Folds the log into the state at its newest record. Returns `None` if there is no record.
    ///
    /// # Errors
    /// Corrupt when a needed record is missing or damaged or the chain is broken.
    pub async fn fold(&self) -> Result<Option<PartitionState>> {
        for _ in 0..FOLD_ATTEMPTS_MAX {
            let Some(&head) = self.numbers().await?.last() else { return Ok(None) };
            match self.fold_to(head).await? {
                Ok(state) => return Ok(Some(state)),
                // The owner deleted records during the fold.
                Err(missing) if self.is_superfluous(missing).await? => {}
                Err(missing) => return Err(self.missing(missing)),
            }
        }
        Err(Error::transient(format!("records of {} are deleted faster than they are read: try again", self.folder)))
    }

    /// The state at a record, or the number of the first missing record that it needs.
    async fn fold_to(&self, head: EpochNumber) -> Result<Result<PartitionState, EpochNumber>> {
        let base = match base_before(head) {
            Some(number) => match self.read(number).await? {
                Some((epoch, _)) => Some(epoch),
                None => return Ok(Err(number)),
            },
            None => None,
        };
        let mut fold = Fold::new(head, base.as_ref())?;
        drop(base);
        self.progress.begin(head + 1 - fold_start(head));
        let records = stream::iter(fold_start(head)..=head).map(|number| async move {
            fail_points::reach(fail_points::RECOVERING);
            // The number is kept to report which record is missing.
            self.read(number).await.map(|record| (number, record))
        });
        let mut records = std::pin::pin!(records.buffered(FOLD_READ_AHEAD));
        while let Some((number, record)) = records.try_next().await? {
            let Some((epoch, checksum)) = record else { return Ok(Err(number)) };
            fold.apply(&epoch, checksum)?;
            self.progress.advance();
        }
        fold.finish().map(Ok)
    }

    /// All clicks of some minutes in the records up to `head`, for a base record. The minutes must be live there. If a
    /// minute began long ago, this reads as many records as a fold.
    ///
    /// # Errors
    /// As [`EpochLog::fold`].
    pub async fn counts_of(&self, minutes: &[Minute], head: EpochNumber) -> Result<Vec<MinuteCounts>> {
        if minutes.is_empty() {
            return Ok(Vec::new());
        }
        let mut parts: BTreeMap<Minute, Vec<MinuteCounts>> = minutes.iter().map(|&at| (at, Vec::new())).collect();
        let base = match base_before(head) {
            Some(number) => Some((number, self.read_of_owner(number, head).await?.0)),
            None => None,
        };
        let mut repeated = BTreeSet::new();
        for minute in base.iter().flat_map(|(_, base)| &base.base).flat_map(|base| &base.minutes) {
            if let Some(parts) = parts.get_mut(&minute.counts.minute) {
                repeated.insert(minute.counts.minute);
                parts.push(minute.counts.clone());
            }
        }
        let base = base.map_or(0, |(number, _)| number);
        let records = stream::iter(fold_start(head)..=head).map(|number| self.read_of_owner(number, head));
        let mut records = std::pin::pin!(records.buffered(FOLD_READ_AHEAD));
        while let Some((epoch, _)) = records.try_next().await? {
            for counts in epoch.counts {
                let is_repeated = epoch.progress.number <= base && repeated.contains(&counts.minute);
                if let Some(parts) = parts.get_mut(&counts.minute).filter(|_| !is_repeated) {
                    parts.push(counts);
                }
            }
        }
        Ok(parts.into_iter().map(|(minute, parts)| merge_all(minute, parts)).collect())
    }

    /// Takes over the partition: folds the log and creates an empty claim record, and retries both until the creation
    /// succeeds. `writer` and `fresh_log_id` are random.
    ///
    /// # Errors
    /// A user error when the identity key is not the log's; otherwise as [`EpochLog::fold`].
    pub async fn claim(
        &self,
        writer: u128,
        fresh_log_id: u128,
        fingerprints: Fingerprints,
    ) -> Result<(LogWriter, PartitionState)> {
        self.claim_as(writer, fresh_log_id, fingerprints, &Beginning::default()).await
    }

    /// Like [`EpochLog::claim`], of a partition with this source. `beginning` is what the first record of the log says.
    ///
    /// # Errors
    /// A user error when the log has another source or the partition is retired; otherwise as [`EpochLog::claim`].
    pub async fn claim_as(
        &self,
        writer: u128,
        fresh_log_id: u128,
        fingerprints: Fingerprints,
        beginning: &Beginning,
    ) -> Result<(LogWriter, PartitionState)> {
        loop {
            let state = self.fold().await?;
            if let Some(state) = &state {
                self.check_source(&state.progress, beginning.topic)?;
            }
            if let Some(state) = &state
                && state.key_fingerprint != fingerprints.key
            {
                return Err(Error::user(format!(
                    "the identity key is not the one of this epoch log (fingerprint {:016x}, the log has {:016x}): \
                     restore the right key; with another key, duplicates of clicks cannot be recognised",
                    fingerprints.key, state.key_fingerprint
                )));
            }
            let mut state = state.unwrap_or_else(|| PartitionState {
                progress: Progress {
                    log_id: fresh_log_id.max(1),
                    partition: self.partition,
                    next_input: 1,
                    source: beginning.source,
                    topic: beginning.topic,
                    frontiers: beginning.frontiers,
                    ..Progress::default()
                },
                ..PartitionState::default()
            });
            let mut owner = self.writer_after(&state, writer, fingerprints);
            match owner.append(&mut claim_record(&state)).await {
                Ok(checksum) => {
                    (state.progress.number, state.checksum, state.writer) = (owner.head, checksum, writer);
                    return Ok((owner, state));
                }
                Err(error) if error.kind() == adtally_model::ErrorKind::Fenced && !beginning.gives_way => continue,
                Err(error) => return Err(error),
            }
        }
    }

    /// Rejects a log of another source, and one of a retired partition.
    fn check_source(&self, progress: &Progress, topic: Option<TopicPartition>) -> Result<()> {
        let partition = self.partition;
        if progress.is_retired && partition != RECONCILE {
            return Err(Error::user(format!(
                "partition {partition} is retired: nothing is read into it any more. Another topic has its successors"
            )));
        }
        let what = match (progress.topic, topic) {
            (None, None) => return Ok(()),
            (Some(one), Some(other)) if one == other => return Ok(()),
            (None, Some(_)) => "reads log files, and not a topic: count the topic into another URL",
            (Some(_), None) => "reads a topic, and not log files: use `adtally worker`",
            (Some(one), Some(other)) if one.topic_id == other.topic_id => {
                "reads a topic that has another number of partitions now, so that copies of a click do not meet: count a new \
                 topic into another URL"
            }
            (Some(_), Some(_)) => "reads another topic, perhaps one of the same name that was deleted",
        };
        Err(Error::user(format!("partition {partition} {what}")))
    }

    /// A writer that appends after a state. It owns nothing before it has created a record; [`EpochLog::claim`] creates
    /// one at once.
    pub fn writer_after(&self, state: &PartitionState, writer: u128, fingerprints: Fingerprints) -> LogWriter {
        LogWriter {
            log: self.clone(),
            writer,
            log_id: state.progress.log_id,
            head: state.progress.number,
            head_checksum: state.checksum,
            fingerprints,
        }
    }

    /// Deletes records that are no longer needed, in ascending order. Never deletes the first, the newest 64, or any
    /// younger than the log's minimum age. The age of a record is the time from its creation to that of the newest record,
    /// both by the clock of the store. Returns the number of deleted records.
    ///
    /// # Errors
    /// External when the store fails.
    pub async fn collect(&self, oldest_needed: EpochNumber) -> Result<u64> {
        let records = self.listed().await?;
        let Some((head, newest)) = records.last().map(|(head, newest)| (*head, newest.last_modified)) else {
            return Ok(0);
        };
        let keep_from = oldest_needed.min((head + 1).saturating_sub(RECORDS_KEPT));
        let mut deleted = 0;
        for (number, object) in records.into_iter().filter(|&(number, _)| number > 1 && number < keep_from) {
            let age_ms = (newest - object.last_modified).num_milliseconds();
            if self.min_age_ms.is_some_and(|min_age_ms| age_ms < min_age_ms) {
                break;
            }
            let path = self.path(number);
            match self.store.delete(&path).await {
                // A process that owned the partition before may delete the same records.
                Ok(()) | Err(object_store::Error::NotFound { .. }) => deleted += 1,
                Err(error) => {
                    return Err(Error::transient(format!("epoch record {path} cannot be deleted")).because(error));
                }
            }
            fail_points::reach("while_collecting");
        }
        Ok(deleted)
    }

    async fn checksum_of(&self, number: EpochNumber) -> Result<Option<u128>> {
        let range = Some(GetRange::Suffix(codec::CHECKSUM_BYTES as u64));
        let Some(bytes) = self.get(number, GetOptions { range, ..GetOptions::default() }).await? else {
            return Ok(None);
        };
        Ok(<[u8; 16]>::try_from(bytes.as_ref()).ok().map(u128::from_le_bytes))
    }
}
