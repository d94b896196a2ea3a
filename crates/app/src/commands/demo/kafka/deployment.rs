//! The processes of a deployment on one machine: an agent, two workers and a node.

use super::process::{Launcher, Process};
use super::story::name;
use super::{AGENT_FOLDER, SETTINGS_FILE, WORKERS, wait_for};
use crate::commands::stopping::Stopping;
use adtally_model::Result;
use std::net::SocketAddr;

/// How long the agent may take to stop, in milliseconds: it waits 8 s for acknowledgements.
const AGENT_STOP_MS_MAX: i64 = 15_000;

/// How long the agent may take to read what is left of the log, in milliseconds.
const AGENT_REST_MS_MAX: i64 = 120_000;

/// How long a worker or a node may take to stop, in milliseconds: they end themselves after 9.5 s.
const STOP_MS_MAX: i64 = 15_000;

/// Where the parts of the deployment are.
pub(super) struct Places {
    /// Starts the processes.
    pub(super) launcher: Launcher,
    /// The brokers.
    pub(super) brokers: String,
    /// The topic. The group has the same name.
    pub(super) topic: String,
    /// The URL of the data.
    pub(super) data: String,
    /// Address and port of the node.
    pub(super) listen: SocketAddr,
}

/// A worker that runs.
struct Worker {
    process: Process,
    /// Where it answers; `None` until it does.
    address: Option<SocketAddr>,
}

impl Worker {
    fn look(&mut self) -> Result<Option<SocketAddr>> {
        self.process.check()?;
        if self.address.is_none() {
            self.address = self.process.address()?;
        }
        Ok(self.address)
    }
}

/// The running processes.
pub(super) struct Deployment {
    places: Places,
    /// `None` once it has ended.
    agent: Option<Process>,
    /// `None` while one is killed.
    workers: Vec<Option<Worker>>,
    node: Process,
    node_address: SocketAddr,
}

impl Deployment {
    /// Starts everything, and waits until it answers. `None` if the user stops the demo before.
    ///
    /// # Errors
    /// External when a process does not start, or ends.
    pub(super) fn start(places: Places, stopping: &Stopping) -> Result<Option<Deployment>> {
        let mut workers = Vec::new();
        for at in 0..WORKERS {
            workers.push(Some(places.worker(at)?));
        }
        for (at, worker) in workers.iter_mut().flatten().enumerate() {
            if wait_for(stopping, &name(at), || worker.look())?.is_none() {
                return Ok(None);
            }
        }
        let agent = Some(places.agent("agent", &[])?);
        // The workers have made the lake.
        let mut node = places.node()?;
        let Some(node_address) = wait_for(stopping, "the node", || node.address())? else { return Ok(None) };
        Ok(Some(Deployment { places, agent, workers, node, node_address }))
    }

    /// Where the node answers.
    pub(super) fn node_address(&self) -> SocketAddr {
        self.node_address
    }

    /// Whether a worker runs.
    pub(super) fn has(&self, worker: usize) -> bool {
        self.workers.get(worker).is_some_and(Option::is_some)
    }

    /// Where the workers answer, as far as they run and have said so.
    ///
    /// # Errors
    /// External when a process has ended by itself.
    pub(super) fn look(&mut self) -> Result<Vec<Option<SocketAddr>>> {
        self.node.check()?;
        if let Some(agent) = &mut self.agent {
            agent.check()?;
        }
        self.workers.iter_mut().map(|worker| worker.as_mut().map_or(Ok(None), Worker::look)).collect()
    }

    /// Kills a worker.
    pub(super) fn kill(&mut self, worker: usize) {
        if let Some(place) = self.workers.get_mut(worker) {
            // Dropping it kills it.
            *place = None;
        }
    }

    /// Starts a worker again.
    ///
    /// # Errors
    /// External when it cannot be started.
    pub(super) fn restart(&mut self, worker: usize) -> Result<()> {
        let started = self.places.worker(worker)?;
        if let Some(place) = self.workers.get_mut(worker) {
            *place = Some(started);
        }
        Ok(())
    }

    /// Stops the agent, and lets it read what is left of the log. Returns what went wrong.
    ///
    /// # Errors
    /// External when it cannot be started again.
    pub(super) fn finish_agent(&mut self) -> Result<Vec<String>> {
        let mut complaints = Vec::new();
        if let Some(mut agent) = self.agent.take() {
            agent.ask_to_stop();
            complaints.extend(agent.wait(AGENT_STOP_MS_MAX)?);
        }
        complaints.extend(self.places.agent("agent (rest)", &["--until-end"])?.wait(AGENT_REST_MS_MAX)?);
        Ok(complaints)
    }

    /// Stops the workers and the node. Returns what went wrong.
    ///
    /// # Errors
    /// External when the system does not tell.
    pub(super) fn stop(mut self) -> Result<Vec<String>> {
        let workers = self.workers.iter_mut().flatten().map(|worker| &mut worker.process);
        let mut processes: Vec<&mut Process> = workers.chain([&mut self.node]).collect();
        processes.iter_mut().for_each(|process| process.ask_to_stop());
        let mut complaints = Vec::new();
        for process in processes {
            complaints.extend(process.wait(STOP_MS_MAX)?);
        }
        Ok(complaints)
    }
}

impl Places {
    fn agent(&self, name: &str, more: &[&str]) -> Result<Process> {
        let kafka = ["--brokers", &self.brokers, "--topic", &self.topic, "--config", SETTINGS_FILE];
        let agent = ["agent", "logs", "--data-dir", AGENT_FOLDER];
        self.launcher.adtally(name, &[agent.as_slice(), kafka.as_slice(), more].concat())
    }

    fn worker(&self, at: usize) -> Result<Worker> {
        let kafka = ["--brokers", &self.brokers, "--topic", &self.topic, "--config", SETTINGS_FILE];
        let worker = ["worker", "--group", &self.topic, "--data", &self.data, "--listen", "127.0.0.1:0"];
        let process = self.launcher.adtally(&name(at), &[worker.as_slice(), kafka.as_slice()].concat())?;
        Ok(Worker { process, address: None })
    }

    fn node(&self) -> Result<Process> {
        let listen = self.listen.to_string();
        self.launcher.adtally("node", &["serve", "--lake", &self.data, "--listen", &listen, "--config", SETTINGS_FILE])
    }
}
