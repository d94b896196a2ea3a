//! Configuration: defaults < file < environment < flags, validated into plain values.
//!
//! [`RawConfig`] has the written values with their origins; [`Config`] has the validated values. Nothing here reads the
//! environment or a global: the caller passes everything in. A setting exists if and only if `config/default.toml` has
//! it, and one field of a room's settings struct takes it and defines the allowed values.

mod deserialize;
mod layers;
mod show;
mod validate;

#[cfg(test)]
mod tests;

pub use layers::{
    DEFAULT_TOML, ENVIRONMENT_PREFIX, FlagSetting, Origin, RawConfig, Setting, Sources, Value, variable_of,
};
pub use show::Shown;

use adtally_agent::AgentSettings;
use adtally_engine::Settings;
use adtally_model::settings::address;
use adtally_model::{Error, Result};
use adtally_serve::Limits;
use adtally_source::KafkaSettings;
use serde::Deserialize;
use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::path::Path;

/// Maximum size of a configuration file; the defaults with all their comments have 6 KiB.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// All settings, validated.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct Config {
    /// The settings of inputs, time, commits, stores and identity: `[input]`, `[time]`, `[epoch]`, `[store]` and
    /// `[identity]`.
    pub run: Settings,
    /// Records of agents.
    pub agent: AgentSettings,
    /// Kafka, for workers and agents.
    pub kafka: KafkaSettings,
    /// Address and port of the HTTP server.
    #[serde(rename = "serve.listen", deserialize_with = "address")]
    pub listen: SocketAddr,
    /// Bounds of the HTTP server. The number of connections is the desired one.
    #[serde(rename = "serve")]
    pub limits: Limits,
    /// Log output.
    pub log: LogConfig,
}

/// `[log]`
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
pub struct LogConfig {
    /// The format of log lines.
    pub format: LogFormat,
    /// The lowest level shown.
    pub level: LogLevel,
}

/// The format of log lines.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Levels of log lines, from the fewest lines to the most.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, strum::Display)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum LogLevel {
    /// The work stops or data is lost.
    Error,
    /// An operator should look at this.
    Warn,
    /// Events that happen now and then.
    Info,
    /// Details for developers.
    Debug,
    /// Everything.
    Trace,
}

/// Reads the file, merges all sources over the defaults and validates the result. The raw form is for `config show`.
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
    /// Reads the file (`-` is standard input) and merges all sources over the defaults.
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
