//! `adtally generate`: click logs made from a seed, and their exact counts.
//!
//! - **Receives** settings.
//! - **Emits** lines: clicks with Zipf-distributed ads, weighted countries, IPv4 and IPv6; and the requested fractions
//!   of duplicates, late clicks, malformed and invalid lines. On request, it also emits the [`Truth`].
//! - **Promises** the same lines for the same settings on every machine, and in every version that keeps the test of
//!   the first thousand lines; any number of lines in constant memory.
//! - **Never** reads a clock or the randomness of the system.

mod broken;
mod click;
mod generator;
mod random;
mod truth;

#[cfg(test)]
mod tests;

pub use click::{Click, Format};
pub use generator::{ADS_MAX, Amount, Generator, Line, OUT_OF_ORDER_MAX_MS, Settings};
pub use random::{Random, Zipf, mix};
pub use truth::{AdClicks, CountryClicks, MinuteClicks, Report, Truth};

use adtally_model::time::parse_rfc3339;
use adtally_model::{Error, Result};
use serde::Serialize;
use std::fs::File;
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Lines per second for a billion clicks a day.
pub const MISSION_RATE: f64 = 11_574.0;

/// The number of ads at the mission's scale.
pub const MISSION_ADS: u64 = 2_000_000;

/// The default first event time, 2026-01-01T00:00:00Z: fixed, so that two runs give the same lines.
pub const DEFAULT_START: &str = "2026-01-01T00:00:00Z";

/// Bytes buffered before a write: large enough that the cost of system calls is negligible.
const WRITE_BYTES: usize = 256 * 1024;

/// Lines between two reports of progress.
const PROGRESS_LINES: u64 = 1 << 14;

/// The arguments of `adtally generate`.
#[derive(Clone, PartialEq, Debug, clap::Args)]
pub struct GenerateArgs {
    /// Number of clicks that must be counted; duplicates, late, malformed and invalid lines are extra
    #[arg(long, value_name = "N", required_unless_present = "lines", value_parser = clap::value_parser!(u64).range(1..))]
    pub clicks: Option<u64>,
    /// Instead of --clicks: total number of lines to write
    #[arg(long, value_name = "N", conflicts_with = "clicks", value_parser = clap::value_parser!(u64).range(1..))]
    pub lines: Option<u64>,
    /// The seed; the same seed gives the same lines on every machine
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// Lines per second of event time; the default is a billion a day. Lines are written as fast as possible
    #[arg(long, value_name = "R", default_value_t = MISSION_RATE)]
    pub rate: f64,
    /// Number of different ads. Clicks follow a Zipf law with exponent 17/16: the first of 2 million ads gets a tenth
    #[arg(long, value_name = "A", default_value_t = MISSION_ADS)]
    pub ads: u64,
    /// Fraction of lines that duplicate a click of the last 7 minutes, as 0.01 or 1%; one in eight has another country
    #[arg(long, value_name = "P", default_value = "0", value_parser = read_fraction)]
    pub duplicates: f64,
    /// Give duplicates the same country as the original
    #[arg(long)]
    pub exact_copies: bool,
    /// Fraction of lines whose minute is already final; none in the first 6 minutes of event time
    #[arg(long, value_name = "P", default_value = "0", value_parser = read_fraction)]
    pub late: f64,
    /// Fraction of lines that cannot be parsed
    #[arg(long, value_name = "P", default_value = "0", value_parser = read_fraction)]
    pub malformed: f64,
    /// Fraction of lines with an invalid field
    #[arg(long, value_name = "P", default_value = "0", value_parser = read_fraction)]
    pub invalid: f64,
    /// Fraction of clicks that have a unique click_id
    #[arg(long, value_name = "P", default_value = "0", value_parser = read_fraction)]
    pub click_ids: f64,
    /// Lines are out of order by up to this many milliseconds of event time
    #[arg(long, value_name = "MS", default_value_t = 2_000)]
    pub out_of_order: i64,
    /// The first event time, RFC 3339 with an offset
    #[arg(long, value_name = "RFC3339", default_value = DEFAULT_START, value_parser = read_start)]
    pub start: i64,
    /// The format of the lines
    #[arg(long, value_enum, default_value_t = Format::Ndjson)]
    pub format: Format,
    /// Write the lines to FILE instead of standard output; - means standard output
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Write the expected results: totals, top 100, minutes and countries as JSON to FILE, and every count as CSV
    /// (minute, ad_id, country, clicks; sorted) next to it with the extension .counts.csv. They are exact if the lines
    /// are read in this order, as one input, with default settings, and after the last event time
    #[arg(long, value_name = "FILE")]
    pub truth: Option<PathBuf>,
    /// Print one JSON object: the number of lines, the files and, with --truth, the number of clicks to be counted
    #[arg(long, requires = "output")]
    pub json: bool,
}

