//! Roll-ups: sums hours from minutes and days from hours, once, when they are final.
//!
//! A batch of spans is summed in memory, written, and committed with its end as a mark, on the state in which the mark
//! was its beginning. So after a crash or a lost reply no span is repeated or omitted. Rows have the epoch that all
//! tables contained (see docs/adr/0010): a reader that stops at an earlier epoch does not use such spans or later ones,
//! and sums minutes instead.

use super::{Change, LakeProgress, Tokens};
use crate::lake::counts::{CountReader, Selection};
use crate::lake::files::{Epochs, FileIndex};
use crate::lake::project::{check_log, log_app, log_mark, new_add};
use crate::lake::rows::{SpanRows, encode_spans};
use crate::lake::{Lake, Table};
use adtally_model::fold::merge_all;
use adtally_model::time::{MINUTE_MS, rfc3339};
use adtally_model::{Error, Minute, MinuteCounts, Progress, Result};
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use std::collections::BTreeMap;

/// Approximate maximum rows of sums in memory: 17 bytes each, twice while they are merged.
pub(super) const ROWS_MAX: usize = 8_000_000;

/// A roll-up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RollUp {
    /// `clicks_by_hour`, from `clicks_by_minute`.
    Hour,
    /// `clicks_by_day`, from `clicks_by_hour`.
    Day,
}

impl RollUp {
    /// In the order in which they are computed.
    pub const ALL: [RollUp; 2] = [RollUp::Hour, RollUp::Day];

    /// The table of its rows.
    pub const fn table(self) -> Table {
        match self {
            RollUp::Hour => Table::ClicksByHour,
            RollUp::Day => Table::ClicksByDay,
        }
    }

    /// The table that it sums.
    pub const fn source(self) -> Table {
        match self {
            RollUp::Hour => Table::ClicksByMinute,
            RollUp::Day => Table::ClicksByHour,
        }
    }

    /// Minutes in a span.
    pub const fn minutes(self) -> i64 {
        match self {
            RollUp::Hour => 60,
            RollUp::Day => 1_440,
        }
    }

    /// The sums of counts by span, spans ascending.
    pub(in crate::lake) fn sums(self, counts: &[MinuteCounts]) -> Vec<MinuteCounts> {
        let mut spans: BTreeMap<Minute, Vec<MinuteCounts>> = BTreeMap::new();
        for counts in counts {
            let span = self.floor(counts.minute);
            spans.entry(span).or_default().push(MinuteCounts { minute: span, ..counts.clone() });
        }
        spans.into_iter().map(|(span, parts)| merge_all(span, parts)).collect()
    }

    /// The first minute of the span that contains a minute.
    pub const fn floor(self, minute: Minute) -> Minute {
        Minute(minute.0 - minute.0.rem_euclid(self.minutes()))
    }

    /// The first minute of the first span that does not begin before a minute.
    pub const fn ceil(self, minute: Minute) -> Minute {
        self.floor(Minute(minute.0 + self.minutes() - 1))
    }
}

/// The mark with the end of the rolled-up spans, in milliseconds.
fn rolled_app(partition: u32) -> String {
    format!("adtally-rolled-{partition}")
}

/// Sums of spans, of bounded size.
pub(super) struct Sums {
    /// By span, sorted by ad.
    pub(super) spans: BTreeMap<Minute, MinuteCounts>,
    /// The end of the last span that is complete or has remaining ads.
    pub(super) end: Minute,
    /// The first remaining ad of the only span.
    pub(super) next_ad: Option<u64>,
}

impl FileIndex {
    /// The end of the spans that a reader at `cut` may take from a roll-up's table instead of summing them.
    pub(in crate::lake) async fn rolled(
        &self,
        roll_up: RollUp,
        partition: u32,
        cut: &Epochs,
    ) -> Result<Option<Minute>> {
        let Some(end) = self.mark(roll_up.table(), &rolled_app(partition)).await? else { return Ok(None) };
        let mut end = Minute(end.div_euclid(MINUTE_MS));
        // Spans are rolled up in order, so their epochs ascend too.
        let of_partition = self.files.iter().filter(|file| file.bounds.reaches(partition, 0));
        for file in of_partition.filter(|file| !cut.surely_hold(&file.bounds)) {
            end = end.min(file.bounds.time_ms.map_or(Minute(i64::MIN), |(least, _)| Minute::of(least)));
        }
        Ok(Some(end))
    }
}

