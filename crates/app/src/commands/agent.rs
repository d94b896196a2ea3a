//! `adtally agent`: tails log files and produces their lines to a Kafka topic.

use super::run::start_log;
use super::runtime;
use super::settings::{KafkaFlags, input_paths, load};
use super::stopping::Stopping;
use crate::config::{Config, FlagSetting, Value};
use crate::exit::Exit;
use crate::handles;
use crate::terminal;
use adtally_agent::agent::Now;
use adtally_agent::{Agent, AgentParts, Journal, Outcome, Outgoing, Produce, Turn};
use adtally_engine::clock::{Clock, Randomness, SystemClock, SystemRandomness};
use adtally_engine::files::file_source;
use adtally_engine::{ATTEMPTS_MAX, Backing, Ending};
use adtally_kafka::{Cluster, Produced, Producer};
use adtally_model::ledger::thousands;
use adtally_model::settings::Clash;
use adtally_model::{Error, ErrorKind, IdentityKey, PartitionState, Result};
use adtally_source::kafka::record::{CSV, GAP, INPUT, SEQUENCE, Stamp, WATERMARK};
use adtally_source::{DecodeSettings, Decoder, LocalFiles};
use adtally_store::backing::{EMBEDDED, StoreUrl};
use adtally_store::data_dir::DataDir;
use clap::Args;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Pause while there is nothing to do.
pub(crate) const WAIT: Duration = Duration::from_millis(5);

/// Pause before the agent begins again from its journal.
pub(crate) const AGAIN: Duration = Duration::from_secs(1);

/// How long a stopping agent waits for acknowledgements, in milliseconds. Giving up loses nothing.
const DRAIN_MS_MAX: i64 = 8_000;

/// Time between two messages about problems, in milliseconds.
pub(crate) const TOLD_EVERY_MS: i64 = 10_000;

/// Tail log files and produce their lines to a Kafka topic.
#[derive(Debug, Args)]
#[command(after_help = "\
Run one agent on each machine that writes logs. It reads files exactly as `adtally run` does, through rotation and
restarts. A position moves only when Kafka has acknowledged everything before it; while Kafka is away, the agent waits.

Examples:
  adtally agent /var/log/clicks --brokers kafka:9092 --topic clicks --data-dir /var/lib/adtally-agent
  adtally agent clicks.log --brokers kafka:9092 --topic clicks --data-dir agent --until-end
  adtally agent /var/log/clicks --brokers kafka:9092 --topic clicks --data-dir agent --after /var/lib/adtally")]
