//! `adtally backfill`: brings in files whose minutes are final.

use super::correct::correct;
use super::existing;
use super::reconcile::{as_json, as_text, exit_of};
use super::settings::StoreSettings;
use crate::exit::Exit;
use crate::terminal::{self, Unit};
use adtally_engine::reconciler::Asked;
use adtally_model::{Error, Result};
use adtally_source::DecodeSettings;
use clap::Args;

/// Bring in files whose minutes are final. Each of their clicks counts once, as a correction.
#[derive(Debug, Args)]
#[command(after_help = "\
A click that is stored already, from whatever file, is a duplicate. Lines of minutes that are not final wait: run it again
later. Files are refused if they have clicks of minutes whose raw clicks are no longer kept, because copies of them could not
be found. Bringing a file in again changes nothing.")]
pub struct BackfillArgs {
    /// Files, folders or globs; gzip and zstd files are recognised.
    #[arg(required = true, value_name = "INPUT")]
    pub inputs: Vec<String>,
    /// Where the data is, and the configuration by which lines are decoded.
    #[command(flatten)]
    pub store: StoreSettings,
    /// Report what would change, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
///
/// # Errors
/// User when there are no such files, or clicks that are too old; external when a file cannot be read or the stores fail.
pub fn backfill(args: &BackfillArgs) -> Result<Exit> {
    let config = args.store.load()?;
    existing(&config.run.store.data_dir)?;
    let absolute = |path: &String| {
        // The process that owns the data directory may run in another folder.
        let absolute = std::path::absolute(path);
        let absolute =
            absolute.map_err(|error| Error::external(format!("{path} has no absolute path")).because(error))?;
        absolute.into_os_string().into_string().map_err(|path| Error::user(format!("{path:?} is not UTF-8")))
    };
    let inputs = args.inputs.iter().map(absolute).collect::<Result<Vec<String>>>()?;
    let decode = Box::new(DecodeSettings::clone(&config.run.source.tail.decode));
    let report = correct(config, Asked::Backfill(inputs, decode), args.dry_run, Unit::Bytes, |_, _| {})?;
    if args.json {
        terminal::print(&format!("{}\n", as_json(&report)))?;
    } else {
        terminal::print_text(&as_text(&report, args.dry_run))?;
    }
    Ok(exit_of(&report))
}
