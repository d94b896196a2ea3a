//! The recount of a day: its time and memory by the number of clicks, DuckDB with the same queries, and a service that counts
//! at the mission's rate while it recounts.

use super::feeder::Feeder;
use super::live::seen_ms;
use super::measure::{Taken, percentile, run};
use super::report::{Report, Table, Target, ratio};
use super::service::Service;
use super::site::Site;
use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Seconds of a day.
const DAY_S: u64 = 86_400;

/// Millions of clicks of a day that must be recounted within a bound, and those that DuckDB recounts as well.
const MILLIONS: u64 = 50;

/// Lines whose minute is final when they are read.
const LATE: &str = "0.1%";

/// Pause between two clicks that are waited for.
const PROBE_EVERY: Duration = Duration::from_millis(200);

/// Reads a day of clicks, some of them late, into the data directory. All its minutes are final then.
fn read_day(site: &Site, clicks: u64) -> Result<(), String> {
    let log = site.path("day.ndjson");
    let rate = (clicks as f64 / DAY_S as f64).to_string();
    site.generate(&log, clicks, &["--rate", &rate, "--late", LATE], false)?;
    super::whole::count(site, &log)?;
    fs::remove_file(&log).map_err(|error| format!("cannot remove {}: {error}", log.display()))
}

fn reconcile(site: &Site, more: &[&str]) -> Command {
    let mut command = Command::new(site.program());
    command.args(["reconcile", "--json", "--data-dir"]).arg(site.data()).args(more);
    command
}

/// Recounts days of some millions of clicks, and days of [`MILLIONS`] and `beside_live` millions in other ways.
pub(super) fn of_a_day(site: &Site, millions: &[u64], beside_live: u64, report: &mut Report) -> Result<(), String> {
    let mut table = Table::new(&["what", "seconds", "processor seconds", "microseconds per click", "MiB"]);
    let mut row = |what: &str, clicks: u64, taken: &Taken| {
        let Taken { wall_s, cpu_s, resident_mib, .. } = taken;
        eprintln!("{what}: {wall_s:.2} s, {cpu_s:.2} s of the processor, {resident_mib} MiB");
        let each = wall_s * 1e6 / clicks as f64;
        let (wall, cpu) = (format!("{wall_s:.2}"), format!("{cpu_s:.2}"));
        table.row(&[what, &wall, &cpu, &format!("{each:.3}"), &resident_mib.to_string()]);
        each
    };
    let mut each: Vec<f64> = Vec::new();
    let mut most_mib = 0;
    for &million in millions {
        read_day(site, million * 1_000_000)?;
        let taken = run(&mut reconcile(site, &[]))?;
        each.push(row(&format!("{million} million clicks"), million * 1_000_000, &taken));
        most_mib = most_mib.max(taken.resident_mib);
        if million == MILLIONS {
            report.target(
                &format!("recount of {MILLIONS} million clicks"),
                taken.wall_s,
                " s",
                Target::AtMost(60.0, 40.0),
            );
            let mut again = run(&mut reconcile(site, &["--dry-run", "--from", "2000-01-01T00:00:00Z"]))?;
            again.resident_mib = again.resident_mib.max(taken.resident_mib);
            let mut command = site.python("duckdb_reconcile.py")?;
            let queries = site.root().join("crates/reconcile/src/recount/sql");
            let theirs = run(command.arg(site.data().join("lake")).arg(queries))?;
            row(&format!("{million} million clicks, DuckDB"), million * 1_000_000, &theirs);
            let name = "recount, faster than DuckDB with the same queries";
            report.target_beside_others(name, theirs.wall_s / again.wall_s, "x", Target::AtLeast(0.7, 1.0));
            eprintln!("recounted again: {:.2} s, {}", again.wall_s, ratio(theirs.wall_s, again.wall_s));
        }
    }
    report.target("memory of a recount", most_mib as f64, " MiB", Target::AtMost(2_048.0, 1_024.0));
    let (least, most) = each.iter().fold((f64::MAX, 0.0_f64), |(least, most), &each| (least.min(each), most.max(each)));
    let amounts: Vec<String> = millions.iter().map(u64::to_string).collect();
    let name = format!("recount, time per click, {} million clicks, largest / smallest", amounts.join(", "));
    report.target(&name, most / least, "x", Target::AtMost(1.3, 1.1));
    let after = if beside_live > 0 { beside_the_mission_rate(site, beside_live, report)? } else { String::new() };
    report.section(
        "Recount",
        &format!(
            "`adtally reconcile` over a day of clicks, of which {LATE} are late: these become corrections. One run each. DuckDB \
             runs the same SQL files over the same lake, in slices of the same size and with the same memory."
        ),
        table,
        &after,
    );
    Ok(())
}

/// Counts at the mission's rate while a service recounts a day.
fn beside_the_mission_rate(site: &Site, millions: u64, report: &mut Report) -> Result<String, String> {
    read_day(site, millions * 1_000_000)?;
    let log = site.path("live.ndjson");
    File::create(&log).map_err(|error| format!("cannot write {}: {error}", log.display()))?;
    let service = Service::start(site, &log)?;
    let feeder = Feeder::start(vec![log]);
    let mut client = service.client()?;
    // The first clicks of an input have no watermark.
    for probe in 0..5 {
        seen_ms(&mut client, feeder.probes(), probe)?;
    }
    let mut command = reconcile(site, &[]);
    let began = crate::soak::now();
    let asked = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
    let mut asked = asked.map_err(|error| format!("cannot run adtally reconcile: {error}"))?;
    let mut seen = Vec::new();
    let status = loop {
        seen.push(seen_ms(&mut client, feeder.probes(), 5 + seen.len() as u64)?);
        if let Some(status) = asked.try_wait().map_err(|error| format!("cannot wait for adtally reconcile: {error}"))? {
            break status;
        }
        std::thread::sleep(PROBE_EVERY);
    };
    let wall_s = (crate::soak::now() - began).as_secs_f64();
    feeder.stop()?;
    if !status.success() {
        return Err(format!("adtally reconcile: {status}"));
    }
    let (median, p99, most) = (percentile(&mut seen, 50), percentile(&mut seen, 99), percentile(&mut seen, 100));
    let resident = service.taken().resident_mib;
    let what = format!("from a line's append to its count while {millions} million clicks are recounted, p99");
    report.target(&what, p99, " ms", Target::AtMost(1_000.0, 200.0));
    let text = format!(
        "While a service that is fed at the mission's rate recounted {millions} million clicks in {wall_s:.0} s, {} clicks were \
         waited for: from append to count, the median was {median:.1} ms, p99 {p99:.1} ms, and the most {most:.1} ms. The service \
         took at most {resident} MiB.",
        seen.len()
    );
    eprintln!("{text}");
    Ok(text)
}
