//! Prints the end of a bounded run on stderr: the sum line, and the first rejected line for each reason.

use super::spool::Spool;
use crate::exit::Exit;
use crate::terminal;
use adtally_engine::Summary;
use adtally_engine::first_rejections::FirstRejection;
use adtally_model::ledger::thousands;
use adtally_source::line_number;
use std::path::Path;

/// Reports that a bounded run was stopped before its state was recovered, and returns the exit code.
pub(crate) fn before_recovery() -> Exit {
    terminal::say("stopped before the state was recovered; nothing was read");
    Exit::Interrupted
}

/// Prints the summary and returns the exit code; `interrupted` describes the state that a stopped run leaves.
pub(crate) fn say(
    summary: &Summary,
    rejections: &[FirstRejection],
    warnings: &[String],
    interrupted: &str,
    spool: &Spool,
) -> Exit {
    let sum = summary.ledger;
    if summary.lines_of_run == summary.ledger.read {
        terminal::say(&sum.to_string());
    } else {
        let lines = thousands(summary.lines_of_run);
        terminal::say(&format!("{sum}: of all runs together; this run read {lines} lines"));
    }
    if !rejections.is_empty() {
        terminal::say("first rejected line of each reason:");
    }
    for rejection in rejections {
        let place = match line_number(Path::new(&rejection.input), rejection.position) {
            Some(line) => format!("{}:{line}", rejection.input),
            None => format!("{} at byte {}", rejection.input, rejection.position),
        };
        let line = spool.named(&format!("{place}: {}: {}", rejection.verdict, rejection.reason));
        terminal::say(&format!("  {}", terminal::on_one_line(&line)));
    }
    for warning in warnings {
        terminal::say(&format!("note: {}", spool.named(warning)));
    }
    for unread in &summary.unread {
        let unread = spool.named(unread);
        terminal::error(&format!("{unread}: the rest of it was not read; the next run tries again"));
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
