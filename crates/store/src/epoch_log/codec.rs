//! The format of an epoch: one self-contained record.
//!
//! Layout, integers little-endian:
//!
//! ```text
//! magic "ADTEPOCH" | version u16 | header length u32 | blob length u64 | header | blobs | checksum u128
//! ```
//!
//! The header is postcard. Since version 2, a list of tagged fields follows it, within the header length. A reader
//! ignores unknown tags, so a field that older programs can do without needs no new version. The blobs are the large
//! columns, in the order in which the header lists them: identities as 16 bytes each, counts as zstd of varints, signed
//! ones zigzag. The checksum is SipHash-2-4-128 under a fixed key over all bytes before it; the next record contains it
//! to name its predecessor. Countries are written as their letters. Version 1 wrote their rank in the list of that
//! time, and clicks without a sign.

use super::countries;
use super::row::{self, Row};
use super::tagged::{self, Tagged};
use adtally_model::epoch::{Base, Epoch, LiveMinute, MinuteCounts, MinuteIdentities, StagedFile};
use adtally_model::{Error, Frontiers, Identity, Ledger, Minute, Progress, Result};
use serde::{Deserialize, Serialize};
use siphasher::sip128::{Hasher128, SipHasher24};
use std::hash::Hasher;

/// The format that this version writes.
pub const FORMAT_VERSION: u16 = 2;

/// The oldest format that can be read.
const FORMAT_VERSION_MIN: u16 = 1;

const MAGIC: &[u8; 8] = b"ADTEPOCH";
const PREFIX_BYTES: usize = 8 + 2 + 4 + 8;

const IDENTITY_BYTES: usize = 16;

/// Typical bytes of a packed row of counts, for allocating buffers.
const COUNT_BYTES_TYPICAL: usize = 3;

/// Bytes of the checksum at the end of a record.
pub const CHECKSUM_BYTES: usize = 16;

/// A fast level: counts shrink to about a third, and the record is written once and rarely read.
const ZSTD_LEVEL: i32 = 1;

/// Most bytes that one minute's counts may unpack to: 50 million rows of up to 21 bytes.
const COUNTS_BYTES_MAX: usize = 1 << 30;

#[derive(Serialize, Deserialize)]
struct Header {
    log_id: u128,
    partition: u32,
    number: u64,
    writer: u128,
    predecessor: u128,
    oldest_needed: u64,
    claim: bool,
    clock_ms: i64,
    frontiers: Frontiers,
    newest_click_ms: Option<i64>,
    largest_guarded_ms: Option<i64>,
    next_input: u64,
    all_ended: bool,
    reopened_from_ms: Option<i64>,
    inputs: Vec<Row>,
    gone: Ledger,
    ledger: Ledger,
    counts: Vec<Blob>,
    identities: Vec<Blob>,
    staged: Vec<StagedFile>,
    config_fingerprint: u64,
    key_fingerprint: u64,
    base: Option<BaseHeader>,
}

#[derive(Serialize, Deserialize)]
struct BaseHeader {
    inputs: Vec<Row>,
    minutes: Vec<(u64, Blob, Blob)>,
}

/// A column outside the header: the number of rows of one minute, and of their bytes.
#[derive(Serialize, Deserialize)]
struct Blob {
    minute: Minute,
    rows: u32,
    bytes: u32,
}

/// The checksum of a record's bytes, without its last 16.
pub fn checksum(bytes: &[u8]) -> u128 {
    checksum_of(&[bytes])
}

fn checksum_of(pieces: &[&[u8]]) -> u128 {
    let mut hasher = SipHasher24::new_with_key(b"adtally checksum");
    pieces.iter().for_each(|piece| hasher.write(piece));
    hasher.finish128().as_u128()
}

/// Encodes a record; returns its bytes and its checksum.
///
/// # Errors
/// Internal when a column is too long to be written.
pub fn encode(epoch: &Epoch) -> Result<(Vec<u8>, u128)> {
    let Pieces { head, blobs, checksum } = pieces(epoch)?;
    Ok(([head, blobs, checksum.to_le_bytes().to_vec()].concat(), checksum))
}

/// The parts of a record, in this order. The blobs are nearly all of it. They are kept apart so that they are not
/// copied behind the header that describes them.
pub(super) struct Pieces {
    pub(super) head: Vec<u8>,
    pub(super) blobs: Vec<u8>,
    pub(super) checksum: u128,
}

