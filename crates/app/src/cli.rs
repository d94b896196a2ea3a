//! The command line: parses the arguments and runs the command.

use crate::commands;
use crate::config::variable_of;
use crate::exit::{Exit, TABLE};
use crate::limits;
use crate::terminal;
use adtally_model::{Error, Result};
use clap::{CommandFactory, Parser, Subcommand};
use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::UnwindSafe;
use std::process::ExitCode;

/// Counts ad clicks for billing. Reads log files and gives exact counts per minute, ad and country.
///
/// To begin, use `adtally demo` to watch it count live traffic, `adtally count FILE` to count a file, or
/// `adtally inspect FILE` to see how a file would be read.
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
    /// Show Adtally at work: write live traffic to a temporary folder, count it and answer questions.
    Demo(commands::demo::DemoArgs),
    /// Count growing log files, and answer questions over HTTP.
    Run(commands::run::RunArgs),
    /// Count files once, in a temporary data directory, and print the highest counts.
    Count(commands::count::CountArgs),
    /// Show how a file would be read, without writing anything.
    Inspect(commands::inspect::InspectArgs),
    /// Check or show the configuration, without starting anything.
    Config(commands::config::ConfigArgs),
    /// Write a deterministic click log and its exact counts.
    Generate(adtally_generate::GenerateArgs),
    /// Query the Delta tables with SQL. Only reads, and works while `run` is writing.
    Sql(commands::sql::SqlArgs),
    /// Print how many lines got which verdict, for each input and in total.
    Ledger(commands::ledger::LedgerArgs),
    /// Check the stored data: checksums, the chain of records, sums, and that lake, epoch log and raw clicks agree.
    Verify(commands::verify::VerifyArgs),
    /// Recount the minutes that are final, and correct what was counted wrongly or not at all.
    Reconcile(commands::reconcile::ReconcileArgs),
    /// List the lines that were not counted, and decode rejected ones again.
    DeadLetters(commands::dead_letters::DeadLettersArgs),
    /// Bring in files whose minutes are final. Each of their clicks counts once, as a correction.
    Backfill(commands::backfill::BackfillArgs),
    /// Repair stored data that `verify` finds damaged, as far as the remaining data allows.
    Repair(commands::repair::RepairArgs),
    /// End partitions for good, so that a topic can take their place.
    Retire(commands::retire::RetireArgs),
    /// Answer questions from the lake of a deployment.
    Serve(commands::serve::ServeArgs),
    /// Tail log files and produce their lines to a Kafka topic.
    #[cfg(feature = "scale-out")]
    Agent(commands::agent::AgentArgs),
    /// Count the partitions of a Kafka topic that a consumer group assigns to this process.
    #[cfg(feature = "scale-out")]
    Worker(commands::worker::WorkerArgs),
    /// Run a program that ends with the process that started it.
    #[cfg(feature = "scale-out")]
    #[command(hide = true)]
    Tether(commands::demo::tether::TetherArgs),
    /// Bring a Kafka topic into another one with other partitions, each line once.
    #[cfg(feature = "scale-out")]
    Repartition(commands::repartition::RepartitionArgs),
    /// Print completions for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Runs the command given by the process's arguments.
pub fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        terminal::error(&defect(&place, panic.payload_as_str().unwrap_or_default()));
    }));
    // Until the configuration is read, only this variable can select JSON.
    terminal::use_json(std::env::var(variable_of("log.format")).is_ok_and(|format| format == "json"));
    limits::survive_file_size();
    let _armed = adtally_store::fail_points::arm();
    guarded(run).into()
}

fn run() -> Exit {
    let done = arguments().and_then(|words| match Cli::try_parse_from(words) {
        Ok(cli) => dispatch(&cli.command),
        // Help and version are answers and go to stdout; clap distinguishes them from errors.
        Err(error) if error.use_stderr() => {
            if terminal::is_json() {
                let text = error.render().to_string();
                terminal::error(text.strip_prefix("error: ").unwrap_or(&text));
            } else {
                let _ = error.print();
            }
            Ok(Exit::Usage)
        }
        Err(answer) => match answer.print() {
            Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(terminal::stdout_failed(e)),
            _ => Ok(Exit::Success),
        },
    });
    done.unwrap_or_else(|error| {
        terminal::error(&error.report());
        Exit::of(&error)
    })
}

/// A panic is handled as a defect. The panic hook has already printed it on stderr.
fn guarded(run: impl FnOnce() -> Exit + UnwindSafe) -> Exit {
    std::panic::catch_unwind(run).unwrap_or(Exit::Defect)
}

fn defect(place: &str, what: &str) -> String {
    let mut message = format!("a defect of adtally, please report it: panicked at {place}: {what}");
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        message.push_str(&format!("\n{backtrace}"));
    }
    message
}

/// The process's arguments. All must be UTF-8: paths among them are compared with text and written to tables.
fn arguments() -> Result<Vec<String>> {
    let words = std::env::args_os().enumerate().map(|(at, word)| match word.into_string() {
        Ok(word) => Ok(word),
        // The path of the program need not be valid text.
        Err(_) if at == 0 => Ok(env!("CARGO_PKG_NAME").to_owned()),
        Err(word) => Err(Error::user(format!("argument {at}, {word:?}, is not UTF-8: rename the file that it names"))),
    });
    words.collect()
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
        Command::Reconcile(args) => commands::reconcile::reconcile(args),
        Command::DeadLetters(args) => commands::dead_letters::dead_letters(args),
        Command::Backfill(args) => commands::backfill::backfill(args),
        Command::Repair(args) => commands::repair::repair(args),
        Command::Retire(args) => commands::retire::retire(args),
        Command::Serve(args) => commands::serve::serve(args),
        #[cfg(feature = "scale-out")]
        Command::Agent(args) => commands::agent::agent(args),
        #[cfg(feature = "scale-out")]
        Command::Worker(args) => commands::worker::worker(args),
        #[cfg(feature = "scale-out")]
        Command::Tether(args) => commands::demo::tether::tether(args),
        #[cfg(feature = "scale-out")]
        Command::Repartition(args) => commands::repartition::repartition(args),
        Command::Completions { shell } => completions(*shell),
    }
}

/// Prints completions for a shell.
fn completions(shell: clap_complete::Shell) -> Result<Exit> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "adtally", &mut script);
    terminal::print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Success)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_a_defect() {
        assert_eq!(guarded(|| panic!("shown, as it should be")), Exit::Defect);
        assert_eq!(guarded(|| Exit::Usage), Exit::Usage);
        let message = defect("src/cli.rs:1:2", "an invariant does not hold");
        assert!(message.contains("src/cli.rs:1:2: an invariant does not hold"), "{message}");
    }
}
