//! Answers from the embedded stores: hot counts, the lake for older minutes, raw clicks for filters without counts.

use crate::hot_counts::AdSums;
use crate::lake::{ClickScan, Epochs, Lake, Selection};
use crate::questions::{
    AdClicks, Cost, Coverage, Filters, KnownAt, MinuteClicks, Question, Questions, Revision, Span, TopAds,
};
use adtally_model::time::rfc3339;
use adtally_model::{
    ClickColumns, CountedClicks, Country, EpochNumber, Error, Invariant, Minute, MinuteCounts, MinuteState, RECONCILE,
    Result, StagedFile, StagedTable,
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
        if question.as_of.is_some() {
            return Cost::OlderCounts;
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
        let state = self.state(question).await?;
        let State { view, coverage, .. } = &state;
        let Some((from, to)) = coverage.span else {
            let coverage = state.coverage;
            return Ok(AdClicks { coverage, clicks: 0, series: series.then(Vec::new) });
        };
        let mut minutes: BTreeMap<Minute, i64> = BTreeMap::new();
        if question.filters.is_counted() {
            let country = question.filters.country;
            let hot_from = state.hot_from(from, to);
            for snapshot in view.partitions() {
                for (minute, clicks) in snapshot.ad_minutes(ad_id, hot_from, to, country) {
                    *minutes.entry(minute).or_default() += clicks;
                }
            }
            if from < hot_from {
                let selection = Selection { ad_id: Some(ad_id), country };
                self.older(&state, (from, hot_from), selection, series, |minute, _, clicks| {
                    *minutes.entry(minute).or_default() += clicks;
                })
                .await?;
            }
        } else {
            self.raw(&state, from, to, &question.filters, |minute, ad, clicks| {
                if ad == ad_id {
                    *minutes.entry(minute).or_default() += clicks;
                }
            })
            .await?;
        }
        if question.include_open {
            each_open(view, from, to, &question.filters, |minute, ad| {
                if ad == ad_id {
                    *minutes.entry(minute).or_default() += 1;
                }
            });
        }
        let by = state.corrected;
        let clicks = clicks_of(minutes.values().sum(), ad_id)?;
        let row = |minute| {
            let clicks = clicks_of(minutes.get(&minute).copied().unwrap_or_default(), ad_id)?;
            Ok(MinuteClicks { minute, clicks, state: view.state_of(minute), restated: view.is_restated(minute, by) })
        };
        let series = series.then(|| (from.0..to.0).map(Minute).map(row).collect::<Result<_>>()).transpose()?;
        Ok(AdClicks { coverage: state.coverage, clicks, series })
    }

    async fn top_ads(&self, question: &Question, limit: usize) -> Result<TopAds> {
        let state = self.state(question).await?;
        let State { view, coverage, .. } = &state;
        let Some((from, to)) = coverage.span else {
            return Ok(TopAds { coverage: state.coverage, ads: Vec::new() });
        };
        let mut sums: AdSums<'_>;
        if question.filters.is_counted() {
            let hot_from = state.hot_from(from, to);
            sums = sums_of(view, hot_from, to, question.filters.country);
            if from < hot_from {
                let selection = Selection { ad_id: None, country: question.filters.country };
                self.older(&state, (from, hot_from), selection, false, |_, ad, clicks| sums.add(ad, clicks)).await?;
            }
        } else {
            sums = AdSums::default();
            self.raw(&state, from, to, &question.filters, |_, ad, clicks| sums.add(ad, clicks)).await?;
        }
        if question.include_open {
            each_open(view, from, to, &question.filters, |_, ad| sums.add(ad, 1));
        }
        let ads = sums.top(limit);
        Ok(TopAds { coverage: state.coverage, ads })
    }
}

/// The state that answers a question.
struct State {
    view: View,
    coverage: Coverage,
    /// The last epoch of the partition `reconcile` that the answer shows.
    corrected: EpochNumber,
    /// Whether it is a past state, whose corrections are in the lake alone.
    is_past: bool,
}

impl State {
    /// The start, within a span, of the minutes that are counted in memory.
    fn hot_from(&self, from: Minute, to: Minute) -> Minute {
        if self.is_past { to } else { self.view.hot_from(from, to) }
    }

    /// The epochs of the view, or those of them in the lake, with the corrections that the answer shows.
    fn cut(&self, of_view: fn(&View) -> Epochs) -> Epochs {
        let mut cut = of_view(&self.view);
        if self.is_past && self.corrected > 0 {
            cut.note(RECONCILE, self.corrected);
        }
        cut
    }
}

