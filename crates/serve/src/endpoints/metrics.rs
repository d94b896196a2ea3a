//! `GET /metrics`: metrics for Prometheus, in the format that the client prefers.

use super::Endpoint;
use crate::desk::{Desk, content};
use crate::metrics::{CONTENT_TYPE, MEDIA_TYPE};
use crate::problem::Problem;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;
use std::sync::Arc;

mod accept;
mod classic;

pub(super) static ENDPOINT: Endpoint = Endpoint {
    path: "/metrics",
    what: "metrics for Prometheus",
    example: "/metrics",
    parameters: &[],
    handler: || get(metrics),
    #[cfg(test)]
    openapi: include_str!("metrics.json"),
};

async fn metrics(State(desk): State<Arc<Desk>>, headers: HeaderMap) -> Result<Response, Problem> {
    desk.recovered()?;
    let text = desk.metrics.encode(desk.gate.in_flight()).map_err(|error| desk.failed(&error.to_string()))?;
    if accept::prefers(&headers, MEDIA_TYPE, classic::MEDIA_TYPE) {
        return Ok(content(CONTENT_TYPE, Body::from(text)));
    }
    Ok(content(classic::CONTENT_TYPE, Body::from(classic::from_open_metrics(&text))))
}
