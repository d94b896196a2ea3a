//! Checks the lake against the log, and its tables against one another.

use super::Findings;
use super::records::{Facts, Scan};
use adtally_model::dead_letter::CONFLICT;
use adtally_model::fold::merge_all;
use adtally_model::ledger::thousands;
use adtally_model::time::rfc3339;
use adtally_model::{EpochNumber, Error, Invariant, Ledger, Minute, MinuteCounts, PartitionState, Result};
use adtally_store::epoch_log::EpochLog;
use adtally_store::lake::{Epochs, Lake, RollUp, Selection, Table, TableEpochs};
use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use std::collections::BTreeMap;

/// Target number of count rows in memory at a time; the compared span is adapted to it.
const ROWS_AT_ONCE: usize = 2_000_000;

pub(super) async fn check(
    log: &EpochLog,
    lake: &Lake,
    held: &TableEpochs,
    scan: &Scan,
    findings: &mut Findings,
) -> Result<()> {
    let (partition, last) = (log.partition(), held.by_all());
    check_tables(held, scan, findings);
    if let Some(state) = &scan.state {
        let checked = check_live(lake, state, last, scan, findings).await;
        findings.or_wrong(checked)?;
    }
    let checked = check_minutes(lake, partition, last, scan, findings).await;
    findings.or_wrong(checked)?;
    let checked = check_roll_ups(lake, partition, last, findings).await;
    findings.or_wrong(checked)?;
    let checked = check_epochs(lake, partition, last, scan, findings).await;
    findings.or_wrong(checked)?;
    let checked = check_dead_letters(lake, partition, last, scan, findings).await;
    findings.or_wrong(checked)?;
    let checked = check_ledger(lake, log, findings).await;
    findings.or_wrong(checked).map(drop)
}

/// Checks the last epoch of each table. The next run completes tables that lag, if the log still has the records.
fn check_tables(held: &TableEpochs, scan: &Scan, findings: &mut Findings) {
    let by_all = held.by_all();
    for (table, epoch) in &held.tables {
        let epoch = epoch.unwrap_or_default();
        if epoch > scan.head {
            findings.wrong(format!(
                "the lake table `{table}` holds epoch {epoch}, the log ends at {}: records are missing; restore them from \
                 a backup",
                scan.head
            ));
        } else if epoch + 1 < scan.oldest {
            findings.wrong(format!(
                "the lake table `{table}` holds epochs up to {epoch}, but the log begins at {}: the table was lost or \
                 replaced; restore its folder from a backup",
                scan.oldest
            ));
        } else if epoch > by_all {
            findings
                .checked
                .push(format!("`{table}` is at epoch {epoch}, others at {by_all}: the next run updates it"));
        }
    }
}

/// Checks the counts of live minutes: the fold of the log against the lake plus later epochs.
async fn check_live(
    lake: &Lake,
    state: &PartitionState,
    held: EpochNumber,
    scan: &Scan,
    findings: &mut Findings,
) -> Result<()> {
    let cut = Epochs::of(state.progress.partition, held);
    let whole = scan.has_all(held + 1..=scan.head);
    for (&minute, folded) in &state.live {
        let at = rfc3339(minute.start_ms());
        let log = merge_all(minute, folded.counts.clone());
        if whole {
            let mut parts = lake.counts(minute, minute.next(), Some(&cut)).await?.minutes;
            parts.extend(scan.after_lake.get(&minute).into_iter().flatten().cloned());
            let lake = merge_all(minute, parts);
            if lake != log {
                let (lake, log) = (lake.total(), log.total());
                findings.wrong(format!(
                    "minute {at}: the lake (with epochs after {held}) counts {lake} clicks, the log {log}: {}",
                    Invariant::LakeEqualsLog
                ));
            }
        }
        let identities = folded.identities.len();
        if i64::try_from(identities) != Ok(log.total()) {
            findings.wrong(format!(
                "minute {at}: {identities} identities are held for {} clicks: {}",
                log.total(),
                Invariant::NoDoubleCount
            ));
        }
    }
    let compared = state.live.len();
    findings.checked.push(format!("{compared} live minutes: lake = fold of the log, an identity for each click"));
    Ok(())
}

