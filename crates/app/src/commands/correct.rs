//! Runs that correct final minutes. The owner of the data directory does the work: the process that runs there, or this
//! one. On a shared store this process does it, because it takes over the partition of corrections.

use super::{control, runtime};
use crate::config::Config;
use crate::terminal::{self, Unit};
use adtally_engine::clock::{Clock, Randomness, SystemClock, SystemRandomness};
use adtally_engine::reconciler::{Asked, RunParts};
use adtally_model::{Error, ErrorKind, IdentityKey, Result};
use adtally_reconcile::{CorrectionParts, Corrections, Letter, ReconcileReport, Tell, Watch};
use adtally_store::backing::{Backing, Stores};
use adtally_store::data_dir::DataDir;
use adtally_store::epoch_log::Fingerprints;
use std::sync::Arc;

/// Does a run, or asks the process that owns the data directory to do it. A dry run changes nothing, and needs no owner. `tell`
/// is called for each line that this process decodes again, with what becomes of it.
///
/// # Errors
/// As [`Asked::run`]; fenced while a process that takes no requests owns the data directory.
pub(super) fn correct(
    config: Config,
    asked: Asked,
    dry_run: bool,
    unit: Unit,
    tell: impl Fn(&Letter, &str) + Send + Sync + 'static,
) -> Result<ReconcileReport> {
    let bar = terminal::progress_bar(0, unit);
    let shown = bar.clone();
    let watch = move |done, all| {
        shown.set_length(all);
        shown.set_position(done);
    };
    let runtime = runtime()?;
    // On a thread of the runtime, whose stack is large enough for planning SQL.
    let done = runtime.block_on(runtime.spawn(async move {
        if dry_run { find(&config, &asked, &tell, &watch).await } else { commit(&config, asked, &tell, &watch).await }
    }));
    bar.finish_and_clear();
    done.map_err(|e| Error::internal("the run stopped unexpectedly").because(e))?
}

async fn find(config: &Config, asked: &Asked, tell: Tell<'_>, watch: Watch<'_>) -> Result<ReconcileReport> {
    let backing = Backing::for_reader(&config.run.store.data_dir)?;
    let lake = backing.existing_lake().await?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let parts = RunParts {
        lake: &lake,
        logs: &backing.logs(),
        corrections: None,
        settings: &config.run,
        // No identity is stored.
        key: config.run.identity_key.unwrap_or(IdentityKey::new([0; 16])),
        clock: &clock,
        tell,
        watch,
    };
    asked.run(parts).await
}

async fn commit(config: &Config, asked: Asked, tell: Tell<'_>, watch: Watch<'_>) -> Result<ReconcileReport> {
    let settings = &config.run;
    let url = &settings.store.data_dir;
    let data_dir = match url.locked_folder() {
        None => None,
        Some(folder) => match DataDir::own(folder) {
            Err(error) if error.kind() == ErrorKind::Fenced => return control::ask(folder, asked, watch).await,
            owned => Some(owned?),
        },
    };
    let backing = Backing::for_owner(url, settings.epoch.fsync)?;
    backing.probe(SystemRandomness.next_u128()).await?;
    let Stores { logs, lake, log_is_empty } = backing.open().await?;
    let key = match (settings.identity_key, &data_dir) {
        (Some(key), _) => key,
        (None, Some(data_dir)) => data_dir.identity_key(SystemRandomness.next_u128().to_be_bytes(), log_is_empty)?,
        (None, None) => url.shared_key(None)?,
    };
    lake.add_columns().await?;
    let lake = Arc::new(lake);
    let parts = CorrectionParts {
        logs: logs.clone(),
        lake: lake.clone(),
        readers: None,
        fingerprints: Fingerprints { config: settings.fingerprint(), key: key.fingerprint() },
        random: Arc::new(|| SystemRandomness.next_u128()),
        now_ms: Arc::new(|| SystemClock.wall_ms()),
    };
    let mut corrections = Corrections::claim(parts).await?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let corrections = Some(&mut corrections);
    asked.run(RunParts { lake: &lake, logs: &logs, corrections, settings, key, clock: &clock, tell, watch }).await
}
