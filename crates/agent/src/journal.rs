//! How far each log is safe in Kafka, as an epoch log in the agent's data directory.
//!
//! It has the format of the epoch log of a partition, with inputs and without clicks: it survives a crash at any point, and
//! a directory has one owner.

use adtally_model::epoch::{BASE_EVERY, fold_start};
use adtally_model::{Base, Epoch, InputRow, Ledger, PartitionState, Position, Progress, Result};
use adtally_store::backing::Backing;
use adtally_store::epoch_log::{Fingerprints, LogWriter};
use std::sync::Arc;

/// The number of an agent's partition: it is no partition of a deployment.
pub const AGENT: u32 = 65_534;

/// The journal of an agent.
pub struct Journal {
    writer: LogWriter,
    progress: Progress,
    runtime: tokio::runtime::Handle,
}

impl Journal {
    /// Opens the journal, and creates it if there is none. Returns the state in it. Without a journal, the agent continues
    /// where `before` ended: the log files that an embedded process has read. The numbers are random.
    ///
    /// # Errors
    /// Corrupt when the journal is damaged, external when it cannot be read or written.
    pub fn open(
        backing: &Backing,
        before: Option<&PartitionState>,
        (writer, fresh): (u128, u128),
        runtime: tokio::runtime::Handle,
    ) -> Result<(Journal, PartitionState)> {
        let log = backing.logs().log(AGENT);
        let claimed = runtime.block_on(log.claim(writer, fresh, Fingerprints { config: 0, key: 0 }))?;
        let (writer, mut state) = claimed;
        let mut journal = Journal { writer, progress: state.progress, runtime };
        if state.inputs.is_empty()
            && let Some(before) = before
        {
            let rows = before.inputs.values().map(|row| continued(row)).collect::<Vec<_>>();
            journal.progress.next_input = before.progress.next_input.max(1);
            journal.write(&rows, Ledger::default(), before.progress.clock_ms, || rows.clone())?;
            state.inputs = rows.into_iter().map(|row| (row.id, row)).collect();
            state.progress = journal.progress;
        }
        Ok((journal, state))
    }

    /// The number of the next input.
    pub fn next_input(&self) -> u64 {
        self.progress.next_input.max(1)
    }

    /// Whether the next entry repeats all inputs, so that rows which are missing in it are forgotten.
    pub fn next_is_base(&self) -> bool {
        (self.progress.number + 1).is_multiple_of(BASE_EVERY)
    }

    /// Writes an entry: the rows that have changed, and the ledger of inputs that are forgotten with it. `all` returns the rows
    /// of all inputs.
    ///
    /// # Errors
    /// Fenced when another process owns the journal; external when it cannot be written, after which the call may be
    /// repeated.
    pub fn write(
        &mut self,
        rows: &[Arc<InputRow>],
        gone: Ledger,
        clock_ms: i64,
        all: impl FnOnce() -> Vec<Arc<InputRow>>,
    ) -> Result<()> {
        let number = self.progress.number + 1;
        let mut progress = Progress { number, clock_ms: clock_ms.max(self.progress.clock_ms), ..self.progress };
        progress.gone += &gone;
        progress.next_input = rows.iter().map(|row| row.id.0 + 1).max().unwrap_or_default().max(self.next_input());
        let every = all();
        let mut ledger = progress.gone;
        every.iter().for_each(|row| ledger += &row.ledger);
        progress.ledger = ledger;
        let base = number.is_multiple_of(BASE_EVERY).then(|| Box::new(Base { inputs: every, minutes: Vec::new() }));
        let mut epoch = Epoch {
            progress,
            writer: 0,
            predecessor: 0,
            oldest_needed: fold_start(number),
            claim: false,
            inputs: rows.to_vec(),
            counts: Vec::new(),
            identities: Vec::new(),
            staged: Vec::new(),
            config_fingerprint: 0,
            key_fingerprint: 0,
            reconcile: None,
            base,
        };
        self.runtime.block_on(self.writer.append(&mut epoch))?;
        self.progress = epoch.progress;
        if let Err(error) = self.runtime.block_on(self.writer.log().collect(epoch.oldest_needed)) {
            tracing::warn!("old entries of the journal could not be deleted: {}", error.report());
        }
        Ok(())
    }
}

/// The row of an input that an embedded process has read, for an agent that reads it on. Its lines were counted there.
fn continued(row: &InputRow) -> Arc<InputRow> {
    let mut row = InputRow { ledger: Ledger::default(), ..row.clone() };
    if let Some(file) = row.file_mut() {
        file.position = Position::at(file.position.to);
    }
    Arc::new(row)
}
