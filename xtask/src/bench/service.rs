//! The service under test, as clients see it.

use super::http::Client;
use super::measure::{Taken, look};
use super::site::Site;
use crate::soak::now;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Maximum time of a start.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// A running service; dropping it kills it.
pub(super) struct Service {
    child: Child,
    address: String,
    /// Time from its start to its first answer that it is ready, in seconds.
    pub(super) ready_s: f64,
}

impl Service {
    /// Starts the service on inputs and waits until it is ready.
    pub(super) fn start(site: &Site, input: &Path) -> Result<Service, String> {
        let mut command = Command::new(site.program());
        command.arg("run").arg(input).arg("--data-dir").arg(site.data()).args(["--listen", "127.0.0.1:0"]);
        command.env("NO_COLOR", "1").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let began = now();
        let mut child = command.spawn().map_err(|error| format!("cannot start the service: {error}"))?;
        let said = child.stderr.take().ok_or("the service says nothing")?;
        let mut lines = BufReader::new(said).lines();
        let mut heard = String::new();
        let address = loop {
            let Some(Ok(line)) = lines.next() else { return Err(format!("the service ended:\n{heard}")) };
            if let Some((_, rest)) = line.split_once("http://") {
                break rest
                    .split(|letter: char| !letter.is_ascii_digit() && !".:".contains(letter))
                    .next()
                    .unwrap_or_default()
                    .to_owned();
            }
            heard.push_str(&line);
            heard.push('\n');
        };
        // The output must be read, or the pipe fills.
        std::thread::spawn(move || lines.for_each(drop));
        let mut service = Service { child, address, ready_s: 0.0 };
        while service.client()?.get("/readyz")?.0 != 200 {
            if now() - began > START_TIMEOUT {
                return Err("the service does not become ready".to_owned());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        service.ready_s = (now() - began).as_secs_f64();
        Ok(service)
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
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
