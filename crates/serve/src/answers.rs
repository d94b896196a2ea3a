//! Answers: the JSON documents, field by field in their fixed order.

use adtally_engine::status::{InputLedger, LedgerReport, PartitionLedger, Readiness};
use adtally_model::time::rfc3339;
use adtally_model::{InputStatus, Ledger, MinuteState, Result, ip};
use adtally_store::questions::{AdClicks, Coverage, Filters, MinuteClicks, Revision, TopAds};
use serde::{Serialize, Serializer};

/// How many ads `top100` names.
pub(crate) const TOP_ADS: usize = 100;

/// How many problems and notes are told: more than a person reads.
const SENTENCES_MAX: usize = 100;

/// An id of 64 bits: text in JSON, as proto3 writes it, since JavaScript loses integers beyond 2^53.
struct Id(u64);

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// What every answer says of itself.
#[derive(Serialize)]
struct Covered {
    from: Option<String>,
    to: Option<String>,
    state: &'static str,
    watermark: Option<String>,
    newest_click: Option<String>,
    revision: Option<String>,
}

impl Covered {
    fn new(coverage: &Coverage) -> Self {
        Covered {
            from: coverage.span.map(|(from, _)| rfc3339(from.start_ms())),
            to: coverage.span.map(|(_, to)| rfc3339(to.start_ms())),
            state: coverage.state.as_str(),
            watermark: coverage.watermark_ms.map(rfc3339),
            newest_click: coverage.newest_click_ms.map(rfc3339),
            revision: coverage.revision.as_ref().map(Revision::to_string),
        }
    }
}

/// The filters of the question, canonical, only those given.
#[derive(Serialize)]
struct Filtered {
    #[serde(skip_serializing_if = "Option::is_none")]
    country: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
}

impl Filtered {
    fn new(filters: &Filters) -> Self {
        Filtered {
            country: filters.country.map(adtally_model::Country::as_str),
            ip: filters.ip.map(ip::format),
            user_id: filters.user_id.clone(),
        }
    }
}

/// The clicks of one ad.
#[derive(Serialize)]
pub(crate) struct AdClicksAnswer {
    ad_id: Id,
    clicks: u64,
    #[serde(flatten)]
    covered: Covered,
    filters: Filtered,
    #[serde(skip_serializing_if = "Option::is_none")]
    minutes: Option<Vec<MinuteAnswer>>,
}

#[derive(Serialize)]
struct MinuteAnswer {
    minute: String,
    clicks: u64,
    state: MinuteState,
}

impl AdClicksAnswer {
    /// Words what a store found; `filters` are always told, if only to say that there were none.
    pub(crate) fn new(ad_id: u64, found: &AdClicks, filters: &Filters) -> Self {
        let row = |row: &MinuteClicks| MinuteAnswer {
            minute: rfc3339(row.minute.start_ms()),
            clicks: row.clicks,
            state: row.state,
        };
        AdClicksAnswer {
            ad_id: Id(ad_id),
            clicks: found.clicks,
            covered: Covered::new(&found.coverage),
            filters: Filtered::new(filters),
            minutes: found.series.as_ref().map(|rows| rows.iter().map(row).collect()),
        }
    }
}

/// The most clicked ads.
#[derive(Serialize)]
pub(crate) struct TopAdsAnswer {
    #[serde(flatten)]
    covered: Covered,
    filters: Filtered,
    ads: Vec<RankedAd>,
}

#[derive(Serialize)]
struct RankedAd {
    rank: usize,
    ad_id: Id,
    clicks: u64,
}

impl TopAdsAnswer {
    /// Words what a store found; `filters` are always told, if only to say that there were none.
    pub(crate) fn new(found: &TopAds, filters: &Filters) -> Self {
        let ranked =
            |(at, (ad_id, clicks)): (usize, &(u64, u64))| RankedAd { rank: at + 1, ad_id: Id(*ad_id), clicks: *clicks };
        TopAdsAnswer {
            covered: Covered::new(&found.coverage),
            filters: Filtered::new(filters),
            ads: found.ads.iter().take(TOP_ADS).enumerate().map(ranked).collect(),
        }
    }
}

/// A ledger in full.
#[derive(Serialize)]
struct Lines {
    #[serde(flatten)]
    ledger: Ledger,
    nul_bytes: u64,
}

impl From<Ledger> for Lines {
    fn from(ledger: Ledger) -> Self {
        Lines { ledger, nul_bytes: ledger.nul_bytes }
    }
}

/// Where every line went.
#[derive(Serialize)]
pub(crate) struct LedgerAnswer {
    #[serde(flatten)]
    total: Lines,
    partitions: Vec<PartitionAnswer>,
    inputs: Vec<InputAnswer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inputs_left_off: Option<u64>,
    revision: Option<String>,
}

#[derive(Serialize)]
struct PartitionAnswer {
    partition: u32,
    epoch: u64,
    #[serde(flatten)]
    lines: Lines,
    watermark: Option<String>,
    closed: Option<String>,
    #[serde(rename = "final")]
    final_: Option<String>,
}

#[derive(Serialize)]
struct InputAnswer {
    name: String,
    input: String,
    status: InputStatus,
    position: u64,
    watermark: Option<String>,
    #[serde(flatten)]
    lines: Lines,
}

impl LedgerAnswer {
    /// Words a report.
    ///
    /// # Errors
    /// Internal when a ledger does not add up: a wrong ledger is never shown.
    pub(crate) fn new(report: LedgerReport) -> Result<Self> {
        let mut total = Ledger::default();
        for row in &report.partitions {
            row.ledger.check(&format!("partition {}", row.partition))?;
            total += &row.ledger;
        }
        Ok(LedgerAnswer {
            total: total.into(),
            partitions: report.partitions.into_iter().map(partition_answer).collect(),
            inputs: report.inputs.into_iter().map(input_answer).collect(),
            inputs_left_off: Some(report.inputs_left_off).filter(|&left_off| left_off > 0),
            revision: report.revision.as_ref().map(Revision::to_string),
        })
    }
}

/// The answer of `GET /ledger` as JSON, for those who ask a process without HTTP.
///
/// # Errors
/// Internal when a ledger does not add up.
pub fn ledger_json(report: LedgerReport) -> Result<String> {
    serde_json::to_string(&LedgerAnswer::new(report)?)
        .map_err(|e| adtally_model::Error::internal("the ledger cannot be written as JSON").because(e))
}

fn partition_answer(row: PartitionLedger) -> PartitionAnswer {
    PartitionAnswer {
        partition: row.partition,
        epoch: row.epoch,
        lines: row.ledger.into(),
        watermark: row.watermark_ms.map(rfc3339),
        closed: row.closed_ms.map(rfc3339),
        final_: row.final_ms.map(rfc3339),
    }
}

fn input_answer(row: InputLedger) -> InputAnswer {
    InputAnswer {
        name: row.name,
        input: row.origin,
        status: row.status,
        position: row.position,
        watermark: row.watermark_ms.map(rfc3339),
        lines: row.ledger.into(),
    }
}

/// Whether the process does its work.
#[derive(Serialize)]
pub(crate) struct ReadinessAnswer {
    /// Whether it does.
    pub(crate) ready: bool,
    problems: Vec<String>,
    notes: Vec<String>,
}

impl ReadinessAnswer {
    /// Words it.
    pub(crate) fn new(mut readiness: Readiness) -> Self {
        readiness.problems.truncate(SENTENCES_MAX);
        readiness.notes.truncate(SENTENCES_MAX);
        ReadinessAnswer { ready: readiness.problems.is_empty(), problems: readiness.problems, notes: readiness.notes }
    }
}
