//! The toolbox: every task of this repository is a subcommand of `cargo xtask`.
//!
//! Cargo is always called with `--workspace`: another selection of packages would select other features of the large
//! dependencies and build them a second time.

mod bench;
mod faults;
mod packages;
mod python;
mod services;
mod soak;
mod tidy;

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const HELP: &str = "\
The toolbox of Adtally.

Usage: cargo xtask <COMMAND>

Commands:
  test    Run all tests: unit, integration, documentation. Creates a Python environment on first use
  ci      Run all checks that a change must pass: fmt, tidy, clippy, doc, test, a soak of one minute and a quick bench
  soak    Run over a log that grows at 1 billion clicks a day and is rotated, kill the process again and again, and
          check that the counts are exact. --minutes N (25), --long (75), --kills N per minute (1), --rate N per second
          (11574), --ads N (2000000), --seed S (1), --verify-each (after every kill)
          --chaos  Instead: three workers and two agents on Kafka and S3 are killed and frozen, the broker is restarted, and
          S3 fails, while the clicks come; at the end every count is right. --minutes N (10), --clicks N (5000000)
  sim     Simulate deployments from seeds, with crashes, power losses, failing disks and fenced writers. Stops at the
          first broken guarantee. --seeds N (1000), --from S (0), --minutes M (instead of N), --story (prints events)
  bench   Measure whole runs against other systems, slopes, questions, recounts and live traffic; writes benches/README.md.
          --clicks N (10000000), --rounds N (3), --only stages,whole,slopes,questions,reconcile,live (some of them),
          --quick (small and not optimised; only prints), --beside PROGRAM (compares with another adtally)
          scale-out  Instead: measure agents and workers beside a broker on this machine; prints a section for
          benches/README.md. --only a,b (some of: a one worker, b beside a bare consumer, c more partitions and workers,
          d lag after a kill, e 1,000 logs, f many committers), --clicks N (10000000), --rounds N (3), --quick
  services up|down|jars  Start or stop Apache Kafka and an S3 server on this machine, for trying out; jars only gets the
          jars of Apache Kafka, and prints their folder
  fmt     Format the code; --check only lists what is not formatted
  clippy  Run the lints; warnings are errors
  doc     Build the documentation; warnings are errors
  faults  Update the table of faults and their tests in docs/faults.md; tidy checks it
  tidy    Check the house rules: dependencies between rooms, names, headers, links, sizes
  deny    Check dependencies for known vulnerabilities, licences and sources with cargo-deny. Not part of ci: needs the
          network
";

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["test"] => test(),
        ["ci"] => ci(),
        ["fmt"] => fmt(false),
        ["fmt", "--check"] => fmt(true),
        ["clippy"] => clippy(),
        ["doc"] => doc(),
        ["faults"] => tidy::write_faults(&root()),
        ["tidy"] => tidy(),
        ["deny"] => deny(),
        ["soak", options @ ..] => soak(options),
        ["sim", options @ ..] => sim(options),
        ["bench", "scale-out", options @ ..] => bench_scale_out(options),
        ["bench", options @ ..] => bench(options),
        ["services", "up"] => services::up(&root()),
        ["services", "down"] => services::down(),
        ["services", "jars"] => services::print_kafka_jars(&root()),
        [] | ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            Ok(())
        }
        _ => {
            eprint!("cargo xtask: unknown command: {}\n\n{HELP}", words.join(" "));
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("cargo xtask {}: {message}", words.join(" "));
            ExitCode::FAILURE
        }
    }
}

type Outcome = Result<(), String>;

/// The features that tests and packages have, and the demo has not.
const EVERYTHING: [&str; 2] = ["--features", "scale-out"];

/// Quick checks come first; the tests are run with the command that the README names.
fn ci() -> Outcome {
    fmt(true)?;
    tidy()?;
    clippy()?;
    doc()?;
    test()?;
    soak(&["--minutes", "1", "--kills", "6", "--verify-each"])?;
    bench(&["--quick"])
}

fn soak(options: &[&str]) -> Outcome {
    if soak::chaos::is_asked(options) {
        return soak::chaos::run(options, &root());
    }
    soak::run(options, &built("adtally")?)
}

fn sim(options: &[&str]) -> Outcome {
    match Command::new(built("adtally-sim")?).args(options).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("the simulation found something or was called wrongly: {status}")),
        Err(error) => Err(format!("the simulation cannot be started: {error}")),
    }
}

fn bench(options: &[&str]) -> Outcome {
    if bench::is_quick(options) {
        return bench::run(options, &built("adtally")?, &root());
    }
    bench::run(options, &built_for_release("adtally")?, &root())
}

