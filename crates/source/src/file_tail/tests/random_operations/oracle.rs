//! What must have been read or reported once everything is settled.

use super::content::{self, Line};
use super::disk::Disk;
use super::process::Process;
use super::writers::{HEADER, Log};
use super::{Dice, Sight};
use std::collections::BTreeSet;

/// Lets writers finish and the tailer read everything, then checks the result.
pub(super) fn judge(
    disk: &Disk,
    sight: Sight,
    process: &mut Process,
    logs: &mut [Log],
    story: &mut Vec<String>,
) -> Result<(), String> {
    let mut dice = Dice(1);
    logs.iter_mut().for_each(|log| log.finish_compressing(&mut disk.state(), sight));
    if process.tailer.is_none() {
        process.start(false, &mut dice)?;
    }
    if process.tailer.is_none() {
        // A named file is missing: nothing can be read.
        return Ok(());
    }
    settle(process, &mut dice)?;
    let outcome = judge_lines(disk, sight, process).and_then(|()| {
        judge_gaps(disk, process)?;
        // Lines that only compressed copies of live files contain are read after the live files are gone.
        let plain: Vec<String> = {
            let state = disk.state();
            let names = state.names.keys().filter(|name| !name.ends_with(".gz") && !name.ends_with(".zst"));
            names.cloned().collect()
        };
        if disk.state().names.len() > plain.len() {
            plain.iter().for_each(|name| disk.state().remove(name));
            settle(process, &mut dice)?;
            judge_lines(disk, sight, process)?;
        }
        Ok(())
    });
    story.extend(process.in_words());
    story.extend(process.told.iter().map(|(step, told)| format!("told at {step}: {told}")));
    let state = disk.state();
    story.extend(state.names.keys().map(|name| format!("{name}: {} bytes", state.bytes(name).map_or(0, <[u8]>::len))));
    outcome
}

fn settle(process: &mut Process, dice: &mut Dice) -> Result<(), String> {
    for pause_ms in [0, 1_000, 1_000, 1_000, 70_000, 3_000, 3_000, 70_000, 3_000, 1_000] {
        process.pass(pause_ms);
        process.look()?;
        process.commit(dice, false)?;
        process.read_all()?;
        process.commit(dice, false)?;
    }
    Ok(())
}

/// Each line is read, or its loss was reported, or the tailer could not know of it.
fn judge_lines(disk: &Disk, sight: Sight, process: &Process) -> Result<(), String> {
    let state = disk.state();
    let (mut seen, mut unseen) = (BTreeSet::new(), BTreeSet::new());
    for name in state.names.keys() {
        let node = state.find(name).map(|node| &state.nodes[&node]);
        let Some(node) = node else { continue };
        let text = content::text(&node.bytes);
        let lines = content::pieces(&text).filter(|piece| piece.ends).map(|piece| Line::of(piece.text));
        if sight.sees(name) {
            if !is_shadowed(&text, &node.bytes, &state, sight) {
                seen.extend(lines);
            }
        } else if node.known {
            unseen.extend(lines);
        }
    }
    for (line, fate) in state.lines.iter().filter(|(line, fate)| fate.in_sight && !state.read.contains(*line)) {
        // Unread text of a file that left sight is reported as a gap before the file is removed.
        let told = || process.told.iter().any(|(step, told)| *step >= fate.gone_at || told.starts_with("gap"));
        if line.0 == HEADER {
            continue;
        }
        if seen.contains(line) {
            return Err(format!("{line:?} stands in a file and was not read"));
        }
        if unseen.contains(line) && !told() {
            return Err(format!("{line:?} stands in a rotated file, was not read, and nothing is told"));
        }
        if fate.seen_by.is_some() && fate.seen_by == state.run && !told() {
            return Err(format!("{line:?} was seen, went away unread in step {}, and nothing is told", fate.gone_at));
        }
    }
    Ok(())
}

/// Whether a compressed file's text begins like a live file's: it is not opened while the live file exists.
fn is_shadowed(text: &[u8], bytes: &[u8], state: &super::disk::State, sight: Sight) -> bool {
    let head = &text[..text.len().min(1024)];
    let is_compressed = text != bytes;
    is_compressed
        && state.names.keys().filter(|name| sight.sees(name)).any(|name| {
            let other = state.bytes(name).unwrap_or_default();
            other.starts_with(head) && !head.is_empty()
        })
}

/// A gap is reported only if something was lost.
fn judge_gaps(disk: &Disk, process: &Process) -> Result<(), String> {
    let state = disk.state();
    // Unread text of a file that has left sight is given up with the file.
    let given_up: usize = state
        .nodes
        .values()
        .map(|node| {
            let text = content::text(&node.bytes);
            let unread =
                content::pieces(&text).filter(|piece| !(piece.ends && state.read.contains(&Line::of(piece.text))));
            unread.map(|piece| piece.text.len() + 1).sum::<usize>()
        })
        .sum();
    if process.gap_bytes > given_up as u64 && !state.destroyed {
        return Err(format!("a gap of {} bytes is told and nothing is missing", process.gap_bytes));
    }
    Ok(())
}
