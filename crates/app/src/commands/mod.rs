//! One command a file: reads its arguments, calls the rooms, prints.

mod closing;
pub mod config;
pub mod count;
pub mod demo;
mod found;
pub mod generate;
pub mod inspect;
pub mod ledger;
pub mod repair;
pub mod run;
pub mod sql;
mod stopping;
pub mod verify;

use crate::config::{FlagSetting, Value};
use crate::exit::Exit;
use crate::terminal;
use adtally_model::{Error, Result};
use clap::CommandFactory;
use std::path::Path;

/// Stack of the runtime's threads, in bytes: DataFusion plans recursively, and deeply so where it is not optimised.
const THREAD_STACK_BYTES: usize = 8 << 20;

/// How long threads that still compute are waited for at the end of the process.
pub(crate) const SHUTDOWN_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(2);

/// A runtime for the stores' and the server's I/O.
///
/// # Errors
/// External when threads cannot be started.
pub fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .thread_stack_size(THREAD_STACK_BYTES)
        .enable_all()
        .build()
        .map_err(|e| Error::external("the I/O threads cannot be started").because(e))
}

/// Refuses a data directory that is not there, which reading commands must not create.
pub(crate) fn existing(data_dir: &Path) -> Result<()> {
    if ["epochs", "lake"].iter().any(|folder| data_dir.join(folder).is_dir()) {
        Ok(())
    } else {
        Err(Error::user(format!(
            "{} is no data directory of adtally: name the --data-dir of a `run` that has committed something",
            data_dir.display()
        )))
    }
}

/// The pattern that means one path and nothing else: what is special in patterns is escaped.
pub(crate) fn literally(path: &str) -> String {
    path.chars().flat_map(|c| if "*?[]{}".contains(c) { vec!['[', c, ']'] } else { vec![c] }).collect()
}

/// Paths on the command line; they replace those of the configuration.
pub(crate) fn input_paths(paths: &[String]) -> Option<FlagSetting> {
    let value = Value::Texts(paths.to_vec());
    (!paths.is_empty()).then_some(FlagSetting { flag: "INPUT", key: "input.paths", value })
}

/// Prints completions for a shell.
pub(crate) fn completions(shell: clap_complete::Shell) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut crate::cli::Cli::command(), "adtally", &mut script);
    terminal::print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Success)
}