fn bench_scale_out(options: &[&str]) -> Outcome {
    use crate::bench::scale_out::{Plan, Programs};
    let plan = Plan::read(options)?;
    packages::provide()?;
    let kafka_jars = services::kafka_jars(&root())?;
    let profile: &[&str] = if plan.is_quick() { &[] } else { &["--release"] };
    let adtally = if plan.is_quick() { built("adtally")? } else { built_for_release("adtally")? };
    // `--example` leaves the programs out, so it is built apart, with the same features.
    let example = ["build", "--workspace", EVERYTHING[0], EVERYTHING[1], "--example", "bare_consumer"];
    cargo(&[&example[..], profile].concat(), &[])?;
    let bare_consumer = adtally.with_file_name("examples").join("bare_consumer");
    let programs = Programs { adtally: &adtally, bare_consumer: &bare_consumer, kafka_jars: &kafka_jars };
    bench::scale_out::run(&plan, programs, &root())
}

/// Builds the workspace's programs, optimised, and returns the path of one of them.
fn built_for_release(program: &str) -> Result<PathBuf, String> {
    cargo(&["build", "--workspace", "--release", EVERYTHING[0], EVERYTHING[1]], &[])?;
    let unoptimised = env::current_exe().map_err(|error| format!("the path of this program is unknown: {error}"))?;
    let target = unoptimised.parent().and_then(Path::parent).ok_or("no folder for programs")?;
    Ok(target.join("release").join(program))
}

/// Builds the workspace's programs and returns the path of one of them, in the folder of this program.
fn built(program: &str) -> Result<PathBuf, String> {
    // With the tests: without them, the large libraries have other features, and would be built once more.
    cargo(&["build", "--workspace", "--bins", "--tests", EVERYTHING[0], EVERYTHING[1]], &[])?;
    let this = env::current_exe().map_err(|error| format!("the path of this program is unknown: {error}"))?;
    Ok(this.with_file_name(program))
}

fn test() -> Outcome {
    packages::provide()?;
    let python = python::interpreter(&root())?.display().to_string();
    let services = services::provide(&root())?;
    let (kafka, s3) = (services.kafka_jars.display().to_string(), services.s3_server.display().to_string());
    let spark = services::spark_jars(&root())?.display().to_string();
    let provided = [
        (python::VARIABLE, &*python),
        (services::KAFKA_JARS, &*kafka),
        (services::S3_SERVER, &*s3),
        (services::SPARK_JARS, &*spark),
    ];
    cargo(&["test", "--workspace", EVERYTHING[0], EVERYTHING[1]], &provided)
}

fn fmt(check: bool) -> Outcome {
    let more: &[&str] = if check { &["--check"] } else { &[] };
    cargo(&[&["fmt", "--all"], more].concat(), &[])?;
    // The fuzz targets are a separate workspace, since they need another compiler: formatted here, built by hand.
    cargo(&[&["fmt", "--manifest-path", "crates/source/fuzz/Cargo.toml"], more].concat(), &[])?;
    cargo(&[&["fmt", "--manifest-path", "tests/s3/Cargo.toml"], more].concat(), &[])
}

fn clippy() -> Outcome {
    let words = ["clippy", "--workspace", "--all-targets", EVERYTHING[0], EVERYTHING[1], "--", "--deny", "warnings"];
    cargo(&words, &[])?;
    // The demo is built without Kafka.
    cargo(&["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"], &[])
}

fn doc() -> Outcome {
    let words = ["doc", "--workspace", "--no-deps", EVERYTHING[0], EVERYTHING[1]];
    cargo(&words, &[("RUSTDOCFLAGS", "--deny warnings")])
}

fn deny() -> Outcome {
    let found = Command::new("cargo-deny").arg("--version").output().is_ok_and(|output| output.status.success());
    if !found {
        return Err("cargo-deny is not installed: cargo install --locked cargo-deny".to_owned());
    }
    cargo(&["deny", "check"], &[])
}

fn tidy() -> Outcome {
    let problems = tidy::check(&root())?;
    for problem in &problems {
        eprintln!("{problem}");
    }
    match problems.len() {
        0 => Ok(()),
        count => Err(format!("{count} house rules are broken, see above")),
    }
}

/// Runs the same cargo that runs this, at the root, and prints the command.
fn cargo(arguments: &[&str], variables: &[(&str, &str)]) -> Outcome {
    match cargo_command(arguments).envs(variables.iter().copied()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("cargo {} failed: {status}", arguments.join(" "))),
        Err(error) => Err(format!("cannot run cargo: {error}")),
    }
}

/// A command for the same cargo that runs this, at the root; prints the command.
fn cargo_command(arguments: &[&str]) -> Command {
    let program = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    eprintln!("$ cargo {}", arguments.join(" "));
    let mut command = Command::new(program);
    // Variables that cargo sets for this process would look like a change to build scripts that watch them (such as
    // ring's), and half of the dependencies would be built again.
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&*name);
        }
    }
    command.args(arguments).current_dir(root());
    command
}

/// The root of the repository, the parent folder of this package.
fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_owned()
}
