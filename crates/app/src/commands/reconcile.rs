//! `adtally reconcile`: recounts final minutes, recovers late clicks, and reverses clicks that were stored twice.

use super::settings::StoreSettings;
use super::{control, existing, runtime};
use crate::config::Config;
use crate::exit::Exit;
use crate::terminal::{self, Unit};
use adtally_engine::clock::{Clock, Randomness, SystemClock, SystemRandomness};
use adtally_engine::reconciler::Asked;
use adtally_model::ledger::thousands;
use adtally_model::time::{parse_rfc3339, rfc3339};
use adtally_model::{Error, ErrorKind, Minute, Result};
use adtally_reconcile::{CorrectionParts, Corrections, DAMAGED_SHOWN_MAX, ReconcileOptions, ReconcileReport};
use adtally_store::backing::{Backing, Stores};
use adtally_store::data_dir::DataDir;
use adtally_store::epoch_log::Fingerprints;
use clap::{Args, Subcommand};
use serde_json::json;
use std::sync::Arc;

/// Recount the minutes that are final: recover late clicks, and reverse clicks that were stored twice.
#[derive(Debug, Args)]
#[command(after_help = "\
Recounts every final minute that was never recounted, and every minute with new late lines:
  A late line is recovered if its click is in no minute. So is a line that was at most 15 minutes ahead of the clock.
  A click that was stored twice is reversed.
Corrections are signed rows with a cause, and never change rows that exist. Running it again changes nothing.

Exits with 3 if stored clicks are damaged or counts differ from them, if lines can no longer be recovered, or if a dry run
finds something to correct.")]
pub struct ReconcileArgs {
    /// Where the data is.
    #[command(flatten)]
    pub store: StoreSettings,
    /// Recount minutes from this time on, even if they were recounted before (RFC 3339, a whole minute).
    #[arg(long, value_name = "TIME", value_parser = minute)]
    pub from: Option<Minute>,
    /// Recount minutes before this time, even if they were recounted before (RFC 3339, a whole minute).
    #[arg(long, value_name = "TIME", value_parser = minute)]
    pub to: Option<Minute>,
    /// Change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Print one JSON object.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to do instead of a recount.
    #[command(subcommand)]
    pub action: Option<ReconcileAction>,
}

/// What to do instead of a recount.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum ReconcileAction {
    /// Revert the clicks that one run recovered or reversed. Later runs do not make these corrections again.
    Revert {
        /// The number of the run, as in the column `correction`.
        run: u64,
    },
}

fn minute(text: &str) -> std::result::Result<Minute, String> {
    match parse_rfc3339(text.as_bytes()) {
        Some(ms) if !control::is_accepted(Minute::of(ms)) => Err("not within the years 2000 to 2099".to_owned()),
        Some(ms) if Minute::of(ms).start_ms() == ms => Ok(Minute::of(ms)),
        Some(_) => Err("a time with seconds: give the start of a minute".to_owned()),
        None => Err("no RFC 3339 time such as 2026-01-31T10:00:00Z".to_owned()),
    }
}

/// Runs the command.
///
/// # Errors
/// Fenced while a run owns the data directory, external when the stores fail.
pub fn reconcile(args: &ReconcileArgs) -> Result<Exit> {
    let config = args.store.load()?;
    existing(&config.run.store.data_dir)?;
    let options = ReconcileOptions { from: args.from, to: args.to, made_by: "command" };
    let asked = match args.action {
        None => Asked::Reconcile(options),
        Some(ReconcileAction::Revert { .. }) if args.dry_run => {
            return Err(Error::user("revert has no --dry-run: leave it out"));
        }
        Some(ReconcileAction::Revert { run }) => Asked::Revert(run),
    };
    let runtime = runtime()?;
    let dry_run = args.dry_run;
    // On a thread of the runtime, whose stack is large enough for planning SQL.
    let bar = terminal::progress_bar(0, Unit::Minutes);
    let shown = bar.clone();
    let watch = move |done, minutes| {
        shown.set_length(minutes);
        shown.set_position(done);
    };
    let done = runtime.block_on(runtime.spawn(async move {
        if dry_run { find(&config, &options, &watch).await } else { correct(&config, asked, &watch).await }
    }));
    bar.finish_and_clear();
    let report = done.map_err(|e| Error::internal("the recount stopped unexpectedly").because(e))??;
    if args.json {
        terminal::print(&format!("{}\n", as_json(&report)))?;
    } else {
        terminal::print_text(&as_text(&report, dry_run))?;
    }
    Ok(if !report.unsettled(0).is_empty() || (dry_run && report.has_findings()) {
        Exit::Damaged
    } else {
        Exit::Success
    })
}

