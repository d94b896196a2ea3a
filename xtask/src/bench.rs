//! The benchmark: whole runs compared with other systems, slopes, questions, and a service at the mission's rate.
//! Results go to `benches/README.md`. A comparison is written only if all systems counted the same.

mod feeder;
mod http;
mod live;
mod measure;
mod questions;
mod reconcile;
mod report;
pub(crate) mod scale_out;
mod service;
mod site;
mod stages;
mod whole;

use report::Report;
use site::Site;
use std::path::{Path, PathBuf};

/// The request on the command line.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Plan {
    quick: bool,
    clicks: u64,
    rounds: usize,
    only: Vec<String>,
    /// Another `adtally`, with which each part is also run, directly before.
    beside: Option<PathBuf>,
}

/// The parts, in order.
const PARTS: [&str; 6] = ["stages", "whole", "slopes", "questions", "reconcile", "live"];

impl Plan {
    fn read(words: &[&str]) -> Result<Plan, String> {
        let mut plan = Plan { quick: false, clicks: 10_000_000, rounds: 3, only: Vec::new(), beside: None };
        let mut words = words.iter();
        while let Some(&word) = words.next() {
            let mut value = || words.next().copied().ok_or_else(|| format!("{word} needs a value"));
            let number = |text: &str| number_from_1(word, text);
            match word {
                "--quick" => (plan.quick, plan.clicks, plan.rounds) = (true, 100_000, 1),
                "--clicks" => plan.clicks = number(value()?)?,
                "--rounds" => plan.rounds = number(value()?)? as usize,
                "--only" => plan.only = some_of(&PARTS, value()?)?,
                "--beside" => plan.beside = Some(PathBuf::from(value()?)),
                _ => return Err(format!("unknown option {word}; see cargo xtask help")),
            }
        }
        Ok(plan)
    }

    fn has(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == part)
    }
}

/// The number that an option is given.
fn number_from_1(option: &str, text: &str) -> Result<u64, String> {
    text.parse().ok().filter(|&number| number > 0).ok_or_else(|| format!("{option} {text}: a number from 1"))
}

/// The parts in a list that `--only` is given, each of which must be one of `all`.
fn some_of(all: &[&str], list: &str) -> Result<Vec<String>, String> {
    match list.split(',').find(|part| !all.contains(part)) {
        Some(wrong) => Err(format!("--only {wrong}: some of {}", all.join(","))),
        None => Ok(list.split(',').map(str::to_owned).collect()),
    }
}

/// Whether the arguments select the form for continuous integration.
pub(crate) fn is_quick(words: &[&str]) -> bool {
    words.contains(&"--quick")
}

/// Runs the benchmark with these arguments; `program` is the `adtally` to measure.
pub(crate) fn run(words: &[&str], program: &Path, root: &Path) -> Result<(), String> {
    let plan = Plan::read(words)?;
    let site = Site::new(program, root, plan.has("whole") || plan.has("reconcile"))?;
    if let Some(program) = plan.beside.as_ref().filter(|program| !program.is_file()) {
        return Err(format!("--beside {}: there is no such program", program.display()));
    }
    let beside = plan.beside.as_ref().map(|other| site.with_program(other));
    let (mut report, mut report_beside) = (Report::default(), Report::default());
    for part in PARTS.into_iter().filter(|part| plan.has(part)) {
        if let Some(site) = &beside
            && part != "stages"
        {
            eprintln!("{part}, the program beside:");
            run_part(part, &plan, site, &mut report_beside)?;
            eprintln!("{part}:");
        }
        run_part(part, &plan, &site, &mut report)?;
    }
    if beside.is_some() {
        println!("{}", report.beside(&report_beside));
        return Ok(());
    }
    if plan.quick {
        println!("{}", report.text());
        return Ok(());
    }
    let words: Vec<&str> = ["cargo", "xtask", "bench"].iter().chain(words).copied().collect();
    let (path, command) = (root.join("benches/README.md"), words.join(" "));
    if plan.only.is_empty() { report.write(&path, &command) } else { report.update(&path, &command) }
}

fn run_part(part: &str, plan: &Plan, site: &Site, report: &mut Report) -> Result<(), String> {
    match part {
        "stages" => stages::beside_their_floors(plan.quick, report),
        "whole" => whole::beside_others(site, plan.clicks, plan.rounds, report),
        "questions" => questions::of_an_hour(site, if plan.quick { plan.clicks } else { 42_000_000 }, report),
        "reconcile" if plan.quick => reconcile::of_a_day(site, &[1], 0, report),
        "reconcile" => reconcile::of_a_day(site, &[10, 50, 200], 100, report),
        _ if plan.quick => Ok(()),
        "slopes" => whole::slopes(site, &[10, 30, 100], report),
        _ => live::at_the_mission_rate(site, 6, report),
    }
}

#[cfg(test)]
mod tests {
    use super::{Path, Plan};

    #[test]
    fn options_are_read() {
        let plan = Plan::read(&["--clicks", "5", "--only", "whole,stages"]).expect("valid");
        assert_eq!((plan.clicks, plan.rounds, plan.has("whole"), plan.has("live")), (5, 3, true, false));
        let beside = Plan::read(&["--beside", "/old/adtally"]).expect("valid").beside;
        assert_eq!(beside.as_deref(), Some(Path::new("/old/adtally")));
        assert!(Plan::read(&["--quick"]).expect("valid").quick);
        for wrong in [&["--clicks"][..], &["--clicks", "0"], &["--only", "nothing"], &["--fast"]] {
            assert!(Plan::read(wrong).is_err(), "{wrong:?}");
        }
    }
}
