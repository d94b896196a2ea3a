//! Which of the deployment's partitions this process owns. Only an owner of all answers questions: the counts of another
//! process are missing here, and a list of the most clicked ads would be wrong without them.

use adtally_model::Result;
use adtally_store::embedded::Embedded;
use adtally_store::questions::{AdClicks, Cost, Question, Questions, Revision, TopAds};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The partitions that this process owns.
pub struct OwnedPartitions {
    all: BTreeSet<u32>,
    owned: Mutex<BTreeSet<u32>>,
}

impl OwnedPartitions {
    /// None of these partitions.
    pub fn new(all: BTreeSet<u32>) -> OwnedPartitions {
        OwnedPartitions { all, owned: Mutex::default() }
    }

    /// Notes that a partition was taken over.
    pub fn add(&self, partition: u32) {
        self.owned.lock().insert(partition);
    }

    /// Notes that a partition was given up, or lost.
    pub fn remove(&self, partition: u32) {
        self.owned.lock().remove(&partition);
    }

    /// Answers questions while this process owns all partitions.
    pub fn questions(self: &Arc<Self>, answers: Embedded) -> OwnersQuestions {
        OwnersQuestions { owned: Arc::clone(self), answers }
    }
}

/// Answers questions while the process owns all partitions.
pub struct OwnersQuestions {
    owned: Arc<OwnedPartitions>,
    answers: Embedded,
}

#[async_trait]
impl Questions for OwnersQuestions {
    fn cost(&self, question: &Question) -> Cost {
        self.answers.cost(question)
    }

    fn misdirected(&self) -> Option<String> {
        let owned = self.owned.owned.lock();
        let missing = self.owned.all.difference(&owned).count();
        (missing > 0).then(|| {
            format!(
                "this worker has {} of {} partitions, so its answers would be partial: ask a node that runs `adtally serve`",
                self.owned.all.len() - missing,
                self.owned.all.len()
            )
        })
    }

    fn revision(&self) -> Revision {
        self.answers.revision()
    }

    async fn ad_clicks(&self, ad_id: u64, question: &Question, series: bool) -> Result<AdClicks> {
        self.answers.ad_clicks(ad_id, question, series).await
    }

    async fn top_ads(&self, question: &Question, limit: usize) -> Result<TopAds> {
        self.answers.top_ads(question, limit).await
    }
}
