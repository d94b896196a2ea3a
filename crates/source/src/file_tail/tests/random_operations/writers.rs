//! Writers of logs, which also rotate, compress, copy and remove them.

use super::content;
use super::disk::{Disk, Entry, State};
use super::{Dice, Sight};
use crate::file_tail::tests::{gzip, zstandard};
use std::fmt::Write;

/// The number of rotated files that are kept of a log.
const KEPT: u64 = 3;

/// The header of CSV logs.
pub(super) const HEADER: &str = "click_timestamp,ad_id,user_id,ip";

/// How a writer places its text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// At the end of its file, wherever it is (`O_APPEND`).
    End,
    /// Where it stopped, whatever happened to its file meanwhile.
    Offset(usize),
}

/// One log and its writer.
pub(super) struct Log {
    pub(super) name: String,
    csv: bool,
    /// The file that it has open.
    node: Option<u64>,
    place: Place,
    /// The rest of an incomplete line.
    half: Option<String>,
    /// Number of lines begun.
    number: u64,
    /// A file that is being compressed: its compressed bytes to be written, and the names.
    compressing: Option<(Vec<u8>, String, String)>,
}

impl Log {
    pub(super) fn new(name: &str) -> Log {
        let csv = name.ends_with(".csv");
        Log { name: name.into(), csv, node: None, place: Place::End, half: None, number: 0, compressing: None }
    }

    fn line(&mut self, dice: &mut Dice) -> String {
        self.number += 1;
        let pad = "x".repeat(if dice.one_in(40) { 1500 } else { dice.below(30) as usize });
        let (name, number) = (&self.name, self.number);
        if self.csv {
            format!("{number},7,{name}-{number:06}{pad},198.51.100.7\n")
        } else {
            format!("{{\"line\":\"{name}-{number:06}\",\"pad\":\"{pad}\"}}\n")
        }
    }

    /// Opens its file, or creates it if it does not exist.
    fn open(&mut self, state: &mut State, sight: Sight) -> u64 {
        if let Some(node) = self.node {
            return node;
        }
        let node = match state.find(&self.name) {
            Some(node) => node,
            None => state.create(&self.name, Vec::new(), |name| sight.sees(name)),
        };
        state.hold(node);
        self.node = Some(node);
        if matches!(self.place, Place::Offset(_)) {
            self.place = Place::Offset(state.nodes[&node].bytes.len());
        }
        node
    }

    fn close(&mut self, state: &mut State) {
        if let Some(node) = self.node.take() {
            state.release(node);
        }
    }

    fn write(&mut self, state: &mut State, sight: Sight, text: &str) {
        let node = self.open(state, sight);
        let place = &mut self.place;
        let put = |bytes: &mut Vec<u8>| match place {
            Place::End => bytes.extend_from_slice(text.as_bytes()),
            Place::Offset(at) => {
                let end = *at + text.len();
                bytes.resize(bytes.len().max(end), 0);
                bytes[*at..end].copy_from_slice(text.as_bytes());
                *at = end;
            }
        };
        state.change(node, put, |name| sight.sees(name));
    }

    fn append(&mut self, state: &mut State, sight: Sight, dice: &mut Dice) {
        let mut text = self.half.take().unwrap_or_default();
        // A CSV writer writes its header once, when it creates its first file.
        if self.csv && self.number == 0 {
            writeln!(text, "{HEADER}").expect("a text");
        }
        let lines = if dice.one_in(6) { dice.below(80) } else { dice.below(6) };
        for _ in 0..=lines {
            let line = self.line(dice);
            text.push_str(&line);
        }
        if dice.one_in(4) {
            let line = self.line(dice);
            let cut = dice.below(line.len() as u64 - 1) as usize;
            text.push_str(&line[..cut]);
            self.half = Some(line[cut..].to_owned());
        }
        self.write(state, sight, &text);
    }

    /// The rotated file of this age, compressed or not.
    fn rotated(&self, state: &State, age: u64) -> Option<String> {
        let endings = ["", ".gz", ".zst"];
        let names = endings.iter().map(|ending| format!("{}.{age}{ending}", self.name));
        names.into_iter().find(|name| state.names.contains_key(name))
    }

    fn shift(&mut self, state: &mut State, sight: Sight) {
        self.finish_compressing(state, sight);
        if let Some(oldest) = self.rotated(state, KEPT) {
            state.remove(&oldest);
        }
        for age in (1..KEPT).rev() {
            if let Some(name) = self.rotated(state, age) {
                let to = name.replace(&format!(".{age}"), &format!(".{}", age + 1));
                state.rename(&name, &to, |name| sight.sees(name));
            }
        }
    }

