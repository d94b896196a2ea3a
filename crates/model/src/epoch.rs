//! Epochs: the unit of commit.

use crate::reconcile::ReconcileRecord;
use crate::{Country, Identity, InputRow, Minute, Progress};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Number of an epoch in its partition's log, from 1.
pub type EpochNumber = u64;

/// Every record whose number is a multiple of this is a base.
pub const BASE_EVERY: EpochNumber = 64;

/// How many records before the latest base the fold begins.
pub const FOLD_BEFORE_BASE: EpochNumber = 128;

/// The number of newest records that are never deleted.
pub const RECORDS_KEPT: EpochNumber = 64;

/// Everything that one epoch changes. Creating its record in the epoch log is the commit.
#[derive(Clone, Debug, PartialEq)]
pub struct Epoch {
    /// The partition's progress at the end of the epoch.
    pub progress: Progress,
    /// The writer: a random number per process start.
    pub writer: u128,
    /// Checksum of the previous record; 0 for the first.
    pub predecessor: u128,
    /// The oldest record that a reader or a store still needs.
    pub oldest_needed: EpochNumber,
    /// Whether the epoch only takes possession of the partition.
    pub claim: bool,
    /// The inputs that the epoch touched.
    pub inputs: Vec<Arc<InputRow>>,
    /// Clicks counted in the epoch, by minute in ascending order.
    pub counts: Vec<MinuteCounts>,
    /// Identities of the clicks counted in the epoch, by minute in ascending order.
    pub identities: Vec<MinuteIdentities>,
    /// Files staged for the lake. They become part of it once this record exists.
    pub staged: Vec<StagedFile>,
    /// Fingerprint of the settings that affect verdicts.
    pub config_fingerprint: u64,
    /// Fingerprint of the identity key.
    pub key_fingerprint: u64,
    /// Reason and state; only in the records of the partition `reconcile`.
    pub reconcile: Option<Arc<ReconcileRecord>>,
    /// State that is repeated so that older records can be deleted; in every [`BASE_EVERY`]th record.
    pub base: Option<Box<Base>>,
}

/// State that is repeated in a base record, as of the end of that record.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Base {
    /// All inputs.
    pub inputs: Vec<Arc<InputRow>>,
    /// Live minutes that began more than [`FOLD_BEFORE_BASE`] records before.
    pub minutes: Vec<LiveMinute>,
}

/// A minute whose identities are kept.
#[derive(Clone, Debug, PartialEq)]
pub struct LiveMinute {
    /// The record that counted its first click.
    pub begun: EpochNumber,
    /// Identities of all its clicks.
    pub identities: MinuteIdentities,
    /// All its clicks.
    pub counts: MinuteCounts,
}

/// Clicks of one minute by ad and country: columns of equal length, sorted by (`ad_id`, `country`), each pair once.
/// They are changes: an epoch adds clicks, and a correction may subtract clicks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MinuteCounts {
    /// The minute.
    pub minute: Minute,
    /// Ads.
    pub ad_id: Vec<u64>,
    /// Countries.
    pub country: Vec<Country>,
    /// Clicks: negative if more are subtracted than added; never 0.
    pub clicks: Vec<i64>,
}

/// The distinct identities of one minute, in no particular order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MinuteIdentities {
    /// The minute.
    pub minute: Minute,
    /// The identities.
    pub identities: Vec<Identity>,
}

/// The lake table of a staged file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum StagedTable {
    /// `clicks`.
    Clicks,
    /// `dead_letters`.
    DeadLetters,
}

/// A Parquet file that is written but not yet referenced by its table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedFile {
    /// Its table.
    pub table: StagedTable,
    /// Path below the table's folder.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// Number of rows.
    pub rows: u64,
    /// Hive partition values, in the order of the table's partition columns.
    pub partition_values: Vec<(String, String)>,
    /// Least and largest event time of its rows; `None` without event times.
    pub event_time_ms: Option<(i64, i64)>,
    /// Delta statistics as JSON (Delta protocol, "Per-file Statistics").
    pub stats: String,
    /// The sum of the hashes of its rows, for a file of `clicks`; `None` in records of earlier versions. Not part of
    /// format 1.
    #[serde(skip)]
    pub row_hash_sum: Option<i64>,
}

