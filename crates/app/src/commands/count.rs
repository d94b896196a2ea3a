//! `adtally count`: counts files once, in a temporary data directory.

use super::run::{show_progress, start_log};
use super::settings::{self, input_paths};
use super::spool::{Share, Spool};
use super::stopping::Stopping;
use super::{closing, runtime, temporary_folder_failed};
use crate::config::LogLevel;
use crate::exit::Exit;
use crate::handles;
use crate::terminal::{self, Unit};
use adtally_engine::clock::{SystemClock, SystemRandomness};
use adtally_engine::report::Report;
use adtally_engine::status::Status;
use adtally_engine::{Ending, RunOptions, Service};
use adtally_model::ledger::thousands;
use adtally_model::{Country, Error, ErrorKind, Minute, Result};
use adtally_store::backing::StoreUrl;
use adtally_store::lake::Lake;
use clap::{Args, ValueEnum};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Attempts to write before `count` gives up: some seconds. Unlike for a data directory, it does not wait until a full
/// temporary disk has space.
const WRITE_ATTEMPTS_MAX: u32 = 5;

/// Target number of count rows in memory at a time; the requested span is adapted to it.
const ROWS_AT_ONCE: usize = 2_000_000;

/// Count files once, in a temporary data directory, and print the highest counts.
#[derive(Debug, Args)]
pub struct CountArgs {
    /// Files, folders or globs; gzip and zstd files are recognised. - means standard input. Standard input and pipes
    /// are copied to the temporary folder (TMPDIR) before they are counted.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<String>,
    /// How many rows to print.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub top: usize,
    /// What to sum by.
    #[arg(long, value_enum, default_value = "ad")]
    pub by: By,
    /// The configuration file, for other formats and field names (- means standard input); `inspect` prints one.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print one JSON object: the ledger in the form of `GET /ledger`, and the rows.
    #[arg(long)]
    pub json: bool,
}

/// What to sum by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum By {
    /// Clicks of each ad, the most clicked first.
    Ad,
    /// Clicks from each country, the most clicked first.
    Country,
    /// Clicks in each minute, in order of time.
    Minute,
}

/// Runs the command.
///
/// # Errors
/// The error that stopped the run.
pub fn count(args: &CountArgs) -> Result<Exit> {
    let flags: Vec<_> = input_paths(&args.files).into_iter().collect();
    let (_, mut config) = settings::load(args.config.as_deref(), &flags)?;
    let config_is_stdin = args.config.as_deref() == Some(Path::new("-"));
    if config_is_stdin && args.files.iter().any(|file| file == "-") {
        return Err(Error::user(
            "standard input cannot be both the configuration and the log: name a file for one of them",
        ));
    }
    let runtime = runtime()?;
    let stopping = Stopping::on_signals(&runtime)?;
    let folder = stopping.temporary_folder("adtally-count-")?;
    config.run.store.data_dir = StoreUrl::of_folder(folder.path().join("data"));
    // Data that is deleted with the command need not survive a power loss.
    config.run.epoch.fsync = false;
    config.log.level = LogLevel::Warn;
    start_log(&config)?;
    let Some((spool, patterns)) = Spool::fill(&args.files, Share::Whole, folder.path(), &stopping)? else {
        terminal::say("stopped before the end of the input: nothing is counted");
        return Ok(Exit::Interrupted);
    };
    config.run.source.paths = patterns;
    let options = handles::run_options(&config, Ending::Scratch, WRITE_ATTEMPTS_MAX);
    // Errors of the stores name files in the temporary folder.
    let path = folder.path().display().to_string();
    count_files(args, &options, &spool, &runtime, &stopping).map_err(|error| match error.kind() {
        ErrorKind::External if error.report().contains(&path) => temporary_folder_failed(folder.path()).because(error),
        _ => error,
    })
}