impl Lake {
    /// The end of the rolled-up spans of a partition; `None` before the first.
    ///
    /// # Errors
    /// External when the store fails.
    pub async fn rolled_up(&self, roll_up: RollUp, partition: u32) -> Result<Option<Minute>> {
        let end = self.table(roll_up.table()).files().await?.mark(roll_up.table(), &rolled_app(partition)).await?;
        Ok(end.map(|ms| Minute(ms.div_euclid(MINUTE_MS))))
    }

    /// Rolls up the next final spans of each partition, as many as fit into memory. True if there may be more.
    ///
    /// # Errors
    /// External when the store fails, corrupt when tables contradict one another.
    pub async fn roll_up(&self, roll_up: RollUp, reached: &LakeProgress, tokens: Tokens<'_>) -> Result<bool> {
        self.roll_up_within(roll_up, reached, tokens, ROWS_MAX).await
    }

    /// Does the same with another bound on rows in memory.
    pub(in crate::lake) async fn roll_up_within(
        &self,
        roll_up: RollUp,
        reached: &LakeProgress,
        tokens: Tokens<'_>,
        rows_max: usize,
    ) -> Result<bool> {
        let mut is_more = false;
        // If another partition is rolled up, the table is not lost, and a partition without a mark is new.
        let mut is_begun = false;
        for held in &reached.partitions {
            is_begun |= self.rolled_up(roll_up, held.partition).await?.is_some();
        }
        for held in &reached.partitions {
            is_more |= self.roll_up_of(roll_up, held, is_begun, (reached.now_ms, tokens), rows_max).await?;
        }
        Ok(is_more)
    }

