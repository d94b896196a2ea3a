//! Dead letters on their way to a store outside of the lake, such as a topic.
//!
//! They are sent before the lake is brought up to date with their epochs. Whatever the lake lacks is projected again after a
//! crash, so no letter is missing. Those sent before the crash are sent twice, with the same headers.

use adtally_model::{EpochNumber, Result};
use adtally_store::lake::{EpochProjection, Lake};
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
    /// The letter as JSON: see [`Lake::letters`].
    pub json: Vec<u8>,
}

/// Takes dead letters.
pub trait LetterSink: Send + Sync {
    /// Takes letters, and returns when they are safe.
    ///
    /// # Errors
    /// Transient when they may not be safe: all of them are sent again.
    fn send(&self, letters: &[SentLetter]) -> Result<()>;
}

/// The way of dead letters from the lake's files into a sink.
#[derive(Clone)]
pub struct Letters {
    lake: Arc<Lake>,
    sink: Arc<dyn LetterSink>,
}

impl Letters {
    /// From this lake into this sink.
    pub fn new(lake: Arc<Lake>, sink: Arc<dyn LetterSink>) -> Letters {
        Letters { lake, sink }
    }

    /// Sends the letters of committed epochs.
    ///
    /// # Errors
    /// As [`Lake::letters`] and [`LetterSink::send`].
    pub(crate) fn send(&self, runtime: &tokio::runtime::Handle, epochs: &[EpochProjection]) -> Result<()> {
        for EpochProjection { progress, staged, .. } in epochs {
            let letters = runtime.block_on(self.lake.letters(staged))?;
            if letters.is_empty() {
                continue;
            }
            let sent = (0..).zip(letters).map(|(row, json)| SentLetter {
                partition: progress.partition,
                epoch: progress.number,
                row,
                json,
            });
            self.sink.send(&sent.collect::<Vec<_>>())?;
        }
        Ok(())
    }
}
