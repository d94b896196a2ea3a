//! `adtally worker`: counts the partitions of a Kafka topic that a consumer group assigns to this process.

use super::agent::patiently;
use super::run::start_log;
use super::runtime;
use super::serving::Server;
use super::settings::{KafkaFlags, load};
use super::stopping::Stopping;
use crate::config::{Config, FlagSetting, Value};
use crate::exit::Exit;
use crate::handles;
use crate::terminal;
use adtally_engine::clock::{Clock, Randomness, SystemClock, SystemRandomness};
use adtally_engine::letters::{LetterSink, SentLetter};
use adtally_engine::worker::{Group, TopicReader, Worker, WorkerSource};
use adtally_engine::{ATTEMPTS_MAX, Backing, Ending, ServiceStart};
use adtally_kafka::{Cluster, Consumer, Membership, Produced, Producer, StartAt};
use adtally_model::time::parse_rfc3339;
use adtally_model::{Error, Progress, Result};
use adtally_source::{GroupEvent, RecordReader};
use adtally_store::sources::Topic;
use clap::Args;
use parking_lot::Mutex;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How long it may take until the next dead letter is acknowledged, in milliseconds. After that, those of the epoch are sent again.
const LETTERS_MS_MAX: i64 = 30_000;

/// How often to look for acknowledgements of dead letters.
const LETTERS_POLL: Duration = Duration::from_millis(5);

/// Count the partitions of a Kafka topic that a consumer group assigns to this process.
#[derive(Debug, Args)]
#[command(after_help = "\
Start as many workers as you like with the same group and the same data: Kafka divides the partitions among them, and
notices the dead. Questions are answered by `adtally serve`; a worker answers them only while it owns all partitions.

Examples:
  adtally worker --brokers kafka:9092 --topic clicks --group adtally --data s3://bucket/adtally
  adtally worker --brokers kafka:9092 --topic clicks --group adtally --data file:///mnt/shared/adtally
  adtally worker --brokers kafka:9092 --topic clicks --group recount --data s3://bucket/recount --from 2026-11-01T00:00:00Z