/// Checks every minute of the lake: counts against the recount of raw clicks, and their sum against the ledger.
async fn check_minutes(
    lake: &Lake,
    partition: u32,
    held: EpochNumber,
    scan: &Scan,
    findings: &mut Findings,
) -> Result<()> {
    let cut = Epochs::of(partition, held);
    let (first, to) = lake.minutes().await?.unwrap_or((Minute(0), Minute(0)));
    let mut clicks = 0;
    let from_day = RollUp::Day.floor(first);
    lake.each_count((from_day, to), &cut, Selection::default(), |counts| clicks += counts.total()).await?;
    let mut from = first;
    for table in [Table::Clicks, Table::ClicksByMinute] {
        from = from.max(lake.kept_from(table).await?.unwrap_or(first));
    }
    let compared_from = Some(from).filter(|from| *from > first);
    let mut minutes = 60;
    while from < to {
        let until = Minute(from.0.saturating_add(minutes).min(to.0));
        let counts = lake.counts(from, until, Some(&cut)).await?.minutes;
        let recount = lake.recount(from, until, Some(&cut)).await?.minutes;
        let by_minute = |of: &[MinuteCounts]| of.iter().map(|counts| (counts.minute, counts.clone())).collect();
        let (counted, recounted): (BTreeMap<_, _>, BTreeMap<_, _>) = (by_minute(&counts), by_minute(&recount));
        for minute in counted.keys().chain(recounted.keys().filter(|minute| !counted.contains_key(minute))) {
            let (counts, recount) = (counted.get(minute), recounted.get(minute));
            if counts != recount {
                findings.wrong(format!(
                    "minute {}: clicks_by_minute has {} clicks, the recount of clicks {}: {}",
                    rfc3339(minute.start_ms()),
                    counts.map_or(0, MinuteCounts::total),
                    recount.map_or(0, MinuteCounts::total),
                    Invariant::LakeEqualsLog
                ));
            }
        }
        let rows: usize = counts.iter().map(MinuteCounts::len).sum();
        from = until;
        // Clicks may be minutes or decades apart.
        minutes = if rows > ROWS_AT_ONCE { (minutes / 2).max(1) } else { minutes.saturating_mul(2) };
    }
    if let Some(facts) = scan.records.get(&held)
        && i64::try_from(facts.ledger.counted) != Ok(clicks)
    {
        findings.wrong(format!(
            "the counts of the lake sum up to {clicks} clicks, the ledger of epoch {held} says {} counted: {}",
            facts.ledger.counted,
            Invariant::LakeEqualsLog
        ));
    }
    let since = compared_from.map(|from| format!(" (from {} on)", rfc3339(from.start_ms()))).unwrap_or_default();
    findings.checked.push(format!(
        "the lake up to epoch {held}: {} clicks by minute = recount of raw clicks{since} = counted",
        thousands(clicks.unsigned_abs())
    ));
    Ok(())
}

/// Checks hours and days against the minutes and hours that they sum.
async fn check_roll_ups(lake: &Lake, partition: u32, held: EpochNumber, findings: &mut Findings) -> Result<()> {
    for roll_up in RollUp::ALL {
        let (table, source) = (roll_up.table(), roll_up.source());
        let found = lake.check_rolled_up(roll_up, partition, held).await?;
        for span in &found.differing {
            findings.wrong(format!(
                "`{table}` differs from the sums of `{source}` at {}: {}",
                rfc3339(span.start_ms()),
                Invariant::LakeEqualsLog
            ));
        }
        if let Some(end) = found.end {
            findings.checked.push(format!("`{table}` up to {} = sums of `{source}`", rfc3339(end.start_ms())));
        }
    }
    Ok(())
}

