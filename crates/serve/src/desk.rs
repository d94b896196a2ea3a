//! The state that handlers share, and how questions are answered.

use crate::limits::{Gate, Limits, Seat};
use crate::metrics::Metrics;
use crate::parameters::{self, REVISION};
use crate::pieces::{self, PiecedBody};
use crate::problem::{Problem, ProblemKind};
use crate::query_string::Given;
use adtally_engine::status::Status;
use adtally_model::{Error, ErrorKind};
use adtally_store::questions::{Cost, Question, Questions, Reached, Revision};
use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use serde::Serialize;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

/// The media type of answers.
pub(crate) const JSON: &str = "application/json";

/// How often a waiting question checks whether its revision is reached. Epochs are seconds apart.
const REACH_POLL: Duration = Duration::from_millis(20);

/// The state that handlers share.
pub(crate) struct Desk {
    questions: Arc<dyn Questions>,
    /// The process itself.
    pub(crate) status: Arc<dyn Status>,
    /// The limits of clients.
    pub(crate) limits: Limits,
    /// Admits questions.
    pub(crate) gate: Gate,
    /// The metrics of the server.
    pub(crate) metrics: Metrics,
    failures: AtomicU64,
}

impl Desk {
    /// A desk that has not received any question.
    pub(crate) fn new(questions: Arc<dyn Questions>, status: Arc<dyn Status>, limits: Limits) -> Self {
        let metrics = Metrics::new(status.clone());
        Desk { questions, status, limits, gate: Gate::new(&limits), metrics, failures: AtomicU64::new(0) }
    }

    /// Refuses requests that need the state until it is recovered. Counters must not start at 0 and jump.
    pub(crate) fn recovered(&self) -> Result<(), Problem> {
        match self.status.recovering() {
            None => Ok(()),
            Some(progress) => {
                Err(Problem::new(ProblemKind::Recovering, format!("{progress}; /readyz reports when this is done")))
            }
        }
    }

    /// Waits until answers include the revision that a client has seen elsewhere, so that it sees no older state.
    async fn reach(&self, wanted: Option<Revision>) -> Result<(), Problem> {
        let Some(wanted) = wanted else { return Ok(()) };
        let until = Instant::now() + self.limits.revision_timeout;
        loop {
            match self.questions.revision().reached(&wanted) {
                Reached::Yes => return Ok(()),
                Reached::Never => {
                    let detail = "the revision belongs to another epoch log; ask without a revision";
                    return Err(Problem::new(ProblemKind::UnknownRevision, detail).of(REVISION));
                }
                Reached::NotYet if Instant::now() >= until => {
                    let seconds = self.limits.revision_timeout.as_secs_f64();
                    let detail = format!(
                        "the revision was not reached within {seconds} s; ask again later, or ask another node"
                    );
                    return Err(Problem::new(ProblemKind::Behind, detail).of(REVISION));
                }
                Reached::NotYet => sleep(REACH_POLL).await,
            }
        }
    }

    /// An internal failure: the reason is logged, and the client gets the number of the log entry.
    pub(crate) fn failed(&self, reason: &str) -> Problem {
        let number = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        tracing::error!(failure = number, reason, "could not answer");
        let detail = format!("the server's log has the reason, under failure={number}");
        Problem::new(ProblemKind::Internal, detail).at(format!("/problems#internal-{number}"))
    }

    /// The problem that the client gets for an error; internal details are only logged.
    fn explain(&self, error: &Error) -> Problem {
        match error.kind() {
            ErrorKind::User => Problem::new(ProblemKind::CannotBeAnswered, error.to_string()),
            ErrorKind::External | ErrorKind::Fenced => {
                tracing::warn!(reason = error.report(), "a store cannot be read");
                let detail = "an incomplete answer is never given; ask again later, and see /readyz for the cause";
                Problem::new(ProblemKind::StoreUnavailable, detail)
            }
            ErrorKind::Corrupt | ErrorKind::Internal => self.failed(&error.report()),
        }
    }

    /// Asks the store. `find` turns a question into the future of its answer. `given` may contain a revision to wait
    /// for.
    pub(crate) async fn ask<A, F>(
        &self,
        given: &Given,
        question: Question,
        find: impl FnOnce(Arc<dyn Questions>, Question) -> F,
    ) -> Result<Response, Problem>
    where
        A: Serialize + Send + 'static,
        F: Future<Output = adtally_model::Result<A>> + Send + 'static,
    {
        let revision = parameters::revision(given)?;
        self.recovered()?;
        if let Some(why) = self.questions.misdirected() {
            return Err(Problem::new(ProblemKind::Misdirected, why));
        }
        self.reach(revision).await?;
        let seat = self.gate.enter()?;
        let cost = self.questions.cost(&question);
        self.answer(seat, cost, find(Arc::clone(&self.questions), question)).await
    }

    /// Waits for a turn, then finds and writes an answer on a blocking thread. It is cancelled if the client
    /// disconnects or the time is up. An error before the first piece is answered with a problem; a later error cuts
    /// the answer off.
    pub(crate) async fn answer<A, F>(&self, seat: Seat, cost: Cost, find: F) -> Result<Response, Problem>
    where
        A: Serialize + Send + 'static,
        F: Future<Output = adtally_model::Result<A>> + Send + 'static,
    {
        let turn = self.gate.turn(cost).await;
        let (waiting, gone) = oneshot::channel::<()>();
        let (begin, begun) = oneshot::channel();
        let runtime = Handle::current();
        let running = tokio::task::spawn_blocking(move || {
            let found = runtime.block_on(async {
                tokio::select! {
                    biased;
                    _ = gone => None,
                    answer = find => Some(answer),
                }
            });
            // A client that reads slowly does not delay other questions.
            drop(turn);
            found.map_or(Ok(()), |answer| pieces::write(&answer?, begin))
        });
        let begun = begun.await;
        drop(waiting);
        if let Ok(begun) = begun {
            return Ok(content(JSON, Body::new(PiecedBody::new(begun, seat))));
        }
        Err(match running.await {
            Ok(Err(error)) => self.explain(&error),
            Ok(Ok(())) => self.failed("a question was cancelled although its client was waiting"),
            Err(ended) => self.failed(&format!("the task of a question failed: {ended}")),
        })
    }

    /// A short answer that is already known.
    pub(crate) fn json(&self, answer: &impl Serialize) -> Result<Response, Problem> {
        let bytes = serde_json::to_vec(answer).map_err(|error| self.failed(&error.to_string()))?;
        Ok(content(JSON, Body::from(bytes)))
    }
}

/// A response with a body.
pub(crate) fn content(media_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}
