//! `adtally config`: check or show the configuration.

use super::settings::RunSettings;
use crate::exit::Exit;
use crate::terminal;
use adtally_model::{Error, Result};
use clap::{Args, Subcommand};
use serde_json::json;

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
    /// Check whether the configuration is valid, and print each mistake with its place.
    Check {
        /// As `run` takes them.
        #[command(flatten)]
        settings: RunSettings,
        /// Print one JSON object: whether the configuration is valid, and the mistakes.
        #[arg(long)]
        json: bool,
    },
    /// Print every setting with its value and its origin; secrets are masked.
    Show {
        /// As `run` takes them.
        #[command(flatten)]
        settings: RunSettings,
        /// Print one JSON object: the settings, each with its key, value and origin.
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
        Action::Check { settings, json } => {
            let checked = settings.load();
            if *json {
                let mistakes = checked.as_ref().err().map(Error::report).unwrap_or_default();
                // If there are several mistakes, the first line gives their number.
                let several = usize::from(mistakes.contains("\n  "));
                let mistakes: Vec<&str> = mistakes.lines().skip(several).map(str::trim).collect();
                terminal::print(&format!("{}\n", json!({ "valid": checked.is_ok(), "mistakes": mistakes })))?;
                return Ok(checked.map_or_else(|error| Exit::of(&error), |_| Exit::Success));
            }
            checked?;
            terminal::print("the configuration is valid\n")?;
        }
        Action::Show { settings, json } => {
            let (raw, _) = settings.load()?;
            if *json {
                terminal::print(&format!("{}\n", json!({ "settings": raw.shown() })))?;
            } else {
                terminal::print(&raw.shown_as_toml())?;
            }
        }
    }
    Ok(Exit::Success)
}
