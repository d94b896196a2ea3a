//! `adtally repartition`: brings a Kafka topic into another one with other partitions, each line once.

use super::agent::{AGAIN, TOLD_EVERY_MS, WAIT, now, patiently, with_headers};
use super::run::start_log;
use super::runtime;
use super::settings::{KafkaFlags, load};
use super::stopping::Stopping;
use super::worker::start_at;
use crate::config::Config;
use crate::exit::Exit;
use crate::terminal;
use adtally_agent::repartition::place::{Beginning, Committed, Found, Place, Topic, is_owner, resolve, target_grown};
use adtally_agent::repartition::{LaneParts, Repartition, RepartitionParts, Transact};
use adtally_agent::{Outgoing, Turn};
use adtally_engine::clock::{Clock, Randomness, SystemClock, SystemRandomness};
use adtally_kafka::consumer::MISSING_MS;
use adtally_kafka::consumer::MonotonicMs;
use adtally_kafka::{Cluster, Consumer, GroupOffset, StartAt, TopicFacts, Transactions};
use adtally_model::ledger::thousands;
use adtally_model::settings::Clash;
use adtally_model::{Error, ErrorKind, IdentityKey, Result};
use adtally_source::{DecodeSettings, Decoder};
use adtally_store::fail_points::{TRANSACTION_COMMITTED, TRANSACTION_SENT, reach};
use clap::Args;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Pause after a transaction was fenced. A process that has taken over has committed its number by then.
const FENCED: Duration = Duration::from_secs(5);

/// How long a stop waits for the last transaction, in milliseconds. Giving up loses nothing.
const STOP_MS_MAX: i64 = 5_000;

/// Bring a Kafka topic into another one with other partitions, each line once.
#[derive(Debug, Args)]
#[command(after_help = "\
Use it for a topic whose producers choose partitions in a way of their own, and to give a topic more partitions. Each
line goes to the partition of its ad (kafka.partitioner). Records, offsets and state are committed in one transaction of
Kafka each second, so a crash at any moment repeats nothing and loses nothing. Workers then count the new topic.

Examples:
  adtally repartition --brokers kafka:9092 --topic clicks --to clicks-64
  adtally repartition --brokers kafka:9092 --topic clicks --to clicks-64 --until-end
  adtally repartition --brokers kafka:9092 --topic foreign --to clicks --from 2026-11-01T00:00:00Z --group foreign

A restart continues at the committed offsets of the group. If you start a second process for the same group and topics, the
first one stops with exit code 4. Use the same [input] and [time] as the workers.")]
pub struct RepartitionArgs {
    /// Kafka; --topic is the topic to read.
    #[command(flatten)]
    pub kafka: KafkaFlags,
    /// The topic to write, which exists and has as many partitions as you need.
    #[arg(long, value_name = "TOPIC")]
    pub to: String,
    /// The consumer group in which the offsets are committed.
    #[arg(long, value_name = "GROUP", default_value = "adtally-repartition")]
    pub group: String,
    /// Where the group begins: earliest, an offset, or a time such as 2026-11-01T00:00:00Z [default: earliest, if the topic to
    /// write is empty].
    #[arg(long, value_name = "PLACE", value_parser = start_at)]
    pub from: Option<StartAt>,
    /// Read all partitions up to their present ends, commit, and exit.
    #[arg(long)]
    pub until_end: bool,
    /// Go on if the topic to read has lost offsets that were not read; their number is only logged.
    #[arg(long)]
    pub accept_loss: bool,
    /// The configuration file (- means standard input).
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// The error that stopped it.
pub fn repartition(args: &RepartitionArgs) -> Result<Exit> {
    let config = load(args.config.as_deref(), &args.kafka.flags())?.1;
    start_log(&config)?;
    if config.kafka.topic.is_empty() {
        return Err(Error::user("give --topic, or set kafka.topic"));
    }
    if config.kafka.topic == args.to {
        return Err(Error::user(format!("--to {}: a topic cannot be brought into itself: make another one", args.to)));
    }
    if args.group.is_empty() {
        return Err(Error::user("--group must not be empty"));
    }
    Clash::refuse(&config.run.clashes())?;
    let cluster = Cluster::new(&config.kafka)?;
    let runtime = runtime()?;
    let stopping = Stopping::on_signals(&runtime)?;
    let stop = stopping.flag();
    let mut bridge = Bridge::new(&config, args, cluster);
    let mut told = String::new();
    loop {
        let error = match bridge.session(stop) {
            Ok(Some(exit)) => return Ok(exit),
            Ok(None) => continue,
            Err(error) => error,
        };
        let is_fenced = error.kind() == ErrorKind::Fenced;
        if bridge.is_replaced || !(is_fenced || error.is_retryable()) {
            return Err(error);
        }
        let report = error.report();
        if report != told {
            tracing::warn!("beginning again from what was committed: {report}");
            told = report;
        }
        pause(stop, if is_fenced { FENCED } else { AGAIN });
        if stop.load(Ordering::Relaxed) {
            terminal::say("stopped before everything was committed: the next start reads the rest");
            return Ok(bridge.interrupted());
        }
    }
}

/// Sleeps, unless asked to stop.
fn pause(stop: &AtomicBool, pause: Duration) {
    let mut slept = Duration::ZERO;
    while slept < pause && !stop.load(Ordering::Relaxed) {
        std::thread::sleep(WAIT);
        slept += WAIT;
    }
}

/// What stays the same when it begins again from what was committed.
struct Bridge<'a> {
    config: &'a Config,
    args: &'a RepartitionArgs,
    cluster: Cluster,
    /// A random number by which this process recognises what it has committed.
    owner: u64,
    /// Whether this process has committed that number.
    has_begun: bool,
    /// Whether another process has committed another number since.
    is_replaced: bool,
    /// The ends of the partitions at the start of a bounded run.
    ends: Option<BTreeMap<u32, u64>>,
    /// Lines that were committed in earlier sessions.
    lines: u64,
}

