//! Answers in pieces: a long answer is sent while it is being written, so it is never in memory as a whole.
//!
//! A blocking thread writes JSON into a [`PieceWriter`]. An answer that fits into one piece becomes a body with a
//! length. A longer answer is passed to its body through a bounded channel, so the writer waits for the client.

use crate::limits::Seat;
use adtally_model::{Error, Result};
use hyper::body::{Body, Bytes, Frame, SizeHint};
use serde::Serialize;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::sync::{mpsc, oneshot};

/// The maximum size of a piece, in bytes: some 1,000 minutes of a series. Smaller pieces cost more thread switches;
/// larger pieces cost more memory for each question in flight.
pub(crate) const PIECE_BYTES: usize = 64 * 1024;

/// Pieces that wait for the connection: the next piece is written while one is being sent.
const WAITING_MAX: usize = 1;

/// The beginning of an answer.
#[derive(Debug)]
pub(crate) enum Begun {
    /// The whole answer.
    Whole(Bytes),
    /// The first piece, and the channel for the others.
    Long(Bytes, mpsc::Receiver<Piece>),
}

/// A piece after the first.
#[derive(Debug)]
pub(crate) enum Piece {
    /// More pieces follow. If none follows, the answer is incomplete, and the client must be able to detect that.
    More(Bytes),
    /// The end of the answer.
    Last(Bytes),
}

/// Writes an answer as JSON and hands its beginning to `begin`. Blocks while the client does not read.
///
/// # Errors
/// Internal if the answer cannot be serialized. If `begin` is not used yet, nothing has been sent. A disconnected
/// client is not an error.
pub(crate) fn write(answer: &impl Serialize, begin: oneshot::Sender<Begun>) -> Result<()> {
    let mut writer = PieceWriter { piece: Vec::new(), begin: Some(begin), rest: None };
    match serde_json::to_writer(&mut writer, answer) {
        Ok(()) => {
            writer.finish();
            Ok(())
        }
        Err(error) if error.is_io() => Ok(()),
        Err(error) => {
            if writer.begin.is_none() {
                tracing::error!(%error, "an answer was cut off");
            }
            Err(Error::internal("an answer cannot be written as JSON").because(error))
        }
    }
}

/// Splits the written bytes into pieces of [`PIECE_BYTES`].
struct PieceWriter {
    piece: Vec<u8>,
    /// Until the first piece is passed on.
    begin: Option<oneshot::Sender<Begun>>,
    /// Set after the first piece.
    rest: Option<mpsc::Sender<Piece>>,
}

impl PieceWriter {
    /// Passes on a full piece that is not the last.
    fn pass_on(&mut self) -> io::Result<()> {
        let piece = Bytes::from(std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE_BYTES)));
        let passed = match (self.begin.take(), &self.rest) {
            (Some(begin), _) => {
                let (sender, receiver) = mpsc::channel(WAITING_MAX);
                self.rest = Some(sender);
                begin.send(Begun::Long(piece, receiver)).is_ok()
            }
            (None, Some(rest)) => rest.blocking_send(Piece::More(piece)).is_ok(),
            (None, None) => false,
        };
        if passed { Ok(()) } else { Err(io::Error::new(io::ErrorKind::BrokenPipe, "the client disconnected")) }
    }

    /// Passes on the last piece. A disconnected client is not an error.
    fn finish(self) {
        let piece = Bytes::from(self.piece);
        if let Some(begin) = self.begin {
            begin.send(Begun::Whole(piece)).ok();
        } else if let Some(rest) = self.rest {
            rest.blocking_send(Piece::Last(piece)).ok();
        }
    }
}

impl io::Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // The full piece is not the last, because more bytes follow.
        if self.piece.len() == PIECE_BYTES && !bytes.is_empty() {
            self.pass_on()?;
        }
        let taken = bytes.len().min(PIECE_BYTES - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The body of an answer. It keeps its seat until the last piece is sent.
pub(crate) struct PiecedBody {
    next: Option<Bytes>,
    /// Set until the last piece is received.
    rest: Option<mpsc::Receiver<Piece>>,
    seat: Option<Seat>,
}

impl PiecedBody {
    /// A body that holds `seat`.
    pub(crate) fn new(begun: Begun, seat: Seat) -> Self {
        let (first, rest) = match begun {
            Begun::Whole(all) => (all, None),
            Begun::Long(first, rest) => (first, Some(rest)),
        };
        PiecedBody { next: Some(first), rest, seat: Some(seat) }
    }
}

impl Body for PiecedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        if let Some(next) = this.next.take() {
            return Poll::Ready(Some(Ok(Frame::data(next))));
        }
        let Some(rest) = &mut this.rest else {
            this.seat = None;
            return Poll::Ready(None);
        };
        let received = ready!(rest.poll_recv(context));
        if !matches!(received, Some(Piece::More(_))) {
            this.rest = None;
        }
        Poll::Ready(Some(match received {
            Some(Piece::More(piece) | Piece::Last(piece)) => Ok(Frame::data(piece)),
            // The connection is closed before the end of the body.
            None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the answer was cut off")),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.next.is_none() && self.rest.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.next, &self.rest) {
            (Some(all), None) => SizeHint::with_exact(all.len() as u64),
            (None, None) => SizeHint::with_exact(0),
            (_, Some(_)) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests;