/// Checks the lake's rows of each epoch whose record is kept, against that record.
async fn check_epochs(
    lake: &Lake,
    partition: u32,
    held: EpochNumber,
    scan: &Scan,
    findings: &mut Findings,
) -> Result<()> {
    let span = format!("partition = {partition} AND epoch BETWEEN {} AND {held} GROUP BY epoch", scan.oldest);
    let counted = numbers(lake, &format!("SELECT epoch, sum(clicks) FROM clicks_by_minute WHERE {span}")).await?;
    let clicks = numbers(lake, &format!("SELECT epoch, count(*) FROM clicks WHERE {span}")).await?;
    let letters = numbers(lake, &format!("SELECT epoch, count(*) FROM dead_letters WHERE {span}")).await?;
    let by_epoch = |rows: Vec<Vec<i64>>| -> BTreeMap<i64, i64> { rows.iter().map(|row| (row[0], row[1])).collect() };
    let (counted, clicks, letters) = (by_epoch(counted), by_epoch(clicks), by_epoch(letters));
    let kept = scan.records.range(scan.oldest.min(held)..=held);
    for (table, sums, expected) in [
        (Table::ClicksByMinute, &counted, (|facts| facts.clicks) as fn(&Facts) -> i64),
        (Table::Clicks, &clicks, |facts| facts.clicks),
        (Table::Clicks, &clicks, |facts| facts.staged.0 as i64),
        (Table::DeadLetters, &letters, |facts| facts.staged.1 as i64),
    ] {
        // If an epoch begins before the kept rows, some of its rows are missing.
        let from_ms = lake.kept_from(table).await?.map_or(i64::MIN, Minute::start_ms);
        let kept = kept.clone().filter(|(_, facts)| facts.oldest_ms(table) >= from_ms);
        let found = |number: EpochNumber| sums.get(&(number as i64)).copied().unwrap_or_default();
        let mut differing = kept.filter(|&(&number, facts)| found(number) != expected(facts));
        if let Some((&number, facts)) = differing.next() {
            findings.wrong(format!(
                "epoch {number}: the lake table `{table}` has {}, the record says {}, and {} more epochs differ: {}",
                found(number),
                expected(facts),
                differing.count(),
                Invariant::LakeEqualsLog
            ));
        }
    }
    findings.checked.push(format!("{} epochs: rows in the lake = what their records say", kept.count()));
    Ok(())
}

/// Checks the dead letters of all epochs by verdict, against the ledger.
async fn check_dead_letters(
    lake: &Lake,
    partition: u32,
    held: EpochNumber,
    scan: &Scan,
    findings: &mut Findings,
) -> Result<()> {
    let Some(facts) = scan.records.get(&held) else { return Ok(()) };
    let ledger = &facts.ledger;
    let verdicts = [
        ("late", ledger.late),
        ("future", ledger.future),
        ("malformed", ledger.malformed),
        ("invalid", ledger.invalid),
        // Duplicates that differ only in country are counted and not kept; logs of earlier versions have none.
        (CONFLICT, ledger.conflicting_duplicates),
    ];
    let sums = verdicts.map(|(verdict, _)| format!("count(*) FILTER (WHERE verdict = '{verdict}')")).join(", ");
    let query = format!("SELECT {sums} FROM dead_letters WHERE partition = {partition} AND epoch <= {held}");
    let found = numbers(lake, &query).await?.pop().unwrap_or_default();
    let dropped = lake.kept_from(Table::DeadLetters).await?.is_some();
    for ((verdict, expected), found) in verdicts.into_iter().zip(found) {
        let may_be_fewer = dropped || verdict == CONFLICT;
        if found != expected as i64 && !(may_be_fewer && found < expected as i64) {
            findings.wrong(format!(
                "dead_letters has {found} {verdict} lines, the ledger of epoch {held} says {expected}: {}",
                Invariant::LakeEqualsLog
            ));
        }
    }
    let equal = if dropped {
        "dead letters by verdict: no more than in the ledger"
    } else {
        "dead letters by verdict = the ledger"
    };
    findings.checked.push(equal.into());
    Ok(())
}

/// The rows of a query whose columns are all integers.
async fn numbers(lake: &Lake, query: &str) -> Result<Vec<Vec<i64>>> {
    let mut rows = Vec::new();
    let mut batches = lake.sql(query).await?.batches;
    while let Some(batch) = batches.try_next().await? {
        for row in 0..batch.num_rows() {
            let number = |column: &arrow::array::ArrayRef| {
                let numbers = column.as_primitive_opt::<Int64Type>();
                numbers
                    .map(|numbers| numbers.value(row))
                    .ok_or_else(|| Error::internal(format!("`{query}`: no number")))
            };
            rows.push(batch.columns().iter().map(number).collect::<Result<_>>()?);
        }
    }
    Ok(rows)
}

/// Checks the lake's newest ledger against the log's.
async fn check_ledger(lake: &Lake, log: &EpochLog, findings: &mut Findings) -> Result<()> {
    let Some((epoch, total, _)) = lake.ledger(log.partition()).await? else { return Ok(()) };
    if let Some((record, _)) = log.read(epoch).await?
        // The table has no column for NUL bytes, since they are not lines.
        && (Ledger { nul_bytes: total.nul_bytes, ..record.progress.ledger }) != total
    {
        findings
            .wrong(format!("the lake's ledger at epoch {epoch} says {}, the log {}", total, record.progress.ledger));
    }
    findings.checked.push(format!("the ledger in the lake at epoch {epoch}"));
    Ok(())
}
