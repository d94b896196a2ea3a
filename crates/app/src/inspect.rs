//! `adtally inspect`: a first look at a file that nobody has described yet.
//!
//! - **Receives** the first lines of a file ([`read_sample`]) and, after decoding, what the decoder made of them.
//! - **Emits** a [`Guess`] of format, field names and unit of time; and an [`Inspection`]: the verdicts on the lines, the
//!   reasons, and the configuration that reads the file.
//! - **Promises** that nothing is written; a guess is only ever a proposal, which the verdicts then confirm or not.

mod guess;
mod report;
mod sample;

#[cfg(test)]
mod tests;

pub use guess::{FieldGuess, Guess, guess};
pub use report::{Inspection, ReasonCount};

use std::io::{self, Read};

/// Lines that are looked at.
pub const SAMPLE_LINES: usize = 1_000;

/// Bytes that are looked at, where lines are so long that fewer fit.
pub const SAMPLE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Bytes read at a time.
const READ_BYTES: usize = 64 * 1024;

/// Reads the first [`SAMPLE_LINES`] lines, whole ones, but no more than [`SAMPLE_BYTES_MAX`] bytes. The last line may lack
/// its newline where the text ends with it. Of a compressed file that is cut or broken, it is what comes before that.
///
/// # Errors
/// Those of reading, where it fails before there is a line.
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
        // A cut line would be taken for a broken one.
        Some(end) if !ended || lines >= SAMPLE_LINES => sample.truncate(end),
        _ => {}
    }
    Ok(sample)
}