    fn rotate(&mut self, state: &mut State, sight: Sight, dice: &mut Dice) {
        if !state.names.contains_key(&self.name) {
            return;
        }
        self.shift(state, sight);
        let rotated = format!("{}.1", self.name);
        state.rename(&self.name.clone(), &rotated, |name| sight.sees(name));
        if self.node.is_some() && dice.one_in(2) {
            // It continues for a moment with the file that it has open.
            self.append(state, sight, dice);
        }
        self.close(state);
        if self.half.is_some() && !dice.one_in(3) {
            self.half = None;
        }
        if !dice.one_in(3) {
            self.append(state, sight, dice);
        }
    }

    fn copytruncate(&mut self, state: &mut State, sight: Sight, dice: &mut Dice) {
        let Some(bytes) = state.bytes(&self.name).map(<[u8]>::to_vec) else { return };
        let node = state.find(&self.name).expect("a file");
        if !dice.one_in(4) {
            self.shift(state, sight);
            state.create(&format!("{}.1", self.name), bytes, |name| sight.sees(name));
        }
        state.change(node, Vec::clear, |name| sight.sees(name));
        if dice.one_in(2) {
            self.append(state, sight, dice);
        }
    }

    fn compress(&mut self, state: &mut State, sight: Sight, dice: &mut Dice) {
        self.finish_compressing(state, sight);
        let age = 1 + dice.below(KEPT);
        let Some(name) = self.rotated(state, age).filter(|name| !name.ends_with(".gz") && !name.ends_with(".zst"))
        else {
            return;
        };
        let Some(text) = state.bytes(&name).map(<[u8]>::to_vec) else { return };
        let (bytes, ending) = if dice.one_in(2) { (gzip(&text), "gz") } else { (zstandard(&text), "zst") };
        let packed = format!("{name}.{ending}");
        let cut = if dice.one_in(3) { dice.below(bytes.len() as u64) as usize } else { bytes.len() };
        state.create(&packed, bytes[..cut].to_vec(), |name| sight.sees(name));
        self.compressing = Some((bytes[cut..].to_vec(), packed, name));
        if dice.one_in(2) {
            self.finish_compressing(state, sight);
        }
    }

    pub(super) fn finish_compressing(&mut self, state: &mut State, sight: Sight) {
        let Some((rest, packed, name)) = self.compressing.take() else { return };
        if let Some(node) = state.find(&packed) {
            state.change(node, |bytes| bytes.extend_from_slice(&rest), |name| sight.sees(name));
            state.remove(&name);
        }
    }

    /// Appends to a compressed file: more members, or plain text, which is unreadable there.
    fn append_compressed(&mut self, state: &mut State, sight: Sight, dice: &mut Dice) {
        self.finish_compressing(state, sight);
        let Some(name) = (1..=KEPT).find_map(|age| self.rotated(state, age)) else { return };
        let line = self.line(dice);
        let more = match name.rsplit('.').next() {
            _ if dice.one_in(12) => {
                // It is unreadable there.
                state.destroyed = true;
                line.into_bytes()
            }
            Some("gz") => gzip(line),
            Some("zst") => zstandard(line),
            _ => return,
        };
        if let Some(node) = state.find(&name) {
            state.change(node, |bytes| bytes.extend_from_slice(&more), |name| sight.sees(name));
        }
    }

    /// Replaces a compressed file by another one with the same first lines but different later ones.
    fn replace_compressed(&mut self, state: &mut State, sight: Sight, dice: &mut Dice) {
        let Some(name) = (1..=KEPT).find_map(|age| self.rotated(state, age)).filter(|name| name.ends_with(".gz"))
        else {
            return;
        };
        let old = content::text(state.bytes(&name).unwrap_or_default());
        let Some(same) = old.get(1_024..).and_then(|rest| rest.iter().position(|&byte| byte == b'\n')) else { return };
        let mut text = old[..1_024 + same + 1].to_vec();
        (0..20 + dice.below(40)).for_each(|_| text.extend_from_slice(self.line(dice).as_bytes()));
        state.create(&name, gzip(text), |name| sight.sees(name));
    }

    /// Creates a compressed log that is read in several blocks.
    pub(super) fn begin_compressed(&mut self, disk: &Disk, sight: Sight, dice: &mut Dice) {
        let mut state = disk.state();
        let state = &mut state;
        let mut text = String::new();
        (0..60 + dice.below(100)).for_each(|_| text.push_str(&self.line(dice)));
        if dice.one_in(4) {
            // As from a writer that kept its offset after a truncation.
            let at = text[..text.len() / 2].rfind('\n').map_or(0, |at| at + 1);
            text.insert_str(at, &"\0".repeat(1 + dice.below(20_000) as usize));
        }
        self.write(state, sight, &text);
        self.close(state);
        let (name, rotated) = (self.name.clone(), format!("{}.1.gz", self.name));
        state.create(&rotated, gzip(&text), |name| sight.sees(name));
        state.remove(&name);
    }

