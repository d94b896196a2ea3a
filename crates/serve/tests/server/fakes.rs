//! A store and a process to serve.

use adtally_engine::status::{Gauges, InputLedger, LedgerReport, PartitionLedger, Readiness, Status};
use adtally_model::{Error, MinuteState, Result};
use adtally_store::questions::{AdClicks, Cost, Coverage, Question, Questions, Revision, Span, TopAds};
use async_trait::async_trait;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use tokio::sync::Semaphore;

const NOTHING: Coverage = Coverage {
    span: None,
    state: MinuteState::Open,
    watermark_ms: None,
    newest_click_ms: None,
    restated: false,
    reconciled_to_ms: None,
    revision: None,
};

/// A store that takes a ticket before it answers about an ad, and signals when it is asked. It answers the most clicked
/// ads at once. Questions about an hour or more need older counts.
pub(crate) struct Store {
    pub(crate) asked: Semaphore,
    pub(crate) tickets: Semaphore,
}

#[async_trait]
impl Questions for Store {
    fn cost(&self, question: &Question) -> Cost {
        if matches!(question.span, Span::Last(60..)) { Cost::OlderCounts } else { Cost::RecentCounts }
    }

    fn revision(&self) -> Revision {
        Revision::default()
    }

    async fn ad_clicks(&self, _: u64, _: &Question, _: bool) -> Result<AdClicks> {
        let mut ticket = pin!(self.tickets.acquire());
        let at_once = poll_fn(|context| Poll::Ready(ticket.as_mut().poll(context))).await;
        // This question is in line now, so later questions are not served first.
        self.asked.add_permits(1);
        let ticket = match at_once {
            Poll::Ready(ticket) => ticket,
            Poll::Pending => ticket.await,
        };
        ticket.map_err(|error| Error::internal(error.to_string()))?.forget();
        Ok(AdClicks { coverage: NOTHING, clicks: 0, series: None })
    }

    async fn top_ads(&self, _: &Question, _: usize) -> Result<TopAds> {
        Ok(TopAds { coverage: NOTHING, ads: Vec::new() })
    }
}

/// A process whose ledger is some 30 MB long: more than the kernel buffers for a connection.
pub(crate) struct Process;

impl Status for Process {
    fn ledger(&self) -> LedgerReport {
        let input = InputLedger {
            name: "x".repeat(3_000),
            origin: String::new(),
            status: adtally_model::InputStatus::Ended,
            position: 0,
            watermark_ms: None,
            ledger: adtally_model::Ledger::default(),
        };
        let partition = PartitionLedger {
            partition: 0,
            epoch: 1,
            ledger: adtally_model::Ledger::default(),
            watermark_ms: None,
            closed_ms: None,
            final_ms: None,
        };
        LedgerReport {
            partitions: vec![partition],
            inputs: vec![input; 10_000],
            inputs_left_off: 0,
            corrections: None,
            revision: None,
        }
    }

    fn readiness(&self) -> Readiness {
        Readiness::default()
    }

    fn gauges(&self) -> Gauges {
        Gauges::default()
    }
}
