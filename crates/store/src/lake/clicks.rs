//! Files of the table `clicks`.
//!
//! Rows stay in the order in which they were read. Lines are nearly sorted by time, so both the position and the time
//! take little space, and no other sort order could save as much in another column. Bloom filters, not the order, prune
//! queries by address or user.

use super::encode::{
    EncodedFile, Run, arrow_defect, country_column, encoded, file_of_groups, int, long, pieces, properties, rows_of,
};
use super::row_hash::HashedStart;
use super::schema::{Table, timestamp_type};
use super::statistics::{Statistics, bound};
use adtally_model::time::date_and_hour;
use adtally_model::{ClickColumns, Country, LinePositions, Result, StagedTable};
use arrow::array::{ArrayRef, DictionaryArray, Int32Array, Int64Array, StringArray, TimestampMicrosecondArray};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::Int32Type;
use hashbrown::HashMap;
use parquet::basic::{Compression, Encoding};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const HOUR_MS: i64 = 3_600_000;

/// Rows passed to the Parquet writer at once: few enough to stay in the cache, and, even with the longest user ids, far
/// below the 2 GiB limit of a text column.
const CHUNK_ROWS: usize = 16_384;

/// Rows of one row group. A Bloom filter for as many distinct values takes 128 KiB, 0.8 bytes a click: filter sizes are
/// powers of two, and a few rows more would double it. It stays in the second-level cache while it is filled. A query
/// for one user or address decodes little where a filter matches a row group.
const ROW_GROUP_ROWS: usize = 168_000;

/// Approximate bytes of a row in a file.
const BYTES_A_ROW: usize = 24;

/// Maximum share of row groups that a Bloom filter matches in vain; a thirtieth of it would take twice the bytes.
const BLOOM_FALSE_POSITIVES: f64 = 0.075;

/// Counted clicks of one block of lines.
#[derive(Clone, Copy, Debug)]
pub struct ClickRows<'a> {
    /// The block's clicks.
    pub batch: &'a ClickColumns,
    /// The indexes of its counted clicks, ascending.
    pub rows: &'a [u32],
    /// Name of the input.
    pub input_name: &'a str,
    /// The positions of the block's lines in their source.
    pub positions: LinePositions,
    /// 1 for clicks, and -1 for reversals of stored clicks.
    pub sign: i32,
}

/// Consecutive counted clicks of one part: a block has a handful of runs, unless it is full of duplicates.
type ClickRun<'a> = Run<ClickRows<'a>>;

