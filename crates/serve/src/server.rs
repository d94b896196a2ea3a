//! The server: accepts connections, bounds them, and drains them when told to stop.

use crate::limits::{BUFFER_BYTES_MAX, Limits};
use crate::routes::{Desk, router};
use crate::stall::StallGuard;
use crate::status::Status;
use adtally_model::Result;
use adtally_store::questions::Questions;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tower::Service;

/// How long to wait after a connection could not be accepted: file descriptors run out for a while, not for good.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers questions on `listener` until `shutdown` is ready, and then until the answers in flight are sent or
/// [`Limits::drain_timeout`] is over.
///
/// Needs a Tokio runtime with timers and I/O. Questions run on its blocking threads, at most
/// [`Limits::hot_running_max`], [`Limits::lake_running_max`] and [`Limits::raw_running_max`] of them.
///
/// # Errors
/// A user error when a limit is 0. What goes wrong with one connection ends only that one, and is logged.
pub async fn serve(
    listener: TcpListener,
    questions: Arc<dyn Questions>,
    status: Arc<dyn Status>,
    limits: Limits,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<()> {
    limits.check()?;
    let desk = Arc::new(Desk::new(questions, status, limits));
    let router = router(desk.clone());
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.header_timeout).max_buf_size(BUFFER_BYTES_MAX);
    let graceful = GracefulShutdown::new();
    let mut connections: JoinSet<hyper::Result<()>> = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        desk.metrics.connected(connections.len());
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(ended) = connections.join_next() => {
                log_end(ended);
                continue;
            }
            accepted = listener.accept(), if connections.len() < limits.connections_max => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let router = router.clone();
                let service = service_fn(move |request| router.clone().call(request));
                let connection = http.serve_connection(TokioIo::new(guarded(stream, &limits)), service);
                connections.spawn(graceful.watch(connection));
            }
            Err(error) if concerns_one_client(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections for now");
                tokio::select! {
                    biased;
                    () = &mut shutdown => break,
                    () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(limits.drain_timeout, graceful.shutdown()).await.is_err() {
        tracing::warn!(connections = connections.len(), "connections did not drain in time, closing them");
    }
    connections.shutdown().await;
    Ok(())
}

fn guarded(stream: TcpStream, limits: &Limits) -> StallGuard {
    // Answers are written at once: waiting for more to send would only delay them. Failing to say so is harmless.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    StallGuard::new(stream, limits.stall_timeout)
}

/// Whether the client is at fault, so that the next one can be accepted at once.
fn concerns_one_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

fn log_end(ended: std::result::Result<hyper::Result<()>, JoinError>) {
    match ended {
        Ok(Ok(())) => {}
        // Clients that leave, stall or send nonsense are everyday life.
        Ok(Err(error)) => tracing::debug!(%error, "a connection ended early"),
        Err(error) => tracing::error!(%error, "a connection's task failed"),
    }
}
