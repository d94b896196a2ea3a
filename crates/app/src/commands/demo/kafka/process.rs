//! The processes of the demo. They end with it, however it ends, and write what they say into its temporary folder.

use super::POLL;
use crate::config::ENVIRONMENT_PREFIX;
use adtally_engine::clock::{Clock, SystemClock};
use adtally_model::{Error, Result};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// Bytes of the end of a log that are shown: some lines.
const TAIL_BYTES: u64 = 2_048;

/// Bytes of the beginning of a log in which a process says where it answers.
const HEAD_BYTES: u64 = 1 << 20;

/// How a process says where it answers.
const ANSWERS: &str = "answering on http://";

/// Starts processes. Only the main thread of the demo may: the system ends a process with the thread that started it.
pub(super) struct Launcher {
    /// This program.
    adtally: String,
    /// Where the processes run, and where their logs are.
    folder: PathBuf,
}

/// A running process; dropping it kills it.
pub(super) struct Process {
    /// `worker 1`.
    name: String,
    log: PathBuf,
    child: Child,
}

impl Launcher {
    /// Starts processes in a folder.
    ///
    /// # Errors
    /// External when the path of this program is unknown, or not UTF-8.
    pub(super) fn new(folder: &Path) -> Result<Launcher> {
        let failed = || Error::external("the path of this program is unknown, or is not UTF-8");
        let adtally = std::env::current_exe().map_err(|e| failed().because(e))?;
        let adtally = adtally.into_os_string().into_string().map_err(|_| failed())?;
        Ok(Launcher { adtally, folder: folder.to_path_buf() })
    }

    /// The folder.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts a command of this program. Settings of the user do not apply to it.
    ///
    /// # Errors
    /// External when it cannot be started.
    pub(super) fn adtally(&self, name: &str, arguments: &[&str]) -> Result<Process> {
        self.start(name, &self.adtally, arguments)
    }

    /// Starts a program. Its log is in the file of its name.
    ///
    /// # Errors
    /// External when it cannot be started.
    pub(super) fn start(&self, name: &str, program: &str, arguments: &[&str]) -> Result<Process> {
        let failed = |e: std::io::Error| Error::external(format!("{name} cannot be started")).because(e);
        let log = self.folder.join(format!("{}.log", name.replace(' ', "-")));
        let stdout = File::create(&log).map_err(failed)?;
        let stderr = stdout.try_clone().map_err(failed)?;
        let mut command = Command::new(&self.adtally);
        command.args(["tether", &std::process::id().to_string(), "--", program]).args(arguments);
        for (variable, _) in std::env::vars_os() {
            if variable.as_encoded_bytes().starts_with(ENVIRONMENT_PREFIX.as_bytes()) {
                command.env_remove(variable);
            }
        }
        // In a group of its own, it does not get the signals of the terminal: the demo stops it when its turn comes.
        command.current_dir(&self.folder).process_group(0);
        let child = command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn().map_err(failed)?;
        Ok(Process { name: name.to_owned(), log, child })
    }
}

impl Process {
    /// Fails if it has ended.
    ///
    /// # Errors
    /// External, with the end of its log.
    pub(super) fn check(&mut self) -> Result<()> {
        match self.state()? {
            None => Ok(()),
            Some(status) => Err(Error::external(self.obituary(status))),
        }
    }

    /// Where it answers; `None` until it has said so.
    ///
    /// # Errors
    /// As [`Process::check`].
    pub(super) fn address(&mut self) -> Result<Option<SocketAddr>> {
        self.check()?;
        let mut head = Vec::new();
        // It may not have written anything.
        if let Ok(log) = File::open(&self.log) {
            let _ = log.take(HEAD_BYTES).read_to_end(&mut head);
        }
        Ok(address_in(&String::from_utf8_lossy(&head)))
    }

    /// Asks it to stop.
    pub(super) fn ask_to_stop(&mut self) {
        // A process that has ended has no number any more.
        if let Ok(None) = self.state() {
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        }
    }

    /// Waits until it ends, and kills it if that takes longer than this. Returns a complaint if it does not end well.
    ///
    /// # Errors
    /// External when the system does not tell.
    pub(super) fn wait(&mut self, ms_max: i64) -> Result<Option<String>> {
        let until_ms = SystemClock.monotonic_ms() + ms_max;
        loop {
            match self.state()? {
                Some(status) if status.success() => return Ok(None),
                Some(status) => return Ok(Some(self.obituary(status))),
                None if SystemClock.monotonic_ms() >= until_ms => {
                    self.kill();
                    let (name, seconds) = (&self.name, ms_max / 1_000);
                    return Ok(Some(format!("{name} did not end within {seconds} s and was killed")));
                }
                None => std::thread::sleep(POLL),
            }
        }
    }

    /// Sends SIGKILL.
    pub(super) fn kill(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn state(&mut self) -> Result<Option<ExitStatus>> {
        let name = &self.name;
        self.child.try_wait().map_err(|e| Error::external(format!("the state of {name} is unknown")).because(e))
    }

    fn obituary(&self, status: ExitStatus) -> String {
        let mut tail = Vec::new();
        if let Ok(mut log) = File::open(&self.log) {
            let length = log.metadata().map_or(0, |facts| facts.len());
            let _ = log.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)));
            let _ = log.take(TAIL_BYTES).read_to_end(&mut tail);
        }
        let tail = String::from_utf8_lossy(&tail);
        format!("{} has ended unexpectedly ({status}); the end of its log:\n{}", self.name, tail.trim_end())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The address that a process says in its log, once the line is complete.
fn address_in(log: &str) -> Option<SocketAddr> {
    let (_, rest) = log.split_once(ANSWERS)?;
    let (line, _) = rest.split_once('\n')?;
    line.split([';', ' ']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_found_in_a_complete_line() {
        let check = |log: &str, expected: Option<&str>| {
            assert_eq!(address_in(log), expected.map(|address| address.parse().unwrap()), "{log}");
        };
        check("", None);
        check("answering on http://127.0.0.1:80", None);
        check("answering on http://127.0.0.1:8080\n", Some("127.0.0.1:8080"));
        check("INFO x\nanswering on http://[::1]:7; from the lake of file:///x\nmore", Some("[::1]:7"));
        check("answering on http://nowhere\n", None);
    }
}
