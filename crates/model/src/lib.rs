//! The vocabulary of Adtally: click, minute, verdict, ledger, epoch.
//!
//! - **Receives** plain values.
//! - **Emits** plain values. Everything here is a pure function of its arguments.
//! - **Promises** that progress is a type: a [`Watermark`] never moves back, a [`Position`] advances only by contiguous
//!   `(from, to]` ranges, and a [`Ledger`] that does not add up is an error.
//! - **Never** does I/O, reads a clock, draws randomness or starts a thread.
//!
//! Times are `i64` milliseconds since the Unix epoch, UTC, unless a name says otherwise.

pub mod click;
pub mod country;
pub mod dead_letter;
pub mod epoch;
pub mod error;
pub mod fold;
pub mod identity;
pub mod input;
pub mod invariant;
pub mod ip;
pub mod ledger;
pub mod position;
pub mod progress;
pub mod reconcile;
pub mod record;
pub mod settings;
pub mod time;

pub use click::{ClickColumns, ClickRef, CountedClicks, DecodedBatch, DecodedRecords};
pub use country::Country;
pub use dead_letter::{DeadLetter, Rejected, Verdict};
pub use epoch::{Base, Epoch, EpochNumber, LiveMinute, MinuteCounts, MinuteIdentities, StagedFile, StagedTable};
pub use error::{Error, ErrorKind, Result};
pub use fold::{Fold, PartitionState};
pub use identity::{Identity, IdentityKey};
pub use input::{FileLog, InputId, InputLog, InputRow, InputStatus, InputTime, LaneId};
pub use invariant::Invariant;
pub use ledger::Ledger;
pub use position::Position;
pub use progress::{Progress, TopicPartition};
pub use reconcile::RECONCILE;
pub use record::{LinePositions, Record, RecordTime};
pub use time::{Frontiers, Minute, MinuteState, Watermark};
