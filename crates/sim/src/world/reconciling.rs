//! Reconciliation in the world: at random moments, by reconcilers that die, fail, and are succeeded.

use super::*;

/// Most clicks of one correction.
const CLICKS_MAX: u64 = 2;

/// Runs with faults at the end, when most minutes are final.
const RUNS_AT_THE_END: usize = 12;

impl World {
    /// A reconciler recovers late clicks, or dies or fails in it. It may be a new one, the last one, or one that was succeeded.
    pub(super) fn reconcile(&mut self) -> Verdict {
        let is_stale = self.stale.is_some() && self.reconciling.chance(600);
        let kept = if is_stale { self.stale.take() } else { self.reconciler.take() };
        let (kept, succeeded) = match kept {
            Some(kept) if is_stale || self.reconciling.chance(500) => (Some(kept), None),
            other => (None, other),
        };
        let most = 1 + self.reconciling.below(CLICKS_MAX) as usize;
        let ended = call(|| {
            let mut reconciler = match kept {
                Some(kept) => kept,
                None => Reconciler::claim(&self.ground)?,
            };
            let found = reconciler.recover(&self.servers, PARTITION, most)?;
            Ok((reconciler, found))
        });
        match ended {
            Ended::Well((_, found)) if is_stale => {
                let what = format!("a reconciler that was succeeded commits {found} clicks");
                if found == 0 { Ok(()) } else { Err(format!("{}: {what}", Invariant::LinearChain)) }
            }
            Ended::Well((reconciler, _)) => {
                self.stale = succeeded.or(self.stale.take());
                self.reconciler = Some(reconciler);
                self.check_corrections()
            }
            Ended::Died => {
                self.die();
                Ok(())
            }
            Ended::Failed(error) if error.kind() == ErrorKind::Fenced => {
                self.outcome.fenced += 1;
                Ok(())
            }
            // It claims anew before it goes on.
            Ended::Failed(error) if error.is_retryable() => Ok(()),
            Ended::Failed(error) => Err(format!("a reconciler stops: {}", error.report())),
        }
    }

    /// Checks the records of corrections, once one was acknowledged: before, a power loss can undo the last one.
    fn check_corrections(&mut self) -> Verdict {
        // What the recount read may be of records that were not looked at yet.
        self.absorb()?;
        let disk = self.ground.disk.disk.lock();
        self.corrections.absorb(&disk, &self.ground.tables, &self.judge)?;
        drop(disk);
        self.corrections.check_lake(&self.ground.tables)
    }

    /// Further runs with faults, and a last one without.
    pub(super) fn reconcile_to_the_end(&mut self) -> Verdict {
        self.ground.machine.set_luck(self.scenario.luck);
        for _ in 0..RUNS_AT_THE_END {
            self.reconcile()?;
        }
        self.ground.machine.set_luck(Luck::default());
        self.ground.disk.catch_up();
        self.reconcile_finally()
    }

    fn reconcile_finally(&mut self) -> Verdict {
        self.stale = None;
        self.reconciler = None;
        let ended = call(|| Reconciler::claim(&self.ground)?.recover(&self.servers, PARTITION, usize::MAX));
        self.check_corrections()?;
        match ended {
            Ended::Well(_) => self.corrections.check_end(&self.ground.tables, &self.judge, &self.servers),
            Ended::Died => Err("a reconciler dies without faults".to_owned()),
            Ended::Failed(error) => Err(format!("a reconciler stops: {}", error.report())),
        }
    }
}
