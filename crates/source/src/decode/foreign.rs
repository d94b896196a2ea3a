//! Recognizes files that are not click logs from their first bytes, with advice how to turn them into logs.
//!
//! [`of_file`] and [`of_text`] never report text that could be lines, because a live log must not be rejected for an
//! unlucky first line: they look for magic numbers that text never contains, and for UTF-16. Files that only
//! [`of_lines`] recognizes are still read.

use super::json::is_object;
use crate::compression::{Magic, magic};
use std::fmt;

/// Bytes of a file or of its text that are enough to decide: a tar header has 512.
pub const FOREIGN_BYTES: usize = 512;

/// Byte pairs that must look like UTF-16 if there is no byte order mark. NULs before a log are adjacent.
const UTF_16_PAIRS: usize = 8;

/// Maximum number of lines searched for the end of a JSON object that spans several lines.
const SPREAD_LINES_MAX: usize = 64;

/// A file that is not a click log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Foreign {
    /// What it is: `a zip archive`.
    pub name: &'static str,
    /// How to turn it into a log.
    pub advice: &'static str,
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.advice)
    }
}

const UNPACK: &str = "unpack it";
const COMPRESS: &str = "decompress it, or compress it with gzip or zstd, which can be read";
const EXPORT: &str = "export it as NDJSON or CSV";
const RECODE: &str = "convert it to UTF-8, for example with `iconv -f UTF-16 -t UTF-8`";

/// Magic numbers of files. Each contains a control character, or a byte that UTF-8 text never contains.
const MAGIC: [(&[u8], Foreign); 24] = [
    (b"PK\x03\x04", named("a zip archive", UNPACK)),
    (b"PK\x05\x06", named("an empty zip archive", UNPACK)),
    (b"PK\x07\x08", named("a zip archive", UNPACK)),
    (b"7z\xbc\xaf\x27\x1c", named("a 7z archive", UNPACK)),
    (b"Rar!\x1a\x07", named("a rar archive", UNPACK)),
    (b"\xfd7zXZ\x00", named("compressed by xz", COMPRESS)),
    (b"\x04\x22\x4d\x18", named("compressed by lz4", COMPRESS)),
    (b"\x02\x21\x4c\x18", named("compressed by lz4", COMPRESS)),
    (b"\xff\x06\x00\x00sNaPpY", named("compressed by snappy", COMPRESS)),
    (b"LZIP\x01", named("compressed by lzip", COMPRESS)),
    (b"\x1f\x9d", named("compressed by compress", COMPRESS)),
    (b"\x5d\x00\x00\x80\x00", named("compressed by lzma", COMPRESS)),
    (b"\x89LZO\x00", named("compressed by lzop", COMPRESS)),
    (b"PAR1\x15", named("a Parquet file", EXPORT)),
    (b"ORC\x08", named("an ORC file", EXPORT)),
    (b"ORC\x0a\x03", named("an ORC file", EXPORT)),
    (b"Obj\x01", named("an Avro file", EXPORT)),
    (b"ARROW1\x00\x00", named("an Arrow file", EXPORT)),
    (b"SQLite format 3\x00", named("an SQLite database", EXPORT)),
    (b"\x89HDF\r\n\x1a\n", named("an HDF5 file", EXPORT)),
    (b"\xff\xfe\x00\x00", named("text in UTF-32", "convert it to UTF-8")),
    (b"\x00\x00\xfe\xff", named("text in UTF-32", "convert it to UTF-8")),
    (b"\xff\xfe", named("text in UTF-16", RECODE)),
    (b"\xfe\xff", named("text in UTF-16", RECODE)),
];

const fn named(name: &'static str, advice: &'static str) -> Foreign {
    Foreign { name, advice }
}

/// Recognizes a file by its first bytes, [`FOREIGN_BYTES`] of them if it has that many; `None` if it may be a log, also
/// for gzip and zstd.
pub fn of_file(first: &[u8]) -> Option<Foreign> {
    let by_magic = MAGIC.iter().find(|(magic, _)| first.starts_with(magic)).map(|(_, foreign)| *foreign);
    by_magic.or_else(|| {
        if is_bzip2(first) {
            Some(named("compressed by bzip2", COMPRESS))
        } else if is_tar(first) {
            Some(named("a tar archive", UNPACK))
        } else if is_utf_16(first) {
            Some(named("text in UTF-16", RECODE))
        } else {
            None
        }
    })
}

/// Whether a file that begins with these bytes is compressed in a supported way.
pub fn is_read_compressed(first: &[u8]) -> bool {
    matches!(magic(first), Magic::Compressed(_))
}

