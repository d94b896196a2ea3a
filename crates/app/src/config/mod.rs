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

use adtally_engine::Settings;
use adtally_model::{Error, Result};
use adtally_serve::Limits;
use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::path::Path;

/// A configuration file is refused beyond this; the defaults with all their comments have 6 KiB.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// All settings, validated.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// What is read, how time is judged, when work is committed, where results live: `[input]`, `[time]`, `[epoch]`,
    /// `[store]` and `[identity]`.
    pub run: Settings,
    /// Address and port of the HTTP server.
    pub listen: SocketAddr,
    /// Bounds of the HTTP server; of its connections, as many as are wished for.
    pub limits: Limits,
    /// Log output.
    pub log: LogConfig,
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
        return Err(Error::user(format!("{}: a configuration file may have at most 1 MiB", path.display())));
    }
    Ok(text)
}
