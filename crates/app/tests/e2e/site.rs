//! A separate folder for each test, with logs, data and configuration, in which the binary runs.

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;
use tempfile::TempDir;

/// Pause between checks of a condition.
const POLL: Duration = Duration::from_millis(20);

/// Checks in a minute.
const POLLS_PER_MINUTE: u32 = 60_000 / POLL.as_millis() as u32;

/// Minutes before the test fails: far longer than anything takes on a busy machine. Spark takes one.
const MINUTES_MAX: u32 = 5;

/// The variable with another number of minutes, for tests of another size.
const MINUTES: &str = "ADTALLY_TEST_MINUTES";

/// Checks before the test fails.
fn polls_max() -> u32 {
    static MAX: OnceLock<u32> = OnceLock::new();
    *MAX.get_or_init(|| {
        let minutes = std::env::var(MINUTES).map_or(MINUTES_MAX, |minutes| minutes.parse().expect(MINUTES));
        minutes * POLLS_PER_MINUTE
    })
}

/// Waits until `found` returns a value; `what` describes it in the failure.
pub(crate) fn wait_for<T>(what: &str, found: impl FnMut() -> Option<T>) -> T {
    poll(found).unwrap_or_else(|| panic!("waited in vain for {what}"))
}

/// Waits until `found` returns a value, for at most [`MINUTES_MAX`] minutes.
pub(crate) fn poll<T>(mut found: impl FnMut() -> Option<T>) -> Option<T> {
    for _ in 0..polls_max() {
        if let Some(found) = found() {
            return Some(found);
        }
        sleep(POLL);
    }
    None
}

/// A temporary folder in which commands run.
pub(crate) struct Site {
    folder: TempDir,
    /// Where its deployment keeps its data: a folder in the site, or a URL.
    data: String,
    /// Environment variables of its commands.
    variables: Vec<(String, String)>,
}

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its exit code; `None` if a signal ended it.
    pub(crate) code: Option<i32>,
    /// Its standard output.
    pub(crate) stdout: String,
    /// Its standard error.
    pub(crate) stderr: String,
}

impl Ended {
    /// Fails the test unless the command succeeded.
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// Standard output as one JSON document.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

impl Site {
    /// An empty site.
    pub(crate) fn new() -> Site {
        let folder = tempfile::Builder::new().prefix("adtally-e2e-").tempdir().unwrap();
        Site { folder, data: "data".to_owned(), variables: Vec::new() }
    }

    /// Keeps the data at a URL.
    pub(crate) fn keep_data_at(&mut self, url: String) {
        self.data = url;
    }

    /// Where the data is.
    pub(crate) fn data(&self) -> &str {
        &self.data
    }

    /// Sets an environment variable of all commands.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// The path of a file in the site.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file, and creates its parent folders.
    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// Appends to a file.
    pub(crate) fn append(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.path(name)).unwrap();
        file.write_all(bytes.as_ref()).unwrap();
    }

    /// The content of a file.
    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    /// Compresses a file as `logrotate` does: `NAME` becomes `NAME.gz`.
    pub(crate) fn gzip(&self, name: &str) {
        gzip(&self.path(name));
    }

    /// The binary, without the settings from the test's own environment.
    pub(crate) fn program(&self) -> Command {
        self.command(env!("CARGO_BIN_EXE_adtally"))
    }

