//! `adtally demo --kafka`: an agent, two workers and a node beside a real Kafka, on one machine. A worker is killed, and at the
//! end every line is accounted for.

mod broker;
mod deployment;
mod process;
mod sight;
mod story;

use super::guide::show_answers;
use super::traffic::{Writer, Written};
use super::{DemoArgs, LOOK_MS, configure, folders, of_writer, remove};
use crate::commands::run::start_log;
use crate::commands::runtime;
use crate::commands::serve::refuse_other_machines;
use crate::commands::serving::Server;
use crate::commands::stopping::Stopping;
use crate::config::Config;
use crate::exit::Exit;
use crate::terminal;
use adtally_engine::clock::{Clock, Randomness, SystemClock, SystemRandomness};
use adtally_generate::Generator;
use adtally_kafka::{Cluster, TopicEnds};
use adtally_model::ledger::thousands;
use adtally_model::{Error, Ledger, Result};
use adtally_source::KafkaSettings;
use adtally_store::backing::StoreUrl;
use deployment::{Deployment, Places};
use process::{Launcher, Process};
use sight::{Lookout, Sight, best};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use story::{Step, Story, list, name, seconds};

/// The number of workers.
const WORKERS: usize = 2;

/// The worker that goes on.
const SURVIVOR: usize = 0;

/// The worker that is killed.
const VICTIM: usize = 1;

/// Partitions of the topic.
const PARTITIONS: u32 = 6;

/// The configuration file of all processes.
const SETTINGS_FILE: &str = "demo.toml";

/// The data directory of the agent.
const AGENT_FOLDER: &str = "agent";

/// The content of the configuration file, without the identity key. Commits and the lake follow soon, so that something moves
/// every second.
const SETTINGS: &str =
    "[epoch]\ninterval = \"1s\"\n[store]\nlake_interval = \"3s\"\n[log]\nformat = \"text\"\nlevel = \"info\"\n";

/// How often the demo checks whether something has happened.
const POLL: Duration = Duration::from_millis(50);

/// How long a process or the brokers may take to answer at the start, in milliseconds. Programs that are not optimised, on a
/// busy machine, take a minute.
const START_MS_MAX: i64 = 120_000;

/// How long the workers may take to count what is left at the end, in milliseconds. If one was just killed, Kafka takes ten
/// seconds to notice.
const FINISH_MS_MAX: i64 = 120_000;

/// For how long nothing more is counted when all is, in milliseconds: the time of some commits.
const SETTLED_MS: i64 = 4_000;

/// Runs the demo.
///
/// # Errors
/// A user error for a wrong address, or if Java or the jars of Kafka are missing; otherwise the error that stopped the demo.
pub(super) fn demo(args: &DemoArgs, generator: Generator) -> Result<Exit> {
    let runtime = runtime()?;
    let stopping = Stopping::on_signals(&runtime)?;
    stopping.without_time_limit();
    let (folder, logs) = folders(&stopping)?;
    let config = configure(args, folder.path(), &logs)?;
    start_log(&config)?;
    refuse_other_machines(config.listen)?;
    // Only tries the address: the node listens later.
    drop(Server::listen(&runtime, &config)?);
    let stage =
        Stage { args, config: &config, folder: folder.path(), logs: &logs, runtime: &runtime, stopping: &stopping };
    // All processes have ended when it returns.
    let outcome = stage.demo(generator);
    let removed = remove(folder);
    let exit = outcome?;
    removed?;
    Ok(exit)
}

/// What the demo runs on.
struct Stage<'a> {
    args: &'a DemoArgs,
    config: &'a Config,
    folder: &'a Path,
    logs: &'a Path,
    runtime: &'a tokio::runtime::Runtime,
    stopping: &'a Stopping,
}

