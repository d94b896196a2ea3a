//! `adtally retire`: ends partitions for good, so that a topic can take their place.

use super::settings::StoreSettings;
use super::{existing, runtime};
use crate::config::Config;
use crate::exit::Exit;
use crate::terminal;
use adtally_engine::clock::{Randomness, SystemRandomness};
use adtally_engine::project::Waiting;
use adtally_engine::recovery::{Recovered, take_over_as, waiting_of};
use adtally_model::ledger::thousands;
use adtally_model::{Error, Result};
use adtally_store::backing::{Backing, EMBEDDED, Stores};
use adtally_store::data_dir::DataDir;
use adtally_store::epoch_log::{Beginning, EpochLogs, Fingerprints};
use adtally_store::lake::{EpochProjection, Lake};
use clap::Args;
use std::sync::Arc;

/// End partitions for good: all their minutes become final, and a new topic can take their place.
#[derive(Debug, Args)]
#[command(after_help = "\
Without --topic, it retires the log files that `adtally run` has read. First let `run` or the workers read everything, and
stop them: what they have not read is not counted. The workers of the next topic count from the minute after the newest
click. Older clicks are late, and `adtally reconcile` counts those that are missing. With a URL, set ADTALLY_IDENTITY__KEY.

Examples:
  adtally retire --data-dir /var/lib/adtally
  adtally retire --data-dir s3://bucket/adtally --topic clicks")]
pub struct RetireArgs {
    /// Where the data is.
    #[command(flatten)]
    pub store: StoreSettings,
    /// The topic whose partitions are retired.
    #[arg(long, value_name = "TOPIC")]
    pub topic: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// A user error when there is nothing to retire; fenced while a run owns the data directory.
pub fn retire(args: &RetireArgs) -> Result<Exit> {
    let config = args.store.load()?;
    let url = &config.run.store.data_dir;
    existing(url)?;
    let _owned = url.locked_folder().map(DataDir::own).transpose()?;
    let topic = args.topic.clone();
    let runtime = runtime()?;
    // On a thread of the runtime, whose stack is large enough for planning.
    let retired = runtime.block_on(runtime.spawn(async move { retire_all(&config, topic.as_deref()).await }));
    let retired = retired.map_err(|error| Error::internal("the command stopped unexpectedly").because(error))??;
    terminal::print_text(&format!("partitions retired: {}; all their minutes are final\n", thousands(retired)))?;
    Ok(Exit::Success)
}

/// Retires the partitions of a topic, or the log files. Returns how many were not retired before.
async fn retire_all(config: &Config, topic: Option<&str>) -> Result<u64> {
    let url = &config.run.store.data_dir;
    let backing = Backing::for_owner(url, config.run.epoch.fsync)?;
    backing.probe(SystemRandomness.next_u128()).await?;
    let Stores { logs, lake, .. } = backing.open().await?;
    let key = match (config.run.identity_key, url.read_key()?) {
        (Some(key), _) | (None, Some(key)) => key,
        (None, None) => url.shared_key(None)?,
    };
    let fingerprints = Fingerprints { config: config.run.fingerprint(), key: key.fingerprint() };
    let topics = backing.sources().all().await?;
    let partitions: Vec<(u32, Beginning)> = match topic {
        None => vec![(EMBEDDED, Beginning::default())],
        Some(name) => {
            let named = topics.iter().filter(|topic| topic.name == name);
            let numbers = named.flat_map(|topic| topic.numbers().map(move |number| (topic, number)));
            numbers
                .map(|(topic, number)| (number, Beginning { topic: topic.source_of(number), ..Beginning::default() }))
                .collect()
        }
    };
    if partitions.is_empty() {
        let known: Vec<&str> = topics.iter().map(|topic| topic.name.as_str()).collect();
        return Err(Error::user(format!(
            "no worker has read a topic {} into {url}; the topics are: {}",
            topic.unwrap_or_default(),
            known.join(", ")
        )));
    }
    let mut retired = 0;
    for (partition, beginning) in partitions {
        let newest = logs.log(partition).newest().await?;
        if topic.is_none() && newest.as_ref().is_none_or(|newest| newest.progress.topic.is_some()) {
            return Err(Error::user(format!(
                "no log files were read into {url}: name the topic to retire with --topic"
            )));
        }
        if let Some(newest) = newest.filter(|newest| newest.progress.is_retired) {
            // The lake may lack its last epochs: nobody else may bring it up to date.
            let waiting = waiting_of(&logs.log(partition), &lake, &newest.progress).await?;
            let epochs: Vec<EpochProjection> = waiting.iter().map(Waiting::projection).collect();
            lake.project(&epochs, SystemRandomness.next_u128()).await?;
            continue;
        }
        retire_one((&logs, &lake), partition, &beginning, fingerprints).await?;
        retired += 1;
    }
    Ok(retired)
}

/// Takes a partition over, retires it, and brings the lake up to date.
async fn retire_one(
    (logs, lake): (&EpochLogs, &Lake),
    partition: u32,
    beginning: &Beginning,
    fingerprints: Fingerprints,
) -> Result<()> {
    let ids = (SystemRandomness.next_u128(), SystemRandomness.next_u128());
    let log = logs.log(partition);
    let Recovered { mut writer, state, waiting, .. } = take_over_as(&log, lake, ids, fingerprints, beginning).await?;
    let last = writer.retire(&state).await?;
    let mut epochs: Vec<EpochProjection> = waiting.iter().map(Waiting::projection).collect();
    epochs.push(EpochProjection {
        progress: last.progress,
        counts: Arc::default(),
        staged: Vec::new(),
        inputs: Arc::default(),
        correction: None,
    });
    lake.project(&epochs, SystemRandomness.next_u128()).await
}
