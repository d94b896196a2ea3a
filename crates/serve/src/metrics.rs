//! Metrics in the OpenMetrics text format. No label ever names an ad, an address or a user.

use adtally_engine::status::{CorrectionLedger, Gauges, Projection, RunLoop, Status, TopicLag};
use adtally_model::reconcile::{Corrected, Intake};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The media type of [`Metrics::encode`], as requests name it.
pub(crate) const MEDIA_TYPE: &str = "application/openmetrics-text";

/// The same with its parameters, as answers name it.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds of request durations, in seconds: recent counts take less than a millisecond, raw clicks seconds.
const REQUEST_BOUNDS_S: [f64; 13] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct RouteStatus {
    route: &'static str,
    status: u16,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Route {
    route: &'static str,
}

/// All metrics.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RouteStatus, Counter>,
    request_seconds: Family<Route, Histogram, fn() -> Histogram>,
    connections: Gauge,
    refused: Counter,
    questions: Gauge,
}

impl Metrics {
    /// Metrics of this server, and metrics of the process behind it, which are queried at every scrape.
    pub(crate) fn new(status: Arc<dyn Status>) -> Self {
        let mut registry = Registry::with_prefix("adtally");
        let requests = Family::default();
        let request_seconds: Family<_, _, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(REQUEST_BOUNDS_S));
        let (connections, refused, questions) = (Gauge::default(), Counter::default(), Gauge::default());
        registry.register("build", "Version of this process", Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        registry.register("http_requests", "Requests answered, by route and status", requests.clone());
        registry.register("http_request_seconds", "Time to answer a request, by route", request_seconds.clone());
        registry.register("http_connections", "Connections open", connections.clone());
        registry.register("http_connections_refused", "Connections refused because of the limit", refused.clone());
        registry.register("questions_in_flight", "Questions running, waiting or being sent", questions.clone());
        registry.register_collector(Box::new(StatusCollector(status)));
        Metrics { registry, requests, request_seconds, connections, refused, questions }
    }

    /// Counts an answer.
    pub(crate) fn answered(&self, route: &'static str, status: u16, after: Duration) {
        self.requests.get_or_create(&RouteStatus { route, status }).inc();
        self.request_seconds.get_or_create(&Route { route }).observe(after.as_secs_f64());
    }

    /// Sets the number of open connections.
    pub(crate) fn connected(&self, connections: usize) {
        self.connections.set(i64::try_from(connections).unwrap_or(i64::MAX));
    }

    /// Counts a connection that was refused.
    pub(crate) fn refused(&self) {
        self.refused.inc();
    }

    /// The OpenMetrics text for a scrape.
    ///
    /// # Errors
    /// Only if formatting fails.
    pub(crate) fn encode(&self, questions_in_flight: usize) -> Result<String, fmt::Error> {
        self.questions.set(i64::try_from(questions_in_flight).unwrap_or(i64::MAX));
        let mut text = String::new();
        text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// Queries the gauges of the process at every scrape.
struct StatusCollector(Arc<dyn Status>);

impl fmt::Debug for StatusCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StatusCollector")
    }
}

impl Collector for StatusCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let gauges = self.0.gauges();
        let ready = self.0.readiness().problems.is_empty();
        encode_lines(&mut encoder, &gauges)?;
        let help = "Epochs committed since the deployment began.";
        counter(&mut encoder, "epochs_committed", help, gauges.epochs_committed)?;
        if let Some(corrections) = &gauges.corrections {
            encode_corrections(&mut encoder, corrections)?;
        }
        if let Some(run_loop) = &gauges.run_loop {
            encode_commits(&mut encoder, run_loop)?;
            encode_queues(&mut encoder, run_loop)?;
        }
        let seconds = |ms: i64| ms as f64 / 1e3;
        let lag = "behind the clock; absent before there is one.";
        if let Some(ms) = gauges.watermark_lag_ms {
            gauge(
                &mut encoder,
                "watermark_lag_seconds",
                &format!("How far the least watermark is {lag}"),
                seconds(ms),
            )?;
        }
        if let Some(ms) = gauges.closed_lag_ms {
            gauge(&mut encoder, "closed_lag_seconds", &format!("How far the closed frontier is {lag}"), seconds(ms))?;
        }
        for Projection { store, epochs_behind } in &gauges.projections {
            let help = format!("Committed epochs that the {store} does not hold yet.");
            gauge(&mut encoder, &format!("{store}_epochs_behind"), &help, *epochs_behind as f64)?;
        }
        if !gauges.topic_lags.is_empty() {
            type Records = fn(&TopicLag) -> u64;
            let kinds: [(&str, &str, Records); 2] = [
                ("topic_lag_records", "Kafka records between what is committed of a partition and its end.", |of| {
                    of.records
                }),
                ("topic_unread_records", "Kafka records between what is read of a partition and its end.", |of| {
                    of.unread
                }),
            ];
            for (name, help, records) in kinds {
                let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
                for of in &gauges.topic_lags {
                    let label = [("partition", of.partition.to_string())];
                    ConstGauge::new(records(of) as f64).encode(family.encode_family(&label)?)?;
                }
            }
        }
        if let Some(run_loop) = &gauges.run_loop {
            let held = [
                ("live_identities", "Identities in memory for deduplication.", run_loop.live_identities),
                ("live_windows", "Minutes whose identities are in memory.", run_loop.live_minutes),
                ("open_files", "Input files that are held open.", run_loop.open_files),
            ];
            for (name, help, value) in held {
                gauge(&mut encoder, name, help, value as f64)?;
            }
        }
        let help = "1 if the process is working, 0 if it has a problem.";
        gauge(&mut encoder, "ready", help, f64::from(u8::from(ready)))
    }
}

