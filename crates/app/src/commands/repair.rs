//! `adtally repair`: repairs the damage that `verify` finds, as far as the remaining data allows.
//!
//! The order is: unreadable log entries of the lake, then the epoch log, then the lake that follows it. Decisions are a
//! function of facts (`decide`). Nothing is deleted, only moved aside. Raw input is never touched.

use super::runtime;
use super::settings::StoreSettings;
use crate::config::Config;
use crate::exit::Exit;
use crate::terminal;
use adtally_engine::clock::{Clock, Randomness, SystemClock, SystemRandomness};
use adtally_model::time::rfc3339;
use adtally_model::{EpochNumber, Error, ErrorKind, IdentityKey, RECONCILE, Result};
use adtally_reconcile::Rebuilt;
use adtally_store::backing::{Backing, EMBEDDED, ObjectPath};
use adtally_store::data_dir::DataDir;
use adtally_store::epoch_log::EpochLog;
use adtally_store::lake::Lake;
use clap::Args;
use serde_json::json;
use std::collections::BTreeSet;

/// Repair stored data that `verify` finds damaged. Without --yes, only say what would be done.
#[derive(Debug, Args)]
#[command(after_help = "\
Repairs:
  A torn or empty entry of a table's Delta log is moved aside. The next run writes it again from the epoch log.
  A damaged end of the epoch log that is not in the lake yet is moved aside. The next run reads its lines again.
  An epoch log that is lost, or whose damaged records are already in the lake, is written again from the lake. The
    next run reads all inputs that still exist. Clicks that are in the lake are not counted again.
Files that are moved aside go to the folder `damaged` of the data directory. Nothing is deleted, and raw input is
never changed. Stop `run` first.")]
pub struct RepairArgs {
    /// Where the data is. A rebuilt epoch log uses the time settings of the configuration.
    #[command(flatten)]
    pub store: StoreSettings,
    /// Make the repairs.
    #[arg(long)]
    pub yes: bool,
    /// Print one JSON object: whether something was damaged, whether it was repaired, and the steps.
    #[arg(long)]
    pub json: bool,
}

/// Facts about the epoch log and the lake that follows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Facts {
    /// The newest record, damaged or not.
    newest: Option<EpochNumber>,
    /// The newest record for which no needed record is damaged.
    sound: Option<EpochNumber>,
    /// If the lake follows this log: the smallest and the largest last epoch among its tables.
    follows: Option<(EpochNumber, EpochNumber)>,
    /// The last epoch that all of the lake's tables contain, of any log.
    complete: EpochNumber,
}

/// The step to take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// Nothing.
    Nothing,
    /// The lake lags behind: the next run brings it up to date.
    Lags,
    /// Move the records after this one aside.
    TakeBack(EpochNumber),
    /// Move the log aside and write a new one from the lake's epochs up to this one.
    Rebuild(EpochNumber),
}

fn decide(facts: &Facts) -> Step {
    match (*facts, facts.sound) {
        (Facts { follows: Some((least, most)), newest, .. }, Some(sound)) if most <= sound => match newest {
            Some(newest) if newest > sound => Step::TakeBack(sound),
            _ if least < sound => Step::Lags,
            _ => Step::Nothing,
        },
        _ => Step::Rebuild(facts.complete),
    }
}

