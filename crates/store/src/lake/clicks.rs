//! Files of the table `clicks`.
//!
//! Rows stay in the order in which they were read: lines come nearly in the order of their time, so that both the
//! position and the time cost little, and no sort could make another column cheaper by as much. Questions by address
//! or user are pruned by Bloom filters instead of by order.

use super::encode::{EncodedFile, arrow_defect, encoded, file_of_groups, int, long, properties};
use super::schema::{Table, timestamp_type};
use super::statistics::Statistics;
use adtally_model::time::date_and_hour;
use adtally_model::{ClickColumns, Country, Result, StagedTable};
use arrow::array::{ArrayRef, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use hashbrown::HashMap;
use parquet::basic::Encoding;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use std::sync::Arc;

const HOUR_MS: i64 = 3_600_000;

/// Rows handed to the Parquet writer at once: few enough to stay in the cache, and with the longest user ids far below
/// the 2 GiB that a text column can hold.
const CHUNK_ROWS: usize = 16_384;

/// Rows of one row group. A Bloom filter for as many distinct values takes 128 KiB, 0.8 bytes a click: filters come in
/// powers of two, and a few rows more would double it. It stays in the second cache while it is filled, and what a question
/// about one user or address decodes where a filter names a row group is little.
const ROW_GROUP_ROWS: usize = 168_000;

/// Bytes that a row takes in a file, more or less.
const BYTES_A_ROW: usize = 24;

/// Share of row groups that a Bloom filter names in vain at most; a thirtieth of it would take twice the bytes.
const BLOOM_FALSE_POSITIVES: f64 = 0.075;

/// Counted clicks of one block of lines.
#[derive(Clone, Copy, Debug)]
pub struct ClickRows<'a> {
    /// The block's clicks.
    pub batch: &'a ClickColumns,
    /// Which of them were counted, ascending.
    pub rows: &'a [u32],
    /// Name of the input.
    pub input_name: &'a str,
    /// Offset in the input's text at which the block begins.
    pub from: u64,
}

/// A counted click: which part it is in and which row it is there.
type RowRef = (u32, u32);

