//! `GET /problems`: all types of problem documents.

use super::Endpoint;
use crate::desk::Desk;
use crate::problem::catalogue;
use axum::extract::State;
use axum::routing::get;
use std::sync::Arc;

pub(super) static ENDPOINT: Endpoint = Endpoint {
    path: "/problems",
    what: "every error that an endpoint can answer with",
    example: "/problems",
    parameters: &[],
    handler: || get(async |State(desk): State<Arc<Desk>>| desk.json(&catalogue())),
    #[cfg(test)]
    openapi: include_str!("problems.json"),
};