All workers need the same identity key: set ADTALLY_IDENTITY__KEY. Credentials of object stores are read from the
environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT and so on).")]
pub struct WorkerArgs {
    /// Kafka.
    #[command(flatten)]
    pub kafka: KafkaFlags,
    /// The consumer group; workers with the same group divide the partitions among themselves.
    #[arg(long, value_name = "GROUP")]
    pub group: Option<String>,
    /// Where all workers keep the data: s3://, gs://, az:// or file:// on a shared disk.
    #[arg(long, visible_alias = "data-dir", value_name = "URL")]
    pub data: Option<String>,
    /// Where to begin partitions that were never read: earliest, an offset, or a time such as 2026-11-01T00:00:00Z.
    #[arg(long, value_name = "PLACE", default_value = "earliest", value_parser = start_at)]
    pub from: StartAt,
    /// Go on if the topic has lost offsets that were not read: they are booked as a gap.
    #[arg(long)]
    pub accept_loss: bool,
    /// The configuration file (- means standard input).
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address and port of the HTTP server [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
}

/// Where a word says to begin.
pub(crate) fn start_at(word: &str) -> std::result::Result<StartAt, String> {
    match (word, word.parse(), parse_rfc3339(word.as_bytes())) {
        ("earliest", ..) => Ok(StartAt::Earliest),
        (_, Ok(offset), _) => Ok(StartAt::Offset(offset)),
        (_, _, Some(ms)) => Ok(StartAt::Time(ms)),
        _ => Err("this is neither earliest, nor an offset, nor a time such as 2026-11-01T00:00:00Z".to_owned()),
    }
}

impl WorkerArgs {
    fn config(&self) -> Result<Config> {
        let mut flags = self.kafka.flags();
        let texts = [
            ("--group", "kafka.group", &self.group),
            ("--data", "store.data_dir", &self.data),
            ("--listen", "serve.listen", &self.listen),
        ];
        for (flag, key, text) in texts {
            flags.extend(text.iter().map(|text| FlagSetting { flag, key, value: Value::Text(text.clone()) }));
        }
        Ok(load(self.config.as_deref(), &flags)?.1)
    }
}

/// What a worker needs from the brokers and the store before it begins.
struct Found {
    backing: Backing,
    consumer: Consumer,
    topic: Topic,
    /// The partitions of earlier sources.
    retired: Vec<Progress>,
    letters: Option<Arc<dyn LetterSink>>,
}

/// Runs the command.
///
/// # Errors
/// The error that stopped the worker.
pub fn worker(args: &WorkerArgs) -> Result<Exit> {
    let config = args.config()?;
    start_log(&config)?;
    let kafka = &config.kafka;
    for (value, flag, key) in [(&kafka.topic, "--topic", "kafka.topic"), (&kafka.group, "--group", "kafka.group")] {
        if value.is_empty() {
            return Err(Error::user(format!("give {flag}, or set {key}")));
        }
    }
    let url = &config.run.store.data_dir;
    if !url.is_shared() {
        return Err(Error::user(format!(
            "--data {url}: workers share their data, so it must be a URL: s3://, gs://, az://, or file:// and an absolute path"
        )));
    }
    let cluster = Cluster::new(kafka)?;
    let key = url.shared_key(config.run.identity_key)?;
    let options = handles::run_options(&config, Ending::Never, ATTEMPTS_MAX);
    let runtime = runtime()?;
    let stopping = Stopping::on_signals(&runtime)?;
    let listener = Server::listen(&runtime, &config)?;
    let start = ServiceStart::new(&options, Arc::new(SystemClock), Arc::clone(stopping.flag()));
    let server = Server::start(&runtime, listener, &config, &start, &stopping)?;
    let clock = Arc::new(|| SystemClock.monotonic_ms());
    let found = || -> Result<Found> {
        let backing = Backing::for_owner(url, config.run.epoch.fsync)?;
        runtime.block_on(backing.probe(SystemRandomness.next_u128()))?;
        let consumer = Consumer::open(&cluster, &kafka.topic, &kafka.group, Arc::clone(&clock) as _)?;
        let letters = (!kafka.dead_letter_topic.is_empty())
            .then(|| LetterTopic::open(&cluster, &kafka.dead_letter_topic))
            .transpose()?
            .map(|topic| Arc::new(topic) as Arc<dyn LetterSink>);
        let facts = consumer.facts();
        let id = u128::from_be_bytes(facts.id);
        let sources = backing.sources();
        let registering = sources.register(&kafka.topic, id, facts.partitions, kafka.partitioner.name());
        let (topic, retired) = runtime.block_on(registering)?;
        Ok(Found { backing, consumer, topic, retired, letters })
    };
    let begun = || -> Result<Option<Worker>> {
        let Some(found) = patiently(stopping.flag(), found)? else { return Ok(None) };
        let Found { backing, consumer, topic, retired, letters } = found;
        let reader = Arc::new(Reader { consumer, start: args.from, accept_loss: args.accept_loss });
        let group = Box::new(Member(Membership::join(&cluster, &kafka.topic, &kafka.group, clock.clone())?));
        let source = WorkerSource { topic, retired, partitioner: kafka.partitioner, reader, group, letters };
        let randomness: Arc<dyn Randomness> = Arc::new(SystemRandomness);
        Worker::begin(&options, (&backing, key), source, &start, &randomness, runtime.handle())
    };
    let outcome = begun().and_then(|worker| {
        let Some(worker) = worker else { return Ok(None) };
        terminal::say(&format!(
            "worker of group {} on topic {}; data in {url}; answering on http://{}",
            kafka.group,
            kafka.topic,
            server.address()
        ));
        worker.run(stopping.flag(), |_| ()).map(Some)
    });
    stopping.stop();
    let served = server.finish(runtime, matches!(outcome, Ok(None)));
    let summary = outcome?;
    match &summary {
        Some(summary) => terminal::say(&format!("stopped; everything read is committed: {}", summary.ledger)),
        None => terminal::say("stopped before the start was over; nothing was read"),
    }
    served?;
    Ok(Exit::Success)
}

/// The client that reads partitions.
struct Reader {
    consumer: Consumer,
    start: StartAt,
    accept_loss: bool,
}

impl TopicReader for Reader {
    fn reach(&self, partition: u32) -> Result<()> {
        self.consumer.reach(partition)
    }