/// The output of `--json`. Field order is that of `GET /ledger`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Summary {
    /// Lines written.
    pub read: u64,
    /// The file of the lines.
    pub output: Option<PathBuf>,
    /// The file of the truth.
    pub truth: Option<PathBuf>,
    /// The file of all counts.
    pub counts: Option<PathBuf>,
    /// Lines to be counted.
    pub counted: Option<u64>,
}

impl Summary {
    /// Summarizes a successful run.
    pub fn new(args: &GenerateArgs, generated: &Generated) -> Summary {
        Summary {
            read: generated.lines,
            output: args.output.clone(),
            truth: args.truth.clone(),
            counts: args.truth.as_deref().map(counts_path),
            counted: generated.report.as_ref().map(|report| report.counted),
        }
    }
}

/// The result of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Generated {
    /// Lines written.
    pub lines: u64,
    /// The expected counts, if the truth was requested.
    pub report: Option<Report>,
}

impl GenerateArgs {
    /// How much to generate.
    pub fn amount(&self) -> Amount {
        self.lines.map_or_else(|| Amount::Clicks(self.clicks.unwrap_or_default()), Amount::Lines)
    }

    /// The file that the lines are written to; `None` for standard output.
    pub fn output_file(&self) -> Option<&Path> {
        self.output.as_deref().filter(|path| *path != Path::new("-"))
    }

    /// Rejects two outputs to the same file, and outputs that are not files.
    fn check_files(&self) -> Result<()> {
        if self.truth.as_deref() == Some(Path::new("-")) {
            return Err(Error::user("--truth writes two files and cannot use standard output: name a file"));
        }
        if self.json && self.output_file().is_none() {
            return Err(Error::user(
                "--json prints to the standard output, where the lines go: name a file in --output",
            ));
        }
        let counts = self.truth.as_deref().map(counts_path);
        let files = [("--output", &self.output), ("--truth", &self.truth), ("the counts of --truth", &counts)];
        let files: Vec<_> = files.iter().filter_map(|(what, path)| Some((what, path.as_deref()?))).collect();
        for (at, (what, path)) in files.iter().enumerate() {
            if let Some((other, _)) = files[..at].iter().find(|(_, other)| place(other) == place(path)) {
                return Err(Error::user(format!("{other} and {what} are the same file {}", path.display())));
            }
        }
        Ok(())
    }

    /// The settings of the generator.
    pub fn settings(&self) -> Settings {
        Settings {
            amount: self.amount(),
            seed: self.seed,
            rate: self.rate,
            ads: self.ads,
            duplicates: self.duplicates,
            exact_copies: self.exact_copies,
            late: self.late,
            malformed: self.malformed,
            invalid: self.invalid,
            click_ids: self.click_ids,
            out_of_order_ms: self.out_of_order,
            start_ms: self.start,
            format: self.format,
        }
    }
}

