//! Finding out how a file is to be read: from its first line, which never changes, and only then from its name.

use super::settings::{DecodeSettings, FormatChoice};
use crate::block::{CsvHeader, Format};
use memchr::memchr;
use std::sync::Arc;

/// A byte order mark, dropped at offset 0 only.
pub(crate) const BOM: &[u8] = b"\xef\xbb\xbf";

/// Bytes of a file's text that [`find`] must be given at most before it decides.
pub(crate) fn prefix_bytes(settings: &DecodeSettings) -> usize {
    settings.line_bytes_max + BOM.len() + 2
}

/// The format of a file by the first bytes of its text, or none while there are too few of them. `last` says that no
/// more will come. `kept` is the header that the log had before: it goes for a log that goes on without one.
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
    // Lines of no bytes are no lines, and NUL bytes before one belong to none: the header is the first that has some.
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
        // After many empty lines the rest of the prefix is too short for a header, and half of one must not be taken
        // for a whole.
        None if full => (rest, prefix.len(), true),
        None => return None,
    };
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let named_csv = name.rsplit('/').next().is_some_and(|name| name.to_ascii_lowercase().contains(".csv"));
    let under_kept = |kept: &[u8]| {
        // The first line may be the rest of one that was cut; each row with another number of columns is malformed.
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