/// Encodes the Parquet files of one epoch's clicks, one for each hour of event time. Does no I/O. `file_token` is
/// random and makes the names unique, so that no file is ever overwritten.
///
/// # Errors
/// Internal when the rows cannot be encoded.
pub fn encode_clicks(
    parts: &[ClickRows<'_>],
    partition: u32,
    epoch: u64,
    file_token: u128,
) -> Result<Vec<EncodedFile>> {
    by_hour(parts).iter().map(|(hour, runs)| encode_hour(runs, *hour, partition, epoch, file_token)).collect()
}

/// Groups runs by hour of event time, the earliest hour first, each in the order of the parts.
fn by_hour<'a>(parts: &[ClickRows<'a>]) -> Vec<(i64, Vec<ClickRun<'a>>)> {
    let mut slots: HashMap<i64, usize> = HashMap::new();
    let mut hours: Vec<(i64, Vec<ClickRun<'a>>)> = Vec::new();
    for &part in parts {
        let mut current: Option<(i64, usize)> = None;
        for &row in part.rows {
            let row = row as usize;
            let hour = part.batch.event_time_ms[row].div_euclid(HOUR_MS);
            if let Some((known, slot)) = current
                && known == hour
                && let Some(run) = hours[slot].1.last_mut()
                && run.rows.end == row
            {
                run.rows.end += 1;
                continue;
            }
            let slot = *slots.entry(hour).or_insert_with(|| {
                hours.push((hour, Vec::new()));
                hours.len() - 1
            });
            current = Some((hour, slot));
            hours[slot].1.push(Run { of: part, rows: row..row + 1 });
        }
    }
    hours.sort_unstable_by_key(|&(hour, _)| hour);
    hours
}

fn encode_hour(runs: &[ClickRun<'_>], hour: i64, partition: u32, epoch: u64, file_token: u128) -> Result<EncodedFile> {
    let rows = rows_of(runs);
    let groups = pieces(runs, ROW_GROUP_ROWS);
    let properties = click_properties(rows as u64);
    let hash_sum = AtomicU64::new(0);
    let bytes = file_of_groups(Table::Clicks, properties, rows * BYTES_A_ROW, groups.len(), |group, write| {
        pieces(&groups[group], CHUNK_ROWS).iter().try_for_each(|chunk| {
            let (columns, hashes) = columns(chunk, partition, epoch)?;
            hash_sum.fetch_add(hashes, Ordering::Relaxed);
            write(columns)
        })
    })?;
    let times = || runs.iter().flat_map(|run| &run.of.batch.event_time_ms[run.rows.clone()]);
    let range = times().fold((i64::MAX, i64::MIN), |(least, largest), &ms| (least.min(ms), largest.max(ms)));
    // Countries are sorted by their codes.
    let countries = || runs.iter().flat_map(|run| &run.of.batch.country[run.rows.clone()]).copied();
    let countries = countries().min().into_iter().chain(countries().max());
    let ads = runs.iter().flat_map(|run| &run.of.batch.ad_id[run.rows.clone()]);
    let absent = runs.iter().map(|run| {
        let click_ids = run.rows.clone().filter(|&row| run.of.batch.click_id(row).is_empty());
        click_ids.count()
    });
    let statistics = Statistics::of_rows(rows as u64)
        .time("click_timestamp", [range.0, range.1], 0)
        .long("ad_id", ads.map(|&ad| bound(ad)))
        .text("country", countries.map(Country::as_str))
        .long("partition", [i64::from(partition)])
        .long("epoch", [bound(epoch)])
        .nulls("user_id", 0)
        .nulls("ip", 0)
        .nulls("click_id", absent.sum::<usize>() as u64)
        .nulls("input", 0)
        .nulls("position", 0)
        .nulls("sign", 0);
    let (date, hour) = date_and_hour(hour * HOUR_MS);
    let hour = hour.to_string();
    let path = format!("click_date={date}/click_hour={hour}/{partition}-{epoch:010}-{file_token:032x}.parquet");
    let values = vec![("click_date".to_owned(), date), ("click_hour".to_owned(), hour)];
    let mut file = encoded(StagedTable::Clicks, path, values, Some(range), &statistics, bytes);
    file.staged.row_hash_sum = Some(long(hash_sum.into_inner())?);
    Ok(file)
}

pub(super) fn click_properties(rows: u64) -> WriterProperties {
    let path = |name: &str| ColumnPath::from(name);
    let mut builder = properties().set_max_row_group_row_count(Some(ROW_GROUP_ROWS));
    // An epoch has few distinct times in milliseconds, countries and inputs. The other columns are smaller without.
    for name in ["ad_id", "user_id", "ip", "click_id", "position", "partition", "epoch"] {
        builder = builder.set_column_dictionary_enabled(path(name), false);
    }
    for name in ["ad_id", "position", "partition", "epoch"] {
        builder = builder.set_column_encoding(path(name), Encoding::DELTA_BINARY_PACKED);
    }
    // Differences between ads are packed bits without a pattern: zstd cannot compress them.
    builder = builder.set_column_compression(path("ad_id"), Compression::UNCOMPRESSED);
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
    // Nearly every row group has the same input and all countries.
    for name in ["input", "country"] {
        builder = builder.set_column_statistics_enabled(path(name), EnabledStatistics::None);
    }
    for name in ["click_timestamp", "ad_id"] {
        builder = builder.set_column_statistics_enabled(path(name), EnabledStatistics::Page);
    }
    builder.build()
}

/// The table's columns for a chunk of rows, and the sum of the rows' hashes.
fn columns(runs: &[ClickRun<'_>], partition: u32, epoch: u64) -> Result<(Vec<ArrayRef>, u64)> {
    let rows = rows_of(runs);
    let (mut times, mut ads, mut positions) =
        (Vec::with_capacity(rows), Vec::with_capacity(rows), Vec::with_capacity(rows));
    let mut users = Texts::with_capacity(rows, 16);
    let mut addresses = Texts::with_capacity(rows, 20);
    let mut click_ids = Texts::with_capacity(rows, 0);
    let mut countries: Vec<u8> = Vec::with_capacity(rows);
    let (mut inputs, mut names): (Vec<i32>, Vec<&str>) = (Vec::with_capacity(rows), Vec::new());
    let (mut signs, mut hashes) = (Vec::with_capacity(rows), 0);
    for Run { of: part, rows } in runs {
        let batch = part.batch;
        times.extend(batch.event_time_ms[rows.clone()].iter().map(|ms| ms * 1_000));
        for (&ad, &start) in batch.ad_id[rows.clone()].iter().zip(&batch.line_start[rows.clone()]) {
            ads.push(long(ad)?);
            positions.push(long(part.positions.of(start))?);
        }
        users.extend(&batch.user_bytes, &batch.user_end, rows.clone());
        click_ids.extend(&batch.click_id_bytes, &batch.click_id_end, rows.clone());
        for &ip in &batch.ip[rows.clone()] {
            push_ip(&mut addresses.bytes, ip);
            addresses.end();
        }
        countries.extend(batch.country[rows.clone()].iter().map(|country| country.rank()));
        if names.last() != Some(&part.input_name) {
            names.push(part.input_name);
        }
        inputs.resize(inputs.len() + rows.len(), names.len() as i32 - 1);
        signs.resize(signs.len() + rows.len(), part.sign);
        let (start, at) = (HashedStart::of(part.sign, part.input_name), times.len() - rows.len());
        for (row, at) in rows.clone().zip(at..) {
            let texts = [users.bytes_of(at), addresses.bytes_of(at)];
            let country = batch.country[row].as_str();
            hashes += start.row([positions[at], times[at], ads[at]], country, texts, click_ids.bytes_of(at));
        }
    }
    let names: ArrayRef = Arc::new(StringArray::from(names));
    let input = DictionaryArray::<Int32Type>::try_new(inputs.into(), names);
    let input = input.map_err(|error| arrow_defect(Table::Clicks, error))?;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from(times).with_data_type(timestamp_type())),
        Arc::new(Int64Array::from(ads)),
        users.finish(false)?,
        addresses.finish(false)?,
        country_column(Table::Clicks, countries)?,
        click_ids.finish(true)?,
        Arc::new(input),
        Arc::new(Int64Array::from(positions)),
        Arc::new(Int32Array::from(vec![int(partition)?; rows])),
        Arc::new(Int64Array::from(vec![long(epoch)?; rows])),
        Arc::new(Int32Array::from(signs)),
    ];
    Ok((columns, hashes))
}

/// A text column under construction.
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

    /// Appends a range of rows of another text column, whose texts are contiguous.
    fn extend(&mut self, bytes: &[u8], ends: &[u32], rows: Range<usize>) {
        let from = rows.start.checked_sub(1).map_or(0, |before| ends[before]);
        let at = self.bytes.len() as i32;
        let ends = &ends[rows];
        self.bytes.extend_from_slice(&bytes[from as usize..ends.last().map_or(from, |&end| end) as usize]);
        self.ends.extend(ends.iter().map(|end| at + (end - from) as i32));
    }

    /// The bytes of the text at an index.
    #[inline]
    fn bytes_of(&self, at: usize) -> &[u8] {
        &self.bytes[self.ends[at] as usize..self.ends[at + 1] as usize]
    }

    #[inline]
    fn end(&mut self) {
        // A chunk of the longest possible texts is far below 2 GiB.
        self.ends.push(self.bytes.len() as i32);
    }

    /// Returns the array; `empty_is_null` makes empty texts null.
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

/// Appends the canonical text of an address, as [`adtally_model::ip::format`], but faster.
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
    let (mut text, mut length) = ([0_u8; 4 * 4], 0);
    for octet in ip.to_be_bytes() {
        let [digits @ .., count] = OCTETS[usize::from(octet)];
        // Three digits are always written; the next write replaces those that are too many.
        text[length..length + 4].copy_from_slice(&[digits[0], digits[1], digits[2], 0]);
        length += usize::from(count);
        text[length] = b'.';
        length += 1;
    }
    out.extend_from_slice(&text[..length - 1]);
}

/// The digits of each octet from the left, and their number; built at compile time.
const OCTETS: [[u8; 4]; 256] = {
    let mut octets = [[0; 4]; 256];
    let mut octet = 0;
    while octet < 256 {
        let digits = [b'0' + (octet / 100) as u8, b'0' + (octet / 10 % 10) as u8, b'0' + (octet % 10) as u8];
        octets[octet] = match octet {
            0..10 => [digits[2], 0, 0, 1],
            10..100 => [digits[1], digits[2], 0, 2],
            _ => [digits[0], digits[1], digits[2], 3],
        };
        octet += 1;
    }
    octets
};

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
            // All arrangements of zero groups.
            let mask = (0..8).filter(|place| keep >> place & 1 == 1).fold(0, |mask, place| mask | 0xffff_u128 << (16 * place));
            let mapped = 0xffff_0000_0000 | u128::from(v4);
            for ip in [bits, bits & mask, mapped, u128::from(v4), bits & 0x000f_0f00_00f0_0001_0000_1000_0fff_ffff] {
                prop_assert_eq!(text(ip), adtally_model::ip::format(ip));
            }
        }
    }
}
