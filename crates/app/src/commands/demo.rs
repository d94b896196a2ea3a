//! `adtally demo`: counts traffic that it generates itself.

use super::run::start_log;
use super::runtime;
use super::serving::Server;
use super::stopping::Stopping;
use crate::config::{self, Config, FlagSetting, LogFormat, LogLevel, Value};
use crate::exit::Exit;
use crate::handles;
use crate::pattern::literally;
use crate::terminal;
use adtally_engine::clock::{Clock, SystemClock, SystemRandomness};
use adtally_engine::report::Report;
use adtally_engine::status::Status;
use adtally_engine::{ATTEMPTS_MAX, Ending, Service, ServiceStart};
use adtally_generate::{Amount, Format, Generator, MISSION_ADS, MISSION_RATE, Settings};
use adtally_model::ledger::thousands;
use adtally_model::time::rfc3339;
use adtally_model::{Error, Minute, Result};
use adtally_store::embedded::Embedded;
use adtally_store::questions::{Question, Questions, Span};
use clap::Args;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Event time before the start of the demo, so that there are closed minutes at once.
const HISTORY_MS: i64 = 3 * 60_000;

/// How often the log is rotated.
const ROTATE_MS: i64 = 20_000;

/// Rotated files that are kept; older ones are deleted, as a log rotation would.
const FILES_KEPT: usize = 12;

/// How often the writer appends, like the log of a busy server.
const APPEND_PAUSE: Duration = Duration::from_millis(20);

/// Interval of status lines.
const LOOK_MS: i64 = 1_000;

/// Timeout of a sample question; counting stops while the demo waits for it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Maximum characters of an answer that are shown: some lines of a terminal.
const ANSWER_CHARS_MAX: usize = 300;

/// Maximum value of `--seconds`: a year.
const SECONDS_MAX: u64 = 31_536_000;

/// Total lines of the generator: days of traffic.
const LINES_MAX: u64 = 4_000_000_000;

/// Show Adtally at work: write live traffic to a temporary folder, count it and answer questions.
#[derive(Debug, Args)]
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
}

/// Runs the command.
///
/// # Errors
/// The error that stopped the run.
pub fn demo(args: &DemoArgs) -> Result<Exit> {
    let generator = Generator::new(traffic(args))?;
    let runtime = runtime()?;
    let stopping = Stopping::on_signals(&runtime)?;
    let folder = stopping.temporary_folder("adtally-demo-")?;
    let logs = folder.path().join("logs");
    std::fs::create_dir(&logs)
        .map_err(|e| Error::external(format!("{} cannot be created", logs.display())).because(e))?;
    let config = configure(args, folder.path(), &logs)?;
    start_log(&config)?;
    let listener = Server::listen(&runtime, &config)?;
    let options = handles::run_options(&config, Ending::Never, ATTEMPTS_MAX);
    // There is no recovery that a signal would have to stop.
    let start = ServiceStart::new(&options, Arc::new(SystemClock), Arc::default());
    let server = Server::start(&runtime, listener, &config, &start, &stopping)?;
    let address = server.address();
    let service = Service::start_watched(&options, &start, Arc::new(SystemRandomness), runtime.handle())?;
    let writer = start_writer(generator, &logs, stopping.flag())?;
    terminal::say(&format!(
        "writing {} clicks a second into {}, rotated every {} s; answering on\n\nhttp://{address}\n",
        thousands(args.rate as u64),
        logs.display(),
        ROTATE_MS / 1_000
    ));
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
    let written = writer.join().map_err(|_| Error::internal("the log writer panicked; its message is above"))?;
    let summary = outcome?;
    terminal::say(&format!("\n{}", summary.ledger));
    written?;
    served?;
    let path = folder.path().display().to_string();
    folder.close().map_err(|e| Error::external(format!("{path} cannot be removed")).because(e))?;
    terminal::say("the temporary folder is removed");
    Ok(Exit::Success)
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

/// The settings of the traffic. The first minute is a complete one.
fn traffic(args: &DemoArgs) -> Settings {
    Settings {
        amount: Amount::Lines(LINES_MAX),
        seed: 1,
        rate: args.rate,
        ads: args.ads,
        duplicates: 0.01,
        exact_copies: false,
        late: 0.000_5,
        malformed: 0.000_5,
        invalid: 0.000_2,
        click_ids: 0.0,
        out_of_order_ms: 2_000,
        start_ms: Minute::of(SystemClock.wall_ms() - HISTORY_MS).start_ms(),
        format: Format::Ndjson,
    }
}

/// Starts the thread that writes and rotates the log.
fn start_writer(generator: Generator, logs: &Path, stop: &Arc<AtomicBool>) -> Result<JoinHandle<Result<()>>> {
    let (logs, stop) = (logs.to_path_buf(), Arc::clone(stop));
    std::thread::Builder::new()
        .name("demo-log".into())
        .spawn(move || write_log(generator, &logs, &stop))
        .map_err(|e| Error::external("the log writer cannot be started").because(e))
}

/// Appends due lines to `clicks.log`, and renames it at intervals.
fn write_log(mut generator: Generator, logs: &Path, stop: &AtomicBool) -> Result<()> {
    let path = logs.join("clicks.log");
    let failed = |e: std::io::Error| Error::external("the log of the demo cannot be written").because(e);
    let mut file = File::create(&path).map_err(failed)?;
    let mut rotated: Vec<PathBuf> = Vec::new();
    let mut rotate_at_ms = SystemClock.monotonic_ms() + ROTATE_MS;
    let mut lines = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        lines.clear();
        while generator.event_time_ms() <= SystemClock.wall_ms() && lines.len() < 1 << 20 {
            if !generator.next_line(&mut lines) {
                break;
            }
        }
        file.write_all(&lines).map_err(failed)?;
        if SystemClock.monotonic_ms() >= rotate_at_ms {
            rotate_at_ms += ROTATE_MS;
            let name = format!("clicks.log.{}", rfc3339(SystemClock.wall_ms()).replace([':', '.'], "-"));
            rotated.push(logs.join(name));
            if let Some(newest) = rotated.last() {
                std::fs::rename(&path, newest).map_err(failed)?;
            }
            file = File::create(&path).map_err(failed)?;
            if rotated.len() > FILES_KEPT {
                std::fs::remove_file(rotated.remove(0)).map_err(failed)?;
            }
        }
        if lines.len() < 1 << 20 {
            std::thread::sleep(APPEND_PAUSE);
        }
    }
    Ok(())
}

