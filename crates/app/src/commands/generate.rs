//! `adtally generate`: a deterministic click log and its exact counts.

use crate::exit::Exit;
use crate::terminal::{self, Unit};
use adtally_generate::GenerateArgs;
use adtally_model::ledger::thousands;
use adtally_model::{Error, Result};
use indicatif::ProgressDrawTarget;
use std::io::IsTerminal;

/// Runs the command.
///
/// # Errors
/// A user error for settings out of range, external when a file cannot be written.
pub fn generate(args: &GenerateArgs) -> Result<Exit> {
    let unit = if args.lines.is_some() { Unit::Lines } else { Unit::Clicks };
    let bar = terminal::progress_bar(args.amount().number(), unit);
    // A progress bar would mix with lines on the same terminal.
    if args.output_file().is_none() && std::io::stdout().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let mut stdout = std::io::stdout().lock();
    let generated = adtally_generate::run(args, &mut stdout, &mut |progress| bar.set_position(progress));
    bar.finish_and_clear();
    drop(stdout);
    let generated = generated?;
    if args.json {
        let summary = adtally_generate::Summary::new(args, &generated);
        let summary = serde_json::to_string(&summary)
            .map_err(|e| Error::internal("the summary cannot be written as JSON").because(e))?;
        terminal::print(&format!("{summary}\n"))?;
    } else if let Some(report) = generated.report {
        let (read, counted) = (thousands(report.read), thousands(report.counted));
        terminal::say(&format!("{read} lines generated, {counted} to be counted"));
    }
    Ok(Exit::Success)
}
