//! Checks everything that was ever committed, with code of its own: the records of the log one by one, the files that
//! they stage, the contents of the lake, and the results shown to a client.

use crate::disk::Disk;
use crate::lake::SharedTables;
use crate::process::{Process, Taken};
use crate::scenario::Scenario;
use crate::servers::{Content, Servers, Who, number_in};
use crate::store::ROOT;
use adtally_engine::Ending;
use adtally_model::{
    Country, Epoch, EpochNumber, Frontiers, InputId, InputRow, InputStatus, Invariant, Ledger, Minute, MinuteCounts,
    MinuteState, PartitionState, StagedFile, StagedTable,
};
use adtally_store::epoch_log::codec;
use adtally_store::hot_counts::Snapshot;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

mod checks;
pub(crate) mod corrections;

/// The result of a check; the error describes the violation.
pub(crate) type Verdict<T = ()> = Result<T, String>;

/// Clicks by ad and country.
type Rows = BTreeMap<(u64, Country), i64>;

/// Missing records must be at least this much older than the newest.
const KEPT: EpochNumber = 64;

/// The known facts about a record.
struct Known {
    checksum: u128,
    writer: u128,
    is_claim: bool,
    oldest_needed: EpochNumber,
    counts: Vec<MinuteCounts>,
    ledger: Ledger,
}

impl Known {
    fn of(epoch: &Epoch, checksum: u128) -> Known {
        Known {
            checksum,
            writer: epoch.writer,
            is_claim: epoch.claim,
            oldest_needed: epoch.oldest_needed,
            counts: epoch.counts.clone(),
            ledger: epoch.progress.ledger,
        }
    }
}

/// The result shown to a client for a minute that was no longer open.
struct Told {
    is_final: bool,
    rows: Rows,
}

/// The judge of one partition.
#[derive(Default)]
pub(crate) struct Judge {
    partition: u32,
    /// How far the source was read, if it has one position for all inputs.
    source: Option<u64>,
    records: Vec<Known>,
    frontiers: Frontiers,
    inputs: BTreeMap<InputId, Arc<InputRow>>,
    ledger: Ledger,
    counts: BTreeMap<Minute, Rows>,
    counted: BTreeSet<Who>,
    /// Verdicts of dead letters by line number.
    letters: BTreeMap<usize, Vec<String>>,
    staged: BTreeSet<String>,
    /// Writers that make everything final at the end of their runs.
    final_runs: BTreeSet<u128>,
    told: BTreeMap<Minute, Told>,
    /// The last epoch whose results shown to clients were checked.
    told_epoch: EpochNumber,
}

/// A violation of an invariant.
fn broken<T>(invariant: Invariant, what: impl std::fmt::Display) -> Verdict<T> {
    Err(format!("{invariant}: {what}"))
}

fn ensure(holds: bool, invariant: Invariant, what: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { broken(invariant, what()) }
}

fn add_rows(rows: &mut Rows, counts: &MinuteCounts) {
    for (ad, country, clicks) in counts.rows() {
        *rows.entry((ad, country)).or_default() += clicks;
    }
}

fn rows_of(counts: Option<&MinuteCounts>) -> Rows {
    let mut rows = Rows::new();
    if let Some(counts) = counts {
        add_rows(&mut rows, counts);
    }
    rows
}

fn sum(ledger: &Ledger) -> u64 {
    ledger.counted + ledger.duplicate + ledger.late + ledger.future + ledger.malformed + ledger.invalid
}

impl Judge {
    /// A judge for a partition without records.
    pub(crate) fn new(partition: u32) -> Judge {
        Judge { partition, ..Judge::default() }
    }

    fn path_of(&self, number: EpochNumber) -> String {
        format!("{ROOT}/epochs/{:05}/{number:020}.epoch", self.partition)
    }

    /// The newest known record.
    pub(crate) fn head(&self) -> EpochNumber {
        self.records.len() as EpochNumber
    }

    /// The committed number of lines read.
    pub(crate) fn read(&self) -> u64 {
        self.ledger.read
    }

