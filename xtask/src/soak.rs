//! The soak test: a log grows at the mission's rate and is rotated, and a process is killed again and again. At the end
//! the counts must be exactly those generated, within bounded memory and disk.

pub(crate) mod chaos;
mod feeder;
mod process;
mod truth;

use feeder::Feeder;
use process::{Adtally, Samples};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use truth::Truth;

/// Lines per second for a billion clicks a day.
const MISSION_RATE: u64 = 11_574;

/// A safe rate of `adtally generate` in lines per second, optimised or not: the log must not start before it is ready.
const GENERATED_PER_SECOND: u64 = 200_000;

/// Maximum resident memory of the process, in MiB.
const RESIDENT_MIB_MAX: u64 = 1_536;

/// Maximum number of epoch records: 192 that a fold needs, and those since the last lake commits.
const RECORDS_MAX: u64 = 400;

/// The request on the command line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Plan {
    minutes: u64,
    rate: u64,
    kills_a_minute: u64,
    ads: u64,
    seed: u64,
    verify_each: bool,
}

impl Plan {
    fn read(words: &[&str]) -> Result<Plan, String> {
        let mut plan =
            Plan { minutes: 25, rate: MISSION_RATE, kills_a_minute: 1, ads: 2_000_000, seed: 1, verify_each: false };
        let mut words = words.iter();
        while let Some(&word) = words.next() {
            let mut number = || number(word, words.next());
            match word {
                "--minutes" => plan.minutes = number()?,
                "--long" => plan.minutes = 75,
                "--rate" => plan.rate = number()?,
                "--kills" => plan.kills_a_minute = number()?,
                "--ads" => plan.ads = number()?,
                "--seed" => plan.seed = number()?,
                "--verify-each" => plan.verify_each = true,
                _ => return Err(format!("unknown option {word}; see cargo xtask help")),
            }
        }
        Ok(plan)
    }
}

/// The number after a word on the command line.
fn number(word: &str, value: Option<&&str>) -> Result<u64, String> {
    let value = value.ok_or_else(|| format!("{word} needs a number"))?;
    let number = value.parse::<u64>().ok().filter(|&number| number > 0);
    number.ok_or_else(|| format!("{word} {value}: a number from 1"))
}

/// Runs the soak test with these arguments; `program` is the `adtally` to test.
pub(crate) fn run(words: &[&str], program: &Path) -> Result<(), String> {
    let plan = Plan::read(words)?;
    let folder = std::env::temp_dir().join(format!("adtally-soak-{}", std::process::id()));
    let made = fs::create_dir_all(folder.join("logs"));
    made.map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
    let outcome = soak(&plan, program, &folder);
    match &outcome {
        Ok(()) => {
            fs::remove_dir_all(&folder).map_err(|error| format!("cannot remove {}: {error}", folder.display()))?
        }
        Err(_) => eprintln!("everything is left in {}", folder.display()),
    }
    outcome
}

fn soak(plan: &Plan, program: &Path, folder: &Path) -> Result<(), String> {
    let lines = plan.minutes * 60 * plan.rate;
    eprintln!(
        "soak: {lines} lines in {} min, {} of {} ads, {} kills a minute, seed {}",
        plan.minutes, plan.rate, plan.ads, plan.kills_a_minute, plan.seed
    );
    let adtally = Adtally::new(program, folder);
    let start = now() + Duration::from_secs(2 + lines / GENERATED_PER_SECOND);
    let truth = Truth::generate(&adtally, plan.seed, plan.rate, plan.ads, lines, start)?;
    let feeder = Feeder::start(folder, plan.rate, start)?;
    let samples = kill_again_and_again(plan, &adtally, &feeder)?;
    feeder.finish()?;
    let ledger = adtally.output(&["run", "logs", "--data-dir", "data", "--until-end", "--final"])?;
    truth.check_ledger(&ledger)?;
    truth.check_counts(&adtally)?;
    adtally.output(&["verify", "--data-dir", "data"])?;
    report(plan, lines, &samples);
    samples.write(&csv_path())?;
    within("resident memory, MiB", samples.resident_mib_max(), RESIDENT_MIB_MAX)?;
    within("epoch records", samples.records_max(), RECORDS_MAX)
}

/// Runs the service until the log is written, and kills it at moments determined by the seed.
fn kill_again_and_again(plan: &Plan, adtally: &Adtally, feeder: &Feeder) -> Result<Samples, String> {
    let mut samples = Samples::default();
    let mut random = plan.seed | 1;
    let between_ms = 60_000 / plan.kills_a_minute;
    let mut serving = adtally.serve()?;
    let mut kill_at = now() + Duration::from_millis(between_ms);
    while !feeder.is_done()? {
        std::thread::sleep(Duration::from_millis(200));
        samples.take(&serving, &adtally.data())?;
        if let Some(status) = serving.ended()? {
            return Err(format!("the process ended by itself: {status}\n{}", adtally.last_words()));
        }
        if now() >= kill_at {
            serving.kill()?;
            samples.kills += 1;
            if plan.verify_each {
                adtally.output(&["verify", "--data-dir", "data"])?;
            }
            serving = adtally.serve()?;
            // Between half and one and a half times the mean: xorshift (Marsaglia, "Xorshift RNGs").
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            kill_at = now() + Duration::from_millis(between_ms / 2 + random % between_ms);
        }
    }
    serving.terminate()?;
    Ok(samples)
}

fn report(plan: &Plan, lines: u64, samples: &Samples) {
    println!("exact: {lines} lines, the clicks of every ad in every minute as generated, `verify` sound");
    println!("kills: {} in {} min", samples.kills, plan.minutes);
    println!("resident: {} MiB at most", samples.resident_mib_max());
    println!(
        "data directory: {} MiB, {} files and {} epoch records at most",
        samples.disk_mib_max(),
        samples.files_max(),
        samples.records_max()
    );
    println!("curve: {}", csv_path().display());
}

fn within(what: &str, found: u64, most: u64) -> Result<(), String> {
    if found <= most { Ok(()) } else { Err(format!("{what}: {found}, at most {most} are allowed")) }
}

/// The file for the samples: beside the programs, so that the tree stays clean.
fn csv_path() -> PathBuf {
    std::env::current_exe().unwrap_or_default().with_file_name("soak.csv")
}

#[expect(clippy::disallowed_methods, reason = "soaks and benches take place in real time")]
pub(crate) fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::Plan;

    #[test]
    fn options_are_read() {
        let plan = Plan::read(&["--minutes", "3", "--kills", "28", "--verify-each"]).expect("valid");
        assert_eq!((plan.minutes, plan.kills_a_minute, plan.verify_each), (3, 28, true));
        assert_eq!(Plan::read(&["--long"]).expect("valid").minutes, 75);
        for wrong in [&["--minutes"][..], &["--minutes", "0"], &["--minutes", "x"], &["--fast"]] {
            assert!(Plan::read(wrong).is_err(), "{wrong:?}");
        }
    }
}
