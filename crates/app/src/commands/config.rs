//! `adtally config`: check or show the configuration.

use crate::config::{self, ENVIRONMENT_PREFIX};
use crate::exit::Exit;
use crate::terminal;
use adtally_model::{Error, Result};
use clap::{Args, Subcommand};
use serde_json::json;
use std::path::PathBuf;

/// Check or show the configuration, without starting anything.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Say whether it is valid, and if not, what is wrong where.
    Check {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// As JSON: whether it is valid, and the mistakes.
        #[arg(long)]
        json: bool,
    },
    /// Print every setting with its value and where that comes from; secrets are masked.
    Show {
        /// The configuration file.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Runs the command.
///
/// # Errors
/// A user error that lists every mistake.
pub fn config(args: &ConfigArgs) -> Result<Exit> {
    match &args.action {
        Action::Check { config, json } => {
            let checked = environment().and_then(|environment| config::load(config.as_deref(), &environment, &[]));
            if *json {
                let mistakes = checked.as_ref().err().map(Error::report);
                terminal::print(&format!("{}\n", json!({ "valid": checked.is_ok(), "mistakes": mistakes })))?;
                return Ok(checked.map_or_else(|error| Exit::of(&error), |_| Exit::Success));
            }
            checked?;
            terminal::print("the configuration is valid\n")?;
        }
        Action::Show { config, json } => {
            let (raw, _) = config::load(config.as_deref(), &environment()?, &[])?;
            if *json {
                let rows = serde_json::to_string_pretty(&raw.shown())
                    .map_err(|e| Error::internal("the settings cannot be written as JSON").because(e))?;
                terminal::print(&format!("{rows}\n"))?;
            } else {
                terminal::print(&raw.shown_as_toml())?;
            }
        }
    }
    Ok(Exit::Success)
}

/// What the process's environment has for us.
///
/// # Errors
/// A user error that names a variable whose value is not UTF-8.
pub(crate) fn environment() -> Result<Vec<(String, String)>> {
    let ours =
        std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(ENVIRONMENT_PREFIX.as_bytes()));
    let text = ours.map(|(name, value)| match (name.into_string(), value.into_string()) {
        (Ok(name), Ok(value)) => Ok((name, value)),
        (Ok(name), Err(value)) => Err(Error::user(format!("environment {name}: {value:?} is not UTF-8"))),
        (Err(name), _) => Err(Error::user(format!("environment {name:?}: the name is not UTF-8"))),
    });
    text.collect()
}