    /// Whether an input at `path` was committed up to length `len`.
    pub(crate) fn is_read(&self, path: &str, len: u64) -> bool {
        self.inputs.values().any(|row| *row.name == *path && row.position().to == len)
    }

    /// Checks and notes the records added since the last call. Returns their writers.
    pub(crate) fn absorb(
        &mut self,
        disk: &Disk,
        tables: &SharedTables,
        scenario: &Scenario,
        servers: &Servers,
    ) -> Verdict<Vec<u128>> {
        let mut writers = Vec::new();
        while let Ok(bytes) = disk.read(&self.path_of(self.head() + 1)) {
            let decoded = codec::decode(bytes);
            let (epoch, checksum) = match decoded {
                Ok(decoded) => decoded,
                Err(error) => {
                    return broken(Invariant::LinearChain, format!("record {}: {}", self.head() + 1, error.report()));
                }
            };
            writers.push(epoch.writer);
            self.absorb_record(&epoch, checksum, tables, scenario, servers)?;
        }
        Ok(writers)
    }

    fn absorb_record(
        &mut self,
        epoch: &Epoch,
        checksum: u128,
        tables: &SharedTables,
        scenario: &Scenario,
        servers: &Servers,
    ) -> Verdict {
        let number = self.head() + 1;
        let before = self.records.last().map_or(0, |known| known.checksum);
        ensure(epoch.progress.number == number && epoch.predecessor == before, Invariant::LinearChain, || {
            format!("epoch {} does not follow epoch {}", epoch.progress.number, number - 1)
        })?;
        ensure(epoch.progress.frontiers.follows(&self.frontiers), Invariant::MonotoneFrontiers, || {
            format!("epoch {number} moves {:?} to {:?}", self.frontiers, epoch.progress.frontiers)
        })?;
        self.check_holding(epoch)?;
        self.absorb_inputs(epoch)?;
        let final_before = self.frontiers.final_;
        let mut all = Rows::new();
        for counts in &epoch.counts {
            ensure(!final_before.reached(counts.minute.end_ms()), Invariant::FinalIsFinal, || {
                format!("epoch {number} counts clicks of minute {}, which was final", counts.minute.0)
            })?;
            add_rows(self.counts.entry(counts.minute).or_default(), counts);
            add_rows(&mut all, counts);
        }
        self.frontiers = epoch.progress.frontiers;
        if epoch.progress.frontiers.final_ > final_before && !self.final_runs.contains(&epoch.writer) {
            check_final(epoch, scenario, servers)?;
        }
        let (mut clicks, mut letters) = (0, 0);
        for file in &epoch.staged {
            ensure(self.staged.insert(file.path.clone()), Invariant::LakeEqualsLog, || {
                format!("epoch {number} stages {}, which another has staged", file.path)
            })?;
            match file.table {
                StagedTable::Clicks => clicks += self.absorb_clicks(number, &mut all, &text_of(tables, file)?)?,
                StagedTable::DeadLetters => {
                    letters += self.absorb_letters(epoch, &text_of(tables, file)?, scenario, servers)?;
                }
            }
        }
        ensure(all.values().all(|&left| left == 0), Invariant::LakeEqualsLog, || {
            format!("epoch {number} counts more clicks than it stages: {all:?}")
        })?;
        let identities: usize = epoch.identities.iter().map(|minute| minute.identities.len()).sum();
        ensure(identities as u64 == clicks, Invariant::NoDoubleCount, || {
            format!("epoch {number} counts {clicks} clicks with {identities} identities")
        })?;
        let (was, is) = (&self.ledger, &epoch.progress.ledger);
        let rejected = |ledger: &Ledger| ledger.late + ledger.future + ledger.malformed + ledger.invalid;
        let booked = is.counted == was.counted + clicks && rejected(is) == rejected(was) + letters;
        ensure(booked && is.read == sum(is), Invariant::Conservation, || {
            format!("epoch {number} stages {clicks} clicks and {letters} letters and books {was:?} to {is:?}")
        })?;
        self.ledger = epoch.progress.ledger;
        self.records.push(Known::of(epoch, checksum));
        Ok(())
    }

