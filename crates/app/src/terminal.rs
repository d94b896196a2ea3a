//! Output for people: colours only on a terminal that supports them, numbers with separators, progress bars. If the log
//! format is JSON, all of stderr is JSON, one object per line, without bars and colours.

use adtally_engine::clock::{Clock, SystemClock};
use adtally_model::time::rfc3339;
use adtally_model::{Error, Result};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use std::borrow::Cow;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether stderr gets JSON. It is global like stderr, since a panic on any thread needs it.
static JSON: AtomicBool = AtomicBool::new(false);

/// Columns of the narrowest usual terminal, without the last one: a character there would begin a new row on some.
const COLUMNS: usize = 79;

/// Selects whether everything on stderr is JSON.
pub(crate) fn use_json(json: bool) {
    JSON.store(json, Ordering::Relaxed);
}

/// Whether everything on stderr is JSON.
pub(crate) fn is_json() -> bool {
    JSON.load(Ordering::Relaxed)
}

/// Whether stderr is a terminal that supports colours (see no-color.org).
pub fn colours() -> bool {
    moves_cursor() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Whether stderr is a terminal on which a line can be overwritten.
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

/// Overwrites the current line on stderr if it is a terminal.
pub fn say_over(message: &str) {
    if moves_cursor() {
        tell(&format!("\r\x1b[K{}", printable(message)));
    }
}

/// Shows lines in the place of the `shown` lines above the cursor, if stderr is a terminal; each is cut where the narrowest
/// usual terminal ends, so that it takes one row. Otherwise, it prints them as one line. Returns how many lines the next call
/// can replace.
pub fn say_in_place(lines: &[String], shown: usize) -> usize {
    if !moves_cursor() {
        say(&lines.join(" | "));
        return 0;
    }
    tell(&in_place(lines, shown));
    lines.len()
}

/// The text that replaces the last `shown` lines on a terminal.
fn in_place(lines: &[String], shown: usize) -> String {
    let mut text = if shown > 0 { format!("\x1b[{shown}A\r\x1b[J") } else { String::new() };
    for line in lines {
        text.extend(on_one_line(line).chars().take(COLUMNS));
        text.push('\n');
    }
    text
}

/// Prints a message in the format of log lines.
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

/// Escapes everything in a multi-line text that moves a cursor, changes colours, or reorders characters.
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, |char| char != '\n' && char != '\t')
}

/// The same on one line, for a name or a payload within a message.
pub fn on_one_line(text: &str) -> Cow<'_, str> {
    escaped(text, |_| true)
}

/// Escapes the control characters for which `when` is true.
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

/// Errors are ignored: if stderr has no reader, the work continues and ends as usual.
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

/// Writes to stdout; if the reader went away (`| head`), the output ends quietly.
///
/// # Errors
/// External when stdout cannot be written for another reason.
pub fn print(text: &str) -> Result<()> {
    print_on(text.as_bytes()).map(|_| ())
}

/// Writes to stdout and returns whether it still has a reader.
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

/// The error of a command whose answer cannot be written.
pub(crate) fn stdout_failed(error: std::io::Error) -> Error {
    Error::external("stdout cannot be written").because(error)
}

/// The unit of a progress bar.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Bytes of files.
    Bytes,
    /// Lines.
    Lines,
    /// Clicks.
    Clicks,
    /// Minutes of event time.
    Minutes,
}

/// A progress bar with rate and ETA; invisible unless stderr is a terminal.
pub fn progress_bar(total: u64, unit: Unit) -> ProgressBar {
    let target = if moves_cursor() { ProgressDrawTarget::stderr_with_hz(5) } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(Some(total), target);
    let template = match unit {
        Unit::Bytes => "{bar:30} {percent:>3} %  {bytes} of {total_bytes}  {bytes_per_sec}  {eta} left  {msg}",
        Unit::Lines => "{bar:30} {percent:>3} %  {human_pos} of {human_len} lines  {per_sec}  {eta} left",
        Unit::Clicks => "{bar:30} {percent:>3} %  {human_pos} of {human_len} clicks  {per_sec}  {eta} left",
        Unit::Minutes => "{bar:30} {percent:>3} %  {human_pos} of {human_len} minutes  {eta} left",
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
    fn lines_in_place_take_one_row_each() {
        let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        assert_eq!(in_place(&lines(&["a", "b"]), 0), "a\nb\n");
        assert_eq!(in_place(&lines(&["c\x1b[2J\nd"]), 2), "\x1b[2A\r\x1b[Jc\\u{1b}[2J\\nd\n");
        assert_eq!(in_place(&["ä".repeat(COLUMNS + 1)], 0), "ä".repeat(COLUMNS) + "\n");
    }

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
