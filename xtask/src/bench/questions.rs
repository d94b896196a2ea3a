//! Questions about an hour of clicks, sent over HTTP to a service that has just started.

use super::measure::percentile;
use super::report::{Report, Table, Target};
use super::service::Service;
use super::site::Site;
use super::whole;
use crate::soak::now;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::time::Duration;

/// How often each question is asked.
const TIMES: usize = 40;

/// Slower answers are not from memory alone.
const MEMORY_MS: f64 = 50.0;

/// Maximum time to load the hot minutes.
const LOAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Ads of the hour.
const ADS: &str = "1000000";

/// Values of some clicks of the log, for questions.
#[derive(Default)]
struct Sample {
    ads: Vec<String>,
    users: Vec<String>,
    addresses: Vec<String>,
}

/// Counts an hour of `clicks` clicks and sends the questions.
pub(super) fn of_an_hour(site: &Site, clicks: u64, report: &mut Report) -> Result<(), String> {
    let log = site.path("hour.ndjson");
    let rate = (clicks / 3_600).max(1).to_string();
    site.generate(&log, clicks, &["--ads", ADS, "--rate", &rate], false)?;
    let sample = sample(&log, clicks)?;
    let taken = whole::count(site, &log)?;
    eprintln!("{clicks} clicks counted in {:.1} s, {} MiB", taken.wall_s, taken.resident_mib);
    fs::remove_file(&log).map_err(|error| format!("cannot remove {}: {error}", log.display()))?;
    fs::write(&log, "").map_err(|error| format!("cannot write {}: {error}", log.display()))?;
    let rows = site.count_rows()?;
    let bytes = folder_bytes(&site.data().join("lake/clicks"));

    let service = Service::start(site, &log)?;
    let mut client = service.client()?;
    let mut table = Table::new(&["question", "median, ms", "p99, ms"]);
    let top = "/ads/top100?minutes=60";
    let first_ms = client.ask(top)?.1;
    let began = now();
    // Older minutes are being loaded from the lake, which answers for them until then.
    while client.ask(top)?.1 > first_ms.max(MEMORY_MS) / 2.0 {
        if now() - began > LOAD_TIMEOUT {
            return Err("the hot minutes are not loaded".to_owned());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let loaded_s = (now() - began).as_secs_f64();
    eprintln!("{first_ms:.0} ms at first, loaded after {loaded_s:.2} s");
    table.row(&["top 100 of 60 minutes, right after a restart", &format!("{first_ms:.2}"), ""]);
    let mut ask = |what: &str, path: &dyn Fn(usize) -> String, target: Option<Target>| -> Result<(), String> {
        let mut times = Vec::new();
        for number in 0..TIMES {
            times.push(client.ask(&path(number))?.1);
        }
        let (median, p99) = (percentile(&mut times, 50), percentile(&mut times, 99));
        eprintln!("{what}: {median:.2} ms, p99 {p99:.2} ms");
        table.row(&[what, &format!("{median:.2}"), &format!("{p99:.2}")]);
        if let Some(target) = target {
            report.target(what, median, " ms", target);
        }
        Ok(())
    };
    let of = |values: &[String], number: usize| values[number * values.len() / TIMES].clone();
    ask("top 100 of 60 minutes", &|_| top.to_owned(), Some(Target::AtMost(25.0, 10.0)))?;
    ask("top 100 of 43 minutes", &|_| "/ads/top100?minutes=43".to_owned(), None)?;
    ask("top 100 of 60 minutes from one country", &|_| "/ads/top100?minutes=60&filter_country=US".to_owned(), None)?;
    ask(
        "one ad over 60 minutes",
        &|number| format!("/ads/{}/clicks?minutes=60", of(&sample.ads, number)),
        Some(Target::AtMost(1.0, 0.3)),
    )?;
    ask(
        "top 100 of one user",
        &|number| format!("/ads/top100?minutes=60&filter_user_id={}", of(&sample.users, number)),
        Some(Target::AtMost(500.0, 100.0)),
    )?;
    ask(
        "top 100 of one address",
        &|number| format!("/ads/top100?minutes=60&filter_ip={}", of(&sample.addresses, number)),
        Some(Target::AtMost(500.0, 100.0)),
    )?;
    let resident = service.taken().resident_mib;
    let ready = service.ready_s;
    drop(service);
    let bytes_each = bytes as f64 / clicks as f64;
    report.target("bytes per raw click", bytes_each, "", Target::AtMost(22.0, 18.0));
    report.target("restart", ready, " s", Target::AtMost(3.0, 1.0));
    report.section(
        "Questions",
        &format!(
            "{clicks} clicks of {ADS} ads in an hour, {rows} rows of counts. Each question is asked {TIMES} times, \
             one after another, over one HTTP connection. No answer is cached."
        ),
        table,
        &format!(
            "The raw clicks take {bytes_each:.2} bytes each in the lake, Bloom filters included. The service was \
             ready {ready:.2} s after its start, had loaded all hot minutes {loaded_s:.2} s after the first answer, \
             and took at most {resident} MiB."
        ),
    );
    Ok(())
}

fn sample(log: &std::path::Path, clicks: u64) -> Result<Sample, String> {
    let failed = |error: std::io::Error| format!("cannot read {}: {error}", log.display());
    let lines = BufReader::with_capacity(1 << 20, File::open(log).map_err(failed)?).lines();
    let mut sample = Sample::default();
    for line in lines.step_by((clicks / 200).max(1) as usize) {
        let line = line.map_err(failed)?;
        for (name, values) in
            [("ad_id", &mut sample.ads), ("user_id", &mut sample.users), ("ip", &mut sample.addresses)]
        {
            values.extend(super::http::field(&line, name).map(str::to_owned));
        }
    }
    Ok(sample)
}

fn folder_bytes(folder: &std::path::Path) -> u64 {
    let mut bytes = 0;
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        bytes += match entry.file_name() == "_delta_log" {
            true => 0,
            false if metadata.is_dir() => folder_bytes(&entry.path()),
            false => metadata.len(),
        };
    }
    bytes
}
