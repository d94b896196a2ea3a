//! Chaos on a scaled-out deployment: the end-to-end test `scale_out::chaos` at full size, with a real Kafka and an S3 server.

use crate::{EVERYTHING, cargo_command, packages, services};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

/// The test.
const TEST: &str = "scale_out::chaos::every_count_is_right_after_chaos";

/// The line of the harness that shows that the test ran and passed. A name that no test has would pass as well.
const PASSED: &str = "test result: ok. 1 passed";

/// Steps of chaos in a minute. Some of them start a process or the broker, and take longer than the others.
const STEPS_PER_MINUTE: u64 = 40;

/// Minutes after which the test gives up waiting for a single command or condition: the last queries and `verify` read all
/// clicks through the S3 server, with programs that are not optimised.
const PATIENCE_MINUTES: &str = "40";

/// The request on the command line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Plan {
    minutes: u64,
    clicks: u64,
}

impl Plan {
    fn read(words: &[&str]) -> Result<Plan, String> {
        let mut plan = Plan { minutes: 10, clicks: 5_000_000 };
        let mut words = words.iter();
        while let Some(&word) = words.next() {
            match word {
                "--chaos" => {}
                "--minutes" => plan.minutes = super::number(word, words.next())?,
                "--clicks" => plan.clicks = super::number(word, words.next())?,
                _ => return Err(format!("unknown option {word} with --chaos; see cargo xtask help")),
            }
        }
        Ok(plan)
    }
}

/// Whether the arguments ask for chaos.
pub(crate) fn is_asked(words: &[&str]) -> bool {
    words.contains(&"--chaos")
}

/// Runs the test with these arguments.
pub(crate) fn run(words: &[&str], root: &Path) -> Result<(), String> {
    let plan = Plan::read(words)?;
    packages::provide()?;
    let services = services::provide(root)?;
    let steps = plan.minutes * STEPS_PER_MINUTE;
    eprintln!("chaos: {} clicks, {steps} steps in about {} min", plan.clicks, plan.minutes);
    let arguments = ["test", "--workspace", EVERYTHING[0], EVERYTHING[1], "--test", "e2e", "--"];
    let mut command = cargo_command(&[&arguments[..], &["--exact", TEST, "--nocapture"]].concat());
    command.env(services::KAFKA_JARS, services.kafka_jars).env(services::S3_SERVER, services.s3_server);
    command.env("ADTALLY_CHAOS_CLICKS", plan.clicks.to_string()).env("ADTALLY_CHAOS_STEPS", steps.to_string());
    command.env("ADTALLY_TEST_MINUTES", PATIENCE_MINUTES).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("cannot run cargo: {error}"))?;
    let stdout = child.stdout.take().ok_or("cargo has no output to read")?;
    let mut passed = false;
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        passed |= line.starts_with(PASSED);
        println!("{line}");
    }
    let status = child.wait().map_err(|error| format!("cannot wait for cargo: {error}"))?;
    match (status.success(), passed) {
        (true, true) => Ok(()),
        (true, false) => Err(format!("the test {TEST} was not run")),
        (false, _) => Err(format!("the test failed: {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::{Plan, is_asked};

    #[test]
    fn options_are_read() {
        assert!(is_asked(&["--minutes", "3", "--chaos"]) && !is_asked(&["--minutes", "3"]));
        let plan = Plan::read(&["--chaos", "--minutes", "3", "--clicks", "9"]).expect("valid");
        assert_eq!(plan, Plan { minutes: 3, clicks: 9 });
        assert_eq!(Plan::read(&["--chaos"]).expect("valid"), Plan { minutes: 10, clicks: 5_000_000 });
        for wrong in [&["--chaos", "--clicks"][..], &["--chaos", "--minutes", "0"], &["--chaos", "--kills", "3"]] {
            assert!(Plan::read(wrong).is_err(), "{wrong:?}");
        }
    }
}
