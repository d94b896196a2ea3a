//! Makes the tables follow another epoch log after the original one was lost.

use super::encode::long;
use super::project::{COMMIT_ATTEMPTS_MAX, epoch_app, held, log_app, log_mark};
use super::schema::Table;
use super::statistics::Bounds;
use super::statistics::bound;
use super::upkeep::RollUp;
use super::{Lake, LakeTable, delta_error};
use adtally_model::{EpochNumber, Error, Result};
use deltalake_core::kernel::{Action, Transaction};
use deltalake_core::protocol::{DeltaOperation, SaveMode};

impl Lake {
    /// Makes all tables follow the epoch log `log_id`, and marks its epochs up to `held` as projected. Removes rows of
    /// epochs after `last`, since not all tables have them. A repeated call changes nothing; after an error it must be
    /// repeated.
    ///
    /// # Errors
    /// Corrupt when a file has rows on both sides of `last`, external when the store fails.
    pub async fn adopt(&self, partition: u32, log_id: u128, last: EpochNumber, held: EpochNumber) -> Result<()> {
        let _projecting = self.projecting.lock().await;
        for table in Table::PROJECTED {
            self.table(table).adopt(partition, log_id, last, held).await?;
        }
        // Roll-ups have their own marks, and belong to the same log.
        for roll_up in RollUp::ALL {
            self.table(roll_up.table()).adopt(partition, log_id, last, held).await?;
        }
        Ok(())
    }
}

impl LakeTable {
    async fn adopt(&self, partition: u32, log_id: u128, last: EpochNumber, follows_to: EpochNumber) -> Result<()> {
        let mut failure = None;
        for _ in 0..COMMIT_ATTEMPTS_MAX {
            let latest = self.latest().await?;
            let follows = held(self.table, &latest, log_id, partition).await;
            if follows.is_ok_and(|held| held.is_some_and(|held| held >= follows_to)) {
                return Ok(());
            }
            let snapshot = latest.snapshot().map_err(|error| delta_error(self.table, "read", error))?;
            let mut actions = Vec::new();
            for view in snapshot.log_data().iter() {
                let bounds = Bounds::read(view.stats().as_deref(), self.table.time_column());
                if self.is_after(&bounds, partition, last)? {
                    actions.push(Action::Remove(view.remove_action(true)));
                }
            }
            for (app, version) in
                [(epoch_app(log_id, partition), long(follows_to)?), (log_app(partition), log_mark(log_id))]
            {
                actions.push(Action::Txn(Transaction::new(app, version)));
            }
            let operation = DeltaOperation::Write { mode: SaveMode::Append, partition_by: None, predicate: None };
            match self.commit(&latest, actions, operation).await {
                Ok(_) => return Ok(()),
                // The commit may exist nevertheless: the next attempt checks.
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| Error::internal("all attempts failed")))
    }

    /// Whether all rows of a file are of this partition and after this epoch.
    fn is_after(&self, bounds: &Bounds, partition: u32, last: EpochNumber) -> Result<bool> {
        let (Some((least, largest)), Some((first, highest))) = (bounds.partition, bounds.epoch) else {
            return Ok(false);
        };
        if (least, largest) != (i64::from(partition), i64::from(partition)) || highest <= bound(last) {
            return Ok(false);
        }
        if first <= bound(last) {
            return Err(Error::corrupt(format!(
                "a file of the lake table `{}` holds epochs {first} to {highest}, and only those up to {last} are in all \
                 tables: restore the lake from a backup",
                self.table
            )));
        }
        Ok(true)
    }
}