fn gauge(encoder: &mut DescriptorEncoder, name: &str, help: &str, value: f64) -> fmt::Result {
    ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

fn counter(encoder: &mut DescriptorEncoder, name: &str, help: &str, value: u64) -> fmt::Result {
    ConstCounter::new(value).encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)
}

fn encode_lines(encoder: &mut DescriptorEncoder, gauges: &Gauges) -> fmt::Result {
    let lines = &gauges.lines;
    let by_verdict = [
        ("counted", lines.counted),
        ("duplicate", lines.duplicate),
        ("late", lines.late),
        ("future", lines.future),
        ("malformed", lines.malformed),
        ("invalid", lines.invalid),
    ];
    let help = "Lines committed, by verdict; they sum to adtally_lines_read_total.";
    let mut family = encoder.encode_descriptor("lines", help, None, MetricType::Counter)?;
    for (verdict, lines) in by_verdict {
        ConstCounter::new(lines).encode(family.encode_family(&[("verdict", verdict)])?)?;
    }
    counter(encoder, "lines_read", "Lines read and committed.", lines.read)?;
    let help = "Duplicates whose remaining fields differed from the click that was counted.";
    counter(encoder, "conflicting_duplicates", help, lines.conflicting_duplicates)?;
    counter(encoder, "gap_bytes", "Bytes that could never be read.", lines.gap_bytes)?;
    let help = "Offsets that a topic had lost before they were read.";
    counter(encoder, "gap_offsets", help, lines.gap_offsets)?;
    counter(encoder, "nul_bytes", "NUL bytes that belong to no line.", lines.nul_bytes)
}

fn encode_corrections(encoder: &mut DescriptorEncoder, corrections: &CorrectionLedger) -> fmt::Result {
    counter(
        encoder,
        "reconcile_runs",
        "Runs of reconcile, revert, replay and backfill that committed something, if only progress.",
        corrections.runs,
    )?;
    for (name, help, of) in [
        ("clicks_recovered", "Clicks added by reconciliation, by cause.", (|of| of.recovered) as fn(&Corrected) -> u64),
        ("clicks_reversed", "Clicks reversed by reconciliation, by cause.", |of| of.reversed),
    ] {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (cause, corrected) in &corrections.by_cause {
            ConstCounter::new(of(corrected)).encode(family.encode_family(&[("cause", cause.as_str())])?)?;
        }
    }
    let Intake { read: _, recovered, duplicate, rejected, expired, waiting } = corrections.intake;
    let help = "Lines that were replayed or backfilled, by what became of them.";
    let mut family = encoder.encode_descriptor("intake_lines", help, None, MetricType::Counter)?;
    for (outcome, lines) in [
        ("recovered", recovered),
        ("duplicate", duplicate),
        ("rejected", rejected),
        ("expired", expired),
        ("waiting", waiting),
    ] {
        ConstCounter::new(lines).encode(family.encode_family(&[("outcome", outcome)])?)?;
    }
    let to_s = corrections.reconciled_to_ms.map_or(0.0, |ms| ms as f64 / 1_000.0);
    let help =
        "Every earlier minute whose raw clicks are kept is recounted, in seconds since 1970; 0 before the first.";
    gauge(encoder, "reconciled_to_seconds", help, to_s)
}

fn encode_commits(encoder: &mut DescriptorEncoder, run_loop: &RunLoop) -> fmt::Result {
    let commits = &run_loop.epoch_commits;
    let help = "Time to commit an epoch, since the process started.";
    let mut histogram = encoder.encode_descriptor("epoch_commit_seconds", help, None, MetricType::Histogram)?;
    histogram.encode_histogram::<NoLabelSet>(commits.sum_s(), commits.count(), &commits.classes_s(), None)
}

fn encode_queues(encoder: &mut DescriptorEncoder, run_loop: &RunLoop) -> fmt::Result {
    let help = "Items in a queue between stages; bytes if its name says so.";
    let mut depth = encoder.encode_descriptor("queue_depth", help, None, MetricType::Gauge)?;
    for queue in &run_loop.queues {
        ConstGauge::new(queue.depth as f64).encode(depth.encode_family(&[("queue", queue.queue)])?)?;
    }
    let help = "Items that a queue between stages can hold; bytes if its name says so.";
    let mut capacity = encoder.encode_descriptor("queue_capacity", help, None, MetricType::Gauge)?;
    for queue in &run_loop.queues {
        ConstGauge::new(queue.capacity as f64).encode(capacity.encode_family(&[("queue", queue.queue)])?)?;
    }
    Ok(())
}