/// Runs the command.
///
/// # Errors
/// Fenced while a run owns the data directory; corrupt when the remaining data does not allow a repair.
pub fn repair(args: &RepairArgs) -> Result<Exit> {
    let config = args.store.load()?;
    let url = &config.run.store.data_dir;
    let no_lake = || {
        Error::user(format!(
            "{url} has no lake, which a repair needs: use the --data-dir of a `run` that has committed something"
        ))
    };
    if url.folder().is_some_and(|folder| !folder.join("lake").is_dir()) {
        return Err(no_lake());
    }
    let data_dir = url.locked_folder().map(DataDir::own).transpose()?;
    let backing = Backing::for_owner(url, true)?;
    let runtime = runtime()?;
    if !runtime.block_on(backing.has_data())? {
        return Err(no_lake());
    }
    let repair = Repair {
        aside: ObjectPath::from("damaged").join(rfc3339(SystemClock.wall_ms()).replace(':', "-")),
        backing,
        yes: args.yes,
        config,
        steps: Vec::new(),
    };
    // On a thread of the runtime, whose stack is large enough for planning SQL.
    let mended = runtime.block_on(runtime.spawn(repair.mend()));
    drop(data_dir);
    let (found, steps) = mended.map_err(|e| Error::internal("the repair stopped unexpectedly").because(e))?;
    let outcome = found.as_ref().ok().map(|found| match (found, args.yes) {
        (false, _) => "nothing to repair",
        (true, true) => "repaired; `adtally verify` checks it",
        (true, false) => "nothing was changed: run it again with --yes",
    });
    if args.json {
        // Steps before a failure are reported as done.
        let damaged = found.as_ref().map_or(true, |&found| found);
        let repaired = found.as_ref().is_ok_and(|&found| found && args.yes);
        if found.is_ok() || !steps.is_empty() {
            let report = json!({ "damaged": damaged, "repaired": repaired, "steps": steps });
            terminal::print(&format!("{report}\n"))?;
        }
    } else {
        // Steps before a failure are printed as well.
        let lines = steps.iter().map(String::as_str).chain(outcome);
        terminal::print_text(&lines.map(|line| format!("{line}\n")).collect::<String>())?;
    }
    Ok(if found? && !args.yes { Exit::Damaged } else { Exit::Success })
}

struct Repair {
    backing: Backing,
    /// The folder for files that are moved aside.
    aside: ObjectPath,
    yes: bool,
    config: Config,
    /// The steps that were taken, or would be.
    steps: Vec<String>,
}

impl Repair {
    /// Makes one repair after another. Returns whether there was damage, and the steps until the end or a failure.
    async fn mend(mut self) -> (Result<bool>, Vec<String>) {
        let found = self.mend_all().await;
        (found, self.steps)
    }

    async fn mend_all(&mut self) -> Result<bool> {
        let backing = self.backing.clone();
        let entries = backing.damaged_lake_entries().await?;
        if let Some(entry) = entries.iter().find(|entry| !entry.dispensable) {
            return Err(Error::corrupt(format!(
                "the log entry {} {}, and later entries depend on it: restore the lake from a backup",
                entry.path, entry.what
            )));
        }
        for entry in &entries {
            self.put_aside(&format!("lake/{}", entry.path), entry.what).await?;
        }
        if !entries.is_empty() && !self.yes {
            self.steps.push("further repairs are found once this is done".to_owned());
            return Ok(true);
        }
        let partitions = backing.logs().partitions().await?;
        let lake = backing.existing_lake().await?;
        let mut is_damaged = !entries.is_empty();
        // A lost log is treated as an empty one. Without corrections there is none of them.
        let mut expected: BTreeSet<u32> = partitions.into_iter().collect();
        expected.extend(lake.epochs().await?.iter().map(|(partition, _)| partition));
        if expected.is_empty() {
            expected.insert(EMBEDDED);
        }
        for partition in expected {
            is_damaged |= self.mend_log(&backing.logs().log(partition), &lake).await?;
        }
        Ok(is_damaged)
    }

    /// Repairs a log, or the lake that follows it. Returns whether there was damage.
    async fn mend_log(&mut self, log: &EpochLog, lake: &Lake) -> Result<bool> {
        let step = decide(&facts(log, lake).await?);
        match step {
            Step::Nothing => {}
            Step::Lags => {
                self.steps.push("the lake lags behind the epoch log: the next run brings it up to date".to_owned());
            }
            Step::TakeBack(sound) => {
                for number in log.numbers().await?.into_iter().filter(|&number| number > sound) {
                    self.put_aside(
                        log.path(number).as_ref(),
                        "is damaged or follows a damaged record, and is not in the lake",
                    )
                    .await?;
                }
            }
            // The lake does not say which runs were reverted.
            Step::Rebuild(_) if log.partition() == RECONCILE => {
                return Err(Error::corrupt(format!(
                    "the epoch log of corrections, {}, is lost or damaged: restore this folder from a backup",
                    log.folder()
                )));
            }
            // The lake does not say how far a topic was read.
            Step::Rebuild(_) if log.partition() != EMBEDDED || is_of_topic(log).await => {
                return Err(Error::corrupt(format!(
                    "the epoch log of partition {}, {}, is lost or damaged, and its lines came from a topic: restore this folder \
                     from a backup, or count the topic again into another place with `adtally worker --from`",
                    log.partition(),
                    log.folder()
                )));
            }
            Step::Rebuild(last) => self.rebuild(log, lake, last).await?,
        }
        Ok(!matches!(step, Step::Nothing | Step::Lags))
    }

