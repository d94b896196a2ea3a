//! `adtally config`: check or show the configuration.

use crate::config;
use crate::exit::Exit;
use crate::terminal;
use adtally_model::{Error, Result};
use clap::{Args, Subcommand};
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
    let environment: Vec<(String, String)> = environment();
    match &args.action {
        Action::Check { config } => {
            config::load(config.as_deref(), &environment, &[])?;
            terminal::print("the configuration is valid\n")?;
        }
        Action::Show { config, json } => {
            let (raw, _) = config::load(config.as_deref(), &environment, &[])?;
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

/// The process's environment, as far as it is text.
pub(crate) fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}
