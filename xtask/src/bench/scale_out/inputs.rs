//! Part e: a thousand logs on 32 partitions, beside ten.

use super::answers::gauge;
use super::cluster::{Cluster, wait_for};
use super::{Figures, Goal};
use crate::bench::feeder::Feeder;
use crate::bench::service::Service;
use crate::soak::now;
use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

/// Partitions of the topic.
const PARTITIONS: u32 = 32;

/// Numbers of logs to compare.
const INPUTS: [usize; 2] = [10, 1_000];

/// The gauge of a worker that says how far the closed frontier is behind the clock.
const CLOSED_LAG: &str = "adtally_closed_lag_seconds";

/// How often it is asked for: seldom, because the answer takes time of the worker.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A closed minute shortens that lag by so much.
const MINUTE_S: f64 = 60.0;

/// What was measured with some logs.
struct Steady {
    /// Processor use of the worker and of the agent, of a core in percent.
    worker_percent: f64,
    agent_percent: f64,
    /// The longest time from a minute's end until it was closed, in seconds.
    closed_s_max: f64,
    resident_mib: u64,
}

/// Compares the numbers of logs, each for so many minutes.
pub(super) fn many_and_few(cluster: &Cluster<'_>, minutes: u32, figures: &mut Figures) -> Result<(), String> {
    let [few, many] = INPUTS;
    let (with_few, with_many) = (steady(cluster, few, minutes)?, steady(cluster, many, minutes)?);
    for (inputs, steady) in [(few, &with_few), (many, &with_many)] {
        let what = |what: &str| format!("e: {inputs} logs: {what}");
        figures.add(&what("processor use of the worker, of a core"), steady.worker_percent, " %", None);
        figures.add(&what("processor use of the agent, of a core"), steady.agent_percent, " %", None);
        figures.add(&what("memory of the worker"), steady.resident_mib as f64, " MiB", None);
        let goal = Some(Goal::AtMost(60.0));
        figures.add(&what("longest time from a minute's end until it is closed"), steady.closed_s_max, " s", goal);
    }
    let more = with_many.worker_percent - with_few.worker_percent;
    let what = format!("e: more processor use with {many} logs than with {few}, of a core");
    figures.add(&what, more, " %", Some(Goal::AtMost(10.0)));
    Ok(())
}

fn steady(cluster: &Cluster<'_>, inputs: usize, minutes: u32) -> Result<Steady, String> {
    let topic = cluster.topic(PARTITIONS)?;
    let folder = cluster.site().path(&format!("logs-{inputs}"));
    cluster.site().fresh(&folder)?;
    let logs: Vec<PathBuf> = (0..inputs).map(|number| folder.join(format!("clicks-{number:04}.ndjson"))).collect();
    for log in &logs {
        File::create(log).map_err(|error| format!("cannot write {}: {error}", log.display()))?;
    }
    let deployment = cluster.deployment(&topic);
    let mut workers = deployment.workers(1, &[])?;
    let worker = workers.first_mut().ok_or("no worker was started")?;
    let mut agent = Service::spawn(cluster.agent(&topic, &folder))?;
    let feeder = Feeder::start(logs);
    let outcome = watch(worker, &mut agent, minutes);
    feeder.stop()?;
    let steady = outcome?;
    eprintln!(
        "{inputs} logs: worker {:.1} %, agent {:.1} % of a core, a minute is closed after at most {:.1} s",
        steady.worker_percent, steady.agent_percent, steady.closed_s_max
    );
    Ok(steady)
}

fn watch(worker: &mut Service, agent: &mut Service, minutes: u32) -> Result<Steady, String> {
    // From the second closed minute on, the logs are in their steady state.
    for _ in 0..2 {
        closed_s(worker)?;
    }
    let (began, worker_s, agent_s) = (now(), worker.taken().cpu_s, agent.taken().cpu_s);
    std::thread::sleep(Duration::from_secs(60) * minutes);
    let took_s = (now() - began).as_secs_f64();
    let (worker_s, agent_s) = (worker.taken().cpu_s - worker_s, agent.taken().cpu_s - agent_s);
    agent.check_running()?;
    let mut closed_s_max = 0.0_f64;
    for _ in 0..minutes {
        closed_s_max = closed_s_max.max(closed_s(worker)?);
    }
    Ok(Steady {
        worker_percent: worker_s / took_s * 100.0,
        agent_percent: agent_s / took_s * 100.0,
        closed_s_max,
        resident_mib: worker.taken().resident_mib,
    })
}

/// The time since the end of the first minute that was closed when the lag went from one value to another; `None` if none
/// was closed.
fn since_end_s(before_s: f64, lag_s: f64) -> Option<f64> {
    let minutes = ((before_s - lag_s) / MINUTE_S).round();
    (minutes >= 1.0).then_some(lag_s + (minutes - 1.0) * MINUTE_S)
}

/// Waits until the next minute is closed. Returns the seconds since its end.
fn closed_s(worker: &mut Service) -> Result<f64, String> {
    let mut before: Option<f64> = None;
    wait_for("a minute to be closed", LOOK_EVERY, || {
        let lag_s = gauge(worker, CLOSED_LAG)?.first().map(|&(_, lag_s)| lag_s);
        let closed = before.zip(lag_s).and_then(|(before, lag_s)| since_end_s(before, lag_s));
        before = lag_s.or(before);
        Ok(closed)
    })
}

#[cfg(test)]
mod tests {
    use super::since_end_s;

    #[test]
    fn the_lag_falls_when_minutes_are_closed() {
        assert_eq!(since_end_s(64.0, 65.0), None);
        assert_eq!(since_end_s(66.0, 6.5), Some(6.5));
        // Two at once: the first had to wait for a minute longer.
        assert_eq!(since_end_s(130.0, 11.0), Some(71.0));
    }
}
