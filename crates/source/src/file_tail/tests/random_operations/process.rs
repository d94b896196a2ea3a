//! The tailer and its committed state, as in the run loop, with epochs that end anywhere.

use super::content::{self, Line};
use super::disk::Disk;
use super::{Dice, Sight};
use crate::block::{Block, Format};
use crate::file_tail::tests::tail_settings;
use crate::file_tail::{Discovery, InputFacts, ReadOutcome, TailSettings, Tailer};
use adtally_model::{InputId, InputRow, InputStatus, Position};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// A process that may be running.
pub(super) struct Process {
    disk: Disk,
    sight: Sight,
    settings: TailSettings,
    pub(super) tailer: Option<Tailer>,
    bounded: bool,
    pub(super) now_ms: i64,
    runs: u32,
    next_input: u64,
    /// The rows of the process.
    rows: BTreeMap<InputId, InputRow>,
    /// The rows to repeat in the next epoch.
    touched: BTreeSet<InputId>,
    /// The rows of the epoch log.
    committed: BTreeMap<InputId, InputRow>,
    blocks: BTreeMap<InputId, VecDeque<Block>>,
    /// Inputs that the source has ended.
    done: BTreeSet<InputId>,
    discovered: Vec<Discovery>,
    /// Lines that were judged in this epoch.
    lines: BTreeSet<Line>,
    /// Gaps and warnings, each with the step in which it was reported.
    pub(super) told: Vec<(usize, String)>,
    /// Bytes in committed gaps.
    pub(super) gap_bytes: u64,
    /// Paths of logs whose header was read.
    headers: BTreeSet<String>,
}

impl Process {
    pub(super) fn new(disk: Disk, sight: Sight, dice: &mut Dice) -> Process {
        let open_max = if dice.one_in(3) { 2 } else { 512 };
        let block_bytes = 100 + dice.below(2_000) as usize;
        let settings = TailSettings { block_bytes, open_max, ..tail_settings() };
        Process {
            disk,
            sight,
            settings,
            tailer: None,
            bounded: false,
            now_ms: 1,
            runs: 0,
            next_input: 1,
            rows: BTreeMap::new(),
            touched: BTreeSet::new(),
            committed: BTreeMap::new(),
            blocks: BTreeMap::new(),
            done: BTreeSet::new(),
            discovered: Vec::new(),
            lines: BTreeSet::new(),
            told: Vec::new(),
            gap_bytes: 0,
            headers: BTreeSet::new(),
        }
    }

    pub(super) fn settings_in_words(&self) -> String {
        format!("{} bytes a block, {} files open", self.settings.block_bytes, self.settings.open_max)
    }

    /// Performs a random action.
    pub(super) fn act(&mut self, dice: &mut Dice) -> Result<String, String> {
        let what = match dice.below(20) {
            _ if self.tailer.is_none() && !dice.one_in(3) => return self.start(dice.one_in(4), dice),
            _ if self.tailer.is_none() => "stopped",
            0..=3 => {
                self.look()?;
                "look"
            }
            4..=8 => {
                let ids: Vec<InputId> = self.rows.keys().copied().collect();
                if !ids.is_empty() {
                    self.read(ids[dice.below(ids.len() as u64) as usize])?;
                }
                "read a block"
            }
            9..=13 => {
                self.look()?;
                self.read_all()?;
                "look and read all"
            }
            14..=15 => {
                self.commit(dice, true)?;
                "commit"
            }
            16 => {
                self.kill();
                "kill"
            }
            17 => {
                self.commit(dice, true)?;
                self.kill();
                "stop"
            }
            _ => "nothing",
        };
        let pause_ms = match dice.below(8) {
            0 => 70_000,
            1..=2 => 3_000,
            3..=4 => 0,
            _ => dice.below(500) as i64,
        };
        self.pass(pause_ms);
        Ok(what.into())
    }

    pub(super) fn pass(&mut self, ms: i64) {
        self.now_ms += ms;
        self.disk.state().now_ms = self.now_ms;
    }

    /// Starts from the committed state. A bounded run continues to its end at once.
    pub(super) fn start(&mut self, bounded: bool, dice: &mut Dice) -> Result<String, String> {
        self.runs += 1;
        let settings = TailSettings { bounded, ..self.settings.clone() };
        let rows = self.committed.values().cloned().map(Arc::new).collect();
        let disk = Box::new(self.disk.clone());
        match Tailer::new(disk, settings, &self.sight.patterns(), rows, self.next_input) {
            Ok(tailer) => self.tailer = Some(tailer),
            Err(_) => return Ok("cannot start".into()),
        }
        self.disk.state().run = Some(self.runs);
        self.rows = self.committed.clone();
        self.bounded = bounded;
        if bounded {
            self.run_to_end(dice)?;
        }
        Ok(if bounded { "bounded run" } else { "start" }.into())
    }

