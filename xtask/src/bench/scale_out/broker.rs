//! A broker of Apache Kafka with one node, beside the programs that are measured.

use crate::packages::run;
use crate::services::{java, set_up_broker};
use crate::soak::now;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Maximum time of a start.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Runs the broker until the standard input is closed: by this process, or because it has ended.
const SCRIPT: &str = "\"$@\" </dev/null >\"$LOG\" 2>&1 & pid=$!; trap \"kill -9 $pid\" INT TERM HUP; read -r keep; \
                      kill -9 $pid; wait $pid";

/// A running broker; dropping it kills it.
pub(super) struct Broker {
    child: Child,
    jars: PathBuf,
    address: String,
}

impl Broker {
    /// Starts a broker that keeps its data in this folder, which exists.
    pub(super) fn start(root: &Path, jars: &Path, folder: &Path) -> Result<Broker, String> {
        let ports = free_ports()?;
        let properties = set_up_broker(root, jars, folder, ports)?;
        let kafka = java(jars, "kafka.Kafka");
        let log = folder.join("broker.log");
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "sh"]).arg(kafka.get_program()).args(kafka.get_args()).arg(&properties);
        command.env("LOG", &log).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(|error| format!("cannot start the broker: {error}"))?;
        let broker = Broker { child, jars: jars.to_owned(), address: format!("127.0.0.1:{}", ports[0]) };
        let began = now();
        while TcpStream::connect(&broker.address).is_err() {
            if now() - began > START_TIMEOUT {
                let said = fs::read_to_string(&log).unwrap_or_default();
                return Err(format!("the broker does not start:\n{said}"));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(broker)
    }

    /// `127.0.0.1:9092`.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Makes a topic. Waits until the broker answers.
    pub(super) fn create_topic(&self, name: &str, partitions: u32) -> Result<(), String> {
        let mut tool = java(&self.jars, "org.apache.kafka.tools.TopicCommand");
        tool.args(["--bootstrap-server", &self.address, "--create", "--topic", name]);
        tool.args(["--partitions", &partitions.to_string(), "--replication-factor", "1"]);
        run(tool.stdin(Stdio::null()).stdout(Stdio::null())).map_err(|error| format!("no topic {name}: {error}"))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It may have ended already.
        let _ = self.child.wait();
    }
}

/// Two different free ports.
fn free_ports() -> Result<[u16; 2], String> {
    let failed = |error: std::io::Error| format!("there is no free port: {error}");
    // Both are held until both are known.
    let listeners =
        [TcpListener::bind("127.0.0.1:0").map_err(failed)?, TcpListener::bind("127.0.0.1:0").map_err(failed)?];
    let port = |listener: &TcpListener| listener.local_addr().map(|address| address.port()).map_err(failed);
    Ok([port(&listeners[0])?, port(&listeners[1])?])
}
