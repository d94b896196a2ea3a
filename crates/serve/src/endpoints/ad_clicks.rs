//! `GET /ads/{ad_id}/clicks`: the clicks of one ad.

use super::Endpoint;
use crate::answers::{Covered, Filtered, Id};
use crate::desk::Desk;
use crate::parameters;
use crate::problem::{Problem, ProblemKind, quoted};
use crate::query_string::Given;
use adtally_model::MinuteState;
use adtally_model::time::rfc3339;
use adtally_store::questions::{AdClicks, Filters, MinuteClicks};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::Uri;
use axum::response::Response;
use axum::routing::get;
use serde::{Serialize, Serializer};
use std::sync::Arc;

pub(super) static ENDPOINT: Endpoint = Endpoint {
    path: "/ads/{ad_id}/clicks",
    what: "clicks of one ad in the last minutes, or in a range of minutes",
    example: "/ads/42/clicks?minutes=5&series=true",
    parameters: &parameters::question_and(SERIES),
    handler: || get(ad_clicks),
    #[cfg(test)]
    openapi: include_str!("ad_clicks.json"),
};

/// Whether the answer lists the clicks of each minute.
const SERIES: &str = "series";

/// The largest `ad_id`.
pub(crate) const AD_ID_MAX: u64 = i64::MAX as u64;

async fn ad_clicks(
    State(desk): State<Arc<Desk>>,
    ad_id: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Response, Problem> {
    // A path that is not UTF-8 does not name a valid ad either.
    let ad_id = read_ad_id(ad_id.as_ref().map_or("\u{fffd}", |Path(text)| text))?;
    let given = Given::read(uri.query(), ENDPOINT.parameters)?;
    let question = parameters::question(&given)?;
    let series = parameters::boolean(&given, SERIES)?;
    desk.ask(&given, question, |questions, question| async move {
        let found = questions.ad_clicks(ad_id, &question, series).await?;
        Ok(Answer::new(ad_id, found, &question.filters))
    })
    .await
}

fn read_ad_id(text: &str) -> Result<u64, Problem> {
    let number = parameters::decimal(text).and_then(|digits| digits.parse::<u64>().ok());
    number.filter(|ad_id| *ad_id <= AD_ID_MAX).ok_or_else(|| {
        let detail = format!(
            "ad_id is {}; it must be a number from 0 to {AD_ID_MAX} without sign or leading zero",
            quoted(text)
        );
        Problem::new(ProblemKind::BadAdId, detail).of("ad_id")
    })
}

#[derive(Serialize)]
struct Answer {
    ad_id: Id,
    clicks: u64,
    #[serde(flatten)]
    covered: Covered,
    /// Always present, even without filters.
    filters: Filtered,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "series")]
    minutes: Option<Vec<MinuteClicks>>,
}

impl Answer {
    fn new(ad_id: u64, found: AdClicks, filters: &Filters) -> Self {
        Answer {
            ad_id: Id(ad_id),
            clicks: found.clicks,
            covered: Covered::new(&found.coverage),
            filters: Filtered::new(filters),
            minutes: found.series,
        }
    }
}

#[derive(Serialize)]
struct Minute {
    minute: String,
    clicks: u64,
    state: MinuteState,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    restated: bool,
}

/// Writes the minutes one by one: there may be ten thousand of them.
fn series<S: Serializer>(minutes: &Option<Vec<MinuteClicks>>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(minutes.iter().flatten().map(|row| Minute {
        minute: rfc3339(row.minute.start_ms()),
        clicks: row.clicks,
        state: row.state,
        restated: row.restated,
    }))
}