impl MinuteCounts {
    /// No clicks.
    pub const fn empty(minute: Minute) -> Self {
        MinuteCounts { minute, ad_id: Vec::new(), country: Vec::new(), clicks: Vec::new() }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.ad_id.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.ad_id.is_empty()
    }

    /// Appends a row, which must be greater than the last row by (`ad_id`, `country`).
    #[inline]
    pub fn push(&mut self, ad_id: u64, country: Country, clicks: i64) {
        self.ad_id.push(ad_id);
        self.country.push(country);
        self.clicks.push(clicks);
    }

    /// The rows as (ad, country, clicks).
    pub fn rows(&self) -> impl Iterator<Item = (u64, Country, i64)> + '_ {
        self.ad_id.iter().zip(&self.country).zip(&self.clicks).map(|((&ad, &country), &clicks)| (ad, country, clicks))
    }

    /// Total of clicks.
    pub fn total(&self) -> i64 {
        self.clicks.iter().sum()
    }

    /// The sum of two: all rows, with equal pairs added. A pair whose clicks sum to 0 has no row.
    ///
    /// ```
    /// # use adtally_model::{Country, Minute, MinuteCounts};
    /// let (us, de) = (Country::parse(b"US"), Country::parse(b"DE"));
    /// let mut one = MinuteCounts::empty(Minute(1));
    /// one.push(7, us, 2);
    /// let mut two = MinuteCounts::empty(Minute(1));
    /// two.push(7, de, 1);
    /// two.push(7, us, 3);
    /// assert_eq!(one.merge(&two).rows().collect::<Vec<_>>(), [(7, de, 1), (7, us, 5)]);
    /// ```
    #[must_use]
    pub fn merge(&self, other: &MinuteCounts) -> MinuteCounts {
        let capacity = self.len() + other.len();
        let mut sum = MinuteCounts {
            minute: self.minute,
            ad_id: Vec::with_capacity(capacity),
            country: Vec::with_capacity(capacity),
            clicks: Vec::with_capacity(capacity),
        };
        let (mut left, mut right) = (self.rows().peekable(), other.rows().peekable());
        loop {
            let row = match (left.peek(), right.peek()) {
                (Some(l), Some(r)) => match (l.0, l.1).cmp(&(r.0, r.1)) {
                    std::cmp::Ordering::Less => left.next(),
                    std::cmp::Ordering::Greater => right.next(),
                    std::cmp::Ordering::Equal => {
                        let row = (l.0, l.1, l.2 + r.2);
                        left.next();
                        right.next();
                        Some(row)
                    }
                },
                (Some(_), None) => left.next(),
                (None, _) => right.next(),
            };
            let Some((ad, country, clicks)) = row else { return sum };
            if clicks != 0 {
                sum.push(ad, country, clicks);
            }
        }
    }
}

/// The latest base at or before a record, if there is one.
pub const fn base_before(number: EpochNumber) -> Option<EpochNumber> {
    match number / BASE_EVERY * BASE_EVERY {
        0 => None,
        base => Some(base),
    }
}

/// The first record of the fold for the state at `number`.
///
/// ```
/// # use adtally_model::epoch::fold_start;
/// assert_eq!(fold_start(1), 1);
/// assert_eq!(fold_start(191), 1);
/// assert_eq!(fold_start(192), 64);
/// assert_eq!(fold_start(255), 64);
/// assert_eq!(fold_start(256), 128);
/// ```
pub const fn fold_start(number: EpochNumber) -> EpochNumber {
    match base_before(number) {
        Some(base) if base > FOLD_BEFORE_BASE => base - FOLD_BEFORE_BASE,
        _ => 1,
    }
}
