//! Workers that read a filled topic from its beginning: their rate, and their processor time.

use super::answers::progress;
use super::cluster::{Cluster, TAKEN_OVER, wait_for};
use super::{Figures, Goal};
use crate::bench::measure::{median, run};
use crate::bench::service::Service;
use crate::soak::now;
use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

/// Settings of these workers. At the default of 10 s, a run of 10 s would mostly wait for the end of its last epoch. Epochs of
/// full size take half a second.
const SETTINGS: [(&str, &str); 1] = [("ADTALLY_EPOCH__INTERVAL", "1s")];

/// How often to ask whether everything is committed.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Share of duplicates in the lines.
const DUPLICATES: &str = "1%";

/// Partitions and workers among which the same clicks are divided.
const DIVISIONS: [u32; 3] = [1, 2, 4];

/// How the lines of a topic are packed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Packing {
    /// Many lines in a record.
    Packed,
    /// One line in a record.
    Single,
}

/// The use of workers that read a topic.
#[derive(Clone, Copy, Debug)]
struct Reading {
    /// From the first read to the last commit.
    wall_s: f64,
    /// Processor time of all workers, without their start.
    cpu_s: f64,
    /// The most memory of one of them.
    resident_mib: u64,
}

/// Filled topics, and what was measured with them.
pub(super) struct Readings<'a> {
    cluster: &'a Cluster<'a>,
    clicks: u64,
    rounds: usize,
    topics: BTreeMap<(Packing, u32), String>,
    packed: BTreeMap<u32, Vec<Reading>>,
    /// Processor time until a worker begins to read.
    start_cpu_s: Option<f64>,
}