/// The partitions of both topics, opened.
struct Opened {
    repartition: Repartition<Sender>,
    consumer: Arc<Consumer>,
}

impl<'a> Bridge<'a> {
    fn new(config: &'a Config, args: &'a RepartitionArgs, cluster: Cluster) -> Bridge<'a> {
        Bridge {
            config,
            args,
            cluster,
            owner: SystemRandomness.next_u128() as u64,
            has_begun: false,
            is_replaced: false,
            ends: None,
            lines: 0,
        }
    }

    /// The topic that is read.
    fn source(&self) -> &'a str {
        &self.config.kafka.topic
    }

    /// The exit code of a run that was asked to stop.
    fn interrupted(&self) -> Exit {
        if self.args.until_end { Exit::Interrupted } else { Exit::Success }
    }

    /// Works until it has read everything, is asked to stop, or fails. `None` means that it begins again at once.
    fn session(&mut self, stop: &AtomicBool) -> Result<Option<Exit>> {
        let Some(Opened { mut repartition, consumer }) = self.open(stop)? else {
            terminal::say("stopped before the start was over; nothing was read");
            return Ok(Some(self.interrupted()));
        };
        let ended = self.drive(&mut repartition, stop);
        self.lines += repartition.lines();
        self.has_begun |= repartition.has_begun();
        let lines = thousands(self.lines);
        match ended {
            Ok(true) => {
                let (source, target) = (self.source(), &self.args.to);
                terminal::say(&format!("everything of {source} is in {target}: {lines} lines"));
                Ok(Some(Exit::Success))
            }
            Ok(false) => {
                terminal::say(&format!("stopped; everything read is committed: {lines} lines"));
                Ok(Some(self.interrupted()))
            }
            Err(error) => {
                repartition.into_producer().transactions.abort();
                if consumer.has_grown() {
                    tracing::info!(topic = self.source(), "the topic has more partitions: they are read as well");
                    return Ok(None);
                }
                Err(error)
            }
        }
    }

    /// Turns a repartition until it is finished (`true`) or asked to stop (`false`).
    fn drive(&self, repartition: &mut Repartition<Sender>, stop: &AtomicBool) -> Result<bool> {
        let mut told = Vec::new();
        let mut told_ms = now().monotonic_ms;
        let mut stopped_ms = None;
        loop {
            let turned = repartition.turn(now())?;
            let now_ms = now().monotonic_ms;
            match turned {
                Turn::Finished => return Ok(stopped_ms.is_none()),
                Turn::Worked => {}
                Turn::Nothing => std::thread::sleep(WAIT),
            }
            if stopped_ms.is_none() && stop.load(Ordering::Relaxed) {
                repartition.stop();
                stopped_ms = Some(now_ms);
            }
            if stopped_ms.is_some_and(|stopped_ms| now_ms - stopped_ms > STOP_MS_MAX) {
                return Err(Error::transient("the last transaction could not be committed in time"));
            }
            if now_ms - told_ms >= TOLD_EVERY_MS {
                told_ms = now_ms;
                tracing::info!(lines = self.lines + repartition.lines(), lag = repartition.lag(), "repartitioning");
                let problems = repartition.problems();
                let new = problems.iter().filter(|problem| !told.contains(*problem));
                new.cloned().chain(repartition.new_warnings()).for_each(|problem| tracing::warn!("{problem}"));
                told = problems;
            }
        }
    }

    /// A topic that was there at the start is looked for again: a broker that has just started may not know it yet.
    fn once_begun<T>(&self, found: Result<T>) -> Result<T> {
        match found {
            Err(error) if self.has_begun && error.kind() == ErrorKind::User => Err(Error::transient(error.report())),
            found => found,
        }
    }

    /// Takes the transactional id over, and opens all partitions where the group is. Returns `None` if asked to stop.
    fn open(&mut self, stop: &AtomicBool) -> Result<Option<Opened>> {
        let (source, target, group) = (self.source(), &self.args.to, &self.args.group);
        // Names of topics have no colon.
        let id = format!("adtally-repartition:{group}:{source}:{target}");
        let transactions = Transactions::open(&self.cluster, target, group, &id)?;
        let to = self.once_begun(transactions.facts())?;
        let clock: MonotonicMs = Arc::new(|| SystemClock.monotonic_ms());
        let consumer = Arc::new(self.once_begun(Consumer::open(&self.cluster, source, group, clock))?);
        let from = consumer.facts();
        if self.has_begun && !is_owner(self.owner, &committed(&transactions, source, from)?) {
            self.is_replaced = true;
            return Err(Error::fenced(format!(
                "another process brings {source} into {target} for the group {group}: this one has stopped"
            )));
        }
        let Some(()) = patiently(stop, || transactions.take_over())? else { return Ok(None) };
        let committed = committed(&transactions, source, from)?;
        let beginning = resolve(&Found {
            names: [source, target, group],
            from: topic(from),
            to: topic(to),
            committed: &committed,
            is_target_empty: committed.is_empty() && transactions.is_empty(to.partitions)?,
            is_beginning_given: self.args.from.is_some(),
        })?;
        let lanes = self.lanes(&consumer, &beginning)?;
        if !self.has_begun {
            terminal::say(&format!(
                "bringing topic {source} ({} partitions) into {target} ({} partitions) at {}; group {group}",
                from.partitions,
                to.partitions,
                self.cluster.brokers()
            ));
        }
        let decode = DecodeSettings::clone(&self.config.run.source.tail.decode);
        let repartition = Repartition::new(RepartitionParts {
            settings: self.config.agent.clone(),
            time: self.config.run.time,
            // Identities are not used.
            decoder: Decoder::new(decode, IdentityKey::new([0; 16]))?,
            partitioner: self.config.kafka.partitioner,
            source: source.to_owned(),
            from: topic(from),
            to: topic(to),
            owner: self.owner,
            lanes,
            producer: Sender {
                transactions,
                consumer: Arc::clone(&consumer),
                source: source.to_owned(),
                target: target.clone(),
                to,
                is_confirmed: false,
                failure: None,
                missing_since_ms: None,
            },
            now: now(),
        });
        Ok(Some(Opened { repartition, consumer }))
    }

    /// Opens the partitions of the source.
    fn lanes(&mut self, consumer: &Consumer, beginning: &Beginning) -> Result<Vec<LaneParts>> {
        let partitions = 0..consumer.facts().partitions;
        if self.args.until_end && self.ends.is_none() {
            let end_of = |partition| consumer.end_of(partition).map(|end| (partition, end));
            let ends = partitions.clone().map(end_of);
            self.ends = Some(ends.collect::<Result<_>>()?);
        }
        let mut lanes = Vec::new();
        for partition in partitions {
            let (known, start) = match beginning {
                Beginning::First => (None, self.args.from.unwrap_or(StartAt::Earliest)),
                Beginning::Further(places) => (places.get(&partition).copied(), StartAt::Earliest),
            };
            let mut place = match known {
                Some(place) => place,
                None => Place { next: consumer.first_offset(partition, start)?, ..Place::default() },
            };
            let (reader, lost) = consumer.read(partition, place.next, self.args.accept_loss)?;
            if lost > 0 {
                tracing::error!(partition, offsets = lost, "offsets are lost: their lines are not in the new topic");
                place.next += lost;
            }
            // Partitions that are new since the start had no end.
            let end = self.ends.as_ref().map(|ends| ends.get(&partition).copied().unwrap_or_default());
            lanes.push(LaneParts { partition, reader: Box::new(reader), place, end });
        }
        Ok(lanes)
    }
}