pub struct AgentArgs {
    /// Files, folders or globs to read; they replace those of the configuration.
    #[arg(value_name = "INPUT")]
    pub inputs: Vec<String>,
    /// Kafka.
    #[command(flatten)]
    pub kafka: KafkaFlags,
    /// Where the agent keeps how far it has read [default: adtally-data].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Begin where `adtally run` with this data directory has ended, if this agent has not read anything yet.
    #[arg(long, value_name = "DIR")]
    pub after: Option<PathBuf>,
    /// Read all inputs up to their present size, wait for all acknowledgements and exit.
    #[arg(long)]
    pub until_end: bool,
    /// The configuration file (- means standard input).
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl AgentArgs {
    fn config(&self) -> Result<Config> {
        let mut flags: Vec<FlagSetting> = input_paths(&self.inputs).into_iter().collect();
        flags.extend(self.kafka.flags());
        flags.extend(self.data_dir.iter().map(|folder| {
            let value = Value::Text(folder.display().to_string());
            FlagSetting { flag: "--data-dir", key: "store.data_dir", value }
        }));
        Ok(load(self.config.as_deref(), &flags)?.1)
    }
}

/// Runs the command.
///
/// # Errors
/// The error that stopped the agent.
pub fn agent(args: &AgentArgs) -> Result<Exit> {
    let config = args.config()?;
    start_log(&config)?;
    if config.run.source.paths.is_empty() {
        return Err(Error::user("there is nothing to read: name files, folders or globs, or set input.paths"));
    }
    if config.kafka.topic.is_empty() {
        return Err(Error::user("give --topic, or set kafka.topic"));
    }
    Clash::refuse(&config.run.clashes())?;
    let url = &config.run.store.data_dir;
    let Some(folder) = url.locked_folder() else {
        return Err(Error::user(format!("--data-dir {url}: an agent keeps its positions in a folder of its machine")));
    };
    let cluster = Cluster::new(&config.kafka)?;
    let ending = if args.until_end { Ending::UntilEnd } else { Ending::Never };
    if !folder.exists() {
        // A mistake in the arguments leaves no folder behind.
        file_source(&config.run, ending, Box::new(LocalFiles), &PartitionState::default(), &SystemClock)?;
    }
    let _owned = DataDir::own(folder)?;
    let backing = Backing::for_owner(url, config.run.epoch.fsync)?;
    let runtime = runtime()?;
    let stopping = Stopping::on_signals(&runtime)?;
    let before = match &args.after {
        None => None,
        Some(folder) => {
            let before = Backing::for_reader(&StoreUrl::of_folder(folder))?;
            let folded = runtime.block_on(before.logs().log(EMBEDDED).fold())?;
            Some(folded.ok_or_else(|| {
                Error::user(format!("--after {}: `adtally run` has committed nothing there", folder.display()))
            })?)
        }
    };
    terminal::say(&format!("agent for topic {} at {}; positions in {url}", config.kafka.topic, cluster.brokers()));
    let session = Session { config: &config, cluster: &cluster, backing: &backing, before: before.as_ref(), ending };
    loop {
        match session.run(stopping.flag(), runtime.handle()) {
            Ok(exit) => return Ok(exit),
            Err(error) if error.is_retryable() && !stopping.flag().load(Ordering::Relaxed) => {
                tracing::warn!("beginning again from the journal: {}", error.report());
                std::thread::sleep(AGAIN);
            }
            Err(error) => return Err(error),
        }
    }
}

/// What stays the same when the agent begins again from its journal.
struct Session<'a> {
    config: &'a Config,
    cluster: &'a Cluster,
    backing: &'a Backing,
    before: Option<&'a PartitionState>,
    ending: Ending,
}

