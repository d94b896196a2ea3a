//! Clicks in columns, from the decoder to the stores.

use crate::{Country, Identity, InputId, LinePositions, Record, Rejected};
use std::sync::Arc;

/// Clicks of one block of lines, one column per field, in line order. All columns have the same length. The texts of
/// row `i` end at `*_end[i]` and begin at the end of row `i - 1`.
#[derive(Clone, Debug, Default)]
pub struct ClickColumns {
    /// Event time in milliseconds.
    pub event_time_ms: Vec<i64>,
    /// The ad, at most `i64::MAX`.
    pub ad_id: Vec<u64>,
    /// The country of the click.
    pub country: Vec<Country>,
    /// Canonical address, see [`crate::ip`].
    pub ip: Vec<u128>,
    /// Ends of the users in `user_bytes`.
    pub user_end: Vec<u32>,
    /// User ids one after another, UTF-8.
    pub user_bytes: Vec<u8>,
    /// Ends of the click ids in `click_id_bytes`. An empty click id is absent.
    pub click_id_end: Vec<u32>,
    /// Click ids one after another, UTF-8.
    pub click_id_bytes: Vec<u8>,
    /// Where each line begins, in bytes after its block's `from`.
    pub line_start: Vec<u32>,
    /// Equal identities mark copies of one click.
    pub identity: Vec<Identity>,
    /// If the block has a country field but no row has a known country: the field's value in one of the rows, for
    /// people.
    pub unknown_country: Option<String>,
}

/// One click of a [`ClickColumns`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClickRef<'a> {
    /// Event time in milliseconds.
    pub event_time_ms: i64,
    /// The ad.
    pub ad_id: u64,
    /// The country of the click.
    pub country: Country,
    /// Canonical address.
    pub ip: u128,
    /// The user.
    pub user_id: &'a [u8],
    /// The client's unique id; empty if the client sent none.
    pub click_id: &'a [u8],
}

impl ClickColumns {
    /// Number of rows.
    #[inline]
    pub fn len(&self) -> usize {
        self.event_time_ms.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.event_time_ms.is_empty()
    }

    /// The user of a row.
    #[inline]
    pub fn user_id(&self, row: usize) -> &[u8] {
        text(&self.user_bytes, &self.user_end, row)
    }

    /// The click id of a row; empty when absent.
    #[inline]
    pub fn click_id(&self, row: usize) -> &[u8] {
        text(&self.click_id_bytes, &self.click_id_end, row)
    }

    /// A row as one value.
    pub fn get(&self, row: usize) -> ClickRef<'_> {
        ClickRef {
            event_time_ms: self.event_time_ms[row],
            ad_id: self.ad_id[row],
            country: self.country[row],
            ip: self.ip[row],
            user_id: self.user_id(row),
            click_id: self.click_id(row),
        }
    }

    /// Appends a row.
    #[inline]
    pub fn push(&mut self, click: &ClickRef<'_>, line_start: u32, identity: Identity) {
        self.event_time_ms.push(click.event_time_ms);
        self.ad_id.push(click.ad_id);
        self.country.push(click.country);
        self.ip.push(click.ip);
        self.user_bytes.extend_from_slice(click.user_id);
        self.user_end.push(self.user_bytes.len() as u32);
        if !click.click_id.is_empty() {
            self.click_id_bytes.extend_from_slice(click.click_id);
        }
        self.click_id_end.push(self.click_id_bytes.len() as u32);
        self.line_start.push(line_start);
        self.identity.push(identity);
    }

    /// The same rows without some, whose numbers are ascending.
    #[must_use]
    pub fn without(&self, rows: impl IntoIterator<Item = usize>) -> ClickColumns {
        let mut left_out = rows.into_iter().peekable();
        let mut rest = ClickColumns { unknown_country: self.unknown_country.clone(), ..ClickColumns::default() };
        for row in 0..self.len() {
            if left_out.next_if_eq(&row).is_none() {
                rest.push(&self.get(row), self.line_start[row], self.identity[row]);
            }
        }
        rest
    }

    /// Approximate size in memory, in bytes, for bounds.
    pub fn memory_bytes(&self) -> usize {
        self.len() * (8 + 8 + 1 + 16 + 4 + 4 + 4 + 16) + self.user_bytes.len() + self.click_id_bytes.len()
    }
}

#[inline]
fn text<'a>(bytes: &'a [u8], ends: &[u32], row: usize) -> &'a [u8] {
    let start = if row == 0 { 0 } else { ends[row - 1] as usize };
    &bytes[start..ends[row] as usize]
}

/// The counted clicks of one batch: row numbers into shared columns.
#[derive(Clone, Debug)]
pub struct CountedClicks {
    /// All clicks of the batch.
    pub columns: Arc<ClickColumns>,
    /// The rows that were counted, in ascending order.
    pub rows: Vec<u32>,
    /// Name of the input.
    pub input: Arc<str>,
    /// Where the lines of the batch are in their source.
    pub positions: LinePositions,
}

/// A decoded block of whole lines of one input. Each line is either a row of `clicks` or an entry of `rejected`; both
/// are in line order.
#[derive(Clone, Debug)]
pub struct DecodedBatch {
    /// The input that the lines came from.
    pub input: InputId,
    /// Where the block begins, as an offset into the uncompressed text.
    pub from: u64,
    /// Where the block ends, as an offset into the uncompressed text.
    pub to: u64,
    /// Lines that are clicks.
    pub clicks: ClickColumns,
    /// Lines that are not clicks.
    pub rejected: Vec<Rejected>,
    /// NUL bytes that belong to no line: between lines and after the text.
    pub nul_bytes: u64,
    /// The text of the block, for dead letters; shorter than `to - from` if an overlong line was cut.
    pub text: Vec<u8>,
}

/// A decoded block of whole records of one lane. Its lines are stored as in a [`DecodedBatch`].
#[derive(Clone, Debug)]
pub struct DecodedRecords {
    /// The records, in offset order.
    pub records: Vec<Record>,
    /// Lines that are clicks.
    pub clicks: ClickColumns,
    /// Lines that are not clicks.
    pub rejected: Vec<Rejected>,
    /// NUL bytes that belong to no line.
    pub nul_bytes: u64,
    /// The text of all records, for dead letters.
    pub text: Vec<u8>,
}

impl DecodedBatch {
    /// Lines in the block.
    pub fn lines(&self) -> usize {
        self.clicks.len() + self.rejected.len()
    }

    /// The bytes of the line that begins at `line_start`, without its line ending.
    pub fn line(&self, line_start: u32) -> &[u8] {
        let rest = self.text.get(line_start as usize..).unwrap_or_default();
        let line = rest.split(|&byte| byte == b'\n').next().unwrap_or_default();
        line.strip_suffix(b"\r").unwrap_or(line)
    }
}
