//! `adtally run`: counts growing log files and answers questions.

use super::stopping::Stopping;
use super::{SHUTDOWN_TIMEOUT, closing, found, input_paths, runtime};
use crate::clock::{Clock, SystemClock, SystemRandomness};
use crate::commands::config::environment;
use crate::config::{self, Config, FlagSetting, LogFormat, Value};
use crate::exit::Exit;
use crate::run::{ATTEMPTS_MAX, Ending, RunOptions, Service};
use crate::terminal::{self, Unit};
use crate::wiring;
use adtally_model::{Error, Ledger, Result};
use adtally_serve::Status;
use adtally_source::Progress;
use clap::Args;
use indicatif::ProgressBar;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tracing_subscriber::EnvFilter;

/// Count growing log files, and answer questions over HTTP.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  adtally run /var/log/clicks --data-dir /var/lib/adtally
  adtally run 'logs/*.ndjson*' --data-dir data --until-end
  adtally run --config adtally.toml

Questions, once it runs:
  curl 'http://127.0.0.1:8080/ads/42/clicks?minutes=5'
  curl 'http://127.0.0.1:8080/ads/top100?minutes=5&filter_country=US'
  curl 'http://127.0.0.1:8080/ledger'")]
pub struct RunArgs {
    /// Files, folders or globs; they replace those of the configuration.
    #[arg(value_name = "INPUT")]
    pub inputs: Vec<String>,
    /// The configuration file; `adtally config show` prints every setting.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where everything is kept [default: adtally-data].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where to answer questions [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Read all inputs to the size that they have now, commit, print the ledger as JSON and exit; serves no HTTP.
    #[arg(long)]
    pub until_end: bool,
    /// With --until-end, for the last run over a body of data: make all minutes final.
    #[arg(long = "final", requires = "until_end")]
    pub finalise: bool,
}

/// Runs the command.
///
/// # Errors
/// What stopped the run.
pub fn run(args: &RunArgs) -> Result<Exit> {
    let config = configure(args)?;
    start_log(&config)?;
    if config.input.paths.is_empty() {
        return Err(Error::user("there is nothing to read: name files, folders or globs, or set input.paths"));
    }
    let ending = match (args.until_end, args.finalise) {
        (false, _) => Ending::Never,
        (true, false) => Ending::UntilEnd,
        (true, true) => Ending::Final,
    };
    let options = RunOptions { config, ending, inputs_are_finished: false, attempts_max: ATTEMPTS_MAX };
    if ending == Ending::Never { tail(&options) } else { until_end(&options) }
}

fn configure(args: &RunArgs) -> Result<Config> {
    let mut flags: Vec<FlagSetting> = input_paths(&args.inputs).into_iter().collect();
    if let Some(data_dir) = &args.data_dir {
        let value = Value::Text(data_dir.display().to_string());
        flags.push(FlagSetting { flag: "--data-dir", key: "store.data_dir", value });
    }
    if let Some(listen) = &args.listen {
        flags.push(FlagSetting { flag: "--listen", key: "serve.listen", value: Value::Text(listen.clone()) });
    }
    Ok(config::load(args.config.as_deref(), &environment()?, &flags)?.1)
}

/// Sends log lines to stderr.
///
/// # Errors
/// Internal when logging was started before.
pub(crate) fn start_log(config: &Config) -> Result<()> {
    let level = config.log.level;
    // Libraries below speak up only when something is wrong; Delta's kernel calls a table that is about to be created wrong.
    let filter = EnvFilter::try_new(format!(
        "warn,buoyant_kernel=off,adtally={level},adtally_source={level},adtally_store={level},adtally_serve={level}"
    ))
    .map_err(|e| Error::internal("the log filter is wrong").because(e))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(terminal::colours())
        // It would be told on stderr, which is what failed.
        .log_internal_errors(false);
    let started = match config.log.format {
        LogFormat::Text => log.try_init(),
        LogFormat::Json => log.json().try_init(),
    };
    started.map_err(|e| Error::internal("logging was started before").because(e))
}

