//! Limits on the resources that clients may use. Counting continues whatever clients do.

use crate::problem::{Problem, ProblemKind};
use adtally_model::Error;
use adtally_model::settings::{MINUTE, Span, Whole};
use adtally_store::questions::Cost;
use axum::http::Request;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Maximum length of path and query, in bytes: ten times what any valid question needs.
const URI_BYTES_MAX: usize = 8 * 1024;

/// Maximum size of headers, in bytes: twice the most that browsers and proxies send.
const HEADER_BYTES_MAX: usize = 16 * 1024;

/// Maximum number of headers: three times what browsers and proxies send.
const HEADERS_MAX: usize = 100;

/// Maximum number of headers that are read, so that a violation of [`HEADERS_MAX`] is explained; beyond it hyper
/// answers 431 without a document. Each takes 64 bytes while a head is read.
pub(crate) const HEADERS_READ_MAX: usize = 1_024;

/// Maximum buffered bytes of a request's head, so that violations of smaller limits are explained, and of an unsent
/// answer. Beyond it hyper answers 431 without a document. Hyper also answers 414 to a path and query of more than
/// 65,534 bytes, and 400 to what is not HTTP.
pub(crate) const BUFFER_BYTES_MAX: usize = 128 * 1024;

/// `[serve]`: bounds of the server. The defaults suit two cores that count clicks at the same time. Skipped fields are
/// not configurable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Maximum open connections; further ones are refused at once. A connection costs at most some 400 KB.
    #[serde(rename = "max_connections", deserialize_with = "Whole::<1, 65_536>::number")]
    pub connections_max: usize,
    /// How long a complete request head may take to arrive, and how long a connection may stay idle between requests.
    #[serde(skip)]
    pub header_timeout: Duration,
    /// Maximum time to compute an answer.
    #[serde(deserialize_with = "Span::<100, { 10 * MINUTE }>::duration")]
    pub request_timeout: Duration,
    /// How long a question waits for its requested revision.
    #[serde(skip)]
    pub revision_timeout: Duration,
    /// How long a client may leave a part of its answer unread.
    #[serde(skip)]
    pub stall_timeout: Duration,
    /// How long a client may take to read a whole answer: a long ledger of 3 MB requires 50 KB/s.
    #[serde(skip)]
    pub send_timeout: Duration,
    /// Questions in flight, running or waiting for their turn; further questions are refused.
    #[serde(skip)]
    pub questions_max: usize,
    /// Running questions that need recent counts: they are short and keep a core busy.
    #[serde(skip)]
    pub recent_counts_running_max: usize,
    /// Running questions that need older counts: each may use hundreds of megabytes.
    #[serde(skip)]
    pub older_counts_running_max: usize,
    /// Running questions that need raw clicks: each may use hundreds of megabytes.
    #[serde(skip)]
    pub raw_clicks_running_max: usize,
    /// How long answers in flight may continue after shutdown begins; the whole process must end within ten seconds.
    #[serde(skip)]
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            connections_max: 512,
            header_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            revision_timeout: Duration::from_secs(5),
            stall_timeout: Duration::from_secs(10),
            send_timeout: Duration::from_secs(60),
            questions_max: 64,
            recent_counts_running_max: 4,
            older_counts_running_max: 2,
            raw_clicks_running_max: 2,
            drain_timeout: Duration::from_secs(8),
        }
    }
}

impl Limits {
    /// Rejects limits under which no question could be answered.
    ///
    /// # Errors
    /// A user error that names the limit.
    pub fn check(&self) -> Result<(), Error> {
        let numbers = [
            ("connections_max", self.connections_max),
            ("questions_max", self.questions_max),
            ("recent_counts_running_max", self.recent_counts_running_max),
            ("older_counts_running_max", self.older_counts_running_max),
            ("raw_clicks_running_max", self.raw_clicks_running_max),
        ];
        let times = [
            ("header_timeout", self.header_timeout),
            ("request_timeout", self.request_timeout),
            ("stall_timeout", self.stall_timeout),
            ("send_timeout", self.send_timeout),
        ];
        let numbers = numbers.iter().filter(|(_, value)| *value == 0).map(|(name, _)| *name);
        let times = times.iter().filter(|(_, value)| value.is_zero()).map(|(name, _)| *name);
        match numbers.chain(times).next() {
            None => Ok(()),
            Some(name) => Err(Error::user(format!("the server's {name} is 0, so no request could be answered"))),
        }
    }
}

/// Admits questions. Each [`Cost`] has its own lane, so slow questions do not delay quick ones.
#[derive(Debug)]
pub(crate) struct Gate {
    questions_max: usize,
    seats: Arc<Semaphore>,
    recent_counts: Arc<Semaphore>,
    older_counts: Arc<Semaphore>,
    raw_clicks: Arc<Semaphore>,
}

impl Gate {
    /// A gate without questions in flight.
    pub(crate) fn new(limits: &Limits) -> Self {
        let places = |many: usize| Arc::new(Semaphore::new(many.min(Semaphore::MAX_PERMITS)));
        Gate {
            questions_max: limits.questions_max,
            seats: places(limits.questions_max),
            recent_counts: places(limits.recent_counts_running_max),
            older_counts: places(limits.older_counts_running_max),
            raw_clicks: places(limits.raw_clicks_running_max),
        }
    }

    /// A seat, held until the answer is sent.
    pub(crate) fn enter(&self) -> Result<Seat, Problem> {
        self.seats.clone().try_acquire_owned().map(|_permit| Seat { _permit }).map_err(|_| {
            let detail = format!("{} questions are already in flight; ask again in a moment", self.questions_max);
            Problem::new(ProblemKind::TooManyQuestions, detail)
        })
    }

    /// A turn to run, held until the question has run.
    pub(crate) async fn turn(&self, cost: Cost) -> Option<OwnedSemaphorePermit> {
        let lane = match cost {
            Cost::RecentCounts => &self.recent_counts,
            Cost::OlderCounts => &self.older_counts,
            Cost::RawClicks => &self.raw_clicks,
        };
        lane.clone().acquire_owned().await.ok()
    }

    /// Questions in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.questions_max.saturating_sub(self.seats.available_permits())
    }
}

/// A place among the questions in flight. An answer keeps it until it is completely sent, so clients that do not read
/// cannot make answers accumulate.
#[derive(Debug)]
pub(crate) struct Seat {
    _permit: OwnedSemaphorePermit,
}

/// Refuses requests whose head is too large.
pub(crate) fn check_size<B>(request: &Request<B>) -> Result<(), Problem> {
    let uri = request.uri().path_and_query().map_or(0, |uri| uri.as_str().len());
    if uri > URI_BYTES_MAX {
        let detail = format!("path and query are {uri} bytes long; at most {URI_BYTES_MAX} are allowed");
        return Err(Problem::new(ProblemKind::UriTooLong, detail));
    }
    let count = request.headers().len();
    if count > HEADERS_MAX {
        let detail = format!("there are {count} headers; at most {HEADERS_MAX} are allowed");
        return Err(Problem::new(ProblemKind::HeadersTooLarge, detail));
    }
    let headers: usize = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if headers > HEADER_BYTES_MAX {
        let detail = format!("the headers are {headers} bytes long; at most {HEADER_BYTES_MAX} are allowed");
        return Err(Problem::new(ProblemKind::HeadersTooLarge, detail));
    }
    Ok(())
}
