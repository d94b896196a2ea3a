//! The state of one log: what was read, what is not acknowledged yet, and the lines that wait for a record.

use adtally_model::{InputRow, InputTime, Ledger};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Most places to continue from that are remembered; of more, every second one is dropped.
const PLACES_MAX: usize = 1_024;

/// A place in a log from which reading can continue: the beginning of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Place {
    /// The offset, in bytes of uncompressed text.
    pub(crate) offset: u64,
    /// The guarded time before it.
    pub(crate) time: InputTime,
    /// The lines before it.
    pub(crate) ledger: Ledger,
}

/// Lines of one log for one partition that wait for more.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    pub(crate) text: Vec<u8>,
    /// The ad of its only line; `None` if the record may have several lines, or the line is not a click.
    pub(crate) key: Option<u64>,
    /// Where its first line begins.
    pub(crate) first: u64,
    /// The watermark before its first line.
    pub(crate) watermark_ms: Option<i64>,
    /// When its first line was read, in monotonic milliseconds.
    pub(crate) since_ms: i64,
}

/// What a partition was told about a log.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Told {
    /// The number of the last record.
    pub(crate) sequence: u64,
    /// The watermark in it.
    pub(crate) watermark_ms: Option<i64>,
}

/// A log.
#[derive(Debug)]
pub(crate) struct Input {
    /// The row of the last journal entry, and changes since.
    pub(crate) row: Arc<InputRow>,
    /// The name in records.
    pub(crate) name: Arc<str>,
    /// The guarded time after the last line that was read.
    pub(crate) time: InputTime,
    /// The lines read.
    pub(crate) ledger: Ledger,
    /// How far it was read.
    pub(crate) read_to: u64,
    /// Places to continue from, ascending.
    places: VecDeque<Place>,
    /// The first line of each record that is not acknowledged yet, with the number of such records.
    unacknowledged: BTreeMap<u64, u32>,
    /// By partition.
    pub(crate) buffers: BTreeMap<u32, Buffer>,
    /// By partition.
    pub(crate) told: BTreeMap<u32, Told>,
    /// When its watermark last passed the end of a minute and the partitions are to be told, in monotonic milliseconds.
    pub(crate) tell_at_ms: Option<i64>,
    /// Whether the partition that is told its gaps must be told.
    pub(crate) tells_gap: bool,
    /// Whether the source will deliver no more, unless it is resumed.
    pub(crate) ended: bool,
    /// When the source last had nothing to read, in monotonic milliseconds; `None` while there is more.
    pub(crate) asked_ms: Option<i64>,
    /// The header line of a CSV log.
    pub(crate) csv_header: Option<Arc<[u8]>>,
}

impl Input {
    /// A log in the state of its row.
    pub(crate) fn new(row: Arc<InputRow>, agent: &str) -> Input {
        let place = Place { offset: row.position().to, time: row.time, ledger: row.ledger };
        Input {
            name: format!("{agent}:{}", row.origin).into(),
            time: row.time,
            ledger: row.ledger,
            read_to: place.offset,
            places: VecDeque::from([place]),
            unacknowledged: BTreeMap::new(),
            buffers: BTreeMap::new(),
            told: BTreeMap::new(),
            tell_at_ms: None,
            // The last words before a crash may not have been sent.
            tells_gap: row.ledger.gap_bytes > 0,
            ended: false,
            asked_ms: None,
            csv_header: row.file().and_then(|file| file.csv_header.clone()),
            row,
        }
    }

    /// Notes that a block begins where the last one ended.
    pub(crate) fn note_place(&mut self) {
        let place = Place { offset: self.read_to, time: self.time, ledger: self.ledger };
        if self.places.back().is_some_and(|last| last.offset == place.offset) {
            self.places.pop_back();
        }
        if self.places.len() >= PLACES_MAX {
            let mut at = 0;
            self.places.retain(|_| {
                at += 1;
                at % 2 == 1
            });
        }
        self.places.push_back(place);
    }

    /// Notes a record that was sent, and whose first line is at an offset.
    pub(crate) fn note_sent(&mut self, first: u64) {
        *self.unacknowledged.entry(first).or_default() += 1;
    }

    /// Notes that such a record is safe.
    pub(crate) fn note_acknowledged(&mut self, first: u64) {
        if let Some(count) = self.unacknowledged.get_mut(&first) {
            *count -= 1;
            if *count == 0 {
                self.unacknowledged.remove(&first);
            }
        }
    }

    /// Whether all lines that were read are safe.
    pub(crate) fn is_safe(&self) -> bool {
        self.unacknowledged.is_empty() && self.buffers.is_empty()
    }

    /// The last place before which all lines are safe. Earlier ones are forgotten.
    pub(crate) fn safe_place(&mut self) -> Place {
        let buffered = self.buffers.values().map(|buffer| buffer.first).min();
        let first = self.unacknowledged.keys().next().copied();
        let unsafe_from = buffered.into_iter().chain(first).min();
        let safe_to = match unsafe_from {
            Some(offset) => offset,
            None => {
                self.note_place();
                self.read_to
            }
        };
        while self.places.get(1).is_some_and(|next| next.offset <= safe_to) {
            self.places.pop_front();
        }
        self.places.front().copied().unwrap_or(Place {
            offset: 0,
            time: InputTime::default(),
            ledger: Ledger::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use adtally_model::InputId;

    #[test]
    fn a_position_waits_for_every_record_before_it() {
        let mut input = Input::new(Arc::new(InputRow::new(InputId(1), "a.log", 0)), "agent");
        let read = |input: &mut Input, to: u64| {
            input.note_place();
            input.read_to = to;
            input.ledger.book(adtally_model::Verdict::Counted, 1);
        };
        read(&mut input, 100);
        input.note_sent(0);
        input.note_sent(40);
        read(&mut input, 200);
        input.note_sent(100);
        input.buffers.insert(3, Buffer { first: 150, ..Buffer::default() });
        assert_eq!(input.safe_place().offset, 0);
        input.note_acknowledged(0);
        input.note_acknowledged(100);
        // A record in the middle of the first block is not safe: the block is read again.
        assert_eq!(input.safe_place().offset, 0);
        input.note_acknowledged(40);
        let place = input.safe_place();
        assert_eq!((place.offset, place.ledger.read), (100, 1));
        input.buffers.clear();
        assert_eq!((input.safe_place().offset, input.safe_place().ledger.read), (200, 2));
        assert!(input.is_safe());
    }
}
