//! Packs lines into the records of the target, and numbers these.

use crate::agent::packing::{NOT_UTF8, gap_home, minute};
use crate::input::Told;
use crate::produce::Outgoing;
use crate::settings::AgentSettings;
use adtally_source::RoutedLine;
use adtally_source::kafka::record::INPUT_BYTES_MAX;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Bytes of lines and headers after which a transaction is committed: half of what waits in the client of Kafka.
const TRANSACTION_BYTES_MAX: usize = 32 << 20;

/// Bytes of a record's headers beside the name of the input, about.
const HEADERS_BYTES: usize = 96;

/// Lines of one input for one partition that wait for more.
#[derive(Debug, Default)]
struct Buffer {
    text: Vec<u8>,
    /// The ad of its only line; only if each line is a record of its own.
    key: Option<String>,
    /// The watermark before its first line.
    mark_ms: Option<i64>,
}

/// An input of the target: the records of one input in one source partition.
#[derive(Debug)]
pub(super) struct Input {
    /// Its name in records.
    name: Arc<str>,
    /// Its watermark, in milliseconds since the Unix epoch.
    pub(super) mark_ms: Option<i64>,
    csv_header: Option<Arc<[u8]>>,
    /// By target partition.
    buffers: BTreeMap<u32, Buffer>,
    /// By target partition.
    told: BTreeMap<u32, Told>,
    /// Whether it had a record since the last transaction.
    is_touched: bool,
    /// Bytes of the log that its agent could never read, and whether the partition that is told must be told.
    gap: (u64, bool),
    /// When it last had a record, in monotonic milliseconds.
    pub(super) seen_ms: i64,
}

impl Input {
    /// An input of records without a stamp, named by its partition.
    pub(super) fn unstamped(name: &Arc<str>) -> Input {
        Input::new(Arc::clone(name))
    }

    /// An input of an agent's records. The name gets the source partition as its end: the records of an input come through
    /// several partitions, which are not read in step, and the watermark of an input never goes back.
    pub(super) fn stamped(input: &str, partition: &str) -> Input {
        let whole = format!("{input}@{partition}");
        if whole.len() <= INPUT_BYTES_MAX {
            return Input::new(whole.into());
        }
        // The name must stay unique.
        let end = format!("~{:016x}@{partition}", hash(input.as_bytes()));
        let mut kept = INPUT_BYTES_MAX.saturating_sub(end.len()).min(input.len());
        while !input.is_char_boundary(kept) {
            kept -= 1;
        }
        Input::new(format!("{}{end}", input.get(..kept).unwrap_or_default()).into())
    }

    fn new(name: Arc<str>) -> Input {
        Input {
            name,
            mark_ms: None,
            csv_header: None,
            buffers: BTreeMap::new(),
            told: BTreeMap::new(),
            is_touched: false,
            gap: (0, false),
            seen_ms: 0,
        }
    }

    /// Adds bytes that its agent could never read.
    pub(super) fn add_gap(&mut self, bytes: u64) {
        (self.gap, self.is_touched) = ((self.gap.0 + bytes, true), true);
    }

    /// Raises the watermark. An agent that has started again may send lines again, with earlier watermarks.
    pub(super) fn raise(&mut self, mark_ms: Option<i64>) {
        self.mark_ms = self.mark_ms.max(mark_ms);
    }

    /// The number of target partitions that know it.
    pub(super) fn known_to(&self) -> usize {
        self.told.len()
    }

    /// Whether nothing of it waits, so that it can be forgotten.
    pub(super) fn is_at_rest(&self) -> bool {
        self.buffers.is_empty() && !self.is_touched
    }
}

/// 64-bit FNV-1a.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// Fills the records of a transaction.
#[derive(Debug)]
pub(super) struct Packer {
    settings: AgentSettings,
    line_bytes_max: usize,
    /// Those of the target.
    partitions: u32,
    /// Records in their order.
    pub(super) outbox: VecDeque<Outgoing>,
    /// Lines and headers since the last transaction, in bytes.
    bytes: usize,
    /// Lines since the last transaction.
    lines: u64,
}

impl Packer {
    /// A packer for a target with so many partitions. Lines longer than `line_bytes_max` bytes are malformed.
    pub(super) fn new(settings: AgentSettings, line_bytes_max: usize, partitions: u32) -> Packer {
        Packer { settings, line_bytes_max, partitions, outbox: VecDeque::new(), bytes: 0, lines: 0 }
    }

