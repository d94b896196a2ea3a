//! Stops commands on signals, and removes the temporary folder that must not outlive them.

use crate::exit::Exit;
use crate::terminal;
use adtally_model::{Error, Result};
use parking_lot::Mutex;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

/// Removes a folder and exits with a code; further signals do not interrupt it.
const REMOVE: &str = "trap '' HUP INT TERM; rm -rf -- \"$0\"; exit \"$1\"";

/// Maximum time from a stop request to the end of the command. Container runtimes kill ten seconds after a SIGTERM.
/// Commits, the lake and clients share eight seconds; the rest is for threads that hang, as on a dead mount.
const STOP_TIMEOUT: Duration = Duration::from_millis(9_500);

/// The effect of signals on a command: the first SIGINT, SIGTERM or SIGHUP asks it to stop. The second ends it at once,
/// as does a stop that takes too long.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stopping {
    stop: Arc<AtomicBool>,
    limited: Arc<AtomicBool>,
    signalled: Arc<AtomicBool>,
    folder: Arc<Mutex<Option<PathBuf>>>,
}

impl Stopping {
    /// Starts watching for signals. This comes before anything that a signal could leave behind.
    ///
    /// # Errors
    /// External when the handlers for signals cannot be installed.
    pub(crate) fn on_signals(runtime: &tokio::runtime::Runtime) -> Result<Stopping> {
        let _inside = runtime.enter();
        let stopping = Stopping::default();
        let mut kinds = vec![SignalKind::interrupt(), SignalKind::terminate()];
        if !hangup_is_ignored() {
            kinds.push(SignalKind::hangup());
        }
        for kind in kinds {
            let mut signals =
                signal(kind).map_err(|e| Error::external("the handlers for signals cannot be installed").because(e))?;
            let stopping = stopping.clone();
            runtime.spawn(async move {
                while signals.recv().await.is_some() {
                    stopping.signalled();
                }
            });
        }
        Ok(stopping)
    }

    /// Lets the command limit the time of its stop itself: several processes end one after another.
    #[cfg(feature = "scale-out")]
    pub(crate) fn without_time_limit(&self) {
        self.limited.store(true, Ordering::Relaxed);
    }

    /// A value that never ends the process, for tests within one.
    #[cfg(test)]
    pub(crate) fn without_limit() -> Stopping {
        Stopping { limited: Arc::new(AtomicBool::new(true)), ..Stopping::default() }
    }

    /// The flag that asks the command to stop.
    pub(crate) fn flag(&self) -> &Arc<AtomicBool> {
        &self.stop
    }

    /// Asks the command to stop, as the first signal does; from now on its time is limited.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        if !self.limited.swap(true, Ordering::Relaxed) {
            let stopping = self.clone();
            let limit = std::thread::Builder::new().name("stop".into()).spawn(move || {
                std::thread::sleep(STOP_TIMEOUT);
                terminal::error("not everything ended in time: the next start reads again what is not committed");
                stopping.end_at_once(Exit::Failure);
            });
            if limit.is_err() {
                terminal::say("the time for stopping cannot be limited: no thread can be started");
            }
        }
    }

    /// Creates a temporary folder, which is removed when it is dropped, or by the second signal.
    ///
    /// # Errors
    /// A user error when the path is not UTF-8, external when it cannot be created.
    pub(crate) fn temporary_folder(&self, prefix: &str) -> Result<TempDir> {
        let parent = std::env::temp_dir();
        if parent.to_str().is_none() {
            return Err(Error::user(format!("TMPDIR ({parent:?}) is not UTF-8: set it to another folder")));
        }
        // Locked during the creation, so that a signal finds either no folder or its name.
        let mut folder = self.folder.lock();
        let made = tempfile::Builder::new().prefix(prefix).tempdir();
        let made = made.map_err(|e| {
            Error::external(format!("no temporary folder can be created in {}", parent.display())).because(e)
        })?;
        *folder = Some(made.path().to_owned());
        Ok(made)
    }

    fn signalled(&self) {
        if self.signalled.swap(true, Ordering::Relaxed) {
            self.end_at_once(Exit::Interrupted);
        }
        self.stop();
        terminal::say("stopping; a second signal stops at once");
    }

    fn end_at_once(&self, exit: Exit) {
        let folder = self.folder.lock();
        if let Some(folder) = folder.as_deref() {
            remove_and_end(folder, exit);
        }
        #[expect(clippy::disallowed_methods, reason = "ending at once asks for no clean-up: the log needs none")]
        std::process::exit(exit as i32);
    }
}

/// Replaces this process by a shell. This ends the threads that write to the folder, so that none creates it again.
/// Returns only if that fails.
fn remove_and_end(folder: &Path, exit: Exit) {
    let error = Command::new("/bin/sh").args(["-c", REMOVE]).arg(folder).arg((exit as u8).to_string()).exec();
    terminal::say(&format!("{} may be left behind: /bin/sh cannot be run: {error}", folder.display()));
    let _ = std::fs::remove_dir_all(folder);
}

/// Whether this process was started to outlive its terminal, as by `nohup`.
fn hangup_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // Signal 1 is the lowest bit.
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}