    /// Writes a new log from the lake's rows.
    async fn rebuild(&mut self, log: &EpochLog, lake: &Lake, last: EpochNumber) -> Result<()> {
        let key = self.key()?;
        let newest = log.numbers().await?.last().copied().unwrap_or_default();
        let time = &self.config.run.time;
        let under = Rebuilt {
            key: &key,
            out_of_orderness_ms: time.out_of_orderness_ms,
            allowed_lateness_ms: time.allowed_lateness_ms,
            dedup_horizon_ms: time.dedup_horizon_ms,
            config_fingerprint: self.config.run.fingerprint(),
            log_id: SystemRandomness.next_u128(),
            clock_ms: SystemClock.wall_ms(),
        };
        let state = adtally_reconcile::rebuild(lake, log.partition(), under, (last, newest)).await?;
        let sum = state.progress.ledger;
        let what = format!("the epoch log up to {}, from epoch {last} of the lake: {sum}", state.progress.number);
        self.steps.push(format!("{} {what}", if self.yes { "writing" } else { "would write" }));
        if newest > 0 {
            self.put_aside(log.folder().as_ref(), "is damaged or does not belong to the lake").await?;
        }
        if self.yes {
            log.rebuild(&state, SystemRandomness.next_u128()).await?;
            lake.adopt(log.partition(), state.progress.log_id, last, state.progress.number).await?;
        }
        Ok(())
    }

    fn key(&self) -> Result<IdentityKey> {
        if let Some(key) = self.config.run.identity_key {
            return Ok(key);
        }
        self.config.run.store.data_dir.read_key()?.ok_or_else(|| {
            Error::corrupt(format!(
                "{} is missing: without it, duplicates of counted clicks cannot be recognised. Restore it from a \
                 backup. If the key was configured, use the --config that has it, or set ADTALLY_IDENTITY__KEY",
                self.config.run.store.data_dir.key_file().unwrap_or_else(|| "identity.key".into()).display()
            ))
        })
    }

    /// Moves a file or folder aside, or reports that it would.
    async fn put_aside(&mut self, what: &str, why: &str) -> Result<()> {
        if !self.yes {
            self.steps.push(format!("would move aside {what}, which {why}"));
            return Ok(());
        }
        let to = self.backing.put_aside(what, &self.aside).await?;
        self.steps.push(format!("moved aside {what}, which {why}: it is now {to}"));
        Ok(())
    }
}

/// Whether the lines of a log's partition came from a topic.
async fn is_of_topic(log: &EpochLog) -> bool {
    matches!(log.read(1).await, Ok(Some((epoch, _))) if epoch.progress.source.is_some())
}

async fn facts(log: &EpochLog, lake: &Lake) -> Result<Facts> {
    let sound = log.soundest().await?;
    let follows = match &sound {
        None => None,
        Some(state) => match lake.held(state.progress.log_id, log.partition()).await {
            Ok(held) => {
                let ends = || held.tables.iter().map(|(_, epoch)| epoch.unwrap_or_default());
                Some((ends().min().unwrap_or_default(), ends().max().unwrap_or_default()))
            }
            Err(error) if error.kind() == ErrorKind::Corrupt => None,
            Err(error) => return Err(error),
        },
    };
    Ok(Facts {
        newest: log.numbers().await?.last().copied(),
        sound: sound.map(|state| state.progress.number),
        follows,
        complete: lake.epochs().await?.last(log.partition()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_follows_from_what_is_left() {
        let check = |newest, sound, follows, expected| {
            let facts = Facts { newest, sound, follows, complete: 7 };
            assert_eq!(decide(&facts), expected, "{facts:?}");
        };
        check(Some(9), Some(9), Some((9, 9)), Step::Nothing);
        check(Some(9), Some(9), Some((7, 8)), Step::Lags);
        check(Some(9), Some(8), Some((7, 8)), Step::TakeBack(8));
        // The lake contains epochs that the log has lost.
        check(Some(9), Some(6), Some((7, 7)), Step::Rebuild(7));
        check(Some(6), Some(6), Some((7, 7)), Step::Rebuild(7));
        check(None, None, None, Step::Rebuild(7));
        check(Some(9), None, None, Step::Rebuild(7));
        // The lake follows another log.
        check(Some(9), Some(9), None, Step::Rebuild(7));
    }
}
