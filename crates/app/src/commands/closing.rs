//! What closes a bounded run on stderr: the sum line, and the first rejected line of each reason.

use crate::exit::Exit;
use crate::run::Summary;
use crate::run::first_rejections::FirstRejection;
use crate::terminal;
use adtally_source::line_number;
use std::path::Path;

/// Prints it, and says how the command ends; `interrupted` is what a run that was stopped leaves behind.
pub(crate) fn say(summary: &Summary, rejections: &[FirstRejection], warnings: &[String], interrupted: &str) -> Exit {
    let sum = terminal::sum_line(&summary.ledger);
    if summary.lines_of_run == summary.ledger.read {
        terminal::say(&sum);
    } else {
        let lines = terminal::thousands(summary.lines_of_run);
        terminal::say(&format!("{sum}: of all runs together, {lines} lines in this one"));
    }
    if !rejections.is_empty() {
        terminal::say("first rejected line of each reason:");
    }
    for rejection in rejections {
        let place = match line_number(Path::new(&rejection.input), rejection.position) {
            Some(line) => format!("{}:{line}", rejection.input),
            None => format!("{} at byte {}", rejection.input, rejection.position),
        };
        terminal::say(&format!("  {place}: {}: {}", rejection.verdict, rejection.reason));
    }
    for warning in warnings {
        terminal::say(&format!("note: {warning}"));
    }
    for unread in &summary.unread {
        terminal::error(&format!("{unread}: what is left of it was not read; the next run tries again"));
    }
    match summary {
        Summary { interrupted: true, .. } => {
            terminal::say(interrupted);
            Exit::Interrupted
        }
        Summary { unread, .. } if !unread.is_empty() => Exit::Failure,
        _ => Exit::Success,
    }
}