async fn find(
    config: &Config,
    options: &ReconcileOptions,
    watch: &(dyn Fn(u64, u64) + Send + Sync),
) -> Result<ReconcileReport> {
    let backing = Backing::for_reader(&config.run.store.data_dir)?;
    let lake = backing.existing_lake().await?;
    adtally_reconcile::reconcile(&lake, &backing.logs(), None, options, watch).await
}

/// Does a run, or asks the process that owns the data directory to do it.
async fn correct(config: &Config, asked: Asked, watch: &(dyn Fn(u64, u64) + Send + Sync)) -> Result<ReconcileReport> {
    let settings = &config.run;
    let folder = settings.store.data_dir.folder();
    let data_dir = match DataDir::own(folder) {
        Err(error) if error.kind() == ErrorKind::Fenced => return control::ask(folder, asked, watch).await,
        owned => owned?,
    };
    let backing = Backing::for_owner(&settings.store.data_dir, settings.epoch.fsync)?;
    let Stores { logs, lake, log_is_empty } = backing.open().await?;
    let key = match settings.identity_key {
        Some(key) => key,
        None => data_dir.identity_key(SystemRandomness.next_u128().to_be_bytes(), log_is_empty)?,
    };
    lake.add_columns().await?;
    let lake = Arc::new(lake);
    let parts = CorrectionParts {
        logs: logs.clone(),
        lake: lake.clone(),
        readers: None,
        fingerprints: Fingerprints { config: settings.fingerprint(), key: key.fingerprint() },
        random: Arc::new(|| SystemRandomness.next_u128()),
        now_ms: Arc::new(|| SystemClock.wall_ms()),
    };
    let mut corrections = Corrections::claim(parts).await?;
    match asked {
        Asked::Reconcile(options) => {
            adtally_reconcile::reconcile(&lake, &logs, Some(&mut corrections), &options, watch).await
        }
        Asked::Revert(run) => adtally_reconcile::revert(&lake, &logs, &mut corrections, run, "command").await,
    }
}

fn as_json(report: &ReconcileReport) -> String {
    let time = |minute: Minute| rfc3339(minute.start_ms());
    let findings: serde_json::Map<String, serde_json::Value> = report
        .findings
        .iter()
        .map(|(cause, found)| (cause.to_string(), json!({ "rows": found.rows, "clicks": found.clicks })))
        .collect();
    json!({
        "run": report.run,
        "minutes": report.minutes,
        "from": report.span.map(|(from, _)| time(from)),
        "to": report.span.map(|(_, to)| time(to)),
        "corrections": findings,
        "damaged": report.damaged,
        "damaged_hours": report.damaged_hours,
        "expired": report.expired,
        "not_final_from": report.not_final.as_ref().map(|(from, _)| time(*from)),
        "not_final_because": report.not_final.as_ref().map(|(_, reason)| reason),
    })
    .to_string()
}

fn as_text(report: &ReconcileReport, dry_run: bool) -> String {
    let time = |minute: Minute| rfc3339(minute.start_ms());
    let mut lines = Vec::new();
    match report.span {
        None if report.has_findings() || report.damaged_hours > 0 => {}
        None => lines.push("no minute to recount".to_owned()),
        Some((from, to)) => {
            lines.push(format!("{} minutes recounted, from {} to {}", thousands(report.minutes), time(from), time(to)))
        }
    }
    for (cause, found) in &report.findings {
        let clicks = thousands(found.clicks.unsigned_abs());
        let sign = if found.clicks < 0 { "-" } else { "+" };
        let rows = if found.rows == 1 { "row" } else { "rows" };
        lines.push(format!("{cause}: {} {rows}, {sign}{clicks} clicks", thousands(found.rows)));
    }
    if report.span.is_some() && !report.has_findings() {
        lines.push("nothing to correct".to_owned());
    }
    if let Some(run) = report.run {
        lines.push(format!("run {run}: `adtally reconcile revert {run}` undoes its corrections"));
    }
    lines.extend(report.unsettled(DAMAGED_SHOWN_MAX));
    if let Some((from, reason)) = &report.not_final {
        lines.push(format!("minutes from {} on are not final yet: {reason}", time(*from)));
    }
    if dry_run && report.has_findings() {
        lines.push("nothing was changed: run it again without --dry-run".to_owned());
    }
    lines.into_iter().map(|line| line + "\n").collect()
}
