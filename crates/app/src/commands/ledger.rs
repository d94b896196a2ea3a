//! `adtally ledger`: where every line went.

use super::{existing, runtime};
use crate::cli::DataDirArg;
use crate::commands::config::environment;
use crate::config;
use crate::exit::Exit;
use crate::run::report::Report;
use crate::terminal;
use crate::wiring;
use adtally_model::{Error, Result};
use adtally_serve::Status;
use adtally_store::backing::read_log;
use clap::Args;
use std::path::PathBuf;

/// Print where every line went.
#[derive(Debug, Args)]
pub struct LedgerArgs {
    /// Where the data is.
    #[command(flatten)]
    pub data_dir: DataDirArg,
    /// The configuration file of the `run`: watermarks follow its out_of_orderness.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// As JSON, the same as `GET /ledger` under the same configuration and environment.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
///
/// # Errors
/// A user error for a wrong configuration, corrupt when the epoch log is damaged.
pub fn ledger(args: &LedgerArgs) -> Result<Exit> {
    existing(&args.data_dir.data_dir)?;
    let (_, config) = config::load(args.config.as_deref(), &environment()?, &[])?;
    let runtime = runtime()?;
    let state = runtime.block_on(read_log(&args.data_dir.data_dir)?.fold())?;
    let state = state.ok_or_else(|| Error::user("nothing was committed in this data directory yet"))?;
    let report = Report::new(wiring::time_settings(&config.time), &state);
    if args.json {
        terminal::print(&format!("{}\n", adtally_serve::ledger_json(report.ledger())?))?;
        return Ok(Exit::Success);
    }
    let mut text = format!("{}\n", terminal::sum_line(&state.ledger));
    for row in state.inputs.values() {
        text.push_str(&format!("  {}: {}\n", row.name, terminal::sum_line(&row.ledger)));
    }
    if state.gone.read > 0 {
        text.push_str(&format!("  (gone): {}\n", terminal::sum_line(&state.gone)));
    }
    terminal::print(&text)?;
    Ok(Exit::Success)
}
