//! Configuration: defaults < file < environment < flags, validated into plain values.
//!
//! [`RawConfig`] is what was written, value by value with its origin; [`Config`] is what it means. Nothing here reads the
//! environment or a global: the caller passes everything in. A setting exists if and only if `config/default.toml` has it.

mod layers;
mod quantity;
mod show;
mod validate;

#[cfg(test)]
mod tests;

pub use layers::{
    DEFAULT_TOML, ENVIRONMENT_PREFIX, FlagSetting, Origin, RawConfig, Setting, Sources, Value, variable_of,
};
pub use quantity::{format_size, format_span_ms, parse_size, parse_span_ms};
pub use show::Shown;

use adtally_model::{Error, Result};
use adtally_source::NULL_VALUES;
use siphasher::sip::SipHasher24;
use std::fmt;
use std::hash::Hasher;
use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A configuration file is refused beyond this; the defaults with all their comments have 6 KiB.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// All settings, validated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// What is read and how.
    pub input: InputConfig,
    /// Event time: lateness, idleness, deduplication.
    pub time: TimeConfig,
    /// When work is committed.
    pub epoch: EpochConfig,
    /// Where results live.
    pub store: StoreConfig,
    /// The HTTP server.
    pub serve: ServeConfig,
    /// How clicks are told apart.
    pub identity: IdentityConfig,
    /// Log output.
    pub log: LogConfig,
}

/// `[input]`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InputConfig {
    /// Files, folders and globs.
    pub paths: Vec<String>,
    /// How lines are written.
    pub format: InputFormat,
    /// Between CSV columns.
    pub csv_delimiter: u8,
    /// Unit of timestamps that are numbers.
    pub timestamp_unit: TimestampUnit,
    /// Texts that make an optional field absent.
    pub null_values: Vec<String>,
    /// Bytes of the longest line.
    pub max_line: usize,
    /// Bytes read at a time, at least `max_line`.
    pub block: usize,
    /// How long a renamed file may still grow.
    pub rotate_wait: Duration,
    /// How often folders are looked through.
    pub discovery_interval: Duration,
    /// Names of the fields in the log.
    pub fields: FieldNames,
}

/// `[input.fields]`: JSON keys or CSV columns, all different, none empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FieldNames {
    /// Event time.
    pub click_timestamp: String,
    /// The ad.
    pub ad_id: String,
    /// Who clicked.
    pub user_id: String,
    /// From which address.
    pub ip: String,
    /// From which country.
    pub country: String,
    /// The client's unique id.
    pub click_id: String,
}

/// How lines are written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum InputFormat {
    /// By the first bytes of each file.
    Auto,
    /// A JSON object a line.
    Ndjson,
    /// Separated values with a header.
    Csv,
}

/// The unit of timestamps that are numbers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum TimestampUnit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Milliseconds,
    /// Microseconds.
    Microseconds,
    /// Nanoseconds.
    Nanoseconds,
}

/// `[time]`: all in milliseconds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TimeConfig {
    /// How far ahead of the clock a click may be.
    pub max_future_skew_ms: i64,
    /// How far ahead of the largest event time a single line is believed.
    pub max_jump_ms: i64,
    /// How far lines of an input may be out of order.
    pub out_of_orderness_ms: i64,
    /// When an input at its end stops holding the watermark.
    pub idle_timeout_ms: i64,
    /// How long a closed minute may be revised.
    pub allowed_lateness_ms: i64,
    /// When the clock makes minutes final.
    pub idle_finality_ms: i64,
    /// How far back copies are recognised, at least `allowed_lateness_ms`.
    pub dedup_horizon_ms: i64,
    /// Identities held at a time.
    pub dedup_capacity: usize,
    /// How far an input with a backlog may run ahead of the slowest.
    pub alignment_ms: i64,
}

/// `[epoch]`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EpochConfig {
    /// Longest time between commits.
    pub interval: Duration,
    /// Most lines in one.
    pub max_lines: u64,
    /// Most bytes of text in one.
    pub max_bytes: u64,
    /// Whether commits wait for the disk.
    pub fsync: bool,
}

