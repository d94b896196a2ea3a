//! Answers from the embedded stores: hot counts, the lake for older minutes, raw clicks for filters without counts.

use crate::hot_counts::AdSums;
use crate::lake::{ClickScan, Lake, Selection};
use crate::questions::{AdClicks, Cost, Coverage, Filters, MinuteClicks, Question, Questions, Revision, Span, TopAds};
use adtally_model::{
    ClickColumns, CountedClicks, Country, Error, Invariant, Minute, MinuteCounts, MinuteState, Result, StagedFile,
    StagedTable,
};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::Arc;

#[cfg(test)]
mod tests;
mod view;

pub use view::{HotPartitions, View};

/// The stores of one process.
pub struct Embedded {
    hot: HotPartitions,
    lake: Arc<Lake>,
}

impl Embedded {
    /// Answers from these stores.
    pub fn new(hot: HotPartitions, lake: Arc<Lake>) -> Self {
        Embedded { hot, lake }
    }
}

#[async_trait]
impl Questions for Embedded {
    fn cost(&self, question: &Question) -> Cost {
        if !question.filters.is_counted() {
            return Cost::RawClicks;
        }
        let view = self.hot.view();
        match coverage(&view, question).span {
            Some((from, to)) if from < view.hot_from(from, to) => Cost::OlderCounts,
            _ => Cost::RecentCounts,
        }
    }

    fn revision(&self) -> Revision {
        self.hot.view().revision()
    }

    async fn ad_clicks(&self, ad_id: u64, question: &Question, series: bool) -> Result<AdClicks> {
        refuse_the_past(question)?;
        let view = self.hot.view();
        let coverage = coverage(&view, question);
        let Some((from, to)) = coverage.span else {
            return Ok(AdClicks { coverage, clicks: 0, series: series.then(Vec::new) });
        };
        let mut minutes: BTreeMap<Minute, i64> = BTreeMap::new();
        if question.filters.is_counted() {
            let country = question.filters.country;
            let hot_from = view.hot_from(from, to);
            for snapshot in view.partitions() {
                for (minute, clicks) in snapshot.ad_minutes(ad_id, hot_from, to, country) {
                    *minutes.entry(minute).or_default() += clicks;
                }
            }
            if from < hot_from {
                let selection = Selection { ad_id: Some(ad_id), country };
                self.older(&view, (from, hot_from), selection, series, |minute, _, clicks| {
                    *minutes.entry(minute).or_default() += clicks;
                })
                .await?;
            }
        } else {
            self.raw(&view, from, to, &question.filters, |minute, ad, clicks| {
                if ad == ad_id {
                    *minutes.entry(minute).or_default() += clicks;
                }
            })
            .await?;
        }
        if question.include_open {
            each_open(&view, from, to, &question.filters, |minute, ad| {
                if ad == ad_id {
                    *minutes.entry(minute).or_default() += 1;
                }
            });
        }
        let clicks = clicks_of(minutes.values().sum(), ad_id)?;
        let row = |minute| {
            let clicks = clicks_of(minutes.get(&minute).copied().unwrap_or_default(), ad_id)?;
            Ok(MinuteClicks { minute, clicks, state: view.state_of(minute) })
        };
        let series = series.then(|| (from.0..to.0).map(Minute).map(row).collect::<Result<_>>()).transpose()?;
        Ok(AdClicks { coverage, clicks, series })
    }

    async fn top_ads(&self, question: &Question, limit: usize) -> Result<TopAds> {
        refuse_the_past(question)?;
        let view = self.hot.view();
        let coverage = coverage(&view, question);
        let Some((from, to)) = coverage.span else { return Ok(TopAds { coverage, ads: Vec::new() }) };
        let mut sums: AdSums<'_>;
        if question.filters.is_counted() {
            let hot_from = view.hot_from(from, to);
            sums = sums_of(&view, hot_from, to, question.filters.country);
            if from < hot_from {
                let selection = Selection { ad_id: None, country: question.filters.country };
                self.older(&view, (from, hot_from), selection, false, |_, ad, clicks| sums.add(ad, clicks)).await?;
            }
        } else {
            sums = AdSums::default();
            self.raw(&view, from, to, &question.filters, |_, ad, clicks| sums.add(ad, clicks)).await?;
        }
        if question.include_open {
            each_open(&view, from, to, &question.filters, |_, ad| sums.add(ad, 1));
        }
        Ok(TopAds { coverage, ads: sums.top(limit) })
    }
}

