//! Dead letters on their way to a store outside of the lake, such as a topic.
//!
//! They are sent before the lake is brought up to date with their epochs. Whatever the lake lacks is projected again after a
//! crash, so no letter is missing. Those sent before the crash are sent twice, with the same headers.

use adtally_model::{EpochNumber, Error, Result};
use adtally_store::lake::{EpochProjection, Lake};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A dead letter of a committed epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SentLetter {
    /// The partition of the epoch.
    pub partition: u32,
    /// The epoch.
    pub epoch: EpochNumber,
    /// Its number among the letters of the epoch, from 0. Partition, epoch and row identify a letter.
    pub row: u64,
    /// The letter as JSON: see [`Lake::each_letters`].
    pub json: Vec<u8>,
}

/// Takes dead letters.
pub trait LetterSink: Send + Sync {
    /// Takes letters, and returns when they are safe.
    ///
    /// # Errors
    /// Any, when they may not be safe: all of them are sent again.
    fn send(&self, letters: &[SentLetter]) -> Result<()>;
}

/// The way of dead letters from the lake's files into a sink.
#[derive(Clone)]
pub struct Letters {
    lake: Arc<Lake>,
    sink: Arc<dyn LetterSink>,
    /// The last epoch of each partition whose letters this process has sent.
    sent: Arc<Mutex<BTreeMap<u32, EpochNumber>>>,
}

impl Letters {
    /// From this lake into this sink.
    pub fn new(lake: Arc<Lake>, sink: Arc<dyn LetterSink>) -> Letters {
        Letters { lake, sink, sent: Arc::default() }
    }

    /// Sends the letters of committed epochs, unless this process has done so. The epochs of a partition ascend.
    ///
    /// # Errors
    /// As [`Lake::each_letters`]; transient when the sink does not take them.
    pub(crate) fn send(&self, runtime: &tokio::runtime::Handle, epochs: &[EpochProjection]) -> Result<()> {
        for EpochProjection { progress, staged, .. } in epochs {
            if self.sent.lock().get(&progress.partition).is_some_and(|&sent| sent >= progress.number) {
                continue;
            }
            let mut row = 0;
            let send = |letters: Vec<Vec<u8>>| {
                let sent = (row..).zip(letters).map(|(row, json)| SentLetter {
                    partition: progress.partition,
                    epoch: progress.number,
                    row,
                    json,
                });
                let sent: Vec<SentLetter> = sent.collect();
                row += sent.len() as u64;
                // Counting goes on, and the lake waits.
                let failed = |error: Error| Error::transient("dead letters cannot be sent").because(error);
                self.sink.send(&sent).map_err(failed)
            };
            runtime.block_on(self.lake.each_letters(staged, send))?;
            self.sent.lock().insert(progress.partition, progress.number);
        }
        Ok(())
    }
}
