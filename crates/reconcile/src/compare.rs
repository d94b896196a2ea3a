//! Compares the counts by hour and day with the stored clicks, and corrects counts that differ.

use crate::plan::{Plan, without};
use crate::recount::{Level, Slice, Sums};
use crate::run::{CLICKS_MAX, Run};
use adtally_model::reconcile::Cause;
use adtally_model::{Minute, MinuteCounts, Result};
use std::collections::BTreeSet;

/// About the most clicks that are compared at once by ad and country.
const COMPARED_AT_ONCE: u64 = 4_000_000;

impl Run<'_> {
    /// Corrects the counts by hour and by day of some days.
    pub(crate) async fn compare(&mut self, plan: &Plan<'_>, range: &Slice) -> Result<()> {
        for Slice { from, to } in days(range, plan.hours.keys().copied()) {
            // Of a span that began before, not all clicks are kept.
            let kept = |level: Level| Slice { from: from.max(level.ceil(plan.kept_from)), to: to.min(plan.final_to) };
            let mut stored = Sums::new();
            for hours in without(&[kept(Level::Hour)], &plan.damaged) {
                let of_hours = plan.recount.stored_sums(Level::Hour, hours.from, hours.to).await?;
                self.compare_spans(plan, Level::Hour, hours, &of_hours).await?;
                stored.extend(of_hours);
            }
            if plan.damaged.range(from..to).next().is_none() {
                let days = kept(Level::Day);
                self.compare_spans(plan, Level::Day, days, &by_day(&stored, days)).await?;
            }
        }
        Ok(())
    }

    /// Compares the counts of some spans with the sums of the stored clicks, and corrects those of spans that differ.
    async fn compare_spans(&mut self, plan: &Plan<'_>, level: Level, range: Slice, stored: &Sums) -> Result<()> {
        let Slice { from, to } = range;
        if from >= to {
            return Ok(());
        }
        let counted = plan.recount.counted_sums(level, from, to).await?;
        for (span, clicks) in differing(stored, &counted) {
            let end = Minute(span.0 + level.minutes()).min(to);
            let parts = clicks.div_ceil(COMPARED_AT_ONCE).max(1);
            for part in 0..parts {
                let counts = plan.recount.differences(level, span, end, Some((part, parts))).await?;
                self.correct_counts(level.cause(), &counts).await?;
            }
        }
        Ok(())
    }

    /// Adds signed rows to one table of counts.
    pub(crate) async fn correct_counts(&mut self, cause: Cause, counts: &[MinuteCounts]) -> Result<()> {
        let mut change: Vec<MinuteCounts> = Vec::new();
        let mut rows = 0;
        for counts in counts {
            for (ad, country, clicks) in counts.rows() {
                if change.last().is_none_or(|last| last.minute != counts.minute) {
                    change.push(MinuteCounts::empty(counts.minute));
                }
                if let Some(last) = change.last_mut() {
                    last.push(ad, country, clicks);
                }
                rows += 1;
                if rows == CLICKS_MAX {
                    self.correct_some(cause, rows, std::mem::take(&mut change)).await?;
                    rows = 0;
                }
            }
        }
        if rows > 0 { self.correct_some(cause, rows, change).await } else { Ok(()) }
    }

    async fn correct_some(&mut self, cause: Cause, rows: usize, counts: Vec<MinuteCounts>) -> Result<()> {
        self.report.add(cause, rows as u64, &counts);
        self.commit(Some(cause), None, counts).await
    }
}

/// The whole days of some ranges, as ascending ranges.
pub(crate) fn days_of(ranges: impl Iterator<Item = Slice>) -> Vec<Slice> {
    union(ranges.map(|range| Slice { from: Level::Day.floor(range.from), to: Level::Day.ceil(range.to) }), 0)
}

/// Sorts ranges, and joins those that overlap or are at most `gap` minutes apart.
pub(crate) fn union(ranges: impl IntoIterator<Item = Slice>, gap: i64) -> Vec<Slice> {
    let mut ranges: Vec<Slice> = ranges.into_iter().collect();
    ranges.sort_unstable_by_key(|range| range.from);
    let mut joined: Vec<Slice> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.from.0 <= last.to.0.saturating_add(gap) => last.to = last.to.max(range.to),
            _ => joined.push(range),
        }
    }
    joined
}

/// The sums of days, from those of their hours within a range.
fn by_day(hours: &Sums, range: Slice) -> Sums {
    let mut days = Sums::new();
    for (&hour, [clicks, weighted]) in hours.range(range.from..range.to.max(range.from)) {
        let sums = days.entry(Level::Day.floor(hour)).or_default();
        *sums = [sums[0] + clicks, sums[1] + weighted];
    }
    days
}

