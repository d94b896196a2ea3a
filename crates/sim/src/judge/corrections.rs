//! Checks the partition `reconcile`: its records, that nothing is counted twice, and in the end that nothing is missing.

use super::{
    Content, Disk, Invariant, Judge, Known, Rows, SharedTables, Verdict, Who, add_rows, broken, ensure, rows_of,
    text_of,
};
use crate::servers::Servers;
use crate::store::ROOT;
use adtally_model::reconcile::Cause;
use adtally_model::{EpochNumber, Minute, MinuteCounts, RECONCILE, StagedTable};
use adtally_store::epoch_log::codec;
use std::collections::{BTreeMap, BTreeSet};

/// The judge of the corrections.
#[derive(Default)]
pub(crate) struct CorrectionJudge {
    records: Vec<Known>,
    recovered: BTreeSet<Who>,
}

impl CorrectionJudge {
    fn head(&self) -> EpochNumber {
        self.records.len() as EpochNumber
    }

    /// The number of recovered clicks.
    pub(crate) fn recovered(&self) -> usize {
        self.recovered.len()
    }

    /// Checks and notes the records added since the last call.
    pub(crate) fn absorb(&mut self, disk: &Disk, tables: &SharedTables, sources: &Judge) -> Verdict {
        while let Ok(bytes) = disk.read(&format!("{ROOT}/epochs/{RECONCILE:05}/{:020}.epoch", self.head() + 1)) {
            let number = self.head() + 1;
            let (epoch, checksum) = match codec::decode(bytes) {
                Ok(decoded) => decoded,
                Err(error) => {
                    return broken(Invariant::LinearChain, format!("correction {number}: {}", error.report()));
                }
            };
            let before = self.records.last().map_or(0, |known| known.checksum);
            ensure(epoch.progress.number == number && epoch.predecessor == before, Invariant::LinearChain, || {
                format!("correction {} does not follow correction {}", epoch.progress.number, number - 1)
            })?;
            let mut all = Rows::new();
            epoch.counts.iter().for_each(|counts| add_rows(&mut all, counts));
            for file in &epoch.staged {
                ensure(file.table == StagedTable::Clicks, Invariant::LakeEqualsLog, || {
                    format!("{} is staged", file.path)
                })?;
                for (who, country) in clicks_in(&text_of(tables, file)?)? {
                    *all.entry((who.ad, country)).or_default() -= 1;
                    ensure(!sources.counted.contains(&who), Invariant::NoDoubleCount, || {
                        format!("correction {number} recovers {who:?}, which is counted")
                    })?;
                    ensure(self.recovered.insert(who.clone()), Invariant::NoDoubleCount, || {
                        format!("correction {number} recovers {who:?} again")
                    })?;
                }
            }
            ensure(all.values().all(|&left| left == 0), Invariant::LakeEqualsLog, || {
                format!("correction {number} counts other clicks than it stages: {all:?}")
            })?;
            let state = epoch.reconcile.as_ref().map(|record| record.state.clone()).unwrap_or_default();
            let booked = state.corrected.get(&Cause::Late).map_or(0, |of| of.recovered);
            ensure(booked == self.recovered.len() as u64, Invariant::Conservation, || {
                format!("correction {number} books {booked} clicks of {}", self.recovered.len())
            })?;
            self.records.push(Known::of(&epoch, checksum));
        }
        Ok(())
    }

    /// The lake must contain exactly what the records up to its epoch say.
    pub(crate) fn check_lake(&self, tables: &SharedTables) -> Verdict {
        let held = tables.held_by_all(RECONCILE);
        ensure(held <= self.head(), Invariant::LakeEqualsLog, || {
            format!("the lake holds correction {held}, the log ends at {}", self.head())
        })?;
        let mut expected: BTreeMap<Minute, Rows> = BTreeMap::new();
        for counts in self.records.iter().take(held as usize).flat_map(|known| &known.counts) {
            add_rows(expected.entry(counts.minute).or_default(), counts);
        }
        let lake = tables.counts(RECONCILE, held);
        let rows = |(&minute, counts): (&Minute, &MinuteCounts)| (minute, rows_of(Some(counts)));
        let found: BTreeMap<Minute, Rows> = lake.iter().map(rows).collect();
        ensure(found == expected, Invariant::LakeEqualsLog, || {
            format!("the lake at correction {held} has {found:?}, the log {expected:?}")
        })
    }

    /// After a last recount without faults: every late click of a final minute whose clicks are kept counts once.
    pub(crate) fn check_end(&self, tables: &SharedTables, sources: &Judge, servers: &Servers) -> Verdict {
        self.check_lake(tables)?;
        let again = self.recovered.iter().find(|who| sources.counted.contains(who));
        ensure(again.is_none(), Invariant::NoDoubleCount, || format!("{again:?} was recovered and is counted"))?;
        let late = sources.letters.iter().filter(|(_, verdicts)| verdicts.iter().any(|verdict| verdict == "late"));
        for line in late.filter_map(|(&number, _)| servers.lines.get(number)) {
            let Content::Click(click) = &line.content else { continue };
            let minute = Minute::of(click.who.at_ms);
            let is_due =
                sources.frontiers.final_.reached(minute.end_ms()) && minute.start_ms() >= tables.kept_from_ms();
            let counts = sources.counted.contains(&click.who) || self.recovered.contains(&click.who);
            ensure(counts || !is_due, Invariant::Conservation, || {
                format!("{:?} was late, its minute is final, and no recount recovers it", click.who)
            })?;
        }
        Ok(())
    }
}

/// The clicks in a file of the model.
pub(crate) fn clicks_in(text: &str) -> Verdict<Vec<(Who, adtally_model::Country)>> {
    let click = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let [at, ad, user, ip, country, click_id] = words.as_slice() else {
            return Err(format!("the model's file of clicks holds {line:?}"));
        };
        let id = if click_id.is_empty() { format!("{user} {ip}") } else { (*click_id).to_owned() };
        let who = Who { at_ms: at.parse().unwrap_or_default(), ad: ad.parse().unwrap_or_default(), id };
        Ok((who, adtally_model::Country::parse(country.as_bytes())))
    };
    text.lines().map(click).collect()
}
