//! Reads and writes the statistics of a file in the Delta log.
//!
//! Format: Delta protocol, "Per-file Statistics". Times are truncated to milliseconds there; ours already are.

use adtally_model::Minute;
use adtally_model::time::{parse_rfc3339, rfc3339};
use serde_json::{Map, Value, json};

/// Facts about a file that are known without opening it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Statistics {
    /// The number of rows, if the writer recorded it.
    pub(crate) rows: Option<u64>,
    bounds: Vec<(&'static str, Bound)>,
    nulls: Vec<(&'static str, u64)>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Bound {
    /// Smallest and largest number.
    Long(i64, i64),
    /// Smallest and largest time in milliseconds.
    Time(i64, i64),
    /// Smallest and largest text.
    Text(String, String),
}

/// The nearest value that Delta can store: larger numbers become its maximum. Only for comparisons and bounds; written
/// values use [`long`](super::encode::long).
pub(super) fn bound(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl Statistics {
    /// The statistics of a file with this many rows.
    pub(crate) fn of_rows(rows: u64) -> Self {
        Statistics { rows: Some(rows), ..Statistics::default() }
    }

    /// Adds the smallest and largest value of a column of numbers.
    #[must_use]
    pub(crate) fn long(mut self, column: &'static str, values: impl IntoIterator<Item = i64>) -> Self {
        if let Some((least, largest)) = range(values) {
            self.bounds.push((column, Bound::Long(least, largest)));
        }
        self.nulls.push((column, 0));
        self
    }

    /// Adds the smallest and largest value of a column of times in milliseconds.
    #[must_use]
    pub(crate) fn time(mut self, column: &'static str, values: impl IntoIterator<Item = i64>, nulls: u64) -> Self {
        if let Some((least, largest)) = range(values) {
            self.bounds.push((column, Bound::Time(least, largest)));
        }
        self.nulls.push((column, nulls));
        self
    }

    /// Adds the smallest and largest value of a column of short texts.
    #[must_use]
    pub(crate) fn text<'a>(mut self, column: &'static str, values: impl IntoIterator<Item = &'a str>) -> Self {
        if let Some((least, largest)) = range(values) {
            self.bounds.push((column, Bound::Text(least.to_owned(), largest.to_owned())));
        }
        self.nulls.push((column, 0));
        self
    }

    /// Adds the nulls of a column whose values are not useful as bounds.
    #[must_use]
    pub(crate) fn nulls(mut self, column: &'static str, nulls: u64) -> Self {
        self.nulls.push((column, nulls));
        self
    }

    /// In the format of Delta.
    pub(crate) fn to_json(&self) -> String {
        let (mut least, mut largest) = (Map::new(), Map::new());
        for (column, bound) in &self.bounds {
            let (low, high) = match bound {
                Bound::Long(low, high) => (json!(low), json!(high)),
                Bound::Time(low, high) => (json!(rfc3339(*low)), json!(rfc3339(*high))),
                Bound::Text(low, high) => (json!(low), json!(high)),
            };
            least.insert((*column).to_owned(), low);
            largest.insert((*column).to_owned(), high);
        }
        let nulls: Map<String, Value> =
            self.nulls.iter().map(|&(column, nulls)| (column.to_owned(), json!(nulls))).collect();
        json!({"numRecords": self.rows, "minValues": least, "maxValues": largest, "nullCount": nulls}).to_string()
    }
}

fn range<T: PartialOrd + Copy>(values: impl IntoIterator<Item = T>) -> Option<(T, T)> {
    let mut values = values.into_iter();
    let first = values.next()?;
    Some(values.fold((first, first), |(least, largest), value| {
        (if value < least { value } else { least }, if value > largest { value } else { largest })
    }))
}

/// The bounds by which our readers prune. A column without statistics is never pruned.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Bounds {
    /// Smallest and largest time, in milliseconds, of the requested column.
    pub(crate) time_ms: Option<(i64, i64)>,
    /// Smallest and largest partition.
    pub(crate) partition: Option<(i64, i64)>,
    /// Smallest and largest epoch.
    pub(crate) epoch: Option<(i64, i64)>,
    /// The number of rows.
    pub(crate) rows: Option<u64>,
}

impl Bounds {
    /// Whether there may be rows of a partition from this epoch on.
    pub(crate) fn reaches(&self, partition: u32, epoch: u64) -> bool {
        let is_of = self.partition.is_none_or(|(least, largest)| (least..=largest).contains(&i64::from(partition)));
        is_of && self.epoch.is_none_or(|(_, last)| last >= bound(epoch))
    }

    /// Reads the bounds from a file's statistics; `time_column` names the table's main time.
    pub(crate) fn read(stats: Option<&str>, time_column: &str) -> Bounds {
        let Some(Ok(stats)) = stats.map(serde_json::from_str::<Value>) else { return Bounds::default() };
        let both = |column: &str| Some((stats.get("minValues")?.get(column)?, stats.get("maxValues")?.get(column)?));
        let long = |column: &str| both(column).and_then(|(least, largest)| Some((least.as_i64()?, largest.as_i64()?)));
        let time = |value: &Value| parse_rfc3339(value.as_str()?.as_bytes());
        Bounds {
            // Other writers may have truncated the largest time to the millisecond.
            time_ms: both(time_column)
                .and_then(|(least, largest)| Some((time(least)?, time(largest)?.saturating_add(1)))),
            partition: long("partition"),
            epoch: long("epoch"),
            rows: stats.get("numRecords").and_then(Value::as_u64),
        }
    }

    /// Whether there may be rows of the minutes `[from, to)`.
    pub(crate) fn may_meet(&self, from: Minute, to: Minute) -> bool {
        self.time_ms.is_none_or(|(least, largest)| least < to.start_ms() && largest >= from.start_ms())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_anything_else_prunes_nothing() {
        let text = Statistics::of_rows(2)
            .time("minute", [1_700_000_000_123, 1_600_000_000_000], 0)
            .long("partition", [0, 0])
            .long("epoch", [7, 3])
            .text("country", ["US", "DE"])
            .nulls("correction", 2)
            .to_json();
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["maxValues"]["minute"], "2023-11-14T22:13:20.123Z");
        assert_eq!(value["minValues"]["country"], "DE");
        assert_eq!(value["nullCount"]["correction"], 2);
        let bounds = Bounds::read(Some(&text), "minute");
        assert_eq!(
            bounds,
            Bounds {
                time_ms: Some((1_600_000_000_000, 1_700_000_000_124)),
                partition: Some((0, 0)),
                epoch: Some((3, 7)),
                rows: Some(2)
            }
        );
        for stats in [None, Some(""), Some("{}"), Some("[1]"), Some(r#"{"minValues":{"epoch":"x"}}"#)] {
            assert_eq!(Bounds::read(stats, "minute"), Bounds::default(), "{stats:?}");
        }
    }
}
