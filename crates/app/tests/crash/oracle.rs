//! Log files of a few servers, and their expected results, by independent code.

use std::collections::BTreeMap;
use std::fmt::Write;

/// Event time of the first line: 2026-01-01T00:00:00Z.
pub(crate) const BEGIN_MS: i64 = 1_767_225_600_000;

/// The time at which the logs are read: a day later.
pub(crate) const READ_AT_MS: i64 = BEGIN_MS + 86_400_000;

const MINUTE: i64 = 60_000;
const OUT_OF_ORDER: i64 = 5_000;
const LATENESS: i64 = 5 * MINUTE;
const JUMP: i64 = 10 * MINUTE;
const GUARD_LINES: usize = 16;

/// Two thirds of the logs' time: from here on no server's event time is ahead of another's.
const CAUGHT_UP: i64 = 26 * MINUTE * 2 / 3;

const COUNTRIES: [&str; 5] = ["US", "DE", "JP", "BR", "ZZ"];

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators").
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// A click as logged by a server. `who` makes it unique.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Click {
    at: i64,
    ad: u64,
    who: u64,
    country: &'static str,
}

/// The content of a line.
#[derive(Clone, Copy, Debug)]
enum Line {
    Click(Click),
    Malformed,
    Invalid,
    Future(Click),
}

/// One server's log.
type Log = Vec<Line>;

/// The logs of a few servers, each in the order of writing.
#[derive(Clone, Debug)]
pub(crate) struct Logs(Vec<Log>);

/// The expected results of the logs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Expected {
    /// Clicks by minute, ad and country.
    pub(crate) counts: BTreeMap<(i64, u64, String), u64>,
    /// Lines.
    pub(crate) read: u64,
    /// Clicks.
    pub(crate) counted: u64,
    /// Duplicates and late lines; which copy counts as which may depend on how inputs interleave.
    pub(crate) duplicate_or_late: u64,
    /// Lines ahead of the clock.
    pub(crate) future: u64,
    /// Lines that are not a JSON object.
    pub(crate) malformed: u64,
    /// Lines with an invalid field.
    pub(crate) invalid: u64,
    /// Duplicates with another country.
    pub(crate) conflicting: u64,
}

impl Logs {
    /// Three servers over 26 minutes, with `lines` lines each of every kind: copies within a log and across logs,
    /// copies that differ, lines that are out of order, late, ahead of the clock or broken. The third server lags
    /// behind and is silent for 11 minutes, so that its next 16 lines are beyond the guard of event time.
    pub(crate) fn generate(seed: u64, lines: usize) -> Logs {
        let mut random = Random(seed);
        let mut logs: Vec<Log> = vec![Vec::new(); 3];
        let mut recent: Vec<Vec<Click>> = vec![Vec::new(); 3];
        let mut who = 0;
        for tick in 0..lines {
            for server in 0..3 {
                let elapsed = 26 * MINUTE * tick as i64 / lines as i64;
                let elapsed = match server {
                    2 if elapsed < 13 * MINUTE => elapsed * 4 / 13,
                    2 if elapsed < CAUGHT_UP => 15 * MINUTE + (elapsed - 13 * MINUTE) * 7 / 13,
                    _ => elapsed,
                };
                who += 1;
                let fresh = Click {
                    at: BEGIN_MS + elapsed - random.below(4_000) as i64,
                    ad: [1, 7, 42, i64::MAX as u64, 1_000_000 + random.below(3)][random.below(5) as usize],
                    who,
                    country: COUNTRIES[random.below(5) as usize],
                };
                let line = line(&mut random, fresh, server, &recent);
                if let Line::Click(click) = line
                    && click.who == who
                    && click.at >= fresh.at
                {
                    recent[server].push(click);
                    let from = recent[server].len().saturating_sub(12);
                    recent[server].drain(..from);
                }
                logs[server].push(line);
            }
        }
        Logs(logs)
    }

    /// The first `lines` lines of each log.
    pub(crate) fn first(&self, lines: usize) -> Logs {
        Logs(self.0.iter().map(|log| log[..lines.min(log.len())].to_vec()).collect())
    }

    /// The text of each log.
    pub(crate) fn texts(&self) -> Vec<String> {
        self.0.iter().map(|log| log.iter().fold(String::new(), |text, line| text + &write_line(line))).collect()
    }

