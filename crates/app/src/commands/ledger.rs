//! `adtally ledger`: the verdicts of all lines.

use super::settings::StoreSettings;
use super::{existing, runtime};
use crate::exit::Exit;
use crate::terminal;
use adtally_engine::clock::SystemClock;
use adtally_engine::report::Report;
use adtally_engine::status::{CorrectionLedger, Status};
use adtally_model::ledger::thousands;
use adtally_model::reconcile::Corrected;
use adtally_model::time::rfc3339;
use adtally_model::{Error, Result};
use adtally_store::backing::Backing;
use clap::Args;
use std::sync::Arc;

/// Print how many lines got which verdict, for each input and in total.
#[derive(Debug, Args)]
pub struct LedgerArgs {
    /// Where the data is. Watermarks depend on the setting out_of_orderness.
    #[command(flatten)]
    pub store: StoreSettings,
    /// Print one JSON object: the answer of `GET /ledger` with the same configuration and environment.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
///
/// # Errors
/// A user error for a wrong configuration, corrupt when the epoch log is damaged.
pub fn ledger(args: &LedgerArgs) -> Result<Exit> {
    let config = args.store.load()?;
    existing(&config.run.store.data_dir)?;
    let runtime = runtime()?;
    let logs = Backing::for_reader(&config.run.store.data_dir)?.logs();
    let mut states = Vec::new();
    for partition in runtime.block_on(logs.partitions())? {
        states.extend(runtime.block_on(logs.log(partition).fold())?);
    }
    if states.is_empty() {
        return Err(Error::user("nothing was committed in this data directory yet: start `adtally run` first"));
    }
    let report = Report::recovers(config.run.time, Arc::new(SystemClock));
    states.iter().for_each(|state| report.recovered(state));
    if args.json {
        terminal::print(&format!("{}\n", adtally_serve::ledger_json(report.ledger())?))?;
        return Ok(Exit::Success);
    }
    let mut text = format!("{}\n", report.total());
    if let Some(corrections) = report.ledger().corrections {
        text.push_str(&of_corrections(&corrections));
    }
    for state in &states {
        for row in state.inputs.values() {
            let mut name = terminal::on_one_line(&row.name).to_string();
            if row.origin != row.name {
                name.push_str(&format!(" ({} in tables)", terminal::on_one_line(&row.origin)));
            }
            text.push_str(&format!("  {name}: {}\n", row.ledger));
        }
        if state.progress.gone.read > 0 {
            text.push_str(&format!("  (gone): {}\n", state.progress.gone));
        }
    }
    terminal::print_text(&text)?;
    Ok(Exit::Success)
}

/// The corrections in a line for people.
fn of_corrections(corrections: &CorrectionLedger) -> String {
    let sum = |of: fn(&Corrected) -> u64| thousands(corrections.by_cause.values().map(of).sum());
    let to = corrections
        .reconciled_to_ms
        .map_or("nothing".to_owned(), |ms| format!("all kept minutes before {}", rfc3339(ms)));
    let mut text = format!(
        "corrections: {} clicks recovered, {} reversed, in {} runs; recounted: {to}\n",
        sum(|of| of.recovered),
        sum(|of| of.reversed),
        thousands(corrections.runs)
    );
    if corrections.intake.read > 0 {
        text.push_str(&format!("replayed and backfilled: {}\n", corrections.intake));
    }
    text
}
