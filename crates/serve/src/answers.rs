//! Parts that the JSON answers of several endpoints share. Fields have a fixed order.

use adtally_model::time::rfc3339;
use adtally_model::{Country, ip};
use adtally_store::questions::{Coverage, Filters, Revision};
use serde::{Serialize, Serializer};

/// A 64-bit id: text in JSON, like in proto3, since JavaScript loses integers beyond 2^53.
pub(crate) struct Id(pub(crate) u64);

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// The fields about coverage in every answer.
#[derive(Serialize)]
pub(crate) struct Covered {
    from: Option<String>,
    to: Option<String>,
    state: &'static str,
    restated: bool,
    reconciled_to: Option<String>,
    watermark: Option<String>,
    newest_click: Option<String>,
    revision: Option<String>,
}

impl Covered {
    /// Formats a coverage.
    pub(crate) fn new(coverage: &Coverage) -> Self {
        Covered {
            from: coverage.span.map(|(from, _)| rfc3339(from.start_ms())),
            to: coverage.span.map(|(_, to)| rfc3339(to.start_ms())),
            state: coverage.state.as_str(),
            restated: coverage.restated,
            reconciled_to: coverage.reconciled_to_ms.map(rfc3339),
            watermark: coverage.watermark_ms.map(rfc3339),
            newest_click: coverage.newest_click_ms.map(rfc3339),
            revision: coverage.revision.as_ref().map(Revision::to_string),
        }
    }
}

/// The filters of the question, in canonical form; filters that were not given are omitted.
#[derive(Serialize)]
pub(crate) struct Filtered {
    #[serde(skip_serializing_if = "Option::is_none")]
    country: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
}

impl Filtered {
    /// Formats filters.
    pub(crate) fn new(filters: &Filters) -> Self {
        Filtered {
            country: filters.country.map(Country::as_str),
            ip: filters.ip.map(ip::format),
            user_id: filters.user_id.clone(),
        }
    }
}
