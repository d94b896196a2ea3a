//! `GET /ledger`: how many lines got which verdict.

use super::Endpoint;
use crate::desk::Desk;
use crate::problem::Problem;
use crate::query_string::Given;
use adtally_engine::status::{CorrectionLedger, InputLedger, LedgerReport, PartitionLedger};
use adtally_model::reconcile::{Corrected, Intake};
use adtally_model::time::rfc3339;
use adtally_model::{Error, InputStatus, Ledger};
use adtally_store::questions::{Cost, Revision};
use axum::extract::State;
use axum::http::Uri;
use axum::response::Response;
use axum::routing::get;
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) static ENDPOINT: Endpoint = Endpoint {
    path: "/ledger",
    what: "how many lines got which verdict",
    example: "/ledger",
    parameters: &[],
    handler: || get(ledger),
    #[cfg(test)]
    openapi: include_str!("ledger.json"),
};

async fn ledger(State(desk): State<Arc<Desk>>, uri: Uri) -> Result<Response, Problem> {
    Given::read(uri.query(), ENDPOINT.parameters)?;
    desk.recovered()?;
    let seat = desk.gate.enter()?;
    let status = desk.status.clone();
    // It is answered from memory, but keeps a core busy if there are many inputs.
    desk.answer(seat, Cost::RecentCounts, async move { Answer::new(status.ledger()) }).await
}

/// The answer of `GET /ledger` as JSON, for callers without HTTP.
///
/// # Errors
/// Internal when a ledger does not add up.
pub fn ledger_json(report: LedgerReport) -> Result<String, Error> {
    serde_json::to_string(&Answer::new(report)?)
        .map_err(|e| Error::internal("the ledger cannot be written as JSON").because(e))
}

/// A complete ledger.
#[derive(Serialize)]
struct Lines {
    #[serde(flatten)]
    ledger: Ledger,
    nul_bytes: u64,
    gap_offsets: u64,
}

impl From<Ledger> for Lines {
    fn from(ledger: Ledger) -> Self {
        Lines { ledger, nul_bytes: ledger.nul_bytes, gap_offsets: ledger.gap_offsets }
    }
}

#[derive(Serialize)]
struct Answer {
    #[serde(flatten)]
    total: Lines,
    #[serde(serialize_with = "partitions")]
    partitions: Vec<PartitionLedger>,
    #[serde(serialize_with = "inputs")]
    inputs: Vec<InputLedger>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inputs_left_off: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    corrections: Option<Corrections>,
    revision: Option<String>,
}

impl Answer {
    /// Formats a report.
    ///
    /// # Errors
    /// Internal when a ledger does not add up: a wrong ledger is never shown.
    fn new(report: LedgerReport) -> Result<Self, Error> {
        let mut total = Ledger::default();
        for row in &report.partitions {
            row.ledger.check(&format!("partition {}", row.partition))?;
            total += &row.ledger;
        }
        Ok(Answer {
            total: total.into(),
            partitions: report.partitions,
            inputs: report.inputs,
            inputs_left_off: Some(report.inputs_left_off).filter(|&left_off| left_off > 0),
            corrections: report.corrections.map(Corrections::from),
            revision: report.revision.as_ref().map(Revision::to_string),
        })
    }
}

/// The corrections of final minutes.
#[derive(Serialize)]
struct Corrections {
    epoch: u64,
    runs: u64,
    reconciled_to: Option<String>,
    recovered: u64,
    reversed: u64,
    by_cause: BTreeMap<&'static str, Corrected>,
    intake: Intake,
}

impl From<CorrectionLedger> for Corrections {
    fn from(ledger: CorrectionLedger) -> Self {
        let CorrectionLedger { epoch, runs, reconciled_to_ms, by_cause, intake } = ledger;
        Corrections {
            epoch,
            runs,
            reconciled_to: reconciled_to_ms.map(rfc3339),
            recovered: by_cause.values().map(|of| of.recovered).sum(),
            reversed: by_cause.values().map(|of| of.reversed).sum(),
            by_cause: by_cause.into_iter().map(|(cause, of)| (cause.as_str(), of)).collect(),
            intake,
        }
    }
}

#[derive(Serialize)]
struct Partition {
    partition: u32,
    epoch: u64,
    #[serde(flatten)]
    lines: Lines,
    watermark: Option<String>,
    closed: Option<String>,
    #[serde(rename = "final")]
    final_: Option<String>,
}

fn partitions<S: Serializer>(rows: &[PartitionLedger], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(rows.iter().map(|row| Partition {
        partition: row.partition,
        epoch: row.epoch,
        lines: row.ledger.into(),
        watermark: row.watermark_ms.map(rfc3339),
        closed: row.closed_ms.map(rfc3339),
        final_: row.final_ms.map(rfc3339),
    }))
}

#[derive(Serialize)]
struct Input<'a> {
    name: &'a str,
    input: &'a str,
    status: InputStatus,
    position: u64,
    watermark: Option<String>,
    #[serde(flatten)]
    lines: Lines,
}

/// Writes the inputs one by one: there may be ten thousand of them.
fn inputs<S: Serializer>(rows: &[InputLedger], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(rows.iter().map(|row| Input {
        name: &row.name,
        input: &row.origin,
        status: row.status,
        position: row.position,
        watermark: row.watermark_ms.map(rfc3339),
        lines: row.ledger.into(),
    }))
}
