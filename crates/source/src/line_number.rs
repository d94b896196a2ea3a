//! Text of a file for people: opens it whatever its compression, and converts positions to line numbers.

use crate::compression::{Compression, Magic, magic};
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// The number, from 1, of the line that contains the byte at `position` of a file's uncompressed text; `None` if the
/// file cannot be read that far (any more).
pub fn line_number(path: &Path, position: u64) -> Option<u64> {
    count(open_text(path).ok()?, position)
}

/// Opens a file's uncompressed text, whatever its compression.
///
/// # Errors
/// The error of the file system.
pub fn open_text(path: &Path) -> std::io::Result<Box<dyn Read>> {
    let mut file = BufReader::with_capacity(1 << 16, File::open(path)?);
    Ok(match magic(file.fill_buf()?) {
        Magic::Compressed(Compression::Gzip) => Box::new(MultiGzDecoder::new(file)),
        Magic::Compressed(Compression::Zstd) => Box::new(zstd::stream::read::Decoder::with_buffer(file)?),
        Magic::Plain | Magic::Undecided => Box::new(file),
    })
}

fn count(text: impl Read, position: u64) -> Option<u64> {
    let mut before = text.take(position);
    let mut buffer = vec![0; 1 << 16];
    let (mut lines, mut read) = (1, 0);
    loop {
        match before.read(&mut buffer).ok()? {
            0 => return (read == position).then_some(lines),
            len => {
                lines += memchr::memchr_iter(b'\n', &buffer[..len]).count() as u64;
                read += len as u64;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn lines_are_counted_in_the_uncompressed_text() {
        let text = b"one\n\nthree\nfour";
        let folder = tempfile::tempdir().unwrap();
        let plain = folder.path().join("plain");
        std::fs::write(&plain, text).unwrap();
        let gzip = folder.path().join("gzip");
        let mut encoder = flate2::write::GzEncoder::new(File::create(&gzip).unwrap(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap();
        let zstd = folder.path().join("zstd");
        // After a skippable frame, as parallel compressors write it.
        let frame = [&[0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 9], &*zstd::bulk::compress(text, 1).unwrap()].concat();
        std::fs::write(&zstd, frame).unwrap();
        for path in [plain, gzip, zstd] {
            let check = |position, expected| assert_eq!(line_number(&path, position), expected, "{path:?} {position}");
            check(0, Some(1));
            check(4, Some(2));
            check(5, Some(3));
            check(11, Some(4));
            check(100, None);
        }
    }
}