impl Stage<'_> {
    fn demo(&self, generator: Generator) -> Result<Exit> {
        let key = SystemRandomness.next_u128();
        let settings = format!("{SETTINGS}[identity]\nkey = \"{key:032x}\"\n");
        let file = self.folder.join(SETTINGS_FILE);
        std::fs::write(&file, settings)
            .map_err(|e| Error::external(format!("{} cannot be written", file.display())).because(e))?;
        let launcher = Launcher::new(self.folder)?;
        let (mut broker, brokers, topic) = match &self.args.brokers {
            Some(brokers) => {
                let topic = format!("adtally-demo-{:032x}", SystemRandomness.next_u128());
                terminal::say(&format!("using the brokers at {brokers}; the topic {topic} is deleted at the end"));
                (None, brokers.clone(), topic)
            }
            None => {
                let (broker, address) = broker::start(&launcher)?;
                (Some(broker), address, "clicks".to_owned())
            }
        };
        let cluster = Cluster::new(&KafkaSettings { brokers: brokers.clone(), ..KafkaSettings::default() })?;
        if self.make_topic(&cluster, &mut broker, &topic)?.is_none() {
            return stopped_early();
        }
        let is_foreign = broker.is_none();
        let places = Places { launcher, brokers, topic: topic.clone(), data: self.data(), listen: self.config.listen };
        let outcome = self.on_topic(generator, &cluster, broker, places);
        if is_foreign {
            match self.runtime.block_on(cluster.delete_topic(&topic)) {
                Ok(()) => terminal::say(&format!("the topic {topic} is deleted")),
                Err(error) => terminal::say(&format!("the topic {topic} is left behind: {}", error.report())),
            }
        }
        outcome
    }

    /// The URL of the data, in the temporary folder.
    fn data(&self) -> String {
        let folder = self.folder.join("data").display().to_string();
        let escaped = |c: char| match c {
            '%' | '?' | '#' => format!("%{:02X}", u32::from(c)),
            c => c.to_string(),
        };
        format!("file://{}", folder.chars().map(escaped).collect::<String>())
    }

    /// Starts the processes, and shows what they do.
    fn on_topic(
        &self,
        generator: Generator,
        cluster: &Cluster,
        broker: Option<Process>,
        places: Places,
    ) -> Result<Exit> {
        let topic = TopicEnds::open(cluster, &places.topic)?;
        // A broker learns of a new topic a moment after its controller has made it.
        let known = wait_for(self.stopping, &format!("the topic {}", places.topic), || Ok(topic.facts().ok()))?;
        if known.is_none() {
            return stopped_early();
        }
        let (data, agent) = (places.data.parse::<StoreUrl>()?, StoreUrl::of_folder(self.folder.join(AGENT_FOLDER)));
        terminal::say(&format!(
            "starting {WORKERS} workers, an agent and a node; their logs are in {}",
            self.folder.display()
        ));
        let Some(deployment) = Deployment::start(places, self.stopping)? else { return stopped_early() };
        let writer = Writer::start(generator, self.logs, &Arc::new(AtomicBool::new(false)))?;
        terminal::say(&format!(
            "{}; answering on\n\nhttp://{}\n",
            of_writer(self.args, self.logs),
            deployment.node_address()
        ));
        let show = Show {
            deployment,
            broker,
            lookout: Lookout::new(topic, (data, agent), self.runtime.handle().clone()),
            story: Story::of(self.args.seconds),
            written: writer.written(),
            began_ms: SystemClock.monotonic_ms(),
            is_greeted: false,
            shown: 0,
        };
        show.run(self.args.seconds, writer, self.stopping)
    }

    /// Makes the topic, once the brokers answer. `None` if the user stops the demo before.
    fn make_topic(&self, cluster: &Cluster, broker: &mut Option<Process>, topic: &str) -> Result<Option<()>> {
        wait_for(self.stopping, &format!("the broker at {}", cluster.brokers()), || {
            if let Some(broker) = broker.as_mut() {
                broker.check()?;
            }
            self.runtime.block_on(cluster.create_topic(topic, PARTITIONS)).map(Some)
        })
    }
}

fn stopped_early() -> Result<Exit> {
    terminal::say("stopped before the start was over");
    Ok(Exit::Success)
}

/// Waits until something is found, and tries again after errors that pass. `None` if the user stops the demo before.
fn wait_for<T>(stopping: &Stopping, what: &str, mut find: impl FnMut() -> Result<Option<T>>) -> Result<Option<T>> {
    let until_ms = SystemClock.monotonic_ms() + START_MS_MAX;
    while !stopping.flag().load(Ordering::Relaxed) {
        let failed = match find() {
            Ok(Some(found)) => return Ok(Some(found)),
            Ok(None) => None,
            Err(error) if error.is_retryable() => Some(error),
            Err(error) => return Err(error),
        };
        if SystemClock.monotonic_ms() >= until_ms {
            let late = Error::external(format!("{what} does not answer within {} s", START_MS_MAX / 1_000));
            return Err(match failed {
                Some(cause) => late.because(cause),
                None => late,
            });
        }
        std::thread::sleep(POLL);
    }
    Ok(None)
}

