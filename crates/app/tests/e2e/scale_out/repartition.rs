//! A topic is brought into another one: each line once, whatever dies, and with the verdicts of one process.

use super::faults::{clicks, keyed};
use super::services::Broker;
use super::{Deployment, TOPICS};
use crate::expected::Expected;
use crate::site::{VERDICTS, end, exit_of, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::process::{Child, Command};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A deployment on the target, and the topic that is brought into it.
struct Bridge<'a> {
    deployment: Deployment<'a>,
    source: String,
}

impl<'a> Bridge<'a> {
    /// Topics with these numbers of partitions.
    fn new(broker: &'a Broker, source_partitions: u32, target_partitions: u32) -> Bridge<'a> {
        let deployment = Deployment::on_disk(broker, target_partitions);
        let settings = String::from_utf8(deployment.site.read("fast.toml")).unwrap();
        // Many records, so that some of a transaction are in the topic before it is committed.
        deployment.site.write("fast.toml", format!("{settings}[agent]\nrecord_size = \"4KiB\"\n"));
        let source = format!("{}-source", deployment.topic);
        broker.create_topic(&source, source_partitions);
        Bridge { deployment, source }
    }

    fn command(&self, more: &str) -> Command {
        let Deployment { site, broker, topic } = &self.deployment;
        let mut command = site.program();
        command.args(["repartition", "--config", "fast.toml", "--brokers", broker.address()]);
        command.args(["--topic", &self.source, "--to", topic]).args(more.split_whitespace());
        if !more.contains("--group") {
            command.args(["--group", topic]);
        }
        command
    }

    /// Starts a process that dies at a fail point, if one is given.
    fn start(&self, fail_point: Option<&str>) -> Process {
        let log = format!("repartition-{}.log", TOPICS.fetch_add(1, Ordering::Relaxed));
        let stderr = File::create(self.deployment.site.path(&log)).unwrap();
        let mut command = self.command("");
        command.envs(fail_point.map(|point| ("FAILPOINTS", point)));
        Process { child: command.stderr(stderr).spawn().unwrap(), log: self.deployment.site.path(&log) }
    }

    /// Produces files into the source with an agent, to their end.
    fn produce(&self, files: &str) {
        let Deployment { site, broker, .. } = &self.deployment;
        let mut command = site.program();
        command.args(["agent", files, "--until-end", "--config", "fast.toml", "--brokers", broker.address()]);
        command.args(["--topic", &self.source, "--data-dir", "agent"]);
        end(command).ok();
    }

    /// The lines in the target, sorted.
    fn lines(&self) -> Vec<Vec<u8>> {
        self.deployment.broker.lines(&self.deployment.topic)
    }
}

/// A running repartition; dropping it kills it.
struct Process {
    child: Child,
    log: std::path::PathBuf,
}

impl Process {
    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Waits for its end. Returns the exit code, and what it said.
    fn ended(mut self) -> (Option<i32>, String) {
        let status = exit_of(&mut self.child);
        (status.code(), self.said())
    }

