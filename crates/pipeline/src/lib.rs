//! The pipeline decides the verdict of each line: one stage per file, synchronous, batch in, batch out.
//!
//! alignment -> `future` -> `watermark` -> `lateness` -> `deduplicate` -> `tumbling_window` -> ledger; then the
//! frontiers move. `partition/judge.rs` takes a batch through these stages.
//!
//! - **Receives** decoded batches, a clock reading with each call, and the discoveries of the source.
//! - **Emits** an [`EpochDraft`] at the end of each epoch: everything that the epoch changes.
//! - **Promises** one verdict per line; that no identity is counted twice while its minute is live; that a final minute
//!   never changes; and that the counts depend only on the sequence of lines in each input, not on how inputs, batches
//!   and epochs interleave (except for `future`, and while no input becomes idle, appears or ends midway).
//! - **Never** does I/O, reads a clock, starts a thread or waits.

pub mod clock_guard;
pub mod deduplicate;
pub mod epoch_draft;
pub mod frontier;
pub mod future;
mod identity_set;
mod inputs;
mod lateness;
pub mod partition;
pub mod pending_batch;
pub mod settings;
pub mod tumbling_window;
mod verdicts;
pub mod watermark;

pub use clock_guard::{ClockGuard, ClockReading};
pub use epoch_draft::EpochDraft;
pub use partition::{Gap, Judged, Partition, RunEnd, Stopped};
pub use pending_batch::PendingBatch;
pub use settings::TimeSettings;