/// The demo while it runs.
struct Show {
    // It ends before the broker.
    deployment: Deployment,
    broker: Option<Process>,
    lookout: Lookout,
    story: Story,
    written: Arc<Written>,
    began_ms: i64,
    /// Whether sample questions were shown.
    is_greeted: bool,
    /// The lines above the cursor that the next status replaces.
    shown: usize,
}

impl Show {
    fn run(mut self, seconds: u64, writer: Writer, stopping: &Stopping) -> Result<Exit> {
        let seconds_ms = i64::try_from(seconds.saturating_mul(1_000)).unwrap_or(i64::MAX);
        let mut looked_ms = self.began_ms;
        // Without the writer, the demo has nothing to show.
        while !stopping.flag().load(Ordering::Relaxed) && !writer.is_finished() {
            let now_ms = SystemClock.monotonic_ms();
            if seconds_ms > 0 && now_ms - self.began_ms >= seconds_ms {
                break;
            }
            if now_ms - looked_ms >= LOOK_MS {
                looked_ms = now_ms;
                self.look(true)?;
            }
            std::thread::sleep(POLL);
        }
        self.say("\nstopping the writer; the agent and the workers finish what was written");
        writer.stop()?;
        let complaints = self.deployment.finish_agent()?;
        self.complain(&complaints);
        self.finish_counting()?;
        self.close()
    }

    fn say(&mut self, message: &str) {
        terminal::say(message);
        self.shown = 0;
    }

    fn complain(&mut self, complaints: &[String]) {
        complaints.iter().for_each(|complaint| self.say(complaint));
    }

    /// Looks at everything once, does what the story says, and prints a status. Without `may_act`, nothing is killed or started.
    fn look(&mut self, may_act: bool) -> Result<Sight> {
        if let Some(broker) = &mut self.broker {
            broker.check()?;
        }
        let workers = self.deployment.look()?;
        let mut sight = self.lookout.look(&workers);
        let now_ms = SystemClock.monotonic_ms() - self.began_ms;
        for step in self.story.turn(now_ms, &sight, may_act) {
            match step {
                Step::Kill => {
                    self.deployment.kill(VICTIM);
                    if let Some(owned) = sight.owned.get_mut(VICTIM) {
                        *owned = None;
                    }
                }
                Step::Restart => self.deployment.restart(VICTIM)?,
                Step::Say(message) => self.say(&message),
            }
        }
        let node = self.node();
        let mut lines = vec![self.of_lines(&sight)];
        lines.extend((0..WORKERS).map(|worker| self.of_worker(worker, &sight)));
        let unowned = sight.unowned();
        if !unowned.is_empty() {
            lines.push(format!("nobody: {}", of_partitions(&unowned, &sight)));
        }
        lines.push(node);
        self.shown = terminal::say_in_place(&lines, self.shown);
        Ok(sight)
    }

    /// What the node answers. Sample questions are shown with its first answer.
    fn node(&mut self) -> String {
        let address = self.deployment.node_address();
        let Some(best) = best(address) else { return "node: no minute is closed yet".to_owned() };
        if !std::mem::replace(&mut self.is_greeted, true) {
            show_answers(address, &best.ad);
            self.shown = 0;
        }
        format!(
            "node: ad {} leads in minute {} with {} clicks; newest click {} old",
            best.ad,
            best.minute,
            thousands(best.clicks),
            seconds(best.age_ms)
        )
    }

    fn of_lines(&self, sight: &Sight) -> String {
        format!(
            "{} lines written, {} safe in Kafka, {} counted",
            thousands(self.written.lines()),
            thousands(sight.acknowledged),
            thousands(sight.ledger.read)
        )
    }

    fn of_worker(&self, worker: usize, sight: &Sight) -> String {
        let what = match sight.owned.get(worker).and_then(Option::as_ref) {
            Some(owned) if owned.is_empty() => "no partitions".to_owned(),
            Some(owned) => of_partitions(owned, sight),
            None if self.deployment.has(worker) => "starting".to_owned(),
            None => "killed".to_owned(),
        };
        format!("{}: {what}", name(worker))
    }

