//! The sources of a command's settings: all commands use the same flags, file and environment.

use crate::config::{Config, ENVIRONMENT_PREFIX, FlagSetting, RawConfig, Value};
use crate::terminal;
use adtally_model::{Error, Result};
use clap::Args;
use std::path::{Path, PathBuf};

/// The settings of `run` that have flags, with the configuration file.
#[derive(Clone, Debug, Default, Args)]
pub struct RunSettings {
    /// Files, folders or globs to read; they replace those of the configuration.
    #[arg(value_name = "INPUT")]
    pub inputs: Vec<String>,
    /// Where the data is, and the configuration file.
    #[command(flatten)]
    pub store: StoreSettings,
    /// Address and port of the HTTP server [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
}

/// What every command on a data directory takes, before or after its own subcommand.
#[derive(Clone, Debug, Default, Args)]
pub struct StoreSettings {
    /// The configuration file (- means standard input); `adtally config show` prints every setting.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The data directory, where `run` stores everything [default: adtally-data].
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// What every command on a topic takes.
#[cfg(feature = "scale-out")]
#[derive(Clone, Debug, Default, Args)]
pub struct KafkaFlags {
    /// Addresses of some brokers, separated by commas.
    #[arg(long, value_name = "HOST:PORT")]
    pub brokers: Option<String>,
    /// The topic.
    #[arg(long, value_name = "TOPIC")]
    pub topic: Option<String>,
    /// A setting of librdkafka, such as security.protocol=SSL; may be repeated.
    #[arg(long = "kafka-option", value_name = "NAME=VALUE")]
    pub options: Vec<String>,
}

#[cfg(feature = "scale-out")]
impl KafkaFlags {
    /// The flags that were given.
    pub(crate) fn flags(&self) -> Vec<FlagSetting> {
        let texts = [("--brokers", "kafka.brokers", &self.brokers), ("--topic", "kafka.topic", &self.topic)];
        let texts = texts
            .into_iter()
            .filter_map(|(flag, key, text)| Some(FlagSetting { flag, key, value: Value::Text(text.clone()?) }));
        let options = (!self.options.is_empty()).then(|| FlagSetting {
            flag: "--kafka-option",
            key: "kafka.options",
            value: Value::Texts(self.options.clone()),
        });
        texts.chain(options).collect()
    }
}

impl RunSettings {
    /// All settings: defaults, file, environment and these flags, with their origins.
    ///
    /// # Errors
    /// A user error that lists every mistake.
    pub(crate) fn load(&self) -> Result<(RawConfig, Config)> {
        let mut flags: Vec<FlagSetting> = input_paths(&self.inputs).into_iter().collect();
        flags.extend(self.store.flags());
        if let Some(listen) = &self.listen {
            flags.push(FlagSetting { flag: "--listen", key: "serve.listen", value: Value::Text(listen.clone()) });
        }
        load(self.store.config.as_deref(), &flags)
    }
}

impl StoreSettings {
    /// All settings: defaults, file, environment and these flags.
    ///
    /// # Errors
    /// A user error that lists every mistake.
    pub(crate) fn load(&self) -> Result<Config> {
        Ok(load(self.config.as_deref(), &self.flags())?.1)
    }

    fn flags(&self) -> Vec<FlagSetting> {
        let data_dir = self.data_dir.iter().map(|data_dir| {
            let value = Value::Text(data_dir.display().to_string());
            FlagSetting { flag: "--data-dir", key: "store.data_dir", value }
        });
        data_dir.collect()
    }
}

/// Merges file, environment and flags over the defaults. From here on, stderr has the format `log.format`, even if
/// other settings have mistakes.
///
/// # Errors
/// A user error that lists every mistake.
pub(crate) fn load(file: Option<&Path>, flags: &[FlagSetting]) -> Result<(RawConfig, Config)> {
    let raw = RawConfig::read(file, &environment()?, flags)?;
    if let Some(format) = raw.get("log.format") {
        terminal::use_json(format.value == Value::Text("json".into()));
    }
    let config = Config::validate(&raw)?;
    Ok((raw, config))
}

/// Paths on the command line; they replace those of the configuration.
pub(crate) fn input_paths(paths: &[String]) -> Option<FlagSetting> {
    let value = Value::Texts(paths.to_vec());
    (!paths.is_empty()).then_some(FlagSetting { flag: "INPUT", key: "input.paths", value })
}

/// The environment variables of Adtally.
fn environment() -> Result<Vec<(String, String)>> {
    let ours =
        std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(ENVIRONMENT_PREFIX.as_bytes()));
    let text = ours.map(|(name, value)| match (name.into_string(), value.into_string()) {
        (Ok(name), Ok(value)) => Ok((name, value)),
        (Ok(name), Err(value)) => Err(Error::user(format!("environment {name}: {value:?} is not UTF-8"))),
        (Err(name), _) => Err(Error::user(format!("environment {name:?}: the name is not UTF-8"))),
    });
    text.collect()
}
