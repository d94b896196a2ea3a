//! What must be true of everything that was ever committed, by code of its own: the records of the log one by one, what
//! they stage, what the lake made of them, and what a client was told.

use crate::disk::Disk;
use crate::lake::SharedTables;
use crate::process::Process;
use crate::scenario::Scenario;
use crate::servers::{Content, Servers, Who, number_in};
use crate::store::ROOT;
use adtally_model::{
    Country, Epoch, EpochNumber, Frontiers, InputId, InputRow, InputStatus, Invariant, Ledger, Minute, MinuteCounts,
    MinuteState, PartitionState, StagedFile, StagedTable,
};
use adtally_pipeline::RunEnd;
use adtally_store::epoch_log::codec;
use adtally_store::hot_counts::{HotCounts, Snapshot};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What does not hold, in words.
pub(crate) type Verdict<T = ()> = Result<T, String>;

/// Clicks by ad and country.
type Rows = BTreeMap<(u64, Country), u64>;

/// Records that may be missing are at least so much older than the newest.
const KEPT: EpochNumber = 64;

/// What is remembered of a record.
struct Known {
    checksum: u128,
    writer: u128,
    is_claim: bool,
    oldest_needed: EpochNumber,
    counts: Vec<MinuteCounts>,
    ledger: Ledger,
}

/// What a client was told of a minute that was no longer open.
struct Told {
    is_final: bool,
    rows: Rows,
}

/// The judge.
#[derive(Default)]
pub(crate) struct Judge {
    records: Vec<Known>,
    frontiers: Frontiers,
    inputs: BTreeMap<InputId, Arc<InputRow>>,
    ledger: Ledger,
    counts: BTreeMap<Minute, Rows>,
    counted: BTreeSet<Who>,
    /// Verdicts of dead letters by the number of their line.
    letters: BTreeMap<usize, Vec<String>>,
    staged: BTreeSet<String>,
    /// Writers that make everything final at their end.
    final_runs: BTreeSet<u128>,
    told: BTreeMap<Minute, Told>,
}

/// A violation of the register.
fn broken<T>(invariant: Invariant, what: impl std::fmt::Display) -> Verdict<T> {
    Err(format!("{invariant}: {what}"))
}

fn ensure(holds: bool, invariant: Invariant, what: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { broken(invariant, what()) }
}

fn path_of(number: EpochNumber) -> String {
    format!("{ROOT}/epochs/00000/{number:020}.epoch")
}

