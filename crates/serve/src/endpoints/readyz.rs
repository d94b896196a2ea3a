//! `GET /readyz`: whether the process is working, and if not, why.

use super::Endpoint;
use crate::desk::Desk;
use crate::problem::Problem;
use adtally_engine::status::Readiness;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use serde::Serialize;
use std::sync::Arc;

pub(super) static ENDPOINT: Endpoint = Endpoint {
    path: "/readyz",
    what: "whether the process is working, and if not, why",
    example: "/readyz",
    parameters: &[],
    handler: || get(readyz),
    #[cfg(test)]
    openapi: include_str!("readyz.json"),
};

/// Maximum number of problems and of notes in an answer: more than a person reads.
const SENTENCES_MAX: usize = 100;

async fn readyz(State(desk): State<Arc<Desk>>) -> Result<Response, Problem> {
    let answer = Answer::new(desk.status.readiness());
    let mut response = desk.json(&answer)?;
    if !answer.ready {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    Ok(response)
}

#[derive(Serialize)]
struct Answer {
    ready: bool,
    problems: Vec<String>,
    notes: Vec<String>,
}

impl Answer {
    fn new(mut readiness: Readiness) -> Self {
        readiness.problems.truncate(SENTENCES_MAX);
        readiness.notes.truncate(SENTENCES_MAX);
        Answer { ready: readiness.problems.is_empty(), problems: readiness.problems, notes: readiness.notes }
    }
}
