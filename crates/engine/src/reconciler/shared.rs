//! Reconciliation on a store that other processes use as well: their corrections are shown here, and only the process that
//! maintains the lake does the daily runs.

use super::*;
use adtally_model::Progress;
use adtally_reconcile::load_hot;

impl Reconciler {
    /// Whether other processes may commit corrections.
    pub(super) fn is_shared(&self) -> bool {
        self.parts.keeper.is_some()
    }

    /// Prepares for a claim. The partition is claimed for each run, because another process may have claimed it since.
    pub(super) fn begin_shared(&mut self) {
        self.corrections = None;
        // The claim loads what the lake contains. If it or the run fails, everything is read again.
        (self.hot, self.shown) = (Arc::new(HotCounts::new(self.parts.settings.store.hot_minutes)), 0);
    }

    /// Shows the corrections of other processes, and tries again later after a failure.
    pub(super) async fn try_to_follow(&mut self) {
        if let Err(error) = self.follow().await {
            tracing::warn!("corrections of other processes cannot be read, trying again: {}", error.report());
        }
    }

    /// Shows the corrections that the lake contains, and the state after them.
    pub(super) async fn follow(&mut self) -> Result<()> {
        let ReconcilerParts { logs, lake, shown, settings, report, .. } = &self.parts;
        let log = logs.log(RECONCILE);
        let held = lake.epochs().await?.last(RECONCILE);
        // An epoch that is committed and not in the lake is about to be shown: see `Restated::committing_ms`.
        let committing_ms = log.read(held + 1).await?.map(|(next, _)| next.progress.clock_ms);
        shown.restate(|restated| restated.committing_ms = committing_ms);
        if held == 0 || held == self.shown {
            return Ok(());
        }
        // If the record was deleted meanwhile, the lake has gone on.
        let Some((record, _)) = log.read(held).await? else { return Ok(()) };
        let hot = Arc::new(HotCounts::new(settings.store.hot_minutes));
        let progress: Progress = record.progress;
        load_hot(lake.as_ref(), &hot, progress).await?;
        let mut corrected = lake.restated().await?;
        corrected.committing_ms = committing_ms;
        let state = record.reconcile.as_deref().map(|record| record.state.clone()).unwrap_or_default();
        if let Some(to) = state.reconciled_to() {
            corrected.reconcile(held, to);
        }
        shown.restate(|restated| *restated = corrected);
        shown.add(RECONCILE, Arc::clone(&hot));
        report.corrected(progress, &state);
        (self.hot, self.shown, self.state) = (hot, held, Some(state));
        Ok(())
    }

    /// When the daily run is due that seemed due: another process may have done it. `None` if there are none.
    pub(super) async fn shared_due_ms(&mut self, now_ms: i64) -> Option<i64> {
        let is_keeper = self.parts.keeper.as_ref().is_some_and(|keeper| keeper.load(Ordering::Relaxed));
        if !is_keeper {
            return Some(now_ms + POLL.as_millis() as i64);
        }
        self.try_to_follow().await;
        self.due_after_last_ms(now_ms)
    }
}