    /// An input without a watermark must never be released, and must hold the partition's watermark.
    fn check_holding(&self, epoch: &Epoch) -> Verdict {
        let holds = |row: &InputRow| row.status == InputStatus::Holding && row.time.largest_ms.is_none();
        for row in &epoch.inputs {
            ensure(
                row.status != InputStatus::Released || row.time.largest_ms.is_some(),
                Invariant::FinalIsFinal,
                || format!("epoch {} releases {}, which has no watermark", epoch.progress.number, row.name),
            )?;
        }
        let now = |row: &Arc<InputRow>| epoch.inputs.iter().find(|now| now.id == row.id).unwrap_or(row).clone();
        let held = self.inputs.values().find(|row| holds(row) && holds(&now(row)));
        let moved = epoch.progress.frontiers.watermark > self.frontiers.watermark;
        ensure(held.is_none() || !moved, Invariant::FinalIsFinal, || {
            format!("epoch {} moves the watermark although {held:?} has none", epoch.progress.number)
        })
    }

    fn absorb_inputs(&mut self, epoch: &Epoch) -> Verdict {
        if let Some(source) = epoch.progress.source {
            let known = self.source.unwrap_or(source.from);
            ensure(source.from == known && source.to >= known, Invariant::ContiguousPositions, || {
                format!("epoch {} reads {source:?} of a source that was read to {known}", epoch.progress.number)
            })?;
            self.source = Some(source.to);
        }
        for row in &epoch.inputs {
            let known = self.inputs.get(&row.id).map_or(0, |known| known.position().to);
            let position = row.position();
            ensure(position.from == known && position.to >= known, Invariant::ContiguousPositions, || {
                format!("epoch {} reads {position:?} of {}, which was read to {known}", epoch.progress.number, row.name)
            })?;
            self.inputs.insert(row.id, row.clone());
        }
        let mut total = epoch.progress.gone;
        for row in self.inputs.values() {
            total += &row.ledger;
        }
        ensure(total == epoch.progress.ledger, Invariant::Conservation, || {
            format!(
                "epoch {}: inputs and gone sum to {total:?}, not {:?}",
                epoch.progress.number, epoch.progress.ledger
            )
        })
    }

    fn absorb_clicks(&mut self, number: EpochNumber, all: &mut Rows, text: &str) -> Verdict<u64> {
        let mut clicks = 0;
        for (who, country) in corrections::clicks_in(text)? {
            let left = all.entry((who.ad, country)).or_default();
            ensure(*left > 0, Invariant::LakeEqualsLog, || format!("epoch {number} stages {who:?} and counts it not"))?;
            *left -= 1;
            ensure(self.counted.insert(who.clone()), Invariant::NoDoubleCount, || {
                format!("epoch {number} counts {who:?} again")
            })?;
            clicks += 1;
        }
        Ok(clicks)
    }

    fn absorb_letters(&mut self, epoch: &Epoch, text: &str, scenario: &Scenario, servers: &Servers) -> Verdict<u64> {
        let mut letters = 0;
        for letter in text.lines() {
            let verdict = letter.split(' ').next().unwrap_or_default();
            let Some((number, line)) = number_in(letter).and_then(|number| Some((number, servers.lines.get(number)?)))
            else {
                return broken(Invariant::Conservation, format!("nobody wrote the dead letter {letter:?}"));
            };
            let at_ms = match &line.content {
                Content::Click(click) => Some(click.who.at_ms),
                Content::Malformed | Content::Invalid => None,
            };
            let is_right = match (verdict, &line.content, at_ms) {
                ("malformed", Content::Malformed, _) | ("invalid", Content::Invalid, _) => true,
                _ if line.partition != self.partition => false,
                ("late", _, Some(at_ms)) => may_be_late(epoch, at_ms, scenario),
                // The clock may have been set back.
                ("future", _, Some(at_ms)) => at_ms > line.written_ms || scenario.clock_jumps > 0,
                _ => false,
            };
            ensure(is_right, Invariant::Conservation, || {
                format!("epoch {} has {verdict} for line {number}: {:?}", epoch.progress.number, line.content)
            })?;
            self.letters.entry(number).or_default().push(verdict.to_owned());
            letters += 1;
        }
        Ok(letters)
    }

