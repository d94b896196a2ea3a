//! `adtally count`: the whole job once, in a temporary data directory.

use super::run::{show_progress, start_log, stop_on_signals};
use super::{closing, runtime};
use crate::clock::{SystemClock, SystemRandomness};
use crate::commands::config::environment;
use crate::config;
use crate::exit::Exit;
use crate::run::{ATTEMPTS_MAX, Ending, RunOptions, Service};
use crate::terminal;
use adtally_model::{Error, Minute, Result};
use adtally_serve::Status;
use adtally_store::lake::Lake;
use clap::{Args, ValueEnum};
use serde_json::json;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

/// Rows of counts that should be in memory at a time; the span asked for is adapted to it.
const ROWS_AT_ONCE: usize = 2_000_000;

/// Count files once, in a temporary data directory, and print the top.
#[derive(Debug, Args)]
pub struct CountArgs {
    /// Files, folders or globs; gzip and zstd are read as they are.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<String>,
    /// How many rows to print.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub top: usize,
    /// What to sum by.
    #[arg(long, value_enum, default_value = "ad")]
    pub by: By,
    /// The configuration file, for other formats and field names; `adtally inspect` writes one.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print JSON.
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
/// What stopped the run.
pub fn count(args: &CountArgs) -> Result<Exit> {
    let temporary = tempfile::Builder::new()
        .prefix("adtally-count-")
        .tempdir()
        .map_err(|e| Error::external("no temporary folder can be made").because(e))?;
    let (_, mut config) = config::load(args.config.as_deref(), &environment(), &[])?;
    config.input.paths = args.files.clone();
    config.store.data_dir = temporary.path().join("data");
    // What dies with the command need not survive a power loss.
    config.epoch.fsync = false;
    config.log.level = "warn";
    start_log(&config)?;
    let options = RunOptions { config, ending: Ending::Final, attempts_max: ATTEMPTS_MAX };
    let runtime = runtime()?;
    let service = Service::start(&options, Arc::new(SystemClock), Arc::new(SystemRandomness), runtime.handle())?;
    let (report, lake) = (service.report(), service.lake());
    let stop = stop_on_signals(&runtime)?;
    let bar = terminal::progress_bar(0);
    let outcome = service.run(&stop, |progress, ledger| show_progress(&bar, progress, ledger));
    bar.finish_and_clear();
    let summary = outcome?;
    let rows = runtime.block_on(top(&lake, args.by, args.top))?;
    if args.json {
        let rows: Vec<_> =
            rows.iter().map(|(key, clicks)| json!({ by_name(args.by): key, "clicks": clicks })).collect();
        let ledger = summary.ledger;
        let answer = json!({ "ledger": {
            "read": ledger.read, "counted": ledger.counted, "duplicate": ledger.duplicate, "late": ledger.late,
            "future": ledger.future, "malformed": ledger.malformed, "invalid": ledger.invalid,
            "conflicting_duplicates": ledger.conflicting_duplicates, "gap_bytes": ledger.gap_bytes,
        }, "top": rows });
        terminal::print(&format!("{answer}\n"))?;
    } else {
        let width = rows.iter().map(|(key, _)| key.len()).max().unwrap_or(0).max(7);
        let mut text = format!("{:<width$}  {:>14}\n", by_name(args.by), "clicks");
        for (key, clicks) in &rows {
            text.push_str(&format!("{key:<width$}  {:>14}\n", terminal::thousands(*clicks)));
        }
        terminal::print(&text)?;
    }
    closing::say(&summary.ledger, &report.first_rejections(), &report.readiness().notes);
    if summary.interrupted {
        terminal::say("stopped before the end: what was read is committed, and the next run goes on from there");
        return Ok(Exit::Interrupted);
    }
    Ok(Exit::Success)
}

fn by_name(by: By) -> &'static str {
    match by {
        By::Ad => "ad_id",
        By::Country => "country",
        By::Minute => "minute",
    }
}

/// The first rows of a sum over everything that the lake holds.
async fn top(lake: &Lake, by: By, limit: usize) -> Result<Vec<(String, u64)>> {
    let Some((mut from, to)) = lake.minutes().await? else { return Ok(Vec::new()) };
    // Ads, ranks of countries or minutes: whatever it is summed by is a number.
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
                *sums.entry(key).or_default() += u64::from(clicks);
            }
        }
        from = until;
        // Clicks may lie minutes or decades apart.
        minutes = if rows > ROWS_AT_ONCE { (minutes / 2).max(1) } else { minutes.saturating_mul(2) };
    }
    let mut rows: Vec<(u64, u64)> = sums.into_iter().collect();
    match by {
        By::Minute => rows.sort_unstable(),
        By::Ad | By::Country => rows.sort_unstable_by_key(|&(key, clicks)| (Reverse(clicks), key)),
    }
    rows.truncate(limit);
    let named = rows.into_iter().map(|(key, clicks)| {
        let name = match by {
            By::Ad => key.to_string(),
            By::Country => {
                adtally_model::Country::from_rank(key as u8).unwrap_or(adtally_model::Country::UNKNOWN).to_string()
            }
            By::Minute => adtally_model::time::rfc3339(key as i64),
        };
        (name, clicks)
    });
    Ok(named.collect())
}