    /// The expected results, however the logs interleave: a click counts once if one of its lines was in time for its
    /// own log.
    pub(crate) fn expected(&self) -> Expected {
        let mut expected = Expected::default();
        let mut counted: BTreeMap<(i64, u64, u64), &str> = BTreeMap::new();
        for log in &self.0 {
            let mut time = LogTime::default();
            for line in log {
                expected.read += 1;
                match line {
                    Line::Malformed => expected.malformed += 1,
                    Line::Invalid => expected.invalid += 1,
                    Line::Future(_) => expected.future += 1,
                    Line::Click(click) => {
                        expected.duplicate_or_late += 1;
                        if !time.is_late(click.at) {
                            counted.entry((click.at, click.ad, click.who)).or_insert(click.country);
                        }
                        time.observe(click.at);
                    }
                }
            }
        }
        for click in self.0.iter().flatten() {
            if let Line::Click(click) = click
                && counted.get(&(click.at, click.ad, click.who)).is_some_and(|&country| country != click.country)
            {
                expected.conflicting += 1;
            }
        }
        expected.counted = counted.len() as u64;
        expected.duplicate_or_late -= expected.counted;
        for ((at, ad, _), country) in counted {
            *expected.counts.entry((at.div_euclid(MINUTE), ad, country.to_owned())).or_default() += 1;
        }
        expected
    }
}

/// The next line of a server, which is normally `fresh`.
fn line(random: &mut Random, fresh: Click, server: usize, recent: &[Vec<Click>]) -> Line {
    let own = recent[server].last().copied();
    let other = recent[(server + 1) % 3].first().copied();
    match (random.below(20), own, other) {
        (0 | 1, Some(own), _) => Line::Click(own),
        (2, Some(own), _) => Line::Click(Click { country: if own.country == "FR" { "IT" } else { "FR" }, ..own }),
        (3..=5, _, Some(other)) => Line::Click(other),
        (6, ..) => Line::Click(Click { at: fresh.at - 3 * MINUTE, ..fresh }),
        (7, ..) => Line::Click(Click { at: fresh.at - 12 * MINUTE, ..fresh }),
        (8, ..) => Line::Malformed,
        (9, ..) => Line::Invalid,
        (10, ..) if random.below(3) == 0 => Line::Future(Click { at: READ_AT_MS + 3_600_000, ..fresh }),
        _ => Line::Click(fresh),
    }
}

fn write_line(line: &Line) -> String {
    match line {
        Line::Malformed => "{\"click_timestamp\": 17672256, \"ad_id\"\n".to_owned(),
        Line::Invalid => {
            format!("{{\"click_timestamp\":{BEGIN_MS},\"ad_id\":-1,\"user_id\":\"u\",\"ip\":\"1.2.3.4\"}}\n")
        }
        Line::Click(click) | Line::Future(click) => {
            let Click { at, ad, who, country } = click;
            let mut text = format!("{{\"click_timestamp\":{at},\"ad_id\":{ad},\"user_id\":\"user-{who}\"");
            let ip = if who % 2 == 0 { format!("10.0.0.{}", who % 250) } else { format!("2001:db8::{:x}", who % 999) };
            let _ = write!(text, ",\"ip\":\"{ip}\",\"country\":\"{country}\"");
            if who % 3 == 0 {
                let _ = write!(text, ",\"click_id\":\"click-{who}\"");
            }
            text.push_str("}\n");
            text
        }
    }
}

/// The guarded event time of one log, implemented from the specification.
#[derive(Debug, Default)]
struct LogTime {
    largest: Option<i64>,
    beyond: Vec<i64>,
}

impl LogTime {
    fn is_late(&self, at: i64) -> bool {
        let end = (at.div_euclid(MINUTE) + 1) * MINUTE;
        self.largest.is_some_and(|largest| end + LATENESS <= largest - OUT_OF_ORDER)
    }

    fn observe(&mut self, at: i64) {
        match self.largest {
            Some(largest) if at <= largest + JUMP => {
                self.beyond.clear();
                self.largest = Some(largest.max(at));
            }
            _ => {
                self.beyond.push(at);
                if self.beyond.len() == GUARD_LINES {
                    self.largest = self.beyond.iter().min().copied();
                    self.beyond.clear();
                }
            }
        }
    }
}
