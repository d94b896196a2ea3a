//! Revisions: the epochs of an answer.

use adtally_model::{EpochNumber, Progress};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// The first byte of a token: its format.
const FORMAT: u8 = 1;

/// The epoch of each partition in an answer. Committed answers to one question at one revision are equal, byte for
/// byte.
///
/// Its text is an opaque token that clients keep and send back: URL-safe Base64 (RFC 4648, section 5) of a format byte
/// and of each partition's number, log and epoch in `postcard` encoding.
///
/// ```
/// # use adtally_model::Progress;
/// # use adtally_store::questions::{Reached, Revision};
/// let early = Revision::of([&Progress { log_id: 7, number: 3, ..Progress::default() }]);
/// let late = Revision::of([&Progress { log_id: 7, number: 4, ..Progress::default() }]);
/// assert_eq!(early.to_string().parse(), Ok(early.clone()));
/// assert_eq!(late.reached(&early), Reached::Yes);
/// assert_eq!(early.reached(&late), Reached::NotYet);
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Revision {
    /// The log and the epoch of each partition.
    epochs: BTreeMap<u32, (u128, EpochNumber)>,
}

/// Whether a node has reached a revision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reached {
    /// It has, in every partition.
    Yes,
    /// It is behind in some partition.
    NotYet,
    /// A partition now has another epoch log, so it never will.
    Never,
}

/// The error for a text that is not a revision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoRevision;

impl Revision {
    /// The revision of this progress of partitions; those without a log are omitted.
    pub fn of<'a>(partitions: impl IntoIterator<Item = &'a Progress>) -> Revision {
        let with_log = partitions.into_iter().filter(|progress| progress.log_id != 0);
        Revision { epochs: with_log.map(|of| (of.partition, (of.log_id, of.number))).collect() }
    }

    /// The last epoch of each partition.
    pub fn epochs(&self) -> impl Iterator<Item = (u32, EpochNumber)> + '_ {
        self.epochs.iter().map(|(&partition, &(_, epoch))| (partition, epoch))
    }

    /// Whether partitions that both have are of the same logs, and the other has no more partitions.
    pub fn shares_logs(&self, other: &Revision) -> bool {
        let same = |(partition, (log_id, _)): (&u32, &(u128, EpochNumber))| {
            self.epochs.get(partition).is_some_and(|(own, _)| own == log_id)
        };
        other.epochs.iter().all(same)
    }

    /// The revision of the same logs at other epochs. Partitions without an epoch are omitted.
    #[must_use]
    pub fn at(&self, epochs: impl IntoIterator<Item = (u32, EpochNumber)>) -> Revision {
        let at = |(partition, epoch)| Some((partition, (self.epochs.get(&partition)?.0, epoch)));
        Revision { epochs: epochs.into_iter().filter_map(at).collect() }
    }

    /// The same, or `None` if it has no partition: before the first epoch there is no state to ask for again.
    pub fn if_any(self) -> Option<Revision> {
        if self.epochs.is_empty() { None } else { Some(self) }
    }

    /// Whether this revision has reached another.
    pub fn reached(&self, other: &Revision) -> Reached {
        let mut reached = Reached::Yes;
        for (partition, (log_id, epoch)) in &other.epochs {
            match self.epochs.get(partition) {
                Some((own, _)) if own != log_id => return Reached::Never,
                Some((_, own)) if own >= epoch => {}
                Some(_) | None => reached = Reached::NotYet,
            }
        }
        reached
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let epochs: Vec<(u32, u128, EpochNumber)> =
            self.epochs.iter().map(|(&partition, &(log_id, epoch))| (partition, log_id, epoch)).collect();
        let bytes = postcard::to_extend(&epochs, vec![FORMAT]).map_err(|_| fmt::Error)?;
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for Revision {
    type Err = NoRevision;

    fn from_str(text: &str) -> Result<Revision, NoRevision> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| NoRevision)?;
        let Some((&FORMAT, rest)) = bytes.split_first() else { return Err(NoRevision) };
        let epochs: Vec<(u32, u128, EpochNumber)> = postcard::from_bytes(rest).map_err(|_| NoRevision)?;
        let epochs = epochs.into_iter().map(|(partition, log_id, epoch)| (partition, (log_id, epoch)));
        let revision = Revision { epochs: epochs.collect() };
        // An altered text may still decode to a value.
        if revision.to_string() == text { Ok(revision) } else { Err(NoRevision) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::btree_map;
    use proptest::prelude::*;

    fn any_revision() -> impl Strategy<Value = Revision> {
        btree_map(any::<u32>(), (any::<u128>(), any::<u64>()), 1..5).prop_map(|epochs| Revision { epochs })
    }

    proptest! {
        #[test]
        fn a_token_is_read_back(revision in any_revision()) {
            prop_assert_eq!(revision.to_string().parse(), Ok(revision));
        }

        /// Any text from a client is rejected or denotes one revision.
        #[test]
        fn any_text_is_refused_or_a_token(text in ".{0,60}|[A-Za-z0-9_-]{0,60}", revision in any_revision(), cut: prop::sample::Index) {
            if let Ok(read) = text.parse::<Revision>() {
                prop_assert_eq!(read.to_string(), text);
            }
            let token = revision.to_string();
            let cut = &token[..cut.index(token.len())];
            prop_assert_eq!(cut.parse::<Revision>(), Err(NoRevision));
        }
    }

    #[test]
    fn a_revision_is_reached_in_every_partition_or_not_at_all() {
        let at = |epochs: &[(u32, u128, u64)]| Revision {
            epochs: epochs.iter().map(|&(partition, log_id, epoch)| (partition, (log_id, epoch))).collect(),
        };
        let check = |own: &[(u32, u128, u64)], wanted: &[(u32, u128, u64)], expected| {
            assert_eq!(at(own).reached(&at(wanted)), expected, "{own:?} {wanted:?}");
        };
        check(&[(0, 7, 5), (1, 8, 2)], &[(0, 7, 5)], Reached::Yes);
        check(&[(0, 7, 5), (1, 8, 2)], &[(0, 7, 4), (1, 8, 2)], Reached::Yes);
        check(&[(0, 7, 5), (1, 8, 2)], &[(0, 7, 4), (1, 8, 3)], Reached::NotYet);
        check(&[(0, 7, 5)], &[(1, 8, 1)], Reached::NotYet);
        check(&[(0, 7, 5), (1, 8, 2)], &[(0, 7, 6), (1, 9, 1)], Reached::Never);
    }
}