    /// A script for `sh` in the same environment; the command's arguments are `$1` and so on.
    pub(crate) fn shell(&self, script: &str) -> Command {
        let mut command = self.command("sh");
        command.args(["-c", script, "sh"]);
        command
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("ADTALLY_") {
                command.env_remove(name);
            }
        }
        command.current_dir(self.folder.path()).stdin(Stdio::null());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command line, split at spaces, to its end.
    pub(crate) fn adtally(&self, line: &str) -> Ended {
        self.words(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// Runs a command to its end.
    pub(crate) fn words(&self, words: &[&str]) -> Ended {
        let mut command = self.program();
        command.args(words);
        end(command)
    }

    /// The rows of a query on `data`, as CSV with a header.
    pub(crate) fn sql(&self, query: &str) -> String {
        self.words(&["sql", "--data-dir", &self.data, "--format", "csv", query]).ok().stdout
    }

    /// The value of a query that returns a single one.
    pub(crate) fn sql_value(&self, query: &str) -> String {
        self.sql(query).lines().nth(1).unwrap_or_default().to_owned()
    }

    /// The ledger of `data`.
    pub(crate) fn ledger(&self) -> Value {
        self.words(&["ledger", "--data-dir", &self.data, "--json"]).ok().json()
    }

    /// Checks that `data` is sound.
    pub(crate) fn verify(&self) {
        let ended = self.words(&["verify", "--data-dir", &self.data]).ok();
        assert!(ended.stdout.ends_with("everything agrees\n"), "{}", ended.stdout);
    }

    /// Starts `adtally run` with these arguments on a free port, and waits until it answers.
    pub(crate) fn serve(&self, line: &str) -> Serving {
        self.serve_with(line, &[])
    }

    /// The same with these environment variables.
    pub(crate) fn serve_with(&self, line: &str, variables: &[(&str, &str)]) -> Serving {
        let mut command = self.program();
        command.envs(variables.iter().copied());
        command.args(["run", "--data-dir", "data", "--listen", "127.0.0.1:0"]).args(line.split_whitespace());
        Serving::start(command)
    }

    /// The same after `ulimit` with these arguments.
    pub(crate) fn serve_limited(&self, limit: &str, line: &str) -> Serving {
        let mut command = self.shell(&format!("ulimit {limit} && exec \"$@\""));
        command.arg(env!("CARGO_BIN_EXE_adtally"));
        command.args(["run", "--data-dir", "data", "--listen", "127.0.0.1:0"]).args(line.split_whitespace());
        Serving::start(command)
    }
}

/// Compresses a file in place with `gzip`.
pub(crate) fn gzip(path: &Path) {
    let status = Command::new("gzip").arg(path).status().expect("gzip is missing: install the package gzip");
    assert!(status.success(), "gzip {}: {status}", path.display());
}

/// Runs a command to its end; the test fails if it hangs.
pub(crate) fn end(mut command: Command) -> Ended {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (stdout, stderr) = (gather(child.stdout.take().unwrap()), gather(child.stderr.take().unwrap()));
    let status = exit_of(&mut child);
    let [stdout, stderr] = [stdout, stderr].map(|reader| reader.join().unwrap());
    Ended { code: status.code(), stdout, stderr }
}

fn gather(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Waits for the end of a command.
pub(crate) fn exit_of(child: &mut Child) -> ExitStatus {
    for _ in 0..polls_max() {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        sleep(POLL);
    }
    child.kill().unwrap();
    panic!("the command does not end");
}

/// A running `adtally run` or `adtally demo`; dropping it kills it.
pub(crate) struct Serving {
    child: Child,
    url: String,
    agent: ureq::Agent,
    said: Arc<Mutex<String>>,
}

impl Serving {
    /// Starts a command that serves, and waits until it prints its address.
    pub(crate) fn start(mut command: Command) -> Serving {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let (log, stderr) = (Arc::clone(&said), child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                log.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        let url = wait_for("the address to ask", || {
            let said = said.lock().unwrap();
            if let Some(status) = child.try_wait().unwrap() {
                panic!("{status}: {said}");
            }
            let (_, rest) = said.split_once("answering on")?;
            // `run` continues the line after the address; `demo` prints it on a separate line.
            rest.trim_start().split_once([';', '\n']).map(|(url, _)| url.to_owned())
        });
        let config = ureq::Agent::config_builder().http_status_as_error(false).build();
        Serving { child, url, agent: config.into(), said }
    }

    /// Sends it a signal.
    pub(crate) fn send(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Sets or removes the maximum size of its files in bytes.
    pub(crate) fn limit_files(&self, bytes: Option<u64>) {
        let limit = Rlimit { current: bytes, maximum: None };
        prlimit(Some(Pid::from_child(&self.child)), Resource::Fsize, limit).unwrap();
    }

    /// Whether a signal has stopped all its threads.
    pub(crate) fn is_stopped(&self) -> bool {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let stat =
            |task: std::io::Result<std::fs::DirEntry>| std::fs::read_to_string(task.unwrap().path().join("stat"));
        // A thread may end in the meantime.
        tasks.map(stat).all(|stat| stat.is_err() || stat.is_ok_and(|stat| stat.contains(") T ")))
    }

    /// Fails the test if it has ended by itself.
    pub(crate) fn check_running(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("it has ended by itself: {status}: {}", self.said());
        }
    }

    /// Waits until it ends by itself; returns its exit code and its standard error.
    pub(crate) fn ended(mut self) -> (Option<i32>, String) {
        let status = exit_of(&mut self.child);
        (status.code(), self.said())
    }

    /// Waits until `/readyz` has this status and this text.
    pub(crate) fn wait_readiness(&self, status: u16, text: &str) {
        wait_for(&format!("readiness {status} {text:?}"), || {
            let (found, said) = self.text("/readyz");
            (found == status && said.contains(text)).then_some(())
        });
    }

    /// Its soft and hard limits of open handles.
    pub(crate) fn handles(&self) -> (String, String) {
        let limits = std::fs::read_to_string(format!("/proc/{}/limits", self.child.id())).unwrap();
        let words = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap().split_whitespace();
        let words: Vec<String> = words.map(str::to_owned).collect();
        (words[0].clone(), words[1].clone())
    }

    /// Its peak memory so far, in MiB.
    pub(crate) fn memory_mib_max(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1_024
    }

    /// Its standard error so far.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// `127.0.0.1:12345`.
    pub(crate) fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }

    /// Sends a request; returns the status and the text of the answer.
    pub(crate) fn text(&self, path: &str) -> (u16, String) {
        let mut response = self.agent.get(format!("{}{path}", self.url)).call().unwrap_or_else(|error| {
            panic!("{path}: {error}\n{}", self.said());
        });
        (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
    }

    /// Sends a request that must be answered with 200 and JSON.
    pub(crate) fn get(&self, path: &str) -> Value {
        let (status, text) = self.text(path);
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
    }

    /// Waits until this many lines are committed, and returns the ledger.
    pub(crate) fn wait_read(&self, lines: u64) -> Value {
        let mut last = Value::Null;
        for _ in 0..polls_max() {
            last = self.get("/ledger");
            let read = last["read"].as_u64().unwrap();
            assert!(read <= lines, "{read} lines were read of {lines}: {last}");
            if read == lines {
                return last;
            }
            sleep(POLL);
        }
        panic!("{lines} lines are not read: {last}\n{}", self.said());
    }

    /// Sends SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends SIGTERM, checks for a clean end, and returns the standard error.
    pub(crate) fn stop(self) -> String {
        self.send(Signal::TERM);
        let (code, said) = self.ended();
        assert_eq!(code, Some(0), "{said}");
        said
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The columns of a ledger in the truth of `adtally generate`.
pub(crate) const VERDICTS: [&str; 7] = ["read", "counted", "duplicate", "late", "future", "malformed", "invalid"];

/// Checks the totals of a ledger.
pub(crate) fn check_ledger(ledger: &Value, expected: &Value) {
    for verdict in VERDICTS {
        assert_eq!(ledger[verdict], expected[verdict], "{verdict} of {ledger}");
    }
    assert_eq!(ledger["gap_bytes"], 0, "{ledger}");
}

/// The path of what `cargo xtask test` provides.
pub(crate) fn provided(variable: &str) -> PathBuf {
    let path = std::env::var_os(variable);
    path.map(PathBuf::from).unwrap_or_else(|| panic!("{variable} is not set: run the tests with `cargo xtask test`"))
}

/// Opens a file for appending.
pub(crate) fn appending(path: &Path) -> File {
    OpenOptions::new().create(true).append(true).open(path).unwrap()
}