/// Encodes a record in parts.
///
/// # Errors
/// As [`encode`].
pub(super) fn pieces(epoch: &Epoch) -> Result<Pieces> {
    let identities: usize = epoch.identities.iter().map(|minute| minute.identities.len()).sum();
    let counts: usize = epoch.counts.iter().map(MinuteCounts::len).sum();
    let mut blobs = Vec::with_capacity(identities * IDENTITY_BYTES + counts * COUNT_BYTES_TYPICAL);
    let header = Header {
        log_id: epoch.progress.log_id,
        partition: epoch.progress.partition,
        number: epoch.progress.number,
        writer: epoch.writer,
        predecessor: epoch.predecessor,
        oldest_needed: epoch.oldest_needed,
        claim: epoch.claim,
        clock_ms: epoch.progress.clock_ms,
        frontiers: epoch.progress.frontiers,
        newest_click_ms: epoch.progress.newest_click_ms,
        largest_guarded_ms: epoch.progress.largest_guarded_ms,
        next_input: epoch.progress.next_input,
        all_ended: epoch.progress.all_ended,
        reopened_from_ms: epoch.progress.reopened_from_ms,
        inputs: row::written(&epoch.inputs),
        gone: epoch.progress.gone,
        ledger: epoch.progress.ledger,
        counts: epoch.counts.iter().map(|counts| write_counts(counts, &mut blobs)).collect::<Result<_>>()?,
        identities: epoch.identities.iter().map(|ids| write_identities(ids, &mut blobs)).collect::<Result<_>>()?,
        staged: epoch.staged.clone(),
        config_fingerprint: epoch.config_fingerprint,
        key_fingerprint: epoch.key_fingerprint,
        base: epoch.base.as_deref().map(|base| write_base(base, &mut blobs)).transpose()?,
    };
    let unencodable = |e| Error::internal("an epoch header cannot be encoded").because(e);
    // Space for the prefix, which contains the header's length.
    let head = postcard::to_extend(&header, vec![0; PREFIX_BYTES]).map_err(unencodable)?;
    let mut head = postcard::to_extend(&tagged::of(epoch)?, head).map_err(unencodable)?;
    let header_len =
        u32::try_from(head.len() - PREFIX_BYTES).map_err(|_| Error::internal("an epoch header is beyond 4 GiB"))?;
    head[..8].copy_from_slice(MAGIC);
    head[8..10].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    head[10..14].copy_from_slice(&header_len.to_le_bytes());
    head[14..PREFIX_BYTES].copy_from_slice(&(blobs.len() as u64).to_le_bytes());
    let checksum = checksum_of(&[&head, &blobs]);
    Ok(Pieces { head, blobs, checksum })
}

fn write_base(base: &Base, blobs: &mut Vec<u8>) -> Result<BaseHeader> {
    let minutes = base.minutes.iter().map(|minute| {
        Ok((minute.begun, write_counts(&minute.counts, blobs)?, write_identities(&minute.identities, blobs)?))
    });
    Ok(BaseHeader { inputs: row::written(&base.inputs), minutes: minutes.collect::<Result<_>>()? })
}

fn blob(minute: Minute, rows: usize, bytes: usize) -> Result<Blob> {
    match (u32::try_from(rows), u32::try_from(bytes)) {
        (Ok(rows), Ok(bytes)) => Ok(Blob { minute, rows, bytes }),
        _ => Err(Error::internal("a minute's column is beyond 4 GiB: lower epoch.max_lines")),
    }
}

fn write_identities(identities: &MinuteIdentities, blobs: &mut Vec<u8>) -> Result<Blob> {
    let start = blobs.len();
    blobs.reserve(identities.identities.len() * IDENTITY_BYTES);
    for identity in &identities.identities {
        blobs.extend_from_slice(&identity.0.to_le_bytes());
    }
    blob(identities.minute, identities.identities.len(), blobs.len() - start)
}

fn write_counts(counts: &MinuteCounts, blobs: &mut Vec<u8>) -> Result<Blob> {
    let mut plain = Vec::with_capacity(counts.len() * 5);
    let mut last = 0;
    for &ad in &counts.ad_id {
        write_varint(ad.wrapping_sub(last), &mut plain);
        last = ad;
    }
    countries::write(&counts.country, &mut plain);
    for &clicks in &counts.clicks {
        write_varint(zigzag(clicks), &mut plain);
    }
    let packed = zstd::bulk::compress(&plain, ZSTD_LEVEL)
        .map_err(|e| Error::internal("counts cannot be compressed").because(e))?;
    blobs.extend_from_slice(&packed);
    blob(counts.minute, counts.len(), packed.len())
}

