//! The server: accepts connections, bounds them, and drains them on shutdown.

use crate::desk::Desk;
use crate::limits::{BUFFER_BYTES_MAX, HEADERS_READ_MAX, Limits};
use crate::listener::Listener;
use crate::problem::{Problem, ProblemKind};
use crate::routes::router;
use crate::stall::{SendDeadline, StallGuard};
use adtally_engine::status::Status;
use adtally_model::Result;
use adtally_store::fail_points;
use adtally_store::questions::Questions;
use hyper::body::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::{JoinError, JoinSet};
use tower::Service;

/// Pause after a connection could not be accepted: file descriptors run out only for a while.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Maximum number of clients that are being sent a refusal; further connections are closed without a response.
const REFUSALS_MAX: usize = 64;

/// How long a refused client may take to read the refusal.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);

/// Answers questions on `listener` until `shutdown` is ready, and then until the answers in flight are sent or
/// [`Limits::drain_timeout`] is over.
///
/// Needs a Tokio runtime with timers and I/O. Questions run on its blocking threads; [`Limits`] bounds how many
/// questions of each [`Cost`](adtally_store::questions::Cost) run at a time. Long answers are also written there while
/// they are sent. Together they use at most [`Limits::questions_max`] threads.
///
/// # Errors
/// A user error when a limit is 0. An error of one connection ends only that connection, and is logged.
pub async fn serve(
    mut listener: impl Listener,
    questions: Arc<dyn Questions>,
    status: Arc<dyn Status>,
    limits: Limits,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<()> {
    limits.check()?;
    let desk = Arc::new(Desk::new(questions, status, limits));
    let router = router(desk.clone());
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.header_timeout);
    http.max_buf_size(BUFFER_BYTES_MAX).max_headers(HEADERS_READ_MAX);
    let refusal = refusal(&limits);
    let mut refusals: JoinSet<()> = JoinSet::new();
    let graceful = GracefulShutdown::new();
    let mut connections: JoinSet<hyper::Result<()>> = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        desk.metrics.connected(connections.len());
        fail_points::reach(fail_points::ACCEPTING);
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(ended) = connections.join_next() => {
                log_end(ended);
                continue;
            }
            Some(_) = refusals.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) if connections.len() >= limits.connections_max => {
                desk.metrics.refused();
                if refusals.len() < REFUSALS_MAX {
                    refusals.spawn(refuse(stream, refusal.clone()));
                }
            }
            Ok((stream, _)) => {
                let (router, sending) = (router.clone(), SendDeadline::new(limits.send_timeout));
                let stream = StallGuard::new(stream, limits.stall_timeout, sending.clone());
                let service = service_fn(move |request| {
                    let (answered, sending) = (router.clone().call(request), sending.clone());
                    async move {
                        let answer = answered.await;
                        sending.begin();
                        answer
                    }
                });
                connections.spawn(graceful.watch(http.serve_connection(TokioIo::new(stream), service)));
            }
            Err(error) if concerns_one_client(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "connections cannot be accepted; trying again");
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
        tracing::warn!(connections = connections.len(), "connections did not finish in time; closing them");
    }
    connections.shutdown().await;
    Ok(())
}

/// The response to a connection beyond the limit.
pub(crate) fn refusal(limits: &Limits) -> Bytes {
    let detail = format!("{} connections are already open; try again in a moment", limits.connections_max);
    Problem::new(ProblemKind::TooManyConnections, detail).last_words().into()
}

/// Sends a client the refusal and waits briefly for it to close: closing while its request is unread would reset the
/// connection, and the response might be lost.
async fn refuse(mut stream: impl AsyncRead + AsyncWrite + Unpin, refusal: Bytes) {
    let told = async {
        stream.write_all(&refusal).await?;
        stream.shutdown().await?;
        let mut unread = [0; 1024];
        while stream.read(&mut unread).await? > 0 {}
        io::Result::Ok(())
    };
    if !matches!(tokio::time::timeout(REFUSAL_TIMEOUT, told).await, Ok(Ok(()))) {
        tracing::debug!("a refused client did not read its answer");
    }
}

/// Whether the error concerns only one client, so that the next one can be accepted at once.
fn concerns_one_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

fn log_end(ended: std::result::Result<hyper::Result<()>, JoinError>) {
    match ended {
        Ok(Ok(())) => {}
        // Clients that disconnect, stall or send invalid data are normal.
        Ok(Err(error)) => tracing::debug!(%error, "a connection ended early"),
        Err(error) => tracing::error!(%error, "a connection's task failed"),
    }
}
