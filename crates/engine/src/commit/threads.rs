//! A committer on threads: one encodes, the other records.

use super::{Committer, EncodedEpoch};
use crate::ingest::EpochSink;
use adtally_model::{Error, Result};
use adtally_pipeline::EpochDraft;
use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often an owner that has nothing to write checks that nobody has taken its partition over.
const OWNER_CHECK: Duration = Duration::from_secs(10);

/// Marks the encoder as no longer busy, also if it panics, so that the next submit detects the dead thread.
struct Done(Arc<AtomicBool>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// A committer on its own threads: while one epoch is built, the previous one is encoded and the one before that is
/// recorded.
pub struct CommitThreads {
    busy: Arc<AtomicBool>,
    drafts: Option<Sender<EpochDraft>>,
    encoding: Option<JoinHandle<Result<()>>>,
    recording: Option<JoinHandle<Result<()>>>,
}

impl CommitThreads {
    /// Starts the threads.
    ///
    /// # Errors
    /// External when a thread cannot be started.
    pub fn start(committer: Committer) -> Result<Self> {
        let Committer { encoder, mut recorder } = committer;
        // Unbuffered: at most three epochs are in flight.
        let (drafts, queue) = bounded::<EpochDraft>(0);
        let (encoded, ready) = bounded::<EncodedEpoch>(0);
        let busy = Arc::new(AtomicBool::new(false));
        let done = Done(Arc::clone(&busy));
        let encoding = start_thread("encode", move || {
            for draft in queue {
                // The recorder has ended; its own result says why.
                if encoded.send(encoder.encode(draft)?).is_err() {
                    break;
                }
                done.0.store(false, Ordering::Release);
            }
            Ok(())
        })?;
        let recording = start_thread("record", move || {
            loop {
                match ready.recv_timeout(OWNER_CHECK) {
                    Ok(epoch) => recorder.record(epoch)?,
                    Err(RecvTimeoutError::Timeout) => recorder.check_owner()?,
                    Err(RecvTimeoutError::Disconnected) => return Ok(()),
                }
            }
        })?;
        Ok(CommitThreads { busy, drafts: Some(drafts), encoding: Some(encoding), recording: Some(recording) })
    }

    fn join(&mut self) -> Result<()> {
        self.drafts = None;
        // The encoder ends first: by itself, or because the recorder has ended.
        let encoded = join(self.encoding.take(), "encoder");
        join(self.recording.take(), "recorder").and(encoded)
    }
}

fn start_thread(name: &str, work: impl FnOnce() -> Result<()> + Send + 'static) -> Result<JoinHandle<Result<()>>> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .stack_size(8 << 20)
        .spawn(work)
        .map_err(|e| Error::external(format!("the thread `{name}` cannot be started")).because(e))
}

fn join(thread: Option<JoinHandle<Result<()>>>, name: &str) -> Result<()> {
    match thread.map(JoinHandle::join) {
        Some(Ok(result)) => result,
        Some(Err(_)) => Err(Error::internal(format!("the {name} panicked; its message is above"))),
        None => Err(Error::internal(format!("the {name} has already ended"))),
    }
}

impl EpochSink for CommitThreads {
    fn is_ready(&self) -> bool {
        !self.busy.load(Ordering::Acquire)
    }

    fn check(&mut self) -> Result<()> {
        match &self.recording {
            Some(recording) if recording.is_finished() => {
                self.join().and(Err(Error::internal("the committer has ended early")))
            }
            _ => Ok(()),
        }
    }

    fn submit(&mut self, draft: EpochDraft) -> Result<()> {
        // The encoder detects a dead recorder only when it passes this epoch on; this thread only with the next epoch.
        let is_recording = self.recording.as_ref().is_some_and(|recording| !recording.is_finished());
        // Set before the encoder can finish the epoch.
        self.busy.store(true, Ordering::Release);
        let sent = is_recording && self.drafts.as_ref().is_some_and(|drafts| drafts.send(draft).is_ok());
        if sent {
            return Ok(());
        }
        self.join().and(Err(Error::internal("the committer has ended early")))
    }

    fn finish(&mut self) -> Result<bool> {
        self.join().map(|()| true)
    }
}
