//! Whole runs: Adtally and other systems count the same log in turn, and every count is compared.

use super::measure::{Taken, median, run};
use super::report::{Report, Table, Target, ratio};
use super::site::Site;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The other systems: name, script, and the speed-up that we aim for. For the first it is only the required one, since
/// there the aim is a rate.
const PEERS: [(&str, &str, f64); 3] = [
    ("DuckDB", "duckdb_count.py", 1.5),
    ("ClickHouse (chdb-core)", "clickhouse_count.py", 2.0),
    ("Polars", "polars_count.py", 2.0),
];

/// Share of duplicates in the lines, for deduplication.
const DUPLICATES: &str = "1%";

/// Counts `clicks` clicks in `rounds` rounds with every system.
pub(super) fn beside_others(site: &Site, clicks: u64, rounds: usize, report: &mut Report) -> Result<(), String> {
    let log = site.path("whole.ndjson");
    let truth = site.generate(&log, clicks, &["--duplicates", DUPLICATES, "--exact-copies"], true)?;
    let mut ours: Vec<Taken> = Vec::new();
    let mut others: Vec<Vec<f64>> = vec![Vec::new(); PEERS.len()];
    for round in 1..=rounds {
        let mut counts = Vec::new();
        let taken = count(site, &log)?;
        eprintln!("round {round}: Adtally {:.2} s, {} MiB", taken.wall_s, taken.resident_mib);
        ours.push(taken);
        counts.push(site.counts()?);
        for ((name, script, _), times) in PEERS.into_iter().zip(&mut others) {
            let out = site.path(script.trim_end_matches(".py"));
            site.fresh(&out)?;
            let mut command = site.python(script)?;
            let taken = run(command.arg(&log).arg(&out))?;
            let seconds: f64 = taken.stdout.trim().parse().map_err(|_| format!("{script} printed {}", taken.stdout))?;
            eprintln!("round {round}: {name} {seconds:.2} s, {} MiB", taken.resident_mib);
            times.push(seconds);
            counts.push(out.join("counts.parquet"));
        }
        // Without this check, no figure is reported.
        let mut compare = site.python("compare.py")?;
        let rows = run(compare.arg(&truth).args(&counts))?;
        eprintln!("round {round}: all have the same {} rows", rows.stdout.trim());
    }
    let mine = median(ours.iter().map(|taken| taken.wall_s).collect());
    let rate = |seconds: f64| format!("{:.2}", clicks as f64 / 1e6 / seconds);
    let mut table = Table::new(&["system", "seconds", "million clicks per second", "speed-up of Adtally"]);
    table.row(&["Adtally, `run --until-end`, everything on", &format!("{mine:.2}"), &rate(mine), ""]);
    report.target("clicks per second", clicks as f64 / 1e6 / mine, " million", Target::Aim(2.5));
    for ((name, _, aim), times) in PEERS.into_iter().zip(others) {
        let theirs = median(times);
        report.target_beside_others(&format!("faster than {name}"), theirs / mine, "x", Target::AtLeast(1.5, aim));
        table.row(&[name, &format!("{theirs:.2}"), &rate(theirs), &ratio(theirs, mine)]);
    }
    let most = ours.iter().map(|taken| taken.resident_mib).max().unwrap_or_default();
    report.target("memory in that run", most as f64, " MiB", Target::AtMost(1_536.0, 1_024.0));
    let cpu = median(ours.iter().map(|taken| taken.cpu_s).collect());
    report.section(
        "Beside other systems",
        &format!(
            "{clicks} clicks in one NDJSON file, 1 % of them duplicates. Each system parses, deduplicates, counts by \
             minute, ad and country, and writes the raw clicks as Parquet (zstd). Medians of {rounds} rounds, in \
             which the systems take turns; in each round, all counts of all systems were equal. The time of Adtally \
             is that of the whole process, with its ledger, its epoch log, fsync and the Delta tables. The time of \
             the others begins with their first query."
        ),
        table,
        &format!("Adtally took {cpu:.2} s of processor time and at most {most} MiB of memory."),
    );
    fs::remove_file(&log).map_err(|error| format!("cannot remove {}: {error}", log.display()))
}

/// Counts logs in a new data directory.
pub(super) fn count(site: &Site, log: &Path) -> Result<Taken, String> {
    site.fresh(&site.data())?;
    let mut command = Command::new(site.program());
    run(command.arg("run").arg(log).args(["--until-end", "--final", "--data-dir"]).arg(site.data()))
}

/// The names of the slopes.
const CLICKS: &str = "time per click, 10 to 100 million clicks, largest / smallest";
const FILES: &str = "time per click, 1 to 64 files, largest / smallest";
const ADS: &str = "time per click and row, 10 thousand to 20 million ads, largest / smallest";

/// How time grows with the number of clicks, of files, and of ads.
pub(super) fn slopes(site: &Site, millions: &[u64], report: &mut Report) -> Result<(), String> {
    let empty = site.path("empty.ndjson");
    fs::write(&empty, "").map_err(|error| format!("cannot write {}: {error}", empty.display()))?;
    let idle = count(site, &empty)?.wall_s;
    let mut table = Table::new(&["what", "seconds", "microseconds per click", "MiB"]);
    // For each slope, the smallest and the largest time per click.
    let mut slopes: BTreeMap<&str, (f64, f64)> = BTreeMap::new();
    let mut row = |slope: &'static str, what: &str, clicks: u64, taken: Taken| {
        let (seconds, mib) = (taken.wall_s, taken.resident_mib);
        eprintln!("{what}: {seconds:.2} s, {mib} MiB");
        let each = (seconds - idle) * 1e6 / clicks as f64;
        let (least, most) = slopes.entry(slope).or_insert((each, each));
        (*least, *most) = (least.min(each), most.max(each));
        table.row(&[what, &format!("{seconds:.2}"), &format!("{each:.3}"), &mib.to_string()]);
    };
    for &million in millions {
        let log = site.path("slope.ndjson");
        site.generate(&log, million * 1_000_000, &[], false)?;
        row(CLICKS, &format!("{million} million clicks"), million * 1_000_000, count(site, &log)?);
        fs::remove_file(&log).map_err(|error| format!("cannot remove {}: {error}", log.display()))?;
    }
    let least = millions.iter().copied().min().unwrap_or(1) * 1_000_000;
    for files in [1, 4, 16, 64] {
        let folder = site.path("files");
        site.fresh(&folder)?;
        site.generate_split(&folder, least, files)?;
        row(FILES, &format!("{least} clicks in {files} files"), least, count(site, &folder)?);
        fs::remove_dir_all(&folder).map_err(|error| format!("cannot remove {}: {error}", folder.display()))?;
    }
    for ads in ["10000", "1000000", "20000000"] {
        let log = site.path("ads.ndjson");
        site.generate(&log, least, &["--ads", ads], false)?;
        let taken = count(site, &log)?;
        let rows = site.count_rows()?;
        row(ADS, &format!("{least} clicks of {ads} ads, {rows} rows of counts"), least + rows, taken);
        fs::remove_file(&log).map_err(|error| format!("cannot remove {}: {error}", log.display()))?;
    }
    for (slope, (least, most)) in slopes {
        report.target(slope, most / least, "x", Target::AtMost(1.3, 1.1));
    }
    report.section(
        "Slopes",
        "One run each. The time of an empty run is subtracted before dividing. For ads, the divisor is clicks plus \
         rows.",
        table,
        &format!("An empty run takes {idle:.2} s."),
    );
    Ok(())
}
