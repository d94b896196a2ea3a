//! `cargo xtask bench scale-out`: agents and workers beside a broker on the same machine, with the lake on a local disk.
//!
//! It prints a section for `benches/README.md`, with a goal beside each figure that has one. Nothing is asserted.

mod answers;
mod broker;
mod cluster;
mod committers;
mod inputs;
mod lag;
mod reading;

use super::report::{BEYOND, Report, Table};
use super::site::Site;
use super::{number_from_1, some_of};
use cluster::Cluster;
use reading::Readings;
use std::path::Path;

/// The parts, in order, as the help explains them.
const PARTS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// The request on the command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Plan {
    is_quick: bool,
    clicks: u64,
    rounds: usize,
    only: Vec<String>,
}

impl Plan {
    /// Reads the arguments after `scale-out`.
    ///
    /// # Errors
    /// Says which argument is wrong.
    pub(crate) fn read(words: &[&str]) -> Result<Plan, String> {
        let mut plan = Plan { is_quick: false, clicks: 10_000_000, rounds: 3, only: Vec::new() };
        let mut words = words.iter();
        while let Some(&word) = words.next() {
            let mut value = || words.next().copied().ok_or_else(|| format!("{word} needs a value"));
            let number = |text: &str| number_from_1(word, text);
            match word {
                "--quick" => (plan.is_quick, plan.clicks, plan.rounds) = (true, 200_000, 1),
                "--clicks" => plan.clicks = number(value()?)?,
                "--rounds" => plan.rounds = number(value()?)? as usize,
                "--only" => plan.only = some_of(&PARTS, value()?)?,
                _ => return Err(format!("unknown option {word}; see cargo xtask help")),
            }
        }
        Ok(plan)
    }

    /// Whether the programs are not optimised.
    pub(crate) fn is_quick(&self) -> bool {
        self.is_quick
    }

    fn has(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == part)
    }
}

/// What a figure should be.
#[derive(Clone, Copy, Debug)]
enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

/// The figures, each a row of a table.
struct Figures(Table);

impl Figures {
    fn new() -> Figures {
        Figures(Table::new(&["figure", "goal", "measured", "result"]))
    }

    fn add(&mut self, what: &str, measured: f64, unit: &str, goal: Option<Goal>) {
        let (goal, result) = match goal {
            None => (String::new(), ""),
            Some(Goal::AtLeast(goal)) => (format!("at least {goal}{unit}"), judge(measured >= goal)),
            Some(Goal::AtMost(goal)) => (format!("at most {goal}{unit}"), judge(measured <= goal)),
        };
        let digits = if measured < 10.0 { 2 } else { 1 };
        let measured = format!("{measured:.digits$}{unit}");
        eprintln!("{what}: {measured} {result}");
        self.0.row(&[what, &goal, &measured, result]);
    }
}

fn judge(is_reached: bool) -> &'static str {
    if is_reached { "reached" } else { "missed" }
}

/// The programs to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Programs<'a> {
    /// `adtally`, with Kafka.
    pub(crate) adtally: &'a Path,
    /// The example `bare_consumer`.
    pub(crate) bare_consumer: &'a Path,
    /// The folder of Kafka's jars.
    pub(crate) kafka_jars: &'a Path,
}

/// Measures, and prints the section.
///
/// # Errors
/// When a process fails, or does not reach a state in time.
pub(crate) fn run(plan: &Plan, programs: Programs<'_>, root: &Path) -> Result<(), String> {
    let site = Site::new(programs.adtally, root, false)?;
    let cluster = Cluster::start(&site, programs.kafka_jars, programs.bare_consumer)?;
    let mut figures = Figures::new();
    let mut readings = Readings::new(&cluster, plan.clicks, plan.rounds);
    for part in PARTS.into_iter().filter(|part| plan.has(part)) {
        match part {
            "a" => readings.alone(&mut figures)?,
            "b" => readings.beside_a_bare_consumer(&mut figures)?,
            "c" => readings.divided(&mut figures)?,
            "d" => lag::after_kills(&cluster, plan.rounds, &mut figures)?,
            "e" => inputs::many_and_few(&cluster, if plan.is_quick { 1 } else { 3 }, &mut figures)?,
            _ => committers::on_one_lake(&cluster, plan.is_quick, &mut figures)?,
        }
    }
    let mut report = Report::default();
    report.section(BEYOND, &method(plan), figures.0, "");
    println!("{}", report.text());
    Ok(())
}

/// How the figures are measured.
fn method(plan: &Plan) -> String {
    format!(
        "Measured by `cargo xtask bench scale-out` in a run of its own: Apache Kafka runs beside the programs on the same machine, \
         and the lake is on its disk (`file://`). Processor times are those of the workers, without the broker. a to c: {} clicks \
         in records of our agent, a fifth of them for b, are in the topic before the workers start; the time is from the first \
         read to the last commit, with `epoch.interval` 1 s. Medians of {} rounds; the two programs of b take turns, and the \
         consumer is a loop around rdkafka that only counts records. d to f: clicks are logged at 11574 a second. d: of three \
         workers with 6 partitions one is killed, with the default session time-out of 10 s, and every click is counted once at \
         the end. e: one agent, one worker, 32 partitions. f: each worker has a partition, and commits to the same tables.",
        plan.clicks, plan.rounds
    )
}

#[cfg(test)]
mod tests {
    use super::{Figures, Goal, Plan};
    use crate::bench::report::Report;

    #[test]
    fn options_are_read() {
        let plan = Plan::read(&["--clicks", "5", "--rounds", "2", "--only", "a,d"]).expect("valid");
        assert_eq!((plan.clicks, plan.rounds, plan.has("d"), plan.has("b")), (5, 2, true, false));
        let quick = Plan::read(&["--quick"]).expect("valid");
        assert!(quick.is_quick() && quick.has("f") && quick.rounds == 1);
        for wrong in [&["--clicks"][..], &["--rounds", "0"], &["--only", "g"], &["--only", ""], &["--beside", "x"]] {
            assert!(Plan::read(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn figures_stand_beside_their_goals() {
        let mut figures = Figures::new();
        figures.add("rate", 1.25, " million", Some(Goal::AtLeast(0.9)));
        figures.add("lag", 31.0, " s", Some(Goal::AtMost(30.0)));
        figures.add("memory", 300.0, " MiB", None);
        let mut report = Report::default();
        report.section("Title", "Method.", figures.0, "");
        let text = report.text();
        assert!(text.contains("| rate | at least 0.9 million | 1.25 million | reached |"), "{text}");
        assert!(text.contains("| lag | at most 30 s | 31.0 s | missed |"), "{text}");
        assert!(text.contains("| memory |  | 300.0 MiB |  |"), "{text}");
    }
}
