//! A connection that ends if its client stops reading or reads too slowly. Hyper has a timeout for reading heads, but
//! none for writing.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// The deadline for reading the answer that is being sent on a connection; shared by the connection and its request
/// handler.
#[derive(Clone, Debug)]
pub(crate) struct SendDeadline {
    timeout: Duration,
    connected_at: Instant,
    /// Milliseconds after `connected_at`; `u64::MAX` before the first answer.
    due_ms: Arc<AtomicU64>,
}

impl SendDeadline {
    /// The deadline of a connection without an answer yet.
    pub(crate) fn new(timeout: Duration) -> Self {
        SendDeadline { timeout, connected_at: Instant::now(), due_ms: Arc::new(AtomicU64::new(u64::MAX)) }
    }

    /// Starts the deadline of an answer.
    pub(crate) fn begin(&self) {
        let due = self.connected_at.elapsed() + self.timeout;
        self.due_ms.store(u64::try_from(due.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn due(&self) -> Option<Instant> {
        let ms = Some(self.due_ms.load(Ordering::Relaxed)).filter(|&ms| ms < u64::MAX)?;
        self.connected_at.checked_add(Duration::from_millis(ms))
    }
}

/// A connection on which no write may wait longer than `timeout` or beyond the deadline of its answer.
pub(crate) struct StallGuard<S> {
    stream: S,
    timeout: Duration,
    sending: SendDeadline,
    deadline: Pin<Box<Sleep>>,
    waiting: bool,
}

impl<S> StallGuard<S> {
    /// Guards a connection.
    pub(crate) fn new(stream: S, timeout: Duration, sending: SendDeadline) -> Self {
        StallGuard { stream, timeout, sending, deadline: Box::pin(sleep(timeout)), waiting: false }
    }

    /// Returns the result of a write, or a timeout if it has waited too long. Only writes that wait are checked: a
    /// client that reads everything at once is not slow.
    fn watch<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = false;
            return written;
        }
        if !self.waiting {
            self.waiting = true;
            let stalled = Instant::now() + self.timeout;
            self.deadline.as_mut().reset(self.sending.due().map_or(stalled, |due| due.min(stalled)));
        }
        match self.deadline.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client reads too slowly"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for StallGuard<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for StallGuard<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(context, bytes);
        this.watch(context, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(context, bytes);
        this.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.stream).poll_flush(context);
        this.watch(context, flushed)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
