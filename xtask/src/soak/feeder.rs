//! A server that logs clicks: appends due lines by the clock, and rotates its log every minute.

use super::now;
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often it writes.
const PAUSE: Duration = Duration::from_millis(50);

/// How often it rotates.
const ROTATE_EVERY: Duration = Duration::from_secs(60);

/// Rotated files that are kept: readers have this many minutes.
const ROTATED_KEPT: usize = 6;

/// The generated lines, in the order in which they are logged.
pub(super) const GENERATED: &str = "generated.ndjson";

/// Writes on a separate thread.
pub(super) struct Feeder {
    thread: JoinHandle<Result<(), String>>,
    done: Arc<AtomicBool>,
}

impl Feeder {
    /// Starts writing `rate` lines per second at `start`, a time since the Unix epoch.
    pub(super) fn start(folder: &Path, rate: u64, start: Duration) -> Result<Feeder, String> {
        let path = folder.join(GENERATED);
        let generated = File::open(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let (logs, done) = (folder.join("logs"), Arc::new(AtomicBool::new(false)));
        let flag = Arc::clone(&done);
        let thread = std::thread::spawn(move || {
            let written = write(BufReader::with_capacity(1 << 20, generated), &logs, rate, start);
            flag.store(true, Ordering::Release);
            written.map_err(|error| format!("cannot write the log: {error}"))
        });
        Ok(Feeder { thread, done })
    }

    /// Whether writing has finished or failed.
    pub(super) fn is_done(&self) -> Result<bool, String> {
        Ok(self.done.load(Ordering::Acquire))
    }

    /// Waits for the end.
    pub(super) fn finish(self) -> Result<(), String> {
        self.thread.join().map_err(|_| "the writer of the log panicked".to_owned())?
    }
}

fn write(mut generated: impl BufRead, logs: &Path, rate: u64, start: Duration) -> std::io::Result<()> {
    let path = logs.join("clicks.log");
    let mut file = File::create(&path)?;
    let mut rotated: VecDeque<PathBuf> = VecDeque::new();
    let (mut written, mut rotations) = (0, 0_u32);
    let mut rotate_at = start + ROTATE_EVERY;
    let mut lines = Vec::new();
    loop {
        let elapsed = now().saturating_sub(start);
        let due = (elapsed.as_secs_f64() * rate as f64) as u64;
        lines.clear();
        while written < due {
            if generated.read_until(b'\n', &mut lines)? == 0 {
                return file.write_all(&lines);
            }
            written += 1;
        }
        file.write_all(&lines)?;
        if now() >= rotate_at {
            rotate_at += ROTATE_EVERY;
            rotations += 1;
            let aside = logs.join(format!("clicks.log.{rotations}"));
            fs::rename(&path, &aside)?;
            file = File::create(&path)?;
            rotated.push_back(aside);
            if rotated.len() > ROTATED_KEPT
                && let Some(oldest) = rotated.pop_front()
            {
                fs::remove_file(oldest)?;
            }
        }
        std::thread::sleep(PAUSE);
    }
}
