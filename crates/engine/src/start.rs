//! A start as others see it while it lasts: what is told of it, how it is stopped, and the questions that can be asked once
//! the state is recovered.

use crate::clock::Clock;
use crate::options::RunOptions;
use crate::report::Report;
use adtally_model::{Error, Result};
use adtally_store::questions::{AdClicks, Cost, Question, Questions, Revision, TopAds};
use async_trait::async_trait;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How often it is looked whether the start is to end before it is done.
const STOP_POLL: Duration = Duration::from_millis(50);

/// A start, as others see it while it lasts.
#[derive(Clone)]
pub struct ServiceStart {
    /// What the process tells of itself: at first how far recovery is.
    pub report: Arc<Report>,
    /// Who answers questions once the state is recovered.
    pub questions: Arc<LateQuestions>,
    /// Asks it to end before it is done.
    pub stop: Arc<AtomicBool>,
    clock: Arc<dyn Clock>,
}

impl ServiceStart {
    /// A start that has not begun.
    pub fn new(options: &RunOptions, clock: Arc<dyn Clock>, stop: Arc<AtomicBool>) -> ServiceStart {
        let report = Report::recovers(options.settings.time, Arc::clone(&clock));
        ServiceStart { report, questions: Arc::default(), stop, clock }
    }

    /// What time it is.
    pub(super) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Does something, unless it is asked to end before that is done.
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

/// Who answers questions, from the moment on at which somebody can. Until then the revision is empty.
#[derive(Default)]
pub struct LateQuestions(OnceLock<Box<dyn Questions>>);

impl LateQuestions {
    /// The state is recovered.
    pub fn open(&self, questions: impl Questions + 'static) {
        // A start happens once.
        let _ = self.0.set(Box::new(questions));
    }

    /// Who answers.
    ///
    /// # Errors
    /// External and retryable while the state is recovered; the server refuses questions until then.
    fn get(&self) -> Result<&dyn Questions> {
        self.0.get().map(Box::as_ref).ok_or_else(|| Error::transient("the state is still being recovered"))
    }
}

#[async_trait]
impl Questions for LateQuestions {
    fn cost(&self, question: &Question) -> Cost {
        self.get().map_or(Cost::RecentCounts, |questions| questions.cost(question))
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