    fn first_offset(&self, partition: u32) -> Result<u64> {
        self.consumer.first_offset(partition, self.start)
    }

    fn confirm(&self) -> Result<()> {
        self.consumer.confirm()
    }

    fn open(&self, partition: u32, next: u64) -> Result<(Box<dyn RecordReader>, u64)> {
        let (reader, lost) = self.consumer.read(partition, next, self.accept_loss)?;
        Ok((Box::new(reader), lost))
    }
}

/// The topic of dead letters.
struct LetterTopic {
    cluster: Cluster,
    topic: String,
    /// Made anew after a failure: what it still has to send is sent again.
    producer: Mutex<Option<(Producer, u32)>>,
}

impl LetterTopic {
    fn open(cluster: &Cluster, topic: &str) -> Result<LetterTopic> {
        let letters = LetterTopic { cluster: cluster.clone(), topic: topic.to_owned(), producer: Mutex::default() };
        *letters.producer.lock() = Some(letters.producer()?);
        Ok(letters)
    }

    /// A producer, and the partitions of the topic.
    fn producer(&self) -> Result<(Producer, u32)> {
        let producer = Producer::open(&self.cluster, &self.topic)?;
        let partitions = producer.facts()?.partitions.max(1);
        Ok((producer, partitions))
    }
}

impl LetterSink for LetterTopic {
    fn send(&self, letters: &[SentLetter]) -> Result<()> {
        let mut producer = self.producer.lock();
        let (opened, partitions) = match producer.take() {
            Some(opened) => opened,
            None => self.producer()?,
        };
        send_all(&opened, partitions, letters)?;
        *producer = Some((opened, partitions));
        Ok(())
    }
}

/// Sends letters, and waits until all are safe.
fn send_all(producer: &Producer, partitions: u32, letters: &[SentLetter]) -> Result<()> {
    let mut until_ms = SystemClock.monotonic_ms() + LETTERS_MS_MAX;
    let (mut sent, mut safe) = (0, 0);
    while safe < letters.len() {
        if SystemClock.monotonic_ms() > until_ms {
            let why = producer.failure().unwrap_or_else(|| "no answer".to_owned());
            return Err(Error::transient(format!("dead letters cannot be sent to Kafka: {why}")));
        }
        while let Some(letter) = letters.get(sent) {
            let numbers = [u64::from(letter.partition), letter.epoch, letter.row].map(|number| number.to_string());
            let [partition, epoch, row] = numbers.each_ref().map(|number| number.as_bytes());
            let record = Produced {
                partition: letter.partition % partitions,
                key: None,
                value: &letter.json,
                headers: &[("adtally.partition", partition), ("adtally.epoch", epoch), ("adtally.row", row)],
                tag: letter.row,
            };
            if !producer.send(record)? {
                break;
            }
            sent += 1;
        }
        match producer.acknowledged() {
            Some(acknowledged) => {
                acknowledged.outcome?;
                safe += 1;
                until_ms = SystemClock.monotonic_ms() + LETTERS_MS_MAX;
            }
            None => std::thread::sleep(LETTERS_POLL),
        }
    }
    Ok(())
}

/// The client that is a member of the group.
struct Member(Membership);

impl Group for Member {
    fn next_event(&mut self) -> Result<Option<GroupEvent>> {
        self.0.next_event()
    }

    fn release(&mut self, partition: u32) {
        self.0.release(partition);
    }

    fn note_committed(&mut self, partition: u32, offset: u64) {
        self.0.note_committed(partition, offset);
    }

    fn failure(&self) -> Option<String> {
        self.0.failure()
    }
}
