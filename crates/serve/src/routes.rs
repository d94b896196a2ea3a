//! Routes: which address asks what, and how a question gets its answer.

use crate::accept;
use crate::answers::{AdClicksAnswer, LedgerAnswer, ReadinessAnswer, TOP_ADS, TopAdsAnswer};
use crate::classic;
use crate::limits::{Gate, Limits, Seat, SeatedBody, check_size};
use crate::metrics::{self, Metrics};
use crate::parameters::{self, AD_PARAMETERS, REVISION, SERIES, TOP_PARAMETERS};
use crate::problem::{Problem, ProblemKind, catalogue, quoted};
use crate::query_string::Given;
use adtally_engine::status::Status;
use adtally_model::{Error, ErrorKind};
use adtally_store::questions::{Cost, Questions, Reached, Revision};
use axum::Router;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{MatchedPath, Path, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use std::any::Any;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};
use tower_http::catch_panic::CatchPanicLayer;

const JSON: &str = "application/json";

/// How often a waiting question checks whether its revision is reached. Epochs are seconds apart.
const REACH_POLL: Duration = Duration::from_millis(20);

/// The description of this interface for machines.
const OPENAPI: &str = include_str!("../openapi.json");

/// An endpoint: its path, what it tells, and an address to try.
#[derive(Serialize)]
pub(crate) struct Route {
    /// Its path, parameters in braces.
    pub(crate) path: &'static str,
    /// What it tells.
    pub(crate) what: &'static str,
    /// An address to try.
    pub(crate) example: &'static str,
}

const AD_CLICKS: &str = "/ads/{ad_id}/clicks";
const TOP_ADS_PATH: &str = "/ads/top100";

/// Where a request is booked that no route matched.
const NO_ROUTE: &str = "none";

/// All endpoints; each answers GET and HEAD.
pub(crate) const ROUTES: [Route; 9] = [
    Route {
        path: AD_CLICKS,
        what: "clicks of one ad in the last minutes, or from one minute to another",
        example: "/ads/42/clicks?minutes=5&series=true",
    },
    Route {
        path: TOP_ADS_PATH,
        what: "the 100 most clicked ads, by country, address and user where filters say so",
        example: "/ads/top100?minutes=5&filter_country=US",
    },
    Route { path: "/ledger", what: "where every line that was read went", example: "/ledger" },
    Route { path: "/healthz", what: "whether the process lives", example: "/healthz" },
    Route { path: "/readyz", what: "whether it does its work, and what keeps it from it", example: "/readyz" },
    Route { path: "/metrics", what: "metrics for Prometheus", example: "/metrics" },
    Route { path: "/problems", what: "every error that an endpoint can answer with", example: "/problems" },
    Route { path: "/openapi.json", what: "all of this for machines (OpenAPI 3.1)", example: "/openapi.json" },
    Route { path: "/", what: "this list", example: "/" },
];

/// What handlers share.
pub(crate) struct Desk {
    questions: Arc<dyn Questions>,
    status: Arc<dyn Status>,
    limits: Limits,
    gate: Gate,
    /// What is measured.
    pub(crate) metrics: Metrics,
    failures: AtomicU64,
}

impl Desk {
    /// A desk at which nobody has asked yet.
    pub(crate) fn new(questions: Arc<dyn Questions>, status: Arc<dyn Status>, limits: Limits) -> Self {
        let metrics = Metrics::new(status.clone());
        Desk { questions, status, limits, gate: Gate::new(&limits), metrics, failures: AtomicU64::new(0) }
    }

    /// The gate through which questions come.
    #[cfg(test)]
    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Refuses what needs the state, until it is recovered. Counters that begin at 0 and jump would be wrong, too.
    fn recovered(&self) -> Result<(), Problem> {
        match self.status.recovering() {
            None => Ok(()),
            Some(progress) => {
                Err(Problem::new(ProblemKind::Recovering, format!("{progress}; /readyz tells when it is done")))
            }
        }
    }

