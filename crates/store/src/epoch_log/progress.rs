//! How far reading a log is, told from one thread to others.

use std::sync::atomic::{AtomicU64, Ordering};

/// Records of the epoch log that were read, of those that a start must read.
#[derive(Debug, Default)]
pub struct ReadProgress {
    read: AtomicU64,
    total: AtomicU64,
}

impl ReadProgress {
    /// So many records are about to be read.
    pub fn begin(&self, total: u64) {
        self.read.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    /// One more record was read.
    pub fn advance(&self) {
        self.read.fetch_add(1, Ordering::Relaxed);
    }

    /// Records read, and records to be read in all; the latter is 0 before it is known.
    pub fn get(&self) -> (u64, u64) {
        (self.read.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }
}
