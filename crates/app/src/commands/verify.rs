//! `adtally verify`: checks that the stored data is complete and consistent.

use super::settings::StoreSettings;
use super::{existing, runtime};
use crate::exit::Exit;
use crate::terminal;
use adtally_model::{Error, Result};
use clap::Args;
use serde_json::json;

/// Check the stored data: checksums, the chain of records, sums, and that lake, epoch log and raw clicks agree.
#[derive(Debug, Args)]
#[command(after_help = "Works while `run` is writing. Exits with 3 if something is damaged or differs.")]
pub struct VerifyArgs {
    /// Where the data is.
    #[command(flatten)]
    pub store: StoreSettings,
    /// Print one JSON object: whether the data is sound, which checks passed, and what is wrong.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
///
/// # Errors
/// External when the stores cannot be read; damage is reported, not returned as an error.
pub fn verify(args: &VerifyArgs) -> Result<Exit> {
    let config = args.store.load()?;
    existing(&config.run.store.data_dir)?;
    let runtime = runtime()?;
    // On a thread of the runtime, whose stack is large enough for planning SQL.
    let checked = runtime
        .block_on(runtime.spawn(async move {
            adtally_reconcile::verify(&config.run.store.data_dir, config.run.identity_key).await
        }));
    let findings = checked.map_err(|e| Error::internal("the checks stopped unexpectedly").because(e))??;
    let sound = findings.wrong.is_empty();
    if args.json {
        let report = json!({ "sound": sound, "checked": findings.checked, "wrong": findings.wrong, "left_off": findings.left_off });
        terminal::print(&format!("{report}\n"))?;
    } else {
        let mut text = String::new();
        for line in &findings.checked {
            text.push_str(&format!("ok     {line}\n"));
        }
        for line in &findings.wrong {
            text.push_str(&format!("WRONG  {line}\n"));
        }
        if findings.left_off > 0 {
            text.push_str(&format!("WRONG  and {} more\n", findings.left_off));
        }
        text.push_str(if sound { "everything agrees\n" } else { "the data is damaged or disagrees\n" });
        terminal::print_text(&text)?;
    }
    Ok(if sound { Exit::Success } else { Exit::Damaged })
}
