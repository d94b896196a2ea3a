//! One process, measured from outside: time, processor, memory.

use crate::soak::now;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How often a process is sampled. Its peak memory is known except for its last moments.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Maximum time of a command.
const RUN_TIMEOUT: Duration = Duration::from_secs(3_600);

/// Ticks of the kernel's processor accounting in a second, on every Linux.
const TICKS_A_SECOND: f64 = 100.0;

/// The resources that a process used.
#[derive(Clone, Debug, Default)]
pub(super) struct Taken {
    /// From its start to its end, in seconds.
    pub(super) wall_s: f64,
    /// Processor time, in seconds.
    pub(super) cpu_s: f64,
    /// Peak resident memory, in MiB.
    pub(super) resident_mib: u64,
    /// Its output.
    pub(super) stdout: String,
}

/// Runs a command that must succeed.
pub(super) fn run(command: &mut Command) -> Result<Taken, String> {
    let name = command.get_program().display().to_string();
    let began = now();
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.map_err(|error| format!("cannot run {name}: {error}"))?;
    let mut taken = Taken::default();
    // The output is small: it fits into the pipes.
    loop {
        look(&child, &mut taken);
        match child.try_wait() {
            Ok(None) if now() - began > RUN_TIMEOUT => {
                // It may have ended just now.
                let _ = child.kill().and_then(|()| child.wait());
                return Err(format!("{name} does not end"));
            }
            Ok(None) => std::thread::sleep(LOOK_EVERY),
            Ok(Some(_)) => break,
            Err(error) => return Err(format!("cannot wait for {name}: {error}")),
        }
    }
    taken.wall_s = (now() - began).as_secs_f64();
    let output = child.wait_with_output().map_err(|error| format!("cannot read what {name} printed: {error}"))?;
    taken.stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.success() {
        true => Ok(taken),
        false => Err(format!("{name}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr))),
    }
}

/// Updates `cpu_s` and `resident_mib`.
pub(super) fn look(child: &Child, taken: &mut Taken) {
    let proc = format!("/proc/{}", child.id());
    if let Some(mib) = fs::read_to_string(format!("{proc}/status")).ok().and_then(|text| high_water_mib(&text)) {
        taken.resident_mib = taken.resident_mib.max(mib);
    }
    if let Some(cpu_s) = fs::read_to_string(format!("{proc}/stat")).ok().and_then(|text| cpu_s(&text)) {
        taken.cpu_s = taken.cpu_s.max(cpu_s);
    }
}

fn high_water_mib(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib >> 10)
}

/// Fields 14 and 15 of proc(5) `stat`; only the second field, the name, can contain spaces.
fn cpu_s(stat: &str) -> Option<f64> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11..13)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    Some(ticks as f64 / TICKS_A_SECOND)
}

/// The middle value; the lower one of two.
pub(super) fn median(mut values: Vec<f64>) -> f64 {
    percentile(&mut values, 50)
}

/// The given percentile of the values; 0 if there are none.
pub(super) fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() * percent).div_ceil(100).max(1);
    values.get(rank - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_figures_are_read() {
        let stat = "7 (a) b c) S 1 7 7 0 -1 4194560 5 0 0 0 150 50 0 0 20 0 1 0 1 1 1";
        assert_eq!(cpu_s(stat), Some(2.0));
        assert_eq!(high_water_mib("Name:\tx\nVmHWM:\t  2048 kB\n"), Some(2));
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let mut values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!((percentile(&mut values, 50), percentile(&mut values, 99)), (2.0, 4.0));
        assert_eq!(median(vec![3.0, 9.0, 1.0]), 3.0);
        assert_eq!(median(Vec::new()), 0.0);
    }
}
