//! Simulates seeds on one thread per core, and reports the speed.

use adtally_engine::clock::{Clock, SystemClock};
use adtally_sim::{Outcome, Plant, simulate, simulate_stream};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

const HELP: &str = "\
Simulates deployments from seeds. Stops at the first broken guarantee.

Usage: adtally-sim [--seeds N] [--from S] [--minutes M] [--partitions P] [--story]

  --seeds N       number of seeds (1000)
  --from S        the first seed (0)
  --minutes M     instead of --seeds: simulate seeds for this long
  --partitions P  read a topic with P partitions, which move between two processes, instead of files
  --story         print each event
";

/// The requested simulations.
struct Task {
    from: u64,
    seeds: u64,
    minutes: Option<u64>,
    /// Partitions of the topic; `None` simulates files instead.
    partitions: Option<u32>,
    tells: bool,
}

/// Sums over all seeds, and the failed seeds.
#[derive(Default)]
struct Sums {
    seeds: u64,
    all: Outcome,
    failed: Vec<Outcome>,
}

impl Sums {
    fn add(&mut self, outcome: Outcome) {
        self.seeds += 1;
        self.all.points += outcome.points;
        self.all.deaths += outcome.deaths;
        self.all.failures += outcome.failures;
        self.all.power_losses += outcome.power_losses;
        self.all.zombies += outcome.zombies;
        self.all.starts += outcome.starts;
        self.all.bounded += outcome.bounded;
        self.all.stops += outcome.stops;
        self.all.given_up += outcome.given_up;
        self.all.epochs += outcome.epochs;
        self.all.lines += outcome.lines;
        self.all.recovered += outcome.recovered;
        self.all.fenced += outcome.fenced;
        if outcome.violation.is_some() {
            self.failed.push(outcome);
        }
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let Some(task) = parse(&words) else {
        eprint!("{HELP}");
        return ExitCode::from(2);
    };
    if task.tells {
        // Includes the log output of the processes.
        tracing_subscriber::fmt().with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG).without_time().init();
    }
    let clock = SystemClock;
    let began_ms = clock.monotonic_ms();
    let sums = run(&task, &clock);
    let took_ms = (clock.monotonic_ms() - began_ms).max(1) as u64;
    let Sums { seeds, all, failed } = sums;
    println!(
        "{seeds} seeds from {}: {} deaths at {} crash points, {} failures, {} power losses, {} starts, {} zombies, \
         {} bounded runs, {} stops, {} of them given up, {} epochs, {} lines, {} recovered, {} reconcilers fenced",
        task.from,
        all.deaths,
        all.points,
        all.failures,
        all.power_losses,
        all.starts,
        all.zombies,
        all.bounded,
        all.stops,
        all.given_up,
        all.epochs,
        all.lines,
        all.recovered,
        all.fenced
    );
    println!(
        "{} s: {} seeds and {} simulated crashes a second",
        took_ms / 1_000,
        seeds * 1_000 / took_ms,
        all.deaths * 1_000 / took_ms
    );
    for outcome in &failed {
        println!("seed {} breaks: {}", outcome.seed, outcome.violation.as_deref().unwrap_or_default());
    }
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(words: &[String]) -> Option<Task> {
    let mut task = Task { from: 0, seeds: 1_000, minutes: None, partitions: None, tells: false };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--story" {
            task.tells = true;
            continue;
        }
        let number: u64 = words.next()?.parse().ok()?;
        match word.as_str() {
            "--seeds" => task.seeds = number,
            "--from" => task.from = number,
            "--minutes" => task.minutes = Some(number),
            "--partitions" => task.partitions = u32::try_from(number).ok().filter(|&partitions| partitions > 0),
            _ => return None,
        }
    }
    Some(task)
}

/// Each world has one thread. Seeds are divided among one thread per core.
fn run(task: &Task, clock: &SystemClock) -> Sums {
    let sums = Mutex::new(Sums::default());
    let (next, stop) = (AtomicU64::new(task.from), AtomicBool::new(false));
    let began_ms = clock.monotonic_ms();
    let is_over = |seed: u64| match task.minutes {
        Some(minutes) => clock.monotonic_ms() - began_ms >= minutes as i64 * 60_000,
        None => seed >= task.from + task.seeds,
    };
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if is_over(seed) {
                return;
            }
            let outcome = match task.partitions {
                None => simulate(seed, Plant::Nothing, task.tells),
                Some(partitions) => simulate_stream(seed, partitions, Plant::Nothing, task.tells),
            };
            if outcome.violation.is_some() {
                stop.store(true, Ordering::Relaxed);
            }
            if let Ok(mut sums) = sums.lock() {
                sums.add(outcome);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    sums.into_inner().unwrap_or_default()
}
