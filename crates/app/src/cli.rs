//! Arguments, and which command they mean.

use crate::commands;
use crate::exit::{Exit, TABLE};
use crate::terminal;
use adtally_model::Result;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::process::ExitCode;

/// Counts ad clicks for billing: log files in, exact counts per minute, ad and country out.
///
/// Start with `adtally demo` to see it work on live traffic, `adtally count FILE` to count a file, or `adtally inspect
/// FILE` to see how a file of yours would be read.
#[derive(Debug, Parser)]
#[command(name = "adtally", version, after_help = TABLE, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// See it work: generates live traffic into a temporary folder, counts it and serves the answers.
    Demo(commands::demo::DemoArgs),
    /// Count growing log files, and answer questions over HTTP.
    Run(commands::run::RunArgs),
    /// Count files once, in a temporary data directory, and print the top.
    Count(commands::count::CountArgs),
    /// Show how a file would be read, without writing anything.
    Inspect(commands::inspect::InspectArgs),
    /// Check or show the configuration, without starting anything.
    Config(commands::config::ConfigArgs),
    /// Write a deterministic click log, and the counts that are exact for it.
    Generate(crate::generate::GenerateArgs),
    /// Ask the lake in SQL; read only, also while `run` is writing.
    Sql(commands::sql::SqlArgs),
    /// Print where every line went.
    Ledger(commands::ledger::LedgerArgs),
    /// Check the stored data: checksums, chain, conservation, and that lake, log and raw clicks agree.
    Verify(commands::verify::VerifyArgs),
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Where the data directory is.
#[derive(Debug, Args)]
pub struct DataDirArg {
    /// The data directory of a `run`.
    #[arg(long, value_name = "DIR")]
    pub data_dir: PathBuf,
}

/// How rows are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum TableFormat {
    /// For people.
    Table,
    /// Comma-separated values with a header.
    Csv,
    /// A JSON object a line.
    Json,
}

/// Runs the command that the process's arguments name.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers and go to stdout; clap knows which is which.
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Success };
            return match error.print() {
                Ok(()) => exit.into(),
                Err(_) => Exit::Failure.into(),
            };
        }
    };
    match dispatch(&cli.command) {
        Ok(exit) => exit.into(),
        Err(error) => {
            terminal::error(&error.report());
            Exit::of(&error).into()
        }
    }
}

fn dispatch(command: &Command) -> Result<Exit> {
    match command {
        Command::Demo(args) => commands::demo::demo(args),
        Command::Run(args) => commands::run::run(args),
        Command::Count(args) => commands::count::count(args),
        Command::Inspect(args) => commands::inspect::inspect(args),
        Command::Config(args) => commands::config::config(args),
        Command::Generate(args) => commands::generate::generate(args),
        Command::Sql(args) => commands::sql::sql(args),
        Command::Ledger(args) => commands::ledger::ledger(args),
        Command::Verify(args) => commands::verify::verify(args),
        Command::Completions { shell } => commands::completions(*shell),
    }
}