/// Maps numbers near 0 to small ones, whatever their sign (protobuf's ZigZag).
fn zigzag(number: i64) -> u64 {
    (number << 1 ^ number >> 63).cast_unsigned()
}

fn from_zigzag(coded: u64) -> i64 {
    (coded >> 1).cast_signed() ^ -(coded & 1).cast_signed()
}

/// LEB128, as in protobuf.
fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Decodes a record; returns it with its checksum.
///
/// # Errors
/// Corrupt, with a description of what is wrong with the bytes.
pub fn decode(bytes: &[u8]) -> Result<(Epoch, u128)> {
    let corrupt = |what: &str| Error::corrupt(format!("{what} ({} bytes)", bytes.len()));
    if bytes.len() < PREFIX_BYTES + CHECKSUM_BYTES {
        return Err(corrupt("the record is cut short or empty"));
    }
    let (content, sum) = bytes.split_at(bytes.len() - CHECKSUM_BYTES);
    let Prefix { version, header_len, blob_len } = Prefix::read(content)?;
    let sum = u128::from_le_bytes(array(sum));
    if checksum(content) != sum {
        return Err(corrupt("the checksum does not match"));
    }
    let body = &content[PREFIX_BYTES..];
    if header_len as u64 + blob_len != body.len() as u64 {
        return Err(corrupt("the record's lengths do not add up"));
    }
    let (header, blobs) = body.split_at(header_len);
    let unreadable = |e| corrupt("the record's header cannot be read").because(e);
    let (header, rest): (Header, &[u8]) = postcard::take_from_bytes(header).map_err(unreadable)?;
    let fields: Vec<Tagged> = match version {
        1 => Vec::new(),
        _ => postcard::from_bytes(rest).map_err(unreadable)?,
    };
    let mut epoch = read_blobs(header, Blobs { rest: blobs, version })?;
    tagged::apply(&mut epoch, fields)?;
    Ok((epoch, sum))
}

/// The first fields of a record.
struct Prefix {
    version: u16,
    header_len: usize,
    blob_len: u64,
}

impl Prefix {
    fn read(bytes: &[u8]) -> Result<Prefix> {
        if bytes.len() < PREFIX_BYTES {
            return Err(Error::corrupt(format!("the record is cut short or empty ({} bytes)", bytes.len())));
        }
        if &bytes[..8] != MAGIC {
            return Err(Error::corrupt("the record does not begin like an epoch record"));
        }
        let version = u16::from_le_bytes(array(&bytes[8..10]));
        if !(FORMAT_VERSION_MIN..=FORMAT_VERSION).contains(&version) {
            return Err(Error::corrupt(format!(
                "the record has format version {version}, this adtally reads {FORMAT_VERSION_MIN} to {FORMAT_VERSION}: use \
                 the version that wrote it"
            )));
        }
        let header_len = u32::from_le_bytes(array(&bytes[10..14])) as usize;
        Ok(Prefix { version, header_len, blob_len: u64::from_le_bytes(array(&bytes[14..22])) })
    }
}

/// The length of a record's prefix and header in bytes, from its first bytes.
///
/// # Errors
/// Corrupt when the bytes are not the start of a record.
pub(super) fn head_bytes(bytes: &[u8]) -> Result<usize> {
    Prefix::read(bytes).map(|prefix| PREFIX_BYTES + prefix.header_len)
}

/// The files that a record names, from its prefix and header alone. The checksum is not compared, since it covers the
/// whole record.
///
/// # Errors
/// Corrupt when the bytes are not the head of the record of this number.
pub(super) fn staged(bytes: &[u8], number: u64, partition: u32) -> Result<Vec<StagedFile>> {
    let header = bytes.get(PREFIX_BYTES..head_bytes(bytes)?);
    let header = header.ok_or_else(|| Error::corrupt("the record is cut short"))?;
    let (header, _): (Header, &[u8]) = postcard::take_from_bytes(header)
        .map_err(|error| Error::corrupt("the record's header cannot be read").because(error))?;
    if (header.number, header.partition) != (number, partition) {
        return Err(Error::corrupt(format!(
            "the record is epoch {} of partition {}: a file was renamed or copied",
            header.number, header.partition
        )));
    }
    Ok(header.staged)
}