impl Embedded {
    /// The present state, or the past state that a question asks for. Source partitions never change final minutes, so a
    /// past state is the present one with the corrections of that time. It is read from the lake alone, in which corrections fit the
    /// table that they correct.
    async fn state(&self, question: &Question) -> Result<State> {
        let view = self.hot.view();
        let Some(as_of) = &question.as_of else {
            let corrected = view.corrected();
            return Ok(State { coverage: coverage(&view, question), view, corrected, is_past: false });
        };
        let Span::Between(from, to) = question.span else {
            return Err(Error::user("as_of needs from and to: the last minutes are those of the present"));
        };
        if question.include_open {
            return Err(Error::user(
                "as_of cannot be combined with include_open: only final minutes have a past state",
            ));
        }
        let revision = view.revision();
        let known = self.lake.known_at(as_of, &revision).await?;
        if let KnownAt::Time(ms) = as_of {
            // A correction that is being committed has a time already, and may not have been in the lake when it was read.
            let now = self.hot.view();
            let is_committing = view.is_committing_since(*ms) || now.is_committing_since(*ms);
            if is_committing || now.corrected() != view.corrected() {
                return Err(Error::transient("a correction is being committed: ask again"));
            }
        }
        if known.final_to.is_none_or(|final_to| final_to < to) {
            let since = self.lake.final_since_ms(to, &view.epochs().of_sources()).await?;
            let remedy = match since {
                Some(ms) => format!("ask as of {} or later", rfc3339(ms)),
                None => "leave as_of out: they are not final yet".to_owned(),
            };
            return Err(Error::user(format!(
                "the minutes up to {} were not all final then: {remedy}",
                rfc3339(to.start_ms())
            )));
        }
        let corrected = known.epochs.last(RECONCILE);
        let view = view.only(|partition| partition != RECONCILE && known.epochs.last(partition) > 0);
        let coverage = Coverage {
            restated: view.has_restated((from, to), corrected),
            reconciled_to_ms: None,
            watermark_ms: known.watermark_ms,
            newest_click_ms: known.newest_click_ms,
            revision: revision.at(known.epochs.iter()).if_any(),
            ..coverage(&view, question)
        };
        Ok(State { view, coverage, corrected, is_past: true })
    }

    /// Counts of minutes that are no longer hot: from the lake up to its last epoch, and from the pending later epochs.
    /// Whole hours and days are returned as one, under their first minute, unless `by_minute` is set.
    async fn older(
        &self,
        state: &State,
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
        let cut = state.cut(View::lake_epochs);
        if by_minute {
            self.lake.each_minute((from, to), Some(&cut), selection, &mut show).await?;
        } else {
            // No hour or day that is rolled up has minutes of later epochs, since those hours and days are final.
            self.lake.each_count((from, to), &cut, selection, &mut show).await?;
        }
        let pending = state.view.partitions().flat_map(|snapshot| &snapshot.pending);
        let pending = pending.flat_map(|pending| pending.counts.iter());
        pending.filter(|counts| (from..to).contains(&counts.minute)).for_each(show);
        Ok(())
    }

    /// Counts of raw clicks: from the lake up to its last epoch, and from the staged files of later epochs.
    async fn raw(
        &self,
        state: &State,
        from: Minute,
        to: Minute,
        filters: &Filters,
        mut add: impl FnMut(Minute, u64, i64) + Send,
    ) -> Result<()> {
        let staged: Vec<StagedFile> = state
            .view
            .partitions()
            .flat_map(|snapshot| &snapshot.pending)
            .flat_map(|pending| &pending.staged)
            .filter(|file| file.table == StagedTable::Clicks)
            .cloned()
            .collect();
        // The tables may have advanced since the snapshot. Clicks that they contain by now are read from them, up to
        // the snapshot's epoch, and only the others from the staged files.
        let cut = state.cut(View::epochs);
        let scan = ClickScan { from, to, filters, cut: Some(&cut), staged: &staged };
        for counts in self.lake.scan_clicks(&scan).await?.minutes {
            for (ad, _, clicks) in counts.rows() {
                add(counts.minute, ad, clicks);
            }
        }
        Ok(())
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
    Coverage {
        span,
        state,
        watermark_ms: view.watermark_ms(),
        newest_click_ms: newest,
        restated: span.is_some_and(|span| view.has_restated(span, view.corrected())),
        reconciled_to_ms: view.reconciled_to(view.corrected()).map(Minute::start_ms),
        revision,
    }
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
