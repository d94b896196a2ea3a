//! `GET /`: the endpoints, with an example for each.

use super::{ENDPOINTS, Endpoint};
use crate::desk::Desk;
use crate::problem::Problem;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use serde::Serialize;
use std::sync::Arc;

pub(super) static ENDPOINT: Endpoint = Endpoint {
    path: "/",
    what: "this list",
    example: "/",
    parameters: &[],
    handler: || get(index),
    #[cfg(test)]
    openapi: include_str!("index.json"),
};

#[derive(Serialize)]
struct Index {
    name: &'static str,
    version: &'static str,
    endpoints: &'static [&'static Endpoint],
}

async fn index(State(desk): State<Arc<Desk>>) -> Result<Response, Problem> {
    desk.json(&Index { name: "adtally", version: env!("CARGO_PKG_VERSION"), endpoints: ENDPOINTS })
}
