//! Servers that log clicks at the mission's rate, with the present time.

use crate::soak::now;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::time::Duration;

/// Lines per second for a billion clicks a day.
pub(super) const RATE: u64 = 11_574;

/// How often lines are appended to a single log.
const APPEND_EVERY: Duration = Duration::from_millis(10);

/// How often lines are appended to several logs: each time, most of them get one.
const APPEND_TO_MANY_EVERY: Duration = Duration::from_millis(100);

/// Feeds logs at the mission's rate until it is stopped.
pub(super) struct Feeder {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    probes: Sender<u64>,
    thread: std::thread::JoinHandle<std::io::Result<()>>,
}

impl Feeder {
    /// Divides the lines among these files, which exist.
    pub(super) fn start(logs: Vec<PathBuf>) -> Feeder {
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (probes, waiting) = std::sync::mpsc::channel::<u64>();
        let thread = {
            let (stop, written) = (Arc::clone(&stop), Arc::clone(&written));
            std::thread::spawn(move || feed(&logs, &stop, &written, &waiting))
        };
        Feeder { stop, written, probes, thread }
    }

    /// Takes the ads whose clicks are waited for.
    pub(super) fn probes(&self) -> &Sender<u64> {
        &self.probes
    }

    /// The lines that were written so far.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// Stops, and returns the number of lines that were written.
    pub(super) fn stop(self) -> Result<u64, String> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(fed) => fed.map_err(|error| format!("cannot feed a log: {error}"))?,
            Err(_) => return Err("the feeder panicked".to_owned()),
        }
        Ok(self.written.load(Ordering::Acquire))
    }
}

/// Appends lines whose event time is now to the logs in turn, and the clicks to wait for to the first.
fn feed(logs: &[PathBuf], stop: &AtomicBool, written: &AtomicU64, waiting: &Receiver<u64>) -> std::io::Result<()> {
    let mut open: Vec<(File, Vec<u8>)> = Vec::new();
    for log in logs {
        open.push((File::options().append(true).open(log)?, Vec::new()));
    }
    let pause = if open.len() > 1 { APPEND_TO_MANY_EVERY } else { APPEND_EVERY };
    let began = now();
    let (mut made, mut probes, mut random) = (0_u64, 0_u64, 88_172_645_463_325_252_u64);
    while !stop.load(Ordering::Relaxed) {
        let at = now();
        let due = (at - began).as_millis() as u64 * RATE / 1_000;
        while made < due {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // Cubing a fraction gives few ads most of the clicks.
            let fraction = (random >> 32) as f64 / 4_294_967_296.0;
            let ad = (fraction * fraction * fraction * 2e6) as u64;
            let turn = (made % open.len() as u64) as usize;
            line(&mut open[turn].1, at, ad, random)?;
            made += 1;
        }
        while let Ok(ad) = waiting.try_recv() {
            line(&mut open[0].1, at, ad, random)?;
            probes += 1;
        }
        for (file, text) in &mut open {
            if !text.is_empty() {
                file.write_all(text)?;
                text.clear();
            }
        }
        written.store(made + probes, Ordering::Release);
        std::thread::sleep(pause);
    }
    Ok(())
}

fn line(text: &mut Vec<u8>, at: Duration, ad: u64, random: u64) -> std::io::Result<()> {
    let country = ["US", "DE", "IN", "BR", "GB", "FR", "JP", "NG"][(random >> 5) as usize % 8];
    let ip = (random >> 8) as u32;
    writeln!(
        text,
        "{{\"click_timestamp\":{},\"ad_id\":{ad},\"user_id\":\"u{:07x}\",\"ip\":\"{}\",\"country\":\"{country}\"}}",
        at.as_millis(),
        random >> 36,
        std::net::Ipv4Addr::from_bits(ip),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_log_gets_its_share_and_every_line_is_counted() {
        let folder = std::env::temp_dir().join(format!("adtally-feeder-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let logs: Vec<PathBuf> = (0..3).map(|number| folder.join(format!("{number}.ndjson"))).collect();
        logs.iter().for_each(|log| drop(File::create(log).unwrap()));
        let feeder = Feeder::start(logs.clone());
        (0..1_000).take_while(|_| feeder.written() == 0).for_each(|_| std::thread::sleep(APPEND_EVERY));
        let written = feeder.stop().unwrap();
        let lines = logs.iter().map(|log| std::fs::read_to_string(log).unwrap().lines().count() as u64);
        let lines: Vec<u64> = lines.collect();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(lines.iter().sum::<u64>(), written);
        assert!(lines.iter().max().unwrap() - lines.iter().min().unwrap() <= 1, "{lines:?}");
    }
}
