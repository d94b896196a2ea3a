//! Reconciliation of the simulated deployment: a model of the recount reads the model lake, and the real partition
//! `reconcile` commits what it finds.

use crate::lake::ModelLake;
use crate::plant::Plant;
use crate::process::{Ground, KEY};
use crate::servers::{Servers, Who};
use crate::store::SimStore;
use adtally_engine::clock::{Clock, Randomness};
use adtally_model::reconcile::Cause;
use adtally_model::{
    ClickColumns, ClickRef, Country, Frontiers, Identity, IdentityKey, Minute, RECONCILE, Result, Watermark,
};
use adtally_reconcile::{CorrectionParts, Corrections};
use adtally_store::epoch_log::{EpochLogs, Fingerprints};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A process's right to commit corrections.
pub(crate) struct Reconciler {
    ground: Ground,
    corrections: Corrections,
}

impl Reconciler {
    /// Takes over the partition `reconcile`.
    pub(crate) fn claim(ground: &Ground) -> Result<Reconciler> {
        let machine = &ground.machine;
        let store = SimStore::new(ground.disk.clone(), ground.tables.clone(), machine.clone(), ground.plant);
        let (random, clock) = (machine.clone(), machine.clone());
        let parts = CorrectionParts {
            logs: EpochLogs::new(Arc::new(store)),
            lake: Arc::new(ModelLake::new(ground.tables.clone(), machine.clone(), ground.plant)),
            readers: None,
            fingerprints: Fingerprints { config: 1, key: IdentityKey::new(KEY).fingerprint() },
            random: Arc::new(move || random.next_u128()),
            now_ms: Arc::new(move || clock.wall_ms()),
        };
        let corrections = ground.runtime.block_on(Corrections::claim(parts))?;
        Ok(Reconciler { ground: ground.clone(), corrections })
    }

    /// Recovers at most `most` late clicks that are stored nowhere. Returns how many there were.
    pub(crate) fn recover(&mut self, servers: &Servers, partition: u32, most: usize) -> Result<usize> {
        let tables = &self.ground.tables;
        let Some(final_ms) = tables.final_ms(partition) else { return Ok(0) };
        let ignored = (self.ground.plant == Plant::CorrectionsNotReadBack).then_some(RECONCILE);
        let mut stored: BTreeSet<Who> = tables.stored(ignored);
        let (mut clicks, mut lines) = (ClickColumns::default(), Vec::new());
        for number in tables.late_lines(partition) {
            let Some(click) = servers.click(number) else { continue };
            let minute = Minute::of(click.who.at_ms);
            let is_due = minute.end_ms() <= final_ms && minute.start_ms() >= tables.kept_from_ms();
            if lines.len() == most || !is_due || !stored.insert(click.who.clone()) {
                continue;
            }
            let fields = ClickRef {
                event_time_ms: click.who.at_ms,
                ad_id: click.who.ad,
                country: Country::parse(click.country.as_bytes()),
                ip: adtally_model::ip::parse(click.ip.as_bytes()).unwrap_or_default(),
                user_id: click.user.as_bytes(),
                click_id: click.click_id.as_bytes(),
            };
            clicks.push(&fields, 0, Identity(0));
            lines.push(("a log".to_owned(), number as u64));
        }
        if lines.is_empty() {
            return Ok(0);
        }
        let found = lines.len();
        self.ground.machine.note("recovers late clicks:", &found);
        let at = Watermark::at(final_ms);
        let frontiers = Frontiers { watermark: at, closed: at, final_: at, expired: at };
        let recovery = self.corrections.recover(Cause::Late, "simulation", (clicks, lines), frontiers);
        self.ground.runtime.block_on(recovery)?;
        Ok(found)
    }
}