/// The first bytes of a slice whose length was checked before.
fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(&bytes[..N]);
    array
}

fn read_blobs(header: Header, mut blobs: Blobs<'_>) -> Result<Epoch> {
    let counts = header.counts.iter().map(|blob| blobs.counts(blob)).collect::<Result<_>>()?;
    let identities = header.identities.iter().map(|blob| blobs.identities(blob)).collect::<Result<_>>()?;
    let base = header.base.map(|base| -> Result<_> {
        let minutes = base.minutes.iter().map(|(begun, counts, identities)| {
            Ok(LiveMinute { begun: *begun, counts: blobs.counts(counts)?, identities: blobs.identities(identities)? })
        });
        Ok(Box::new(Base { minutes: minutes.collect::<Result<_>>()?, inputs: row::read(base.inputs) }))
    });
    Ok(Epoch {
        progress: Progress {
            log_id: header.log_id,
            partition: header.partition,
            number: header.number,
            source: None,
            topic: None,
            is_retired: false,
            clock_ms: header.clock_ms,
            frontiers: header.frontiers,
            newest_click_ms: header.newest_click_ms,
            largest_guarded_ms: header.largest_guarded_ms,
            next_input: header.next_input,
            all_ended: header.all_ended,
            reopened_from_ms: header.reopened_from_ms,
            gone: header.gone,
            ledger: header.ledger,
        },
        writer: header.writer,
        predecessor: header.predecessor,
        oldest_needed: header.oldest_needed,
        claim: header.claim,
        inputs: row::read(header.inputs),
        counts,
        identities,
        staged: header.staged,
        reconcile: None,
        config_fingerprint: header.config_fingerprint,
        key_fingerprint: header.key_fingerprint,
        base: base.transpose()?,
    })
}

/// The blobs that are not read yet.
struct Blobs<'a> {
    rest: &'a [u8],
    /// Their format version.
    version: u16,
}

impl<'a> Blobs<'a> {
    fn take(&mut self, bytes: u32) -> Result<&'a [u8]> {
        let (blob, rest) = self
            .rest
            .split_at_checked(bytes as usize)
            .ok_or_else(|| Error::corrupt("a column of the record is cut short"))?;
        self.rest = rest;
        Ok(blob)
    }

    fn identities(&mut self, blob: &Blob) -> Result<MinuteIdentities> {
        let bytes = self.take(blob.bytes)?;
        if bytes.len() != blob.rows as usize * 16 {
            return Err(Error::corrupt("the length of a column of identities does not match its rows"));
        }
        let identities = bytes.chunks_exact(16).map(|chunk| Identity(u128::from_le_bytes(array(chunk)))).collect();
        Ok(MinuteIdentities { minute: blob.minute, identities })
    }

    fn counts(&mut self, blob: &Blob) -> Result<MinuteCounts> {
        let packed = self.take(blob.bytes)?;
        let rows = blob.rows as usize;
        // A row takes at most 21 bytes: 10 of ad, 1 of country, 10 of clicks. Country letters are extra.
        let bound = (rows * 21 + 1 + 2 * countries::MAX).min(COUNTS_BYTES_MAX);
        let plain = zstd::bulk::decompress(packed, bound)
            .map_err(|e| Error::corrupt("a column of counts cannot be unpacked").because(e))?;
        let cut = || Error::corrupt("a column of counts is cut short");
        let mut at = 0;
        let mut counts = MinuteCounts::empty(blob.minute);
        let mut ad = 0_u64;
        for _ in 0..rows {
            ad = ad.wrapping_add(read_varint(&plain, &mut at).ok_or_else(cut)?);
            counts.ad_id.push(ad);
        }
        let countries = match self.version {
            1 => countries::of_version_1(),
            _ => countries::read(&plain, &mut at).ok_or_else(cut)?,
        };
        for &place in plain.get(at..at + rows).ok_or_else(cut)? {
            let country = countries.get(usize::from(place)).copied().flatten();
            let none = || Error::corrupt(format!("a column of counts names country {place}, which does not exist"));
            counts.country.push(country.ok_or_else(none)?);
        }
        at += rows;
        for _ in 0..rows {
            let clicks = read_varint(&plain, &mut at).ok_or_else(cut)?;
            counts.clicks.push(match self.version {
                1 => i64::try_from(clicks).map_err(|_| cut())?,
                _ => from_zigzag(clicks),
            });
        }
        Ok(counts)
    }
}

fn read_varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}