/// Reads everything to its end, prints the ledger on stdout and what was rejected on stderr.
fn until_end(options: &RunOptions) -> Result<Exit> {
    let runtime = runtime()?;
    let stopping = Stopping::on_signals(&runtime)?;
    let service = Service::start(options, Arc::new(SystemClock), Arc::new(SystemRandomness), runtime.handle())?;
    let report = service.report();
    let bar = terminal::progress_bar(0, Unit::Bytes);
    let outcome = service.run(stopping.flag(), |progress, ledger| show_progress(&bar, progress, ledger));
    bar.finish_and_clear();
    let summary = outcome?;
    terminal::print(&format!("{}\n", adtally_serve::ledger_json(report.ledger())?))?;
    let interrupted = "stopped before the end: what was read is committed, and the next run goes on from there";
    Ok(closing::say(&summary, &report.first_rejections(), &report.readiness().notes, interrupted))
}

/// Moves a progress bar to where reading is.
pub(crate) fn show_progress(bar: &ProgressBar, progress: &Progress, ledger: &Ledger) {
    bar.set_length(progress.total_bytes);
    bar.set_position(progress.read_bytes);
    bar.set_message(format!("{} lines", terminal::thousands(ledger.read)));
}

/// Tails and serves until a signal comes.
fn tail(options: &RunOptions) -> Result<Exit> {
    let runtime = runtime()?;
    let clock = SystemClock;
    let stopping = Stopping::on_signals(&runtime)?;
    // Bound before anything is touched: a port in use is the most common mistake.
    let listener = listen(&runtime, options)?;
    let service = Service::start(options, Arc::new(clock), Arc::new(SystemRandomness), runtime.handle())?;
    let report = service.report();
    let address = listener.local_addr().map_err(|e| Error::external("the listening address is unknown").because(e))?;
    let server = start_server(&runtime, listener, &service, stopping.flag(), options);
    let data_dir = options.config.store.data_dir.display();
    terminal::say(&format!("answering on http://{address}; data in {data_dir}"));
    found::say(&options.config.input);
    if report.total().read > 0 {
        terminal::say(&format!("going on after {}", terminal::sum_line(&report.total())));
    }
    let mut age = found::Age::default();
    let outcome = service.run(stopping.flag(), |progress, ledger| {
        let level = ledger.read == report.total().read && progress.read_bytes >= progress.total_bytes;
        age.say_once(report.newest_click_ms().filter(|_| level), clock.wall_ms());
    });
    stopping.stop();
    let _ = runtime.block_on(server);
    // A question that is still being computed is not waited for.
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    let summary = outcome?;
    terminal::say(&format!("stopped; everything read is committed: {}", terminal::sum_line(&summary.ledger)));
    Ok(Exit::Success)
}

/// Binds the address.
///
/// # Errors
/// A user error that names the address.
pub(crate) fn listen(runtime: &tokio::runtime::Runtime, options: &RunOptions) -> Result<tokio::net::TcpListener> {
    let address = options.config.serve.listen;
    runtime.block_on(tokio::net::TcpListener::bind(address)).map_err(|e| {
        Error::user(format!("{address} cannot be listened on: free it, or name another with --listen")).because(e)
    })
}

/// Starts the HTTP server; it ends when `stop` is set.
pub(crate) fn start_server(
    runtime: &tokio::runtime::Runtime,
    listener: tokio::net::TcpListener,
    service: &Service,
    stop: &Arc<AtomicBool>,
    options: &RunOptions,
) -> tokio::task::JoinHandle<Result<()>> {
    let stop = Arc::clone(stop);
    let stopped = async move {
        while !stop.load(Ordering::Relaxed) {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    let limits = wiring::limits(&options.config.serve);
    runtime.spawn(adtally_serve::serve(listener, service.questions(), service.report(), limits, stopped))
}
