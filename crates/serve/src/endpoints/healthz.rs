//! `GET /healthz`: whether the process is alive.

use super::Endpoint;
use crate::desk::content;
use axum::body::Body;
use axum::routing::get;

pub(super) static ENDPOINT: Endpoint = Endpoint {
    path: "/healthz",
    what: "whether the process is alive",
    example: "/healthz",
    parameters: &[],
    handler: || get(async || content("text/plain; charset=utf-8", Body::from("ok\n"))),
    #[cfg(test)]
    openapi: include_str!("healthz.json"),
};
