//! `adtally reconcile`: recounts final minutes, recovers late clicks, reverses clicks that were stored twice, and repairs
//! counts.

use super::correct::correct;
use super::settings::StoreSettings;
use super::{control, existing};
use crate::exit::Exit;
use crate::terminal::{self, Unit};
use adtally_engine::reconciler::Asked;
use adtally_model::ledger::thousands;
use adtally_model::time::{parse_rfc3339, rfc3339};
use adtally_model::{Error, Minute, Result};
use adtally_reconcile::{DAMAGED_SHOWN_MAX, ReconcileOptions, ReconcileReport};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

/// Recount the minutes that are final: recover late clicks, reverse clicks that were stored twice, and repair counts.
#[derive(Debug, Args)]
#[command(after_help = "\
Recounts every final minute that was never recounted, and every minute with new late lines:
  A late line is recovered if its click is not stored. So is a future line that was at most 15 minutes ahead of the clock.
  A click that was stored twice is reversed.
  A count that differs from the stored clicks is repaired.
Corrections are signed rows with a cause, and never change rows that exist. Running it again changes nothing.

Exits with 3 if stored clicks are damaged, if lines can no longer be recovered, or if a dry run finds something to correct.")]
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
    /// Recount the minutes in which the Spark job found something, and commit the corrections.
    #[arg(long, value_name = "FINDINGS")]
    pub apply: Option<PathBuf>,
    /// Report what would change, and change nothing.
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

/// The minutes that findings of the Spark job name, a line of JSON each.
fn found_minutes(path: &Path) -> Result<Vec<Minute>> {
    let failed = |error| Error::external(format!("{} cannot be read", path.display())).because(error);
    let mut minutes = BTreeSet::new();
    for (line, number) in BufReader::new(File::open(path).map_err(failed)?).lines().zip(1..) {
        let finding: Value = serde_json::from_str(&line.map_err(failed)?).unwrap_or_default();
        // Damage is found again, and reported, if a minute of its hour is named.
        let at = ["click_timestamp", "span", "event_hour"].iter().find_map(|field| finding[field].as_str());
        let Some(ms) = at.and_then(|at| parse_rfc3339(at.as_bytes())) else {
            return Err(Error::user(format!(
                "{}:{number}: not a finding: an object with `click_timestamp`, `span` or `event_hour`",
                path.display()
            )));
        };
        minutes.insert(Minute::of(ms));
    }
    Ok(minutes.into_iter().collect())
}

/// Runs the command.
///
/// # Errors
/// Fenced while a run owns the data directory, external when the stores fail.
pub fn reconcile(args: &ReconcileArgs) -> Result<Exit> {
    let config = args.store.load()?;
    existing(&config.run.store.data_dir)?;
    let minutes = args.apply.as_deref().map(found_minutes).transpose()?;
    let options = ReconcileOptions { from: args.from, to: args.to, minutes, made_by: "command" };
    let asked = match args.action {
        None => Asked::Reconcile(options),
        Some(ReconcileAction::Revert { .. })
            if args.dry_run || args.from.is_some() || args.to.is_some() || args.apply.is_some() =>
        {
            return Err(Error::user("revert takes no --dry-run, --from, --to or --apply: leave them out"));
        }
        Some(ReconcileAction::Revert { run }) => Asked::Revert(run),
    };
    let dry_run = args.dry_run;
    let report = correct(config, asked, dry_run, Unit::Minutes, |_, _| {})?;
    if args.json {
        terminal::print(&format!("{}\n", as_json(&report)))?;
    } else {
        terminal::print_text(&as_text(&report, dry_run))?;
    }
    Ok(match exit_of(&report) {
        Exit::Success if dry_run && report.has_findings() => Exit::Damaged,
        exit => exit,
    })
}

/// The exit code of a run that has this report.
pub(super) fn exit_of(report: &ReconcileReport) -> Exit {
    if !report.unsettled(0).is_empty() {
        Exit::Damaged
    } else if !report.unread.is_empty() {
        Exit::Failure
    } else {
        Exit::Success
    }
}

pub(super) fn as_json(report: &ReconcileReport) -> String {
    let time = |minute: Minute| rfc3339(minute.start_ms());
    let findings: serde_json::Map<String, Value> = report
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
        "recovered": report.recovered,
        "credits": report.credits,
        "damaged": report.damaged,
        "damaged_hours": report.damaged_hours,
        "expired": report.expired,
        "without_fields": report.without_fields,
        "intake": report.intake,
        "rejected": report.rejected,
        "unread": report.unread,
        "reverted": report.reverted,
        "not_final_from": report.not_final.as_ref().map(|(from, _)| time(*from)),
        "not_final_because": report.not_final.as_ref().map(|(_, reason)| reason),
    })
    .to_string()
}

pub(super) fn as_text(report: &ReconcileReport, dry_run: bool) -> String {
    let time = |minute: Minute| rfc3339(minute.start_ms());
    let mut lines = Vec::new();
    match report.span {
        _ if report.intake.is_some() => {}
        None if report.has_findings() || report.damaged_hours > 0 => {}
        None => lines.push("no minute to recount".to_owned()),
        Some((from, to)) => {
            lines.push(format!("{} minutes recounted, from {} to {}", thousands(report.minutes), time(from), time(to)))
        }
    }
    if let Some((run, reverted)) = report.run.zip(report.reverted) {
        lines.push(format!("run {run} reverted run {reverted}"));
    }
    for (cause, found) in &report.findings {
        let clicks = thousands(found.clicks.unsigned_abs());
        let sign = if found.clicks < 0 { "-" } else { "+" };
        let rows = if found.rows == 1 { "row" } else { "rows" };
        lines.push(format!("{cause}: {} {rows}, {sign}{clicks} clicks", thousands(found.rows)));
    }
    if report.has_findings() {
        lines.push(format!("{} clicks recovered, {} credits", thousands(report.recovered), thousands(report.credits)));
    }
    if report.span.is_some() && !report.has_findings() {
        lines.push("nothing to correct".to_owned());
    }
    if let Some(intake) = &report.intake {
        lines.extend(report.rejected.iter().map(|rejected| format!("rejected: {rejected}")));
        let further = intake.rejected.saturating_sub(report.rejected.len() as u64);
        if further > 0 {
            lines.push(format!("{} more rejected lines", thousands(further)));
        }
        lines.push(intake.to_string());
        if intake.waiting > 0 {
            lines.push(format!(
                "{} lines wait: their minutes are not final, or the stored clicks of their hours are damaged. Run the command \
                 again later",
                thousands(intake.waiting)
            ));
        }
    }
    lines.extend(report.unread.iter().map(|unread| format!("not read: {unread}")));
    if let Some(run) = report.run.filter(|_| report.findings.keys().any(|cause| cause.is_revertible())) {
        let stays =
            if report.findings.keys().all(|cause| cause.is_revertible()) { "" } else { " (repaired counts stay)" };
        lines.push(format!("run {run}: to take its clicks back, use `adtally reconcile revert {run}`{stays}"));
    }
    lines.extend(report.unsettled(DAMAGED_SHOWN_MAX));
    if let Some((from, reason)) = &report.not_final {
        lines.push(format!(
            "minutes from {} on were not recounted, because they are not final yet: {reason}",
            time(*from)
        ));
    }
    if dry_run && report.has_findings() {
        lines.push("nothing was changed: run it again without --dry-run".to_owned());
    }
    lines.into_iter().map(|line| line + "\n").collect()
}
