//! What workers answer: `/metrics` and `/ledger`.

use crate::bench::http::field;
use crate::bench::service::Service;
use std::collections::BTreeMap;

/// How far a partition is committed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Progress {
    /// Lines that were read.
    pub(super) read: u64,
    /// Clicks that were counted.
    pub(super) counted: u64,
}

/// The text of an answer, or an empty one while the worker has none yet.
fn ask(worker: &mut Service, path: &str) -> Result<String, String> {
    worker.check_running()?;
    match worker.client()?.get(path)? {
        (200, body, _) => Ok(body),
        (503, ..) => Ok(String::new()),
        (status, body, _) => Err(format!("GET {path}: {status} {body}")),
    }
}

/// The partitions of a worker.
pub(super) fn owned(worker: &mut Service) -> Result<BTreeMap<u32, Progress>, String> {
    Ok(partitions(&ask(worker, "/ledger")?))
}

/// The partitions of all workers. One that just moved may have two owners: the later state counts.
pub(super) fn progress(workers: &mut [Service]) -> Result<BTreeMap<u32, Progress>, String> {
    let mut all: BTreeMap<u32, Progress> = BTreeMap::new();
    for worker in workers {
        for (partition, progress) in owned(worker)? {
            let latest = all.entry(partition).or_insert(progress);
            if progress.read > latest.read {
                *latest = progress;
            }
        }
    }
    Ok(all)
}

/// The values of a gauge of a worker, with their labels.
pub(super) fn gauge(worker: &mut Service, name: &str) -> Result<Vec<(String, f64)>, String> {
    Ok(samples(&ask(worker, "/metrics")?, name))
}

/// The value of a label among others.
pub(super) fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    labels.split_once(&format!("{name}=\""))?.1.split('"').next()
}

fn samples(metrics: &str, name: &str) -> Vec<(String, f64)> {
    let sample = |line: &str| {
        let (labels, value) = line.strip_prefix(name)?.rsplit_once(' ')?;
        let value: f64 = value.parse().ok()?;
        (labels.is_empty() || labels.starts_with('{')).then(|| (labels.to_owned(), value))
    };
    metrics.lines().filter_map(sample).collect()
}

/// The rows of partitions in the answer to `GET /ledger`.
fn partitions(json: &str) -> BTreeMap<u32, Progress> {
    let rows = json.split_once("\"partitions\":[").map_or("", |(_, rest)| rest);
    // The names of inputs, which may contain anything, come later.
    let rows = rows.split_once("\"inputs\":").map_or(rows, |(rows, _)| rows);
    let row = |row: &str| {
        let number = |name: &str| field(row, name)?.parse::<u64>().ok();
        let partition = row.split(',').next()?.parse::<u32>().ok()?;
        Some((partition, Progress { read: number("read")?, counted: number("counted")? }))
    };
    rows.split("{\"partition\":").skip(1).filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_have_labels() {
        let text = "# HELP adtally_lag A lag.\nadtally_lag{partition=\"3\"} 17.0\nadtally_lag{partition=\"4\"} 0.0\n\
                    adtally_lag_more 5\nadtally_closed 1.5\n";
        let lags = samples(text, "adtally_lag");
        let lags: Vec<(Option<&str>, f64)> = lags.iter().map(|(of, lag)| (label(of, "partition"), *lag)).collect();
        assert_eq!(lags, [(Some("3"), 17.0), (Some("4"), 0.0)]);
        assert_eq!(samples(text, "adtally_closed"), [(String::new(), 1.5)]);
    }

    #[test]
    fn partitions_are_found_in_a_ledger() {
        let json = "{\"read\":7,\"counted\":6,\"partitions\":[{\"partition\":2,\"epoch\":5,\"read\":4,\"counted\":4,\
                    \"watermark\":null},{\"partition\":3,\"epoch\":1,\"read\":3,\"counted\":2}],\
                    \"inputs\":[{\"name\":\"{\\\"partition\\\":9,\",\"read\":7}]}";
        let expected = [(2, Progress { read: 4, counted: 4 }), (3, Progress { read: 3, counted: 2 })];
        assert_eq!(partitions(json), BTreeMap::from(expected));
        assert_eq!(partitions(""), BTreeMap::new());
    }
}
