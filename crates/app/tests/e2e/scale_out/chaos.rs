//! Chaos: workers and agents are killed and frozen at random, the broker is restarted, and the object store fails, while two
//! logs grow. At the end every count is right.
//!
//! `cargo xtask soak --chaos` runs the same test for longer and with more clicks.

use super::Deployment;
use super::services::{Broker, S3};
use crate::expected::{COUNTS, Expected, KEY};
use crate::site::{Serving, VERDICTS};
use rustix::process::{Pid, Signal, kill_process};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const WORKERS: usize = 3;
const AGENTS: usize = 2;
const PARTITIONS: u32 = 6;

/// Clicks to count, and the variable with another number of them.
const CLICKS: (&str, u64) = ("ADTALLY_CHAOS_CLICKS", 200_000);

/// Steps of chaos, each of one to two seconds, and the variable with another number of them.
const STEPS: (&str, u64) = ("ADTALLY_CHAOS_STEPS", 40);

/// Settings of a long run. Those of the other tests would leave so many small files that reading them takes longer than the
/// chaos.
const CALM: &str =
    "[epoch]\ninterval = \"2s\"\nfsync = false\n[store]\nlake_interval = \"10s\"\n[log]\nlevel = \"info\"\n";

/// Faults of the object store, in millionths of the requests.
const FAULTS: &str = "refuse_500=20000\nlose_500=20000\nrefuse_409=10000\nlose_409=10000\nrefuse_hang=2000\n\
                      lose_hang=2000\nhang_ms=4000\n";

/// Times to look, a second apart, whether all clicks are in the lake after the chaos.
const ROUNDS_MAX: u32 = 1_200;

/// The size of a run.
struct Size {
    clicks: u64,
    steps: u64,
}

impl Size {
    fn read() -> Size {
        let [clicks, steps] = [CLICKS, STEPS].map(|(variable, number)| {
            std::env::var(variable).map_or(number, |text| text.parse().unwrap_or_else(|_| panic!("{variable}={text}")))
        });
        Size { clicks, steps }
    }

    fn is_long(&self) -> bool {
        self.clicks > CLICKS.1 || self.steps > STEPS.1
    }
}

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
pub(super) struct Agent(Child);

impl Agent {
    /// Starts one that tails the folder `logs-NUMBER`.
    pub(super) fn start(deployment: &Deployment<'_>, number: usize) -> Agent {
        let mut command: Command = deployment.site.program();
        command.args(["agent", &format!("logs-{number}"), "--config", "fast.toml", "--topic", &deployment.topic]);
        command.args(["--brokers", deployment.broker.address(), "--data-dir", &format!("agent-{number}")]);
        Agent(command.stderr(Stdio::null()).spawn().unwrap())
    }

    fn send(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    fn check_running(&mut self) {
        let ended = self.0.try_wait().unwrap();
        assert!(ended.is_none(), "an agent has ended by itself: {ended:?}");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The ad of a line; 0 if there is none.
fn ad_of(line: &[u8]) -> u64 {
    let line = String::from_utf8_lossy(line);
    let digits = line.split("\"ad_id\":").nth(1).unwrap_or_default().trim_start_matches('"');
    digits.split(|byte: char| !byte.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()).unwrap_or_default()
}

/// The lines of each agent's log. Copies of a click are in one log, so that the same one comes first in each run.
fn divided(text: &[u8]) -> Vec<Vec<&[u8]>> {
    let mut logs = vec![Vec::new(); AGENTS];
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        logs[(ad_of(line) % AGENTS as u64) as usize].push(line);
    }
    logs
}

/// What happens in a step.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Action {
    KillWorker,
    FreezeWorker,
    KillAgent,
    FreezeAgent,
    RestartBroker,
    FailStore,
}

impl Action {
    const ALL: [Action; 6] = [
        Action::KillWorker,
        Action::FreezeWorker,
        Action::KillAgent,
        Action::FreezeAgent,
        Action::RestartBroker,
        Action::FailStore,
    ];

    /// The broker is restarted in a third of its turns only: it takes long.
    fn draw(random: &mut Random, step: u64) -> Action {
        match Action::ALL[random.below(6) as usize] {
            Action::RestartBroker if !step.is_multiple_of(3) => Action::FailStore,
            action => action,
        }
    }
}

/// The processes, and what happened to them.
struct Chaos<'a> {
    deployment: &'a Deployment<'a>,
    s3: &'a S3,
    random: Random,
    workers: Vec<Serving>,
    agents: Vec<Agent>,
    /// Frozen workers, and the steps at which they go on.
    frozen: Vec<(u64, usize)>,
    done: Vec<Action>,
}

