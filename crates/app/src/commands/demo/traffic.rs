//! The traffic of the demo: a log that grows as fast as it would in production, and is rotated.

use super::DemoArgs;
use adtally_engine::clock::{Clock, SystemClock};
use adtally_generate::{Amount, Format, Generator, Line, Settings};
use adtally_model::time::rfc3339;
use adtally_model::{Error, Minute, Result};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Event time before the start of the demo, so that there are closed minutes at once.
const HISTORY_MS: i64 = 3 * 60_000;

/// How often the log is rotated.
pub(super) const ROTATE_MS: i64 = 20_000;

/// Rotated files that are kept; older ones are deleted, as a log rotation would.
const FILES_KEPT: usize = 12;

/// How often the writer appends, like the log of a busy server.
const APPEND_PAUSE: Duration = Duration::from_millis(20);

/// Most bytes of lines that are appended at once, while the writer catches up with the clock.
const APPEND_BYTES_MAX: usize = 1 << 20;

/// Total lines of the generator: days of traffic.
const LINES_MAX: u64 = 4_000_000_000;

/// The settings of the traffic. The first minute is a complete one.
pub(super) fn traffic(args: &DemoArgs) -> Settings {
    Settings {
        amount: Amount::Lines(LINES_MAX),
        seed: 1,
        rate: args.rate,
        ads: args.ads,
        duplicates: 0.01,
        exact_copies: false,
        late: 0.000_5,
        malformed: 0.000_5,
        invalid: 0.000_2,
        click_ids: 0.0,
        out_of_order_ms: 2_000,
        start_ms: Minute::of(SystemClock.wall_ms() - HISTORY_MS).start_ms(),
        format: Format::Ndjson,
    }
}

/// The thread that writes and rotates the log; dropping it stops it.
pub(super) struct Writer {
    thread: Option<JoinHandle<Result<()>>>,
    stop: Arc<AtomicBool>,
    #[cfg(feature = "scale-out")]
    written: Arc<Written>,
}

/// What is in the log.
#[derive(Debug, Default)]
pub(super) struct Written {
    lines: AtomicU64,
    malformed: AtomicU64,
    invalid: AtomicU64,
}

impl Writer {
    /// Starts the thread. It writes until `stop` is set.
    ///
    /// # Errors
    /// External when no thread can be started.
    pub(super) fn start(generator: Generator, logs: &Path, stop: &Arc<AtomicBool>) -> Result<Writer> {
        let written = Arc::new(Written::default());
        let thread = {
            let (logs, stop, written) = (logs.to_path_buf(), Arc::clone(stop), Arc::clone(&written));
            std::thread::Builder::new()
                .name("demo-log".into())
                .spawn(move || write_log(generator, &logs, &stop, &written))
                .map_err(|e| Error::external("the log writer cannot be started").because(e))?
        };
        Ok(Writer {
            thread: Some(thread),
            stop: Arc::clone(stop),
            #[cfg(feature = "scale-out")]
            written,
        })
    }

    /// Whether it has ended, which it only does when it is stopped or fails.
    pub(super) fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Stops it, and waits until the last line is written.
    ///
    /// # Errors
    /// The error that ended it before.
    pub(super) fn stop(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().map_err(|_| Error::internal("the log writer panicked; its message is above"))?
    }
}

#[cfg(feature = "scale-out")]
impl Writer {
    /// What it has written so far.
    pub(super) fn written(&self) -> Arc<Written> {
        Arc::clone(&self.written)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its error was not asked for.
            drop(thread.join());
        }
    }
}

#[cfg(feature = "scale-out")]
impl Written {
    /// The lines.
    pub(super) fn lines(&self) -> u64 {
        self.lines.load(Ordering::Relaxed)
    }

    /// The lines that are not clicks: malformed, and invalid.
    pub(super) fn rejected(&self) -> (u64, u64) {
        (self.malformed.load(Ordering::Relaxed), self.invalid.load(Ordering::Relaxed))
    }
}

/// Appends due lines to `clicks.log`, and renames it at intervals.
fn write_log(mut generator: Generator, logs: &Path, stop: &AtomicBool, written: &Written) -> Result<()> {
    let path = logs.join("clicks.log");
    let failed = |e: std::io::Error| Error::external("the log of the demo cannot be written").because(e);
    let mut file = File::create(&path).map_err(failed)?;
    let mut rotated: Vec<PathBuf> = Vec::new();
    let mut rotate_at_ms = SystemClock.monotonic_ms() + ROTATE_MS;
    let mut lines = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        lines.clear();
        let [mut count, mut malformed, mut invalid] = [0; 3];
        while generator.event_time_ms() <= SystemClock.wall_ms() && lines.len() < APPEND_BYTES_MAX {
            if !generator.next_line(&mut lines) {
                break;
            }
            count += 1;
            match generator.last() {
                Line::Click(_) => {}
                Line::Malformed => malformed += 1,
                Line::Invalid => invalid += 1,
            }
        }
        file.write_all(&lines).map_err(failed)?;
        for (total, more) in [(&written.lines, count), (&written.malformed, malformed), (&written.invalid, invalid)] {
            total.fetch_add(more, Ordering::Relaxed);
        }
        if SystemClock.monotonic_ms() >= rotate_at_ms {
            rotate_at_ms += ROTATE_MS;
            let name = format!("clicks.log.{}", rfc3339(SystemClock.wall_ms()).replace([':', '.'], "-"));
            rotated.push(logs.join(name));
            if let Some(newest) = rotated.last() {
                std::fs::rename(&path, newest).map_err(failed)?;
            }
            file = File::create(&path).map_err(failed)?;
            if rotated.len() > FILES_KEPT {
                std::fs::remove_file(rotated.remove(0)).map_err(failed)?;
            }
        }
        if lines.len() < APPEND_BYTES_MAX {
            std::thread::sleep(APPEND_PAUSE);
        }
    }
    Ok(())
}
