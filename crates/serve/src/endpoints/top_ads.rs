//! `GET /ads/top100`: the most clicked ads.

use super::Endpoint;
use crate::answers::{Covered, Filtered, Id};
use crate::desk::Desk;
use crate::parameters;
use crate::problem::Problem;
use crate::query_string::Given;
use adtally_store::questions::{Filters, TopAds};
use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use axum::routing::get;
use serde::Serialize;
use std::sync::Arc;

pub(super) static ENDPOINT: Endpoint = Endpoint {
    path: "/ads/top100",
    what: "the 100 most clicked ads, with optional filters by country, address and user",
    example: "/ads/top100?minutes=5&filter_country=US",
    parameters: &parameters::QUESTION,
    handler: || get(top_ads),
    #[cfg(test)]
    openapi: include_str!("top_ads.json"),
};

/// The number of ads in the answer.
const ADS_MAX: usize = 100;

async fn top_ads(State(desk): State<Arc<Desk>>, uri: Uri) -> Result<Response, Problem> {
    let given = Given::read(uri.query(), ENDPOINT.parameters)?;
    let question = parameters::question(&given)?;
    desk.ask(&given, question, |questions, question| async move {
        let found = questions.top_ads(&question, ADS_MAX).await?;
        Ok(Answer::new(&found, &question.filters))
    })
    .await
}

#[derive(Serialize)]
struct Answer {
    #[serde(flatten)]
    covered: Covered,
    /// Always present, even without filters.
    filters: Filtered,
    ads: Vec<RankedAd>,
}

#[derive(Serialize)]
struct RankedAd {
    rank: usize,
    ad_id: Id,
    clicks: u64,
}

impl Answer {
    fn new(found: &TopAds, filters: &Filters) -> Self {
        let ranked =
            |(at, (ad_id, clicks)): (usize, &(u64, u64))| RankedAd { rank: at + 1, ad_id: Id(*ad_id), clicks: *clicks };
        Answer {
            covered: Covered::new(&found.coverage),
            filters: Filtered::new(filters),
            ads: found.ads.iter().take(ADS_MAX).enumerate().map(ranked).collect(),
        }
    }
}