impl Chaos<'_> {
    fn step(&mut self, step: u64) {
        let (worker, agent) = (self.random.below(WORKERS as u64) as usize, self.random.below(AGENTS as u64) as usize);
        let action = Action::draw(&mut self.random, step);
        self.done.push(action);
        match action {
            Action::KillWorker => {
                self.workers.remove(worker).kill();
                self.workers.insert(worker, self.deployment.worker(""));
            }
            Action::FreezeWorker => {
                self.workers[worker].send(Signal::STOP);
                self.frozen.push((step + 2 + self.random.below(8), worker));
            }
            Action::KillAgent => {
                drop(self.agents.remove(agent));
                self.agents.insert(agent, Agent::start(self.deployment, agent));
            }
            Action::FreezeAgent => {
                self.agents[agent].send(Signal::STOP);
                std::thread::sleep(Duration::from_millis(700));
                self.agents[agent].send(Signal::CONT);
            }
            Action::RestartBroker => {
                self.deployment.broker.kill();
                std::thread::sleep(Duration::from_millis(500));
                self.deployment.broker.revive();
            }
            // Another seed for each step: otherwise the same requests of a step would be hit each time.
            Action::FailStore => self.s3.set_faults(&format!("{FAULTS}seed={step}")),
        }
        let workers = &self.workers;
        self.frozen.retain(|&(until, worker)| {
            if until <= step {
                workers[worker].send(Signal::CONT);
            }
            until > step
        });
        std::thread::sleep(Duration::from_millis(900));
        self.s3.set_faults("");
        self.check_running();
    }

    /// Fails the test if a process has ended by itself.
    fn check_running(&mut self) {
        self.workers.iter_mut().for_each(Serving::check_running);
        self.agents.iter_mut().for_each(Agent::check_running);
    }

    /// Fails the test unless everything has happened often.
    fn check_done(&self, size: &Size) {
        let times = Action::ALL.map(|action| (action, self.done.iter().filter(|&&done| done == action).count()));
        let hits = |kinds: [&str; 2]| kinds.iter().map(|kind| self.s3.hits(kind)).sum::<u64>();
        let (errors, conflicts, hangs) =
            (hits(["refuse_500", "lose_500"]), hits(["refuse_409", "lose_409"]), hits(["refuse_hang", "lose_hang"]));
        println!("{times:?}; requests: {errors} with 500, {conflicts} with 409, {hangs} without an answer");
        let least = size.steps / 20;
        assert!(times.iter().all(|&(_, times)| times as u64 >= least), "each at least {least} times: {times:?}");
        assert!(errors > 0, "the object store failed");
        if size.is_long() {
            assert!(errors >= least && conflicts > 0 && hangs > 0, "the object store failed in each way");
        }
    }

    /// Waits until all clicks are in the lake, as far as their number tells.
    fn wait_for_clicks(&mut self, expected: &Expected) {
        let query = "SELECT coalesce(sum(clicks), 0) FROM clicks_by_minute";
        let deployment = self.deployment;
        let site = &deployment.site;
        let counted = expected.report["counted"].to_string();
        for _ in 0..ROUNDS_MAX {
            let found = site.words(&["sql", "--data-dir", site.data(), "--format", "csv", query]);
            if found.code == Some(0) && found.stdout.lines().nth(1) == Some(&counted) {
                return;
            }
            self.check_running();
            std::thread::sleep(Duration::from_secs(1));
        }
        // Shows what is missing.
        expected.check_csv("clicks_by_minute", &site.sql(COUNTS));
    }
}

#[test]
fn every_count_is_right_after_chaos() {
    let size = Size::read();
    let (broker, s3) = (Broker::start(), S3::start());
    let mut deployment = Deployment::on_s3(&broker, &s3, PARTITIONS);
    deployment.site.set("AWS_TIMEOUT", "3 seconds");
    if size.is_long() {
        deployment.site.write("fast.toml", format!("{CALM}{KEY}"));
    }
    // A step has two and a half seconds of event time.
    let (clicks, rate) = (size.clicks, (size.clicks * 2 / (size.steps * 5)).max(1));
    let words = format!(
        "--clicks {clicks} --rate {rate} --ads 5000 --seed 14 --duplicates 5% --malformed 0.2% --click-ids 20% \
         --start 2025-03-01T00:00:00Z"
    );
    let expected = Expected::generate(&deployment.site, "whole.log", &words);
    let text = deployment.site.read("whole.log");
    std::fs::remove_file(deployment.site.path("whole.log")).unwrap();
    let logs = divided(&text);
    (0..AGENTS).for_each(|agent| deployment.site.write(&format!("logs-{agent}/clicks.log"), ""));
    let deployment = &deployment;
    let mut chaos = Chaos {
        deployment,
        s3: &s3,
        random: Random(14),
        workers: (0..WORKERS).map(|_| deployment.worker("")).collect(),
        agents: (0..AGENTS).map(|agent| Agent::start(deployment, agent)).collect(),
        frozen: Vec::new(),
        done: Vec::new(),
    };
    for step in 0..size.steps {
        for (agent, lines) in logs.iter().enumerate() {
            let share = |step: u64| (lines.len() as u64 * step / size.steps) as usize;
            deployment.site.append(&format!("logs-{agent}/clicks.log"), lines[share(step)..share(step + 1)].concat());
        }
        chaos.step(step);
    }
    chaos.workers.iter().for_each(|worker| worker.send(Signal::CONT));
    chaos.check_done(&size);
    chaos.wait_for_clicks(&expected);
    chaos.workers.into_iter().for_each(|worker| drop(worker.stop()));
    expected.check_counts(&deployment.site);
    let ledger = deployment.site.ledger();
    let number = |verdict: &str| ledger[verdict].as_u64().unwrap();
    assert_eq!(number("counted"), size.clicks, "{ledger}");
    assert_eq!(number("read"), VERDICTS[1..].iter().map(|verdict| number(verdict)).sum::<u64>(), "{ledger}");
    // Some lines were sent again.
    assert!(number("read") >= expected.lines(), "{ledger}");
    assert!(number("malformed") >= expected.report["malformed"].as_u64().unwrap(), "{ledger}");
    assert_eq!(number("gap_bytes"), 0, "{ledger}");
    deployment.site.verify();
}
