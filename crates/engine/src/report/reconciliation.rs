//! What the report says about reconciliation.

use super::Report;
use crate::status::CorrectionLedger;
use adtally_model::reconcile::Reconciled;
use adtally_model::{Minute, Progress};

/// Most notes of what runs could not correct. A complete run begins anew.
const UNCORRECTED_MAX: usize = 32;

/// The state of the partition `reconcile`, and how its last run ended.
#[derive(Default)]
pub(super) struct Reconciliation {
    corrections: Option<(Progress, CorrectionLedger)>,
    /// Why the last run failed.
    failing: Option<String>,
    /// What the last runs could not correct.
    uncorrected: Vec<String>,
}

impl Reconciliation {
    /// The progress of the partition.
    pub(super) fn progress(&self) -> Option<&Progress> {
        self.corrections.as_ref().map(|(progress, _)| progress)
    }

    /// The sums of its corrections.
    pub(super) fn ledger(&self) -> Option<CorrectionLedger> {
        self.corrections.as_ref().map(|(_, ledger)| ledger.clone())
    }

    /// What an operator must know.
    pub(super) fn notes(&self) -> impl Iterator<Item = String> {
        self.failing.iter().chain(&self.uncorrected).cloned()
    }
}

impl Report {
    /// Records the state of the partition `reconcile`.
    pub fn corrected(&self, progress: Progress, state: &Reconciled) {
        let ledger = CorrectionLedger {
            epoch: progress.number,
            runs: state.runs,
            reconciled_to_ms: state.reconciled_to().map(Minute::start_ms),
            by_cause: state.corrected.clone(),
            intake: state.intake,
        };
        self.live.lock().reconciliation.corrections = Some((progress, ledger));
    }

    /// Records that a run ended, with what it could not correct. A complete run replaces what earlier runs said.
    pub fn reconciled(&self, uncorrected: Vec<String>, is_complete: bool) {
        let reconciliation = &mut self.live.lock().reconciliation;
        if is_complete {
            (reconciliation.failing, reconciliation.uncorrected) = (None, uncorrected);
            return;
        }
        let new = uncorrected.into_iter().filter(|note| !reconciliation.uncorrected.contains(note));
        let new: Vec<String> = new.take(UNCORRECTED_MAX.saturating_sub(reconciliation.uncorrected.len())).collect();
        reconciliation.uncorrected.extend(new);
    }

    /// Records that a run failed.
    pub fn reconcile_failing(&self, problem: String) {
        self.live.lock().reconciliation.failing = Some(problem);
    }
}
