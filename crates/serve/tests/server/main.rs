//! The server over real connections: behaviour that tests of the routes cannot show:
//!
//! - several requests on one connection, and the bytes on the wire;
//! - clients that are slow to ask, silent, too large, too many, or do not read;
//! - shutdown with answers in flight.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail the test; clippy only knows the tests themselves")]

mod fakes;
mod listeners;

use adtally_model::Result;
use adtally_serve::{Limits, serve};
use fakes::{Process, Store};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::JoinHandle;

struct Server {
    runtime: Runtime,
    address: SocketAddr,
    store: Arc<Store>,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Result<()>>,
}

impl Server {
    fn start(limits: Limits, tickets: usize) -> Server {
        let runtime = runtime();
        let store = Arc::new(Store { asked: Semaphore::new(0), tickets: Semaphore::new(tickets) });
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            stopped.await.ok();
        };
        let served = runtime.spawn(serve(listener, store.clone(), Arc::new(Process), limits, shutdown));
        Server { runtime, address, store, stop, served }
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).unwrap()
    }

    /// Waits until the store receives another question.
    fn wait_for_question(&self) {
        self.runtime.block_on(self.store.asked.acquire()).unwrap().forget();
    }

    fn stop(self) {
        self.stop.send(()).unwrap();
        self.runtime.block_on(self.served).unwrap().unwrap();
        assert!(TcpStream::connect(self.address).is_err(), "it still listens");
    }
}

/// Sends one request and reads one answer.
fn ask(stream: &mut (impl Read + Write), target: &str) -> (String, String) {
    send(stream, target);
    answer(stream)
}

fn send(stream: &mut impl Write, target: &str) {
    stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: here\r\n\r\n").as_bytes()).unwrap();
}

/// Reads one answer, with a length or in chunks.
fn answer(stream: &mut impl Read) -> (String, String) {
    let head = read_until(stream, "\r\n\r\n");
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = Vec::new();
    if let Some(length) = length {
        body.resize(length.parse().unwrap(), 0);
        stream.read_exact(&mut body).unwrap();
        return (head, String::from_utf8(body).unwrap());
    }
    assert!(head.contains("\r\ntransfer-encoding: chunked\r\n"), "{head}");
    loop {
        let size = usize::from_str_radix(read_until(stream, "\r\n").trim_end(), 16).unwrap();
        let mut chunk = vec![0; size + 2];
        stream.read_exact(&mut chunk).unwrap();
        assert!(chunk.ends_with(b"\r\n"));
        body.extend_from_slice(&chunk[..size]);
        if size == 0 {
            return (head, String::from_utf8(body).unwrap());
        }
    }
}

fn read_until(stream: &mut impl Read, end: &str) -> String {
    let mut read = Vec::new();
    while !read.ends_with(end.as_bytes()) {
        let mut byte = [0];
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "closed after {:?}", String::from_utf8_lossy(&read));
        read.push(byte[0]);
    }
    String::from_utf8(read).unwrap()
}

fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset after the last byte also ends the response.
    stream.read_to_end(&mut bytes).ok();
    String::from_utf8_lossy(&bytes).into_owned()
}

const QUESTION: &str = "/ads/42/clicks?minutes=5";
const ANSWER: &str = r#"{"ad_id":"42","clicks":0,"from":null,"to":null,"state":"open","restated":false,"reconciled_to":null,"watermark":null,"newest_click":null,"revision":null,"filters":{}}"#;
const SOON: Duration = Duration::from_millis(100);

