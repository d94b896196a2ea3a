//! `GET /openapi.json`: all endpoints for machines.

use super::Endpoint;
use crate::desk::{JSON, content};
use axum::body::Body;
use axum::routing::get;

pub(super) static ENDPOINT: Endpoint = Endpoint {
    path: "/openapi.json",
    what: "all of this for machines (OpenAPI 3.1)",
    example: "/openapi.json",
    parameters: &[],
    handler: || get(async || content(JSON, Body::from(DESCRIPTION))),
    #[cfg(test)]
    openapi: include_str!("openapi.json"),
};

/// Put together from the parts of all endpoints by a test.
const DESCRIPTION: &str = include_str!("../../openapi.json");
