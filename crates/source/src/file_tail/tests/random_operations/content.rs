//! The content of a file, parsed independently of the tailer.

use std::io::Read;

/// A run of this many NUL bytes ends the text before it.
const NUL_RUN: usize = 64;

/// A whole line.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Line(pub(super) String);

impl Line {
    pub(super) fn of(text: &[u8]) -> Line {
        Line(String::from_utf8_lossy(text).into_owned())
    }
}

/// A piece of text between line endings or NUL bytes.
pub(super) struct Piece<'a> {
    pub(super) text: &'a [u8],
    /// Offset after it, including its line ending.
    pub(super) end: usize,
    /// Whether a line ending follows.
    pub(super) ends: bool,
}

/// The text of a file: for a compressed one, the part that can be decoded.
pub(super) fn text(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    if bytes.starts_with(&[0x1f, 0x8b]) {
        // Text before an error counts.
        let mut decoder = flate2::read::MultiGzDecoder::new(bytes);
        let mut piece = [0; 256];
        while let Ok(len @ 1..) = decoder.read(&mut piece) {
            text.extend_from_slice(&piece[..len]);
        }
        return text;
    }
    if bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let mut decoder = zstd::stream::read::Decoder::new(bytes).expect("a decoder");
        let mut piece = [0; 256];
        while let Ok(len @ 1..) = decoder.read(&mut piece) {
            text.extend_from_slice(&piece[..len]);
        }
        return text;
    }
    bytes.to_vec()
}

/// The pieces of a text, without empty ones. NUL bytes at the beginning of a line are not part of it.
pub(super) fn pieces(text: &[u8]) -> impl Iterator<Item = Piece<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            at += text[at..].iter().take_while(|&&byte| byte == 0).count();
            if at >= text.len() {
                return None;
            }
            let start = at;
            let (mut nuls, mut len) = (0, 0);
            let rest = &text[start..];
            let mut ends = false;
            for &byte in rest {
                if byte == b'\n' {
                    ends = true;
                    break;
                }
                nuls = if byte == 0 { nuls + 1 } else { 0 };
                len += 1;
                if nuls == NUL_RUN {
                    len -= NUL_RUN;
                    break;
                }
            }
            at = start + len + usize::from(ends);
            // NUL bytes up to the end of the file are not written yet.
            let text = if ends || start + len < text.len() {
                &rest[..len]
            } else {
                let kept = rest.iter().rposition(|&byte| byte != 0).map_or(0, |at| at + 1);
                &rest[..kept]
            };
            if !text.is_empty() {
                return Some(Piece { text, end: at, ends });
            }
        }
    })
}