impl<'a> Readings<'a> {
    /// No topics yet. Packed topics will have so many clicks, the others a fifth of them.
    pub(super) fn new(cluster: &'a Cluster<'a>, clicks: u64, rounds: usize) -> Readings<'a> {
        let (topics, packed) = (BTreeMap::new(), BTreeMap::new());
        Readings { cluster, clicks, rounds, topics, packed, start_cpu_s: None }
    }

    fn lines(&self, packing: Packing) -> u64 {
        match packing {
            Packing::Packed => self.clicks,
            Packing::Single => (self.clicks / 5).max(1),
        }
    }

    /// A topic with all lines.
    fn topic(&mut self, packing: Packing, partitions: u32) -> Result<String, String> {
        if let Some(topic) = self.topics.get(&(packing, partitions)) {
            return Ok(topic.clone());
        }
        let (site, lines) = (self.cluster.site(), self.lines(packing));
        let log = site.path("fill.ndjson");
        site.generate(&log, lines, &["--duplicates", DUPLICATES], false)?;
        let topic = self.cluster.topic(partitions)?;
        self.cluster.fill(&topic, &log, packing == Packing::Single)?;
        fs::remove_file(&log).map_err(|error| format!("cannot remove {}: {error}", log.display()))?;
        eprintln!("{lines} lines are in {topic}, {packing:?}, {partitions} partitions");
        self.topics.insert((packing, partitions), topic.clone());
        Ok(topic)
    }

    /// Processor time of a worker until it begins to read.
    fn start_cpu_s(&mut self) -> Result<f64, String> {
        if let Some(cpu_s) = self.start_cpu_s {
            return Ok(cpu_s);
        }
        let cluster = self.cluster;
        let topic = cluster.topic(1)?;
        let deployment = cluster.deployment(&topic);
        let workers = deployment.workers(1, &SETTINGS)?;
        let cpu_s = wait_for("a worker to begin", LOOK_EVERY, || {
            Ok(workers.first().filter(|worker| worker.said_at(TAKEN_OVER).is_some()).map(|worker| worker.taken().cpu_s))
        })?;
        eprintln!("the start of a worker: {cpu_s:.2} s of the processor");
        self.start_cpu_s = Some(cpu_s);
        Ok(cpu_s)
    }

    /// Reads a topic with new workers.
    fn read(&mut self, packing: Packing, partitions: u32, number: u32) -> Result<Reading, String> {
        let (topic, lines, start_cpu_s) = (self.topic(packing, partitions)?, self.lines(packing), self.start_cpu_s()?);
        let deployment = self.cluster.deployment(&topic);
        let mut workers = deployment.workers(number, &SETTINGS)?;
        wait_for("all lines to be committed", LOOK_EVERY, || {
            let read: u64 = progress(&mut workers)?.values().map(|of| of.read).sum();
            if read > lines {
                return Err(format!("{read} lines were read of {lines}"));
            }
            Ok((read == lines).then_some(()))
        })?;
        let ended = now();
        let began = workers.iter().filter_map(|worker| worker.said_at(TAKEN_OVER)).min();
        let taken: Vec<_> = workers.iter().map(Service::taken).collect();
        let reading = Reading {
            wall_s: (ended - began.ok_or("no worker said that it begins")?).as_secs_f64(),
            cpu_s: taken.iter().map(|taken| taken.cpu_s - start_cpu_s).sum(),
            resident_mib: taken.iter().map(|taken| taken.resident_mib).max().unwrap_or_default(),
        };
        eprintln!("{packing:?}, {partitions} partitions, {number} workers: {reading:?}");
        Ok(reading)
    }

    /// Reads packed clicks in so many partitions with as many workers, in each round once.
    fn packed(&mut self, partitions: u32) -> Result<Vec<Reading>, String> {
        if let Some(readings) = self.packed.get(&partitions) {
            return Ok(readings.clone());
        }
        let mut readings = Vec::new();
        for _ in 0..self.rounds {
            readings.push(self.read(Packing::Packed, partitions, partitions)?);
        }
        self.packed.insert(partitions, readings.clone());
        Ok(readings)
    }

    /// Part a: one worker and one partition.
    pub(super) fn alone(&mut self, figures: &mut Figures) -> Result<(), String> {
        let readings = self.packed(1)?;
        let millions = self.clicks as f64 / 1e6;
        let rate = millions / median(readings.iter().map(|reading| reading.wall_s).collect());
        let cpu_s = median(readings.iter().map(|reading| reading.cpu_s).collect()) / millions;
        let mib = readings.iter().map(|reading| reading.resident_mib).max().unwrap_or_default();
        figures.add(
            "a: one worker, one partition, packed records, clicks per second",
            rate,
            " million",
            Some(Goal::AtLeast(0.9)),
        );
        figures.add("a: its processor time for a million clicks", cpu_s, " s", None);
        figures.add("a: its memory", mib as f64, " MiB", None);
        Ok(())
    }

    /// Part b: one worker, and a consumer that only counts records, in turn.
    pub(super) fn beside_a_bare_consumer(&mut self, figures: &mut Figures) -> Result<(), String> {
        let topic = self.topic(Packing::Single, 1)?;
        let (mut bare, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            let counted = run(&mut self.cluster.bare_consumer(&topic, 1))?;
            eprintln!("bare consumer: {}", counted.stdout.trim());
            bare.push(rate_of(&counted.stdout)?);
            let reading = self.read(Packing::Single, 1, 1)?;
            ours.push(self.lines(Packing::Single) as f64 / reading.wall_s);
        }
        let (bare, ours) = (median(bare), median(ours));
        figures.add("b: bare consumer, records per second", bare / 1e6, " million", None);
        figures.add("b: one worker, records of one line, clicks per second", ours / 1e6, " million", None);
        figures.add("b: the worker's rate beside the bare consumer's", ours / bare, "x", Some(Goal::AtLeast(0.6)));
        Ok(())
    }

    /// Part c: the same clicks in more partitions with more workers.
    pub(super) fn divided(&mut self, figures: &mut Figures) -> Result<(), String> {
        let mut all = Vec::new();
        for partitions in DIVISIONS {
            let cpu_s = self.packed(partitions)?.iter().map(|reading| reading.cpu_s).collect();
            let cpu_s = median(cpu_s) / (self.clicks as f64 / 1e6);
            let what = format!("c: processor time for a million clicks, partitions and workers: {partitions}");
            figures.add(&what, cpu_s, " s", None);
            all.push(cpu_s);
        }
        let (least, most) =
            all.iter().fold((f64::MAX, 0.0_f64), |(least, most), &cpu_s| (least.min(cpu_s), most.max(cpu_s)));
        figures.add("c: largest / smallest of these times", most / least, "x", Some(Goal::AtMost(1.3)));
        Ok(())
    }
}

/// The rate that the bare consumer prints last.
fn rate_of(stdout: &str) -> Result<f64, String> {
    let rate = stdout.trim().strip_suffix(" records/s").and_then(|text| text.rsplit(' ').next()?.parse().ok());
    rate.ok_or_else(|| format!("the bare consumer printed {stdout}"))
}

#[cfg(test)]
mod tests {
    use super::rate_of;

    #[test]
    fn the_rate_is_the_last_number() {
        assert_eq!(rate_of("10 records, 90 bytes, 0.5 s, 20 records/s\n"), Ok(20.0));
        assert!(rate_of("").is_err());
    }
}
