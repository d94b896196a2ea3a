//! Checks that the stored data is complete and consistent.
//!
//! The lake's epochs are read first, then the list of records, then the newest record. So the log contains all of the
//! lake's epochs, whatever a running process adds in the meantime. Nothing is created or changed.

mod lake;
mod records;

use adtally_model::{EpochNumber, ErrorKind, IdentityKey, RECONCILE, Result};
use adtally_store::backing::{Backing, EMBEDDED, StoreUrl};
use adtally_store::epoch_log::EpochLog;
use adtally_store::lake::{Lake, TableEpochs};
use records::Scan;
use std::collections::{BTreeMap, BTreeSet};

/// Maximum number of listed differences; the others are only counted.
const FINDINGS_MAX: usize = 50;

/// What was checked, and the findings.
#[derive(Debug, Default)]
pub struct Findings {
    /// The checks that passed, in sentences.
    pub checked: Vec<String>,
    /// The damage and differences, in sentences.
    pub wrong: Vec<String>,
    /// The number of differences that are not listed.
    pub left_off: u64,
}

impl Findings {
    fn wrong(&mut self, what: String) {
        if self.wrong.contains(&what) {
            return;
        }
        if self.wrong.len() < FINDINGS_MAX {
            self.wrong.push(what);
        } else {
            self.left_off += 1;
        }
    }

    /// Converts damage to a finding, so that the other checks continue. Other errors end them.
    fn or_wrong<T>(&mut self, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Internal) => {
                self.wrong(error.report());
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The same, with the partition named in each sentence.
    fn of_partition(self, partition: u32) -> Findings {
        let name =
            |texts: Vec<String>| texts.into_iter().map(|text| format!("partition {partition}: {text}")).collect();
        Findings { checked: name(self.checked), wrong: name(self.wrong), left_off: self.left_off }
    }

    fn absorb(&mut self, more: Findings) {
        self.checked.extend(more.checked);
        more.wrong.into_iter().for_each(|what| self.wrong(what));
        self.left_off += more.left_off;
    }
}

/// Checks a deployment's stores; `key` is the configured identity key, if any.
///
/// # Errors
/// External when the stores cannot be read; damage is a finding.
pub async fn verify(url: &StoreUrl, key: Option<IdentityKey>) -> Result<Findings> {
    let mut findings = Findings::default();
    let backing = Backing::for_reader(url)?;
    let logs = backing.logs();
    let lake = findings.or_wrong(backing.existing_lake().await)?;
    let mut partitions: BTreeSet<u32> = logs.partitions().await?.into_iter().collect();
    if let Some(lake) = &lake
        && let Some(epochs) = findings.or_wrong(lake.epochs().await)?
    {
        // A partition's log may be lost.
        partitions.extend(epochs.iter().map(|(partition, _)| partition));
    }
    if partitions.is_empty() {
        // Checked so that its empty log is reported.
        partitions.insert(EMBEDDED);
    }
    let several = partitions.len() > 1;
    let has_corrections = match &lake {
        Some(lake) => findings.or_wrong(lake.epochs().await)?.is_some_and(|epochs| epochs.last(RECONCILE) > 0),
        None => false,
    };
    let mut scans = BTreeMap::new();
    for partition in partitions {
        let of = (url, lake.as_ref(), key, has_corrections);
        let (found, scan) = verify_partition(&logs.log(partition), of).await?;
        scans.extend(scan.map(|scan| (partition, scan)));
        findings.absorb(if several { found.of_partition(partition) } else { found });
    }
    if let Some(lake) = &lake {
        if has_corrections {
            let checked = lake::check_corrections(lake, &scans, &mut findings).await;
            findings.or_wrong(checked)?;
        }
        let checked = lake::check_rows(lake, &mut findings).await;
        findings.or_wrong(checked)?;
    }
    if let Some(lake) = &lake
        && let Some(wrong) = findings.or_wrong(lake.audit().await)?
    {
        findings.checked.push("the lake's log entries, and the sizes of the files that they name".into());
        wrong.into_iter().for_each(|what| findings.wrong(what));
    }
    Ok(findings)
}

/// Checks one partition's log, and its rows in the lake. Returns the log's content and its last epoch in the lake.
async fn verify_partition(
    log: &EpochLog,
    (url, lake, key, has_corrections): (&StoreUrl, Option<&Lake>, Option<IdentityKey>, bool),
) -> Result<(Findings, Option<(EpochNumber, Scan)>)> {
    let mut findings = Findings::default();
    let held = match lake {
        Some(lake) => what_is_held(log, lake, &mut findings).await?,
        None => None,
    };
    // If the lake's epochs are unknown, no records are expected after them.
    let last = held.as_ref().map_or(u64::MAX, TableEpochs::by_all);
    let scan = records::scan(log, last, &mut findings).await?;
    if let Some(scan) = &scan {
        check_key(url, key, scan, &mut findings)?;
    }
    if let (Some(lake), Some(held), Some(scan)) = (lake, &held, &scan) {
        lake::check(log, lake, held, scan, has_corrections, &mut findings).await?;
    }
    Ok((findings, scan.map(|scan| (last, scan))))
}

/// The epochs of this log in the tables. The log's first record contains its id.
async fn what_is_held(log: &EpochLog, lake: &Lake, findings: &mut Findings) -> Result<Option<TableEpochs>> {
    let first = match findings.or_wrong(log.read(1).await)? {
        Some(Some((first, _))) => Some(first),
        _ => findings.or_wrong(log.newest().await)?.flatten(),
    };
    match first {
        Some(epoch) => findings.or_wrong(lake.held(epoch.progress.log_id, log.partition()).await),
        None => Ok(None),
    }
}

/// Checks the configured key, or else the key in the data directory, against the one with which the log was written.
fn check_key(url: &StoreUrl, key: Option<IdentityKey>, scan: &Scan, findings: &mut Findings) -> Result<()> {
    if let Some(key) = key {
        if key.fingerprint() == scan.key_fingerprint {
            findings.checked.push("the identity key is the log's".into());
        } else {
            findings.wrong(format!(
                "the configured identity.key is not the key that the epoch log was written with (fingerprint {:016x}, the log \
                 has {:016x})",
                key.fingerprint(),
                scan.key_fingerprint
            ));
        }
        return Ok(());
    }
    match findings.or_wrong(url.read_key())?.flatten() {
        Some(key) if key.fingerprint() != scan.key_fingerprint => findings.wrong(format!(
            "{} is not the key that the epoch log was written with (fingerprint {:016x}, the log has {:016x}): restore it \
             from a backup",
            url.key_file().unwrap_or_default().display(),
            key.fingerprint(),
            scan.key_fingerprint
        )),
        Some(_) => findings.checked.push("the identity key is the log's".into()),
        // The key is configured, and not available here.
        None => {}
    }
    Ok(())
}