    /// Whether a record is a claim, by which a process took over.
    pub(crate) fn is_claim(&self, number: EpochNumber) -> bool {
        self.records.get(number as usize - 1).is_some_and(|known| known.is_claim)
    }

    /// The writer of the newest record on a disk, known or not.
    pub(crate) fn newest_writer(&self, disk: &Disk) -> Option<u128> {
        let bytes = (self.head()..).map_while(|number| disk.read(&self.path_of(number.max(1))).ok()).last()?;
        codec::decode(bytes).ok().map(|(epoch, _)| epoch.writer)
    }

    /// The writer of the newest known record.
    pub(crate) fn writer(&self) -> Option<u128> {
        self.records.last().map(|known| known.writer)
    }
}

/// The text of a staged file.
fn text_of(tables: &SharedTables, file: &StagedFile) -> Verdict<String> {
    match tables.file(&file.path) {
        Some(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        None => broken(Invariant::LakeEqualsLog, format!("{} is in a record and was never staged", file.path)),
    }
}

/// A minute as readers see it: the hot counts if complete, else the lake plus the epochs that it does not contain yet.
fn shown(snapshot: &Snapshot, minute: Minute, tables: &SharedTables) -> Rows {
    let partition = snapshot.progress.partition;
    if snapshot.complete_from.is_none_or(|from| minute >= from) {
        return rows_of(snapshot.minute_counts(minute).as_ref());
    }
    let mut rows = rows_of(tables.counts(partition, snapshot.lake_epoch).get(&minute));
    let pending = snapshot.pending.iter().flat_map(|pending| pending.counts.iter());
    pending.filter(|counts| counts.minute == minute).for_each(|counts| add_rows(&mut rows, counts));
    rows
}

/// Whether a line could be late in an epoch: its minute is final by the epoch's end, or was for an input.
fn may_be_late(epoch: &Epoch, at_ms: i64, scenario: &Scenario) -> bool {
    let end_ms = Minute::of(at_ms).end_ms();
    let time = &scenario.settings.time;
    let for_input = |row: &Arc<InputRow>| {
        let watermark = row.time.largest_ms.map(|largest| largest - time.out_of_orderness_ms);
        watermark.is_some_and(|watermark| end_ms + time.allowed_lateness_ms <= watermark)
    };
    epoch.progress.frontiers.final_.reached(end_ms) || epoch.inputs.iter().any(for_input)
}

/// Final minutes must follow from the lines written, or from the clock while all inputs were quiet.
fn check_final(epoch: &Epoch, scenario: &Scenario, servers: &Servers) -> Verdict {
    let Some(final_ms) = epoch.progress.frontiers.final_.get() else { return Ok(()) };
    let time = &scenario.settings.time;
    let Some(largest_ms) = servers.largest_ms else {
        return broken(
            Invariant::FinalIsFinal,
            format!("epoch {} makes minutes final before any line", epoch.progress.number),
        );
    };
    ensure(final_ms <= Minute::of(largest_ms).end_ms(), Invariant::FinalIsFinal, || {
        format!("epoch {} makes final up to {final_ms}, the newest line is of {largest_ms}", epoch.progress.number)
    })?;
    let by_lines = final_ms <= largest_ms - time.out_of_orderness_ms - time.allowed_lateness_ms;
    // Only for a single log that never began anew is it certain when its time stopped.
    let is_known = scenario.servers == 1 && scenario.rotations == 0 && scenario.clock_jumps == 0;
    if by_lines || !is_known {
        return Ok(());
    }
    // Lines written within the idle timeout may not have been seen yet.
    let quiet = epoch.progress.clock_ms - time.idle_finality_ms..epoch.progress.clock_ms - time.idle_timeout_ms - 5_000;
    ensure(!servers.advanced_ms.iter().any(|at| quiet.contains(at)), Invariant::FinalIsFinal, || {
        format!("epoch {} lets the clock make minutes final while the log goes on", epoch.progress.number)
    })
}