    /// Waits until answers have reached the revision that a client has seen elsewhere: it must not see less here.
    async fn reach(&self, wanted: Option<Revision>) -> Result<(), Problem> {
        let Some(wanted) = wanted else { return Ok(()) };
        let until = Instant::now() + self.limits.revision_timeout;
        loop {
            match self.questions.revision().reached(&wanted) {
                Reached::Yes => return Ok(()),
                Reached::Never => {
                    let detail = "the epochs here are of another log than those of the revision; ask without one";
                    return Err(Problem::new(ProblemKind::UnknownRevision, detail).of(REVISION));
                }
                Reached::NotYet if Instant::now() >= until => {
                    let seconds = self.limits.revision_timeout.as_secs_f64();
                    let detail = format!("it was not reached within {seconds} s; ask again later, or another node");
                    return Err(Problem::new(ProblemKind::Behind, detail).of(REVISION));
                }
                Reached::NotYet => sleep(REACH_POLL).await,
            }
        }
    }

    /// A failure that is ours: the log has the reason, the client a number that leads to it.
    fn failed(&self, reason: &str) -> Problem {
        let number = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        tracing::error!(failure = number, reason, "could not answer");
        let detail = format!("the server's log has the reason, under failure={number}");
        Problem::new(ProblemKind::Internal, detail).at(format!("/problems#internal-{number}"))
    }

    /// What the client is told of an error; what is ours alone goes to the log.
    fn explain(&self, error: &Error) -> Problem {
        match error.kind() {
            ErrorKind::User => Problem::new(ProblemKind::CannotBeAnswered, error.to_string()),
            ErrorKind::External | ErrorKind::Fenced => {
                tracing::warn!(reason = error.report(), "a store cannot be read");
                let detail = "nothing was answered rather than a part; ask again later, and see /readyz";
                Problem::new(ProblemKind::StoreUnavailable, detail)
            }
            ErrorKind::Corrupt | ErrorKind::Internal => self.failed(&error.report()),
        }
    }

    /// Runs a question on a thread that may block, when it is its turn. It is abandoned when the client leaves or
    /// its time is up.
    async fn run<T, F>(&self, cost: Cost, asked: F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: Future<Output = adtally_model::Result<T>> + Send + 'static,
    {
        let turn = self.gate.turn(cost).await;
        let (waiting, gone) = oneshot::channel::<()>();
        let runtime = Handle::current();
        let running = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            runtime.block_on(async {
                tokio::select! {
                    biased;
                    _ = gone => None,
                    answer = asked => Some(answer),
                }
            })
        });
        let ended = running.await;
        drop(waiting);
        match ended {
            Ok(Some(Ok(answer))) => Ok(answer),
            Ok(Some(Err(error))) => Err(self.explain(&error)),
            Ok(None) => Err(self.failed("a question was abandoned although its client waited")),
            Err(ended) => Err(self.failed(&format!("a question ended badly: {ended}"))),
        }
    }

    fn json(&self, answer: &impl Serialize, seat: Option<Seat>) -> Result<Response, Problem> {
        let bytes = serde_json::to_vec(answer).map_err(|error| self.failed(&error.to_string()))?;
        Ok(content(JSON, Body::new(SeatedBody::new(bytes, seat))))
    }
}

/// All routes, with what goes for every request around them.
pub(crate) fn router(desk: Arc<Desk>) -> Router {
    let panicked = {
        let desk = desk.clone();
        move |panic: Box<dyn Any + Send>| desk.failed(panic_text(panic.as_ref())).into_response()
    };
    Router::new()
        .route(AD_CLICKS, get(ad_clicks))
        .route(TOP_ADS_PATH, get(top_ads))
        .route("/ledger", get(ledger))
        .route("/healthz", get(async || content("text/plain; charset=utf-8", Body::from("ok\n"))))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .route("/problems", get(async |State(desk): State<Arc<Desk>>| desk.json(&catalogue(), None)))
        .route("/openapi.json", get(async || content(JSON, Body::from(OPENAPI))))
        .route("/", get(index))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(desk.clone(), in_time))
        .layer(from_fn(in_size))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(desk.clone(), observed))
        .with_state(desk)
}

