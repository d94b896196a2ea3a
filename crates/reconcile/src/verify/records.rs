//! Checks the epoch log: every needed record, the chain, and the fold.

use super::Findings;
use adtally_model::epoch::{base_before, fold_start};
use adtally_model::reconcile::{Cause, Corrected, Intake};
use adtally_model::{
    Epoch, EpochNumber, Error, ErrorKind, Fold, Invariant, Ledger, Minute, MinuteCounts, PartitionState, Result,
    StagedTable,
};
use adtally_store::epoch_log::EpochLog;
use adtally_store::lake::Table;
use std::collections::BTreeMap;

/// How often the log is read again because its owner deleted records in the meantime. Each time it has grown by dozens.
const SCANS_MAX: u32 = 8;

/// The content of the log.
pub(super) struct Scan {
    /// The newest record.
    pub(super) head: EpochNumber,
    /// The lowest record that is needed.
    pub(super) oldest: EpochNumber,
    /// The fingerprint of the key with which it was written.
    pub(super) key_fingerprint: u64,
    /// The needed records that are sound.
    pub(super) records: BTreeMap<EpochNumber, Facts>,
    /// The state at the newest record; `None` if damage prevents it.
    pub(super) state: Option<PartitionState>,
    /// Counts of live minutes in epochs that are not in the lake.
    pub(super) after_lake: BTreeMap<Minute, Vec<MinuteCounts>>,
}

/// Facts of a record that the lake must match.
pub(super) struct Facts {
    /// The partition's lines.
    pub(super) ledger: Ledger,
    /// The signed sum of its counts by minute.
    pub(super) counts: i64,
    /// The signed sum of its rows of clicks.
    pub(super) clicks: i64,
    /// Staged rows of clicks and of dead letters.
    pub(super) staged: (u64, u64),
    /// All corrections so far, by cause; empty but for the partition `reconcile`.
    pub(super) corrected: BTreeMap<Cause, Corrected>,
    /// The lines that were taken in so far.
    pub(super) intake: Intake,
    /// The first counted minute, and the clock.
    pub(super) begins: (Option<Minute>, i64),
}

impl Facts {
    /// The earliest possible time of its rows in a table, in milliseconds.
    pub(super) fn oldest_ms(&self, table: Table) -> i64 {
        match table {
            // The lines were read during the epoch, which takes minutes at most.
            Table::DeadLetters => self.begins.1 - 3_600_000,
            _ => self.begins.0.map_or(i64::MAX, Minute::start_ms),
        }
    }
}

/// Reads the log; `held` is its last epoch in the lake. Returns `None` if no record can be read.
pub(super) async fn scan(log: &EpochLog, held: EpochNumber, findings: &mut Findings) -> Result<Option<Scan>> {
    for _ in 0..SCANS_MAX {
        let numbers = log.numbers().await?;
        let Some(&head) = numbers.last() else {
            findings.wrong("the epoch log is empty: restore the folder `epochs` from a backup".into());
            return Ok(None);
        };
        let newest = match findings.or_wrong(log.read(head).await)? {
            Some(Some((newest, _))) => newest,
            Some(None) => continue,
            // Which records it needs is unknown; the earlier records are checked nevertheless.
            None => return damaged_end(log, &numbers, findings).await.map(|()| None),
        };
        let mut found = Findings::default();
        if let Some(scan) = read_records(log, newest, held, &mut found).await? {
            findings.absorb(found);
            return Ok(Some(scan));
        }
    }
    Err(Error::transient("the epoch records are deleted faster than they are read: try again"))
}

/// Reports which records are damaged when the newest one is.
async fn damaged_end(log: &EpochLog, numbers: &[EpochNumber], findings: &mut Findings) -> Result<()> {
    for &number in numbers {
        findings.or_wrong(log.read(number).await)?;
    }
    Ok(())
}

