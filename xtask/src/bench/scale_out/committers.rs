//! Part f: many workers that commit to the same tables of a lake.

use super::answers::owned;
use super::cluster::{Cluster, Deployment, wait_for};
use super::{Figures, Goal};
use crate::bench::feeder::Feeder;
use crate::bench::service::Service;
use crate::soak::now;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

/// The table that an epoch reaches last: the lake holds an epoch when this table names it.
const TABLE: &str = "ledger";

/// The mark of a partition's epochs in the log of a table: `adtally-`, the id of its epoch log, `-`, its number.
const MARK: &str = "\"appId\":\"adtally-";

/// Digits of the id of an epoch log.
const ID_DIGITS: usize = 32;

/// How often to look whether each worker has its partition.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The log line of a worker whose attempts to commit have all failed.
const FAILED: &str = "bringing the lake up to date failed";

/// The size of this part.
#[derive(Clone, Copy, Debug)]
struct Size {
    workers: u32,
    interval_s: u64,
    /// Intervals to watch.
    intervals: u64,
}

/// One worker for each partition; all commit at the same interval.
pub(super) fn on_one_lake(cluster: &Cluster<'_>, is_quick: bool, figures: &mut Figures) -> Result<(), String> {
    let size = match is_quick {
        true => Size { workers: 4, interval_s: 5, intervals: 6 },
        false => Size { workers: 16, interval_s: 10, intervals: 18 },
    };
    let topic = cluster.topic(size.workers)?;
    let log = cluster.site().path("committers.ndjson");
    File::create(&log).map_err(|error| format!("cannot write {}: {error}", log.display()))?;
    let deployment = cluster.deployment(&topic);
    let interval = format!("{}s", size.interval_s);
    // An epoch is always waiting when a commit to the lake is due.
    let settings = [("ADTALLY_STORE__LAKE_INTERVAL", &*interval), ("ADTALLY_EPOCH__INTERVAL", "2s")];
    let mut workers = deployment.workers(size.workers, &settings)?;
    let _agent = Service::spawn(cluster.agent(&topic, &log))?;
    let feeder = Feeder::start(vec![log]);
    let outcome = watch(&deployment, &mut workers, size);
    feeder.stop()?;
    let (longest_s, commits) = outcome?;
    let failed: usize = workers.iter().map(|worker| worker.times_said(FAILED)).sum();
    eprintln!("{size:?}: {commits} commits, at most {longest_s:.1} s apart, {failed} times all attempts failed");
    let what =
        format!("f: {} workers, a lake interval of {interval}: longest time between commits of one", size.workers);
    figures.add(&what, longest_s, " s", Some(Goal::AtMost(2.0 * size.interval_s as f64)));
    figures.add("f: times that all attempts of a worker to commit failed", failed as f64, "", None);
    Ok(())
}

/// Returns the longest time between two commits of a partition to the lake, and the number of all commits.
fn watch(deployment: &Deployment<'_>, workers: &mut [Service], size: Size) -> Result<(f64, usize), String> {
    wait_for("each worker to have one partition", LOOK_EVERY, || {
        for worker in workers.iter_mut() {
            if owned(worker)?.len() != 1 {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })?;
    // What was behind while partitions moved is committed meanwhile.
    std::thread::sleep(Duration::from_secs(2 * size.interval_s));
    let from = now();
    std::thread::sleep(Duration::from_secs(size.intervals * size.interval_s));
    let span = (from, now());
    workers.iter_mut().try_for_each(Service::check_running)?;
    let commits = commits(&deployment.table_log(TABLE))?;
    if commits.len() != size.workers as usize {
        return Err(format!("the lake has commits of {} partitions, not of {}", commits.len(), size.workers));
    }
    let within = commits.values().flatten().filter(|&&at| at >= span.0 && at <= span.1).count();
    let longest = commits.into_values().map(|times| longest_gap(times, span)).max().unwrap_or_default();
    Ok((longest.as_secs_f64(), within))
}

/// The times of all commits to a table, by partition.
fn commits(folder: &Path) -> Result<BTreeMap<u32, Vec<Duration>>, String> {
    let failed = |error: std::io::Error| format!("cannot read {}: {error}", folder.display());
    let mut commits: BTreeMap<u32, Vec<Duration>> = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        let digits = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".json"));
        let is_commit = digits.is_some_and(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()));
        if !is_commit {
            continue;
        }
        let written = entry.metadata().and_then(|metadata| metadata.modified()).map_err(failed)?;
        let at = written.duration_since(UNIX_EPOCH).unwrap_or_default();
        let text = fs::read_to_string(&path).map_err(failed)?;
        partitions(&text).for_each(|partition| commits.entry(partition).or_default().push(at));
    }
    Ok(commits)
}

/// The partitions whose epochs a commit brings.
fn partitions(commit: &str) -> impl Iterator<Item = u32> {
    commit.split(MARK).skip(1).filter_map(|mark| {
        let (id, number) = mark.split_once('"')?.0.split_once('-')?;
        (id.len() == ID_DIGITS).then(|| number.parse().ok())?
    })
}

/// The longest time without a commit within a span.
fn longest_gap(mut times: Vec<Duration>, (from, to): (Duration, Duration)) -> Duration {
    times.retain(|&at| at > from && at < to);
    times.extend([from, to]);
    times.sort_unstable();
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_name_partitions() {
        let id = "0123456789abcdef".repeat(2);
        let commit = format!(
            "{{\"add\":{{\"path\":\"x\"}}}}\n{{\"txn\":{{\"appId\":\"adtally-{id}-12\",\"version\":3}}}}\n\
             {{\"txn\":{{\"appId\":\"adtally-log-12\",\"version\":9}}}}\n\
             {{\"txn\":{{\"appId\":\"adtally-{id}-7\",\"version\":3}}}}\n"
        );
        assert_eq!(partitions(&commit).collect::<Vec<_>>(), [12, 7]);
    }

    #[test]
    fn a_gap_may_be_at_either_end() {
        let seconds = |seconds: &[u64]| seconds.iter().copied().map(Duration::from_secs).collect::<Vec<_>>();
        let check = |times: &[u64], expected| {
            let span = (Duration::from_secs(10), Duration::from_secs(20));
            assert_eq!(longest_gap(seconds(times), span), Duration::from_secs(expected), "{times:?}");
        };
        check(&[14, 12, 17], 3);
        check(&[1, 19], 9);
        check(&[11, 25], 9);
        check(&[], 10);
    }
}
