//! `adtally inspect`: proposes a configuration for an unknown file.
//!
//! - **Receives** the first lines of a file ([`read_sample`]) and, later, the result of decoding them.
//! - **Emits** a [`Guess`] of format, field names and unit of time; and an [`Inspection`]: the verdicts on the lines,
//!   the reasons, and the configuration that reads the file.
//! - **Promises** that nothing is written; a guess is only a proposal, which the verdicts confirm or refute.

mod guess;
mod report;
mod sample;

#[cfg(test)]
mod tests;

pub use guess::{FieldGuess, Guess, guess};
pub use report::{Inspection, ReasonCount};

use std::io::{self, Read};

/// Maximum number of lines to inspect.
pub const SAMPLE_LINES: usize = 1_000;

/// Maximum bytes to inspect, if lines are long.
pub const SAMPLE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Bytes read at a time.
const READ_BYTES: usize = 64 * 1024;

/// Reads the first [`SAMPLE_LINES`] complete lines, but at most [`SAMPLE_BYTES_MAX`] bytes. The last line of the text
/// may lack its newline. Of a truncated or damaged compressed file, returns what comes before the damage.
///
/// # Errors
/// Read errors before the first line.
pub fn read_sample(text: &mut dyn Read) -> io::Result<Vec<u8>> {
    let mut sample = Vec::new();
    let (mut lines, mut ended) = (0, false);
    while !ended && lines < SAMPLE_LINES && sample.len() < SAMPLE_BYTES_MAX {
        let from = sample.len();
        match text.take(READ_BYTES as u64).read_to_end(&mut sample) {
            Ok(len) => ended = len < READ_BYTES,
            Err(_) if sample.contains(&b'\n') => break,
            Err(error) => return Err(error),
        }
        lines += sample[from..].iter().filter(|&&byte| byte == b'\n').count();
    }
    let newlines = sample.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    let whole = newlines.take(SAMPLE_LINES).last();
    match whole {
        // A cut line would look like a malformed one.
        Some(end) if !ended || lines >= SAMPLE_LINES => sample.truncate(end),
        _ => {}
    }
    Ok(sample)
}
