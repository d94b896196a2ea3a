//! Chaos: workers and agents are killed and frozen at random, the broker is restarted, and the object store fails, while two
//! logs grow. At the end every count is right.

use super::Deployment;
use super::services::{Broker, S3};
use crate::expected::{COUNTS, Expected};
use crate::site::{Serving, poll};
use rustix::process::{Pid, Signal, kill_process};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const WORKERS: usize = 3;
const AGENTS: usize = 2;

/// Steps of chaos; each takes about a second.
const STEPS: u64 = 40;

/// Numbers by SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// A running agent; dropping it kills it.
struct Agent(Child);

impl Agent {
    fn start(deployment: &Deployment<'_>, number: usize) -> Agent {
        let mut command: Command = deployment.site.program();
        command.args(["agent", &format!("logs-{number}"), "--config", "fast.toml", "--topic", &deployment.topic]);
        command.args(["--brokers", deployment.broker.address(), "--data-dir", &format!("agent-{number}")]);
        Agent(command.stderr(Stdio::null()).spawn().unwrap())
    }

    fn send(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The ad of a line; 0 if there is none.
fn ad_of(line: &str) -> u64 {
    let digits = line.split("\"ad_id\":").nth(1).unwrap_or_default().trim_start_matches('"');
    digits.split(|byte: char| !byte.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()).unwrap_or_default()
}

#[test]
fn every_count_is_right_after_chaos() {
    let (broker, s3) = (Broker::start(), S3::start());
    let mut deployment = Deployment::on_s3(&broker, &s3, 6);
    deployment.site.set("AWS_TIMEOUT", "3 seconds");
    let words = "--lines 200000 --rate 2000 --ads 5000 --seed 14 --duplicates 5% --malformed 0.2% --click-ids 20% \
                 --start 2025-03-01T00:00:00Z";
    let expected = Expected::generate(&deployment.site, "whole.log", words);
    let text = String::from_utf8_lossy(&deployment.site.read("whole.log")).into_owned();
    // Copies of a click are in one log, so that the same one comes first in each run.
    let mut logs = vec![Vec::new(); AGENTS];
    text.split_inclusive('\n').for_each(|line| logs[(ad_of(line) % AGENTS as u64) as usize].push(line));
    (0..AGENTS).for_each(|agent| deployment.site.write(&format!("logs-{agent}/clicks.log"), ""));
    let deployment = &deployment;
    let mut random = Random(14);
    let mut workers: Vec<Serving> = (0..WORKERS).map(|_| deployment.worker("")).collect();
    let mut agents: Vec<Agent> = (0..AGENTS).map(|agent| Agent::start(deployment, agent)).collect();
    let (mut frozen, mut done) = (Vec::new(), [0_u32; 6]);
    for step in 0..STEPS {
        for (agent, lines) in logs.iter().enumerate() {
            let share = |step: u64| lines.len() * step as usize / STEPS as usize;
            deployment.site.append(&format!("logs-{agent}/clicks.log"), lines[share(step)..share(step + 1)].concat());
        }
        let (worker, agent) = (random.below(WORKERS as u64) as usize, random.below(AGENTS as u64) as usize);
        let action = random.below(6) as usize;
        done[action] += 1;
        match action {
            0 => {
                workers.remove(worker).kill();
                workers.insert(worker, deployment.worker(""));
            }
            1 => {
                workers[worker].send(Signal::STOP);
                frozen.push((step + 2 + random.below(8), worker));
            }
            2 => {
                drop(agents.remove(agent));
                agents.insert(agent, Agent::start(deployment, agent));
            }
            3 => {
                agents[agent].send(Signal::STOP);
                std::thread::sleep(Duration::from_millis(700));
                agents[agent].send(Signal::CONT);
            }
            4 if step % 3 == 0 => {
                broker.kill();
                std::thread::sleep(Duration::from_millis(500));
                broker.revive();
            }
            _ => s3.set_faults(
                "refuse_500=20000\nlose_500=20000\nrefuse_409=10000\nlose_409=10000\nlose_hang=2000\nhang_ms=4000",
            ),
        }
        frozen.retain(|&(until, worker)| {
            let is_over = until <= step;
            if is_over && let Some(worker) = workers.get(worker) {
                worker.send(Signal::CONT);
            }
            !is_over
        });
        std::thread::sleep(Duration::from_millis(900));
        s3.set_faults("");
    }
    workers.iter().for_each(|worker| worker.send(Signal::CONT));
    assert!(done.iter().all(|&times| times > 0), "everything happened: {done:?}");
    assert!(s3.hits("lose_500") + s3.hits("refuse_500") > 0, "the object store failed");
    let right = poll(|| {
        let found = deployment.site.words(&["sql", "--data-dir", deployment.site.data(), "--format", "csv", COUNTS]);
        expected.has_counts(&found.stdout).then_some(())
    });
    if right.is_none() {
        expected.check_csv("clicks_by_minute", &deployment.site.sql(COUNTS));
    }
    workers.into_iter().for_each(|worker| drop(worker.stop()));
    expected.check_counts(&deployment.site);
    deployment.site.verify();
}
