//! The program under test: run to its end, or served, watched and killed.

use super::now;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// The number of the signal SIGTERM.
const SIGTERM: i32 = 15;

/// Maximum time of the process to end after a SIGTERM.
const END_TIMEOUT: Duration = Duration::from_secs(60);

/// Bytes of the last output that are shown if the process ended by itself.
const LAST_WORDS_BYTES: usize = 4_096;

/// The program and its folder.
pub(super) struct Adtally {
    program: PathBuf,
    folder: PathBuf,
}

impl Adtally {
    pub(super) fn new(program: &Path, folder: &Path) -> Adtally {
        Adtally { program: program.to_owned(), folder: folder.to_owned() }
    }

    /// The folder that it runs in.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The data directory.
    pub(super) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Runs a command that must succeed; returns its output.
    pub(super) fn output(&self, words: &[&str]) -> Result<String, String> {
        let mut command = Command::new(&self.program);
        let output = command.args(words).current_dir(&self.folder).stdin(Stdio::null()).output();
        let output = output.map_err(|error| format!("cannot run {}: {error}", self.program.display()))?;
        let [stdout, stderr] = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        match output.status.success() {
            true => Ok(stdout),
            false => Err(format!("adtally {}: {}\n{stdout}{stderr}", words.join(" "), output.status)),
        }
    }

    /// Starts the service on a free port.
    pub(super) fn serve(&self) -> Result<Serving, String> {
        let failed = |error: std::io::Error| format!("cannot start {}: {error}", self.program.display());
        let said = File::options().create(true).append(true).open(self.said()).map_err(failed)?;
        let mut command = Command::new(&self.program);
        command.args(["run", "logs", "--data-dir", "data", "--listen", "127.0.0.1:0"]);
        command.current_dir(&self.folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(said);
        Ok(Serving { child: command.spawn().map_err(failed)? })
    }

    /// The last output of the service.
    pub(super) fn last_words(&self) -> String {
        let said = fs::read(self.said()).unwrap_or_default();
        String::from_utf8_lossy(&said[said.len().saturating_sub(LAST_WORDS_BYTES)..]).into_owned()
    }

    fn said(&self) -> PathBuf {
        self.folder.join("service.log")
    }
}

/// A running service; dropping it kills it.
pub(super) struct Serving {
    child: Child,
}

impl Serving {
    /// Its exit status, if it has ended.
    pub(super) fn ended(&mut self) -> Result<Option<ExitStatus>, String> {
        self.child.try_wait().map_err(|error| format!("cannot ask for the process: {error}"))
    }

    /// Sends SIGKILL.
    pub(super) fn kill(mut self) -> Result<(), String> {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        killed.map(drop).map_err(|error| format!("cannot kill the process: {error}"))
    }

    /// Sends SIGTERM and checks for a clean end.
    pub(super) fn terminate(mut self) -> Result<(), String> {
        let pid = self.child.id().to_string();
        let told = Command::new("kill").args(["-TERM", &pid]).status();
        told.map_err(|error| format!("cannot run kill: {error}"))?;
        let deadline = now() + END_TIMEOUT;
        while now() < deadline {
            match self.ended()? {
                // A process that has just started does not handle signals yet, so it dies of SIGTERM.
                Some(status) if status.success() || status.signal() == Some(SIGTERM) => return Ok(()),
                Some(status) => return Err(format!("told to end, the process ended with {status}")),
                None => std::thread::sleep(Duration::from_millis(50)),
            }
        }
        Err("the process does not end".to_owned())
    }

    fn resident_kib(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().strip_suffix("kB")?.trim().parse().ok()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One sample of the process and its data.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Duration,
    resident_mib: u64,
    disk_mib: u64,
    files: u64,
    records: u64,
}

/// The samples, about one per second.
#[derive(Default, Debug)]
pub(super) struct Samples {
    samples: Vec<Sample>,
    /// The number of kills.
    pub(super) kills: u64,
}

impl Samples {
    /// Takes a sample if the last one is a second old.
    pub(super) fn take(&mut self, serving: &Serving, data: &Path) -> Result<(), String> {
        let at = now();
        if self.samples.last().is_some_and(|last| at.saturating_sub(last.at) < Duration::from_secs(1)) {
            return Ok(());
        }
        let Some(resident_kib) = serving.resident_kib() else { return Ok(()) };
        let (mut bytes, mut files, mut records) = (0, 0, 0);
        let mut folders = vec![data.to_owned()];
        while let Some(folder) = folders.pop() {
            // Files can appear and disappear in the meantime.
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let Ok(metadata) = entry.metadata() else { continue };
                if metadata.is_dir() {
                    folders.push(entry.path());
                } else {
                    (bytes, files) = (bytes + metadata.len(), files + 1);
                    records += u64::from(entry.path().extension().is_some_and(|extension| extension == "epoch"));
                }
            }
        }
        self.samples.push(Sample { at, resident_mib: resident_kib >> 10, disk_mib: bytes >> 20, files, records });
        Ok(())
    }

    fn most(&self, of: impl Fn(&Sample) -> u64) -> u64 {
        self.samples.iter().map(of).max().unwrap_or_default()
    }

    pub(super) fn resident_mib_max(&self) -> u64 {
        self.most(|sample| sample.resident_mib)
    }

    pub(super) fn disk_mib_max(&self) -> u64 {
        self.most(|sample| sample.disk_mib)
    }

    pub(super) fn files_max(&self) -> u64 {
        self.most(|sample| sample.files)
    }

    pub(super) fn records_max(&self) -> u64 {
        self.most(|sample| sample.records)
    }

    /// Writes all of them as CSV.
    pub(super) fn write(&self, path: &Path) -> Result<(), String> {
        let mut text = "second,resident_mib,disk_mib,files,records\n".to_owned();
        let begin = self.samples.first().map_or(Duration::ZERO, |sample| sample.at);
        for sample in &self.samples {
            let Sample { at, resident_mib, disk_mib, files, records } = sample;
            let second = at.saturating_sub(begin).as_secs();
            text.push_str(&format!("{second},{resident_mib},{disk_mib},{files},{records}\n"));
        }
        fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
    }
}
