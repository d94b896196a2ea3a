//! A node that answers questions from the lake alone. It has no state: any number of nodes may run, beside workers or
//! without them. An answer is as fresh as the last commits to the lake.

use crate::report::Report;
use crate::start::ServiceStart;
use adtally_model::{EpochNumber, Minute, PartitionState, Progress, RECONCILE, Result};
use adtally_store::backing::Backing;
use adtally_store::embedded::{Embedded, HotPartitions};
use adtally_store::hot_counts::HotCounts;
use adtally_store::lake::{Epochs, Lake};
use adtally_store::questions::{AdClicks, Cost, Question, Questions, Revision, TopAds};
use async_trait::async_trait;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often to look for new commits.
const REFRESH_EVERY: Duration = Duration::from_secs(1);

/// How often to check whether the node must stop.
const POLL: Duration = Duration::from_millis(50);

/// A minute after all others: no minute is counted in memory.
const NEVER: Minute = Minute(i64::MAX / 60_000);

/// A node over a lake.
pub struct LakeNode {
    backing: Backing,
    lake: Arc<Lake>,
    answers: Arc<LakeAnswers>,
    report: Arc<Report>,
    /// The last epoch of each partition that was read, and what its record says.
    known: BTreeMap<u32, Progress>,
}

impl LakeNode {
    /// Opens the lake. Returns `None` if asked to stop before.
    ///
    /// # Errors
    /// Corrupt when the lake is missing or damaged, external when it cannot be read.
    pub async fn begin(backing: Backing, start: &ServiceStart) -> Result<Option<LakeNode>> {
        let Some(lake) = start.unless_stopped(backing.existing_lake()).await? else { return Ok(None) };
        let lake = Arc::new(lake);
        let nothing = Embedded::new(HotPartitions::default(), Arc::clone(&lake));
        let answers = Arc::new(LakeAnswers { current: RwLock::new(Arc::new(nothing)) });
        let report = Arc::clone(&start.report);
        let mut node = LakeNode { backing, lake, answers: Arc::clone(&answers), report, known: BTreeMap::new() };
        let Some(()) = start.unless_stopped(node.refresh()).await? else { return Ok(None) };
        start.questions.open_shared(answers);
        node.report.assigned();
        node.report.started();
        Ok(Some(node))
    }

    /// Follows the lake until `stop` is set. A lake that cannot be read is reported, and tried again.
    pub async fn run(mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            match self.refresh().await {
                Ok(()) => self.report.lake_mended(),
                Err(error) => self.report.lake_failing(format!("the lake cannot be read: {}", error.report())),
            }
            let mut waited = Duration::ZERO;
            while waited < REFRESH_EVERY && !stop.load(Ordering::Relaxed) {
                tokio::time::sleep(POLL).await;
                waited += POLL;
            }
        }
    }

    /// Shows the epochs that all tables of the lake contain now.
    async fn refresh(&mut self) -> Result<()> {
        let held = self.lake.epochs().await?;
        let mut partitions = self.backing.sources().partitions().await?;
        partitions.extend(held.iter().map(|(partition, _)| partition));
        partitions.sort_unstable();
        partitions.dedup();
        let mut is_changed = self.known.is_empty();
        for partition in partitions {
            let epoch = held.last(partition);
            if self.known.get(&partition).is_some_and(|known| known.number == epoch) {
                continue;
            }
            if let Some(progress) = self.read(partition, epoch).await? {
                is_changed = true;
                self.known.insert(partition, progress);
            }
        }
        if is_changed {
            self.show(&held).await?;
        }
        Ok(())
    }

    /// The progress of a partition at an epoch; `None` if the record was deleted in the meantime, so that the lake has gone
    /// on.
    async fn read(&self, partition: u32, epoch: EpochNumber) -> Result<Option<Progress>> {
        if epoch == 0 {
            // It holds back the last minutes: its clicks are missing.
            return Ok(Some(Progress { partition, ..Progress::default() }));
        }
        let Some((record, _)) = self.backing.logs().log(partition).read(epoch).await? else { return Ok(None) };
        let progress = record.progress;
        match (partition, &record.reconcile) {
            (RECONCILE, Some(reconcile)) => self.report.corrected(progress, &reconcile.state),
            _ => self.report.recovered(&PartitionState { progress, ..PartitionState::default() }),
        }
        self.report.lake_holds(partition, epoch);
        Ok(Some(progress))
    }

    async fn show(&self, held: &Epochs) -> Result<()> {
        let shown = HotPartitions::default();
        let restated = self.lake.restated().await?;
        let corrected = self.known.get(&RECONCILE).map_or(0, |progress| progress.number);
        shown.restate(|before| *before = restated);
        if corrected > 0
            && let Some((record, _)) = self.backing.logs().log(RECONCILE).read(corrected).await?
            && let Some(reconciled_to) = record.reconcile.as_ref().and_then(|reconcile| reconcile.state.reconciled_to())
        {
            shown.restate(|restated| restated.reconcile(corrected, reconciled_to));
        }
        for (&partition, progress) in &self.known {
            let hot = HotCounts::new(0);
            let lake_epoch = progress.number.min(held.last(partition));
            hot.restore(*progress, Some(NEVER), &[], lake_epoch, Vec::new());
            shown.add(partition, Arc::new(hot));
        }
        *self.answers.current.write() = Arc::new(Embedded::new(shown, Arc::clone(&self.lake)));
        Ok(())
    }
}

/// Answers from the newest state of the lake that was read.
struct LakeAnswers {
    current: RwLock<Arc<Embedded>>,
}

impl LakeAnswers {
    fn current(&self) -> Arc<Embedded> {
        Arc::clone(&self.current.read())
    }
}

#[async_trait]
impl Questions for LakeAnswers {
    fn cost(&self, question: &Question) -> Cost {
        self.current().cost(question)
    }

    fn revision(&self) -> Revision {
        self.current().revision()
    }

    async fn ad_clicks(&self, ad_id: u64, question: &Question, series: bool) -> Result<AdClicks> {
        self.current().ad_clicks(ad_id, question, series).await
    }

    async fn top_ads(&self, question: &Question, limit: usize) -> Result<TopAds> {
        self.current().top_ads(question, limit).await
    }
}