/// `[store]`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoreConfig {
    /// The folder that holds everything.
    pub data_dir: PathBuf,
    /// Minutes of counts in memory.
    pub hot_minutes: u32,
    /// How often the lake is brought up to date.
    pub lake_interval: Duration,
    /// How often the lake is kept in order.
    pub upkeep_interval: Duration,
    /// How long raw clicks are kept.
    pub keep_clicks: Duration,
    /// How long counts by minute are kept.
    pub keep_minutes: Duration,
    /// How long counts by hour are kept.
    pub keep_hours: Duration,
    /// How long dead letters and the ledger are kept.
    pub keep_dead_letters: Duration,
}

/// `[serve]`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServeConfig {
    /// Address and port.
    pub listen: SocketAddr,
    /// Connections at a time.
    pub max_connections: usize,
    /// Longest time for one answer.
    pub request_timeout: Duration,
}

/// `[identity]`
#[derive(Clone, PartialEq, Eq)]
pub struct IdentityConfig {
    /// The secret key; none means that it is made in the data directory.
    pub key: Option<[u8; 16]>,
}

impl fmt::Debug for IdentityConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.key.is_some() { "IdentityConfig(secret)" } else { "IdentityConfig(none)" })
    }
}

/// `[log]`
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogConfig {
    /// How log lines are written.
    pub format: LogFormat,
    /// Least level shown, as `tracing` names it.
    pub level: &'static str,
}

/// How log lines are written.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Reads the file, lays everything over the defaults and validates it. The raw form is for `config show`.
///
/// # Errors
/// A user error that lists every mistake with its place and what is allowed there.
pub fn load(
    file: Option<&Path>,
    environment: &[(String, String)],
    flags: &[FlagSetting],
) -> Result<(RawConfig, Config)> {
    let raw = RawConfig::read(file, environment, flags)?;
    let config = Config::validate(&raw)?;
    Ok((raw, config))
}

impl RawConfig {
    /// Reads the file, `-` being standard input, and lays everything over the defaults.
    ///
    /// # Errors
    /// A user error that lists every mistake with its place, external when the file cannot be read.
    pub fn read(file: Option<&Path>, environment: &[(String, String)], flags: &[FlagSetting]) -> Result<RawConfig> {
        let text = file.map(read_file).transpose()?;
        let name = file.map(|file| file.display().to_string()).unwrap_or_default();
        let file = text.as_deref().map(|text| (name.as_str(), text));
        RawConfig::merge(&Sources { file, environment, flags })
    }
}

fn read_file(path: &Path) -> Result<String> {
    let failed = |error: std::io::Error| {
        let message = format!("cannot read the configuration file {}", path.display());
        let mistaken = matches!(error.kind(), ErrorKind::NotFound | ErrorKind::IsADirectory | ErrorKind::InvalidData);
        if mistaken { Error::user(message) } else { Error::external(message) }.because(error)
    };
    let mut text = String::new();
    let mut bytes: Box<dyn Read> = match path.to_str() {
        Some("-") => Box::new(std::io::stdin()),
        _ => Box::new(std::fs::File::open(path).map_err(failed)?),
    };
    bytes.by_ref().take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(Error::user(format!("{}: a configuration file has at most 1 MiB", path.display())));
    }
    Ok(text)
}

impl Config {
    /// A number that changes whenever a setting changes on which a line's verdict depends: how it is read and how
    /// time is judged. Where and how often results are written is not part of it.
    pub fn fingerprint(&self) -> u64 {
        let InputConfig { format, csv_delimiter, timestamp_unit, max_line, fields, .. } = &self.input;
        let time = &self.time;
        // Debug texts of our own plain types: lengths are unambiguous because texts are quoted and escaped.
        let mut canonical = format!(
            "adtally settings 1 {format:?} {csv_delimiter} {timestamp_unit:?} {max_line} {:?} {:?}",
            [&fields.click_timestamp, &fields.ad_id, &fields.user_id, &fields.ip, &fields.country, &fields.click_id],
            [
                time.max_future_skew_ms,
                time.max_jump_ms,
                time.out_of_orderness_ms,
                time.idle_timeout_ms,
                time.allowed_lateness_ms,
                time.idle_finality_ms,
                time.dedup_horizon_ms,
                time.dedup_capacity as i64,
                time.alignment_ms,
            ],
        );
        // Settings that came later are left out while they have their defaults: the number of those who never set them
        // stays as it was.
        if self.input.null_values != NULL_VALUES {
            canonical += &format!(" {:?}", self.input.null_values);
        }
        let mut hasher = SipHasher24::new();
        hasher.write(canonical.as_bytes());
        hasher.finish()
    }
}