/// Recognizes the content of a compressed file by the first bytes of its text; `None` if it may be a log.
pub fn of_text(first: &[u8]) -> Option<Foreign> {
    match magic(first) {
        Magic::Compressed(_) => Some(named("compressed twice", "decompress it once")),
        Magic::Plain | Magic::Undecided => of_file(first),
    }
}

/// Recognizes whole lines that contain clicks in an unsupported form, for diagnosis of a sample. Each line of such a
/// log is malformed.
pub fn of_lines(text: &[u8]) -> Option<Foreign> {
    let text = text.strip_prefix(super::format::BOM).unwrap_or(text).trim_ascii_start();
    let first = text.split(|&byte| byte == b'\n').next()?.trim_ascii_end();
    match first {
        [b'[', ..] if !is_object(first) => {
            Some(named("a JSON array", "write one object per line, for example with `jq -c '.[]'`"))
        }
        [b'{', ..] if is_docker(first) => {
            Some(named("a log of Docker's json-file driver", "extract the lines, for example with `jq -rj .log`"))
        }
        [b'{', ..] if !is_object(first) && is_spread(text) => Some(named(
            "JSON with an object over several lines",
            "write one object per line, for example with `jq -c .`",
        )),
        _ if is_cri(first) => Some(named(
            "a container log, whose lines begin with a time, a stream and a tag (CRI)",
            "remove these, for example with `cut -d' ' -f4-`",
        )),
        _ => None,
    }
}

/// `BZh`, the block size, and the magic number of a block or of the end.
fn is_bzip2(first: &[u8]) -> bool {
    matches!(first, [b'B', b'Z', b'h', b'1'..=b'9', rest @ ..]
        if rest.starts_with(b"1AY&SY") || rest.starts_with(b"\x17\x72\x45\x38\x50\x90"))
}

/// A tar header, which contains its own checksum (POSIX.1-1988 ustar, and older ones).
fn is_tar(first: &[u8]) -> bool {
    const SUM: std::ops::Range<usize> = 148..156;
    let Some(header) = first.get(..FOREIGN_BYTES) else { return false };
    let digits = header[SUM].trim_ascii_start();
    let len = digits.iter().take_while(|digit| matches!(digit, b'0'..=b'7')).count();
    let told = digits[..len].iter().fold(0, |sum, digit| sum * 8 + u32::from(digit - b'0'));
    let outside = header.iter().enumerate().filter(|(at, _)| !SUM.contains(at)).map(|(_, &byte)| u32::from(byte));
    // In the sum, the checksum field counts as blanks. The name is padded with NULs, which text never contains.
    len > 0 && header[0] != 0 && header.contains(&0) && told == outside.sum::<u32>() + 8 * u32::from(b' ')
}

/// UTF-16 text without a byte order mark: ASCII characters, each next to a NUL.
fn is_utf_16(first: &[u8]) -> bool {
    let pairs = first.as_chunks::<2>().0;
    let is_text = |byte: u8| matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=b'~');
    pairs.len() >= UTF_16_PAIRS
        && (pairs.iter().all(|&[low, high]| is_text(low) && high == 0)
            || pairs.iter().all(|&[high, low]| is_text(low) && high == 0))
}

/// A line written by Docker's json-file driver: `{"log":"...\n","stream":"stdout","time":"..."}`.
fn is_docker(line: &[u8]) -> bool {
    let has = |key: &[u8]| memchr::memmem::find(line, key).is_some();
    line.starts_with(b"{\"log\":\"") && has(b"\",\"stream\":\"std") && has(b"\",\"time\":\"") && is_object(line)
}

/// A line written by a container runtime: `2026-01-01T00:00:00.000000000Z stdout F {...}`.
fn is_cri(line: &[u8]) -> bool {
    let mut words = line.splitn(4, |&byte| byte == b' ');
    let time = words.next().and_then(adtally_model::time::parse_rfc3339);
    let (stream, tag) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    time.is_some() && (stream == b"stdout" || stream == b"stderr") && (tag == b"F" || tag == b"P")
}

