//! Decoding on several cores: blocks go in, and batches come out in order for each input.

use adtally_model::{Error, Result};
use adtally_pipeline::PendingBatch;
use adtally_source::{Decoder, SourceBlock};
use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Most blocks submitted but not yet taken by a worker. The reader's own bound is tighter.
const QUEUE_BLOCKS: usize = 4_096;

/// The batches of a decoded block: one for a block of text, or one for each record.
type Batches = VecDeque<Box<PendingBatch>>;

type Job = (SourceBlock, Sender<Batches>);

/// Worker threads that decode. Without workers, the caller's thread decodes at once.
pub struct DecodePool {
    decoder: Arc<Decoder>,
    jobs: Option<Sender<Job>>,
    finished: Receiver<()>,
    finished_sender: Sender<()>,
}

/// A block that is being decoded.
pub struct Decoding {
    reply: Receiver<Batches>,
}

fn decode(decoder: &Decoder, block: SourceBlock) -> Batches {
    match block {
        SourceBlock::Text(block) => VecDeque::from([Box::new(PendingBatch::new(decoder.decode(block)))]),
        SourceBlock::Records(block) => PendingBatch::of_records(decoder.decode_records(block)).map(Box::new).collect(),
    }
}

impl DecodePool {
    /// Starts `threads` workers.
    ///
    /// # Errors
    /// External when a thread cannot be started.
    pub fn new(decoder: Arc<Decoder>, threads: usize) -> Result<Self> {
        let (finished_sender, finished) = bounded(1);
        let mut pool = DecodePool { decoder, jobs: None, finished, finished_sender };
        if threads > 0 {
            let (jobs, queue) = bounded::<Job>(QUEUE_BLOCKS);
            for number in 0..threads {
                pool.start_worker(number, queue.clone())?;
            }
            pool.jobs = Some(jobs);
        }
        Ok(pool)
    }

    fn start_worker(&self, number: usize, queue: Receiver<Job>) -> Result<()> {
        let (decoder, finished) = (Arc::clone(&self.decoder), self.finished_sender.clone());
        let work = move || {
            for (block, reply) in queue {
                // The reader may have dropped the receiver; then nobody needs the result.
                let _ = reply.send(decode(&decoder, block));
                // One signal is enough, however many batches are ready.
                let _ = finished.try_send(());
            }
        };
        std::thread::Builder::new()
            .name(format!("decode-{number}"))
            .spawn(work)
            .map(|_| ())
            .map_err(|e| Error::external("a decoder thread cannot be started").because(e))
    }

    /// Submits a block.
    ///
    /// # Errors
    /// Internal when the workers are gone.
    pub fn submit(&self, block: SourceBlock) -> Result<Decoding> {
        let (sender, reply) = bounded(1);
        match &self.jobs {
            None => {
                let _ = sender.send(decode(&self.decoder, block));
            }
            Some(jobs) => jobs.send((block, sender)).map_err(|_| Error::internal("the decoder threads are gone"))?,
        }
        Ok(Decoding { reply })
    }

    /// Waits until a batch is finished, or for `timeout`.
    pub fn wait(&self, timeout: Duration) {
        // A timeout needs no handling: the caller checks its batches in both cases.
        let _ = self.finished.recv_timeout(timeout);
    }
}

impl Decoding {
    /// Returns the batches if the block is decoded.
    ///
    /// # Errors
    /// Internal when the decoder panicked on the block.
    pub fn poll(&self) -> Result<Option<Batches>> {
        match self.reply.try_recv() {
            Ok(batches) => Ok(Some(batches)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(Error::internal("a decoder thread died; its message is above")),
        }
    }
}
