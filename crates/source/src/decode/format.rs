//! Detects the format of a file: from its first line, which never changes, and otherwise from its name.

use super::settings::{DecodeSettings, FormatChoice};
use crate::block::{CsvHeader, Format};
use memchr::memchr;
use std::sync::Arc;

/// A byte order mark, dropped at offset 0 only.
pub(crate) const BOM: &[u8] = b"\xef\xbb\xbf";

/// The number of bytes of a file's text after which [`find`] decides in any case.
pub(crate) fn prefix_bytes(settings: &DecodeSettings) -> usize {
    settings.line_bytes_max + BOM.len() + 2
}

/// The format of a file by the first bytes of its text, or `None` while there are too few. `last` says that no more
/// will follow. `kept` is the log's previous header; it applies if the log continues without one.
pub(crate) fn find(
    name: &str,
    prefix: &[u8],
    last: bool,
    kept: Option<&[u8]>,
    settings: &DecodeSettings,
) -> Option<Format> {
    if settings.format == FormatChoice::Ndjson {
        return Some(Format::Ndjson);
    }
    let full = prefix.len() >= prefix_bytes(settings);
    if !last && !full && BOM.starts_with(prefix) {
        return None;
    }
    let bom = if prefix.starts_with(BOM) { BOM.len() } else { 0 };
    // Empty lines and NUL bytes before a line are skipped: the header is the first line that is not empty.
    let mut start = bom;
    while let Some(ending) = [&b"\n"[..], b"\r\n", b"\0"].iter().find(|ending| prefix[start..].starts_with(ending)) {
        start += ending.len();
    }
    let rest = &prefix[start..];
    if settings.format == FormatChoice::Auto && rest.first() == Some(&b'{') {
        return Some(Format::Ndjson);
    }
    let (line, end, cut) = match memchr(b'\n', rest) {
        Some(len) => (&rest[..len], start + len + 1, false),
        None if last => (rest, prefix.len(), false),
        // After many empty lines the rest of the prefix is too short for a header, and half a header must not be taken
        // for a whole one.
        None if full => (rest, prefix.len(), true),
        None => return None,
    };
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let named_csv = name.rsplit('/').next().is_some_and(|name| name.to_ascii_lowercase().contains(".csv"));
    let under_kept = |kept: &[u8]| {
        // The first line may be the rest of a cut line; a row with a different number of columns is malformed.
        Format::Csv(Arc::new(CsvHeader::parse(kept, bom as u64, settings)))
    };
    if cut || line.len() > settings.line_bytes_max {
        if let Some(kept) = kept {
            return Some(under_kept(kept));
        }
        return Some(if settings.format == FormatChoice::Csv || named_csv {
            let what = format!("csv: the header does not end within {} bytes", settings.line_bytes_max);
            Format::Csv(Arc::new(CsvHeader::broken(what)))
        } else {
            Format::Ndjson
        });
    }
    let header = CsvHeader::parse(line, end as u64, settings);
    let telling = header.is_telling();
    if let Some(kept) = kept.filter(|_| !telling) {
        return Some(under_kept(kept));
    }
    Some(if settings.format == FormatChoice::Csv || telling || named_csv {
        Format::Csv(Arc::new(header))
    } else {
        Format::Ndjson
    })
}