/// Whether the first few lines together are one object.
fn is_spread(text: &[u8]) -> bool {
    let ends = memchr::memchr_iter(b'\n', text).chain([text.len()]).take(SPREAD_LINES_MAX);
    // Only a line that ends with a brace can be the last.
    let mut wholes = ends.map(|end| text[..end].trim_ascii_end()).filter(|text| text.ends_with(b"}"));
    wholes.any(is_object)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn utf_16(text: &str, order: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(order).collect()
    }

    /// A header as `tar` writes it.
    fn tar() -> Vec<u8> {
        let mut header = vec![0; 1_024];
        header[..5].copy_from_slice(b"a.log");
        header[100..108].copy_from_slice(b"0000644\0");
        header[257..263].copy_from_slice(b"ustar\0");
        header[148..156].copy_from_slice(b"        ");
        let sum: u32 = header[..512].iter().map(|&byte| u32::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        header
    }

    #[test]
    fn what_is_no_log_is_named() {
        let line = "{\"click_timestamp\":1767225600000,\"ad_id\":7}\n";
        for (first, expected) in [
            (b"PK\x03\x04\x14\0".to_vec(), "a zip archive"),
            (tar(), "a tar archive"),
            (b"BZh91AY&SYabc".to_vec(), "compressed by bzip2"),
            (b"\xfd7zXZ\0\0\x04".to_vec(), "compressed by xz"),
            (b"\x04\x22\x4d\x18\x64".to_vec(), "compressed by lz4"),
            (b"\xff\x06\0\0sNaPpY\x01".to_vec(), "compressed by snappy"),
            (b"PAR1\x15\x04".to_vec(), "a Parquet file"),
            (utf_16(line, u16::to_le_bytes), "text in UTF-16"),
            (utf_16(line, u16::to_be_bytes), "text in UTF-16"),
            (utf_16(&format!("\u{feff}{line}"), u16::to_le_bytes), "text in UTF-16"),
            (utf_16(&format!("\u{feff}{line}"), u16::to_be_bytes), "text in UTF-16"),
        ] {
            assert_eq!(of_file(&first).map(|foreign| foreign.name), Some(expected), "{}", first.escape_ascii());
            assert_eq!(of_text(&first), of_file(&first));
        }
        for compressed in [&b"\x1f\x8b\x08\0"[..], b"\x28\xb5\x2f\xfd\x04"] {
            assert_eq!(of_file(compressed), None);
            assert_eq!(of_text(compressed).map(|foreign| foreign.name), Some("compressed twice"));
        }
    }

    #[test]
    fn what_may_become_a_log_is_none_of_them() {
        for first in [
            &b""[..],
            b"P",
            b"PK",
            b"PK,ad_id,ip\n",
            b"PAR1,ad_id,ip\n",
            b"BZh9,ad_id,ip\n",
            b"Rar!,ad_id\n",
            b"ORC,ad_id\n",
            b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0{\"ad_id\":7}\n",
            b"{\"ad_id\":7}\n\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            b"{\0\"\0",
            b"\xef\xbb\xbf{\"ad_id\":7}\n",
            b"\xff{\"ad_id\":7}\n",
            b"\x1f garbage\n",
        ] {
            assert_eq!(of_file(first), None, "{}", first.escape_ascii());
        }
        let mut lines = tar();
        lines[0] = b'b';
        assert_eq!(of_file(&lines), None, "its sum is another");
    }

    #[test]
    fn lines_in_other_forms_are_named() {
        let name = |text: &str| of_lines(text.as_bytes()).map(|foreign| foreign.name);
        let pretty = "{\n  \"ad_id\": 7,\n  \"more\": {\n    \"a\": 1\n  }\n}\n{\n  \"ad_id\": 8\n}\n";
        assert_eq!(name(pretty), Some("JSON with an object over several lines"));
        assert_eq!(name("{ \"ad_id\": 7,\n \"ip\": \"::1\" }"), Some("JSON with an object over several lines"));
        assert_eq!(name("\u{feff}[{\"ad_id\":7},\n{\"ad_id\":8}]\n"), Some("a JSON array"));
        assert_eq!(name("[\n  {\n"), Some("a JSON array"));
        let docker = "{\"log\":\"{\\\"ad_id\\\":7}\\n\",\"stream\":\"stdout\",\"time\":\"2026-01-01T00:00:00.1Z\"}\n";
        assert_eq!(name(docker), Some("a log of Docker's json-file driver"));
        for cri in ["2026-01-01T00:00:00.000Z stdout F {\"ad_id\":7}\n", "2026-01-01T00:00:00.1+01:00 stderr P x"] {
            assert!(name(cri).is_some_and(|name| name.contains("CRI")), "{cri}");
        }
        for log in [
            "",
            "{\"ad_id\":7}\n{\"ad_id\":8}\n",
            "{\"log\":\"x\",\"ad_id\":7,\"stream\":\"a\"}\n",
            "{broken\n{\"ad_id\":7}\n",
            "ad_id,ip\n7,::1\n",
            "2026-01-01T00:00:00.000Z,stdout,F\n",
            "hello\n",
        ] {
            assert_eq!(name(log), None, "{log}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn text_is_never_refused(text in "\\PC{0,600}", newline in 0_usize..600) {
            let mut text = text.into_bytes();
            text.insert(newline.min(text.len()), b'\n');
            // A character may be cut in two, which may also happen in a log.
            prop_assert_eq!(of_file(&text), None);
        }
    }
}
