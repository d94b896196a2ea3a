//! Servers that write and rotate click logs, and the list of all lines written.

use crate::files::{FOLDER, FileHandle, Files};
use crate::random::Random;
use crate::scenario::Scenario;
use crate::topics::Topics;
use std::path::PathBuf;

const COUNTRIES: [&str; 5] = ["US", "DE", "JP", "BR", "ZZ"];

/// Recent clicks that may be copied.
const RECENT: usize = 12;

/// After this many clicks, the first sixteen of a log are certainly read.
const BELIEVED: usize = 40;

/// The identity of a click, exactly as in the contract.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Who {
    pub(crate) at_ms: i64,
    pub(crate) ad: u64,
    /// The click id if there is one, else user and address.
    pub(crate) id: String,
}

/// A click as a server logs it.
#[derive(Clone, Debug)]
pub(crate) struct Click {
    pub(crate) who: Who,
    pub(crate) country: &'static str,
    pub(crate) user: String,
    pub(crate) ip: String,
    pub(crate) click_id: String,
}

/// The content of a line.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    Click(Click),
    Malformed,
    Invalid,
}

/// A written line. Its number, which is its index in the list, is part of its text.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) content: Content,
    /// When its last byte was written.
    pub(crate) written_ms: i64,
    /// Whether the line is completely written.
    pub(crate) is_whole: bool,
    /// The place where it was written, for people.
    pub(crate) at: String,
    /// Whether its file was deleted before it was certainly read.
    pub(crate) may_be_lost: bool,
    /// The partition of the line.
    pub(crate) partition: u32,
}

/// A server and its current log.
struct Server {
    path: PathBuf,
    file: Option<FileHandle>,
    next_ms: i64,
    /// Lines in its current file.
    lines: Vec<usize>,
    /// The unwritten rest of a line.
    rest: Option<(usize, String)>,
    /// Whether to continue in a new file once the current line is complete.
    rotated: bool,
    rotations: usize,
    recent: Vec<Click>,
}

/// All servers, their lines, and their changes to files.
pub(crate) struct Servers {
    random: Random,
    /// The destination of lines, instead of files.
    topics: Option<Topics>,
    servers: Vec<Server>,
    pub(crate) lines: Vec<Line>,
    /// All distinct clicks.
    clicks: Vec<Click>,
    /// Rotated files to delete once they are read.
    pub(crate) rotated: Vec<(PathBuf, FileHandle)>,
    /// Lines left to write.
    left: usize,
    /// Files that were copied and truncated: their lines may be read twice.
    pub(crate) copied: bool,
    /// The largest event time written, not counting future lines.
    pub(crate) largest_ms: Option<i64>,
    /// The times when it grew, by more than enough lines for the event time to be believed.
    pub(crate) advanced_ms: Vec<i64>,
}

impl Servers {
    pub(crate) fn new(scenario: &Scenario, topics: Option<Topics>, mut random: Random, now_ms: i64) -> Servers {
        let servers = (0..scenario.servers).map(|number| Server {
            path: PathBuf::from(format!("{FOLDER}/server-{number}.log")),
            file: None,
            next_ms: now_ms + random.between(0, 2 * scenario.line_every_ms),
            rest: None,
            lines: Vec::new(),
            rotated: false,
            rotations: 0,
            recent: Vec::new(),
        });
        let servers = servers.collect();
        Servers {
            random,
            topics,
            servers,
            lines: Vec::new(),
            clicks: Vec::new(),
            rotated: Vec::new(),
            left: scenario.lines,
            copied: false,
            largest_ms: None,
            advanced_ms: Vec::new(),
        }
    }

    /// Whether everything is written.
    pub(crate) fn are_done(&self) -> bool {
        self.left == 0 && self.servers.iter().all(|server| server.rest.is_none())
    }

    /// The click of a line, if it has one.
    pub(crate) fn click(&self, number: usize) -> Option<&Click> {
        match &self.lines.get(number)?.content {
            Content::Click(click) => Some(click),
            Content::Malformed | Content::Invalid => None,
        }
    }

    /// The numbers of the lines that were completely written before a time.
    pub(crate) fn written_before(&self, at_ms: i64) -> Vec<usize> {
        let is_written = |line: &Line| line.is_whole && line.written_ms < at_ms;
        self.lines.iter().enumerate().filter_map(|(number, line)| is_written(line).then_some(number)).collect()
    }