/// The spans whose sums differ, each with about its number of clicks.
fn differing(stored: &Sums, counted: &Sums) -> Vec<(Minute, u64)> {
    let spans: BTreeSet<Minute> = stored.keys().chain(counted.keys()).copied().collect();
    let of = |sums: &Sums, span| sums.get(&span).copied().unwrap_or_default();
    let both = spans.into_iter().map(|span| (span, of(stored, span), of(counted, span)));
    both.filter(|(_, stored, counted)| stored != counted)
        .map(|(span, [stored, _], [counted, _])| (span, stored.max(counted).unsigned_abs()))
        .collect()
}

/// Divides whole days into parts that have at most one day with clicks.
fn days(range: &Slice, hours: impl Iterator<Item = Minute>) -> Vec<Slice> {
    let mut parts = Vec::new();
    let mut at = range.from;
    for hour in hours.filter(|hour| (range.from..range.to).contains(hour)) {
        let end = Minute(Level::Day.floor(hour).0 + Level::Day.minutes());
        if at < end {
            parts.push(Slice { from: at, to: end });
            at = end;
        }
    }
    if at < range.to {
        parts.push(Slice { from: at, to: range.to });
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slices(ranges: &[(i64, i64)]) -> Vec<Slice> {
        ranges.iter().map(|&(from, to)| Slice { from: Minute(from), to: Minute(to) }).collect()
    }

    #[test]
    fn ranges_are_joined() {
        let check = |ranges: &[(i64, i64)], gap, expected: &[(i64, i64)]| {
            assert_eq!(union(slices(ranges), gap), slices(expected), "{ranges:?} {gap}");
        };
        check(&[], 0, &[]);
        check(&[(5, 7), (0, 5)], 0, &[(0, 7)]);
        check(&[(0, 10), (2, 3), (11, 12)], 0, &[(0, 10), (11, 12)]);
        check(&[(0, 10), (12, 13), (20, 21)], 2, &[(0, 13), (20, 21)]);
        assert_eq!(days_of(slices(&[(1, 2), (1_500, 2_880), (-1, 0)]).into_iter()), slices(&[(-1_440, 2_880)]));
    }

    #[test]
    fn days_are_sums_of_their_hours_and_differ_in_either_sum() {
        let sums = |rows: &[(i64, i64, i64)]| -> Sums {
            rows.iter().map(|&(span, clicks, weighted)| (Minute(span), [clicks, weighted])).collect()
        };
        let hours = sums(&[(0, 1, 10), (60, 2, 20), (1_380, 3, 5), (1_440, 4, 7)]);
        let range = |from, to| Slice { from: Minute(from), to: Minute(to) };
        assert_eq!(by_day(&hours, range(0, 2_880)), sums(&[(0, 6, 35), (1_440, 4, 7)]));
        assert_eq!(by_day(&hours, range(1_440, 1_500)), sums(&[(1_440, 4, 7)]));
        assert_eq!(by_day(&hours, range(2_880, 1_500)), sums(&[]));
        let check = |counted: &[(i64, i64, i64)], expected: &[(i64, u64)]| {
            let expected: Vec<(Minute, u64)> = expected.iter().map(|&(span, clicks)| (Minute(span), clicks)).collect();
            assert_eq!(differing(&hours, &sums(counted)), expected, "{counted:?}");
        };
        check(&[(0, 1, 10), (60, 2, 20), (1_380, 3, 5), (1_440, 4, 7)], &[]);
        check(&[(0, 1, 11), (60, 9, 20), (1_380, 3, 5), (2_000, 1, 1)], &[(0, 1), (60, 9), (1_440, 4), (2_000, 1)]);
    }

    #[test]
    fn parts_have_at_most_one_day_with_clicks() {
        let check = |range: (i64, i64), hours: &[i64], expected: &[(i64, i64)]| {
            let hours = hours.iter().map(|hour| Minute(hour * 60));
            assert_eq!(days(&slices(&[range])[0], hours), slices(expected), "{range:?}");
        };
        check((0, 1_440), &[], &[(0, 1_440)]);
        check((0, 1_440), &[0, 5, 23], &[(0, 1_440)]);
        check((0, 14_400), &[30, 31, 60], &[(0, 2_880), (2_880, 4_320), (4_320, 14_400)]);
        check((1_440, 2_880), &[0, 23, 48], &[(1_440, 2_880)]);
    }
}
