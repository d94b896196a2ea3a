//! Which of the deployment's partitions this process owns. Only an owner of all answers questions: the counts of another
//! process are missing here, and a list of the most clicked ads would be wrong without them.

use adtally_model::{Error, Result};
use adtally_store::embedded::Embedded;
use adtally_store::questions::{AdClicks, Cost, Question, Questions, Revision, TopAds};
use async_trait::async_trait;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The partitions that this process owns.
pub struct OwnedPartitions {
    all: BTreeSet<u32>,
    owned: Mutex<Owned>,
}

#[derive(Default)]
struct Owned {
    partitions: BTreeSet<u32>,
    /// How often a partition was given up.
    given_up: u64,
}

impl OwnedPartitions {
    /// None of these partitions.
    pub fn new(all: BTreeSet<u32>) -> OwnedPartitions {
        OwnedPartitions { all, owned: Mutex::default() }
    }

    /// Notes that a partition was taken over.
    pub fn add(&self, partition: u32) {
        self.owned.lock().partitions.insert(partition);
    }

    /// Notes that a partition was given up, or lost.
    pub fn remove(&self, partition: u32) {
        let mut owned = self.owned.lock();
        owned.partitions.remove(&partition);
        owned.given_up += 1;
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
        let missing = self.owned.all.difference(&owned.partitions).count();
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
        let before = self.complete()?;
        let answer = self.answers.ad_clicks(ad_id, question, series).await?;
        self.check_since(before).map(|()| answer)
    }

    async fn top_ads(&self, question: &Question, limit: usize) -> Result<TopAds> {
        let before = self.complete()?;
        let answer = self.answers.top_ads(question, limit).await?;
        self.check_since(before).map(|()| answer)
    }
}

impl OwnersQuestions {
    /// How often partitions were given up so far.
    ///
    /// # Errors
    /// Transient while a partition is missing: the question may have waited since it was accepted.
    fn complete(&self) -> Result<u64> {
        match self.misdirected() {
            None => Ok(self.owned.owned.lock().given_up),
            Some(why) => Err(Error::transient(why)),
        }
    }

    /// Checks that no partition was given up meanwhile, so that an answer has the counts of all.
    fn check_since(&self, before: u64) -> Result<()> {
        match self.complete()? == before {
            true => Ok(()),
            false => Err(Error::transient("partitions moved while the question was answered: ask again")),
        }
    }
}