    /// Rolls up the next spans of one partition. Returns true if there may be more.
    async fn roll_up_of(
        &self,
        roll_up: RollUp,
        held: &Progress,
        is_begun: bool,
        (now_ms, tokens): (i64, Tokens<'_>),
        rows_max: usize,
    ) -> Result<bool> {
        let &Progress { log_id, partition, number: epoch, .. } = held;
        let table = self.table(roll_up.table());
        let latest = table.latest().await?;
        check_log(roll_up.table(), &latest, log_id, partition).await?;
        let index = table.files_of(&latest)?;
        let app = rolled_app(partition);
        let before = index.mark(roll_up.table(), &app).await?;
        check_no_rows_after(roll_up, &index, partition, before)?;
        let cut = Epochs::of(partition, epoch);
        let source = self.count_reader(roll_up.source(), Some(&cut), Selection::default()).await?;
        let Some((begin, end)) = self.due(roll_up, held, (before, is_begun), &source.index).await? else {
            return Ok(false);
        };
        let mut sums = gather(&source, roll_up, (begin, end), 0, rows_max).await?;
        let done = sums.end;
        let mut adds = Vec::new();
        loop {
            let rows: Vec<SpanRows<'_>> =
                sums.spans.values().map(|counts| SpanRows { epoch, counts, correction: None }).collect();
            if let Some(file) = encode_spans(roll_up.table(), &rows, partition)? {
                let path = format!("{partition}-{epoch:010}-{:032x}.parquet", tokens());
                let size = file.bytes.len() as u64;
                table.put(&path, file.bytes.into()).await?;
                adds.push(new_add(path, size, now_ms, file.statistics.to_json())?);
            }
            let Some(next) = sums.next_ad else { break };
            sums = gather(&source, roll_up, (begin, done), next, rows_max).await?;
        }
        let change = Change {
            mark: Some((app, before, done.start_ms())),
            also: vec![(log_app(partition), log_mark(log_id))],
            adds,
            removes: Vec::new(),
            operation: DeltaOperation::Write { mode: SaveMode::Append, partition_by: None, predicate: None },
            at_ms: now_ms,
        };
        table.change(&change).await?;
        Ok(done < end)
    }

    /// The next spans to roll up: all that are final and not yet rolled up.
    async fn due(
        &self,
        roll_up: RollUp,
        held: &Progress,
        (before, is_begun): (Option<i64>, bool),
        source: &FileIndex,
    ) -> Result<Option<(Minute, Minute)>> {
        let Some(final_ms) = held.frontiers.final_.get() else { return Ok(None) };
        let mut end = roll_up.floor(Minute::of(final_ms));
        if held.is_retired {
            // All its minutes are final, up to the end of time: there is nothing after its newest click.
            let Some(newest_ms) = held.newest_click_ms else { return Ok(None) };
            end = end.min(Minute(roll_up.floor(Minute::of(newest_ms)).0 + roll_up.minutes()));
        }
        if roll_up == RollUp::Day {
            let cut = Epochs::of(held.partition, held.number);
            let hours = source.rolled(RollUp::Hour, held.partition, &cut).await?;
            let Some(hours) = hours else { return Ok(None) };
            end = end.min(roll_up.floor(hours));
        }
        let of_partition = source.files.iter().filter(|file| file.bounds.reaches(held.partition, 0));
        let least = || of_partition.filter_map(|file| file.bounds.time_ms).map(|(least, _)| Minute::of(least)).min();
        let begin = match before {
            Some(ms) => Minute(ms.div_euclid(MINUTE_MS)),
            // Final spans get no more clicks, so there will never be any before the first.
            None => match least() {
                Some(least) => roll_up.floor(least),
                None => return Ok(None),
            },
        };
        if let Some(kept) = source.kept_from(roll_up.source()).await?
            && ((before.is_none() && !is_begun) || begin < kept)
        {
            return Err(Error::corrupt(format!(
                "`{}` lacks rows that `{}` no longer keeps (it keeps rows from {} on): the table was lost or replaced; \
                 restore its folder from a backup",
                roll_up.table(),
                roll_up.source(),
                rfc3339(kept.start_ms())
            )));
        }
        Ok((begin < end).then_some((begin, end)))
    }
}

/// Rejects rows of spans after the table's mark. A table whose newest log entry was cut has such rows without the mark;
/// they would be added once more.
fn check_no_rows_after(roll_up: RollUp, index: &FileIndex, partition: u32, before: Option<i64>) -> Result<()> {
    let of_partition = Some((i64::from(partition), i64::from(partition)));
    let beyond = |(_, end): (i64, i64)| before.is_none_or(|before| end > before);
    let mut files = index.files.iter().filter(|file| file.bounds.partition == of_partition);
    match files.find(|file| file.bounds.time_ms.is_some_and(beyond)) {
        None => Ok(()),
        Some(file) => Err(Error::corrupt(format!(
            "the lake table `{table}` has rows in {} that its log does not mention: an entry of {table}/_delta_log \
             was cut; restore it from a backup",
            file.path,
            table = roll_up.table()
        ))),
    }
}

/// Sums the spans of `[begin, end)` from an ad on. If there are too many rows, the last spans are left for another
/// batch, or, of a single span, the highest ads for another pass.
pub(super) async fn gather(
    source: &CountReader<'_>,
    roll_up: RollUp,
    (begin, end): (Minute, Minute),
    from_ad: u64,
    rows_max: usize,
) -> Result<Sums> {
    let mut sums = Sums { spans: BTreeMap::new(), end, next_ad: None };
    let mut at = begin;
    while at < sums.end {
        let until = source.piece_end(at, sums.end);
        let mut pieces: BTreeMap<Minute, Vec<MinuteCounts>> = BTreeMap::new();
        for counts in source.read(at, until).await? {
            let span = roll_up.floor(counts.minute);
            pieces.entry(span).or_default().push(within_ads(counts, span, from_ad, sums.next_ad));
        }
        for (span, mut parts) in pieces {
            parts.extend(sums.spans.remove(&span));
            sums.spans.insert(span, merge_all(span, parts));
        }
        sums.bound(roll_up, rows_max);
        at = until;
    }
    Ok(sums)
}

impl Sums {
    fn bound(&mut self, roll_up: RollUp, rows_max: usize) {
        while self.spans.values().map(MinuteCounts::len).sum::<usize>() > rows_max {
            if self.spans.len() > 1 {
                if let Some((last, _)) = self.spans.pop_last() {
                    self.end = last;
                }
                continue;
            }
            let Some((&span, counts)) = self.spans.iter_mut().next() else { return };
            self.end = Minute(span.0 + roll_up.minutes());
            // An ad has few countries, so there is an ad before the middle one.
            let ad = counts.ad_id[counts.len() / 2];
            let keep = counts.ad_id.partition_point(|&found| found < ad);
            if keep == 0 {
                return;
            }
            counts.ad_id.truncate(keep);
            counts.country.truncate(keep);
            counts.clicks.truncate(keep);
            self.next_ad = Some(ad);
        }
    }
}

/// The rows of a range of ads, as counts of a span.
pub(super) fn within_ads(counts: MinuteCounts, span: Minute, from: u64, to: Option<u64>) -> MinuteCounts {
    let first = counts.ad_id.partition_point(|&ad| ad < from);
    let end = to.map_or(counts.len(), |to| counts.ad_id.partition_point(|&ad| ad < to));
    if (first, end) == (0, counts.len()) {
        return MinuteCounts { minute: span, ..counts };
    }
    let range = first..end.max(first);
    MinuteCounts {
        minute: span,
        ad_id: counts.ad_id[range.clone()].to_vec(),
        country: counts.country[range.clone()].to_vec(),
        clicks: counts.clicks[range].to_vec(),
    }
}