    fn run_to_end(&mut self, dice: &mut Dice) -> Result<(), String> {
        for _ in 0..100 {
            self.look()?;
            self.read_all()?;
            self.commit(dice, false)?;
            if self.rows.values().all(|row| row.status == InputStatus::Ended) {
                let found = self.tailer.as_mut().expect("a tailer").discover_all(self.now_ms).expect("a look");
                self.discovered.extend(found);
                self.apply();
                self.commit(dice, false)?;
                self.kill();
                return Ok(());
            }
            if dice.one_in(30) {
                self.kill();
                return Ok(());
            }
            self.pass(1_000);
        }
        Err("a bounded run does not end".into())
    }

    pub(super) fn look(&mut self) -> Result<(), String> {
        let Some(tailer) = &mut self.tailer else { return Ok(()) };
        let found = tailer.discover(self.now_ms).expect("a look");
        let step = self.disk.state().step;
        self.told.extend(tailer.new_warnings().into_iter().map(|warning| (step, warning)));
        self.discovered.extend(found);
        Ok(())
    }

    pub(super) fn read_all(&mut self) -> Result<(), String> {
        for id in self.rows.keys().copied().collect::<Vec<_>>() {
            for turn in 0.. {
                if turn > 10_000 {
                    return Err(format!("input {id} is busy for ever"));
                }
                if !self.read(id)? {
                    break;
                }
            }
        }
        Ok(())
    }

    fn read(&mut self, id: InputId) -> Result<bool, String> {
        let Some(tailer) = &mut self.tailer else { return Ok(false) };
        if self.done.contains(&id) || self.rows[&id].status == InputStatus::Ended {
            return Ok(false);
        }
        match tailer.read(id, self.now_ms).expect("an input") {
            ReadOutcome::Block(block) => {
                let before = self.blocks.entry(id).or_default();
                let from = before.back().map_or(self.rows[&id].position().to, |block| block.to);
                if block.from != from {
                    return Err(format!("input {id}: a block from {} follows position {from}", block.from));
                }
                before.push_back(block);
                Ok(true)
            }
            ReadOutcome::Busy => Ok(true),
            ReadOutcome::Ended => {
                self.done.insert(id);
                Ok(false)
            }
            ReadOutcome::AtEnd | ReadOutcome::Unreadable(_) | ReadOutcome::Waits => Ok(false),
        }
    }

    /// Ends an epoch, after judging all or only a part of the text that was read.
    pub(super) fn commit(&mut self, dice: &mut Dice, may_lag: bool) -> Result<(), String> {
        if self.tailer.is_none() {
            return Ok(());
        }
        // If files are compressed, an epoch ends within a block more often.
        let often = if self.disk.state().compresses { 1 } else { 3 };
        for id in self.blocks.keys().copied().collect::<Vec<_>>() {
            let lag = if may_lag && dice.one_in(often) { dice.below(3) as usize } else { 0 };
            while self.blocks[&id].len() > lag {
                let block = self.blocks.get_mut(&id).and_then(VecDeque::pop_front).expect("a block");
                self.judge(id, &block, block.to)?;
            }
            if may_lag && dice.one_in(often) && !self.blocks[&id].is_empty() {
                self.judge_part(id, dice)?;
            }
        }
        for id in std::mem::take(&mut self.done) {
            let resumes = |found: &Discovery| matches!(found, Discovery::Resumed { input } if *input == id);
            if self.discovered.iter().any(resumes) || self.blocks.get(&id).is_some_and(|blocks| !blocks.is_empty()) {
                self.done.insert(id);
            } else {
                self.discovered.push(Discovery::Ended { input: id });
            }
        }
        let tailer = self.tailer.as_mut().expect("a tailer");
        for id in std::mem::take(&mut self.touched) {
            let row = self.rows.get_mut(&id).expect("a row");
            if let Some(facts) = tailer.facts(id, row.position().to, None) {
                describe(row, &facts);
            }
            self.committed.insert(id, row.clone());
        }
        self.next_input = tailer.next_input();
        let mut state = self.disk.state();
        let run = state.run;
        for node in state.nodes.values_mut() {
            // Inputs discovered before the last epoch are in this one.
            node.known |= node.applied;
            // Files with only NUL bytes are not recognized again.
            node.applied |= node.opened == run && node.bytes.iter().any(|&byte| byte != 0);
        }
        state.read.append(&mut self.lines);
        drop(state);
        self.apply();
        Ok(())
    }

    /// Judges the first lines of a block.
    fn judge_part(&mut self, id: InputId, dice: &mut Dice) -> Result<(), String> {
        let blocks = self.blocks.get_mut(&id).expect("blocks");
        let block = blocks.front_mut().expect("a block");
        let ends: Vec<usize> = (1..block.text.len()).filter(|&at| block.text[at - 1] == b'\n').collect();
        if ends.is_empty() || block.overlong {
            return Ok(());
        }
        let cut = ends[dice.below(ends.len() as u64) as usize];
        let to = block.from + cut as u64;
        let rest = block.text.split_off(cut);
        let first = Block { text: std::mem::replace(&mut block.text, rest), nul_bytes: 0, ..block.clone() };
        block.from = to;
        self.tailer.as_mut().expect("a tailer").facts(id, to, Some(&first.text));
        self.judge(id, &Block { to, ..first }, to)
    }