impl Session<'_> {
    fn run(&self, stop: &AtomicBool, runtime: &tokio::runtime::Handle) -> Result<Exit> {
        let config = self.config;
        let producer = Producer::open(self.cluster, &config.kafka.topic)?;
        let Some(facts) = patiently(stop, || producer.facts())? else { return Ok(Exit::Success) };
        let numbers = (SystemRandomness.next_u128(), SystemRandomness.next_u128());
        let (journal, state) = Journal::open(self.backing, self.before, numbers, runtime.clone())?;
        let options = handles::run_options(config, self.ending, ATTEMPTS_MAX);
        let source = file_source(&options.settings, self.ending, Box::new(LocalFiles), &state, &SystemClock)?;
        let decode = DecodeSettings::clone(&config.run.source.tail.decode);
        let name = match config.agent.name.as_str() {
            "" => rustix::system::uname().nodename().to_string_lossy().into_owned(),
            name => name.to_owned(),
        };
        let mut agent = Agent::new(AgentParts {
            settings: config.agent.clone(),
            time: config.run.time,
            discovery_interval_ms: config.run.source.discovery_interval.as_millis() as i64,
            is_bounded: self.ending.is_bounded(),
            // Two agents of one machine have different journals.
            name: format!("{name}.{:04x}", state.progress.log_id as u16),
            source,
            // Identities are not used.
            decoder: Decoder::new(decode, IdentityKey::new([0; 16]))?,
            partitions: facts.partitions,
            partitioner: config.kafka.partitioner,
            producer: Sender(producer),
            journal,
            state,
            now: now(),
        });
        let mut told_ms = i64::MIN;
        let mut told = Vec::new();
        loop {
            if stop.load(Ordering::Relaxed) {
                return self.stop(agent);
            }
            match agent.turn(now())? {
                Turn::Finished => break,
                Turn::Worked => {}
                Turn::Nothing => std::thread::sleep(WAIT),
            }
            let at_ms = now().monotonic_ms;
            if at_ms >= told_ms.saturating_add(TOLD_EVERY_MS) {
                told_ms = at_ms;
                let problems = agent.problems();
                for problem in problems.iter().filter(|problem| !told.contains(*problem)) {
                    tracing::warn!("{problem}");
                }
                told = problems;
            }
        }
        terminal::say(&format!("everything is produced: {} lines", thousands(agent.lines())));
        for unread in agent.unread() {
            terminal::say(&format!("not read: {unread}"));
        }
        Ok(if agent.unread().is_empty() { Exit::Success } else { Exit::Failure })
    }

    /// Sends what was read, and waits a while for the acknowledgements.
    fn stop(&self, mut agent: Agent<Sender>) -> Result<Exit> {
        agent.flush()?;
        let since_ms = now().monotonic_ms;
        while !agent.drain(now())? {
            if now().monotonic_ms - since_ms > DRAIN_MS_MAX {
                terminal::say("stopped before everything was acknowledged: the next start sends the rest");
                return Ok(Exit::Success);
            }
            std::thread::sleep(WAIT);
        }
        terminal::say(&format!("stopped; everything read is acknowledged: {} lines", thousands(agent.lines())));
        Ok(Exit::Success)
    }
}

/// The clocks.
pub(crate) fn now() -> Now {
    Now { wall_ms: SystemClock.wall_ms(), monotonic_ms: SystemClock.monotonic_ms() }
}

/// Repeats a request until the brokers answer. Returns `None` if asked to stop before.
pub(crate) fn patiently<T>(stop: &AtomicBool, mut ask: impl FnMut() -> Result<T>) -> Result<Option<T>> {
    let mut is_told = false;
    while !stop.load(Ordering::Relaxed) {
        match ask() {
            Err(error) if error.is_retryable() && error.kind() == ErrorKind::External => {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!("waiting for Kafka or the store: {}", error.report());
                }
                std::thread::sleep(AGAIN);
            }
            done => return done.map(Some),
        }
    }
    Ok(None)
}

/// Passes a record on as the client of Kafka takes it.
pub(crate) fn with_headers<T>(record: &Outgoing, send: impl FnOnce(Produced<'_>) -> T) -> T {
    let stamp = Stamp { input: &record.input, watermark_ms: record.watermark_ms, sequence: record.sequence };
    let (watermark, sequence) = stamp.values();
    let mut headers: Vec<(&str, &[u8])> =
        vec![(INPUT, record.input.as_bytes()), (WATERMARK, watermark.as_bytes()), (SEQUENCE, sequence.as_bytes())];
    if let Some(header) = &record.csv_header {
        headers.push((CSV, header));
    }
    let gap = record.gap_bytes.map(|bytes| bytes.to_string());
    headers.extend(gap.as_ref().map(|gap| (GAP, gap.as_bytes())));
    send(Produced {
        partition: record.partition,
        key: record.key.as_deref().map(str::as_bytes),
        value: &record.text,
        headers: &headers,
        tag: record.tag,
    })
}

/// The client of Kafka.
struct Sender(Producer);

impl Produce for Sender {
    fn send(&mut self, record: &Outgoing) -> Result<bool> {
        with_headers(record, |produced| self.0.send(produced))
    }

    fn outcome(&mut self) -> Option<Outcome> {
        self.0.acknowledged().map(|acknowledged| Outcome { tag: acknowledged.tag, result: acknowledged.outcome })
    }

    fn failure(&self) -> Option<String> {
        self.0.failure()
    }
}
