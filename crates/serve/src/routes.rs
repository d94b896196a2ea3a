//! Routes: the endpoints, and the layers around them that apply to every request.

use crate::desk::Desk;
use crate::endpoints::ENDPOINTS;
use crate::limits::check_size;
use crate::problem::{Problem, ProblemKind, quoted};
use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, Method, Uri};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use std::any::Any;
use std::sync::Arc;
use tokio::time::{Instant, timeout};
use tower_http::catch_panic::CatchPanicLayer;

/// The route in metrics of requests that match no route.
const NO_ROUTE: &str = "none";

/// All endpoints behind one service.
pub(crate) fn router(desk: Arc<Desk>) -> Router {
    let panicked = {
        let desk = desk.clone();
        move |panic: Box<dyn Any + Send>| desk.failed(panic_text(panic.as_ref())).into_response()
    };
    let endpoints = ENDPOINTS.iter();
    let router = endpoints.fold(Router::new(), |router, endpoint| router.route(endpoint.path, (endpoint.handler)()));
    router
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(desk.clone(), in_time))
        .layer(from_fn(in_size))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(desk.clone(), observed))
        .with_state(desk)
}

async fn unknown_route(uri: Uri) -> Problem {
    let detail = format!("there is nothing at {}; / lists the endpoints", quoted(uri.path()));
    Problem::new(ProblemKind::UnknownRoute, detail)
}

async fn wrong_method(method: Method) -> Problem {
    let detail = format!("the method is {}; this endpoint answers GET and HEAD", quoted(method.as_str()));
    Problem::new(ProblemKind::MethodNotAllowed, detail)
}

/// Enforces the request timeout.
async fn in_time(State(desk): State<Arc<Desk>>, request: Request, next: Next) -> Response {
    let limit = desk.limits.request_timeout;
    match timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let detail =
                format!("no answer within {} s; ask for fewer minutes, or try again later", limit.as_secs_f64());
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

/// Counts every answer and adds the headers that all answers have. Queries are never logged: they name people.
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
    ENDPOINTS.iter().find(|endpoint| endpoint.path == path).map_or(NO_ROUTE, |endpoint| endpoint.path)
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic without a message")
}