async fn ad_clicks(
    State(desk): State<Arc<Desk>>,
    ad_id: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Response, Problem> {
    // A path that is not UTF-8 names no ad either.
    let ad_id = parameters::ad_id(ad_id.as_ref().map_or("\u{fffd}", |Path(text)| text))?;
    let given = Given::read(uri.query(), AD_PARAMETERS)?;
    let question = parameters::question(&given)?;
    let series = parameters::boolean(&given, SERIES)?;
    let revision = parameters::revision(&given)?;
    desk.recovered()?;
    desk.reach(revision).await?;
    let seat = desk.gate.enter()?;
    let (questions, asked) = (desk.questions.clone(), question.clone());
    let cost = desk.questions.cost(&question);
    let found = desk.run(cost, async move { questions.ad_clicks(ad_id, &asked, series).await }).await?;
    desk.json(&AdClicksAnswer::new(ad_id, &found, &question.filters), Some(seat))
}

async fn top_ads(State(desk): State<Arc<Desk>>, uri: Uri) -> Result<Response, Problem> {
    let given = Given::read(uri.query(), TOP_PARAMETERS)?;
    let question = parameters::question(&given)?;
    let revision = parameters::revision(&given)?;
    desk.recovered()?;
    desk.reach(revision).await?;
    let seat = desk.gate.enter()?;
    let (questions, asked) = (desk.questions.clone(), question.clone());
    let found =
        desk.run(desk.questions.cost(&question), async move { questions.top_ads(&asked, TOP_ADS).await }).await?;
    desk.json(&TopAdsAnswer::new(&found, &question.filters), Some(seat))
}

async fn ledger(State(desk): State<Arc<Desk>>, uri: Uri) -> Result<Response, Problem> {
    Given::read(uri.query(), &[])?;
    desk.recovered()?;
    let seat = desk.gate.enter()?;
    let status = desk.status.clone();
    let answer = desk.run(Cost::RecentCounts, async move { LedgerAnswer::new(status.ledger()) }).await?;
    desk.json(&answer, Some(seat))
}

async fn readyz(State(desk): State<Arc<Desk>>) -> Result<Response, Problem> {
    let answer = ReadinessAnswer::new(desk.status.readiness());
    let mut response = desk.json(&answer, None)?;
    if !answer.ready {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    Ok(response)
}

async fn metrics_text(State(desk): State<Arc<Desk>>, headers: HeaderMap) -> Result<Response, Problem> {
    desk.recovered()?;
    let text = desk.metrics.encode(desk.gate.in_flight()).map_err(|error| desk.failed(&error.to_string()))?;
    if accept::prefers(&headers, metrics::MEDIA_TYPE, classic::MEDIA_TYPE) {
        return Ok(content(metrics::CONTENT_TYPE, Body::from(text)));
    }
    Ok(content(classic::CONTENT_TYPE, Body::from(classic::from_open_metrics(&text))))
}

async fn index(State(desk): State<Arc<Desk>>) -> Result<Response, Problem> {
    #[derive(Serialize)]
    struct Index {
        name: &'static str,
        version: &'static str,
        endpoints: [Route; ROUTES.len()],
    }
    desk.json(&Index { name: "adtally", version: env!("CARGO_PKG_VERSION"), endpoints: ROUTES }, None)
}

async fn unknown_route(uri: Uri) -> Problem {
    let detail = format!("there is nothing at {}; / lists the endpoints", quoted(uri.path()));
    Problem::new(ProblemKind::UnknownRoute, detail)
}

async fn wrong_method(method: Method) -> Problem {
    let detail = format!("the method is {}; this endpoint answers GET and HEAD", quoted(method.as_str()));
    Problem::new(ProblemKind::MethodNotAllowed, detail)
}

/// Answers must come within the request timeout.
async fn in_time(State(desk): State<Arc<Desk>>, request: Request, next: Next) -> Response {
    let limit = desk.limits.request_timeout;
    match timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let detail = format!("no answer within {} s; ask for fewer minutes, or again later", limit.as_secs_f64());
            Problem::new(ProblemKind::TimedOut, detail).into_response()
        }
    }
}

async fn in_size(request: Request, next: Next) -> Response {
    match check_size(&request) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// Books every answer and adds the headers that all of them bear. Queries are never logged: they name people.
async fn observed(State(desk): State<Arc<Desk>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let matched = request.extensions().get::<MatchedPath>().map_or(NO_ROUTE, |matched| route_of(matched.as_str()));
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let (status, after) = (response.status().as_u16(), began.elapsed());
    desk.metrics.answered(matched, status, after);
    tracing::debug!(route = matched, status, after_us = after.as_micros() as u64, "answered");
    response
}

fn route_of(path: &str) -> &'static str {
    ROUTES.iter().find(|route| route.path == path).map_or(NO_ROUTE, |route| route.path)
}

fn content(media_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without a message")
}
