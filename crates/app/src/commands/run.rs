//! `adtally run`: counts growing log files and answers questions.

use super::serving::Server;
use super::settings::RunSettings;
use super::spool::Spool;
use super::stopping::Stopping;
use super::{closing, control, found, leave_running, runtime};
use crate::config::{Config, LogFormat};
use crate::exit::Exit;
use crate::handles;
use crate::terminal::{self, Unit};
use adtally_engine::clock::{Clock, SystemClock, SystemRandomness};
use adtally_engine::status::Status;
use adtally_engine::{ATTEMPTS_MAX, Ending, RunOptions, Service, ServiceStart};
use adtally_model::ledger::thousands;
use adtally_model::{Error, Ledger, Result};
use adtally_source::Progress;
use clap::Args;
use indicatif::ProgressBar;
use std::sync::Arc;
use tracing_subscriber::EnvFilter;

/// Count growing log files, and answer questions over HTTP.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  adtally run /var/log/clicks --data-dir /var/lib/adtally
  adtally run 'logs/*.ndjson*' --data-dir data --until-end
  adtally run --config adtally.toml

Questions, while it runs:
  curl 'http://127.0.0.1:8080/ads/42/clicks?minutes=5'
  curl 'http://127.0.0.1:8080/ads/top100?minutes=5&filter_country=US'
  curl 'http://127.0.0.1:8080/ledger'

Signals: on SIGINT, SIGTERM or SIGHUP, the process commits what was read and stops within ten seconds, with exit code 0.
A second signal stops it at once (130); no data is lost. If SIGHUP is ignored at the start, as with nohup, it stays
ignored. To read a changed configuration, restart the process.")]
pub struct RunArgs {
    /// The settings that have flags.
    #[command(flatten)]
    pub settings: RunSettings,
    /// Read all inputs up to their present size, commit, print the ledger as JSON and exit; no HTTP server.
    #[arg(long)]
    pub until_end: bool,
    /// With --until-end: make all minutes final. Use it when no more data will follow.
    #[arg(long = "final", requires = "until_end")]
    pub finalise: bool,
}

/// Runs the command.
///
/// # Errors
/// The error that stopped the run.
pub fn run(args: &RunArgs) -> Result<Exit> {
    let (_, config) = args.settings.load()?;
    start_log(&config)?;
    if config.run.source.paths.iter().any(|path| path == "-") {
        return Err(Error::user(
            "`run` cannot read standard input, because it must be able to read its inputs again after a crash: use \
             `adtally count -`, or write the lines to a file (./- means a file named -)",
        ));
    }
    if config.run.source.paths.is_empty() {
        return Err(Error::user("there is nothing to read: name files, folders or globs, or set input.paths"));
    }
    let ending = match (args.until_end, args.finalise) {
        (false, _) => Ending::Never,
        (true, false) => Ending::UntilEnd,
        (true, true) => Ending::Final,
    };
    let options = handles::run_options(&config, ending, ATTEMPTS_MAX);
    if ending.is_bounded() { until_end(&options) } else { tail(&config, &options) }
}

/// Sends log lines to stderr.
///
/// # Errors
/// Internal when logging was started before.
pub(crate) fn start_log(config: &Config) -> Result<()> {
    let level = config.log.level;
    // Libraries log only warnings and errors. Delta's kernel is silenced: it warns of tables before they are created.
    let filter = EnvFilter::try_new(format!(
        "warn,buoyant_kernel=off,adtally={level},adtally_engine={level},adtally_source={level},adtally_store={level},adtally_serve={level}"
    ))
    .map_err(|e| Error::internal("the log filter is wrong").because(e))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(terminal::colours())
        // They would be printed on stderr, which is what failed.
        .log_internal_errors(false);
    let started = match config.log.format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    started.map_err(|e| Error::internal("logging was started before").because(e))
}

/// Reads all inputs to their end, prints the ledger on stdout and the rejected lines on stderr.
fn until_end(options: &RunOptions) -> Result<Exit> {
    let runtime = runtime()?;
    let stopping = Stopping::on_signals(&runtime)?;
    let start = ServiceStart::new(options, Arc::new(SystemClock), Arc::clone(stopping.flag()));
    let Some(service) = Service::begin(options, &start, Arc::new(SystemRandomness), runtime.handle())? else {
        leave_running(runtime);
        return Ok(closing::before_recovery());
    };
    let report = service.report();
    let bar = terminal::progress_bar(0, Unit::Bytes);
    let outcome = service.run(stopping.flag(), |progress, ledger| show_progress(&bar, progress, ledger));
    bar.finish_and_clear();
    let summary = outcome?;
    terminal::print(&format!("{}\n", adtally_serve::ledger_json(report.ledger())?))?;
    let interrupted = "stopped before the end: what was read is committed, and the next run continues from there";
    Ok(closing::say(&summary, &report.first_rejections(), &report.readiness().notes, interrupted, &Spool::default()))
}

/// Updates a progress bar to the current position.
pub(crate) fn show_progress(bar: &ProgressBar, progress: &Progress, ledger: &Ledger) {
    bar.set_length(progress.total_bytes);
    bar.set_position(progress.read_bytes);
    bar.set_message(format!("{} lines", thousands(ledger.read)));
}

/// Tails and serves until a signal comes.
fn tail(config: &Config, options: &RunOptions) -> Result<Exit> {
    let runtime = runtime()?;
    let stopping = Stopping::on_signals(&runtime)?;
    let listener = Server::listen(&runtime, config)?;
    let start = ServiceStart::new(options, Arc::new(SystemClock), Arc::clone(stopping.flag()));
    let server = Server::start(&runtime, listener, config, &start, &stopping)?;
    let outcome = Service::begin(options, &start, Arc::new(SystemRandomness), runtime.handle()).and_then(|service| {
        let Some(service) = service else { return Ok(None) };
        let data_dir = &config.run.store.data_dir;
        terminal::say(&format!("answering on http://{}; data in {data_dir}", server.address()));
        if let (Some(reconciler), Some(folder)) = (service.reconciler(), data_dir.locked_folder()) {
            // A listener belongs to a runtime.
            let _runtime = runtime.enter();
            match control::listen(folder) {
                Ok(listener) => {
                    runtime.spawn(control::serve(listener, reconciler));
                }
                // Counting does not depend on it.
                Err(error) => {
                    tracing::warn!("`adtally reconcile` cannot reach this process while it runs: {}", error.report())
                }
            }
        }
        found::say(&config.run.source);
        let report = service.report();
        if report.total().read > 0 {
            terminal::say(&format!("going on after {}", report.total()));
        }
        let mut age = found::Age::default();
        let summary = service.run(stopping.flag(), |progress, ledger| {
            let level = ledger.read == report.total().read && progress.read_bytes >= progress.total_bytes;
            age.say_once(report.newest_click_ms().filter(|_| level), SystemClock.wall_ms());
        });
        summary.map(Some)
    });
    stopping.stop();
    let served = server.finish(runtime, matches!(outcome, Ok(None)));
    // If the server ends as well, the error that stopped the work is the cause.
    let summary = outcome?;
    match &summary {
        Some(summary) => {
            terminal::say(&format!("stopped; everything read is committed: {}", summary.ledger));
        }
        None => terminal::say("stopped before the state was recovered; nothing was read"),
    }
    served?;
    Ok(Exit::Success)
}
