//! Connections that are not TCP connections.

use crate::fakes::{Process, Store};
use crate::{ANSWER, QUESTION, SOON, answer, ask, runtime, send};
use adtally_serve::{Limits, Listener, serve};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::UnixListener;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Connections in memory.
struct Pipes(mpsc::Receiver<DuplexStream>);

impl Listener for Pipes {
    type Stream = DuplexStream;
    type Peer = ();

    async fn accept(&mut self) -> io::Result<(DuplexStream, ())> {
        match self.0.recv().await {
            Some(stream) => Ok((stream, ())),
            None => std::future::pending().await,
        }
    }
}

/// Serves connections from `listener`; `client` sends requests from a thread that may block.
fn serve_to(runtime: &Runtime, listener: impl Listener + 'static, limits: Limits, client: impl FnOnce()) {
    let store = Arc::new(Store { asked: Semaphore::new(0), tickets: Semaphore::new(9) });
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async {
        stopped.await.ok();
    };
    let served = runtime.spawn(serve(listener, store, Arc::new(Process), limits, shutdown));
    client();
    stop.send(()).unwrap();
    runtime.block_on(served).unwrap().unwrap();
}

#[test]
fn a_unix_socket_is_served_with_the_same_bounds() {
    let (runtime, folder) = (runtime(), tempfile::tempdir().unwrap());
    let path = folder.path().join("socket");
    let listener = runtime.block_on(async { UnixListener::bind(&path) }).unwrap();
    let limits = Limits { connections_max: 1, ..Limits::default() };
    serve_to(&runtime, listener, limits, || {
        let mut stream = UnixStream::connect(&path).unwrap();
        assert_eq!(ask(&mut stream, QUESTION).1, ANSWER);
        assert!(ask(&mut stream, "/ledger").1.ends_with("}],\"revision\":null}"));
        let mut refused = UnixStream::connect(&path).unwrap();
        send(&mut refused, QUESTION);
        assert!(answer(&mut refused).1.contains("/problems#too-many-connections"));
    });
}

#[test]
fn streams_in_memory_are_served_and_closed_when_nobody_reads() {
    let runtime = runtime();
    let (sender, receiver) = mpsc::channel(2);
    let limits = Limits { stall_timeout: SOON, connections_max: 2, ..Limits::default() };
    let connect = || {
        let (ours, theirs) = tokio::io::duplex(4_096);
        sender.blocking_send(theirs).unwrap();
        Blocking { stream: ours, runtime: runtime.handle().clone() }
    };
    serve_to(&runtime, Pipes(receiver), limits, || {
        let mut stream = connect();
        assert_eq!(ask(&mut stream, QUESTION).1, ANSWER);
        let mut deaf = connect();
        while !ask(&mut stream, "/metrics").1.contains("adtally_http_connections 2\n") {}
        send(&mut deaf, "/ledger");
        while ask(&mut stream, "/metrics").1.contains("adtally_http_connections 2\n") {}
        let mut read = Vec::new();
        deaf.read_to_end(&mut read).unwrap();
        assert!(read.starts_with(b"HTTP/1.1 200 OK\r\n") && read.len() < 8_192, "{}", read.len());
    });
}

/// An asynchronous stream for clients that block.
struct Blocking {
    stream: DuplexStream,
    runtime: Handle,
}

impl Read for Blocking {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.runtime.block_on(self.stream.read(bytes))
    }
}

impl Write for Blocking {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.runtime.block_on(self.stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.runtime.block_on(self.stream.flush())
    }
}