    fn stop(self) -> String {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let (code, said) = self.ended();
        assert_eq!(code, Some(0), "{said}");
        said
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The lines of a text, sorted.
fn sorted(text: &[u8]) -> Vec<Vec<u8>> {
    let lines = text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    let mut lines: Vec<Vec<u8>> = lines.map(<[u8]>::to_vec).collect();
    lines.sort_unstable();
    lines
}

/// A topic of another producer, with the wrong partitioner and one line a record. The process dies before and after a
/// transaction is committed, and at any moment.
#[test]
fn a_foreign_topic_arrives_exactly_once() {
    let bridge = Bridge::new(Broker::shared(), 3, 4);
    let Deployment { site, broker, topic } = &bridge.deployment;
    let words = "--lines 30000 --rate 20 --seed 71 --duplicates 3% --exact-copies --invalid 0.5% --click-ids 30% \
                 --start 2025-03-01T00:00:00Z";
    let expected = Expected::generate(site, "clicks.log", words);
    let text = site.read("clicks.log");
    let lines = keyed(&String::from_utf8(text.clone()).unwrap());
    let worker = bridge.deployment.worker("");
    let mut parts = lines.chunks(lines.len() / 6 + 1).map(<[_]>::to_vec);
    // The first transaction has the offsets only.
    for fail_point in ["transaction_sent=1*off->return", "transaction_committed=1*off->return"] {
        broker.produce(&bridge.source, "consistent", parts.next().unwrap());
        let (code, said) = bridge.start(Some(fail_point)).ended();
        assert_eq!(code, None, "the process died at the point: {said}");
    }
    for pause_ms in [600, 1_700, 1_100] {
        broker.produce(&bridge.source, "consistent", parts.next().unwrap());
        let process = bridge.start(None);
        std::thread::sleep(Duration::from_millis(pause_ms));
        drop(process);
    }
    broker.produce(&bridge.source, "consistent", parts.flatten().collect::<Vec<_>>());
    let ended = end(bridge.command("--until-end")).ok();
    assert!(ended.stderr.contains("everything of"), "{}", ended.stderr);
    let found = bridge.lines();
    assert!(found == sorted(&text), "{} lines of {}", found.len(), expected.lines());
    let ledger = bridge.deployment.wait_read(expected.lines());
    for verdict in VERDICTS {
        assert_eq!(ledger[verdict], expected.report[verdict], "{verdict}: {ledger}");
    }
    expected.check_counts(site);
    let misrouted = site.sql_value("SELECT count(*) FROM dead_letters WHERE reason LIKE 'ad_id: misrouted%'");
    assert_eq!(misrouted, "0");
    // There is nothing more to read.
    let again = end(bridge.command("--until-end")).ok();
    assert!(again.stderr.contains(&format!("is in {topic}: 0 lines")), "{}", again.stderr);
    worker.stop();
    site.verify();
}

/// The topic of an agent gets more partitions while it is brought into another one: it is noticed, and each line keeps the verdict
/// that it has in one process.
#[test]
fn a_topic_that_grows_keeps_its_verdicts() {
    let bridge = Bridge::new(Broker::shared(), 2, 4);
    let Deployment { site, broker, .. } = &bridge.deployment;
    let words = "--lines 30000 --rate 20 --seed 72 --duplicates 4% --late 1% --malformed 0.5% --invalid 0.5% \
                 --click-ids 30% --start 2025-03-01T00:00:00Z";
    let expected = Expected::generate(site, "whole.log", words);
    let text = site.read("whole.log");
    let lines: Vec<&[u8]> = text.split_inclusive(|&byte| byte == b'\n').collect();
    let (before, after) = lines.split_at(lines.len() / 2);
    let worker = bridge.deployment.worker("");
    let process = bridge.start(None);
    site.write("logs/clicks.log", before.concat());
    bridge.produce("logs");
    wait_for("the first half", || (bridge.lines().len() == before.len()).then_some(()));
    let alter = ["--alter", "--topic", &bridge.source, "--partitions", "4"];
    broker.tool("org.apache.kafka.tools.TopicCommand", &alter);
    site.append("logs/clicks.log", after.concat());
    bridge.produce("logs");
    let ledger = bridge.deployment.wait_read(expected.lines());
    for verdict in VERDICTS {
        assert_eq!(ledger[verdict], expected.report[verdict], "{verdict}: {ledger}");
    }
    expected.check_counts(site);
    assert!(bridge.lines() == sorted(&text));
    let said = process.stop();
    assert!(said.contains("the topic has more partitions"), "{said}");
    worker.stop();
    site.verify();
}

/// Of two processes for one group, the last one that was started works. The other one notices, and stops.
#[test]
fn a_process_that_is_replaced_stops() {
    let bridge = Bridge::new(Broker::shared(), 2, 3);
    let broker = bridge.deployment.broker;
    let produce = |users: std::ops::Range<i64>| {
        broker.produce(&bridge.source, "murmur2_random", keyed(&clicks(users)));
    };
    let mut old = bridge.start(None);
    produce(0..100);
    wait_for("the first lines", || (bridge.lines().len() == 100).then_some(()));
    let new = bridge.start(None);
    let mut sent = 100;
    // It notices when it next has something to commit.
    wait_for("the end of the old process", || {
        produce(sent..sent + 10);
        sent += 10;
        old.child.try_wait().unwrap()
    });
    let (code, said) = old.ended();
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("another process brings"), "{said}");
    wait_for("all lines", || (bridge.lines().len() as i64 >= sent).then_some(()));
    new.stop();
    assert!(bridge.lines() == sorted(clicks(0..sent).as_bytes()));
}

#[test]
fn what_would_repeat_or_scatter_lines_is_refused() {
    let bridge = Bridge::new(Broker::shared(), 2, 2);
    let Deployment { broker, topic, .. } = &bridge.deployment;
    let check = |more: &str, expected: &str| {
        let ended = end(bridge.command(more));
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        assert!(ended.stderr.contains(expected), "{}", ended.stderr);
    };
    broker.produce(&bridge.source, "murmur2_random", keyed(&clicks(0..10)));
    end(bridge.command("--until-end")).ok();
    check("--until-end --group another", "has records already");
    end(bridge.command("--until-end --group another --from earliest")).ok();
    assert_eq!(bridge.lines().len(), 20);
    broker.tool("org.apache.kafka.tools.TopicCommand", &["--alter", "--topic", topic, "--partitions", "3"]);
    check("--until-end", "had 2 partitions and now has 3");
    broker.tool("org.apache.kafka.tools.TopicCommand", &["--delete", "--topic", topic]);
    broker.create_topic(topic, 2);
    check("--until-end", "was made again since");
    let mut command = bridge.deployment.site.program();
    command.args(["repartition", "--brokers", broker.address(), "--topic", topic, "--to", topic]);
    let ended = end(command);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("cannot be brought into itself"), "{}", ended.stderr);
}