impl Embedded {
    /// Counts of minutes that are no longer hot: from the lake up to its last epoch, and from the pending later epochs.
    /// Whole hours and days are returned as one, under their first minute, unless `by_minute` is set.
    async fn older(
        &self,
        view: &View,
        (from, to): (Minute, Minute),
        selection: Selection,
        by_minute: bool,
        mut add: impl FnMut(Minute, u64, i64) + Send,
    ) -> Result<()> {
        let mut show = |counts: &MinuteCounts| {
            for (ad, country, clicks) in counts.rows() {
                if selection.takes(ad, country) {
                    add(counts.minute, ad, clicks);
                }
            }
        };
        let cut = view.lake_epochs();
        if by_minute {
            self.lake.each_minute((from, to), Some(&cut), selection, &mut show).await?;
        } else {
            // No hour or day that is rolled up has minutes of later epochs, since those hours and days are final.
            self.lake.each_count((from, to), &cut, selection, &mut show).await?;
        }
        let pending = view.partitions().flat_map(|snapshot| &snapshot.pending);
        let pending = pending.flat_map(|pending| pending.counts.iter());
        pending.filter(|counts| (from..to).contains(&counts.minute)).for_each(show);
        Ok(())
    }

    /// Counts of raw clicks: from the lake up to its last epoch, and from the staged files of later epochs.
    async fn raw(
        &self,
        view: &View,
        from: Minute,
        to: Minute,
        filters: &Filters,
        mut add: impl FnMut(Minute, u64, i64) + Send,
    ) -> Result<()> {
        let staged: Vec<StagedFile> = view
            .partitions()
            .flat_map(|snapshot| &snapshot.pending)
            .flat_map(|pending| &pending.staged)
            .filter(|file| file.table == StagedTable::Clicks)
            .cloned()
            .collect();
        // The tables may have advanced since the snapshot. Clicks that they contain by now are read from them, up to
        // the snapshot's epoch, and only the others from the staged files.
        let cut = view.epochs();
        let scan = ClickScan { from, to, filters, cut: Some(&cut), staged: &staged };
        for counts in self.lake.scan_clicks(&scan).await?.minutes {
            for (ad, _, clicks) in counts.rows() {
                add(counts.minute, ad, clicks);
            }
        }
        Ok(())
    }
}

/// Rejects questions with `as_of`: the hot counts contain only the current state.
fn refuse_the_past(question: &Question) -> Result<()> {
    match question.as_of {
        None => Ok(()),
        Some(_) => Err(Error::user("this store only answers as of now: leave as_of out")),
    }
}

/// Converts a sum of signed rows to clicks. Corrections never subtract more than was counted.
fn clicks_of(sum: i64, ad_id: u64) -> Result<u64> {
    let negative = |_| Error::violated(Invariant::LakeEqualsLog, format!("the counts of ad {ad_id} sum up to {sum}"));
    u64::try_from(sum).map_err(negative)
}

/// The sums of hot minutes over all partitions. The sums of the first partition are extended in place.
fn sums_of(view: &View, from: Minute, to: Minute, country: Option<Country>) -> AdSums<'_> {
    let mut sums: Option<AdSums<'_>> = None;
    for snapshot in view.partitions() {
        let mut of_partition = snapshot.sums();
        snapshot.add_minutes(&mut of_partition, from, to, country);
        match &mut sums {
            None => sums = Some(of_partition),
            Some(sums) => of_partition.each(|ad, clicks| sums.add(ad, clicks)),
        }
    }
    sums.unwrap_or_default()
}

/// The minutes that a question covers, and their state.
fn coverage(view: &View, question: &Question) -> Coverage {
    let mut newest = view.newest_click_ms();
    if question.include_open {
        for clicks in view.open_clicks() {
            let times = clicks.rows.iter().map(|&row| clicks.columns.event_time_ms[row as usize]);
            newest = newest.max(times.max());
        }
    }
    let span = match question.span {
        Span::Between(from, to) => Some((from, to)),
        Span::Last(minutes) => {
            let open = newest.filter(|_| question.include_open).map(|newest| Minute::of(newest).next());
            view.to().max(open).map(|to| (Minute(to.0 - i64::from(minutes)), to))
        }
    };
    let state = span.map_or(MinuteState::Open, |(_, to)| view.state_of(Minute(to.0 - 1)));
    let revision = if question.include_open { None } else { view.revision().if_any() };
    Coverage { span, state, watermark_ms: view.watermark_ms(), newest_click_ms: newest, revision }
}

/// Passes on the matching clicks that are not committed yet.
fn each_open(view: &View, from: Minute, to: Minute, filters: &Filters, mut show: impl FnMut(Minute, u64)) {
    for CountedClicks { columns, rows, .. } in view.open_clicks() {
        for &row in rows {
            let row = row as usize;
            let minute = Minute::of(columns.event_time_ms[row]);
            if (from..to).contains(&minute) && matches(columns, row, filters) {
                show(minute, columns.ad_id[row]);
            }
        }
    }
}

fn matches(columns: &ClickColumns, row: usize, filters: &Filters) -> bool {
    filters.country.is_none_or(|country| columns.country[row] == country)
        && filters.ip.is_none_or(|ip| columns.ip[row] == ip)
        && filters.user_id.as_ref().is_none_or(|user| columns.user_id(row) == user.as_bytes())
}