/// What makes a topic the same topic.
fn topic(facts: TopicFacts) -> Topic {
    Topic { id: u128::from_be_bytes(facts.id), partitions: facts.partitions }
}

/// What the group has committed about the source.
fn committed(transactions: &Transactions, source: &str, from: TopicFacts) -> Result<Vec<Committed>> {
    let committed = transactions.committed(source, from.partitions)?.into_iter();
    let ours = |GroupOffset { partition, next, note }| Committed { partition, next, note };
    Ok(committed.map(ours).collect())
}

/// The client of Kafka.
struct Sender {
    transactions: Transactions,
    consumer: Arc<Consumer>,
    source: String,
    target: String,
    /// The target as it was opened.
    to: TopicFacts,
    /// Whether both topics are still the same, after everything of the transaction was read and sent.
    is_confirmed: bool,
    /// Why that is not known.
    failure: Option<String>,
    /// Since when the brokers do not know the target, in monotonic milliseconds.
    missing_since_ms: Option<i64>,
}

impl Sender {
    /// Confirms that both topics are those that were opened.
    fn confirm(&mut self) -> Result<()> {
        self.consumer.confirm()?;
        let (target, before) = (&self.target, self.to);
        let looked = self.transactions.look();
        // Permissions come and go as brokers do.
        let unclear = |error| Error::transient(format!("the topic {target} cannot be examined")).because(error);
        let Some(now) = looked.map_err(unclear)? else {
            let now_ms = SystemClock.monotonic_ms();
            if now_ms - *self.missing_since_ms.get_or_insert(now_ms) < MISSING_MS {
                return Err(Error::transient(format!("the brokers do not know the topic {target} at the moment")));
            }
            return Err(Error::corrupt(format!(
                "the topic {target} was deleted while it was written: what it had is lost. Begin anew with another group: what is \
                 still in {} comes again",
                self.source
            )));
        };
        self.missing_since_ms = None;
        if now.id != before.id {
            return Err(Error::corrupt(format!(
                "the topic {target} was deleted and made again while it was written: what it had is lost. Begin anew with \
                 another group: what is still in {} comes again",
                self.source
            )));
        }
        if now.partitions != before.partitions {
            return Err(Error::corrupt(target_grown(target, before.partitions, now.partitions)));
        }
        Ok(())
    }
}

impl Transact for Sender {
    fn send(&mut self, record: &Outgoing) -> Result<bool> {
        with_headers(record, |produced| self.transactions.send(produced))
    }

    fn commit(&mut self, offsets: &[Committed]) -> Result<bool> {
        if !self.is_confirmed {
            match self.confirm() {
                Err(error) if error.is_retryable() => {
                    self.failure = Some(error.report());
                    return Ok(false);
                }
                confirmed => confirmed?,
            }
            (self.is_confirmed, self.failure) = (true, None);
            reach(TRANSACTION_SENT);
        }
        let theirs = |Committed { partition, next, note }: &Committed| GroupOffset {
            partition: *partition,
            next: *next,
            note: note.clone(),
        };
        let offsets: Vec<GroupOffset> = offsets.iter().map(theirs).collect();
        let is_done = self.transactions.commit(&self.source, &offsets)?;
        if is_done {
            self.is_confirmed = false;
            reach(TRANSACTION_COMMITTED);
        }
        Ok(is_done)
    }

    fn failure(&self) -> Option<String> {
        self.failure.clone().or_else(|| self.transactions.failure())
    }
}
