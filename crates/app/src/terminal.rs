//! What is printed for people: colours only on a terminal that wants them, numbers with separators, progress bars. Where
//! the log is JSON, everything on stderr is: an object a line, and neither bars nor colours.

use adtally_engine::clock::{Clock, SystemClock};
use adtally_model::time::rfc3339;
use adtally_model::{Error, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use std::borrow::Cow;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether stderr takes JSON. Of the whole process, as stderr is: a panic on any thread must find it.
static JSON: AtomicBool = AtomicBool::new(false);

/// From now on everything on stderr is JSON, or is not.
pub(crate) fn use_json(json: bool) {
    JSON.store(json, Ordering::Relaxed);
}

/// Whether everything on stderr is JSON.
pub(crate) fn is_json() -> bool {
    JSON.load(Ordering::Relaxed)
}

/// Whether stderr is a terminal that takes colours (see no-color.org).
pub fn colours() -> bool {
    moves_cursor() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Whether stderr is a terminal on which a line can be written over.
fn moves_cursor() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb") && !is_json()
}

/// Prints an error on stderr.
pub fn error(message: &str) {
    if is_json() {
        return tell_json("ERROR", message);
    }
    let label = if colours() { "\x1b[1;31merror:\x1b[0m" } else { "error:" };
    tell(&format!("{label} {}\n", printable(message)));
}

/// Prints a line for people on stderr.
pub fn say(message: &str) {
    if is_json() {
        return tell_json("INFO", message);
    }
    tell(&format!("{}\n", printable(message)));
}

/// Writes over the line for people on stderr at which the cursor stands, where stderr is a terminal.
pub fn say_over(message: &str) {
    if moves_cursor() {
        tell(&format!("\r\x1b[K{}", printable(message)));
    }
}

/// As log lines are written.
fn tell_json(level: &str, message: &str) {
    let message = message.trim();
    if !message.is_empty() {
        let timestamp = rfc3339(SystemClock.wall_ms());
        let fields = json!({ "message": message });
        tell(&format!(
            "{}\n",
            json!({ "timestamp": timestamp, "level": level, "fields": fields, "target": "adtally" })
        ));
    }
}

/// A text of several lines with nothing in it that moves a cursor, changes colours, or turns the order of characters.
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, |char| char != '\n' && char != '\t')
}

/// The same on one line: what a name or a payload may be among other words.
pub fn on_one_line(text: &str) -> Cow<'_, str> {
    escaped(text, |_| true)
}

/// Escapes those control characters for which `when` holds.
fn escaped(text: &str, when: impl Fn(char) -> bool) -> Cow<'_, str> {
    // Directional formatting characters make one name look like another.
    let controls = |char: char| char.is_control() || matches!(char, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !text.contains(|char| controls(char) && when(char)) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for char in text.chars() {
        if controls(char) && when(char) {
            shown.extend(char.escape_default());
        } else {
            shown.push(char);
        }
    }
    Cow::Owned(shown)
}

/// Where nobody reads stderr any more, the work goes on and ends as it would have.
fn tell(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Writes text for people to stdout, as [`print()`] does.
///
/// # Errors
/// As [`print()`].
pub fn print_text(text: &str) -> Result<()> {
    print(&printable(text))
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

/// What a progress bar counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Bytes of files.
    Bytes,
    /// Lines.
    Lines,
    /// Clicks.
    Clicks,
}

/// A progress bar with rate and ETA; invisible unless stderr is a terminal.
pub fn progress_bar(total: u64, unit: Unit) -> ProgressBar {
    let target = if moves_cursor() { ProgressDrawTarget::stderr_with_hz(5) } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(total), target);
    let template = match unit {
        Unit::Bytes => "{bar:30} {percent:>3} %  {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left  {msg}",
        Unit::Lines => "{bar:30} {percent:>3} %  {human_pos} of {human_len} lines  {per_sec}  {eta} left",
        Unit::Clicks => "{bar:30} {percent:>3} %  {human_pos} of {human_len} clicks  {per_sec}  {eta} left",
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
    fn what_moves_a_cursor_is_escaped() {
        let check = |text: &str, several: &str, one: &str| {
            assert_eq!((printable(text).as_ref(), on_one_line(text).as_ref()), (several, one));
        };
        check("ordinary: ä 漢 \\", "ordinary: ä 漢 \\", "ordinary: ä 漢 \\");
        check("a\x1b[2Jb\x07\x7f\r", "a\\u{1b}[2Jb\\u{7}\\u{7f}\\r", "a\\u{1b}[2Jb\\u{7}\\u{7f}\\r");
        check("c1 \u{9b}2J", "c1 \\u{9b}2J", "c1 \\u{9b}2J");
        check("two\n\tlines", "two\n\tlines", "two\\n\\tlines");
        check("gpj.\u{202e}exe", "gpj.\\u{202e}exe", "gpj.\\u{202e}exe");
    }
}
