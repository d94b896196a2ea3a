//! Part d: how long the lag takes to return to zero after a worker was killed.

use super::answers::{gauge, label, owned, progress};
use super::cluster::{Cluster, Deployment, wait_for};
use super::{Figures, Goal};
use crate::bench::feeder::Feeder;
use crate::bench::measure::median;
use crate::bench::service::Service;
use crate::soak::now;
use std::collections::BTreeMap;
use std::fs::File;
use std::time::Duration;

/// Partitions of the topic.
const PARTITIONS: u32 = 6;

/// Workers that divide them.
const WORKERS: u32 = 3;

/// The gauge of a worker with the records that it has not read yet, by partition.
const LAG: &str = "adtally_topic_unread_records";

/// How often the lag is asked for.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Time between two kills in which nothing happens.
const CALM: Duration = Duration::from_secs(15);

/// Kills workers in turn while clicks come at the mission's rate.
pub(super) fn after_kills(cluster: &Cluster<'_>, rounds: usize, figures: &mut Figures) -> Result<(), String> {
    let topic = cluster.topic(PARTITIONS)?;
    let log = cluster.site().path("lag.ndjson");
    File::create(&log).map_err(|error| format!("cannot write {}: {error}", log.display()))?;
    let deployment = cluster.deployment(&topic);
    let mut workers = deployment.workers(WORKERS, &[])?;
    let _agent = Service::spawn(cluster.agent(&topic, &log))?;
    let feeder = Feeder::start(vec![log]);
    let (mut read_s, mut committed_s) = (Vec::new(), Vec::new());
    let outcome: Result<(), String> = (0..rounds).try_for_each(|_| {
        let (read, committed) = after_kill(&deployment, &mut workers, &feeder)?;
        eprintln!("after a kill: no lag after {read:.1} s, all committed after {committed:.1} s");
        read_s.push(read);
        committed_s.push(committed);
        Ok(())
    });
    let written = feeder.stop()?;
    outcome.and_then(|()| check_counts(&mut workers, written))?;
    let what = "d: a worker of three is killed, until no partition has a lag";
    figures.add(what, median(read_s), " s", Some(Goal::AtMost(30.0)));
    figures.add("d: until what was logged before that is committed", median(committed_s), " s", None);
    Ok(())
}

/// Kills the first worker, and starts another one at the end. Returns the seconds from the kill until there is no lag, and
/// until the lines that were logged by then are committed.
fn after_kill(deployment: &Deployment<'_>, workers: &mut Vec<Service>, feeder: &Feeder) -> Result<(f64, f64), String> {
    wait_for("each worker to have some of the partitions", LOOK_EVERY, || {
        for worker in workers.iter_mut() {
            if owned(worker)?.is_empty() {
                return Ok(None);
            }
        }
        Ok(has_no_lag(workers)?.then_some(()))
    })?;
    std::thread::sleep(CALM);
    // Dropping it sends SIGKILL.
    drop(workers.remove(0));
    let killed = now();
    wait_for("the lag to return to zero", LOOK_EVERY, || Ok(has_no_lag(workers)?.then_some(())))?;
    let read_s = (now() - killed).as_secs_f64();
    let written = feeder.written();
    wait_for("the lines to be committed", LOOK_EVERY, || {
        let read: u64 = progress(workers)?.values().map(|of| of.read).sum();
        Ok((read >= written).then_some(()))
    })?;
    let committed_s = (now() - killed).as_secs_f64();
    workers.extend(deployment.workers(1, &[])?);
    Ok((read_s, committed_s))
}

/// Whether all partitions have an owner among the workers, and none has a lag.
fn has_no_lag(workers: &mut [Service]) -> Result<bool, String> {
    let mut lags: BTreeMap<u32, f64> = BTreeMap::new();
    for worker in workers {
        for (labels, lag) in gauge(worker, LAG)? {
            let partition = label(&labels, "partition").and_then(|number| number.parse::<u32>().ok());
            let partition = partition.ok_or_else(|| format!("{LAG} has no partition: {labels}"))?;
            // A partition that just moved may have two owners.
            let largest = lags.entry(partition).or_default();
            *largest = largest.max(lag);
        }
    }
    Ok(lags.len() == PARTITIONS as usize && lags.values().all(|&lag| lag == 0.0))
}

/// Checks that every line was read once and counted, whatever was killed.
fn check_counts(workers: &mut [Service], written: u64) -> Result<(), String> {
    let (read, counted) = wait_for("all lines to be committed", LOOK_EVERY, || {
        let all = progress(workers)?;
        let read: u64 = all.values().map(|of| of.read).sum();
        let counted: u64 = all.values().map(|of| of.counted).sum();
        Ok((read >= written).then_some((read, counted)))
    })?;
    match (read, counted) == (written, written) {
        true => Ok(()),
        false => Err(format!("{written} clicks were logged, {read} lines read, {counted} clicks counted")),
    }
}