    fn judge(&mut self, id: InputId, block: &Block, to: u64) -> Result<(), String> {
        let row = self.rows.get_mut(&id).expect("a row");
        row.file_mut().expect("a file").position = Position::at(to);
        self.touched.insert(id);
        let state = self.disk.state();
        if block.overlong {
            // The block contains only its first bytes.
            let is_begun = |line: &&Line| line.0.as_bytes().starts_with(&block.text);
            let lines: Vec<Line> = state.lines.keys().filter(is_begun).cloned().collect();
            self.lines.extend(lines);
            return Ok(());
        }
        let path = row.origin.split('#').next().unwrap_or_default().to_owned();
        let log = if row.origin.contains(".csv") { "csv" } else { "log" };
        for piece in content::pieces(&block.text) {
            if !state.pieces.contains(piece.text) {
                return Err(format!("input {id} read {:?}, which nobody wrote", String::from_utf8_lossy(piece.text)));
            }
            let is_header = piece.text == super::writers::HEADER.as_bytes();
            if is_header {
                self.headers.insert(path.clone());
            }
            let is_csv = matches!(&block.format, Format::Csv(header) if header.broken.is_none() && header.columns == 4);
            if log == "csv" && !is_csv {
                // Malformed: the ledger reports it.
                self.told.push((state.step, format!("malformed: {}", String::from_utf8_lossy(piece.text))));
                if self.headers.contains(&path) && is_whole_row(piece.text) {
                    return Err(format!(
                        "input {id} ({}) read a row without the header that is known: {:?}",
                        row.origin,
                        String::from_utf8_lossy(piece.text)
                    ));
                }
            }
            self.lines.insert(Line::of(piece.text));
        }
        Ok(())
    }

    /// Applies discoveries.
    fn apply(&mut self) {
        let step = self.disk.state().step;
        for discovery in std::mem::take(&mut self.discovered) {
            match discovery {
                Discovery::LostOffsets { .. } => panic!("a file has no offsets"),
                Discovery::Found { facts, position } => {
                    let mut row = InputRow::new(facts.input, facts.name.clone(), facts.generation);
                    describe(&mut row, &facts);
                    row.file_mut().expect("a file").position = Position::at(position);
                    self.touched.insert(row.id);
                    self.rows.insert(row.id, row);
                }
                Discovery::Continued { input } | Discovery::Resumed { input } => {
                    self.done.remove(&input);
                    let row = self.rows.get_mut(&input).expect("a row");
                    if row.status == InputStatus::Ended {
                        row.status = InputStatus::Holding;
                        self.touched.insert(input);
                    }
                }
                Discovery::Renamed { input, name } => {
                    self.rows.get_mut(&input).expect("a row").name = name;
                    self.touched.insert(input);
                }
                Discovery::Ended { input } => {
                    if self.blocks.get(&input).is_some_and(|blocks| !blocks.is_empty()) {
                        self.done.insert(input);
                    } else {
                        self.rows.get_mut(&input).expect("a row").status = InputStatus::Ended;
                        self.touched.insert(input);
                    }
                }
                Discovery::Gap { input, bytes, reason } => {
                    self.gap_bytes += bytes;
                    self.told.push((step, format!("gap of {bytes}: {reason}")));
                    self.tailer.as_mut().expect("a tailer").gap_booked(input);
                    self.touched.insert(input);
                }
            }
        }
    }

    /// Kills the process: everything uncommitted is forgotten.
    pub(super) fn kill(&mut self) {
        self.tailer = None;
        self.disk.state().run = None;
        self.disk.state().nodes.values_mut().for_each(|node| node.applied = false);
        self.rows.clear();
        self.lines.clear();
        self.blocks.clear();
        self.touched.clear();
        self.done.clear();
        self.discovered.clear();
    }

    /// The state of the inputs in words.
    pub(super) fn in_words(&self) -> Vec<String> {
        let word = |row: &InputRow| format!("{} {} ({:?}): {:?}", row.id, row.name, row.status, row.log);
        self.rows.values().map(word).collect()
    }
}

fn describe(row: &mut InputRow, facts: &InputFacts) {
    row.name.clone_from(&facts.name);
    let file = row.file_mut().expect("a file");
    file.fingerprint = facts.fingerprint;
    file.size = facts.size;
    file.compressed = facts.compressed;
    file.csv_header.clone_from(&facts.csv_header);
}

fn is_whole_row(text: &[u8]) -> bool {
    text.iter().filter(|&&byte| byte == b',').count() == 3 && text.ends_with(b",198.51.100.7")
}
