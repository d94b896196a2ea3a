//! Checks the lake against the log, and its tables against one another.

use super::Findings;
use super::records::{Facts, Scan};
use crate::plan::ledger_kept_from;
use crate::recount::{Recount, Rolled};
use adtally_model::dead_letter::CONFLICT;
use adtally_model::fold::merge_all;
use adtally_model::ledger::thousands;
use adtally_model::reconcile::Cause;
use adtally_model::time::rfc3339;
use adtally_model::{EpochNumber, Error, Invariant, Ledger, Minute, MinuteCounts, PartitionState, RECONCILE, Result};
use adtally_store::epoch_log::EpochLog;
use adtally_store::lake::{Epochs, Lake, RollUp, Selection, Table, TableEpochs};
use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use futures::TryStreamExt;
use std::collections::BTreeMap;

/// Target number of count rows in memory at a time; the compared span is adapted to it.
const ROWS_AT_ONCE: usize = 2_000_000;

pub(super) async fn check(
    log: &EpochLog,
    lake: &Lake,
    held: &TableEpochs,
    scan: &Scan,
    has_corrections: bool,
    findings: &mut Findings,
) -> Result<()> {
    let (partition, last) = (log.partition(), held.by_all());
    check_tables(held, scan, findings);
    if let Some(state) = &scan.state {
        let checked = check_live(lake, state, last, scan, findings).await;
        findings.or_wrong(checked)?;
    }
    if !has_corrections {
        let cut = Epochs::of(partition, last);
        let counted = scan.records.get(&last).map(|facts| facts.ledger.counted);
        let expected =
            counted.map(|counted| (to_signed(counted), format!("the ledger of epoch {last} says {counted} counted")));
        let checked = check_minutes(lake, &cut, &format!("the lake up to epoch {last}"), expected, findings).await;
        findings.or_wrong(checked)?;
        let checked = check_roll_ups(lake, &cut, findings).await;
        findings.or_wrong(checked)?;
    }
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
    // Their counts in the lake are repaired by corrections, which are compared with the stored clicks.
    let repaired_to = lake.restated().await?.repaired_to(EpochNumber::MAX);
    for (&minute, folded) in &state.live {
        let at = rfc3339(minute.start_ms());
        let log = merge_all(minute, folded.counts.clone());
        if whole && repaired_to <= Some(minute) {
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

fn to_signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Checks the corrections of a deployment: every minute with them, and their sums by cause.
pub(super) async fn check_corrections(
    lake: &Lake,
    scans: &BTreeMap<u32, (EpochNumber, Scan)>,
    findings: &mut Findings,
) -> Result<()> {
    let cut: Epochs = scans.iter().map(|(&partition, &(held, _))| (partition, held)).collect();
    let counted: u64 =
        scans.values().filter_map(|(held, scan)| scan.records.get(held)).map(|facts| facts.ledger.counted).sum();
    let Some(facts) = scans.get(&RECONCILE).and_then(|(held, scan)| scan.records.get(held)) else { return Ok(()) };
    let corrected = &facts.corrected;
    check_intake(facts, findings);
    let (recovered, reversed) =
        corrected.values().fold((0, 0), |(recovered, reversed), of| (recovered + of.recovered, reversed + of.reversed));
    let sums = format!(
        "{} counted + {} recovered - {} reversed",
        thousands(counted),
        thousands(recovered),
        thousands(reversed)
    );
    let expected =
        Some((to_signed(counted) + to_signed(recovered) - to_signed(reversed), format!("the ledgers say {sums}")));
    let checked = check_minutes(lake, &cut, "the lake with its corrections", expected, findings).await;
    findings.or_wrong(checked)?;
    let checked = check_roll_ups(lake, &cut, findings).await;
    findings.or_wrong(checked)?;
    let held = cut.last(RECONCILE);
    let query = format!("SELECT cause, sum(clicks) FROM corrections WHERE epoch <= {held} GROUP BY cause");
    let mut found: BTreeMap<String, i64> = BTreeMap::new();
    let mut batches = lake.sql(&query).await?.batches;
    while let Some(batch) = batches.try_next().await? {
        let causes = cast(batch.column(0), &DataType::Utf8).map_err(|e| Error::internal("no texts").because(e))?;
        for (row, cause) in causes.as_string::<i32>().iter().enumerate() {
            let clicks = batch.column(1).as_primitive_opt::<Int64Type>().map_or(0, |clicks| clicks.value(row));
            found.insert(cause.unwrap_or_default().to_owned(), clicks);
        }
    }
    for cause in Cause::ALL {
        let expected = corrected.get(&cause).map_or(0, |of| of.counts);
        let found = found.remove(cause.as_str()).unwrap_or_default();
        if found != expected {
            findings.wrong(format!(
                "`corrections` sums up to {found} clicks with the cause {cause}, the log says {expected}: {}",
                Invariant::LakeEqualsLog
            ));
        }
    }
    findings.checked.push(format!("corrections: clicks = {sums}, and `corrections` by cause"));
    Ok(())
}

/// Checks the ledger of the lines that were taken in after their minutes were final.
fn check_intake(Facts { intake, corrected, .. }: &Facts, findings: &mut Findings) {
    let of = |cause| corrected.get(&cause).map_or(0, |of| of.recovered);
    let recovered = of(Cause::Replay) + of(Cause::Backfill);
    if !intake.adds_up() || intake.recovered != recovered {
        findings.wrong(format!(
            "of the lines taken in, {intake}, and the corrections have {} of them: {}",
            thousands(recovered),
            Invariant::Conservation
        ));
    } else if intake.read > 0 {
        findings.checked.push(format!("of the lines taken in, {intake}"));
    }
}

/// Checks that the stored clicks are those that the ledger says were stored, by the hashes of their rows.
pub(super) async fn check_rows(lake: &Lake, findings: &mut Findings) -> Result<()> {
    let Some((first, to)) = lake.minutes().await? else { return Ok(()) };
    let kept = lake.kept_from(Table::Clicks).await?.map(|kept| RollUp::Hour.ceil(kept));
    let kept = kept.max(ledger_kept_from(lake).await?);
    let from = kept.unwrap_or(RollUp::Hour.floor(first)).max(RollUp::Hour.floor(first));
    let damaged = Recount::open(lake, &lake.epochs().await?, Rolled::default())
        .await?
        .damaged(from, RollUp::Hour.ceil(to))
        .await?;
    for damaged in &damaged {
        findings.wrong(format!("{damaged}: {}", Invariant::LakeEqualsLog));
    }
    findings.checked.push("each hour of raw clicks has the rows that the ledger names, by number and hash".into());
    Ok(())
}

/// Checks every minute of the lake up to `cut`: counts against the recount of raw clicks. Their sum must be the expected
/// one, which is given with the words that say so.
async fn check_minutes(
    lake: &Lake,
    cut: &Epochs,
    what: &str,
    expected: Option<(i64, String)>,
    findings: &mut Findings,
) -> Result<()> {
    let (first, to) = lake.minutes().await?.unwrap_or((Minute(0), Minute(0)));
    let mut clicks = 0;
    let from_day = RollUp::Day.floor(first);
    lake.each_count((from_day, to), cut, Selection::default(), |counts| clicks += counts.total()).await?;
    let mut from = first;
    for table in [Table::Clicks, Table::ClicksByMinute] {
        from = from.max(lake.kept_from(table).await?.unwrap_or(first));
    }
    let compared_from = Some(from).filter(|from| *from > first);
    let mut minutes = 60;
    while from < to {
        let until = Minute(from.0.saturating_add(minutes).min(to.0));
        let counts = lake.counts(from, until, Some(cut)).await?.minutes;
        let recount = lake.recount(from, until, Some(cut)).await?.minutes;
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
    if let Some((expected, says)) = expected.filter(|(expected, _)| *expected != clicks) {
        findings.wrong(format!(
            "the counts of the lake sum up to {clicks} clicks instead of {expected}: {says}: {}",
            Invariant::LakeEqualsLog
        ));
    }
    let since = compared_from.map(|from| format!(" (from {} on)", rfc3339(from.start_ms()))).unwrap_or_default();
    findings.checked.push(format!(
        "{what}: {} clicks by minute = recount of raw clicks{since} = counted",
        thousands(clicks.unsigned_abs())
    ));
    Ok(())
}

/// Checks hours and days against the minutes and hours that they sum.
async fn check_roll_ups(lake: &Lake, cut: &Epochs, findings: &mut Findings) -> Result<()> {
    for roll_up in RollUp::ALL {
        let (table, source) = (roll_up.table(), roll_up.source());
        let found = lake.check_rolled_up(roll_up, cut).await?;
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
    let clicks = numbers(lake, &format!("SELECT epoch, sum(sign), count(*) FROM clicks WHERE {span}")).await?;
    let rows: BTreeMap<i64, i64> = clicks.iter().map(|row| (row[0], row[2])).collect();
    let letters = numbers(lake, &format!("SELECT epoch, count(*) FROM dead_letters WHERE {span}")).await?;
    let by_epoch = |rows: Vec<Vec<i64>>| -> BTreeMap<i64, i64> { rows.iter().map(|row| (row[0], row[1])).collect() };
    let (counted, clicks, letters) = (by_epoch(counted), by_epoch(clicks), by_epoch(letters));
    let kept = scan.records.range(scan.oldest.min(held)..=held);
    // The rows of a repaired count stay wrong. They and their corrections are compared with the stored clicks, by minute.
    let are_repaired = lake.restated().await?.repaired_to(EpochNumber::MAX).is_some();
    for (table, sums, expected) in [
        (Table::ClicksByMinute, &counted, (|facts| facts.counts) as fn(&Facts) -> i64),
        (Table::Clicks, &clicks, |facts| facts.clicks),
        (Table::Clicks, &rows, |facts| facts.staged.0 as i64),
        (Table::DeadLetters, &letters, |facts| facts.staged.1 as i64),
    ] {
        // If an epoch begins before the kept rows, some of its rows are missing.
        let from_ms = lake.kept_from(table).await?.map_or(i64::MIN, Minute::start_ms);
        let kept = kept.clone().filter(|(_, facts)| facts.oldest_ms(table) >= from_ms);
        let found = |number: EpochNumber| sums.get(&(number as i64)).copied().unwrap_or_default();
        let mut differing = kept.filter(|&(&number, facts)| found(number) != expected(facts));
        if let Some((&number, facts)) = differing.next() {
            if table == Table::ClicksByMinute && are_repaired {
                findings.checked.push(format!(
                    "epoch {number} and {} more have other counts in `{table}` than in their records: counts were repaired",
                    differing.count()
                ));
                continue;
            }
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
        // The table has no columns for NUL bytes and lost offsets, since they are not lines.
        && (Ledger { nul_bytes: 0, gap_offsets: 0, ..record.progress.ledger }) != total
    {
        findings
            .wrong(format!("the lake's ledger at epoch {epoch} says {}, the log {}", total, record.progress.ledger));
    }
    findings.checked.push(format!("the ledger in the lake at epoch {epoch}"));
    Ok(())
}