    /// Pads its file with NUL bytes, which it later replaces in place.
    fn preallocate(&mut self, state: &mut State, sight: Sight, dice: &mut Dice) {
        let node = self.open(state, sight);
        let len = state.nodes[&node].bytes.len();
        if self.place == Place::End {
            self.place = Place::Offset(len);
        }
        let more = 1 + dice.below(5_000) as usize;
        state.change(node, |bytes| bytes.resize(len + more, 0), |name| sight.sees(name));
    }

    fn trim(&mut self, state: &mut State, sight: Sight) {
        let (Some(node), Place::Offset(at)) = (self.node, self.place) else { return };
        state.change(node, |bytes| bytes.truncate(at), |name| sight.sees(name));
    }

    fn truncate(&mut self, state: &mut State, sight: Sight, dice: &mut Dice) {
        let Some(node) = state.find(&self.name) else { return };
        let len = dice.below(state.nodes[&node].bytes.len() as u64 + 1) as usize;
        state.change(node, |bytes| bytes.truncate(len), |name| sight.sees(name));
    }

    fn replace(&mut self, state: &mut State, sight: Sight, dice: &mut Dice) {
        self.close(state);
        let mut text = String::new();
        if self.csv {
            writeln!(text, "{HEADER}").expect("a text");
        }
        (0..=dice.below(20)).for_each(|_| text.push_str(&self.line(dice)));
        state.create(".new", text.into_bytes(), |name| sight.sees(name));
        state.rename(".new", &self.name.clone(), |name| sight.sees(name));
    }

    fn delete(&mut self, state: &mut State, dice: &mut Dice) {
        let name = match dice.below(3) {
            0 => Some(self.name.clone()),
            _ => self.rotated(state, 1 + dice.below(KEPT)),
        };
        if let Some(name) = name {
            if name == self.name && !dice.one_in(3) {
                self.close(state);
            }
            state.remove(&name);
        }
    }

    fn link(&mut self, state: &mut State, dice: &mut Dice) {
        let link = format!("link-{}", self.name);
        if state.names.contains_key(&link) {
            state.remove(&link);
        } else if dice.one_in(2) {
            state.point(&link, Entry::Link(self.name.clone()));
        } else if let Some(Entry::Node(node)) = state.names.get(&self.name) {
            state.point(&link, Entry::Node(*node));
        }
    }

    /// Performs a random action.
    pub(super) fn act(&mut self, disk: &Disk, sight: Sight, dice: &mut Dice) -> &'static str {
        let mut state = disk.state();
        let state = &mut state;
        // Recognition of a file is tested by replacing the file before the next start of the process.
        let is_stopped = state.compresses && state.run.is_none();
        let what = match dice.below(if state.compresses { 64 } else { 32 }) {
            _ if is_stopped && dice.one_in(2) => 58,
            what => what,
        };
        match what {
            40..=47 => {
                self.compress(state, sight, dice);
                self.finish_compressing(state, sight);
                "compress"
            }
            58..=63 => {
                self.replace_compressed(state, sight, dice);
                "replace a compressed file"
            }
            0..=11 => {
                self.append(state, sight, dice);
                "append"
            }
            12..=14 | 32..=39 => {
                self.rotate(state, sight, dice);
                "rotate"
            }
            15..=16 => {
                self.copytruncate(state, sight, dice);
                "copytruncate"
            }
            17..=19 => {
                self.compress(state, sight, dice);
                "compress"
            }
            20..=21 | 48..=57 => {
                self.append_compressed(state, sight, dice);
                "append to a compressed file"
            }
            22..=23 => {
                self.preallocate(state, sight, dice);
                "preallocate"
            }
            24 => {
                self.trim(state, sight);
                "trim"
            }
            25 => {
                self.truncate(state, sight, dice);
                "truncate"
            }
            26 => {
                self.replace(state, sight, dice);
                "replace"
            }
            27 => {
                self.delete(state, dice);
                "delete"
            }
            28 => {
                self.link(state, dice);
                "link"
            }
            29 => {
                self.close(state);
                "close"
            }
            _ => {
                self.finish_compressing(state, sight);
                "finish compressing"
            }
        }
    }
}
