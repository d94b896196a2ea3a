//! A broker, agents that fill its topics, and workers that count them.

use super::broker::Broker;
use crate::bench::measure::run;
use crate::bench::service::Service;
use crate::bench::site::Site;
use crate::soak::now;
use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The identity key of all workers.
const KEY: &str = "6164745f616c6c795f62656e63685f6b";

/// Maximum time to wait for a condition.
const WAIT_MAX: Duration = Duration::from_secs(900);

/// The log line of a worker that begins to read a partition.
pub(super) const TAKEN_OVER: &str = "partition taken over";

/// The parts of a scaled-out deployment on this machine.
pub(super) struct Cluster<'a> {
    site: &'a Site,
    broker: Broker,
    bare_consumer: PathBuf,
    /// Distinguishes topics, groups and folders.
    made: Cell<u32>,
}

impl<'a> Cluster<'a> {
    /// Starts a broker. `bare_consumer` is the program to compare with.
    pub(super) fn start(site: &'a Site, jars: &Path, bare_consumer: &Path) -> Result<Cluster<'a>, String> {
        let folder = site.path("broker");
        site.fresh(&folder)?;
        let broker = Broker::start(site.root(), jars, &folder)?;
        Ok(Cluster { site, broker, bare_consumer: bare_consumer.to_owned(), made: Cell::new(0) })
    }

    pub(super) fn site(&self) -> &Site {
        self.site
    }

    fn next(&self) -> u32 {
        self.made.set(self.made.get() + 1);
        self.made.get()
    }

    /// Makes a topic.
    pub(super) fn topic(&self, partitions: u32) -> Result<String, String> {
        let name = format!("topic-{}", self.next());
        self.broker.create_topic(&name, partitions)?;
        Ok(name)
    }

    /// An agent, not started, that produces files into a topic.
    pub(super) fn agent(&self, topic: &str, input: &Path) -> Command {
        let data = self.site.path(&format!("agent-{}", self.next()));
        let mut command = Command::new(self.site.program());
        command.arg("agent").arg(input).args(["--brokers", self.broker.address(), "--topic", topic]);
        command.arg("--data-dir").arg(data);
        command
    }

    /// Produces a log into a topic to its end.
    pub(super) fn fill(&self, topic: &str, log: &Path, single_lines: bool) -> Result<(), String> {
        let mut agent = self.agent(topic, log);
        agent.arg("--until-end").env("ADTALLY_AGENT__SINGLE_LINES", single_lines.to_string());
        run(&mut agent).map(drop)
    }

    /// The consumer that only counts records.
    pub(super) fn bare_consumer(&self, topic: &str, partitions: u32) -> Command {
        let mut command = Command::new(&self.bare_consumer);
        command.args([self.broker.address(), topic, &partitions.to_string()]);
        command
    }

    /// A group of workers for a topic, with data of their own.
    pub(super) fn deployment(&self, topic: &str) -> Deployment<'_> {
        let number = self.next();
        let folder = self.site.path(&format!("deployment-{number}"));
        Deployment { cluster: self, topic: topic.to_owned(), group: format!("group-{number}"), folder }
    }
}

/// A group of workers, and their data, which is removed in the end.
pub(super) struct Deployment<'a> {
    cluster: &'a Cluster<'a>,
    topic: String,
    group: String,
    folder: PathBuf,
}

impl Deployment<'_> {
    /// Starts workers at the same time, and waits until they answer.
    pub(super) fn workers(&self, number: u32, settings: &[(&str, &str)]) -> Result<Vec<Service>, String> {
        let data = format!("file://{}", self.folder.display());
        let mut workers = Vec::new();
        for _ in 0..number {
            let mut command = Command::new(self.cluster.site.program());
            command.args(["worker", "--brokers", self.cluster.broker.address(), "--topic", &self.topic]);
            command.args(["--group", &self.group, "--data", &data, "--listen", "127.0.0.1:0"]);
            command.env("ADTALLY_IDENTITY__KEY", KEY).envs(settings.iter().copied());
            workers.push(Service::spawn(command)?);
        }
        workers.iter_mut().try_for_each(Service::wait_for_address)?;
        Ok(workers)
    }

    /// The folder of the log of a table of the lake.
    pub(super) fn table_log(&self, table: &str) -> PathBuf {
        self.folder.join("lake").join(table).join("_delta_log")
    }
}

impl Drop for Deployment<'_> {
    fn drop(&mut self) {
        // What is left is in the folder of the bench, which is removed as well.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Looks again and again until there is a result.
pub(super) fn wait_for<T>(
    what: &str,
    pause: Duration,
    mut look: impl FnMut() -> Result<Option<T>, String>,
) -> Result<T, String> {
    let began = now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if now() - began > WAIT_MAX {
            return Err(format!("waited in vain for {what}"));
        }
        std::thread::sleep(pause);
    }
}
