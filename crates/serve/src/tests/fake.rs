//! A store that records questions and answers from a table, and a process with a configurable status.

use adtally_engine::status::{
    DurationHistogram, Gauges, InputLedger, LedgerReport, PartitionLedger, Projection, QueueDepth, Readiness, RunLoop,
    Status, TopicLag,
};
use adtally_model::time::parse_rfc3339;
use adtally_model::{Error, InputStatus, Ledger, Minute, MinuteState, Progress, Result};
use adtally_store::questions::{
    AdClicks, Cost, Coverage, MINUTES_MAX, MinuteClicks, Question, Questions, Revision, TopAds,
};
use async_trait::async_trait;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Epoch milliseconds of a time.
pub(super) fn at(text: &str) -> i64 {
    parse_rfc3339(text.as_bytes()).unwrap()
}

/// The minute that starts at a time.
pub(super) fn minute(text: &str) -> Minute {
    Minute::of(at(text))
}

/// How the store behaves.
#[derive(Default)]
pub(super) enum Mood {
    /// It answers.
    #[default]
    Well,
    /// It has not seen any click.
    Empty,
    /// It names more ads than it was asked for.
    Generous,
    /// It has each minute of a week.
    Long,
    /// It fails.
    Fails(fn() -> Error),
    /// It panics.
    Panics,
    /// It never answers.
    Hangs,
    /// Another node answers.
    Partial,
}

/// A recorded question: the ad and whether minutes were requested, or the number of ads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Asked {
    Ad(u64, Question, bool),
    Top(Question, usize),
}

#[derive(Default)]
pub(super) struct FakeStore {
    pub(super) mood: Mutex<Mood>,
    asked: Mutex<Vec<Asked>>,
    looked: AtomicU64,
}

/// How often its revision is read before the next epoch exists.
const LOOKS: u64 = 3;

impl FakeStore {
    /// The questions since the last call.
    pub(super) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    pub(super) fn is(&self, mood: Mood) {
        *self.mood.lock().unwrap() = mood;
    }

    async fn coverage(&self) -> Result<Coverage> {
        let (mut span, mut state) =
            (Some((minute("2026-01-31T10:00:00Z"), minute("2026-01-31T10:02:00Z"))), MinuteState::Closed);
        let (mut hangs, mut panics) = (false, false);
        match &*self.mood.lock().unwrap() {
            Mood::Well | Mood::Generous | Mood::Long | Mood::Partial => {}
            Mood::Empty => (span, state) = (None, MinuteState::Open),
            Mood::Fails(error) => return Err(error()),
            Mood::Panics => panics = true,
            Mood::Hangs => hangs = true,
        }
        if panics {
            std::panic::resume_unwind(Box::new("a secret bug"));
        }
        if hangs {
            std::future::pending::<()>().await;
        }
        let clicked = span.is_some();
        Ok(Coverage {
            span,
            state,
            watermark_ms: clicked.then(|| at("2026-01-31T10:02:07.5Z")),
            newest_click_ms: clicked.then(|| at("2026-01-31T10:02:12.345Z")),
            restated: false,
            reconciled_to_ms: None,
            revision: Some(revision(3)),
        })
    }
}

#[async_trait]
impl Questions for FakeStore {
    fn cost(&self, question: &Question) -> Cost {
        if question.filters.is_counted() { Cost::RecentCounts } else { Cost::RawClicks }
    }

    fn misdirected(&self) -> Option<String> {
        let is_partial = matches!(*self.mood.lock().unwrap(), Mood::Partial);
        is_partial.then(|| "this worker has 2 of 6 partitions: ask a node that runs `adtally serve`".to_owned())
    }

    fn revision(&self) -> Revision {
        revision(3 + self.looked.fetch_add(1, Ordering::Relaxed) / LOOKS)
    }

