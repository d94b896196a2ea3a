//! Sources of connections. The server accepts any stream of bytes: TCP, Unix sockets, TLS on top of either, or memory.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream, unix};

/// A source of connections for [`serve`](crate::serve). All limits hold for every kind of stream.
pub trait Listener: Send {
    /// A connection. Its writes must wait while its client does not read: this is how stalled clients are detected.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// The address of the client. The server neither uses nor logs it.
    type Peer: Send;

    /// Waits for the next connection. It is safe to cancel: dropping the future loses no connection.
    ///
    /// # Errors
    /// If the next connection could not be accepted. The server then tries again; unless the error concerns only one
    /// client, it pauses first.
    fn accept(&mut self) -> impl Future<Output = io::Result<(Self::Stream, Self::Peer)>> + Send;
}

impl Listener for TcpListener {
    type Stream = TcpStream;
    type Peer = SocketAddr;

    async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = TcpListener::accept(self).await?;
        // Answers are written at once: waiting for more data would only delay them. An error here is harmless.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        Ok((stream, peer))
    }
}

impl Listener for UnixListener {
    type Stream = UnixStream;
    type Peer = unix::SocketAddr;

    async fn accept(&mut self) -> io::Result<(UnixStream, unix::SocketAddr)> {
        UnixListener::accept(self).await
    }
}
