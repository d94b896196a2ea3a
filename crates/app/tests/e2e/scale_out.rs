//! Agents, workers and nodes, beside a real broker of Apache Kafka and an S3 server.
//!
//! `cargo xtask test` provides both, and names their places in `ADTALLY_KAFKA_JARS` and `ADTALLY_S3_SERVER`. The tests share
//! one broker, except those that stop it; each has topics of its own.

mod answers;
mod beside;
mod chaos;
mod demo;
mod faults;
mod readers;
mod repartition;
mod services;

use crate::expected::KEY;
use crate::site::{Ended, Serving, Site, wait_for};
use serde_json::Value;
use services::{Broker, S3};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Settings that make everything happen soon.
const FAST: &str =
    "[epoch]\ninterval = \"300ms\"\nfsync = false\n[store]\nlake_interval = \"1s\"\n[log]\nlevel = \"info\"\n";

/// A session time-out that tests can wait for. It is the shortest that a broker accepts.
const SESSION: &str = "session.timeout.ms=6000";

/// Distinguishes topics.
static TOPICS: AtomicU32 = AtomicU32::new(0);

/// A deployment on a topic of its own.
struct Deployment<'a> {
    site: Site,
    broker: &'a Broker,
    topic: String,
}

impl<'a> Deployment<'a> {
    /// A deployment with its data on a shared disk.
    fn on_disk(broker: &'a Broker, partitions: u32) -> Deployment<'a> {
        let mut site = Site::new();
        let url = format!("file://{}", site.path("shared").display());
        site.keep_data_at(url);
        Self::new(site, broker, partitions)
    }

    /// A deployment with its data in a bucket.
    fn on_s3(broker: &'a Broker, s3: &S3, partitions: u32) -> Deployment<'a> {
        let mut site = Site::new();
        for (name, value) in s3.variables() {
            site.set(name, &value);
        }
        site.keep_data_at(format!("s3://{}/deployment", s3.bucket()));
        Self::new(site, broker, partitions)
    }

    fn new(site: Site, broker: &'a Broker, partitions: u32) -> Deployment<'a> {
        let topic = format!("topic-{}", TOPICS.fetch_add(1, Ordering::Relaxed));
        broker.create_topic(&topic, partitions);
        site.write("fast.toml", format!("{FAST}{KEY}"));
        Deployment { site, broker, topic }
    }

    /// Starts a worker of the group, with more arguments.
    fn worker(&self, more: &str) -> Serving {
        self.worker_with(more, &[])
    }

    /// The exit code and the standard error of a worker that does not begin.
    fn refused(&self) -> (Option<i32>, String) {
        let ended = crate::site::end(self.worker_command(""));
        (ended.code, ended.stderr)
    }

    /// The same as [`Deployment::worker`] with environment variables.
    fn worker_with(&self, more: &str, variables: &[(&str, &str)]) -> Serving {
        let mut command = self.worker_command(more);
        command.envs(variables.iter().copied());
        Serving::start(command)
    }

    fn worker_command(&self, more: &str) -> Command {
        let mut command = self.site.program();
        command.args(["worker", "--config", "fast.toml", "--listen", "127.0.0.1:0", "--kafka-option", SESSION]);
        command.args(["--brokers", self.broker.address(), "--topic", &self.topic, "--data", self.site.data()]);
        command.args(more.split_whitespace());
        if !more.contains("--group") {
            command.args(["--group", &self.topic]);
        }
        command
    }

    /// Starts a node that answers from the lake.
    fn node(&self) -> Serving {
        let mut command = self.site.program();
        command.args(["serve", "--config", "fast.toml", "--listen", "127.0.0.1:0", "--lake", self.site.data()]);
        Serving::start(command)
    }

    /// Produces files with an agent, to their end.
    fn produce(&self, files: &str, data_dir: &str) -> Ended {
        let mut command = self.site.program();
        command.args(["agent", "--until-end", "--config", "fast.toml", "--brokers", self.broker.address()]);
        command.args(["--topic", &self.topic, "--data-dir", data_dir]).args(files.split_whitespace());
        crate::site::end(command).ok()
    }

    /// Waits until this many lines are committed, and in the lake. Returns the ledger.
    fn wait_read(&self, lines: u64) -> Value {
        let mut last = Value::Null;
        wait_for(&format!("{lines} lines"), || {
            let ended = self.site.words(&["ledger", "--data-dir", self.site.data(), "--json"]);
            if ended.code != Some(0) {
                return None;
            }
            last = ended.json();
            let read = last["read"].as_u64().unwrap();
            assert!(read <= lines, "{read} lines were read of {lines}: {last}");
            (read == lines).then_some(())
        });
        let query = "SELECT coalesce(sum(read), 0) FROM (SELECT partition, max(read) AS read FROM ledger \
                     WHERE input IS NULL AND event_hour IS NULL AND partition < 65000 GROUP BY partition)";
        wait_for("the lake", || {
            let ended = self.site.words(&["sql", "--data-dir", self.site.data(), "--format", "csv", query]);
            (ended.code == Some(0) && ended.stdout.lines().nth(1) == Some(&lines.to_string())).then_some(())
        });
        last
    }
}
