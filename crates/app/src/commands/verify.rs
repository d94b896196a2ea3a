//! `adtally verify`: whether what is stored is whole and agrees with itself.

use super::{existing, runtime};
use crate::cli::DataDirArg;
use crate::exit::Exit;
use crate::run::service::{Stores, open_stores};
use crate::terminal;
use adtally_model::{Error, ErrorKind, Invariant, Minute, MinuteCounts, PartitionState, Result};
use adtally_store::lake::Epochs;
use clap::Args;
use serde_json::json;
use std::collections::BTreeMap;

/// Differences that are listed, the first; the rest is counted.
const FINDINGS_MAX: usize = 50;

/// Rows of counts that should be in memory at a time; the span compared is adapted to it.
const ROWS_AT_ONCE: usize = 2_000_000;

/// Check the stored data: checksums, chain, conservation, and that lake, log and raw clicks agree.
#[derive(Debug, Args)]
#[command(after_help = "Works beside a running `run`. Exits with 3 when something is damaged or differs.")]
pub struct VerifyArgs {
    /// Where the data is.
    #[command(flatten)]
    pub data_dir: DataDirArg,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
}

/// What was looked at and what was found.
#[derive(Debug, Default)]
struct Findings {
    checked: Vec<String>,
    wrong: Vec<String>,
    left_off: u64,
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
}

/// Runs the command.
///
/// # Errors
/// External when the stores cannot be read; what is damaged is reported, not returned.
pub fn verify(args: &VerifyArgs) -> Result<Exit> {
    existing(&args.data_dir.data_dir)?;
    let runtime = runtime()?;
    let mut findings = Findings::default();
    let checked = runtime.block_on(async {
        let stores = open_stores(&args.data_dir.data_dir, true).await?;
        check(&stores, &mut findings).await
    });
    match checked {
        Ok(()) => {}
        Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Internal) => {
            findings.wrong(error.report())
        }
        Err(error) => return Err(error),
    }
    let sound = findings.wrong.is_empty();
    if args.json {
        let report = json!({ "sound": sound, "checked": findings.checked, "wrong": findings.wrong, "left_off": findings.left_off });
        terminal::print(&format!("{report}\n"))?;
    } else {
        let mut text = String::new();
        for line in &findings.checked {
            text.push_str(&format!("ok     {line}\n"));
        }
        for line in &findings.wrong {
            text.push_str(&format!("WRONG  {line}\n"));
        }
        if findings.left_off > 0 {
            text.push_str(&format!("WRONG  and {} more\n", findings.left_off));
        }
        text.push_str(if sound { "everything agrees\n" } else { "the data is damaged or disagrees\n" });
        terminal::print(&text)?;
    }
    Ok(if sound { Exit::Success } else { Exit::Damaged })
}

async fn check(stores: &Stores, findings: &mut Findings) -> Result<()> {
    let partition = stores.log.partition();
    // The lake first: what it holds now, the log holds as well, whatever a running process adds meanwhile.
    let numbers = stores.log.numbers().await?;
    let Some(&newest) = numbers.last() else {
        return Err(Error::corrupt("the epoch log is empty: restore the folder `epochs` from a backup"));
    };
    let Some((first, _)) = stores.log.read(1).await? else {
        return Err(Error::corrupt("epoch record 1, which names the log, is missing: restore it from a backup"));
    };
    let tables = stores.lake.held(first.log_id, partition).await?;
    let held = tables.by_all();
    check_records(stores, &numbers, findings).await?;
    // Tables that lag are brought level by the next run, as long as the log has the records for it.
    let mut oldest = newest;
    while oldest > 1 && numbers.binary_search(&(oldest - 1)).is_ok() {
        oldest -= 1;
    }
    for (table, epoch) in &tables.tables {
        let epoch = epoch.unwrap_or_default();
        if epoch + 1 < oldest {
            findings.wrong(format!(
                "the lake table `{table}` holds epochs up to {epoch}, but the log begins at {oldest}: the table was lost or \
                 replaced; restore its folder from a backup"
            ));
        } else if epoch > held {
            findings
                .checked
                .push(format!("`{table}` is at epoch {epoch}, others at {held}: the next run brings them level"));
        }
    }

    let mut after_lake: BTreeMap<Minute, Vec<MinuteCounts>> = BTreeMap::new();
    let state = stores
        .log
        .fold(|epoch| {
            if epoch.number > held {
                for counts in &epoch.counts {
                    after_lake.entry(counts.minute).or_default().push(counts.clone());
                }
            }
        })
        .await?
        .ok_or_else(|| Error::corrupt("the epoch log is empty"))?;
    findings.checked.push(format!("the fold up to epoch {}: {}", state.number, terminal::sum_line(&state.ledger)));
    if state.ledger.gap_bytes > 0 {
        findings
            .checked
            .push(format!("{} bytes could never be read; the gap is in the ledger", state.ledger.gap_bytes));
    }
    if newest < held {
        findings.wrong(format!("the lake holds epoch {held}, the log ends at {newest}: records are missing"));
    }
    check_live(stores, &state, held, &after_lake, findings).await?;
    check_lake(stores, held, findings).await?;
    check_ledger(stores, held, findings).await
}

