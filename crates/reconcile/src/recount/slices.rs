//! Divides minutes into slices whose clicks fit into memory.

use adtally_model::Minute;
use std::collections::BTreeMap;

/// Most rows of a slice, unless one minute has more. They take some 300 MB while they are grouped.
pub(super) const ROWS_MAX: u64 = 4_000_000;

/// Most hours with rows of a slice: they may be far apart.
const HOURS_MAX: usize = 24;

const HOUR_MINUTES: i64 = 60;

/// Rows of `clicks`, and dead letters that may be recovered, by hour of event time.
pub(crate) type Hours = BTreeMap<Minute, u64>;

/// Minutes to recount at once: `[from, to)`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Slice {
    pub(crate) from: Minute,
    pub(crate) to: Minute,
}

/// Divides ascending ranges of minutes into slices of at most [`ROWS_MAX`] rows and [`HOURS_MAX`] hours. Rows are
/// assumed to be spread evenly over their hour. A slice does not extend over two ranges, and hours without rows are
/// covered as well.
pub(crate) fn slices(ranges: &[Slice], hours: &Hours) -> Vec<Slice> {
    let mut slices = Vec::new();
    for range in ranges {
        let mut from = range.from;
        while from < range.to {
            let to = end_of(from, range.to, hours);
            slices.push(Slice { from, to });
            from = to;
        }
    }
    slices
}

/// The end of the slice that begins at `from`.
fn end_of(from: Minute, to: Minute, hours: &Hours) -> Minute {
    let mut rows = 0;
    let first = Minute(from.0 - from.0.rem_euclid(HOUR_MINUTES));
    for (number, (&hour, &of_hour)) in hours.range(first..to).enumerate() {
        let at = hour.max(from);
        if number == HOURS_MAX {
            return at;
        }
        let end = to.min(Minute(hour.0 + HOUR_MINUTES));
        let more = of_hour * (end.0 - at.0).unsigned_abs() / HOUR_MINUTES.unsigned_abs();
        if rows + more > ROWS_MAX {
            let fit = (ROWS_MAX - rows) * HOUR_MINUTES.unsigned_abs() / of_hour;
            return Minute(at.0.saturating_add_unsigned(fit)).max(from.next());
        }
        rows += more;
    }
    to
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(ranges: &[(i64, i64)], hours: &[(i64, u64)], expected: &[(i64, i64)]) {
        let ranges: Vec<Slice> =
            ranges.iter().map(|&(from, to)| Slice { from: Minute(from), to: Minute(to) }).collect();
        let hours = hours.iter().map(|&(hour, rows)| (Minute(hour * 60), rows)).collect();
        let found: Vec<(i64, i64)> = slices(&ranges, &hours).iter().map(|slice| (slice.from.0, slice.to.0)).collect();
        assert_eq!(found, expected, "{ranges:?} {hours:?}");
    }

    #[test]
    fn slices_are_bounded_in_rows_and_hours() {
        check(&[], &[], &[]);
        check(&[(0, 90)], &[(0, 100), (1, 100)], &[(0, 90)]);
        check(&[(0, 3_000_000)], &[], &[(0, 3_000_000)]);
        let hours: Vec<(i64, u64)> = (10..35).map(|hour| (hour, 1)).collect();
        check(&[(0, 3_000)], &hours, &[(0, 2_040), (2_040, 3_000)]);
        check(&[(0, 120)], &[(0, ROWS_MAX), (1, ROWS_MAX)], &[(0, 60), (60, 120)]);
        check(&[(30, 120)], &[(0, ROWS_MAX), (1, ROWS_MAX)], &[(30, 90), (90, 120)]);
        check(&[(0, 60)], &[(0, 2 * ROWS_MAX)], &[(0, 30), (30, 60)]);
        check(&[(0, 2)], &[(0, 600 * ROWS_MAX)], &[(0, 1), (1, 2)]);
        check(&[(0, 5), (50, 70)], &[(0, 10)], &[(0, 5), (50, 70)]);
    }
}
