//! A start while it is in progress: its report, how to stop it, and the queries that are answered once the state is
//! recovered.

use crate::clock::Clock;
use crate::options::RunOptions;
use crate::report::Report;
use adtally_model::{Error, Result};
use adtally_store::questions::{AdClicks, Cost, Question, Questions, Revision, TopAds};
use async_trait::async_trait;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How often to check whether the start must stop before it is done.
const STOP_POLL: Duration = Duration::from_millis(50);

/// Access to a start while it is in progress.
#[derive(Clone)]
pub struct ServiceStart {
    /// The report of the process. At first it shows the progress of recovery.
    pub report: Arc<Report>,
    /// Answers queries once the state is recovered.
    pub questions: Arc<LateQuestions>,
    /// Stops the start before it is done, when set.
    pub stop: Arc<AtomicBool>,
    clock: Arc<dyn Clock>,
}

impl ServiceStart {
    /// A start that has not begun.
    pub fn new(options: &RunOptions, clock: Arc<dyn Clock>, stop: Arc<AtomicBool>) -> ServiceStart {
        let report = Report::recovers(options.settings.time, Arc::clone(&clock));
        ServiceStart { report, questions: Arc::default(), stop, clock }
    }

    /// The clock.
    pub(super) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Runs `work`. Returns `None` if asked to stop before it is done.
    pub(super) async fn unless_stopped<T>(&self, work: impl Future<Output = Result<T>>) -> Result<Option<T>> {
        let stopped = async {
            while !self.stop.load(Ordering::Relaxed) {
                tokio::time::sleep(STOP_POLL).await;
            }
        };
        tokio::select! {
            biased;
            done = work => done.map(Some),
            () = stopped => Ok(None),
        }
    }
}

/// Answers queries once [`LateQuestions::open`] is called. Until then the revision is empty.
#[derive(Default)]
pub struct LateQuestions(OnceLock<Arc<dyn Questions>>);

impl LateQuestions {
    /// Sets the object that answers queries, once the state is recovered.
    pub fn open(&self, questions: impl Questions + 'static) {
        self.open_shared(Arc::new(questions));
    }

    /// The same with an object that others use as well.
    pub fn open_shared(&self, questions: Arc<dyn Questions>) {
        // There is only one start.
        let _ = self.0.set(questions);
    }

    /// The object that answers queries.
    ///
    /// # Errors
    /// External and retryable until the state is recovered; the server rejects queries until then.
    fn get(&self) -> Result<&dyn Questions> {
        self.0.get().map(Arc::as_ref).ok_or_else(|| Error::transient("the state is still being recovered"))
    }
}

#[async_trait]
impl Questions for LateQuestions {
    fn cost(&self, question: &Question) -> Cost {
        self.get().map_or(Cost::RecentCounts, |questions| questions.cost(question))
    }

    fn misdirected(&self) -> Option<String> {
        self.get().ok().and_then(Questions::misdirected)
    }

    fn revision(&self) -> Revision {
        self.get().map_or_else(|_| Revision::default(), |questions| questions.revision())
    }

    async fn ad_clicks(&self, ad_id: u64, question: &Question, series: bool) -> Result<AdClicks> {
        self.get()?.ad_clicks(ad_id, question, series).await
    }

    async fn top_ads(&self, question: &Question, limit: usize) -> Result<TopAds> {
        self.get()?.top_ads(question, limit).await
    }
}
