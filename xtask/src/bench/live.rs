//! The service at the mission's rate: how soon a click is visible, how soon a minute is closed, and the cost.

use super::feeder::{Feeder, RATE};
use super::http::{Client, field};
use super::measure::percentile;
use super::report::{Report, Table, Target};
use super::service::Service;
use super::site::Site;
use crate::soak::now;
use std::fs::File;
use std::sync::mpsc::Sender;
use std::time::Duration;

/// The first ad of the clicks to wait for; no other lines have ads from here on.
const PROBES_FROM: u64 = 1 << 40;

/// How long the service runs before it is measured.
const WARM_UP: Duration = Duration::from_secs(15);

/// Feeds the service for some minutes and measures it.
pub(super) fn at_the_mission_rate(site: &Site, minutes: u64, report: &mut Report) -> Result<(), String> {
    site.fresh(&site.data())?;
    let log = site.path("live.ndjson");
    File::create(&log).map_err(|error| format!("cannot write {}: {error}", log.display()))?;
    let service = Service::start(site, &log)?;
    let feeder = Feeder::start(vec![log]);
    let outcome = watch(&service, minutes, feeder.probes());
    feeder.stop()?;
    let measured = outcome?;
    let Measured { cpu_percent, mut seen_ms, mut closed_s } = measured;
    let resident = service.taken().resident_mib;
    let mut table = Table::new(&["what", "times", "median", "p99"]);
    let mut row = |what: &str, values: &mut [f64], unit: &str, target: Target| {
        let (median, p99) = (percentile(values, 50), percentile(values, 99));
        eprintln!("{what}: {} times, {median:.1} {unit}, p99 {p99:.1} {unit}", values.len());
        let times = values.len().to_string();
        table.row(&[what, &times, &format!("{median:.1} {unit}"), &format!("{p99:.1} {unit}")]);
        report.target(&format!("{what}, p99"), p99, &format!(" {unit}"), target);
    };
    row("from a line's append to its count with `include_open`", &mut seen_ms, "ms", Target::AtMost(1_000.0, 200.0));
    row("from a minute's end to its closed answer", &mut closed_s, "s", Target::AtMost(15.0, 7.0));
    report.target("processor use at 1 billion clicks a day, of a core", cpu_percent, " %", Target::AtMost(25.0, 5.0));
    eprintln!("{cpu_percent:.1} % of a core, {resident} MiB");
    report.section(
        "At 1 billion clicks a day",
        &format!("{RATE} lines per second of 2,000,000 ads are appended to one file for {minutes} minutes."),
        table,
        &format!(
            "The service took {cpu_percent:.1} % of one core without questions, and at most {resident} MiB. \
             `out_of_orderness` is 5 s of the time to the closed answer."
        ),
    );
    Ok(())
}

struct Measured {
    cpu_percent: f64,
    seen_ms: Vec<f64>,
    closed_s: Vec<f64>,
}

fn watch(service: &Service, minutes: u64, probes: &Sender<u64>) -> Result<Measured, String> {
    std::thread::sleep(WARM_UP);
    // Two full intervals between commits to the lake, without questions.
    let (began, cpu) = (now(), service.taken().cpu_s);
    std::thread::sleep(Duration::from_secs(60 * minutes.div_ceil(2).max(1)));
    let cpu_percent = (service.taken().cpu_s - cpu) / (now() - began).as_secs_f64() * 100.0;

    let mut client = service.client()?;
    let (mut seen_ms, mut closed_s) = (Vec::new(), Vec::new());
    let mut last_to = String::new();
    let end = now() + Duration::from_secs(60 * minutes.div_ceil(2).max(1));
    for probe in 0.. {
        if now() >= end {
            break;
        }
        seen_ms.push(self::seen_ms(&mut client, probes, probe)?);
        for _ in 0..5 {
            std::thread::sleep(Duration::from_millis(40));
            let (answer, _) = client.ask("/ads/0/clicks?minutes=1")?;
            let to = field(&answer, "to").unwrap_or_default().to_owned();
            if !last_to.is_empty() && to != last_to {
                // UTC minutes end where the seconds since the Unix epoch are a multiple of 60.
                closed_s.push(now().as_secs_f64() % 60.0);
            }
            last_to = to;
        }
    }
    Ok(Measured { cpu_percent, seen_ms, closed_s })
}

/// Appends a click of its own ad. Returns the time until it is counted, in milliseconds.
pub(super) fn seen_ms(client: &mut Client, probes: &Sender<u64>, probe: u64) -> Result<f64, String> {
    let appended = now();
    probes.send(PROBES_FROM + probe).map_err(|_| "the feeder is gone".to_owned())?;
    let path = format!("/ads/{}/clicks?minutes=2&include_open=true", PROBES_FROM + probe);
    while field(&client.ask(&path)?.0, "clicks") != Some("1") {
        std::thread::sleep(Duration::from_millis(2));
        if now() - appended > Duration::from_secs(10) {
            return Err(format!("the click of ad {} is not seen after 10 s", PROBES_FROM + probe));
        }
    }
    Ok((now() - appended).as_secs_f64() * 1e3)
}