/// Reads every needed record; `None` if the owner has deleted one in the meantime.
async fn read_records(
    log: &EpochLog,
    newest: Epoch,
    held: EpochNumber,
    findings: &mut Findings,
) -> Result<Option<Scan>> {
    let head = newest.progress.number;
    let oldest = newest.oldest_needed.clamp(1, fold_start(head));
    if oldest != newest.oldest_needed {
        findings.wrong(format!(
            "epoch {head} says that records are needed from {} on, but its fold begins at {}",
            newest.oldest_needed,
            fold_start(head)
        ));
    }
    let mut scan = Scan {
        head,
        oldest,
        key_fingerprint: newest.key_fingerprint,
        records: BTreeMap::new(),
        state: None,
        after_lake: BTreeMap::new(),
    };
    let mut fold = begin_fold(log, head, findings).await?;
    let mut before: Option<(EpochNumber, u128)> = None;
    for number in (oldest > 1).then_some(1).into_iter().chain(oldest..=head) {
        let Some((epoch, checksum)) = findings.or_wrong(log.read(number).await)?.flatten() else {
            if is_deleted(log, number).await? {
                return Ok(None);
            }
            if !findings.wrong.iter().any(|what| what.contains(log.path(number).as_ref())) {
                findings.wrong(format!("epoch record {} is missing: restore it from a backup", log.path(number)));
            }
            // The fold needs all records from its start.
            fold = fold.filter(|_| number < fold_start(head));
            continue;
        };
        check_record(&epoch, &newest, before, findings);
        if number >= fold_start(head) {
            fold = match fold {
                Some(mut fold) => findings.or_wrong(fold.apply(&epoch, checksum))?.map(|()| fold),
                None => None,
            };
        }
        scan.add(epoch, held, &newest);
        before = Some((number, checksum));
    }
    findings.checked.push(format!("{} epoch records: checksums, chain, conservation", scan.records.len()));
    if let Some(fold) = fold {
        scan.state = findings.or_wrong(fold.finish())?;
    }
    if let Some(state) = &scan.state {
        findings.checked.push(format!("the fold up to epoch {head}: {}", state.progress.ledger));
        let Ledger { gap_bytes, gap_offsets, .. } = state.progress.ledger;
        for (gap, unit) in [(gap_bytes, "bytes"), (gap_offsets, "offsets of the topic")] {
            if gap > 0 {
                findings.checked.push(format!("{gap} {unit} could never be read; the gap is in the ledger"));
            }
        }
    }
    Ok(Some(scan))
}

async fn begin_fold(log: &EpochLog, head: EpochNumber, findings: &mut Findings) -> Result<Option<Fold>> {
    let base = match base_before(head) {
        None => None,
        Some(number) => match findings.or_wrong(log.read(number).await)?.flatten() {
            Some((base, _)) => Some(base),
            // It is reported when the records are read in order.
            None => return Ok(None),
        },
    };
    findings.or_wrong(Fold::new(head, base.as_ref()))
}

/// Whether a record is missing because the log has advanced.
async fn is_deleted(log: &EpochLog, number: EpochNumber) -> Result<bool> {
    match log.is_superfluous(number).await {
        Err(error) if error.kind() == ErrorKind::Corrupt => Ok(false),
        other => other,
    }
}

fn check_record(epoch: &Epoch, newest: &Epoch, before: Option<(EpochNumber, u128)>, findings: &mut Findings) {
    let number = epoch.progress.number;
    let follows = before.is_none_or(|(last, checksum)| last + 1 != number || checksum == epoch.predecessor);
    if !follows || epoch.progress.log_id != newest.progress.log_id {
        findings.wrong(format!("epoch {number} does not follow epoch {}: {}", number - 1, Invariant::LinearChain));
    }
    if epoch.key_fingerprint != newest.key_fingerprint {
        findings.wrong(format!(
            "epoch {number} was written with another identity key than epoch {}",
            newest.progress.number
        ));
    }
    if let Err(error) = epoch.progress.ledger.check("the partition") {
        findings.wrong(format!("epoch {number}: {}", error.report()));
    }
}

impl Scan {
    fn add(&mut self, epoch: Epoch, held: EpochNumber, newest: &Epoch) {
        let rows = |table| epoch.staged.iter().filter(|file| file.table == table).map(|file| file.rows).sum();
        let correction = epoch.reconcile.as_ref().and_then(|record| record.correction.as_ref());
        let counts: i64 = epoch.counts.iter().map(MinuteCounts::total).sum();
        let (counts, clicks) = match correction.map(|correction| correction.cause) {
            // A correction of counts by hour or day alone, or of counts by minute alone.
            Some(Cause::HourCount | Cause::DayCount) => (0, 0),
            Some(Cause::Count) => (counts, 0),
            _ => (counts, counts),
        };
        let facts = Facts {
            ledger: epoch.progress.ledger,
            counts,
            clicks,
            staged: (rows(StagedTable::Clicks), rows(StagedTable::DeadLetters)),
            corrected: epoch.reconcile.as_ref().map(|record| record.state.corrected.clone()).unwrap_or_default(),
            intake: epoch.reconcile.as_ref().map(|record| record.state.intake).unwrap_or_default(),
            begins: (epoch.counts.iter().map(|counts| counts.minute).min(), epoch.progress.clock_ms),
        };
        self.records.insert(epoch.progress.number, facts);
        if epoch.progress.number > held {
            for counts in epoch.counts.into_iter().filter(|counts| newest.progress.frontiers.is_live(counts.minute)) {
                self.after_lake.entry(counts.minute).or_default().push(counts);
            }
        }
    }

    /// Whether all records in a range are sound.
    pub(super) fn has_all(&self, mut range: std::ops::RangeInclusive<EpochNumber>) -> bool {
        range.all(|number| self.records.contains_key(&number))
    }
}
