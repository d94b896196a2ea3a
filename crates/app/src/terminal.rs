//! What is printed for people: colours only on a terminal that wants them, numbers with separators, progress bars.

use adtally_model::{Error, Ledger, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write};

/// Whether stderr is a terminal that takes colours (see no-color.org).
pub fn colours() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Prints an error on stderr.
pub fn error(message: &str) {
    let label = if colours() { "\x1b[1;31merror:\x1b[0m" } else { "error:" };
    say(&format!("{label} {message}"));
}

/// Prints a line for people on stderr.
pub fn say(message: &str) {
    tell(&format!("{message}\n"));
}

/// Writes over the line for people on stderr at which the cursor stands, where stderr is a terminal.
pub fn say_over(message: &str) {
    if std::io::stderr().is_terminal() {
        tell(&format!("\r\x1b[K{message}"));
    }
}

/// Where nobody reads stderr any more, the work goes on and ends as it would have.
fn tell(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Writes to stdout; a reader that went away (`| head`) ends the output quietly.
///
/// # Errors
/// External when stdout cannot be written for another reason.
pub fn print(text: &str) -> Result<()> {
    print_on(text.as_bytes()).map(|_| ())
}

/// Writes to stdout and says whether anybody still reads it.
///
/// # Errors
/// As [`print()`].
pub fn print_on(bytes: &[u8]) -> Result<bool> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(false),
        Err(e) => Err(stdout_failed(e)),
    }
}

/// What a command ends with whose answer cannot be written.
pub(crate) fn stdout_failed(error: std::io::Error) -> Error {
    Error::external("stdout cannot be written").because(error)
}

/// `1,234,567`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The sum line: `1,000,000 lines = 989,012 counted + 10,001 duplicate + …`.
pub fn sum_line(ledger: &Ledger) -> String {
    let parts = [
        (ledger.counted, "counted"),
        (ledger.duplicate, "duplicate"),
        (ledger.late, "late"),
        (ledger.future, "future"),
        (ledger.malformed, "malformed"),
        (ledger.invalid, "invalid"),
    ];
    let parts: Vec<String> = parts.iter().map(|(lines, verdict)| format!("{} {verdict}", thousands(*lines))).collect();
    let mut line = format!("{} lines = {}", thousands(ledger.read), parts.join(" + "));
    if ledger.gap_bytes > 0 {
        line.push_str(&format!("; {} bytes could never be read", thousands(ledger.gap_bytes)));
    }
    line
}

/// What a progress bar counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Bytes of files.
    Bytes,
    /// Lines.
    Lines,
}

/// A progress bar with rate and ETA; invisible unless stderr is a terminal.
pub fn progress_bar(total: u64, unit: Unit) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(5));
    let template = match unit {
        Unit::Bytes => "{bar:30} {percent:>3} %  {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left  {msg}",
        Unit::Lines => "{bar:30} {percent:>3} %  {human_pos} of {human_len} lines  {per_sec}  {eta} left",
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_separators() {
        let check = |number, expected: &str| assert_eq!(thousands(number), expected);
        check(0, "0");
        check(999, "999");
        check(1_000, "1,000");
        check(1_234_567, "1,234,567");
    }
}