fn count_files(
    args: &CountArgs,
    options: &RunOptions,
    spool: &Spool,
    runtime: &tokio::runtime::Runtime,
    stopping: &Stopping,
) -> Result<Exit> {
    let service = Service::start(options, Arc::new(SystemClock), Arc::new(SystemRandomness), runtime.handle())?;
    let (report, lake) = (service.report(), service.lake());
    let bar = terminal::progress_bar(0, Unit::Bytes);
    let outcome = service.run(stopping.flag(), |progress, ledger| show_progress(&bar, progress, ledger));
    bar.finish_and_clear();
    let summary = outcome?;
    let rows = runtime.block_on(top(&lake, args.by, args.top))?;
    terminal::print(&if args.json { json(args.by, &rows, &report, spool)? } else { table(args.by, &rows) })?;
    let interrupted = "stopped before the end: the counts cover only what was read until then";
    Ok(closing::say(&summary, &report.first_rejections(), &report.readiness().notes, interrupted, spool))
}

fn table(by: By, rows: &[(u64, u64)]) -> String {
    let rows: Vec<_> = rows.iter().map(|&(key, clicks)| (key_name(by, key), clicks)).collect();
    let width = rows.iter().map(|(key, _)| key.len()).max().unwrap_or(0).max(7);
    let mut text = format!("{:<width$}  {:>14}\n", by_name(by), "clicks");
    for (key, clicks) in &rows {
        text.push_str(&format!("{key:<width$}  {:>14}\n", thousands(*clicks)));
    }
    text
}

/// The ledger in the form of `GET /ledger`, and the rows.
fn json(by: By, rows: &[(u64, u64)], report: &Report, spool: &Spool) -> Result<String> {
    let row = |&(key, clicks): &(u64, u64)| {
        let key = key_name(by, key);
        format!("{{\"{}\":\"{key}\",\"clicks\":{clicks}}}", by_name(by))
    };
    let rows: Vec<_> = rows.iter().map(row).collect();
    let mut ledger = report.ledger();
    ledger.inputs.iter_mut().for_each(|input| input.name = spool.named(&input.name));
    let ledger = adtally_serve::ledger_json(ledger)?;
    Ok(format!("{{\"ledger\":{ledger},\"top\":[{}]}}\n", rows.join(",")))
}

fn by_name(by: By) -> &'static str {
    match by {
        By::Ad => "ad_id",
        By::Country => "country",
        By::Minute => "minute",
    }
}

fn key_name(by: By, key: u64) -> String {
    match by {
        By::Ad => key.to_string(),
        By::Country => Country::from_rank(key as u8).unwrap_or(Country::UNKNOWN).to_string(),
        By::Minute => adtally_model::time::rfc3339(key as i64),
    }
}

/// The first rows of a sum over the whole lake: ads, ranks of countries or starts of minutes, and clicks.
async fn top(lake: &Lake, by: By, limit: usize) -> Result<Vec<(u64, u64)>> {
    let Some((mut from, to)) = lake.minutes().await? else { return Ok(Vec::new()) };
    let mut sums: HashMap<u64, u64> = HashMap::new();
    let mut minutes = 60;
    while from < to {
        let until = Minute(from.0.saturating_add(minutes).min(to.0));
        let mut rows = 0;
        for counts in lake.counts(from, until, None).await?.minutes {
            rows += counts.len();
            for (ad, country, clicks) in counts.rows() {
                let key = match by {
                    By::Ad => ad,
                    By::Country => u64::from(country.rank()),
                    By::Minute => counts.minute.start_ms() as u64,
                };
                // The lake's sums are never negative.
                *sums.entry(key).or_default() += clicks.unsigned_abs();
            }
        }
        from = until;
        // Clicks may be minutes or decades apart.
        minutes = if rows > ROWS_AT_ONCE { (minutes / 2).max(1) } else { minutes.saturating_mul(2) };
    }
    let mut rows: Vec<(u64, u64)> = sums.into_iter().collect();
    match by {
        By::Minute => rows.sort_unstable(),
        By::Ad | By::Country => rows.sort_unstable_by_key(|&(key, clicks)| (Reverse(clicks), key)),
    }
    rows.truncate(limit);
    Ok(rows)
}
