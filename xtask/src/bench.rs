//! The bench: whole runs beside other systems, slopes, questions, life at the mission's rate; written to
//! `benches/README.md`. No figure of a comparison is written unless all systems counted the same.

mod http;
mod live;
mod measure;
mod questions;
mod report;
mod service;
mod site;
mod stages;
mod whole;

use report::Report;
use site::Site;
use std::path::Path;

/// What is asked for on the command line.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Plan {
    quick: bool,
    clicks: u64,
    rounds: usize,
    only: Vec<String>,
}

/// The parts, in order.
const PARTS: [&str; 5] = ["stages", "whole", "slopes", "questions", "live"];

impl Plan {
    fn read(words: &[&str]) -> Result<Plan, String> {
        let mut plan = Plan { quick: false, clicks: 10_000_000, rounds: 3, only: Vec::new() };
        let mut words = words.iter();
        while let Some(&word) = words.next() {
            let mut value = || words.next().copied().ok_or_else(|| format!("{word} needs a value"));
            let number = |text: &str| {
                text.parse::<u64>()
                    .ok()
                    .filter(|&value| value > 0)
                    .ok_or_else(|| format!("{word} {text}: a number from 1"))
            };
            match word {
                "--quick" => (plan.quick, plan.clicks, plan.rounds) = (true, 100_000, 1),
                "--clicks" => plan.clicks = number(value()?)?,
                "--rounds" => plan.rounds = number(value()?)? as usize,
                "--only" => {
                    let parts = value()?;
                    if let Some(wrong) = parts.split(',').find(|part| !PARTS.contains(part)) {
                        return Err(format!("--only {wrong}: some of {}", PARTS.join(",")));
                    }
                    plan.only = parts.split(',').map(str::to_owned).collect();
                }
                _ => return Err(format!("unknown option {word}; see cargo xtask help")),
            }
        }
        Ok(plan)
    }

    fn has(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == part)
    }
}

/// Whether the words ask for the form that continuous integration runs.
pub(crate) fn is_quick(words: &[&str]) -> bool {
    words.contains(&"--quick")
}

/// Runs it with the words of the command line; `program` is the `adtally` to be measured.
pub(crate) fn run(words: &[&str], program: &Path, root: &Path) -> Result<(), String> {
    let plan = Plan::read(words)?;
    let site = Site::new(program, root, plan.has("whole"))?;
    let mut report = Report::default();
    if plan.has("stages") {
        stages::beside_their_floors(plan.quick, &mut report)?;
    }
    if plan.has("whole") {
        whole::beside_others(&site, plan.clicks, plan.rounds, &mut report)?;
    }
    if plan.has("slopes") && !plan.quick {
        whole::slopes(&site, &[10, 30, 100], &mut report)?;
    }
    if plan.has("questions") {
        questions::of_an_hour(&site, if plan.quick { plan.clicks } else { 42_000_000 }, &mut report)?;
    }
    if plan.has("live") && !plan.quick {
        live::at_the_mission_rate(&site, 6, &mut report)?;
    }
    if plan.quick {
        println!("{}", report.text());
        return Ok(());
    }
    let words: Vec<&str> = ["cargo", "xtask", "bench"].iter().chain(words).copied().collect();
    report.write(&root.join("benches/README.md"), &words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::Plan;

    #[test]
    fn options_are_read() {
        let plan = Plan::read(&["--clicks", "5", "--only", "whole,stages"]).expect("valid");
        assert_eq!((plan.clicks, plan.rounds, plan.has("whole"), plan.has("live")), (5, 3, true, false));
        assert!(Plan::read(&["--quick"]).expect("valid").quick);
        for wrong in [&["--clicks"][..], &["--clicks", "0"], &["--only", "nothing"], &["--fast"]] {
            assert!(Plan::read(wrong).is_err(), "{wrong:?}");
        }
    }
}