    /// Waits until everything that was written is committed, and nothing more comes.
    fn finish_counting(&mut self) -> Result<()> {
        let lines = self.written.lines();
        let until_ms = SystemClock.monotonic_ms() + FINISH_MS_MAX;
        let (mut read, mut moved_ms) = (0, SystemClock.monotonic_ms());
        loop {
            let sight = self.look(false)?;
            let now_ms = SystemClock.monotonic_ms();
            if sight.ledger.read != read {
                (read, moved_ms) = (sight.ledger.read, now_ms);
            }
            // A last record without lines may stay where it is.
            let is_settled = sight.has_committed(&sight.ends) || now_ms - moved_ms >= SETTLED_MS;
            if read >= lines && is_settled {
                return Ok(());
            }
            if now_ms >= until_ms {
                self.say(&format!("not everything is counted within {} s", FINISH_MS_MAX / 1_000));
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(LOOK_MS.unsigned_abs()));
        }
    }

    /// Stops the other processes, and compares the ledger with what was written.
    fn close(mut self) -> Result<Exit> {
        self.say("stopping the workers and the node");
        let complaints = self.deployment.stop()?;
        complaints.iter().for_each(|complaint| terminal::say(complaint));
        let ledger = self.lookout.look(&[]).ledger;
        drop(self.broker);
        terminal::say(&format!("\n{ledger}"));
        match account(self.written.lines(), self.written.rejected(), &ledger) {
            Ok(right) => terminal::say(&right),
            Err(wrong) => {
                terminal::error(&wrong);
                return Ok(Exit::Damaged);
            }
        }
        Ok(Exit::Success)
    }
}

/// `partitions 0, 2, 4, 12 records behind`.
fn of_partitions(partitions: &BTreeSet<u32>, sight: &Sight) -> String {
    let noun = if partitions.len() == 1 { "partition" } else { "partitions" };
    format!("{noun} {}; {} records not counted", list(partitions), thousands(sight.lag(partitions)))
}

/// Compares the ledger with what was written: the lines, and the malformed and invalid lines among them.
fn account(lines: u64, rejected: (u64, u64), ledger: &Ledger) -> std::result::Result<String, String> {
    let Ledger { read, malformed, invalid, .. } = *ledger;
    let Some(twice) = read.checked_sub(lines) else {
        let (missing, lines) = (thousands(lines - read), thousands(lines));
        return Err(format!("{missing} of the {lines} lines that were written are missing in the ledger"));
    };
    let is_right = match twice {
        0 => (malformed, invalid) == rejected,
        _ => malformed >= rejected.0 && invalid >= rejected.1,
    };
    if !is_right {
        return Err(format!(
            "the ledger has {malformed} malformed and {invalid} invalid lines, and {} and {} were written",
            rejected.0, rejected.1
        ));
    }
    let mut text = format!(
        "all {} lines that were written are accounted for: {} clicks and copies, {} lines that are no clicks",
        thousands(lines),
        thousands(lines.saturating_sub(rejected.0 + rejected.1)),
        thousands(rejected.0 + rejected.1)
    );
    if twice > 0 {
        text.push_str(&format!("; the agent sent {} lines twice, which the workers recognised", thousands(twice)));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_accounted_for() {
        let check = |read, malformed, invalid, expected: std::result::Result<&str, &str>| {
            let ledger = Ledger { read, malformed, invalid, ..Ledger::default() };
            let told = account(1_000, (3, 2), &ledger);
            let right = match (&told, expected) {
                (Ok(told), Ok(word)) | (Err(told), Err(word)) => told.contains(word),
                _ => false,
            };
            assert!(right, "{told:?}: {expected:?}");
        };
        check(1_000, 3, 2, Ok("all 1,000 lines that were written are accounted for: 995 clicks and copies, 5 lines"));
        check(1_007, 4, 2, Ok("sent 7 lines twice"));
        check(999, 3, 2, Err("1 of the 1,000 lines"));
        check(1_000, 3, 3, Err("3 invalid lines, and 3 and 2 were written"));
        check(1_001, 2, 2, Err("2 malformed"));
    }
}
