//! `adtally inspect`: how a file would be read, without writing anything.

use super::config::environment;
use super::literally;
use crate::clock::{Clock, SystemClock};
use crate::config;
use crate::exit::Exit;
use crate::inspect::{Guess, Inspection, guess, read_sample};
use crate::terminal;
use crate::wiring;
use adtally_model::{DecodedBatch, Error, IdentityKey, Result};
use adtally_source::foreign::{self, FOREIGN_BYTES, Foreign};
use adtally_source::{Block, Decoder, Discovery, LocalFiles, ReadOutcome, Tailer, open_text};
use clap::Args;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// Show how a file would be read, without writing anything.
#[derive(Debug, Args)]
#[command(
    after_help = "Reads the first 1,000 lines, guesses the format, the names of the fields and the unit of time, \
shows what becomes of each line, and prints the configuration that reads the file:\n\n  \
adtally inspect clicks.csv > adtally.toml && adtally run --config adtally.toml"
)]
pub struct InspectArgs {
    /// The file; gzip and zstd are read as they are.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Print everything as JSON.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command: the verdicts go to stderr and the configuration to stdout, or all of it as JSON to stdout.
///
/// # Errors
/// A user error when there is no such file or nothing in it, external when it cannot be read.
pub fn inspect(args: &InspectArgs) -> Result<Exit> {
    let path = args.file.display().to_string();
    let cannot_read = |e: std::io::Error| match e.kind() {
        ErrorKind::NotFound => Error::user(format!("{path} is not there: name one log file")),
        _ => Error::external(format!("{path} cannot be read")).because(e),
    };
    if !std::fs::metadata(&args.file).map_err(cannot_read)?.is_file() {
        return Err(Error::user(format!("{path} is not a file: name one log file")));
    }
    let is_no_log = |foreign: Foreign| Error::user(format!("{path} is no log that can be read: it is {foreign}"));
    let (first, compressed) = first_bytes(&args.file).map_err(cannot_read)?;
    if let Some(foreign) = foreign::of_file(&first) {
        return Err(is_no_log(foreign));
    }
    let sample = open_text(&args.file).and_then(|mut text| read_sample(&mut text)).map_err(cannot_read)?;
    if sample.is_empty() {
        return Err(Error::user(format!("{path} is empty: there is nothing to inspect")));
    }
    let of_text = if compressed { foreign::of_text(&sample) } else { None };
    if let Some(foreign) = of_text.or_else(|| foreign::of_lines(&sample)) {
        return Err(is_no_log(foreign));
    }
    let guess = guess(&sample);
    let batch = decode(&path, &sample, &guess)?;
    let (_, config) = config::load(None, &environment()?, &guess.settings())?;
    let now = SystemClock.wall_ms();
    let inspection = Inspection::new(&path, &guess, &batch, now, config.time.max_future_skew_ms);
    if args.json {
        let report = serde_json::to_string(&inspection)
            .map_err(|e| Error::internal("the inspection cannot be written as JSON").because(e))?;
        terminal::print(&format!("{report}\n"))?;
    } else {
        terminal::say(&format!("{inspection}\nThe configuration that reads it:\n"));
        terminal::print(&inspection.configuration)?;
    }
    Ok(Exit::Success)
}

/// The first bytes of a file as they are on disk, and whether they are compressed in a way that is read.
fn first_bytes(path: &Path) -> std::io::Result<(Vec<u8>, bool)> {
    let mut first = Vec::new();
    File::open(path)?.take(FOREIGN_BYTES as u64).read_to_end(&mut first)?;
    let compressed = foreign::is_read_compressed(&first);
    Ok((first, compressed))
}

/// What the real reader and the real decoder make of the sample.
fn decode(path: &str, sample: &[u8], guess: &Guess) -> Result<DecodedBatch> {
    let (_, config) = config::load(None, &environment()?, &guess.settings())?;
    let mut settings = wiring::tail_settings(&config.input, true, 0);
    settings.block_bytes = sample.len().max(settings.block_bytes);
    let mut tailer = Tailer::new(Box::new(LocalFiles), settings, &[literally(path)], Vec::new(), 1)?;
    let found = tailer.discover(0)?;
    let Some(input) = found.iter().find_map(|discovery| match discovery {
        Discovery::Found { facts, .. } => Some(facts.input),
        _ => None,
    }) else {
        let why = tailer.warnings().join("; ");
        return Err(Error::external(format!("{path} cannot be inspected: {why}")));
    };
    let block = loop {
        match tailer.read(input, 0)? {
            ReadOutcome::Block(block) => break block,
            ReadOutcome::Busy | ReadOutcome::Waits => {}
            ReadOutcome::Unreadable(error) => return Err(error),
            ReadOutcome::AtEnd | ReadOutcome::Ended => {
                return Err(Error::user(format!("{path} holds no whole line")));
            }
        }
    };
    let decoder = Decoder::new(wiring::decode_settings(&config.input), IdentityKey::new([0; 16]))?;
    Ok(decoder.decode(within(block, sample.len())))
}

/// A block cut to the sample, at the end of a line.
fn within(mut block: Block, bytes: usize) -> Block {
    let room = bytes.saturating_sub(block.from as usize);
    if block.text.len() > room && !block.overlong {
        block.text.truncate(room);
        block.to = block.from + room as u64;
    }
    block
}
