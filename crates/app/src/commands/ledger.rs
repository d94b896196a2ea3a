//! `adtally ledger`: where every line went.

use super::{existing, runtime};
use crate::cli::DataDirArg;
use crate::exit::Exit;
use crate::run::report::Report;
use crate::run::service::open_stores;
use crate::terminal;
use adtally_model::{Error, Result};
use adtally_pipeline::TimeSettings;
use adtally_serve::Status;
use clap::Args;

/// Print where every line went.
#[derive(Debug, Args)]
pub struct LedgerArgs {
    /// Where the data is.
    #[command(flatten)]
    pub data_dir: DataDirArg,
    /// As JSON, the same as `GET /ledger`.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
///
/// # Errors
/// Corrupt when the epoch log is damaged.
pub fn ledger(args: &LedgerArgs) -> Result<Exit> {
    existing(&args.data_dir.data_dir)?;
    let runtime = runtime()?;
    let state = runtime.block_on(async {
        let stores = open_stores(&args.data_dir.data_dir, true).await?;
        stores.log.fold(|_| ()).await
    })?;
    let state = state.ok_or_else(|| Error::user("nothing was committed in this data directory yet"))?;
    let report = Report::new(TimeSettings::default(), &state, std::sync::Arc::new(crate::clock::SystemClock));
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
