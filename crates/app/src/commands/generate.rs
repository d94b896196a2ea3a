//! `adtally generate`: a deterministic click log and its exact counts.

use crate::exit::Exit;
use crate::generate::{self, GenerateArgs};
use crate::terminal;
use adtally_model::Result;
use indicatif::{ProgressBar, ProgressDrawTarget};
use std::io::IsTerminal;

/// Runs the command.
///
/// # Errors
/// A user error for settings out of range, external when a file cannot be written.
pub fn generate(args: &GenerateArgs) -> Result<Exit> {
    let bar = ProgressBar::with_draw_target(Some(args.clicks), ProgressDrawTarget::stderr_with_hz(5));
    // Lines that scroll by need no bar between them.
    if args.output.is_none() && std::io::stdout().is_terminal() {
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    let mut stdout = std::io::stdout().lock();
    let report = generate::run(args, &mut stdout, &mut |lines| bar.set_position(lines));
    bar.finish_and_clear();
    if let Some(report) = report? {
        terminal::say(&format!("{} lines generated, {} to be counted", report.read, report.counted));
    }
    Ok(Exit::Success)
}
