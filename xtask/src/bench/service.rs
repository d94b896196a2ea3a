//! The processes under test, as clients and operators see them.

use super::http::Client;
use super::measure::{Taken, look};
use super::site::Site;
use crate::soak::now;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Maximum time of a start.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// Pause between two looks at a process that starts.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// The last lines of its output that are kept.
const LINES_MAX: usize = 1_000;

/// The last lines of its output that are shown if it has ended by itself.
const LINES_SHOWN: usize = 20;

/// A line of output, and when it was read.
struct Said {
    at: Duration,
    line: String,
}

/// A running process; dropping it kills it.
pub(super) struct Service {
    child: Child,
    address: String,
    said: Arc<Mutex<VecDeque<Said>>>,
    /// Time from its start to its first answer that it is ready, in seconds.
    pub(super) ready_s: f64,
}

impl Service {
    /// Starts the service on inputs and waits until it is ready.
    pub(super) fn start(site: &Site, input: &Path) -> Result<Service, String> {
        let mut command = Command::new(site.program());
        command.arg("run").arg(input).arg("--data-dir").arg(site.data()).args(["--listen", "127.0.0.1:0"]);
        let began = now();
        let mut service = Service::spawn(command)?;
        service.wait_for_address()?;
        while service.client()?.get("/readyz")?.0 != 200 {
            if now() - began > START_TIMEOUT {
                return Err("the service does not become ready".to_owned());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        service.ready_s = (now() - began).as_secs_f64();
        Ok(service)
    }

    /// Starts a command. A service answers requests after [`Service::wait_for_address`].
    pub(super) fn spawn(mut command: Command) -> Result<Service, String> {
        command.env("NO_COLOR", "1").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| format!("cannot start the service: {error}"))?;
        let stderr = child.stderr.take();
        let said = Arc::new(Mutex::new(VecDeque::new()));
        let service = Service { child, address: String::new(), said: Arc::clone(&said), ready_s: 0.0 };
        let stderr = stderr.ok_or("the service says nothing")?;
        // The output must be read, or the pipe fills.
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
                if said.len() == LINES_MAX {
                    said.pop_front();
                }
                said.push_back(Said { at: now(), line });
            }
        });
        Ok(service)
    }

    /// Waits until it says where it answers.
    pub(super) fn wait_for_address(&mut self) -> Result<(), String> {
        let began = now();
        while self.address.is_empty() {
            self.check_running()?;
            if now() - began > START_TIMEOUT {
                return Err(format!("the service does not say where it answers:\n{}", self.last_words()));
            }
            std::thread::sleep(LOOK_EVERY);
            let address = self.said().iter().find_map(|said| address(&said.line));
            self.address = address.unwrap_or_default();
        }
        Ok(())
    }

    /// When it first said this, if it has; `None` also if it was long ago.
    pub(super) fn said_at(&self, text: &str) -> Option<Duration> {
        self.said().iter().find(|said| said.line.contains(text)).map(|said| said.at)
    }

    /// How often it has said this lately.
    pub(super) fn times_said(&self, text: &str) -> usize {
        self.said().iter().filter(|said| said.line.contains(text)).count()
    }

    /// The error if it has ended.
    pub(super) fn check_running(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => {
                // Its last lines are being read.
                std::thread::sleep(Duration::from_millis(100));
                Err(format!("the service ended: {status}\n{}", self.last_words()))
            }
            Err(error) => Err(format!("cannot ask for the service: {error}")),
        }
    }

    pub(super) fn client(&self) -> Result<Client, String> {
        Client::connect(&self.address)
    }

    /// The resources used so far.
    pub(super) fn taken(&self) -> Taken {
        let mut taken = Taken::default();
        look(&self.child, &mut taken);
        taken
    }

    fn said(&self) -> MutexGuard<'_, VecDeque<Said>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn last_words(&self) -> String {
        let said = self.said();
        let lines = said.iter().skip(said.len().saturating_sub(LINES_SHOWN));
        lines.map(|said| format!("{}\n", said.line)).collect()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The address in a line that names one.
fn address(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("http://")?;
    let end = rest.find(|letter: char| !letter.is_ascii_digit() && !".:".contains(letter)).unwrap_or(rest.len());
    Some(rest[..end].to_owned())
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn addresses_are_found() {
        assert_eq!(address("data in x; answering on http://127.0.0.1:80; more"), Some("127.0.0.1:80".to_owned()));
        assert_eq!(address("http://127.0.0.1:80"), Some("127.0.0.1:80".to_owned()));
        assert_eq!(address("nothing"), None);
    }
}
