//! Endpoints: each file has the path, the parameters, the handler and the answer of one endpoint. The JSON file beside
//! it is the endpoint's part of `openapi.json`.

use crate::desk::Desk;
use axum::routing::MethodRouter;
use serde::Serialize;
use std::sync::Arc;

mod ad_clicks;
mod healthz;
mod index;
mod ledger;
mod metrics;
mod openapi;
mod problems;
mod readyz;
mod top_ads;

#[cfg(test)]
pub(crate) use ad_clicks::AD_ID_MAX;
pub use ledger::ledger_json;

/// All endpoints, in the order in which they are listed.
pub(crate) static ENDPOINTS: &[&Endpoint] = &[
    &ad_clicks::ENDPOINT,
    &top_ads::ENDPOINT,
    &ledger::ENDPOINT,
    &healthz::ENDPOINT,
    &readyz::ENDPOINT,
    &metrics::ENDPOINT,
    &problems::ENDPOINT,
    &openapi::ENDPOINT,
    &index::ENDPOINT,
];

/// An endpoint. It answers GET and HEAD.
#[derive(Serialize)]
pub(crate) struct Endpoint {
    /// Its path, with parameters in braces.
    pub(crate) path: &'static str,
    /// A description of its answer.
    pub(crate) what: &'static str,
    /// An example of its use.
    pub(crate) example: &'static str,
    /// The parameters that its query accepts.
    #[serde(skip)]
    pub(crate) parameters: &'static [&'static str],
    /// Makes its handler.
    #[serde(skip)]
    pub(crate) handler: fn() -> MethodRouter<Arc<Desk>>,
    /// Its part of `openapi.json`, which a test assembles.
    #[cfg(test)]
    #[serde(skip)]
    pub(crate) openapi: &'static str,
}