/// The Parquet files of one epoch's clicks, one for each hour of event time. It only computes; `file_token` is random
/// and makes the names unique, so that a file is never written over.
///
/// # Errors
/// Internal when the rows cannot be encoded.
pub fn encode_clicks(
    parts: &[ClickRows<'_>],
    partition: u32,
    epoch: u64,
    file_token: u128,
) -> Result<Vec<EncodedFile>> {
    let mut files = Vec::new();
    for (hour, rows) in by_hour(parts) {
        files.push(encode_hour(parts, &rows, hour, partition, epoch, file_token)?);
    }
    Ok(files)
}

/// Rows by hour of event time, the earliest hour first; each in the order of the parts.
fn by_hour(parts: &[ClickRows<'_>]) -> Vec<(i64, Vec<RowRef>)> {
    let mut slots: HashMap<i64, usize> = HashMap::new();
    let mut hours: Vec<(i64, Vec<RowRef>)> = Vec::new();
    let all: usize = parts.iter().map(|part| part.rows.len()).sum();
    let mut current = None;
    for (part_index, part) in parts.iter().enumerate() {
        for &row in part.rows {
            let hour = part.batch.event_time_ms[row as usize].div_euclid(HOUR_MS);
            let slot = match current {
                Some((known, slot)) if known == hour => slot,
                _ => *slots.entry(hour).or_insert_with(|| {
                    // Nearly all epochs lie in one hour or two.
                    hours.push((hour, Vec::with_capacity(if hours.is_empty() { all } else { 0 })));
                    hours.len() - 1
                }),
            };
            current = Some((hour, slot));
            hours[slot].1.push((part_index as u32, row));
        }
    }
    hours.sort_unstable_by_key(|&(hour, _)| hour);
    hours
}

fn encode_hour(
    parts: &[ClickRows<'_>],
    rows: &[RowRef],
    hour: i64,
    partition: u32,
    epoch: u64,
    file_token: u128,
) -> Result<EncodedFile> {
    let groups: Vec<&[RowRef]> = rows.chunks(ROW_GROUP_ROWS).collect();
    let properties = click_properties(rows.len() as u64);
    let bytes = file_of_groups(Table::Clicks, properties, rows.len() * BYTES_A_ROW, groups.len(), |group, write| {
        groups[group].chunks(CHUNK_ROWS).try_for_each(|chunk| write(columns(parts, chunk, partition, epoch)?))
    })?;
    let at = |&(part, row): &RowRef| (&parts[part as usize], row as usize);
    let times = || rows.iter().map(&at).map(|(part, row)| part.batch.event_time_ms[row]);
    let range = times().fold((i64::MAX, i64::MIN), |(least, largest), ms| (least.min(ms), largest.max(ms)));
    // Countries are in the order of their codes.
    let countries = rows.iter().map(&at).map(|(part, row)| part.batch.country[row]);
    let countries = countries.clone().min().into_iter().chain(countries.max());
    let absent = rows.iter().map(&at).filter(|(part, row)| part.batch.click_id(*row).is_empty()).count();
    let statistics = Statistics::of_rows(rows.len() as u64)
        .time("click_timestamp", [range.0, range.1], 0)
        .long("ad_id", rows.iter().map(&at).map(|(part, row)| long(part.batch.ad_id[row])))
        .text("country", countries.map(Country::as_str))
        .long("partition", [i64::from(partition)])
        .long("epoch", [long(epoch)])
        .nulls("user_id", 0)
        .nulls("ip", 0)
        .nulls("click_id", absent as u64)
        .nulls("input", 0)
        .nulls("position", 0);
    let (date, hour) = date_and_hour(hour * HOUR_MS);
    let hour = hour.to_string();
    let path = format!("click_date={date}/click_hour={hour}/{partition}-{epoch:010}-{file_token:032x}.parquet");
    let values = vec![("click_date".to_owned(), date), ("click_hour".to_owned(), hour)];
    Ok(encoded(StagedTable::Clicks, path, values, Some(range), &statistics, bytes))
}

pub(super) fn click_properties(rows: u64) -> WriterProperties {
    let path = |name: &str| ColumnPath::from(name);
    let mut builder = properties().set_max_row_group_row_count(Some(ROW_GROUP_ROWS));
    // Times of one epoch are few distinct milliseconds; countries and inputs are few. All else is better off without.
    for name in ["ad_id", "user_id", "ip", "click_id", "position", "partition", "epoch"] {
        builder = builder.set_column_dictionary_enabled(path(name), false);
    }
    for name in ["ad_id", "position", "partition", "epoch"] {
        builder = builder.set_column_encoding(path(name), Encoding::DELTA_BINARY_PACKED);
    }
    for name in ["user_id", "ip", "click_id"] {
        builder = builder
            .set_column_encoding(path(name), Encoding::DELTA_LENGTH_BYTE_ARRAY)
            .set_column_statistics_enabled(path(name), EnabledStatistics::None);
    }
    for name in ["user_id", "ip"] {
        builder = builder
            .set_column_bloom_filter_enabled(path(name), true)
            .set_column_bloom_filter_fpp(path(name), BLOOM_FALSE_POSITIVES)
            .set_column_bloom_filter_max_ndv(path(name), rows.clamp(1, ROW_GROUP_ROWS as u64));
    }
    builder = builder.set_column_statistics_enabled(path("input"), EnabledStatistics::None);
    for name in ["click_timestamp", "ad_id"] {
        builder = builder.set_column_statistics_enabled(path(name), EnabledStatistics::Page);
    }
    builder.build()
}

/// A chunk of rows in the columns of the table.
fn columns(parts: &[ClickRows<'_>], chunk: &[RowRef], partition: u32, epoch: u64) -> Result<Vec<ArrayRef>> {
    let rows = || chunk.iter().map(|&(part, row)| (&parts[part as usize], row as usize));
    let time: TimestampMicrosecondArray =
        rows().map(|(part, row)| part.batch.event_time_ms[row] * 1_000).collect::<Vec<i64>>().into();
    let ad: Int64Array = rows().map(|(part, row)| long(part.batch.ad_id[row])).collect::<Vec<i64>>().into();
    let position: Int64Array =
        rows().map(|(part, row)| long(part.from + u64::from(part.batch.line_start[row]))).collect::<Vec<i64>>().into();
    let mut users = Texts::with_capacity(chunk.len(), 16);
    let mut addresses = Texts::with_capacity(chunk.len(), 16);
    let mut countries = Texts::with_capacity(chunk.len(), 2);
    let mut inputs = Texts::with_capacity(chunk.len(), 32);
    let mut click_ids = Texts::with_capacity(chunk.len(), 0);
    for (part, row) in rows() {
        users.push(part.batch.user_id(row));
        push_ip(&mut addresses.bytes, part.batch.ip[row]);
        addresses.end();
        countries.push(part.batch.country[row].as_str().as_bytes());
        inputs.push(part.input_name.as_bytes());
        click_ids.push(part.batch.click_id(row));
    }
    Ok(vec![
        Arc::new(time.with_data_type(timestamp_type())),
        Arc::new(ad),
        users.finish(false)?,
        addresses.finish(false)?,
        countries.finish(false)?,
        click_ids.finish(true)?,
        inputs.finish(false)?,
        Arc::new(position),
        Arc::new(Int32Array::from(vec![int(partition); chunk.len()])),
        Arc::new(Int64Array::from(vec![long(epoch); chunk.len()])),
    ])
}

/// A column of texts being put together.
struct Texts {
    bytes: Vec<u8>,
    ends: Vec<i32>,
}

impl Texts {
    fn with_capacity(rows: usize, bytes_each: usize) -> Self {
        let mut ends = Vec::with_capacity(rows + 1);
        ends.push(0);
        Texts { bytes: Vec::with_capacity(rows * bytes_each), ends }
    }

    #[inline]
    fn push(&mut self, text: &[u8]) {
        self.bytes.extend_from_slice(text);
        self.end();
    }

    #[inline]
    fn end(&mut self) {
        // A chunk of the longest texts there are is far below 2 GiB.
        self.ends.push(self.bytes.len() as i32);
    }

    /// The array; `empty_is_null` makes empty texts null.
    fn finish(self, empty_is_null: bool) -> Result<ArrayRef> {
        let nulls = empty_is_null
            .then(|| self.ends.windows(2).map(|ends| ends[0] < ends[1]).collect::<NullBuffer>())
            .filter(|nulls| nulls.null_count() > 0);
        let offsets = OffsetBuffer::new(ScalarBuffer::from(self.ends));
        let array = StringArray::try_new(offsets, Buffer::from(self.bytes), nulls)
            .map_err(|error| arrow_defect(Table::Clicks, error))?;
        Ok(Arc::new(array))
    }
}

/// Appends the canonical text of an address: as [`adtally_model::ip::format`], without its formatting machinery.
#[inline]
fn push_ip(out: &mut Vec<u8>, ip: u128) {
    if ip >> 32 == 0xffff {
        push_v4(out, ip as u32);
    } else {
        push_v6(out, ip);
    }
}

#[inline]
fn push_v4(out: &mut Vec<u8>, ip: u32) {
    for (place, octet) in ip.to_be_bytes().into_iter().enumerate() {
        if place > 0 {
            out.push(b'.');
        }
        if octet >= 100 {
            out.push(b'0' + octet / 100);
        }
        if octet >= 10 {
            out.push(b'0' + octet / 10 % 10);
        }
        out.push(b'0' + octet % 10);
    }
}

/// RFC 5952 section 4: lower case, no leading zeros, the first of the longest runs of two or more zeros shortened.
fn push_v6(out: &mut Vec<u8>, ip: u128) {
    let group = |place: usize| (ip >> (112 - 16 * place)) as u16;
    let (mut shortened, mut place) = (0..0, 0);
    while place < 8 {
        let zeros = (place..8).take_while(|&place| group(place) == 0).count();
        if zeros >= 2 && zeros > shortened.len() {
            shortened = place..place + zeros;
        }
        place += zeros.max(1);
    }
    place = 0;
    while place < 8 {
        if !shortened.is_empty() && place == shortened.start {
            out.extend_from_slice(b"::");
            place = shortened.end;
            continue;
        }
        if place > 0 && (shortened.is_empty() || place != shortened.end) {
            out.push(b':');
        }
        let group = group(place);
        for shift in [12, 8, 4, 0] {
            if group >> shift != 0 || shift == 0 {
                out.push(b"0123456789abcdef"[usize::from(group >> shift & 15)]);
            }
        }
        place += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(ip: u128) -> String {
        let mut out = Vec::new();
        push_ip(&mut out, ip);
        String::from_utf8(out).unwrap()
    }

    proptest! {
        #[test]
        fn addresses_are_written_as_the_model_writes_them(bits: u128, keep: u8, v4: u32) {
            // Groups of zeros in every arrangement.
            let mask = (0..8).filter(|place| keep >> place & 1 == 1).fold(0, |mask, place| mask | 0xffff_u128 << (16 * place));
            let mapped = 0xffff_0000_0000 | u128::from(v4);
            for ip in [bits, bits & mask, mapped, u128::from(v4), bits & 0x000f_0f00_00f0_0001_0000_1000_0fff_ffff] {
                prop_assert_eq!(text(ip), adtally_model::ip::format(ip));
            }
        }
    }
}
