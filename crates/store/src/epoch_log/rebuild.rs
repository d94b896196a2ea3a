//! Repairs of a log: returns to its last sound state, and writes a new log from a state.

use super::{EpochLog, claim_record, codec};
use adtally_model::epoch::{BASE_EVERY, FOLD_BEFORE_BASE};
use adtally_model::{Epoch, EpochNumber, Error, ErrorKind, PartitionState, Result};
use object_store::{ObjectStore, PutMode, PutOptions, PutPayload};

/// The last number of a new log that replaces one whose last number was `number`. It is a base, so far ahead that no
/// record has a number that the old log used.
///
/// ```
/// # use adtally_store::epoch_log::rebuilt_end;
/// assert_eq!(rebuilt_end(0), 192);
/// assert_eq!(rebuilt_end(63), 192);
/// assert_eq!(rebuilt_end(64), 256);
/// ```
pub const fn rebuilt_end(number: EpochNumber) -> EpochNumber {
    (number + 1 + FOLD_BEFORE_BASE).div_ceil(BASE_EVERY) * BASE_EVERY
}

impl EpochLog {
    /// The state at the newest record for which no needed record is damaged or missing. Returns `None` if there is no
    /// such record.
    ///
    /// # Errors
    /// External when the store cannot be read.
    pub async fn soundest(&self) -> Result<Option<PartitionState>> {
        let numbers = self.numbers().await?;
        for &head in numbers.iter().rev() {
            match self.fold_to(head).await {
                Ok(Ok(state)) => return Ok(Some(state)),
                Ok(Err(_missing)) => {}
                Err(error) if error.kind() == ErrorKind::Corrupt => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Writes a new log that folds to `state`, whose number must be one of [`rebuilt_end`] and whose minutes must begin
    /// in record 1. The log must be empty. After a crash, the log does not fold.
    ///
    /// # Errors
    /// External when a record cannot be written, internal when the state is not of this form.
    pub async fn rebuild(&self, state: &PartitionState, writer: u128) -> Result<()> {
        if !state.progress.number.is_multiple_of(BASE_EVERY) || state.progress.number <= FOLD_BEFORE_BASE {
            return Err(Error::internal(format!("a log cannot be rebuilt up to record {}", state.progress.number)));
        }
        let oldest = state.progress.number - FOLD_BEFORE_BASE;
        let mut checksum = 0;
        for number in std::iter::once(1).chain(oldest..=state.progress.number) {
            // Each record claims to follow the same state: records before the base repeat what is known.
            let mut before = PartitionState { checksum, oldest_needed: oldest, ..state.clone_progress() };
            before.progress.number = number - 1;
            if number == state.progress.number {
                before.live.clone_from(&state.live);
            }
            let mut record = Epoch { writer, ..claim_record(&before) };
            if number != state.progress.number {
                record.base = None;
            }
            checksum = self.put_new(&record).await?;
        }
        Ok(())
    }

    async fn put_new(&self, record: &Epoch) -> Result<u128> {
        let path = self.path(record.progress.number);
        let (bytes, checksum) = codec::encode(record)?;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let put = self.store.put_opts(&path, PutPayload::from(bytes), options).await;
        put.map_err(|e| Error::external(format!("epoch record {path} cannot be created")).because(e))?;
        Ok(checksum)
    }
}
