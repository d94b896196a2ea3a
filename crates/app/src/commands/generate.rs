//! `adtally generate`: a deterministic click log and its exact counts.

use crate::exit::Exit;
use crate::generate::{self, GenerateArgs};
use crate::terminal::{self, Unit};
use adtally_model::{Error, Result};
use indicatif::ProgressDrawTarget;
use std::io::IsTerminal;

/// Runs the command.
///
/// # Errors
/// A user error for settings out of range, external when a file cannot be written.
pub fn generate(args: &GenerateArgs) -> Result<Exit> {
    let bar = terminal::progress_bar(args.clicks, Unit::Lines);
    // Lines that scroll by need no bar between them.
    if args.output.is_none() && std::io::stdout().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let mut stdout = std::io::stdout().lock();
    let report = generate::run(args, &mut stdout, &mut |lines| bar.set_position(lines));
    bar.finish_and_clear();
    drop(stdout);
    let report = report?;
    if args.json {
        let summary = generate::Summary::new(args, report.as_ref());
        let summary = serde_json::to_string(&summary)
            .map_err(|e| Error::internal("the summary cannot be written as JSON").because(e))?;
        terminal::print(&format!("{summary}\n"))?;
    } else if let Some(report) = report {
        let (read, counted) = (terminal::thousands(report.read), terminal::thousands(report.counted));
        terminal::say(&format!("{read} lines generated, {counted} to be counted"));
    }
    Ok(Exit::Success)
}
