//! What closes a bounded run on stderr: the sum line, and the first rejected line of each reason.

use crate::run::first_rejections::FirstRejection;
use crate::terminal;
use adtally_model::Ledger;
use adtally_source::line_number;
use std::path::Path;

/// Prints it.
pub(crate) fn say(ledger: &Ledger, rejections: &[FirstRejection], warnings: &[String]) {
    terminal::say(&terminal::sum_line(ledger));
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
}
