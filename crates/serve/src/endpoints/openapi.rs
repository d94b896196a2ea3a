//! `GET /openapi.json`: the description of all endpoints.

use super::Endpoint;
use crate::desk::{JSON, content};
use axum::body::Body;
use axum::routing::get;

pub(super) static ENDPOINT: Endpoint = Endpoint {
    path: "/openapi.json",
    what: "the description of this interface (OpenAPI 3.1)",
    example: "/openapi.json",
    parameters: &[],
    handler: || get(async || content(JSON, Body::from(DESCRIPTION))),
    #[cfg(test)]
    openapi: include_str!("openapi.json"),
};

/// A test assembles it from the parts of all endpoints.
const DESCRIPTION: &str = include_str!("../../openapi.json");
