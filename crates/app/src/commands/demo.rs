//! `adtally demo`: counts traffic that it generates itself, in this process or beside a real Kafka.

mod guide;
#[cfg(feature = "scale-out")]
mod kafka;
#[cfg(feature = "scale-out")]
pub mod tether;
mod traffic;

use super::run::start_log;
use super::runtime;
use super::serving::Server;
use super::stopping::Stopping;
use crate::config::{self, Config, FlagSetting, LogFormat, LogLevel, Value};
use crate::exit::Exit;
use crate::handles;
use crate::pattern::literally;
use crate::terminal;
use adtally_engine::clock::{SystemClock, SystemRandomness};
use adtally_engine::{ATTEMPTS_MAX, Ending, Service, ServiceStart};
use adtally_generate::{Generator, MISSION_ADS, MISSION_RATE};
use adtally_model::ledger::thousands;
use adtally_model::{Error, Result};
use clap::Args;
use guide::Guide;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;
use traffic::{ROTATE_MS, Writer, traffic};

/// Interval of status lines.
const LOOK_MS: i64 = 1_000;

/// Maximum value of `--seconds`: a year.
const SECONDS_MAX: u64 = 31_536_000;

/// Show Adtally at work: write live traffic to a temporary folder, count it and answer questions.
#[derive(Debug, Args)]
#[command(after_help = "\
With --kafka, the demo runs an agent, two workers and a node beside a real Apache Kafka. After 30 s it kills a worker, and
shows how the other one takes over; at the end it compares the ledger with what it has written. It needs a build with the
feature scale-out and Java 17, or your own brokers.

Examples:
  adtally demo
  adtally demo --rate 100000 --seconds 60
  adtally demo --kafka
  adtally demo --kafka --brokers kafka:9092")]
pub struct DemoArgs {
    /// Lines per second; the default is a billion a day.
    #[arg(long, value_name = "R", default_value_t = MISSION_RATE)]
    pub rate: f64,
    /// Number of different ads.
    #[arg(long, value_name = "A", default_value_t = MISSION_ADS)]
    pub ads: u64,
    /// Address and port of the HTTP server.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub listen: String,
    /// Stop after this many seconds; 0 means that only Ctrl-C stops the demo.
    #[arg(long, value_name = "S", default_value_t = 0,
        value_parser = clap::value_parser!(u64).range(..=SECONDS_MAX))]
    pub seconds: u64,
    /// Count with an agent, workers and a node beside Apache Kafka, and kill a worker.
    #[arg(long)]
    pub kafka: bool,
    /// With --kafka: use these brokers instead of starting one. The demo deletes its topic at the end.
    #[arg(long, value_name = "HOST:PORT", requires = "kafka")]
    pub brokers: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// The error that stopped the run.
pub fn demo(args: &DemoArgs) -> Result<Exit> {
    let generator = Generator::new(traffic(args))?;
    if args.kafka {
        return beside_kafka(args, generator);
    }
    let runtime = runtime()?;
    let stopping = Stopping::on_signals(&runtime)?;
    let (folder, logs) = folders(&stopping)?;
    let config = configure(args, folder.path(), &logs)?;
    start_log(&config)?;
    let listener = Server::listen(&runtime, &config)?;
    let options = handles::run_options(&config, Ending::Never, ATTEMPTS_MAX);
    // There is no recovery that a signal would have to stop.
    let start = ServiceStart::new(&options, Arc::new(SystemClock), Arc::default());
    let server = Server::start(&runtime, listener, &config, &start, &stopping)?;
    let address = server.address();
    let service = Service::start_watched(&options, &start, Arc::new(SystemRandomness), runtime.handle())?;
    let writer = Writer::start(generator, &logs, stopping.flag())?;
    terminal::say(&format!("{}; answering on\n\nhttp://{address}\n", of_writer(args, &logs)));
    let mut guide = Guide::new(args, service.questions(), service.report(), address);
    let handle = runtime.handle().clone();
    let outcome = service.run(stopping.flag(), |_, _| {
        // Without the writer, the demo has nothing to show.
        if writer.is_finished() || guide.look(&handle) {
            stopping.stop();
        }
    });
    stopping.stop();
    let served = server.finish(runtime, false);
    let written = writer.stop();
    let summary = outcome?;
    terminal::say(&format!("\n{}", summary.ledger));
    written?;
    served?;
    remove(folder)?;
    Ok(Exit::Success)
}

#[cfg(feature = "scale-out")]
fn beside_kafka(args: &DemoArgs, generator: Generator) -> Result<Exit> {
    kafka::demo(args, generator)
}

#[cfg(not(feature = "scale-out"))]
fn beside_kafka(_: &DemoArgs, _: Generator) -> Result<Exit> {
    Err(Error::user(
        "--kafka: this adtally was built without Kafka. Build it with the feature scale-out, which needs the packages \
         pkg-config and libssl-dev: `cargo build --release --features scale-out`, or at once `cargo run --features scale-out \
         -- demo --kafka`",
    ))
}

/// The temporary folder, and the folder of the log in it.
fn folders(stopping: &Stopping) -> Result<(TempDir, PathBuf)> {
    let folder = stopping.temporary_folder("adtally-demo-")?;
    let logs = folder.path().join("logs");
    std::fs::create_dir(&logs)
        .map_err(|e| Error::external(format!("{} cannot be created", logs.display())).because(e))?;
    Ok((folder, logs))
}

/// Removes the temporary folder.
fn remove(folder: TempDir) -> Result<()> {
    let path = folder.path().display().to_string();
    folder.close().map_err(|e| Error::external(format!("{path} cannot be removed")).because(e))?;
    terminal::say("the temporary folder is removed");
    Ok(())
}

/// What the writer does, in words.
fn of_writer(args: &DemoArgs, logs: &Path) -> String {
    let rate = thousands(args.rate as u64);
    format!("writing {rate} clicks a second into {}, rotated every {} s", logs.display(), ROTATE_MS / 1_000)
}

fn configure(args: &DemoArgs, folder: &Path, logs: &Path) -> Result<Config> {
    let text = |flag, key, value: String| FlagSetting { flag, key, value: Value::Text(value) };
    let flags = [
        text("--listen", "serve.listen", args.listen.clone()),
        text("--data-dir", "store.data_dir", folder.join("data").display().to_string()),
    ];
    let (_, mut config) = config::load(None, &[], &flags)?;
    config.run.source.paths = vec![literally(&logs.display().to_string())];
    config.log.level = LogLevel::Warn;
    if terminal::is_json() {
        config.log.format = LogFormat::Json;
    }
    Ok(config)
}