#[test]
fn one_connection_answers_many_requests() {
    let server = Server::start(Limits::default(), 2);
    let mut stream = server.connect();
    for _ in 0..2 {
        let (head, body) = ask(&mut stream, QUESTION);
        assert!(head.starts_with("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"), "{head}");
        assert!(head.contains(&format!("\r\ncontent-length: {}\r\n", ANSWER.len())), "{head}");
        assert_eq!(body, ANSWER);
    }
    let (head, body) = ask(&mut stream, "/ads/42/clicks?minutes=1000000000");
    assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\n"), "{head}");
    assert!(body.starts_with(r#"{"type":"/problems#minutes-out-of-range","title":"minutes is not from 1 to 10080","status":400,"detail":"#), "{body}");
    let (_, metrics) = ask(&mut stream, "/metrics");
    assert!(metrics.contains("adtally_http_connections 1\n"), "{metrics}");
    let (_, ledger) = ask(&mut stream, "/ledger");
    assert!(ledger.len() > 30_000_000 && ledger.ends_with("}],\"revision\":null}"), "a large answer comes whole");
    assert_eq!(ask(&mut stream, "/healthz").1, "ok\n", "the connection is good for the next request");
    drop(stream);
    server.stop();
}

#[test]
fn fault_36_slow_and_silent_clients_are_closed() {
    // Long enough for the answered request to arrive, however busy the machine.
    let server = Server::start(Limits { header_timeout: 10 * SOON, ..Limits::default() }, 1);
    let mut half_a_head = server.connect();
    half_a_head.write_all(b"GET / HTTP/1.1\r\nHost: he").unwrap();
    let mut silent = server.connect();
    let mut idle = server.connect();
    assert_eq!(ask(&mut idle, QUESTION).1, ANSWER);
    assert!(!read_to_end(&mut half_a_head).contains("200"));
    assert!(!read_to_end(&mut silent).contains("200"));
    assert!(!read_to_end(&mut idle).contains("200"));
    server.stop();
}

#[test]
fn fault_37_large_heads_are_refused() {
    let server = Server::start(Limits::default(), 0);
    let check = |head: String, expected: &str, explained: bool| {
        let mut stream = server.connect();
        // The server may answer and close before everything is sent.
        stream.write_all(head.as_bytes()).ok();
        let reply = read_to_end(&mut stream);
        assert!(reply.starts_with(expected), "{reply}");
        assert_eq!(reply.contains("/problems#"), explained, "{reply}");
    };
    let header = |bytes: usize| format!("GET / HTTP/1.1\r\nConnection: close\r\nCookie: {}\r\n\r\n", "c".repeat(bytes));
    check(header(10_000), "HTTP/1.1 200", false);
    check(header(20_000), "HTTP/1.1 431", true);
    check(header(120_000), "HTTP/1.1 431", true);
    check(header(300_000), "HTTP/1.1 431", false);
    let headers = |count: usize| format!("GET / HTTP/1.1\r\nConnection: close\r\n{}\r\n", "A: b\r\n".repeat(count));
    check(headers(99), "HTTP/1.1 200", false);
    check(headers(100), "HTTP/1.1 431", true);
    check(headers(1_023), "HTTP/1.1 431", true);
    check(headers(1_024), "HTTP/1.1 431", false);
    let target = |bytes: usize| format!("GET /{} HTTP/1.1\r\nConnection: close\r\n\r\n", "y".repeat(bytes));
    check(target(8_000), "HTTP/1.1 404", true);
    check(target(20_000), "HTTP/1.1 414", true);
    check(target(65_000), "HTTP/1.1 414", true);
    check(target(70_000), "HTTP/1.1 414", false);
    check("nonsense\r\n\r\n".into(), "HTTP/1.1 400", false);
    server.stop();
}

#[test]
fn fault_35_further_connections_are_refused_at_once() {
    let server = Server::start(Limits { connections_max: 1, ..Limits::default() }, 2);
    let mut first = server.connect();
    assert_eq!(ask(&mut first, QUESTION).1, ANSWER);
    let mut second = server.connect();
    send(&mut second, QUESTION);
    let reply = read_to_end(&mut second);
    assert!(reply.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{reply}");
    assert!(reply.contains("\r\nconnection: close\r\n") && reply.contains("/problems#too-many-connections"), "{reply}");
    let (_, metrics) = ask(&mut first, "/metrics");
    assert!(metrics.contains("adtally_http_connections 1\n"), "{metrics}");
    assert!(metrics.contains("adtally_http_connections_refused_total 1\n"), "{metrics}");
    drop(first);
    ask_until_admitted(&server);
    server.stop();
}

/// Sends requests on new connections until one is not refused.
fn ask_until_admitted(server: &Server) {
    loop {
        let mut stream = server.connect();
        send(&mut stream, QUESTION);
        let (head, body) = answer(&mut stream);
        if head.starts_with("HTTP/1.1 200") {
            assert_eq!(body, ANSWER);
            return;
        }
        assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    }
}

#[test]
fn fault_36_clients_that_do_not_read_are_closed() {
    let server = Server::start(Limits { stall_timeout: SOON, connections_max: 1, ..Limits::default() }, 1);
    let mut deaf = server.connect();
    send(&mut deaf, "/ledger");
    // Others are admitted only after the client that does not read is closed.
    ask_until_admitted(&server);
    assert!(read_to_end(&mut deaf).len() < 30_000_000);
    server.stop();
}

#[test]
fn fault_36_clients_that_read_too_slowly_are_closed() {
    // The client never stalls, but reads only a few megabytes per second.
    let server = Server::start(Limits { send_timeout: 10 * SOON, stall_timeout: 600 * SOON, ..Limits::default() }, 0);
    let mut slow = server.connect();
    send(&mut slow, "/ledger");
    let (mut taken, mut bytes) = (0, [0; 65_536]);
    while let Ok(read @ 1..) = slow.read(&mut bytes) {
        taken += read;
        std::thread::sleep(SOON / 10);
    }
    assert!(taken < 30_000_000, "all of it was sent");
    server.stop();
}

#[test]
fn fault_35_questions_beyond_the_bound_are_told_to_come_back() {
    let limits = Limits { questions_max: 2, recent_counts_running_max: 1, ..Limits::default() };
    let server = Server::start(limits, 0);
    let mut running = server.connect();
    send(&mut running, QUESTION);
    server.wait_for_question();
    let mut waiting = server.connect();
    send(&mut waiting, QUESTION);
    // Both seats are taken once the second question is read.
    let mut third = server.connect();
    while !ask(&mut third, "/metrics").1.contains("adtally_questions_in_flight 2\n") {}
    let (head, body) = ask(&mut third, QUESTION);
    assert!(head.starts_with("HTTP/1.1 503") && head.contains("\r\nretry-after: 1\r\n"), "{head}");
    assert!(body.contains("/problems#too-many-questions"), "{body}");
    assert!(ask(&mut third, "/healthz").0.starts_with("HTTP/1.1 200"), "the process lives all the while");
    server.store.tickets.add_permits(2);
    assert_eq!(answer(&mut running).1, ANSWER);
    assert_eq!(answer(&mut waiting).1, ANSWER);
    server.stop();
}

#[test]
fn slow_questions_hold_up_no_quick_ones() {
    let limits = Limits { recent_counts_running_max: 1, older_counts_running_max: 1, ..Limits::default() };
    let server = Server::start(limits, 0);
    let mut slow = [server.connect(), server.connect()];
    slow.iter_mut().for_each(|stream| send(stream, "/ads/42/clicks?minutes=10080"));
    server.wait_for_question();
    let mut quick = server.connect();
    while !ask(&mut quick, "/metrics").1.contains("adtally_questions_in_flight 2\n") {}
    assert!(ask(&mut quick, "/ads/top100?minutes=5").0.starts_with("HTTP/1.1 200"));
    server.store.tickets.add_permits(2);
    slow.iter_mut().for_each(|stream| assert_eq!(answer(stream).1, ANSWER));
    server.stop();
}

#[test]
fn a_client_that_leaves_frees_its_place() {
    let limits = Limits { questions_max: 1, recent_counts_running_max: 1, ..Limits::default() };
    let server = Server::start(limits, 0);
    let mut leaves = server.connect();
    send(&mut leaves, QUESTION);
    server.wait_for_question();
    drop(leaves);
    let mut next = server.connect();
    while !ask(&mut next, "/metrics").1.contains("adtally_questions_in_flight 0\n") {}
    server.store.tickets.add_permits(1);
    assert_eq!(ask(&mut next, QUESTION).1, ANSWER);
    server.stop();
}

#[test]
fn shutdown_waits_for_answers_in_flight() {
    let server = Server::start(Limits::default(), 0);
    let mut asks = server.connect();
    let mut idle = server.connect();
    assert!(ask(&mut idle, "/healthz").0.starts_with("HTTP/1.1 200"));
    send(&mut asks, QUESTION);
    server.wait_for_question();
    let Server { runtime, address, store, stop, served } = server;
    stop.send(()).unwrap();
    assert_eq!(read_to_end(&mut idle), "", "an idle connection is closed at once");
    assert!(!served.is_finished());
    store.tickets.add_permits(1);
    assert_eq!(answer(&mut asks).1, ANSWER);
    runtime.block_on(served).unwrap().unwrap();
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn shutdown_ends_by_its_deadline() {
    let server = Server::start(Limits { drain_timeout: SOON, ..Limits::default() }, 0);
    let mut asks = server.connect();
    send(&mut asks, QUESTION);
    server.wait_for_question();
    server.stop();
    assert_eq!(read_to_end(&mut asks), "");
}

#[test]
fn limits_that_would_answer_nobody_are_refused() {
    let check = |limits: Limits, expected: Option<&str>| {
        assert_eq!(limits.check().err().map(|error| error.to_string()).as_deref(), expected);
    };
    let limits = Limits::default();
    check(limits, None);
    let refused = "the server's raw_clicks_running_max is 0, so no request could be answered";
    check(Limits { raw_clicks_running_max: 0, ..limits }, Some(refused));
    let refused = "the server's header_timeout is 0, so no request could be answered";
    check(Limits { header_timeout: Duration::ZERO, ..limits }, Some(refused));
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}