fn add_rows(rows: &mut Rows, counts: &MinuteCounts) {
    for (ad, country, clicks) in counts.rows() {
        *rows.entry((ad, country)).or_default() += u64::from(clicks);
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
    /// The newest record that is known.
    pub(crate) fn head(&self) -> EpochNumber {
        self.records.len() as EpochNumber
    }

    /// Lines that were read, as committed.
    pub(crate) fn read(&self) -> u64 {
        self.ledger.read
    }

    /// Whether an input at a path was committed up to a length.
    pub(crate) fn is_read(&self, path: &str, len: u64) -> bool {
        self.inputs.values().any(|row| *row.name == *path && row.position.to == len)
    }

    /// Takes note of records that are new since the last time; all of them must be by one writer.
    pub(crate) fn absorb(
        &mut self,
        disk: &Disk,
        tables: &SharedTables,
        scenario: &Scenario,
        servers: &Servers,
    ) -> Verdict<Vec<u128>> {
        let mut writers = Vec::new();
        while let Ok(bytes) = disk.read(&path_of(self.head() + 1)) {
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
        ensure(epoch.number == number && epoch.predecessor == before, Invariant::LinearChain, || {
            format!("epoch {} does not follow epoch {}", epoch.number, number - 1)
        })?;
        ensure(epoch.frontiers.follows(&self.frontiers), Invariant::MonotoneFrontiers, || {
            format!("epoch {number} moves {:?} to {:?}", self.frontiers, epoch.frontiers)
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
        self.frontiers = epoch.frontiers;
        if epoch.frontiers.final_ > final_before && !self.final_runs.contains(&epoch.writer) {
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
        let (was, is) = (&self.ledger, &epoch.ledger);
        let rejected = |ledger: &Ledger| ledger.late + ledger.future + ledger.malformed + ledger.invalid;
        let booked = is.counted == was.counted + clicks && rejected(is) == rejected(was) + letters;
        ensure(booked && is.read == sum(is), Invariant::Conservation, || {
            format!("epoch {number} stages {clicks} clicks and {letters} letters and books {was:?} to {is:?}")
        })?;
        self.ledger = epoch.ledger;
        self.records.push(Known {
            checksum,
            writer: epoch.writer,
            is_claim: epoch.claim,
            oldest_needed: epoch.oldest_needed,
            counts: epoch.counts.clone(),
            ledger: epoch.ledger,
        });
        Ok(())
    }

    /// An input that has no watermark is never released, and holds that of the partition.
    fn check_holding(&self, epoch: &Epoch) -> Verdict {
        let holds = |row: &InputRow| row.status == InputStatus::Holding && row.time.largest_ms.is_none();
        for row in &epoch.inputs {
            ensure(
                row.status != InputStatus::Released || row.time.largest_ms.is_some(),
                Invariant::FinalIsFinal,
                || format!("epoch {} releases {}, which has no watermark", epoch.number, row.name),
            )?;
        }
        let now = |row: &Arc<InputRow>| epoch.inputs.iter().find(|now| now.id == row.id).unwrap_or(row).clone();
        let held = self.inputs.values().find(|row| holds(row) && holds(&now(row)));
        let moved = epoch.frontiers.watermark > self.frontiers.watermark;
        ensure(held.is_none() || !moved, Invariant::FinalIsFinal, || {
            format!("epoch {} moves the watermark although {held:?} has none", epoch.number)
        })
    }

    fn absorb_inputs(&mut self, epoch: &Epoch) -> Verdict {
        for row in &epoch.inputs {
            let known = self.inputs.get(&row.id).map_or(0, |known| known.position.to);
            ensure(row.position.from == known && row.position.to >= known, Invariant::ContiguousPositions, || {
                format!("epoch {} reads {:?} of {}, which was read to {known}", epoch.number, row.position, row.name)
            })?;
            self.inputs.insert(row.id, row.clone());
        }
        let mut total = epoch.gone;
        for row in self.inputs.values() {
            total += &row.ledger;
        }
        ensure(total == epoch.ledger, Invariant::Conservation, || {
            format!("epoch {}: inputs and gone sum to {total:?}, not {:?}", epoch.number, epoch.ledger)
        })
    }

    fn absorb_clicks(&mut self, number: EpochNumber, all: &mut Rows, text: &str) -> Verdict<u64> {
        let mut clicks = 0;
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [at, ad, user, ip, country, click_id] = words.as_slice() else {
                return Err(format!("the model's file of clicks holds {line:?}"));
            };
            let id = if click_id.is_empty() { format!("{user} {ip}") } else { (*click_id).to_owned() };
            let ad = ad.parse().unwrap_or_default();
            let who = Who { at_ms: at.parse().unwrap_or_default(), ad, id };
            let left = all.entry((ad, Country::parse(country.as_bytes()))).or_default();
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
                ("late", _, Some(at_ms)) => may_be_late(epoch, at_ms, scenario),
                // The clock may have been set back.
                ("future", _, Some(at_ms)) => at_ms > line.written_ms || scenario.clock_jumps > 0,
                _ => false,
            };
            ensure(is_right, Invariant::Conservation, || {
                format!("epoch {} has {verdict} for line {number}: {:?}", epoch.number, line.content)
            })?;
            self.letters.entry(number).or_default().push(verdict.to_owned());
            letters += 1;
        }
        Ok(letters)
    }

    /// A process that makes everything final at its end.
    pub(crate) fn note_final_run(&mut self, writer: u128) {
        self.final_runs.insert(writer);
    }

    /// A bounded run has ended: every minute with a click is closed; where all could be read, what stood there when it began
    /// is read, and final if it was to be; else nothing more is final.
    pub(crate) fn check_bounded(&self, process: &Process, servers: &Servers) -> Verdict {
        let (run_end, began_ms, is_whole) = (process.run_end, process.began_ms, process.unread().is_empty());
        let newest_end = self.counts.keys().next_back().map_or(0, |newest| newest.end_ms());
        let became_final = self.frontiers.final_.reached(newest_end) && !process.final_before.reached(newest_end);
        ensure(is_whole || !became_final, Invariant::FinalIsFinal, || {
            format!("all is final, although {:?} could not be read", process.unread())
        })?;
        for minute in self.counts.keys() {
            ensure(self.frontiers.closed.reached(minute.end_ms()), Invariant::FinalIsFinal, || {
                format!("minute {} has a counted click and is not closed by a bounded run", minute.0)
            })?;
            let is_final = self.frontiers.final_.reached(minute.end_ms());
            ensure(is_final || !is_whole || run_end != RunEnd::Finalise, Invariant::FinalIsFinal, || {
                format!("minute {} has a counted click and is not final", minute.0)
            })?;
        }
        if !is_whole || servers.copied {
            return Ok(());
        }
        for (number, line) in
            servers.lines.iter().enumerate().filter(|(_, line)| line.is_whole && line.written_ms < began_ms)
        {
            let is_counted = matches!(&line.content, Content::Click(click) if self.counted.contains(&click.who));
            let is_known = is_counted || self.letters.contains_key(&number) || line.may_be_lost;
            ensure(is_known, Invariant::Conservation, || {
                format!("line {number} at {} was not read by a bounded run, which did not say so", line.at)
            })?;
        }
        Ok(())
    }

    /// What was acknowledged is still there, as it was, unless nobody needs it.
    pub(crate) fn check_kept(&self, disk: &Disk) -> Verdict {
        let oldest_needed = self.records.last().map_or(1, |known| known.oldest_needed);
        for (at, known) in self.records.iter().enumerate() {
            let number = at as EpochNumber + 1;
            let superfluous = number > 1 && number < oldest_needed && number + KEPT <= self.head();
            match disk.read(&path_of(number)) {
                Ok(bytes) => {
                    // Where one was deleted, a late writer may create another, which nobody reads.
                    let same = bytes.ends_with(&known.checksum.to_le_bytes());
                    ensure(same || superfluous, Invariant::LinearChain, || {
                        format!("record {number} is not what it was")
                    })?;
                }
                Err(_) => ensure(superfluous, Invariant::LinearChain, || format!("record {number} is gone"))?,
            }
        }
        Ok(())
    }

    /// The state that the log folds to is what its records add up to.
    pub(crate) fn check_fold(&self, state: &PartitionState) -> Verdict {
        let head = self.records.last().map_or(0, |known| known.checksum);
        ensure(state.number == self.head() && state.checksum == head, Invariant::LinearChain, || {
            format!("the fold ends at epoch {}, the log at {}", state.number, self.head())
        })?;
        ensure(
            state.ledger == self.ledger && state.inputs.len() == self.inputs.len(),
            Invariant::Conservation,
            || format!("the fold has {:?} of {} inputs, the log {:?}", state.ledger, state.inputs.len(), self.ledger),
        )?;
        for (&minute, rows) in self.counts.iter().filter(|(minute, _)| self.frontiers.is_live(**minute)) {
            let folded = state.live.get(&minute);
            let mut found = Rows::new();
            folded.iter().flat_map(|folded| &folded.counts).for_each(|counts| add_rows(&mut found, counts));
            ensure(found == *rows, Invariant::Conservation, || {
                format!("the fold has {found:?} in minute {}, the log {rows:?}", minute.0)
            })?;
            let clicks: u64 = rows.values().sum();
            let identities = folded.map_or(0, |folded| folded.identities.len() as u64);
            ensure(identities == clicks, Invariant::NoDoubleCount, || {
                format!("the fold has {identities} identities of {clicks} clicks in minute {}", minute.0)
            })?;
        }
        Ok(())
    }

    /// The lake holds exactly what the records up to its epoch say.
    pub(crate) fn check_lake(&self, tables: &SharedTables) -> Verdict {
        let held = tables.held_by_all();
        ensure(held <= self.head(), Invariant::LakeEqualsLog, || {
            format!("the lake holds epoch {held}, the log ends at {}", self.head())
        })?;
        let mut expected: BTreeMap<Minute, Rows> = BTreeMap::new();
        for counts in self.records.iter().take(held as usize).flat_map(|known| &known.counts) {
            add_rows(expected.entry(counts.minute).or_default(), counts);
        }
        if let Some(violation) = tables.violation() {
            return Err(violation);
        }
        let (rows, held_clicks) = tables.click_rows();
        let counted = self.records.iter().take(held_clicks as usize).flat_map(|known| &known.counts);
        let counted: u64 = counted.map(MinuteCounts::total).sum();
        ensure(rows == counted, Invariant::LakeEqualsLog, || {
            format!("the table of clicks has {rows} rows at epoch {held_clicks}, of {counted} clicks")
        })?;
        let lake = tables.counts(held);
        let found: BTreeMap<Minute, Rows> =
            lake.iter().map(|(&minute, counts)| (minute, rows_of(Some(counts)))).collect();
        ensure(found == expected, Invariant::LakeEqualsLog, || {
            format!("the lake at epoch {held} has {found:?}, the log {expected:?}")
        })?;
        if let Some((epoch, ledger)) = tables.ledger().filter(|&(epoch, _)| epoch <= self.head()) {
            let known = self.records.get(epoch as usize - 1).map(|known| known.ledger);
            ensure(known == Some(ledger), Invariant::LakeEqualsLog, || {
                format!("the ledger of epoch {epoch} is {ledger:?} in the lake and {known:?} in the log")
            })?;
        }
        Ok(())
    }

    /// Every file that a record names is there.
    pub(crate) fn check_staged(&self, disk: &Disk, tables: &SharedTables) -> Verdict {
        for number in 1..=self.head() {
            let Ok(bytes) = disk.read(&path_of(number)) else { continue };
            let Ok((epoch, _)) = codec::decode(bytes) else { continue };
            for file in &epoch.staged {
                text_of(tables, file)?;
            }
        }
        Ok(())
    }

    /// What readers see now is what is committed, and none of it is less than what they were told before.
    pub(crate) fn check_told(&mut self, hot: &HotCounts, tables: &SharedTables) -> Verdict {
        let snapshot = hot.snapshot();
        ensure(snapshot.progress.epoch == self.head(), Invariant::LakeEqualsLog, || {
            format!("readers see epoch {}, the log ends at {}", snapshot.progress.epoch, self.head())
        })?;
        let mut seen = BTreeMap::new();
        for (&minute, rows) in &self.counts {
            let shown = shown(&snapshot, minute, tables);
            ensure(shown == *rows, Invariant::LakeEqualsLog, || {
                format!("readers see {shown:?} in minute {}, committed is {rows:?}", minute.0)
            })?;
            seen.insert(minute, shown);
        }
        for (minute, told) in &self.told {
            let now = seen.get(minute).unwrap_or(&told.rows);
            let less = told.rows.iter().any(|(key, &clicks)| now.get(key).copied().unwrap_or_default() < clicks);
            ensure(!less && seen.contains_key(minute), Invariant::Conservation, || {
                format!("minute {} was told to have {:?}, now it has {now:?}", minute.0, told.rows)
            })?;
            let is_final = snapshot.progress.state_of(*minute) == MinuteState::Final;
            ensure(!told.is_final || (is_final && *now == told.rows), Invariant::FinalIsFinal, || {
                format!("minute {} was final with {:?}, now it has {now:?}", minute.0, told.rows)
            })?;
        }
        for (minute, rows) in seen {
            let state = snapshot.progress.state_of(minute);
            if state != MinuteState::Open {
                self.told.insert(minute, Told { is_final: state == MinuteState::Final, rows });
            }
        }
        Ok(())
    }

    /// Everything was read: a click is counted exactly once if one of its lines was not late, and every other line is a
    /// dead letter.
    pub(crate) fn check_end(&self, servers: &Servers) -> Verdict {
        let lossy = servers.lines.iter().any(|line| line.may_be_lost);
        // Where logs are copied and truncated several times between two looks, what was read from a copy may be booked
        // as a gap of the original as well.
        let gaps = self.inputs.values().filter(|row| row.ledger.gap_bytes > 0);
        let gaps: Vec<_> = gaps.map(|row| (&row.name, row.position.to, row.size, row.ledger.gap_bytes)).collect();
        ensure(lossy || gaps.is_empty() || servers.copied, Invariant::Conservation, || {
            format!("gaps are booked, and nothing is missing: {gaps:?}")
        })?;
        let mut lines_of: BTreeMap<&Who, usize> = BTreeMap::new();
        for (number, line) in servers.lines.iter().enumerate() {
            let letters = self.letters.get(&number).map_or(0, Vec::len);
            let counted = match &line.content {
                Content::Click(click) => {
                    *lines_of.entry(&click.who).or_default() += 1;
                    self.counted.contains(&click.who)
                }
                Content::Malformed | Content::Invalid => false,
            };
            ensure(counted || letters > 0 || line.may_be_lost, Invariant::Conservation, || {
                let inputs = self.inputs.values().map(|row| format!("{} to {}", row.name, row.position.to));
                let inputs: Vec<String> = inputs.collect();
                format!("line {number} is lost: {:?}, at {}; read are {inputs:?}", line.content, line.at)
            })?;
            ensure(letters <= 1 || servers.copied, Invariant::Conservation, || {
                format!("line {number} has {letters} dead letters")
            })?;
        }
        let foreign = self.counted.iter().find(|who| !lines_of.contains_key(who));
        ensure(foreign.is_none(), Invariant::NoDoubleCount, || {
            format!("{foreign:?} is counted and was never written")
        })?;
        let written = servers.lines.len() as u64;
        let exact = if servers.copied { self.ledger.read >= written } else { self.ledger.read == written };
        ensure(exact || lossy, Invariant::Conservation, || {
            format!("{written} lines were written, {} read", self.ledger.read)
        })
    }

    /// Whether a record is one by which a process took over.
    pub(crate) fn is_claim(&self, number: EpochNumber) -> bool {
        self.records.get(number as usize - 1).is_some_and(|known| known.is_claim)
    }

    /// Who wrote the newest record.
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

/// What readers see of a minute: hot counts where they are complete, else the lake and what it does not hold yet.
fn shown(snapshot: &Snapshot, minute: Minute, tables: &SharedTables) -> Rows {
    if snapshot.complete_from.is_none_or(|from| minute >= from) {
        return rows_of(snapshot.minute_counts(minute).as_ref());
    }
    let mut rows = rows_of(tables.counts(snapshot.lake_epoch).get(&minute));
    let pending = snapshot.pending.iter().flat_map(|pending| pending.counts.iter());
    pending.filter(|counts| counts.minute == minute).for_each(|counts| add_rows(&mut rows, counts));
    rows
}

/// Whether a line could be late in an epoch: its minute is final by its end, or was for an input.
fn may_be_late(epoch: &Epoch, at_ms: i64, scenario: &Scenario) -> bool {
    let end_ms = Minute::of(at_ms).end_ms();
    let time = &scenario.time;
    let for_input = |row: &Arc<InputRow>| {
        let watermark = row.time.largest_ms.map(|largest| largest - time.out_of_orderness_ms);
        watermark.is_some_and(|watermark| end_ms + time.allowed_lateness_ms <= watermark)
    };
    epoch.frontiers.final_.reached(end_ms) || epoch.inputs.iter().any(for_input)
}

/// What is final was bound to be by what was written, or the clock made it so while all was quiet.
fn check_final(epoch: &Epoch, scenario: &Scenario, servers: &Servers) -> Verdict {
    let Some(final_ms) = epoch.frontiers.final_.get() else { return Ok(()) };
    let time = &scenario.time;
    let Some(largest_ms) = servers.largest_ms else {
        return broken(Invariant::FinalIsFinal, format!("epoch {} makes minutes final before any line", epoch.number));
    };
    ensure(final_ms <= Minute::of(largest_ms).end_ms(), Invariant::FinalIsFinal, || {
        format!("epoch {} makes final up to {final_ms}, the newest line is of {largest_ms}", epoch.number)
    })?;
    let by_lines = final_ms <= largest_ms - time.out_of_orderness_ms - time.allowed_lateness_ms;
    // Of a single log, never begun anew, it is known for sure when its time stood still.
    let is_known = scenario.servers == 1 && scenario.rotations == 0 && scenario.clock_jumps == 0;
    if by_lines || !is_known {
        return Ok(());
    }
    // What was written within the idle timeout may not have been seen yet.
    let quiet = epoch.clock_ms - time.idle_finality_ms..epoch.clock_ms - time.idle_timeout_ms - 5_000;
    ensure(!servers.advanced_ms.iter().any(|at| quiet.contains(at)), Invariant::FinalIsFinal, || {
        format!("epoch {} lets the clock make minutes final while the log goes on", epoch.number)
    })
}
