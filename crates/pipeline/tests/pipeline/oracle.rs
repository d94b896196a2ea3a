//! Naive verdicts, exactly as in the contract.

use std::collections::{BTreeMap, HashMap, HashSet};

/// One line of a test input. Two lines with the same `who` and `at` are copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Event time in milliseconds.
    pub(crate) at: i64,
    /// Distinguishes clicks of the same millisecond.
    pub(crate) who: u32,
    /// One of a few ads.
    pub(crate) ad: u64,
    /// One of a few countries; not part of the identity.
    pub(crate) country: &'static str,
}

const OUT_OF_ORDER: i64 = 5_000;
const LATENESS: i64 = 300_000;
const HORIZON: i64 = 600_000;
const JUMP: i64 = 600_000;

/// The watermark before each line of one input, from all earlier lines.
pub(crate) fn watermarks(lines: &[Line]) -> Vec<Option<i64>> {
    let mut before = Vec::new();
    let mut largest: Option<i64> = None;
    let mut far: Vec<i64> = Vec::new();
    for line in lines {
        before.push(largest.map(|largest| largest - OUT_OF_ORDER));
        let is_far = match largest {
            None => true,
            Some(largest) => line.at > largest + JUMP,
        };
        if is_far {
            far.push(line.at);
            if far.len() == 16 {
                largest = far.iter().min().copied();
                far.clear();
            }
        } else {
            far.clear();
            largest = largest.max(Some(line.at));
        }
    }
    before
}

fn minute_end(at: i64) -> i64 {
    (at / 60_000 + 1) * 60_000
}

/// The verdict of each line of a single input: c(ounted), d(uplicate), l(ate).
pub(crate) fn single(lines: &[Line]) -> String {
    let mut held: HashMap<(i64, u32, u64), ()> = HashMap::new();
    let mut verdicts = String::new();
    for (line, watermark) in lines.iter().zip(watermarks(lines)) {
        let end = minute_end(line.at);
        let last_final = watermark.map(|watermark| watermark - LATENESS);
        let is_final = last_final.is_some_and(|last| end <= last);
        let is_forgotten = last_final.is_some_and(|last| end <= last - (HORIZON - LATENESS));
        let key = (line.at, line.who, line.ad);
        verdicts.push(if !is_forgotten && held.contains_key(&key) {
            'd'
        } else if is_final {
            'l'
        } else {
            held.insert(key, ());
            'c'
        });
    }
    verdicts
}

/// Clicks per (minute, ad) that several inputs must add up to, however they interleave. An identity counts once if any
/// of its lines was on time for its own input.
pub(crate) fn counts(inputs: &[Vec<Line>]) -> BTreeMap<(i64, u64), u64> {
    let mut counted = HashSet::new();
    let mut counts = BTreeMap::new();
    for lines in inputs {
        for (line, watermark) in lines.iter().zip(watermarks(lines)) {
            let late = watermark.is_some_and(|watermark| minute_end(line.at) + LATENESS <= watermark);
            if !late && counted.insert((line.at, line.who, line.ad)) {
                *counts.entry((line.at / 60_000, line.ad)).or_default() += 1;
            }
        }
    }
    counts
}