    /// Whether the transaction has enough.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= TRANSACTION_BYTES_MAX
    }

    /// The lines of the transaction, which is over.
    pub(super) fn take_lines(&mut self) -> u64 {
        self.bytes = 0;
        std::mem::take(&mut self.lines)
    }

    /// Begins a source record of an input.
    pub(super) fn begin(&mut self, input: &mut Input, csv_header: Option<&Arc<[u8]>>, now_ms: i64) {
        (input.is_touched, input.seen_ms) = (true, now_ms);
        if input.csv_header.as_ref() != csv_header {
            self.end_all(input);
            input.csv_header = csv_header.cloned();
        }
    }

    /// Adds a line, before which the input had this watermark. A record ends when the watermark passes the end of a minute, so
    /// that the verdicts are those by each line's own watermark.
    pub(super) fn add(&mut self, input: &mut Input, line: &RoutedLine<'_>, mark_ms: Option<i64>) {
        // Of a line that is too long, its end need not be known.
        let kept = line.text.get(..self.line_bytes_max).unwrap_or(line.text);
        let fits = |buffer: &Buffer| {
            minute(buffer.mark_ms) == minute(mark_ms) && buffer.text.len() + kept.len() < self.settings.record_size
        };
        if input.buffers.get(&line.partition).is_some_and(|buffer| !fits(buffer)) {
            self.end(input, line.partition);
        }
        let new = || Buffer { mark_ms, ..Buffer::default() };
        let buffer = input.buffers.entry(line.partition).or_insert_with(new);
        let length = buffer.text.len();
        buffer.text.extend_from_slice(kept);
        if kept.len() < line.text.len() {
            // What is here must not pass for a whole line.
            buffer.text.push(NOT_UTF8);
        }
        buffer.text.push(b'\n');
        self.bytes += buffer.text.len() - length;
        self.lines += 1;
        if self.settings.single_lines {
            buffer.key = line.click.map(|(ad, _)| ad.to_string());
            self.end(input, line.partition);
        }
    }

    /// Ends all records of an input, at the end of a transaction. The target partitions that had no record since its watermark has
    /// passed the end of a minute are told by an empty record, and one partition is told a new gap.
    pub(super) fn close(&mut self, input: &mut Input) {
        if !std::mem::take(&mut input.is_touched) {
            return;
        }
        self.end_all(input);
        let mark_ms = input.mark_ms;
        let told = |partition| input.told.get(&partition).and_then(|told| told.watermark_ms);
        let tells_gap = std::mem::take(&mut input.gap.1).then(|| gap_home(&input.name, self.partitions));
        let is_behind = |partition: &u32| minute(told(*partition)) < minute(mark_ms) || tells_gap == Some(*partition);
        let behind: Vec<u32> = (0..self.partitions).filter(is_behind).collect();
        for partition in behind {
            self.put(input, partition, Buffer { mark_ms, ..Buffer::default() });
        }
    }

    fn end_all(&mut self, input: &mut Input) {
        for (partition, buffer) in std::mem::take(&mut input.buffers) {
            self.put(input, partition, buffer);
        }
    }

    fn end(&mut self, input: &mut Input, partition: u32) {
        if let Some(buffer) = input.buffers.remove(&partition) {
            self.put(input, partition, buffer);
        }
    }

    fn put(&mut self, input: &mut Input, partition: u32, Buffer { text, key, mark_ms }: Buffer) {
        let told = input.told.entry(partition).or_default();
        told.sequence += 1;
        told.watermark_ms = mark_ms;
        self.bytes += HEADERS_BYTES + input.name.len();
        self.outbox.push_back(Outgoing {
            partition,
            key,
            text,
            input: Arc::clone(&input.name),
            watermark_ms: mark_ms,
            sequence: told.sequence,
            csv_header: input.csv_header.clone(),
            gap_bytes: Some(input.gap.0).filter(|&gap| gap > 0 && partition == gap_home(&input.name, self.partitions)),
            tag: 0,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_stay_unique() {
        let name = |input: &str| Input::stamped(input, "old/12").name;
        assert_eq!(&*name("host.1a2b:/var/log/a.log"), "host.1a2b:/var/log/a.log@old/12");
        let long = |last: char| "ä".repeat(INPUT_BYTES_MAX / 2 - 2) + &last.to_string();
        let (one, other) = (name(&long('1')), name(&long('2')));
        assert!(one.len() <= INPUT_BYTES_MAX && one.len() > INPUT_BYTES_MAX - 4, "{}", one.len());
        assert!(one.ends_with("@old/12"), "{one}");
        assert_ne!(one, other);
    }

    #[test]
    fn what_is_kept_of_a_long_line_is_malformed() {
        let mut packer = Packer::new(AgentSettings::default(), 8, 4);
        let mut input = Input::unstamped(&"old/0".into());
        let line = |text: &'static [u8]| RoutedLine { start: 0, text, partition: 1, click: None, rejected: None };
        packer.begin(&mut input, None, 0);
        packer.add(&mut input, &line(b"12345678"), None);
        packer.add(&mut input, &line(b"123456789"), None);
        packer.close(&mut input);
        assert_eq!(packer.outbox.pop_front().unwrap().text, b"12345678\n12345678\xff\n");
        assert_eq!(packer.take_lines(), 2);
    }
}