    /// Writes lines and rotates files that are due.
    pub(crate) fn act(&mut self, scenario: &Scenario, files: &Files, now_ms: i64) {
        for at in 0..self.servers.len() {
            while self.servers[at].next_ms <= now_ms && (self.left > 0 || self.servers[at].rest.is_some()) {
                let written_ms = self.servers[at].next_ms;
                self.act_once(at, scenario, files, written_ms);
                let pause_ms = self.random.between(1, 2 * scenario.line_every_ms);
                // Some servers are silent for a while.
                let silence_ms = if self.random.chance(5) { self.random.between(0, 240_000) } else { 0 };
                self.servers[at].next_ms += pause_ms + silence_ms;
            }
        }
    }

    /// Delays all writes for a while.
    pub(crate) fn rest(&mut self, ms: i64) {
        for server in &mut self.servers {
            server.next_ms += ms;
        }
    }

    fn act_once(&mut self, at: usize, scenario: &Scenario, files: &Files, now_ms: i64) {
        if let Some((number, rest)) = self.servers[at].rest.take() {
            self.append(at, files, &rest);
            (self.lines[number].written_ms, self.lines[number].is_whole) = (now_ms, true);
        } else if self.servers[at].file.is_some() && !self.servers[at].rotated && self.random.chance(scenario.rotations)
        {
            self.rotate(at, scenario, files);
            return;
        }
        if std::mem::take(&mut self.servers[at].rotated) {
            self.servers[at].file = None;
            self.servers[at].lines.clear();
        }
        if self.left == 0 {
            return;
        }
        self.left -= 1;
        let content = self.content(at, scenario, now_ms);
        let number = self.lines.len();
        let text = text_of(&content, number);
        if let Some(topics) = &self.topics {
            self.produce(&topics.clone(), at, content, &text, scenario, now_ms);
            return;
        }
        let server = &self.servers[at];
        let end = server.file.as_ref().map_or(0, FileHandle::len);
        let place = format!("{} {end}, after {} rotations", server.path.display(), server.rotations);
        self.lines.push(Line {
            content,
            written_ms: now_ms,
            is_whole: true,
            at: place,
            may_be_lost: false,
            partition: 0,
        });
        self.servers[at].lines.push(number);
        if self.random.chance(50) {
            let cut = 1 + self.random.below(text.len() as u64 - 1) as usize;
            self.append(at, files, &text[..cut]);
            self.lines[number].is_whole = false;
            self.servers[at].rest = Some((number, text[cut..].to_owned()));
        } else {
            self.append(at, files, &text);
        }
    }

    /// Produces a line through a server's agent: clicks to the partition of their ad, other lines to any partition.
    fn produce(&mut self, topics: &Topics, at: usize, content: Content, text: &str, scenario: &Scenario, now_ms: i64) {
        let number = self.lines.len();
        let (key, at_ms) = match &content {
            Content::Click(click) => (click.who.ad, Some(click.who.at_ms)),
            Content::Malformed | Content::Invalid => (number as u64, None),
        };
        let partition = (key % u64::from(topics.partitions())) as u32;
        let place = format!("server {at}, partition {partition}");
        self.lines.push(Line { content, written_ms: now_ms, is_whole: true, at: place, may_be_lost: false, partition });
        // The agent's clock is right.
        let accepted_ms = at_ms.filter(|&at_ms| at_ms <= now_ms + scenario.settings.time.max_future_skew_ms);
        topics.append(at as u64, partition, text, accepted_ms, &mut self.random);
    }

    fn append(&mut self, at: usize, files: &Files, text: &str) {
        let server = &mut self.servers[at];
        let file = server.file.get_or_insert_with(|| files.create(&server.path));
        files.append(file, text.as_bytes());
    }