/// Every record: checksum, chain, conservation.
async fn check_records(stores: &Stores, numbers: &[u64], findings: &mut Findings) -> Result<()> {
    let mut before: Option<(u64, u128)> = None;
    let mut sound = 0_u64;
    for &number in numbers {
        let (epoch, checksum) = match stores.log.read(number).await {
            Ok(Some(found)) => found,
            // Collected since it was listed.
            Ok(None) => continue,
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                findings.wrong(error.report());
                before = None;
                continue;
            }
            Err(error) => return Err(error),
        };
        let follows = before.is_none_or(|(last, sum)| last + 1 != number || sum == epoch.predecessor);
        if !follows {
            findings.wrong(format!("epoch {number} does not follow epoch {}: {}", number - 1, Invariant::LinearChain));
        }
        if let Err(error) = epoch.ledger.check("the partition") {
            findings.wrong(format!("epoch {number}: {}", error.report()));
        }
        let hole = before.is_some_and(|(last, _)| last != 1 && last + 1 != number);
        if hole {
            findings.wrong(format!("records between {} and {number} are missing", before.map_or(0, |(last, _)| last)));
        }
        before = Some((number, checksum));
        sound += 1;
    }
    findings.checked.push(format!("{sound} epoch records: checksums, chain, conservation"));
    Ok(())
}

/// Counts of live minutes: the fold of the log against the lake and what it does not hold yet.
async fn check_live(
    stores: &Stores,
    state: &PartitionState,
    held: u64,
    after_lake: &BTreeMap<Minute, Vec<MinuteCounts>>,
    findings: &mut Findings,
) -> Result<()> {
    let upto = Epochs::of(stores.log.partition(), held);
    let mut compared = 0_u64;
    for (&minute, folded) in &state.live {
        let lake = stores.lake.counts(minute, minute.next(), Some(&upto)).await?;
        let mut parts = lake.minutes;
        parts.extend(after_lake.get(&minute).into_iter().flatten().cloned());
        let lake = adtally_model::fold::merge_all(minute, parts);
        let log = adtally_model::fold::merge_all(minute, folded.counts.clone());
        if lake != log {
            findings.wrong(format!(
                "minute {}: the lake (with epochs after {held}) counts {} clicks, the log {}",
                adtally_model::time::rfc3339(minute.start_ms()),
                lake.total(),
                log.total()
            ));
        }
        let identities = folded.identities.len() as u64;
        if identities != log.total() {
            findings.wrong(format!(
                "minute {}: {identities} identities are held for {} clicks: {}",
                adtally_model::time::rfc3339(minute.start_ms()),
                log.total(),
                Invariant::NoDoubleCount
            ));
        }
        compared += 1;
    }
    findings.checked.push(format!("{compared} live minutes: lake = fold of the log, an identity for each click"));
    Ok(())
}

/// Every minute of the lake: counts against the recount of raw clicks.
async fn check_lake(stores: &Stores, held: u64, findings: &mut Findings) -> Result<()> {
    let upto = Epochs::of(stores.log.partition(), held);
    let Some((mut from, to)) = stores.lake.minutes().await? else {
        findings.checked.push("the lake holds no clicks yet".into());
        return Ok(());
    };
    let (mut clicks, mut minutes) = (0_u64, 60);
    while from < to {
        let until = Minute(from.0.saturating_add(minutes).min(to.0));
        let counts = stores.lake.counts(from, until, Some(&upto)).await?.minutes;
        let recount = stores.lake.recount(from, until, Some(&upto)).await?.minutes;
        let by_minute = |of: &[MinuteCounts]| of.iter().map(|counts| (counts.minute, counts.clone())).collect();
        let (counted, recounted): (BTreeMap<_, _>, BTreeMap<_, _>) = (by_minute(&counts), by_minute(&recount));
        for minute in counted.keys().chain(recounted.keys().filter(|minute| !counted.contains_key(minute))) {
            let (counts, recount) = (counted.get(minute), recounted.get(minute));
            if counts != recount {
                findings.wrong(format!(
                    "minute {}: clicks_by_minute has {} clicks, the recount of clicks {}: {}",
                    adtally_model::time::rfc3339(minute.start_ms()),
                    counts.map_or(0, MinuteCounts::total),
                    recount.map_or(0, MinuteCounts::total),
                    Invariant::LakeEqualsLog
                ));
            }
        }
        clicks += counts.iter().map(MinuteCounts::total).sum::<u64>();
        let rows: usize = counts.iter().map(MinuteCounts::len).sum();
        from = until;
        // Clicks may lie minutes or decades apart.
        minutes = if rows > ROWS_AT_ONCE { (minutes / 2).max(1) } else { minutes.saturating_mul(2) };
    }
    findings.checked.push(format!(
        "the lake up to epoch {held}: {} clicks by minute = recount of raw clicks",
        terminal::thousands(clicks)
    ));
    Ok(())
}

/// The lake's ledger against the log's, at the epoch that the lake holds.
async fn check_ledger(stores: &Stores, held: u64, findings: &mut Findings) -> Result<()> {
    let Some((epoch, total, _)) = stores.lake.ledger(stores.log.partition()).await? else { return Ok(()) };
    if let Some((record, _)) = stores.log.read(epoch).await?
        && record.ledger != total
    {
        findings.wrong(format!(
            "the lake's ledger at epoch {epoch} says {}, the log {}",
            terminal::sum_line(&total),
            terminal::sum_line(&record.ledger)
        ));
    }
    findings.checked.push(format!("the ledger in the lake at epoch {epoch} (held: {held})"));
    Ok(())
}
