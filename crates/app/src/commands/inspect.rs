//! `adtally inspect`: how a file would be read, without writing anything.

use super::spool::{Share, Spool, is_stream};
use super::stopping::Stopping;
use super::{runtime, settings};
use crate::config::Value;
use crate::exit::Exit;
use crate::inspect::{Guess, Inspection, guess, read_sample};
use crate::pattern::literally;
use crate::terminal;
use adtally_engine::clock::{Clock, SystemClock};
use adtally_model::{DecodedBatch, Error, IdentityKey, Result};
use adtally_source::foreign::{self, FOREIGN_BYTES, Foreign};
use adtally_source::{
    Block, DecodeSettings, Decoder, Discovery, LocalFiles, ReadOutcome, TailSettings, Tailer, open_text,
};
use clap::Args;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// Show how a file would be read, without writing anything.
#[derive(Debug, Args)]
#[command(after_help = "Reads the first 1,000 lines, guesses the format, the field names and the unit of time, \
shows how many lines would get each verdict, and prints a configuration that reads the file:\n\n  \
adtally inspect clicks.csv > adtally.toml && adtally run --config adtally.toml")]
pub struct InspectArgs {
    /// The file; gzip and zstd files are recognised. - means standard input. Only the beginning of standard input and
    /// pipes is read.
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Print everything as one JSON object, including the configuration.
    #[arg(long)]
    pub json: bool,
}

/// Runs the command: prints the verdicts on stderr and the configuration on stdout, or everything as JSON on stdout.
///
/// # Errors
/// A user error when the file is missing or empty, external when it cannot be read.
pub fn inspect(args: &InspectArgs) -> Result<Exit> {
    let name = args.file.display().to_string();
    if !is_stream(&name) {
        return inspect_file(args, &args.file);
    }
    let runtime = runtime()?;
    let stopping = Stopping::on_signals(&runtime)?;
    let folder = stopping.temporary_folder("adtally-inspect-")?;
    let Some((spool, _)) = Spool::fill(&[name], Share::Sample, folder.path(), &stopping)? else {
        return Ok(Exit::Interrupted);
    };
    inspect_file(args, spool.paths().next().unwrap_or(&args.file))
}

/// Inspects a file, which may be a copy of the given one.
fn inspect_file(args: &InspectArgs, file: &Path) -> Result<Exit> {
    let path = args.file.display().to_string();
    let cannot_read = |e: std::io::Error| match e.kind() {
        ErrorKind::NotFound => Error::user(format!("{path} does not exist: give the path of a log file")),
        _ => Error::external(format!("{path} cannot be read")).because(e),
    };
    if !std::fs::metadata(file).map_err(cannot_read)?.is_file() {
        return Err(Error::user(format!("{path} is not a file: give the path of a log file")));
    }
    let is_no_log = |foreign: Foreign| Error::user(format!("{path} is not a readable log: it is {foreign}"));
    let (first, compressed) = first_bytes(file).map_err(cannot_read)?;
    if let Some(foreign) = foreign::of_file(&first) {
        return Err(is_no_log(foreign));
    }
    let sample = open_text(file).and_then(|mut text| read_sample(&mut text)).map_err(cannot_read)?;
    if sample.is_empty() {
        return Err(Error::user(format!("{path} is empty: there is nothing to inspect")));
    }
    let of_text = if compressed { foreign::of_text(&sample) } else { None };
    if let Some(foreign) = of_text.or_else(|| foreign::of_lines(&sample)) {
        return Err(is_no_log(foreign));
    }
    let guess = guess(&sample);
    let batch = decode(&file.display().to_string(), &sample, &guess)?;
    let (_, config) = settings::load(None, &guess.settings())?;
    let now = SystemClock.wall_ms();
    let mut inspection = Inspection::new(&path, &guess, &batch, now, config.run.time.max_future_skew_ms);
    if is_stream(&path) {
        // A run cannot read a stream, so users of the configuration must name a file.
        let paths = format!("paths = {}\n", Value::Texts(vec![path]).to_toml());
        inspection.configuration = inspection.configuration.replacen(&paths, "paths = []\n", 1);
    }
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

/// The first bytes of a file on disk, and whether they have a supported compression.
fn first_bytes(path: &Path) -> std::io::Result<(Vec<u8>, bool)> {
    let mut first = Vec::new();
    File::open(path)?.take(FOREIGN_BYTES as u64).read_to_end(&mut first)?;
    let compressed = foreign::is_read_compressed(&first);
    Ok((first, compressed))
}

/// Decodes the sample with the real reader and decoder.
fn decode(path: &str, sample: &[u8], guess: &Guess) -> Result<DecodedBatch> {
    let (_, config) = settings::load(None, &guess.settings())?;
    let tail = config.run.source.tail;
    let block_bytes = sample.len().max(tail.block_bytes);
    let settings = TailSettings { bounded: true, block_bytes, ..tail.clone() };
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
                return Err(Error::user(format!("{path} has no complete line")));
            }
        }
    };
    let decoder = Decoder::new(DecodeSettings::clone(&tail.decode), IdentityKey::new([0; 16]))?;
    Ok(decoder.decode(within(block, sample.len())))
}

/// Cuts a block to the sample, at the end of a line.
fn within(mut block: Block, bytes: usize) -> Block {
    let room = bytes.saturating_sub(block.from as usize);
    if block.text.len() > room && !block.overlong {
        block.text.truncate(room);
        block.to = block.from + room as u64;
    }
    block
}