/// Writes the lines to the file or to `stdout`, and the truth. `progress` receives the amount written now and then. If
/// a reader closes `stdout` early, the run ends quietly.
///
/// # Errors
/// A user error for settings out of range; external if writing fails or `stdout` closes before the truth is known.
pub fn run(args: &GenerateArgs, stdout: &mut dyn Write, progress: &mut dyn FnMut(u64)) -> Result<Generated> {
    let settings = args.settings();
    settings.end_ms()?;
    args.check_files()?;
    let mut generator = Generator::new(settings)?;
    let mut truth = match &args.truth {
        Some(path) => Some((path, open_truth(path)?)),
        None => None,
    };
    let wrote_all = match args.output_file() {
        Some(path) => {
            let mut file = File::create(path).map_err(|error| cannot_write(path, error))?;
            pump(&mut generator, truth.as_mut().map(|(_, truth)| truth), &mut file, progress)
                .map_err(|error| cannot_write(path, error))
                .map(|()| true)?
        }
        None => match pump(&mut generator, truth.as_mut().map(|(_, truth)| truth), stdout, progress) {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::BrokenPipe => false,
            Err(error) => return Err(Error::external("cannot write to the standard output").because(error)),
        },
    };
    let lines = generator.written();
    let Some((path, truth)) = truth else { return Ok(Generated { lines, report: None }) };
    if !wrote_all {
        let path = path.display();
        return Err(Error::external(format!(
            "the reader of the lines closed standard output, so {path} was not written: run the command again"
        )));
    }
    let report = truth.finish().map_err(|error| cannot_write(&counts_path(path), error))?;
    let mut text =
        serde_json::to_string(&report).map_err(|error| Error::internal("the truth as JSON").because(error))?;
    text.push('\n');
    std::fs::write(path, text).map_err(|error| cannot_write(path, error))?;
    Ok(Generated { lines, report: Some(report) })
}

/// The file of the counts of a truth file: next to it, with the extension `.counts.csv`.
pub fn counts_path(truth: &Path) -> PathBuf {
    truth.with_extension("counts.csv")
}

/// A path that can be compared with others, whether the file exists or not.
fn place(path: &Path) -> PathBuf {
    let whole = std::fs::canonicalize(path);
    let in_folder = || {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Some(std::fs::canonicalize(folder).ok()?.join(path.file_name()?))
    };
    whole.ok().or_else(in_folder).unwrap_or_else(|| path.to_path_buf())
}

type FileTruth = Truth<BufWriter<File>>;

fn open_truth(path: &Path) -> Result<FileTruth> {
    let counts = counts_path(path);
    let opened = File::create(&counts).and_then(|file| Truth::new(BufWriter::with_capacity(WRITE_BYTES, file)));
    opened.map_err(|error| cannot_write(&counts, error))
}

fn cannot_write(path: &Path, error: std::io::Error) -> Error {
    Error::external(format!("cannot write {}", path.display())).because(error)
}

fn pump(
    generator: &mut Generator,
    mut truth: Option<&mut FileTruth>,
    out: &mut dyn Write,
    progress: &mut dyn FnMut(u64),
) -> std::io::Result<()> {
    let mut buffer = Vec::with_capacity(WRITE_BYTES + 1024);
    while generator.next_line(&mut buffer) {
        if let Some(truth) = truth.as_deref_mut() {
            truth.observe(generator.last())?;
        }
        if buffer.len() >= WRITE_BYTES {
            out.write_all(&buffer)?;
            buffer.clear();
        }
        if generator.written().is_multiple_of(PROGRESS_LINES) {
            progress(generator.progress());
        }
    }
    out.write_all(&buffer)?;
    out.flush()?;
    progress(generator.progress());
    Ok(())
}

fn read_fraction(text: &str) -> Result<f64, String> {
    let number = match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse().map(|percent: f64| percent / 100.0),
        None => text.parse(),
    };
    match number {
        Ok(fraction) if (0.0..=1.0).contains(&fraction) => Ok(fraction),
        _ => Err("write a fraction as 0.01 or 1%, from 0 to 1".to_owned()),
    }
}

fn read_start(text: &str) -> Result<i64, String> {
    parse_rfc3339(text.as_bytes()).ok_or_else(|| format!("write a time with its offset, such as {DEFAULT_START}"))
}