    async fn ad_clicks(&self, ad_id: u64, question: &Question, series: bool) -> Result<AdClicks> {
        self.asked.lock().unwrap().push(Asked::Ad(ad_id, question.clone(), series));
        let coverage = self.coverage().await?;
        let row = |text, clicks, state| MinuteClicks { minute: minute(text), clicks, state, restated: false };
        let mut rows = vec![
            row("2026-01-31T10:00:00Z", 114, MinuteState::Final),
            row("2026-01-31T10:01:00Z", 9, MinuteState::Closed),
        ];
        if coverage.span.is_none() {
            rows.clear();
        }
        if matches!(*self.mood.lock().unwrap(), Mood::Long) {
            rows = vec![row("2026-01-31T10:00:00Z", 1, MinuteState::Final); MINUTES_MAX as usize];
        }
        let clicks = rows.iter().map(|row| row.clicks).sum();
        Ok(AdClicks { coverage, clicks, series: series.then_some(rows) })
    }

    async fn top_ads(&self, question: &Question, limit: usize) -> Result<TopAds> {
        self.asked.lock().unwrap().push(Asked::Top(question.clone(), limit));
        let coverage = self.coverage().await?;
        let ads = match &*self.mood.lock().unwrap() {
            Mood::Empty => Vec::new(),
            Mood::Generous => (0..150).map(|ad| (ad, 1)).collect(),
            _ => vec![(42, 123), (7, 9)],
        };
        Ok(TopAds { coverage, ads })
    }
}

/// A ledger that adds up, with a different figure wherever possible.
pub(super) fn ledger() -> Ledger {
    Ledger {
        read: 10,
        counted: 4,
        duplicate: 2,
        late: 1,
        future: 1,
        malformed: 1,
        invalid: 1,
        conflicting_duplicates: 1,
        gap_bytes: 5,
        nul_bytes: 3,
        gap_offsets: 6,
    }
}

/// The revision of an epoch of one partition.
pub(super) fn revision(number: u64) -> Revision {
    Revision::of([&Progress { log_id: 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff, number, ..Progress::default() }])
}

/// One partition that has read one input.
pub(super) fn report() -> LedgerReport {
    let watermark_ms = Some(at("2026-01-31T10:02:07.5Z"));
    let partition = PartitionLedger {
        partition: 0,
        epoch: 3,
        ledger: ledger(),
        watermark_ms,
        closed_ms: Some(at("2026-01-31T10:02:00Z")),
        final_ms: None,
    };
    let input = InputLedger {
        name: "/logs/a.ndjson".into(),
        origin: "/logs/a.ndjson".into(),
        status: InputStatus::Idle,
        position: 4096,
        watermark_ms,
        ledger: ledger(),
    };
    LedgerReport {
        partitions: vec![partition],
        inputs: vec![input],
        inputs_left_off: 0,
        corrections: None,
        revision: Some(revision(3)),
    }
}

pub(super) struct FakeProcess {
    pub(super) report: Mutex<LedgerReport>,
    pub(super) readiness: Mutex<Readiness>,
    recovering: Mutex<Option<String>>,
}

impl FakeProcess {
    /// The process has just started.
    pub(super) fn recovers(&self, progress: &str) {
        *self.recovering.lock().unwrap() = Some(progress.to_owned());
    }
}

impl Default for FakeProcess {
    fn default() -> Self {
        let readiness = Readiness { problems: Vec::new(), notes: vec!["2 inputs are idle".into()] };
        FakeProcess { report: Mutex::new(report()), readiness: Mutex::new(readiness), recovering: Mutex::default() }
    }
}

impl Status for FakeProcess {
    fn ledger(&self) -> LedgerReport {
        self.report.lock().unwrap().clone()
    }

    fn readiness(&self) -> Readiness {
        self.readiness.lock().unwrap().clone()
    }

    fn recovering(&self) -> Option<String> {
        self.recovering.lock().unwrap().clone()
    }

    fn gauges(&self) -> Gauges {
        let commits = DurationHistogram::default();
        for ms in [1, 3, 90_000] {
            commits.observe(Duration::from_millis(ms));
        }
        Gauges {
            lines: ledger(),
            epochs_committed: 3,
            watermark_lag_ms: Some(5_250),
            closed_lag_ms: None,
            projections: vec![Projection { store: "lake", epochs_behind: 1 }],
            corrections: None,
            topic_lags: vec![TopicLag { partition: 7, records: 12, unread: 9 }],
            run_loop: Some(RunLoop {
                epoch_commits: commits.snapshot(),
                queues: vec![QueueDepth { queue: "read_ahead_bytes", depth: 2, capacity: 8 }],
                live_identities: 4,
                live_minutes: 2,
                open_files: 1,
            }),
        }
    }
}
