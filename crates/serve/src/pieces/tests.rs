//! Answers of every length around a piece, broken answers, and clients that leave.

use super::*;
use crate::limits::{Gate, Limits};
use axum::body::to_bytes;
use serde::Serializer;
use serde::ser::Error as _;
use tokio::runtime::Runtime;

/// A text that is `length` bytes long as JSON.
fn text(length: usize) -> String {
    "x".repeat(length - 2)
}

/// Rows of a text, and then perhaps one that cannot be written.
struct Rows {
    whole: usize,
    breaks: bool,
}

struct Row(bool);

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        if self.0 { Err(S::Error::custom("no words for it")) } else { serializer.serialize_str(&text(1_000)) }
    }
}

impl Serialize for Rows {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let broken = self.breaks.then_some(Row(true));
        serializer.collect_seq((0..self.whole).map(|_| Row(false)).chain(broken))
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

/// Writes an answer on another thread; its beginning, and how the writing ends.
fn written(
    answer: impl Serialize + Send + 'static,
) -> (std::result::Result<Begun, oneshot::error::RecvError>, std::thread::JoinHandle<Result<()>>) {
    let (begin, begun) = oneshot::channel();
    let writing = std::thread::spawn(move || write(&answer, begin));
    (begun.blocking_recv(), writing)
}

fn body(begun: Begun) -> (PiecedBody, Gate) {
    let gate = Gate::new(&Limits::default());
    let seat = gate.enter().unwrap();
    (PiecedBody::new(begun, seat), gate)
}

#[test]
fn answers_of_every_length_arrive_whole() {
    for length in [2, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 2 * PIECE_BYTES, 5 * PIECE_BYTES + 7] {
        let (begun, writing) = written(text(length));
        let (body, gate) = body(begun.unwrap());
        let expected = (length <= PIECE_BYTES).then_some(length as u64);
        assert_eq!(body.size_hint().exact(), expected, "only short answers have a length");
        assert_eq!(gate.in_flight(), 1);
        let bytes = runtime().block_on(to_bytes(axum::body::Body::new(body), usize::MAX)).unwrap();
        assert_eq!(bytes, serde_json::to_vec(&text(length)).unwrap());
        assert_eq!(gate.in_flight(), 0, "the seat is given back");
        writing.join().unwrap().unwrap();
    }
}

#[test]
fn what_fails_before_the_first_piece_sends_nothing() {
    let (begun, writing) = written(Rows { whole: 10, breaks: true });
    assert!(begun.is_err());
    assert!(writing.join().unwrap().is_err());
}

#[test]
fn an_answer_that_breaks_off_is_no_shorter_answer() {
    let (begun, writing) = written(Rows { whole: 1_000, breaks: true });
    let (body, gate) = body(begun.unwrap());
    let read = runtime().block_on(to_bytes(axum::body::Body::new(body), usize::MAX));
    assert!(read.is_err(), "it would be taken for the whole");
    assert!(writing.join().unwrap().is_err());
    assert_eq!(gate.in_flight(), 0);
}

#[test]
fn a_client_that_leaves_ends_the_writing() {
    let (begun, writing) = written(Rows { whole: 1_000_000, breaks: false });
    drop(body(begun.unwrap()));
    writing.join().unwrap().unwrap();
}