    fn rotate(&mut self, at: usize, scenario: &Scenario, files: &Files) {
        let loses = scenario.deletes_unread && self.random.chance(300);
        let deletes = self.random.chance(300);
        let copies = scenario.copies_truncated && self.random.chance(500);
        let server = &mut self.servers[at];
        let Some(file) = server.file.clone() else { return };
        server.rotations += 1;
        let to = PathBuf::from(format!("{}.{}", server.path.display(), server.rotations));
        if copies {
            let copy = files.create(&to);
            files.append(&copy, &file.content());
            files.truncate(&file);
            self.copied = true;
            server.lines.clear();
            return;
        }
        files.rename(&server.path, &to);
        server.rotated = true;
        if loses {
            files.remove(&to);
            for &number in &server.lines {
                self.lines[number].may_be_lost = true;
            }
        } else if deletes {
            self.rotated.push((to, file));
        }
    }

    /// The content of a server's next line.
    fn content(&mut self, at: usize, scenario: &Scenario, now_ms: i64) -> Content {
        let random = &mut self.random;
        let lag_ms = random.between(0, 4_000);
        let late_ms = match random.chance(scenario.late) {
            true => random.between(0, 2 * scenario.settings.time.dedup_horizon_ms.max(60_000)),
            false => 0,
        };
        let own = self.servers[at].recent.last().cloned();
        let others = &self.servers[(at + 1) % self.servers.len()].recent;
        let copy = match random.below(20) {
            0 | 1 => own,
            2 => own.map(|click| Click { country: if click.country == "FR" { "IT" } else { "FR" }, ..click }),
            3..=5 => others.first().cloned(),
            6 if !self.clicks.is_empty() => Some(self.clicks[random.below(self.clicks.len() as u64) as usize].clone()),
            7 => return Content::Malformed,
            8 => return Content::Invalid,
            _ => None,
        };
        if let Some(copy) = copy {
            return Content::Click(copy);
        }
        let future_ms = if random.chance(10) { 3_600_000 } else { 0 };
        let click = new_click(random, self.clicks.len() as u64, now_ms - lag_ms - late_ms + future_ms);
        self.clicks.push(click.clone());
        if future_ms == 0 {
            if self.largest_ms < Some(click.who.at_ms) {
                self.largest_ms = Some(click.who.at_ms);
                if self.clicks.len() > BELIEVED {
                    self.advanced_ms.push(now_ms);
                }
            }
            let recent = &mut self.servers[at].recent;
            recent.push(click.clone());
            let from = recent.len().saturating_sub(RECENT);
            recent.drain(..from);
        }
        Content::Click(click)
    }
}

fn new_click(random: &mut Random, number: u64, at_ms: i64) -> Click {
    let ad = [1, 7, 42, i64::MAX as u64, 1_000_000 + random.below(3)][random.below(5) as usize];
    let user = format!("user-{}", random.below(50));
    let (ip, canonical) = match number % 2 {
        0 => {
            let low = number % 65_536;
            (format!("10.1.{}.{}", low / 256, low % 256), 0xffff_0a01_0000_u128 | u128::from(low))
        }
        _ => (format!("2001:db8::{number:x}"), 0x2001_0db8_u128 << 96 | u128::from(number)),
    };
    let click_id = if number.is_multiple_of(3) { format!("click-{number}") } else { String::new() };
    let id = if click_id.is_empty() { format!("{user} {canonical}") } else { click_id.clone() };
    Click { who: Who { at_ms, ad, id }, country: random.pick(&COUNTRIES), user, ip, click_id }
}

fn text_of(content: &Content, number: usize) -> String {
    match content {
        Content::Malformed => format!("{{\"n\":{number},\"click_timestamp\": 17672256, \"ad_id\"\n"),
        Content::Invalid => format!(
            "{{\"n\":{number},\"click_timestamp\":1767225600000,\"ad_id\":-1,\"user_id\":\"u\",\"ip\":\"1.2.3.4\"}}\n"
        ),
        Content::Click(click) => {
            let Click { who: Who { at_ms, ad, .. }, country, user, ip, click_id } = click;
            let click_id = if click_id.is_empty() { String::new() } else { format!(",\"click_id\":\"{click_id}\"") };
            format!(
                "{{\"n\":{number},\"click_timestamp\":{at_ms},\"ad_id\":{ad},\"user_id\":\"{user}\",\"ip\":\"{ip}\",\"country\":\"{country}\"{click_id}}}\n"
            )
        }
    }
}

/// The number in a line's text.
pub(crate) fn number_in(text: &str) -> Option<usize> {
    let rest = text.split_once("\"n\":")?.1;
    let digits = rest.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().ok()
}
