//! The HTTP server of a command: it listens before anything else, is watched while it runs, and is drained at the end.

use super::stopping::Stopping;
use super::{SHUTDOWN_TIMEOUT, leave_running};
use crate::config::Config;
use crate::handles;
use crate::terminal;
use adtally_engine::report::Report;
use adtally_engine::status::Status;
use adtally_engine::{LateQuestions, ServiceStart};
use adtally_model::{Error, Result};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// How often a stop request is checked.
const STOP_POLL: Duration = Duration::from_millis(50);

/// Interval of progress messages during a recovery, and the delay before the first one.
const RECOVERY_TOLD_EVERY: Duration = Duration::from_secs(5);

/// A server that answers from its creation on.
pub(crate) struct Server {
    address: SocketAddr,
    task: JoinHandle<Result<()>>,
}

impl Server {
    /// Binds the address. This comes before anything else is touched, since a port in use is the most common mistake.
    ///
    /// # Errors
    /// A user error that names the address.
    pub(crate) fn listen(runtime: &Runtime, config: &Config) -> Result<TcpListener> {
        let address = config.listen;
        runtime.block_on(TcpListener::bind(address)).map_err(|e| {
            Error::user(format!(
                "cannot listen on {address}: stop the program that uses it, or choose another address with --listen"
            ))
            .because(e)
        })
    }

    /// Answers on `listener` until the command stops. During recovery, it only reports its progress. A server that ends
    /// earlier stops the command, since the counts could not be queried.
    ///
    /// # Errors
    /// External when the address is unknown.
    pub(crate) fn start(
        runtime: &Runtime,
        listener: TcpListener,
        config: &Config,
        start: &ServiceStart,
        stopping: &Stopping,
    ) -> Result<Server> {
        let address =
            listener.local_addr().map_err(|e| Error::external("the listening address is unknown").because(e))?;
        let stop = Arc::clone(stopping.flag());
        let stopped = async move {
            while !stop.load(Ordering::Relaxed) {
                tokio::time::sleep(STOP_POLL).await;
            }
        };
        let questions: Arc<LateQuestions> = Arc::clone(&start.questions);
        let report: Arc<Report> = Arc::clone(&start.report);
        runtime.spawn(tell_recovery(Arc::clone(&report), address));
        let server = adtally_serve::serve(listener, questions, report, handles::limits(config), stopped);
        Ok(Server { address, task: runtime.spawn(watched(runtime.spawn(server), stopping.clone())) })
    }

    /// The address of the server.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until the server has drained, and shuts down its runtime unless abandoned work is still running on it.
    ///
    /// # Errors
    /// Internal when the server ended before it was asked to.
    pub(crate) fn finish(self, runtime: Runtime, given_up: bool) -> Result<()> {
        let ended = runtime.block_on(self.task);
        if given_up {
            leave_running(runtime);
        } else {
            // Does not wait for questions that are still being computed.
            runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
        }
        ended.map_err(|e| Error::internal("the monitor of the HTTP server stopped unexpectedly").because(e))?
    }
}

/// Waits until a server ends. If it ends without a request, the command stops in good order and fails.
async fn watched(server: JoinHandle<Result<()>>, stopping: Stopping) -> Result<()> {
    let ended = server.await;
    let asked = stopping.flag().load(Ordering::Relaxed);
    let error = match ended {
        Ok(Ok(())) if asked => return Ok(()),
        Ok(Ok(())) => Error::internal("the HTTP server ended unexpectedly"),
        Ok(Err(error)) => error,
        Err(died) => Error::internal("the HTTP server died; the cause is above").because(died),
    };
    tracing::error!("questions can no longer be answered; stopping: {}", error.report());
    stopping.stop();
    Err(error)
}

/// Prints the progress of a long recovery.
async fn tell_recovery(report: Arc<Report>, address: SocketAddr) {
    loop {
        tokio::time::sleep(RECOVERY_TOLD_EVERY).await;
        match report.recovering() {
            Some(progress) => terminal::say(&format!("{progress}; see http://{address}/readyz")),
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use adtally_model::ErrorKind;

    fn check(server: impl Future<Output = Result<()>> + Send + 'static, asked: bool, expected: Result<(), ErrorKind>) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let stopping = Stopping::without_limit();
        if asked {
            stopping.flag().store(true, Ordering::Relaxed);
        }
        let ended = runtime.block_on(watched(runtime.spawn(server), stopping.clone()));
        assert_eq!(ended.map_err(|error| error.kind()), expected);
        assert!(stopping.flag().load(Ordering::Relaxed), "the command stops");
    }

    #[test]
    fn the_death_of_the_server_stops_the_command() {
        check(async { Ok(()) }, true, Ok(()));
        check(async { Ok(()) }, false, Err(ErrorKind::Internal));
        check(async { panic!("shown, as it should be") }, false, Err(ErrorKind::Internal));
        check(async { panic!("shown, as it should be") }, true, Err(ErrorKind::Internal));
        check(async { Err(Error::user("a limit is 0")) }, false, Err(ErrorKind::User));
    }
}