/// Explains to the user what the demo shows.
struct Guide {
    questions: Arc<Embedded>,
    report: Arc<Report>,
    address: SocketAddr,
    began_ms: i64,
    seconds: u64,
    said_hello: bool,
    looked_at_ms: i64,
    lines_before: u64,
}

impl Guide {
    fn new(args: &DemoArgs, questions: Arc<Embedded>, report: Arc<Report>, address: SocketAddr) -> Self {
        let now = SystemClock.monotonic_ms();
        let (seconds, said_hello) = (args.seconds, false);
        Guide { questions, report, address, began_ms: now, seconds, said_hello, looked_at_ms: now, lines_before: 0 }
    }

    /// Called often. Prints a status line once a second, and sample questions once a minute is closed. Returns true
    /// when the time is over.
    fn look(&mut self, handle: &tokio::runtime::Handle) -> bool {
        let now = SystemClock.monotonic_ms();
        if now - self.looked_at_ms >= LOOK_MS {
            if !self.said_hello {
                self.said_hello = self.say_hello(handle);
            }
            self.status((now - self.looked_at_ms).max(1) as u64);
            self.looked_at_ms = now;
        }
        self.seconds > 0 && now - self.began_ms >= self.seconds as i64 * 1_000
    }

    /// Prints sample questions with their answers; returns `false` while nothing is closed yet.
    fn say_hello(&self, handle: &tokio::runtime::Handle) -> bool {
        let question = Question::about(Span::Last(1));
        let Ok(top) = handle.block_on(self.questions.top_ads(&question, 1)) else { return false };
        let Some(&(best, _)) = top.ads.first() else { return false };
        terminal::say("\nFirst answers:");
        for path in [
            "/ads/top100?minutes=1".to_owned(),
            format!("/ads/{best}/clicks?minutes=1&series=true"),
            "/ads/top100?minutes=1&filter_country=US".to_owned(),
            "/ads/top100?minutes=5&include_open=true".to_owned(),
            "/ledger".to_owned(),
            "/readyz".to_owned(),
            "/metrics".to_owned(),
        ] {
            let answer = ask(self.address, &path).unwrap_or_else(|error| format!("no answer: {error}"));
            terminal::say(&format!("\ncurl 'http://{}{path}'\n  {}", self.address, shortened(&answer)));
        }
        terminal::say("\nCtrl-C stops and cleans up.\n");
        true
    }

    fn status(&mut self, elapsed_ms: u64) {
        let ledger = self.report.total();
        let rate = ledger.read.saturating_sub(self.lines_before) * 1_000 / elapsed_ms;
        self.lines_before = ledger.read;
        let lag = self.report.gauges().watermark_lag_ms;
        let lag = lag.map_or_else(|| "-".into(), |lag| format!("{:.1} s", lag as f64 / 1e3));
        terminal::say_over(&format!(
            "{} committed lines, {} counted, {} duplicates, {}/s, watermark {lag} behind",
            thousands(ledger.read),
            thousands(ledger.counted),
            thousands(ledger.duplicate),
            thousands(rate),
        ));
    }
}

/// Sends a request like `curl`, and returns the body of the answer.
fn ask(mut address: SocketAddr, path: &str) -> std::io::Result<String> {
    // If the server is bound to all addresses, the request goes to the loopback address.
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    let mut stream = TcpStream::connect_timeout(&address, ANSWER_TIMEOUT)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned()))
}

/// The beginning of an answer, on one line.
fn shortened(answer: &str) -> String {
    let answer = answer.trim_end();
    let line: String = answer.lines().next().unwrap_or_default().chars().take(ANSWER_CHARS_MAX).collect();
    if line.len() < answer.len() { line + "…" } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_shown_on_one_line() {
        let check = |answer: &str, expected: &str| assert_eq!(shortened(answer), expected);
        check("{}\n", "{}");
        check("one\ntwo\n", "one…");
        check(&"ä".repeat(ANSWER_CHARS_MAX), &"ä".repeat(ANSWER_CHARS_MAX));
        check(&"ä".repeat(ANSWER_CHARS_MAX + 1), &("ä".repeat(ANSWER_CHARS_MAX) + "…"));
    }
}
